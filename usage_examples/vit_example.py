"""Heat maps of a vision transformer: `python usage_examples/vit_example.py --image-path photo.jpg`."""

import argparse
from pathlib import Path

import numpy as np
import timm
from PIL import Image

from pytorch_grad_cam import EigenCAM, GradCAM, LayerCAM
from pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image

METHODS = {"gradcam": GradCAM, "layercam": LayerCAM, "eigencam": EigenCAM}

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/digits_6_and_4.png"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--image-path", default=EXAMPLE)
parser.add_argument("--method", choices=METHODS, default="layercam")
parser.add_argument("--target-category", type=int, help="class index (default: the highest)")
parser.add_argument("--weights", choices=("default", "none"), default="default", help="none: random, without a network")
parser.add_argument("--device", default="cpu")
parser.add_argument("--aug-smooth", action="store_true")
parser.add_argument("--eigen-smooth", action="store_true")
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()

model = timm.create_model("vit_small_patch16_224", pretrained=options.weights == "default").to(options.device)
image = np.asarray(Image.open(options.image_path).convert("RGB").resize((224, 224)))
input_tensor = preprocess_image(image, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])

# The layer is found: the last one whose patch tokens still reach the class token, the norm before the last attention.
# By hand: target_layers=[model.blocks[-1].norm1], reshape_transform=vit_reshape_transform
with METHODS[options.method](model) as cam:
    grayscale_cam = cam(
        input_tensor, options.target_category, aug_smooth=options.aug_smooth, eigen_smooth=options.eigen_smooth
    )[0]
    print(f"target layer: {cam.location}")

options.output_dir.mkdir(parents=True, exist_ok=True)
file = options.output_dir / f"vit_{options.method}_cam.jpg"
Image.fromarray(show_cam_on_image(image, grayscale_cam, use_rgb=True)).save(file)
print(f"wrote {file}")
