"""Why pixels got their class: `python usage_examples/segmentation_example.py --image-path photo.jpg`.

The same calls explain segmenters of transformers (SegFormer, Mask2Former), segmentation-models-pytorch and MONAI.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.models.segmentation import deeplabv3_resnet50

from pytorch_grad_cam import GradCAM, HiResCAM, LayerCAM, SegmentationTarget, SegXResCAM
from pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image

METHODS = {"gradcam": GradCAM, "hirescam": HiResCAM, "layercam": LayerCAM, "segxrescam": SegXResCAM}

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/digits_6_and_4.png"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--image-path", default=EXAMPLE)
parser.add_argument("--method", choices=METHODS, default="gradcam")
parser.add_argument("--target-category", type=int, help="class index (default: the most frequent but background)")
parser.add_argument("--point", type=int, nargs=2, metavar=("Y", "X"), help="the object at this pixel of 224 x 224")
parser.add_argument("--weights", choices=("default", "none"), default="default", help="none: random, without a network")
parser.add_argument("--device", default="cpu")
parser.add_argument("--aug-smooth", action="store_true", help="not with --point, which lies elsewhere when flipped")
parser.add_argument("--eigen-smooth", action="store_true")
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()

weights = {"weights": "DEFAULT"} if options.weights == "default" else {"weights": None, "weights_backbone": None}
model = deeplabv3_resnet50(**weights).to(options.device).eval()
image = np.asarray(Image.open(options.image_path).convert("RGB").resize((224, 224)))
input_tensor = preprocess_image(image, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]).to(options.device)

with torch.no_grad():
    predicted = model(input_tensor)["out"][0].argmax(0)
if options.point:
    target = SegmentationTarget(options.target_category, mask="predicted", point=options.point)
elif options.target_category is not None:
    target = SegmentationTarget(options.target_category)
else:
    things = predicted[predicted > 0]
    target = SegmentationTarget(int(things.mode().values) if len(things) else 0)

with METHODS[options.method](model) as cam:
    grayscale_cam = cam(input_tensor, target, aug_smooth=options.aug_smooth, eigen_smooth=options.eigen_smooth)[0]
    print(f"{target} at {cam.location}")

options.output_dir.mkdir(parents=True, exist_ok=True)
file = options.output_dir / f"segmentation_{options.method}_cam.jpg"
Image.fromarray(show_cam_on_image(image, grayscale_cam, use_rgb=True)).save(file)
print(f"wrote {file}")
