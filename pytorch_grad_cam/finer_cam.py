"""Finer-CAM."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch

from pytorch_grad_cam.engine.inputs import Inputs
from pytorch_grad_cam.engine.targets import Target, TargetRule, Targets, resolve_targets, several_an_image
from pytorch_grad_cam.meta_cam import MetaCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, FinerWeightedTarget

DEFAULT_COMPARISON_CATEGORIES = (1, 2, 3)


def against_similar_classes(outputs: torch.Tensor, targets: Targets, ranks: Sequence[int], alpha: float) -> Any:
    r"""For each sample of the logits (N, classes) the score $y^c - \alpha y^d$, averaged over similar classes d.

    ranks: which classes are compared with c, by the distance of their logits from that of c; 1 is the closest. Targets
    that are no plain class, and classes without any other to compare with, stay as they are; several targets a sample
    come back as several. Targets of outputs with more axes stay as they are.
    """
    if isinstance(outputs, torch.Tensor) and outputs.ndim > 2:
        return targets
    columns = several_an_image(targets)
    if columns is not None:
        of_columns = [against_similar_classes(outputs, column, ranks, alpha) for column in columns]
        return [list(row) for row in zip(*of_columns, strict=True)]
    compared: list[Target] = []
    for target, logits in zip(resolve_targets(targets, outputs), outputs, strict=True):
        if type(target) is ClassifierOutputTarget:
            category = int(target.category) % len(logits)
            distances = (logits - logits[category]).abs()
            distances[category] = -1
            by_distance = distances.argsort(stable=True).tolist()
            others = [by_distance[rank] for rank in ranks if rank < len(logits)]
            target = FinerWeightedTarget(category, others, alpha) if others else target
        compared.append(target)
    return compared


class FinerCAM(MetaCAM):
    """What tells a class from the classes most similar to it, by the maps of a base method (Grad-CAM).

    When to take it: for classes that look alike: birds, cars, digits. Not to find an object: what it shares with
    similar classes is left out.
    Cost: that of the base method.
    Paper: Zhang et al. 2025, https://arxiv.org/abs/2501.11309.
    """

    if TYPE_CHECKING:  # the call is MetaCAM's, which hands these options to `explain`

        @overload
        def __call__(
            self,
            input_tensor: Inputs,
            targets: Targets = ...,
            eigen_smooth: bool = ...,
            alpha: float = ...,
            comparison_categories: Sequence[int] | None = ...,
            target_idx: Targets = ...,
            *,
            aug_smooth: bool = ...,
            as_tensor: Literal[False] = ...,
        ) -> np.ndarray: ...
        @overload
        def __call__(
            self,
            input_tensor: Inputs,
            targets: Targets = ...,
            eigen_smooth: bool = ...,
            alpha: float = ...,
            comparison_categories: Sequence[int] | None = ...,
            target_idx: Targets = ...,
            *,
            aug_smooth: bool = ...,
            as_tensor: Literal[True],
        ) -> torch.Tensor: ...
        @overload
        def __call__(
            self,
            input_tensor: Inputs,
            targets: Targets = ...,
            eigen_smooth: bool = ...,
            alpha: float = ...,
            comparison_categories: Sequence[int] | None = ...,
            target_idx: Targets = ...,
            *,
            aug_smooth: bool = ...,
            as_tensor: bool,
        ) -> np.ndarray | torch.Tensor: ...
        def __call__(self, *args: Any, **named: Any) -> Any: ...

    def explain(
        self,
        input_tensor: Inputs,
        targets: Targets,
        alpha: float = 1,
        comparison_categories: Sequence[int] | None = None,
        target_idx: Targets = None,
        **options: Any,
    ) -> Any:
        """One map an image, see `BaseCAM.__call__`. alpha: how much of the similar classes' scores is subtracted.

        targets, or target_idx: the class, each image's highest by default. comparison_categories: the ranks of the
        classes compared with it, 1, 2 and 3 by default.
        """
        main = target_idx if targets is None else targets
        ranks = DEFAULT_COMPARISON_CATEGORIES if comparison_categories is None else comparison_categories
        rule = TargetRule(partial(against_similar_classes, ranks=ranks, alpha=alpha), main)
        return super().explain(input_tensor, rule, **options)
