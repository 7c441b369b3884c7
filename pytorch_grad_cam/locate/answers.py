"""How the cells of a map answer to noise on the image: the proof that a tensor is read as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from pytorch_grad_cam.engine.layouts import Layout

# What the thresholds rest on. "Nothing changes": in test_locate.py, and in the choice for 38 small networks of timm and
# transformers with seeded random weights; except for LeViTs where said.
# The noise in standard deviations of the image. A choice; nothing changes between 0.001 and 0.1 but for one LeViT.
_FAINT = 1e-2
# The noise in relative steps of the image's numbers, so that half precision does not round it away.
_STEPS = 32
# The standard deviation that a constant image is taken to have. A choice; no test changes between 1e-4 and 1.
_LEAST_CONTRAST = 1e-2
# The noise falls to exp(-4). A choice; nothing changes between 2 and 8 but for the LeViTs and, at 2 and 8, one test.
_STEEPNESS = 4
# The correlation of an answer. A choice; nothing changes between 0 and 0.73 but for the LeViTs: levit_128 gets another
# layer at 0.55.
_IN_PLACE = 0.5
# The standard error of no correlation of n cells is 1 / sqrt(n): two of them are left for accidents.
_STANDARD_ERRORS = 2
# A correlation beyond which rounding decides. A choice.
_NEARLY_ONE = 1 - 1e-6
# Fewer cells are few. A choice: of 16 the standard error is a quarter.
FEW = 16
# A generator that draws other signs than anybody's image. Any number will do.
_KEY = 0x47726164


def with_noise(image: torch.Tensor) -> torch.Tensor:
    """The image (N, C, *spatial) with faint noise, stronger towards one corner: plus or minus one, times a ramp."""
    steps = _STEPS * torch.finfo(image.dtype).eps
    faint = max(_FAINT, steps) * contrast_of(image) + steps * image.abs().amax()
    return image + faint * _ramp(image.shape[2:]).to(image) * signs_like(image)


def image_like(image: torch.Tensor) -> torch.Tensor:
    """An image of normal noise, always the same but for the mean and the standard deviation, which are the image's."""
    noise = np.random.Generator(np.random.Philox(key=_KEY + 1)).standard_normal(tuple(image.shape))
    return image.mean() + contrast_of(image) * torch.as_tensor(noise).to(image)


def contrast_of(image: torch.Tensor) -> torch.Tensor:
    """The image's standard deviation, and that which a constant image is taken to have."""
    return image.std().nan_to_num().clamp(min=_LEAST_CONTRAST)


def signs_like(image: torch.Tensor) -> torch.Tensor:
    """Plus or minus one for each number of the image, always the same."""
    signs = np.random.Generator(np.random.Philox(key=_KEY)).integers(0, 2, size=tuple(image.shape)) * 2 - 1
    return torch.as_tensor(signs).to(image)


class Answer(NamedTuple):
    """How much more a map's cells change where the noise is stronger.

    correlation: of the two logarithms, 1 at best. Latent vectors and tokens sorted by windows do not change more
    towards the corner with the noise. cells: how many changed; a rectifier leaves many as they are.
    """

    correlation: float
    cells: int

    @property
    def at_least(self) -> float:
        """The correlation, of few cells less its standard error: they correlate by accident."""
        return self.correlation - (1 / math.sqrt(max(self.cells, 1)) if self.cells < FEW else 0)

    @property
    def is_clear(self) -> bool:
        """Whether the cells lie where they are read."""
        return self.correlation > _IN_PLACE

    @property
    def is_in_place(self) -> bool:
        """Whether the cells may lie where they are read."""
        return self.correlation > _IN_PLACE - _STANDARD_ERRORS / math.sqrt(max(self.cells, 1))

    def is_clearer_than(self, other: Answer) -> bool:
        """Whether the cells lie where they are read, and clearly more so than where another reading has them.

        By Fisher's transformation of correlations: near 1 a small difference is a clear one, as between the axes of a
        clip, whose ramps are alike.
        """
        least = _STANDARD_ERRORS / math.sqrt(max(self.cells, 1))
        return self.is_clear and _fisher(self.correlation) - _fisher(other.correlation) >= least


def _fisher(correlation: float) -> float:
    return math.atanh(max(-_NEARLY_ONE, min(_NEARLY_ONE, correlation)))


def answer(layout: Layout, change: torch.Tensor) -> Answer:
    """The answer of a map to the noise. change: of what the layer returned, without signs."""
    of_cells = layout(change).sum(1)[0]
    moved = of_cells > 0
    logarithms = torch.stack([of_cells[moved], _ramp(layout.grid).to(change)[moved]]).log()
    cells = int(moved.sum())
    return Answer(logarithms.corrcoef()[0, 1].nan_to_num().item() if cells > 1 else 0.0, cells)


def unmoved_tokens(axes: str, change: torch.Tensor) -> list[int]:
    """The places of the tokens that do not change at all: class, distillation, register, detection tokens.

    change: of the first tensor with these tokens, in front of which nothing has mixed them with those of the image.
    """
    of_tokens = change.movedim(axes.index("T"), -1).flatten(0, -2).sum(0)
    return (of_tokens == 0).nonzero()[:, 0].tolist()


def _ramp(size: Sequence[int]) -> torch.Tensor:
    """A ramp from 1 at one corner to exp(-4) at the opposite one, with another slope along each axis."""
    ramp = torch.ones(())
    for axis, length in enumerate(size):
        logarithms = torch.linspace(0, -_STEEPNESS * 2**axis / (2 ** len(size) - 1), length)
        ramp = ramp * logarithms.exp().reshape(-1, *[1] * (len(size) - axis - 1))
    return ramp
