#!/usr/bin/env bash
# Guess: timm's set_grad_checkpointing(True) saves memory in training; in evaluation mode the model runs as without it,
#   as transformers' gradient_checkpointing_enable() has it, so that a hook within a block runs once in a call.
# What happens: the blocks are checkpointed in evaluation mode, too, wherever gradients are on: a backward runs them
#   again, with their hooks. What a hook within a block has kept from the forward is joined by the same once more. A hook
#   on the block itself runs once all the same: the second run ends as soon as it has what the backward needs.
# Version: timm 1.0.31, transformers 5.24.0, torch 2.14.1. Source: timm/models/vision_transformer.py, forward_features
#   ("elif self.grad_checkpointing"); transformers/modeling_layers.py asks for self.training.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6 timm==1.0.31 transformers==5.24.0
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import timm
import torch
from transformers import ViTConfig, ViTForImageClassification


def runs(model, layer, image):
    """How often a hook on the layer runs in the forward, and with the backward."""
    count = []
    layer.register_forward_hook(lambda *_: count.append(1))
    output = model(image)
    forward = len(count)
    getattr(output, "logits", output).sum().backward()
    return forward, len(count)


def of_timm(name):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2).eval()
    model.set_grad_checkpointing(True)
    return runs(model, model.get_submodule(name), torch.randn(1, 3, 32, 32))


def of_transformers():
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    model = ViTForImageClassification(config).eval()
    model.gradient_checkpointing_enable()
    layer = next(module for name, module in model.named_modules() if name.endswith("layernorm_before"))
    return runs(model, layer, torch.randn(1, 3, 32, 32))


print("timm, a block's norm: runs in the forward, and with the backward:", of_timm("blocks.0.norm1"))
print("... the block itself:", of_timm("blocks.0"))
print("transformers, a layer's norm:", of_transformers())
assert of_timm("blocks.0.norm1") == (1, 2)
assert of_timm("blocks.0") == (1, 1)
assert of_transformers() == (1, 1)
PYTHON
