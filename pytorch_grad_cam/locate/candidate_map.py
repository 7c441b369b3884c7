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
        return self.layout(self.gradient).abs().amax(1) != 0  # a seventh of the time of `any` over the channels

    @property
    def breadth_alive(self) -> int:
        """How far they reach, see `breadth`, in the sample in which they reach least far; those at the edge of the grid
        one cell further, which the edge cut off.
        """
        alive = self.alive
        lines = [alive.movedim(axis, 1).unsqueeze(-1).flatten(2).any(2).long() for axis in range(1, alive.ndim)]
        lengths = torch.stack([line.sum(1) + line[:, 0] + line[:, -1] for line in lines], dim=1)
        return min((breadth(of_sample) for of_sample in lengths.tolist() if any(of_sample)), default=0)


def breadth(lengths: Sequence[int]) -> int:
    """The second largest of the lengths along the axes, of a signal its only one: a clip may have a single frame."""
    return sorted(lengths)[-2:][0]


def passing(maps: Sequence[CandidateMap], rule: Callable[[CandidateMap], bool]) -> list[CandidateMap]:
    """The maps that pass the rule, or all where none does."""
    return [candidate for candidate in maps if rule(candidate)] or list(maps)
