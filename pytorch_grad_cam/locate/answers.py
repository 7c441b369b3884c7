"""How the cells of a map answer to noise on the image: the proof that a tensor is read as it is."""

from collections.abc import Sequence

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
# Keeps the logarithm of no change finite. A choice; nothing changes between 1e-30 and 1e-9.
_LEAST_CHANGE = 1e-20
# A generator that draws other signs than anybody's image. Any number will do.
_KEY = 0x47726164


def with_noise(image: torch.Tensor) -> torch.Tensor:
    """The image (N, C, *spatial) with faint noise, stronger towards one corner: plus or minus one, times a ramp."""
    signs = np.random.Generator(np.random.Philox(key=_KEY)).integers(0, 2, size=tuple(image.shape)) * 2 - 1
    faint = max(_FAINT, _STEPS * torch.finfo(image.dtype).eps) * image.std().clamp(min=_LEAST_CONTRAST)
    return image + faint * _ramp(image.shape[2:]).to(image) * torch.as_tensor(signs).to(image)


def answer(layout: Layout, change: torch.Tensor) -> float:
    """The correlation of how much a map's cells change with how strong the noise is where they should look.

    change: of what the layer returned, without signs. 1 at best. Latent vectors and tokens sorted by windows do not
    change more towards the corner with the noise.
    """
    change_of_cells = layout(change).sum(1)[0]
    logarithms = [change_of_cells.clamp(min=_LEAST_CHANGE).log(), _ramp(layout.grid).to(change).log()]
    return torch.stack([values.flatten() for values in logarithms]).corrcoef()[0, 1].nan_to_num().item()


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
        logarithms = torch.linspace(0, -_STEEPNESS * (axis + 1) / sum(range(len(size) + 1)), length)
        ramp = ramp * logarithms.exp().reshape(-1, *[1] * (len(size) - axis - 1))
    return ramp
