"""The methods by what they are made of."""

from typing import Any

import pytorch_grad_cam
from pytorch_grad_cam import BaseCAM, MetaCAM
from pytorch_grad_cam.attention.attention_cam import AttentionCAM

FAMILIES = {
    "gradients": "By gradients of the layer",
    "scores": "By other images, activations and weights",
    "attention": "By attention weights, for transformers",
    "any class": "For no class in particular",
    "around": "Around another method",
    "others": "Beside maps of layers",
}
_NO_CAMS = ("GuidedBackpropReLUModel", "DeepFeatureFactorization", "TAM")


def methods() -> dict[str, list[Any]]:
    """The classes of methods by family."""
    found: dict[str, list[Any]] = {family: [] for family in FAMILIES}
    for name in sorted(pytorch_grad_cam.__all__, key=str.lower):
        value = getattr(pytorch_grad_cam, name)
        if isinstance(value, type) and value not in (BaseCAM, MetaCAM):
            if issubclass(value, BaseCAM | MetaCAM):
                found[_family(value)].append(value)
            elif name in _NO_CAMS:
                found["others"].append(value)
    return found


def _family(method: Any) -> str:
    if issubclass(method, MetaCAM):
        return "around"
    if issubclass(method, AttentionCAM):
        return "attention"
    if not getattr(method, "uses_targets", True):
        return "any class"
    return "gradients" if method.uses_gradients else "scores"
