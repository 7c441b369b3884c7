"""What each of a detector's boxes rests on: `python usage_examples/detection_example.py --image-path photo.jpg`.

The same calls explain ultralytics' YOLOs (`YOLO("yolo11n.pt")` in the place of the model) and transformers' DETRs.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from pytorch_grad_cam import BoxTarget, DetectionTarget, HiResCAM, LayerCAM
from pytorch_grad_cam.utils.image import show_cam_on_image

# Methods with a weight for each position: those that average the gradient mark all objects that look alike.
METHODS = {"layercam": LayerCAM, "hirescam": HiResCAM}

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/digits_6_and_4.png"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--image-path", default=EXAMPLE)
parser.add_argument("--method", choices=METHODS, default="layercam")
parser.add_argument("--boxes", type=int, default=3, help="how many of the boxes with the highest scores to explain")
parser.add_argument("--box", type=float, nargs=4, metavar=("X0", "Y0", "X1", "Y1"), help="explain this place instead")
parser.add_argument("--label", type=int, help="with --box: as this class, found there or missed")
parser.add_argument("--weights", choices=("default", "none"), default="default", help="none: random, without a network")
parser.add_argument("--device", default="cpu")
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()

if options.weights == "default":
    model = fasterrcnn_mobilenet_v3_large_320_fpn(weights="DEFAULT")
else:  # random weights give low scores: keep all of them
    model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, box_score_thresh=0)
model = model.to(options.device).eval()
photo = Image.open(options.image_path).convert("RGB")
image = np.asarray(photo.resize([round(320 * side / min(photo.size)) for side in photo.size]))
images = [torch.from_numpy(image / 255).float().movedim(-1, 0)]

with torch.no_grad():
    found = len(model([images[0].to(options.device)])[0]["boxes"])
targets = [DetectionTarget(number) for number in range(min(found, options.boxes))]
if options.box:
    targets = [BoxTarget(options.box, options.label)]
if not targets:
    raise SystemExit("nothing was found: pass a --box")

with METHODS[options.method](model) as cam:
    maps = cam(images, [targets])[0]
    (predictions,) = cam.predictions

options.output_dir.mkdir(parents=True, exist_ok=True)
for number, (target, grayscale_cam) in enumerate(zip(targets, maps, strict=True)):
    which = target.which(predictions)
    box = predictions.boxes[predictions.row_of(which)][0].tolist()
    picture = Image.fromarray(show_cam_on_image(image, grayscale_cam, use_rgb=True))
    ImageDraw.Draw(picture).rectangle(box, outline="white", width=2)
    file = options.output_dir / f"detection_{number}_{options.method}_cam.jpg"
    picture.save(file)
    label, score = predictions.labels.flatten()[which].item(), predictions.scores.flatten()[which].item()
    print(f"wrote {file}: class {label} with score {score:.2f} at {', '.join(f'{side:.0f}' for side in box)}")
