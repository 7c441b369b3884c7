"""Operations on maps of any spatial rank: (N, C, L), (N, C, H, W) or (N, C, D, H, W)."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F

Normalize = Literal["minmax", "max"] | None
Fuse = Literal["mean", "max", "product"] | None
FUSE: tuple[Fuse, ...] = ("mean", "max", "product", None)
Scaling = Callable[[torch.Tensor], torch.Tensor]
"""From maps (N, *spatial) to maps of that shape, each on its own."""

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


def spatial_axes(tensor: torch.Tensor) -> tuple[int, ...]:
    """The axes behind batch and channel."""
    return tuple(range(2, tensor.ndim))


def over_positions(weights: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
    """Weights (N, C) or (N, C, *spatial), shaped so that they multiply activations (N, C, *spatial)."""
    return weights.reshape(*weights.shape, *[1] * (activations.ndim - weights.ndim))


def check_weights(weights: object, activations: torch.Tensor) -> None:
    """Raise ValueError for what are no weights (N, C) or (N, C, *spatial) of the activations; any axis may be 1."""
    shape = tuple(weights.shape) if isinstance(weights, torch.Tensor) else None
    expected = tuple(activations.shape)
    fits = shape is not None and all(size in (1, whole) for size, whole in zip(shape, expected, strict=False))
    if not fits or len(shape or ()) not in (2, activations.ndim):
        came = f"have shape {shape}" if shape is not None else f"are {type(weights).__name__}"
        raise ValueError(
            f"the weights {came}, expected a tensor {expected[:2]}, one for each channel, or {expected}, one for each "
            "channel and position"
        )


def min_max(maps: torch.Tensor) -> torch.Tensor:
    """Each map of (N, *spatial) scaled to [0, 1], relative to its own range; a constant map becomes zeros."""
    values = maps.flatten(1)
    # Not `aminmax`: before torch 2.5 it has no derivative, and maps may be in a loss.
    lowest, highest = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    span = highest - lowest
    return ((values - lowest) / span.masked_fill(span == 0, 1)).reshape(maps.shape)


def scaled_evidence(signed: torch.Tensor) -> torch.Tensor:
    """What is positive of each signed map of (N, *spatial), scaled to [0, 1]; zeros where not all is finite."""
    values = signed.flatten(1)
    lowest, highest = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    floor, ceiling = lowest.relu(), highest.relu()
    span = (ceiling - floor).masked_fill(ceiling == floor, 1)
    return torch.where(highest - lowest < torch.inf, (values.relu() - floor) / span, 0).reshape(signed.shape)


def by_largest(maps: torch.Tensor) -> torch.Tensor:
    """Each map of (N, *spatial) divided by its largest absolute value, so that 0 stays 0; zeros stay zeros."""
    largest = maps.flatten(1).abs().amax(1)
    return maps / over_positions(largest.masked_fill(largest == 0, 1), maps)


def scaled_as_asked(signed: torch.Tensor, relu: bool, scale: Scaling) -> torch.Tensor:
    """Each signed map of (N, *spatial), rectified if `relu`, and scaled; zeros where not all of it is finite."""
    finite = signed.flatten(1).isfinite().all(1)
    values = torch.where(over_positions(finite, signed), signed, 0)
    return scale(values.relu() if relu else values)


def scalings(relu: bool, normalize: Normalize) -> tuple[Scaling, Scaling]:
    """What a CAM makes of evidence before it is drawn, and of what is drawn, see `BaseCAM`."""
    if relu and normalize == "minmax":
        return scaled_evidence, min_max
    scale = _SCALINGS[normalize]
    return partial(scaled_as_asked, relu=relu, scale=scale), scale


_SCALINGS: dict[Normalize, Scaling] = {"minmax": min_max, "max": by_largest, None: torch.Tensor.clone}
NORMALIZE = tuple(_SCALINGS)


def fused(maps: torch.Tensor, fuse: Fuse) -> torch.Tensor:
    """The maps of several layers (N, layers, *spatial) as one: (N, *spatial). Of signed maps "max" is the value that is
    farthest from 0.
    """
    if fuse == "mean":
        return maps.mean(1)
    if fuse == "product":
        return maps.prod(1)
    farthest = maps.abs().argmax(1, keepdim=True)
    return maps.take_along_dim(farthest, 1)[:, 0]


def resize(maps: torch.Tensor, size: Sequence[int], align_corners: bool = False) -> torch.Tensor:
    """Maps (N, C, *spatial) linearly interpolated to `size`.

    One rule for every rank: cell i of h covers the pixels from i * H / h to (i + 1) * H / h; with `align_corners` the
    centres of the outermost cells lie on the outermost pixels instead.
    """
    if maps.shape[2:] == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode=_INTERPOLATION[maps.ndim - 2], align_corners=align_corners)


def blurred(maps: torch.Tensor, sigma: float, reach: int | None = None) -> torch.Tensor:
    """Maps (N, C, *spatial) blurred by a Gaussian; the border is repeated outside.

    reach: of how many cells to each side; None is three standard deviations, which leave out .3 % of it.
    """
    for axis in range(2, maps.ndim):
        maps = blurred_along(maps, axis, sigma, reach)
    return maps


def blurred_along(maps: torch.Tensor, axis: int, sigma: float, reach: int | None = None) -> torch.Tensor:
    """`blurred` along one axis alone; not rounded in `torch.autocast`."""
    reach = math.ceil(3 * sigma) if reach is None else reach
    offsets = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    kernel = (-(offsets**2) / (2 * sigma**2)).exp()
    last = maps.movedim(axis, -1)
    lines = F.pad(last.reshape(-1, 1, last.shape[-1]), (reach, reach), mode="replicate")
    with torch.autocast(maps.device.type, enabled=False):
        lines = F.conv1d(lines, (kernel / kernel.sum())[None, None])
    return lines.reshape(last.shape).movedim(-1, axis)


def full_precision(tensor: torch.Tensor) -> torch.Tensor:
    """float16 and bfloat16 as float32, so that sums over many channels are exact enough; others as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def most_precise_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices that know nothing better."""
    return torch.float32 if device.type == "mps" else torch.float64


def check_shape(activations: torch.Tensor, input_tensor: torch.Tensor) -> None:
    """Raise ValueError unless the layer's map has as many axes as the input, and as many samples."""
    if activations.ndim != input_tensor.ndim or activations.shape[0] != input_tensor.shape[0]:
        raise ValueError(_unfit(tuple(activations.shape), tuple(input_tensor.shape)))


def _unfit(shape: tuple[int, ...], input_shape: tuple[int, ...]) -> str:
    if len(shape) == len(input_shape):
        return (
            f"the target layer gives {shape}, {shape[0]} maps for {input_shape[0]} inputs (windows or boxes?): choose "
            "a layer that has one map for each, or pass a reshape_transform"
        )
    return (
        f"the target layer gives {shape} for an input of {input_shape}; expected (N, C, *spatial) with as many axes as "
        "the input. For tokens pass a reshape_transform, for instance "
        "pytorch_grad_cam.utils.reshape_transforms.vit_reshape_transform"
    )
