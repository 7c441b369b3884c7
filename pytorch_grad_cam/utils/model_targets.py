"""Targets: what of the model's output is to be explained.

A target is any callable from the output of one sample to a scalar tensor. The classes here are the common ones.
"""

import torch


class ClassifierOutputTarget:
    """The score of one class. category: its index; negative ones count from the end.

    >>> ClassifierOutputTarget(2)(torch.tensor([0.1, 0.7, 0.2]))
    tensor(0.2000)
    """

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        """The category's entry along the last axis of (classes,), or the column of (N, classes)."""
        return model_output[..., self.category]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.category})"


class ClassifierOutputSoftmaxTarget(ClassifierOutputTarget):
    """The probability of one class: the softmax of the logits. Evidence against the other classes counts too."""

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        """The category's softmax probability of logits (classes,), or of each row of (N, classes)."""
        return torch.softmax(model_output, dim=-1)[..., self.category]
