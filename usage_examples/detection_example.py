"""What a detector's boxes rest on: `python usage_examples/detection_example.py --image-path photo.jpg`."""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from pytorch_grad_cam import AblationCAM, AblationLayerFasterRCNN, EigenCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import FasterRCNNBoxScoreTarget
from pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform

# Methods without gradients: the boxes that are left depend on choices (suppression, thresholds) that have none.
METHODS = {"eigencam": EigenCAM, "ablationcam": AblationCAM}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--image-path", default="examples/digits_6_and_4.png")
parser.add_argument("--method", choices=METHODS, default="eigencam")
parser.add_argument("--boxes", type=int, default=3, help="how many of the boxes with the highest scores to explain")
parser.add_argument("--ratio", type=float, default=0.1, help="ablationcam: the share of the channels to ablate")
parser.add_argument("--weights", choices=("default", "none"), default="default", help="none: random, without a network")
parser.add_argument("--device", default="cpu")
parser.add_argument("--aug-smooth", action="store_true")
parser.add_argument("--eigen-smooth", action="store_true")
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()

if options.weights == "default":
    model = fasterrcnn_mobilenet_v3_large_320_fpn(weights="DEFAULT")
else:  # random weights give low scores: keep all of them
    model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, box_score_thresh=0)
model = model.to(options.device).eval()
image = np.asarray(Image.open(options.image_path).convert("RGB").resize((320, 320)))
input_tensor = torch.from_numpy(image / 255).float().movedim(-1, 0)[None].to(options.device)

with torch.no_grad():
    (detections,) = model(input_tensor)
boxes = detections["boxes"][: options.boxes]  # the highest score first
labels = detections["labels"][: options.boxes].tolist()

arguments = {"reshape_transform": fasterrcnn_reshape_transform}
if options.method == "ablationcam":
    arguments |= {"ablation_layer": AblationLayerFasterRCNN(), "ratio_channels_to_ablate": options.ratio}
with METHODS[options.method](model, [model.backbone], **arguments) as cam:
    target = FasterRCNNBoxScoreTarget(labels, boxes, iou_threshold=0.5)
    grayscale_cam = cam(input_tensor, [target], aug_smooth=options.aug_smooth, eigen_smooth=options.eigen_smooth)[0]

picture = Image.fromarray(show_cam_on_image(image, grayscale_cam, use_rgb=True))
for box in boxes.tolist():
    ImageDraw.Draw(picture).rectangle(box, outline="white", width=2)
options.output_dir.mkdir(parents=True, exist_ok=True)
file = options.output_dir / f"detection_{options.method}_cam.jpg"
picture.save(file)
print(f"wrote {file}")
