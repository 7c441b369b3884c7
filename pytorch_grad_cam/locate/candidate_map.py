"""A tensor of a traced forward that can be read as a map, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from pytorch_grad_cam.engine.layouts import Layout
from pytorch_grad_cam.engine.trace import Call


class CandidateMap(NamedTuple):
    """A tensor that can be read as a map.

    layout, other_layouts: its best reading and the others. gradient: of the score with respect to it. paths: how many
    lead through it from the score to the image. is_cut: whether all do. runs_once: whether its module does. is_hidden:
    whether something learned lies between it and the score.
    """

    call: Call
    layout: Layout
    other_layouts: tuple[Layout, ...]
    gradient: torch.Tensor
    paths: int
    is_cut: bool
    runs_once: bool
    is_hidden: bool

    @property
    def alive(self) -> torch.Tensor:
        """The cells (N, *grid) that a gradient reaches."""
        return (self.layout(self.gradient) != 0).any(1)

    @property
    def breadth_alive(self) -> int:
        """How far they reach, see `breadth`."""
        alive = self.alive
        return breadth([int(alive.movedim(axis, 0).flatten(1).any(1).sum()) for axis in range(1, alive.ndim)])


def breadth(lengths: Sequence[int]) -> int:
    """The second largest of the lengths along the axes, of a signal its only one: a clip may have a single frame."""
    return sorted(lengths)[-2:][0]


def passing(maps: Sequence[CandidateMap], rule: Callable[[CandidateMap], bool]) -> list[CandidateMap]:
    """The maps that pass the rule, or all where none does."""
    return [candidate for candidate in maps if rule(candidate)] or list(maps)
