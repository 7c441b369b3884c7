#!/usr/bin/env bash
# Guess: behind the embeddings of a ViLT the patches lie in the order in which they lie in the image, behind the words, so
#   that the layers of its encoder have a map.
# What happens: in each forward, in evaluation mode too, the patches of an image without padding are taken in an order that
#   torch.multinomial draws, without replacement. The answer hardly depends on it, as each patch brings its position along;
#   but the tokens of the same image lie elsewhere each time. The last map in place is that of the patch embedding.
# Version: transformers 5.24.0, torch 2.14.1. Source: transformers/models/vilt/modeling_vilt.py, ViltEmbeddings.visual_embed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet torch==2.14.1 transformers==5.24.0 numpy==2.4.6
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import torch
from transformers import ViltConfig, ViltModel

torch.manual_seed(0)
config = ViltConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8, vocab_size=50
)
model = ViltModel(config).eval()
inputs = {
    "input_ids": torch.tensor([[1, 5, 8]]),
    "attention_mask": torch.ones(1, 3, dtype=torch.long),
    "pixel_values": torch.randn(1, 3, 32, 32),
}
with torch.no_grad():
    first, second = (model(**inputs).last_hidden_state[0, 4:] for _ in range(2))  # behind 3 words and a class token
sorted_alike = torch.allclose(first.sort(0).values, second.sort(0).values, atol=1e-4)
print("the same image twice, largest difference of its tokens:", float((first - second).abs().max()))
print("... of the same tokens in another order:", sorted_alike)
assert (first - second).abs().max() > 1e-2
assert sorted_alike
PYTHON
