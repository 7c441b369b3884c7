#!/usr/bin/env bash
# Guess: torch.nn.functional.hardsigmoid, which is linear in pieces, can be differentiated twice like its kin: relu6,
#   hardtanh, hardshrink, and hardswish, which MobileNetV3 has it beside, give a second derivative, zero where they are
#   linear.
# What happens: the first derivative is there; the second raises "derivative for aten::hardsigmoid_backward is not
#   implemented". It alone does: a gradient penalty, or a Hessian times a vector, of MobileNetV3 and LCNet fails by it.
# Version: torch 2.14.1, CPU. Source: tools/autograd/derivatives.yaml has hardswish_backward and no hardsigmoid_backward.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import torch
import torch.nn.functional as F


def second_derivative(function):
    x = torch.linspace(-1, 1, 4, requires_grad=True)
    (slope,) = torch.autograd.grad((x * function(x)).sum(), x, create_graph=True)
    try:
        return torch.autograd.grad(slope.sum(), x)[0].tolist()
    except RuntimeError as error:
        return str(error)


found = {f.__name__: second_derivative(f) for f in (F.relu6, F.hardtanh, F.hardshrink, F.hardswish, F.hardsigmoid)}
for name, value in found.items():
    print(f"second derivative of x * {name}(x):", value)
*others, last = found.values()
assert all(isinstance(value, list) for value in others)
assert last == "derivative for aten::hardsigmoid_backward is not implemented"
PYTHON
