"""Where CLIP sees each text: `python usage_examples/clip_example.py --image-path photo.jpg --texts "a cat" "a dog"`."""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from pytorch_grad_cam import EigenCAM, GradCAM, GradECLIP, LayerCAM, LeGrad, TextClassifier
from pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image

METHODS = {"legrad": LeGrad, "gradeclip": GradECLIP, "gradcam": GradCAM, "layercam": LayerCAM, "eigencam": EigenCAM}

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/digits_6_and_4.png"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--image-path", default=EXAMPLE)
parser.add_argument("--texts", nargs="+", default=["a photo of the number six", "a photo of the number four"])
parser.add_argument("--method", choices=METHODS, default="legrad")
parser.add_argument("--weights", choices=("default", "none"), default="default", help="none: random, without a network")
parser.add_argument("--device", default="cpu")
parser.add_argument("--aug-smooth", action="store_true")
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()


def letters(texts: list[str], **_: object) -> dict[str, torch.Tensor]:
    """In the place of a tokenizer, whose vocabulary is fetched like the weights: the codes of the characters."""
    input_ids = torch.tensor([[ord(letter) for letter in text.ljust(40)[:40]] for text in texts])
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


if options.weights == "default":
    clip = CLIPModel.from_pretrained("openai/clip-vit-base-patch32")
    processor = CLIPTokenizer.from_pretrained("openai/clip-vit-base-patch32")
else:
    clip, processor = CLIPModel(CLIPConfig()), letters

# CLIP as a classifier whose classes are the texts: every method explains it, all texts from one forward.
# In one line, with the model's processor: explain(clip, "photo.jpg", "legrad", ["a cat", "a dog"], processor=processor)
model = TextClassifier(clip.to(options.device), options.texts, processor)
image = np.asarray(Image.open(options.image_path).convert("RGB").resize((224, 224)))
mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
input_tensor = preprocess_image(image, mean=mean, std=std)

with METHODS[options.method](model) as cam:
    maps = cam(input_tensor, [list(range(len(options.texts)))], aug_smooth=options.aug_smooth)[0]
    print(f"target layer: {cam.location}")

options.output_dir.mkdir(parents=True, exist_ok=True)
file = options.output_dir / f"clip_{options.method}_cam.jpg"
pictures = [show_cam_on_image(image, text_map, use_rgb=True) for text_map in maps]
Image.fromarray(np.hstack(pictures)).save(file)
print(f"wrote {file}")
