"""Maps as even tiles and where their cells look: `python usage_examples/registration_example.py`."""

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.demo import load_digits_net, preprocess_scene
from pytorch_grad_cam.demo.scenes import make_scene
from pytorch_grad_cam.registration import registration_of
from pytorch_grad_cam.utils.image import show_cam_on_image

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--scenes", type=int, default=4)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()

SIDE = 256
model = load_digits_net()
rng = np.random.default_rng(options.seed)
scenes = [make_scene(rng) for _ in range(max(options.scenes, 8))]
# What is measured with several images is kept for the model, the layer and the size.
print(registration_of(model, "layer4", preprocess_scene(np.stack([scene.image for scene in scenes]))))
columns = []
for scene in scenes[: options.scenes]:
    input_tensor = preprocess_scene(scene.image)
    label, (left, top, right, bottom) = int(scene.labels[0]), scene.boxes[0] * (SIDE // 64)
    pictures = []
    for align in ("cell", "receptive_field"):
        with GradCAM(model, align=align) as cam:
            heat = cam(input_tensor, label)[0]
        picture = show_cam_on_image(scene.image, heat, use_rgb=True)
        picture = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        y, x = (np.array(np.unravel_index(heat.argmax(), heat.shape)) + 0.5) * (SIDE // 64)
        cv2.rectangle(picture, (int(left), int(top)), (int(right) - 1, int(bottom) - 1), (255, 255, 255), 2)
        cv2.drawMarker(picture, (int(x), int(y)), (255, 255, 255), cv2.MARKER_CROSS, 18, 2)
        pictures.append(picture)
    columns.append(np.vstack(pictures))

options.output_dir.mkdir(parents=True, exist_ok=True)
file = options.output_dir / "registration.png"
Image.fromarray(np.hstack(columns)).save(file)
print(f"wrote {file}")
