#!/usr/bin/env bash
# Guess: a forward hook that a user registers on a layer of a model of transformers sees, and replaces, what the rest of
#   the model reads, on a fresh model and on a used one alike.
# What happens: models that collect hidden states do so by forward hooks of the library's own, which it installs at the
#   first forward that asks for them and never removes. A hook that is registered later runs behind them: what it returns
#   goes on to the next layer, but the collected hidden states, which the head of a segmentation network reads again, are
#   those from before. With register_forward_hook(..., prepend=True) both are replaced.
# Version: transformers 5.24.0, torch 2.14.1. Source: transformers/utils/output_capturing.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet torch==2.14.1 transformers==5.24.0 numpy==2.4.6
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

config = SegformerConfig(
    depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 8, 8], num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=8, num_labels=3
)
image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def zeros(module, inputs, output):
    return torch.zeros_like(output) if isinstance(output, torch.Tensor) else (torch.zeros_like(output[0]), *output[1:])


def scores(used, **how):
    """The scores where a hook on the first stage returns zeros."""
    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        if used:
            model(image)
        model.segformer.stages[0].register_forward_hook(zeros, **how)
        return model(image).logits


fresh, used = scores(used=False), scores(used=True)
in_front = scores(used=True, prepend=True)
print("largest difference between a fresh and a used model:", float((fresh - used).abs().max()))
print("... with the hook in front:", float((fresh - in_front).abs().max()))
assert (fresh - used).abs().max() > 1e-4
assert (fresh - in_front).abs().max() < 1e-6
PYTHON
