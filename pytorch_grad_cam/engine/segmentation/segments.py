"""What a segmenter says of one image, in the three ways in which they say it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from pytorch_grad_cam.engine.maps import full_precision
from pytorch_grad_cam.engine.segmentation.regions import connected_parts

Which = int | tuple[int, int]
"""Whose scores are meant: a class, a query and its class, or a prompt and one of its masks."""
Cell = tuple[int, ...]
_INSIDE = 0.5  # the probability above which a cell is in a mask


class Segments(Protocol):
    """The scores of an image's cells. grid: how many there are on each axis."""

    @property
    def grid(self) -> tuple[int, ...]: ...

    @property
    def device(self) -> torch.device: ...

    def scores(self, which: Which) -> torch.Tensor:
        """The logits (*grid) that are explained."""

    def predicted(self, which: Any) -> torch.Tensor:
        """Where the output says so of what `of_class` gave: bool (*grid)."""

    def of_class(self, category: int | None, cell: Cell | None) -> Which:
        """Whose scores a class has; None is the one that is predicted at the cell, or the only one. Raises IndexError
        for a class that does not exist, ValueError where nobody knows which one is meant.
        """

    def instance(self, number: int, category: int | None) -> tuple[Which, torch.Tensor]:
        """A single object, of a class where it is given: whose scores it has, and where it is, bool (*grid). Raises
        ValueError where there are fewer.
        """


@dataclass(frozen=True)
class Dense:
    """One logit for each class and cell: (C, *grid). One class alone is where its logit is above 0.

    Its objects are the connected parts of a class's predicted mask, the largest first.
    """

    logits: torch.Tensor

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(self.logits.shape[1:])

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def scores(self, which: Which) -> torch.Tensor:
        return full_precision(self.logits[which])

    def predicted(self, which: int) -> torch.Tensor:
        """Of probabilities, where there is one class alone, what is above 0.5."""
        scores = self.logits.detach()
        if len(scores) > 1:
            predicted: torch.Tensor = scores.argmax(0) == which % len(scores)
            return predicted
        are_probabilities = (scores.amin() >= 0) & (scores.amax() <= 1)
        return scores[0] > 0.5 * are_probabilities

    def of_class(self, category: int | None, cell: Cell | None) -> int:
        classes = len(self.logits)
        if category is None and (cell is None or classes == 1):
            if classes > 1:
                raise ValueError(f"the output has {classes} classes: say which one, or point=(y, x) for the one there")
            return 0
        if category is None:
            return _highest_at(self.logits, cell)
        check_class(category, classes)
        return category

    def instance(self, number: int, category: int | None) -> tuple[Which, torch.Tensor]:
        which = self.of_class(category, None)
        parts, found = connected_parts(self.predicted(which))
        _check_instance(number, category, len(found))
        return which, parts == found[number]


@dataclass(frozen=True)
class Queries:
    """Q queries with the logits of their classes (Q, C + 1), the last one for no object, and of their masks (Q, h, w).

    The score of a class at a cell is the logit of the mask and that of the class of the query that speaks most for it
    there; unlike the probabilities that are predicted from, they are not flat where the model is sure. Its objects are
    the queries whose best class is not 'no object', the surest first.
    """

    classes: torch.Tensor
    masks: torch.Tensor

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(self.masks.shape[1:])

    @property
    def device(self) -> torch.device:
        return self.masks.device

    @property
    def class_scores(self) -> torch.Tensor:
        """The sum over the queries of the class's probability times the mask's, (C, h, w): MaskFormer's inference
        (Cheng et al. 2021, arXiv:2107.06278).
        """
        return torch.einsum("qc,qhw->chw", self.classes.softmax(-1)[:, :-1], self.masks.sigmoid())

    def scores(self, which: Which) -> torch.Tensor:
        if isinstance(which, tuple):
            query, category = which
            return full_precision(self.masks[query]) + full_precision(self.classes[query, category])
        of_class = self.classes.detach().softmax(-1)[:, which]
        best = (of_class[:, None, None] * self.masks.detach().sigmoid()).argmax(0)
        of_masks = full_precision(self.masks.gather(0, best[None])[0])
        return of_masks + full_precision(self.classes[:, which])[best]

    def predicted(self, which: int) -> torch.Tensor:
        predicted: torch.Tensor = self.class_scores.detach().argmax(0) == which
        return predicted

    def of_class(self, category: int | None, cell: Cell | None) -> Which:
        classes = self.classes.shape[1] - 1
        if category is None:
            if cell is None:
                raise ValueError(f"the output has {classes} classes: say which one, point=(y, x) or instance=0")
            return _highest_at(self.class_scores, cell)
        check_class(category, classes)
        return category % classes

    def instance(self, number: int, category: int | None) -> tuple[Which, torch.Tensor]:
        surest, labels = self.classes.detach().softmax(-1).max(-1)
        is_object = labels < self.classes.shape[1] - 1
        of_masks = self.masks.detach().sigmoid()
        owner = (torch.where(is_object, surest, 0)[:, None, None] * of_masks).argmax(0)
        parts = (owner == torch.arange(len(of_masks), device=owner.device)[:, None, None]) & (of_masks > _INSIDE)
        asked = is_object & parts.flatten(1).any(1) & (True if category is None else labels == category)
        found = [query for query in surest.argsort(descending=True, stable=True).tolist() if asked[query]]
        _check_instance(number, category, len(found))
        return (found[number], int(labels[found[number]])), parts[found[number]]


