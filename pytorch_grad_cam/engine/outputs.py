"""What of a model's output the targets read."""

from collections.abc import Mapping
from typing import Any

import torch

_SCORE_KEYS = ("logits", "out", "logits_per_image", "pred_logits")


def scores_in(outputs: Any) -> Any:
    """The scores in a model's output.

    A tensor itself; of a mapping (transformers' ModelOutput, torchvision's segmentation models) or an object 'logits',
    'out', 'logits_per_image' or 'pred_logits', else its first tensor; of a tuple, or a list of tensors, what its first
    element has. Other lists, one entry a sample as detectors return them, stay as they are.

    >>> scores_in({"out": torch.zeros(2, 5), "aux": torch.ones(2, 5)}).shape
    torch.Size([2, 5])
    """
    if isinstance(outputs, torch.Tensor):
        return outputs
    for key in _SCORE_KEYS:
        if isinstance(outputs, Mapping) and key in outputs:
            return outputs[key]
        if isinstance(getattr(outputs, key, None), torch.Tensor):
            return getattr(outputs, key)
    if isinstance(outputs, Mapping):
        tensors = [value for value in outputs.values() if isinstance(value, torch.Tensor)]
        return tensors[0] if tensors else outputs
    if isinstance(outputs, tuple) and outputs:
        return scores_in(outputs[0])
    if isinstance(outputs, list) and outputs and isinstance(outputs[0], torch.Tensor):
        return outputs[0]
    return outputs
