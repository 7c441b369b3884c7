"""Where CLIP sees each text: `python usage_examples/clip_example.py --image-path photo.jpg --texts "a cat" "a dog"`."""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from pytorch_grad_cam import EigenCAM, GradCAM, LayerCAM
from pytorch_grad_cam.utils.image import preprocess_image, show_cam_on_image

METHODS = {"gradcam": GradCAM, "layercam": LayerCAM, "eigencam": EigenCAM}

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/digits_6_and_4.png"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--image-path", default=EXAMPLE)
parser.add_argument("--texts", nargs="+", default=["a photo of the number six", "a photo of the number four"])
parser.add_argument("--method", choices=METHODS, default="gradcam")
parser.add_argument("--weights", choices=("default", "none"), default="default", help="none: random, without a network")
parser.add_argument("--device", default="cpu")
parser.add_argument("--aug-smooth", action="store_true")
parser.add_argument("--eigen-smooth", action="store_true")
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()


class ImageTextScores(torch.nn.Module):
    """CLIP as a classifier of images whose classes are the texts: (N, 3, 224, 224) to (N, texts)."""

    def __init__(self, clip: CLIPModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("input_ids", input_ids)
        self.register_buffer("attention_mask", attention_mask)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.clip(
            pixel_values=pixel_values, input_ids=self.input_ids, attention_mask=self.attention_mask
        ).logits_per_image


if options.weights == "default":
    clip = CLIPModel.from_pretrained("openai/clip-vit-base-patch32")
    tokens = CLIPTokenizer.from_pretrained("openai/clip-vit-base-patch32")(
        options.texts, padding=True, return_tensors="pt"
    )
    input_ids, attention_mask = tokens["input_ids"], tokens["attention_mask"]
else:  # the tokenizer's vocabulary is fetched like the weights: take the characters' codes
    clip = CLIPModel(CLIPConfig())
    input_ids = torch.tensor([[ord(letter) for letter in text.ljust(40)[:40]] for text in options.texts])
    attention_mask = torch.ones_like(input_ids)
model = ImageTextScores(clip, input_ids, attention_mask).to(options.device)

image = np.asarray(Image.open(options.image_path).convert("RGB").resize((224, 224)))
mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
input_tensor = preprocess_image(image, mean=mean, std=std)

# The last layer whose patch tokens still reach the class token: the norm before the last attention.
target_layers = [model.clip.vision_model.encoder.layers[-1].layer_norm1]
with METHODS[options.method](model, target_layers) as cam:
    maps = cam(
        input_tensor.expand(len(options.texts), -1, -1, -1),
        list(range(len(options.texts))),
        aug_smooth=options.aug_smooth,
        eigen_smooth=options.eigen_smooth,
    )

options.output_dir.mkdir(parents=True, exist_ok=True)
file = options.output_dir / f"clip_{options.method}_cam.jpg"
pictures = [show_cam_on_image(image, text_map, use_rgb=True) for text_map in maps]
Image.fromarray(np.hstack(pictures)).save(file)
print(f"wrote {file}")
