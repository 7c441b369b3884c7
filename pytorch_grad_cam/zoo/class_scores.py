"""What a model's outputs say of classes: how many there are, what they are called, and how likely each is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import apply, image_of, with_image
from pytorch_grad_cam.engine.probabilities import origins
from pytorch_grad_cam.engine.scores import Undecided
from pytorch_grad_cam.engine.trees import copied
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget

Probabilities = str | Callable[[torch.Tensor], torch.Tensor] | None

_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda outputs: outputs.softmax(-1),
    "sigmoid": torch.sigmoid,
    "exp": torch.exp,
    "none": lambda outputs: outputs,
}
GIVEN = ("softmax", "sigmoid", "none")
_LAST_STEPS = {"Softmax": "none", "Sigmoid": "none", "LogSoftmax": "exp"}
_LINEAR = {"Add", "Addmm", "Addbmm", "Baddbmm", "Bmm", "Convolution", "Linear", "Mm", "Mul", "Sub"}
_ROUNDING = 1e-2  # of a probability, in half precision
_SUMS_TO_ONE = 1e-3  # what several logits do not add up to by chance


class ClassScores(NamedTuple):
    """How outputs (N, outputs) of a model are read. One output alone speaks for class 1, and against class 0.

    classes: how many. said: what the probabilities are. is_single: whether one output stands for two classes.
    function: from outputs to probabilities. are_probabilities: whether outputs are those already.
    """

    classes: int
    said: str
    is_single: bool
    function: Callable[[torch.Tensor], torch.Tensor]
    are_probabilities: bool

    def scores(self, outputs: torch.Tensor) -> torch.Tensor:
        """What classes are ranked by: (N, classes)."""
        if not self.is_single:
            return outputs
        return torch.cat([1 - outputs if self.are_probabilities else -outputs, outputs], dim=1)

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Those of all classes, float32 (N, classes)."""
        probabilities = self.function(outputs.float())
        return torch.cat([1 - probabilities, probabilities], dim=1) if self.is_single else probabilities

    def target(self, category: int) -> Any:
        """What a CAM is asked for a class: of one output alone that output or its negative."""
        return BinaryClassifierOutputTarget(category) if self.is_single else category


def followed_outputs(
    model: nn.Module, inputs: Any, output_transform: Callable[[Any], Any], spatial_from: Any = None
) -> Any:
    """What the model returns for inputs, with the graph from the image, by `output_transform`."""
    with undisturbed(model):
        image = image_of(inputs, spatial_from)
        followed = with_image(copied(inputs), image.detach().clone().requires_grad_(), spatial_from)
        return output_transform(apply(model, followed))


def class_scores_of(model: nn.Module, outputs: Any, probabilities: Probabilities = None) -> ClassScores:
    """How the outputs of a model are read. outputs: of one image, with their graph, see `followed_outputs`.

    probabilities: 'softmax', 'sigmoid', 'none' (the outputs are probabilities), or a callable from the outputs. None:
    by what computed them, a softmax or a sigmoid, which is not applied twice; by the task of a transformers
    configuration; else the softmax, of one output the sigmoid, is assumed.
    Raises ValueError for outputs that are no class scores (N, classes) and for other values of `probabilities`.
    """
    if isinstance(probabilities, str) and probabilities not in GIVEN:
        raise ValueError(f"probabilities is {probabilities!r}: pass {', '.join(map(repr, GIVEN))} or a callable")
    if isinstance(outputs, Undecided):
        raise ValueError(outputs.why)
    if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2:
        described = f"{tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ValueError(
            f"{type(model).__name__} gives no class scores (N, classes), but {described}: pass an output_transform to "
            "them, or take the CAM classes, whose targets are any function of the output"
        )
    task = getattr(getattr(model, "config", None), "problem_type", None)
    is_single = outputs.shape[1] == 1 and task != "regression" and probabilities != "none"
    kind, said = _kind(outputs, probabilities, task)
    function = probabilities if callable(probabilities) else _FUNCTIONS[kind]
    return ClassScores(2 if is_single else outputs.shape[1], said, is_single, function, kind == "none")


def _kind(outputs: torch.Tensor, given: Probabilities, task: str | None) -> tuple[str, str]:
    if callable(given):
        return "", "by the given function"
    if given is not None:
        return given, "the outputs, as given" if given == "none" else f"the {given} of the outputs, as given"
    if task in ("multi_label_classification", "regression"):
        kind = "none" if task == "regression" else "sigmoid"
        return kind, f"the outputs' {kind}, by the configuration's task, {task}"
    steps = {type(node).__name__.partition("Backward")[0] for node in origins(outputs.grad_fn)}
    if len(steps) == 1 and (kind := _LAST_STEPS.get(*steps)):
        return kind, "the model's own" + (", of its logarithms" if kind == "exp" else "")
    if _look_like_probabilities(outputs) and (not steps & _LINEAR or _add_up_to_one(outputs)):
        return "none", "the outputs, which look like probabilities (assumed)"
    if outputs.shape[1] == 1:
        return "sigmoid", "the sigmoid of the one output (assumed)"
    return "softmax", "the softmax of the outputs (assumed; of several labels an image it is the sigmoid)"


def _look_like_probabilities(outputs: torch.Tensor) -> bool:
    values = outputs.detach().float()
    return bool((values.amin() >= 0) & (values.amax() <= 1 + _ROUNDING))


def _add_up_to_one(outputs: torch.Tensor) -> bool:
    of_rows = outputs.detach().float().sum(1)
    return outputs.shape[1] > 1 and bool(((of_rows - 1).abs() < _SUMS_TO_ONE).all())
