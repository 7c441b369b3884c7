"""What each box of a DETR rests on: `python usage_examples/detr_example.py --image-path photo.jpg`.

Any detector of transformers whose output has `logits` and `pred_boxes`: DETR, Conditional and Deformable DETR, RT-DETR,
D-FINE, YOLOS and others.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers import AutoImageProcessor, AutoModelForObjectDetection, RTDetrConfig, RTDetrForObjectDetection
from transformers.models.rt_detr.configuration_rt_detr_resnet import RTDetrResNetConfig

from pytorch_grad_cam import DetectionTarget, LayerCAM
from pytorch_grad_cam.utils.image import show_cam_on_image

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/digits_6_and_4.png"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--image-path", default=EXAMPLE)
parser.add_argument("--model", default="PekingU/rtdetr_r18vd")
parser.add_argument("--boxes", type=int, default=3, help="how many of the boxes with the highest scores to explain")
parser.add_argument("--weights", choices=("default", "none"), default="default", help="none: random, without a network")
parser.add_argument("--device", default="cpu")
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()

photo = Image.open(options.image_path).convert("RGB")
if options.weights == "default":
    processor = AutoImageProcessor.from_pretrained(options.model)
    model = AutoModelForObjectDetection.from_pretrained(options.model)
    images = processor(photo, return_tensors="pt")["pixel_values"]
else:
    resnet = RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 64, 128],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    model = RTDetrForObjectDetection(RTDetrConfig(backbone_config=resnet, encoder_in_channels=[32, 64, 128]))
    pixels = np.array(photo.resize((320, 320)))
    images = torch.from_numpy(pixels / 255).float().movedim(-1, 0)[None]
model = model.to(options.device).eval()

with LayerCAM(model) as cam:
    cam(images, 0)  # any class, to see what there is
    (predictions,) = cam.predictions
    found = min(len(predictions.detections()), options.boxes)
    # The k-th detection; where nothing is above the threshold, the best raw predictions of the first classes.
    targets = [DetectionTarget(number) for number in range(found)]
    maps = cam(images, [targets or list(range(options.boxes))])[0]

options.output_dir.mkdir(parents=True, exist_ok=True)
size = images.shape[3], images.shape[2]
image = np.asarray(photo.resize(size))
for number, grayscale_cam in enumerate(maps):
    which = targets[number].which(predictions) if targets else predictions.best(number)
    box = predictions.boxes[predictions.row_of(which)][0].tolist()
    picture = Image.fromarray(show_cam_on_image(image, grayscale_cam, use_rgb=True))
    ImageDraw.Draw(picture).rectangle(box, outline="white", width=2)
    file = options.output_dir / f"detr_{number}_layercam.jpg"
    picture.save(file)
    label = model.config.id2label[int(predictions.labels.expand_as(predictions.scores).flatten()[which])]
    score = predictions.scores.flatten()[which].item()
    print(f"wrote {file}: {label} with score {score:.2f} at {', '.join(f'{side:.0f}' for side in box)}")