@dataclass(frozen=True)
class Prompted:
    """Masks that were asked for by points or boxes, as SAM gives them: the logits (B, M, h, w) of M masks of B prompts,
    and how good the model takes them to be (B, M). There are no classes; the objects are each prompt's best mask.
    """

    masks: torch.Tensor
    quality: torch.Tensor

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(self.masks.shape[2:])

    @property
    def device(self) -> torch.device:
        return self.masks.device

    def scores(self, which: Which) -> torch.Tensor:
        return full_precision(self.masks[which])

    def predicted(self, which: tuple[int, int]) -> torch.Tensor:
        return self.masks.detach()[which] > 0

    def of_class(self, category: int | None, cell: Cell | None) -> Which:
        if category is not None:
            raise ValueError(f"class {category} was asked for, but masks of prompts have no classes: pass instance=0")
        if len(self.masks) > 1:
            raise ValueError(f"the output has masks of {len(self.masks)} prompts: pass instance=, from 0")
        return 0, int(self.quality[0].argmax())

    def instance(self, number: int, category: int | None) -> tuple[Which, torch.Tensor]:
        if category is not None:
            self.of_class(category, None)
        _check_instance(number, None, len(self.masks))
        which = number, int(self.quality[number].argmax())
        return which, self.predicted(which)


def _highest_at(scores: torch.Tensor, cell: Cell | None) -> int:
    """The class with the highest of the scores (C, *grid) at a cell."""
    at: Any = (slice(None), *(cell or ()))
    return int(scores.detach()[at].argmax())


def check_class(category: int, classes: int) -> None:
    """Raise IndexError for a class that the output does not have."""
    if not -classes <= category < classes:
        has = "1 class, 0: its positive pixels" if classes == 1 else f"{classes} classes, from 0"
        raise IndexError(f"class {category}: the model's output has {has}")


def _check_instance(number: int, category: int | None, found: int) -> None:
    if number >= found:
        of_class = "" if category is None else f" of class {category}"
        raise ValueError(f"instance {number}{of_class} was asked for, but there are {found}")


class SegmentedSample(NamedTuple):
    """Of one image what callables read of the output, and its segments."""

    plain: Any
    segments: Segments


@dataclass(frozen=True)
class Segmented:
    """An output of queries or prompts: what callables read of it, sample by sample, and the segments of each image.

    plain: of queries the scores (N, C, h, w) of `Queries.class_scores`, of prompts an `engine.scores.Undecided`.
    """

    plain: Any
    segments: list[Segments]

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, sample: int) -> SegmentedSample:
        return SegmentedSample(self.plain[sample] if self.is_readable else self.plain, self.segments[sample])

    def __iter__(self) -> Iterator[SegmentedSample]:
        return map(self.__getitem__, range(len(self)))

    @property
    def is_readable(self) -> bool:
        """Whether callables can read it."""
        return isinstance(self.plain, torch.Tensor)


def segments_of(output: Any, rank: int) -> Segments:
    """The segments in what is read of one sample: in a tensor (C, *spatial), or (*spatial) for one mask alone, `Dense`.

    rank: of the image. Raises ValueError for outputs of another rank.
    """
    if isinstance(output, SegmentedSample):
        return output.segments
    if isinstance(output, torch.Tensor) and output.ndim == rank:
        return Dense(output[None])
    if isinstance(output, torch.Tensor) and output.ndim == rank + 1:
        return Dense(output)
    came = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
    raise ValueError(
        f"a region needs an output (N, classes, *spatial), or of queries and their masks; a sample of this one is "
        f"{came}: pass an output_transform; the mask of a detector's box is BoxTarget(box, label, of='mask')"
    )
