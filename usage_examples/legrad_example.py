"""LeGrad and its kin on a vision transformer: `python usage_examples/legrad_example.py --image-path photo.jpg`."""

import argparse
from pathlib import Path

import numpy as np
import timm
from PIL import Image

from pytorch_grad_cam import AGCAM, AttentionRollout, GradECLIP, GradientRollout, LeGrad, TransMM
from pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image

METHODS = {
    "legrad": LeGrad,
    "gradeclip": GradECLIP,
    "transmm": TransMM,
    "agcam": AGCAM,
    "gradientrollout": GradientRollout,
    "attentionrollout": AttentionRollout,
}

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/digits_6_and_4.png"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--image-path", default=EXAMPLE)
parser.add_argument("--methods", nargs="+", choices=METHODS, default=["legrad", "gradeclip", "transmm"])
parser.add_argument("--target-category", type=int, help="class index (default: the highest)")
parser.add_argument("--blocks", type=int, help="how many of the last blocks (default: those of the method)")
parser.add_argument("--weights", choices=("default", "none"), default="default", help="none: random, without a network")
parser.add_argument("--device", default="cpu")
parser.add_argument("--aug-smooth", action="store_true")
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()

# Fused attention returns no weights: within the call they are computed, and the model is left as it was.
model = timm.create_model("vit_small_patch16_224", pretrained=options.weights == "default").to(options.device)
image = np.asarray(Image.open(options.image_path).convert("RGB").resize((224, 224)))
input_tensor = preprocess_image(image, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])

# The blocks are found; to name them: LeGrad(model, list(model.blocks)) takes all.
blocks = None if options.blocks is None else list(model.blocks)[-options.blocks :]
pictures = []
for name in options.methods:
    with METHODS[name](model, blocks) as cam:
        grayscale_cam = cam(input_tensor, options.target_category, aug_smooth=options.aug_smooth)[0]
        print(f"{name}: {len(cam.target_layers)} blocks, the last one is {cam.location}")
    pictures.append(show_cam_on_image(image, grayscale_cam, use_rgb=True))

options.output_dir.mkdir(parents=True, exist_ok=True)
file = options.output_dir / "legrad_cam.jpg"
Image.fromarray(np.hstack(pictures)).save(file)
print(f"wrote {file}")
