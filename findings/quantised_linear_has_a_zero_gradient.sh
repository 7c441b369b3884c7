#!/usr/bin/env bash
# Guess: a layer that torch.ao.quantization.quantize_dynamic has quantised has no derivative, so that a backward through
#   it raises, or its output does not require a gradient.
# What happens: its output requires a gradient, the backward succeeds, and the layer's input gets none. In a residual
#   block the gradient comes through the shortcut alone, and it looks like a gradient of the whole block.
# Version: torch 2.14.1, CPU. Source: torch/ao/nn/quantized/dynamic/modules/linear.py calls
#   torch.ops.quantized.linear_dynamic, for which autograd has a fallback only.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import torch
from torch import nn

torch.manual_seed(0)
linear = nn.Linear(4, 4)
quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear})
x = torch.randn(1, 4, requires_grad=True)


def gradient_of_block(layer):
    output = x + layer(x)
    (gradient,) = torch.autograd.grad(output.sum(), x)
    return output.requires_grad, gradient


whole = gradient_of_block(linear)[1]
requires_grad, found = gradient_of_block(quantised)
print("the quantised block's output requires a gradient:", requires_grad)
print("gradient of the block:", whole.tolist(), "; quantised:", found.tolist())
assert requires_grad
assert torch.equal(found, torch.ones(1, 4)), "the shortcut's gradient alone"
assert not torch.allclose(whole, found, atol=0.1)
PYTHON
