"""The layer that a search chose, and how its output is read."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.engine.layouts import Layout


class Location(NamedTuple):
    """A layer that gives a map: its dotted name, its output's shape and layout, and why it was chosen.

    others: the layers that only together with this one have all paths to the score, as the levels of a pyramid.

    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net, preprocess_scene
    >>> from pytorch_grad_cam.locate import locate
    >>> print(locate(load_digits_net(), preprocess_scene(example_scene())))
    layer4 (Sequential), output (1, 128, 8, 8): NCSS, grid 8 x 8; the last map that every path to the score goes through
    """

    name: str
    layer: nn.Module
    shape: tuple[int, ...]
    layout: Layout
    why: str
    others: tuple[Location, ...] = ()

    @property
    def layers(self) -> list[nn.Module]:
        """This layer and the others."""
        return [self.layer, *(other.layer for other in self.others)]

    def as_map(self, output: Any) -> torch.Tensor:
        """The map (N, C, *grid) in what the layer returned; for use as a reshape_transform."""
        return self.layout.of_output(output)

    def __str__(self) -> str:
        this = f"{self.name} ({type(self.layer).__name__}), output {self.shape}: {self.layout}"
        return "".join([this, *(f"; and {other}" for other in self.others)]) + (f"; {self.why}" if self.why else "")
