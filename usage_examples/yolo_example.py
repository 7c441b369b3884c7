"""What each box of a YOLO rests on: `python usage_examples/yolo_example.py --image-path photo.jpg --model yolo11n.pt`.

Needs ultralytics (pip install ultralytics). The `YOLO(...)` object itself is explained, without a layer or a wrapper.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from ultralytics import YOLO

from pytorch_grad_cam import BoxTarget, DetectionTarget, LayerCAM
from pytorch_grad_cam.utils.image import show_cam_on_image

LONGEST, STRIDE = 640, 32

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/digits_6_and_4.png"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--image-path", default=EXAMPLE)
parser.add_argument("--model", default="yolo11n.pt")
parser.add_argument("--boxes", type=int, default=3, help="how many of the boxes with the highest scores to explain")
parser.add_argument("--weights", choices=("default", "none"), default="default", help="none: random, without a network")
parser.add_argument("--device", default="cpu")
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()

yolo = YOLO(options.model if options.weights == "default" else "yolo11n.yaml")
yolo.to(options.device)
photo = Image.open(options.image_path).convert("RGB")
scale = LONGEST / max(photo.size)
image = np.asarray(photo.resize([max(1, round(side * scale / STRIDE)) * STRIDE for side in photo.size]))
images = torch.from_numpy(image / 255).float().movedim(-1, 0)[None]

with LayerCAM(yolo) as cam:
    cam(images, 0)  # any class, to see what there is
    (predictions,) = cam.predictions
    found = min(len(predictions.detections()), options.boxes)
    targets = [DetectionTarget(number) for number in range(found)]
    if not targets:  # nothing is above the threshold: why is there nothing in the middle?
        height, width = predictions.size
        targets = [BoxTarget((width / 4, height / 4, 3 * width / 4, 3 * height / 4))]
    maps = cam(images, [targets])[0]

options.output_dir.mkdir(parents=True, exist_ok=True)
for number, (target, grayscale_cam) in enumerate(zip(targets, maps, strict=True)):
    which = target.which(predictions)
    row = predictions.row_of(which)
    box = predictions.boxes[row][0].tolist()
    picture = Image.fromarray(show_cam_on_image(image, grayscale_cam, use_rgb=True))
    ImageDraw.Draw(picture).rectangle(box, outline="white", width=3)
    file = options.output_dir / f"yolo_{number}_layercam.jpg"
    picture.save(file)
    label = yolo.names[int(predictions.labels.expand_as(predictions.scores).flatten()[which])]
    score = predictions.scores.flatten()[which].item()
    print(f"wrote {file}: {label} with score {score:.2f} at {', '.join(f'{side:.0f}' for side in box)}")
