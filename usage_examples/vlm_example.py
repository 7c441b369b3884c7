"""Where a vision-language model sees each word that it says:

python usage_examples/vlm_example.py --image-path photo.jpg --prompt "What is in this picture?"
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from pytorch_grad_cam import explain
from pytorch_grad_cam.demo import example_scene
from pytorch_grad_cam.demo.reader import PROMPT, ReaderProcessor, load_digits_reader

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--image-path", type=Path, help="none: the digits of the demo")
parser.add_argument("--prompt", default="Describe the picture in one sentence.")
parser.add_argument("--model", default="HuggingFaceTB/SmolVLM-256M-Instruct")
parser.add_argument("--words", type=int, default=32, help="the longest answer, in tokens")
parser.add_argument("--weights", choices=("default", "none"), default="default", help="none: the bundled reader")
parser.add_argument("--device", default="cpu")
parser.add_argument("--output-dir", type=Path, default=Path("output"))
options = parser.parse_args()

image = options.image_path or example_scene()
if options.weights == "default":
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(options.model)
    processor, prompt = AutoProcessor.from_pretrained(options.model), options.prompt
else:  # a small model that reads digits from left to right, without a network
    model, processor, prompt = load_digits_reader(), ReaderProcessor(), PROMPT

# One generation, and a map for each word; the page shows the sentence and the map of the word under the pointer.
explanation = explain(model.to(options.device), image, prompt=prompt, processor=processor, max_new_tokens=options.words)
print(f"{prompt} -> {explanation.said}")

options.output_dir.mkdir(parents=True, exist_ok=True)
print(f"wrote {explanation.report(options.output_dir / 'vlm_words.html')}")
pictures = [Image.fromarray(explanation.overlay(word)).resize((224, 224)) for word in range(len(explanation))]
file = options.output_dir / "vlm_words.jpg"
Image.fromarray(np.hstack(pictures)).save(file)
print(f"wrote {file}")
