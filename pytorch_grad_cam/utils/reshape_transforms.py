"""Functions for `reshape_transform`: from what layers return to (N, C, H, W)."""

import math
from collections.abc import Mapping

import torch

from pytorch_grad_cam.engine.layouts import MOST_EXTRA_TOKENS
from pytorch_grad_cam.engine.maps import resize

# Behind up to 8 extra tokens a square of 4 x 4 or more is never read as a larger one: 5 * 5 - 4 * 4 = 9.
_MOST_GUESSED = 8


def vit_reshape_transform(tensor: torch.Tensor, height: int | None = None, width: int | None = None) -> torch.Tensor:
    """A map (N, C, height, width) from a ViT's tokens (N, e + height * width, C), without the e extra ones in front.

    Without height and width the grid is square, behind the fewest extra tokens (class, distillation, registers; at most
    8) that leave a square. For images that are not square pass both:
    `functools.partial(vit_reshape_transform, height=14, width=28)`.

    Raises ValueError when the tokens do not fit the grid.

    >>> vit_reshape_transform(torch.zeros(2, 197, 384)).shape
    torch.Size([2, 384, 14, 14])
    """
    if tensor.ndim != 3:
        raise ValueError(f"expected tokens (N, T, C), the layer gave shape {tuple(tensor.shape)}")
    tokens = tensor.shape[1]
    if height is None and width is None:
        sides = [math.isqrt(tokens - extra) for extra in range(min(_MOST_GUESSED, tokens - 1) + 1)]
        squares = [side for extra, side in enumerate(sides) if side * side == tokens - extra]
        if not squares:
            raise ValueError(
                f"{tokens} tokens are no square grid with up to {_MOST_GUESSED} extra tokens: pass height and width"
            )
        height = width = squares[0]
    elif height is None or width is None:
        raise ValueError(f"height={height}, width={width}: pass both or neither")
    extra = tokens - height * width
    if not 0 <= extra <= MOST_EXTRA_TOKENS:
        raise ValueError(f"{tokens} tokens are no grid of {height} x {width} behind up to {MOST_EXTRA_TOKENS} others")
    patches = tensor[:, extra:]
    return torch.unflatten(patches, 1, (height, width)).movedim(-1, 1)


def swinT_reshape_transform(tensor: torch.Tensor, height: int | None = None, width: int | None = None) -> torch.Tensor:  # noqa: N802
    """A map (N, C, H, W) from a Swin's maps (N, H, W, C) or tokens (N, height * width, C).

    Without height and width tokens are a square grid. Raises ValueError when the tokens do not fit the grid.

    >>> swinT_reshape_transform(torch.zeros(2, 7, 7, 768)).shape
    torch.Size([2, 768, 7, 7])
    """
    if tensor.ndim == 4:
        return tensor.movedim(-1, 1)
    tokens = tensor.shape[1]
    if height is None and width is None:
        height = width = math.isqrt(tokens)
    elif height is None or width is None:
        raise ValueError(f"height={height}, width={width}: pass both or neither")
    if height * width != tokens:
        raise ValueError(f"{tokens} tokens are no grid of {height} x {width}: pass the height and width of the grid")
    return torch.unflatten(tensor, 1, (height, width)).movedim(-1, 1)


def fasterrcnn_reshape_transform(x: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A map (N, C', h, w) from the levels (N, C, H, W) of a feature pyramid: absolute, of the last one's size, joined.

    The last level is the coarsest, 'pool' in torchvision's detectors. Gradients are those with respect to the absolute
    values, so times the sign of what the levels hold.

    >>> fasterrcnn_reshape_transform({"0": torch.zeros(1, 8, 20, 24), "pool": torch.zeros(1, 8, 5, 6)}).shape
    torch.Size([1, 16, 5, 6])
    """
    levels = list(x.values())
    return torch.cat([resize(level.abs(), levels[-1].shape[2:]) for level in levels], dim=1)


def _of_gradients(x: Mapping[str, torch.Tensor], gradients: Mapping[str, torch.Tensor]) -> torch.Tensor:
    size = list(x.values())[-1].shape[2:]
    return torch.cat([resize(gradients[level] * x[level].sign(), size) for level in x], dim=1)


fasterrcnn_reshape_transform.of_gradients = _of_gradients  # type: ignore[attr-defined]
