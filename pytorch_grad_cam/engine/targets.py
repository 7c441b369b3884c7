"""From the many forms in which targets may be given to one score a sample."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pytorch_grad_cam.engine.maps import full_precision
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.trees import detached

Target = Callable[[Any], torch.Tensor]


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


@dataclass(frozen=True)
class TargetRule:
    """Targets that are chosen once the model's output is known: `choose(outputs)` gives one, or a list, a sample."""

    choose: Callable[[Any], Sequence[Target | Sequence[Target]]]


Targets = int | Target | Sequence[int | Target | Sequence[int | Target]] | torch.Tensor | np.ndarray | TargetRule | None


def chosen(targets: Targets, outputs: Any) -> Targets:
    """What a TargetRule chooses for the model's output; other targets as they are."""
    return targets.choose(detached(outputs)) if isinstance(targets, TargetRule) else targets


def several_an_image(targets: Targets) -> list[list[Any]] | None:
    """Targets that are as many for each image, (N, K) as lists, a tensor or an array, the other way round: K of (N,).

    None for targets that are one an image. Raises ValueError where images have different numbers of them.
    """
    if isinstance(targets, torch.Tensor | np.ndarray):
        targets = targets.tolist()
    if not isinstance(targets, list | tuple) or not any(isinstance(row, list | tuple) for row in targets):
        return None
    counts = {len(row) if isinstance(row, list | tuple) else None for row in targets}
    if len(counts) > 1 or counts == {0}:
        raise ValueError(f"targets of several classes an image are as many for each, not {targets!r}")
    return [list(column) for column in zip(*targets, strict=True)]


def resolve_targets(targets: Targets, outputs: Any) -> list[Target]:
    """One callable for each sample of the model's output.

    targets: None (each sample's highest class), a class index for all samples, one index a sample (list, tensor or
    array), a callable for all samples, a list of indices and callables, one a sample, or a TargetRule.

    Raises ValueError for a number of targets other than that of the samples, or when None is given for outputs that
    are not (N, classes); TypeError for other kinds; IndexError for a class that the output does not have.
    """
    samples = len(outputs)
    if targets is None:
        if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2:
            raise ValueError(f"targets=None needs class scores (N, classes), the model returned {_described(outputs)}")
        targets = outputs.argmax(1)
    targets = chosen(targets, outputs)
    if isinstance(targets, torch.Tensor | np.ndarray):
        targets = targets.tolist()
    if callable(targets) or isinstance(targets, int | np.integer):
        targets = [targets] * samples
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        raise TypeError(f"targets are class indices, callables, a list of them or None, not {targets!r}")
    if len(targets) != samples:
        raise ValueError(f"{len(targets)} targets for {samples} samples: give one for each, or a single one for all")
    resolved = [_resolve(target) for target in targets]
    if isinstance(outputs, torch.Tensor) and outputs.ndim == 1 and _plain_classes(resolved):
        raise IndexError(
            "the model gives one value a sample, not scores of classes: RawScoresOutputTarget() explains it, "
            "BinaryClassifierOutputTarget(0) its negative"
        )
    if isinstance(outputs, torch.Tensor) and outputs.ndim == 2:
        for category in _plain_classes(resolved):
            if not -outputs.shape[1] <= category < outputs.shape[1]:
                raise IndexError(f"class {category}: the model's output has {outputs.shape[1]} classes, from 0")
    return resolved


def target_scores(outputs: Any, targets: Sequence[Target]) -> torch.Tensor:
    """The targets' scores (N,), one a sample, in float32 or better. Plain class targets are gathered in one step.

    Raises TypeError when a target returns no tensor, ValueError when it returns more than one value.
    """
    classes = _plain_classes(targets)
    if _has_classes(outputs, len(classes)):
        return _class_scores(outputs, torch.tensor(classes, device=outputs.device))
    return torch.stack([_scalar(target, output) for target, output in zip(targets, outputs, strict=True)])


def scores_of_columns(outputs: Any, columns: Sequence[Sequence[Target]]) -> torch.Tensor:
    """The scores (K, N) of K lists of targets, each with one a sample, see `target_scores`."""
    return torch.stack([target_scores(outputs, column) for column in columns])


class RowScores:
    """Scores rows of N samples by K lists of N targets: each row by the targets of its sample.

    Plain classes go to the device here, once for all rows. Cost of the constructor: a copy to the device for each list.
    """

    def __init__(self, target_lists: Sequence[Sequence[Target]], device: torch.device) -> None:
        self._of_lists: list[tuple[Sequence[Target], torch.Tensor | None]] = []
        for targets in target_lists:
            classes = _plain_classes(targets)
            plain = len(classes) == len(targets)
            self._of_lists.append((targets, torch.tensor(classes, device=device) if plain else None))

    def __call__(self, outputs: Any, rows: Rows) -> torch.Tensor:
        """The scores (K, rows) of the model's output for the rows, in float32 or better. Raises as `target_scores`."""
        return torch.stack([self._by_one_list(outputs, rows, *of_list) for of_list in self._of_lists])

    @staticmethod
    def _by_one_list(outputs: Any, rows: Rows, targets: Sequence[Target], classes: torch.Tensor | None) -> torch.Tensor:
        if classes is not None and _has_classes(outputs, len(rows)):
            return _class_scores(outputs, classes[rows.index].to(outputs.device))
        pairs = zip(rows.samples, outputs, strict=True)
        return torch.stack([_scalar(targets[sample], output) for sample, output in pairs])


def _has_classes(outputs: Any, rows: int) -> bool:
    return isinstance(outputs, torch.Tensor) and outputs.ndim == 2 and len(outputs) == rows


def _class_scores(outputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    categories = classes.remainder(outputs.shape[1])
    return full_precision(outputs.gather(1, categories[:, None])[:, 0])


def _plain_classes(targets: Sequence[Target]) -> list[int]:
    """The classes of those targets that are nothing but a class index; a subclass may compute something else."""
    return [int(target.category) for target in targets if type(target) is ClassifierOutputTarget]


def _resolve(target: Any) -> Target:
    integer_tensor = isinstance(target, torch.Tensor | np.ndarray) and target.ndim == 0
    if integer_tensor or (isinstance(target, int | np.integer) and not isinstance(target, bool)):
        return ClassifierOutputTarget(operator.index(target))
    if callable(target):
        return target
    raise TypeError(f"a target is a class index or a callable from one sample's output to a scalar, not {target!r}")


def _scalar(target: Target, output: Any) -> torch.Tensor:
    score = target(output)
    if not isinstance(score, torch.Tensor):
        raise TypeError(f"target {target!r} returned {score!r}, expected a scalar tensor computed from the output")
    if score.numel() != 1:
        raise ValueError(
            f"target {target!r} returned shape {tuple(score.shape)}, expected one value: sum or select what it explains"
        )
    return full_precision(score.reshape(()))


def _described(outputs: Any) -> str:
    return f"shape {tuple(outputs.shape)}" if isinstance(outputs, torch.Tensor) else type(outputs).__name__
