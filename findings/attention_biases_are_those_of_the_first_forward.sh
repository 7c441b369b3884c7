#!/usr/bin/env bash
# Guess: a model in evaluation mode answers by the parameters that it has: after load_state_dict, or where the parameters
#   are changed in place, as to randomise them layer by layer, it answers by the new ones.
# What happens: TinyViT (and LeViT and EfficientFormer) of timm keep the attention biases, gathered from a parameter, at
#   the first forward in evaluation mode, one for each device. Parameters that are loaded later change everything but
#   these, until train() or eval() is called once more. After a first forward under no_grad no gradient reaches them.
# Version: timm 1.0.31, torch 2.14.1. Source: timm/models/tiny_vit.py, Attention.get_attention_biases.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6 timm==1.0.31
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import timm
import torch


def network(seed):
    """With attention biases as strong as trained ones may be."""
    torch.manual_seed(seed)
    model = timm.create_model("tiny_vit_5m_224", num_classes=5).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("attention_biases"):
            torch.nn.init.normal_(parameter, std=3)
    return model


image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
used, other = network(0), network(1)
with torch.no_grad():
    used(image)
    used.load_state_dict(other.state_dict())
    expected, stale = other(image), used(image)
fresh = network(0)
used(image).sum().backward()
fresh(image).sum().backward()
of_used, of_fresh = (
    [parameter.grad is not None for name, parameter in model.named_parameters() if name.endswith("attention_biases")]
    for model in (used, fresh)
)
with torch.no_grad():
    cleared = used.eval()(image)
difference = float((stale - expected).abs().max() / expected.abs().max())
print("the same parameters, loaded after a forward: largest difference of the scores, in the largest score:", difference)
print("... after one more eval():", float((cleared - expected).abs().max()))
print("attention biases with a gradient:", sum(of_used), "of", len(of_used), "; in a fresh model:", sum(of_fresh))
assert difference > 1e-3
assert torch.allclose(cleared, expected, atol=1e-5)
assert not any(of_used)
assert all(of_fresh)
PYTHON
