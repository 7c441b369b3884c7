"""Which axis of the image are its channels: what the first learned module that reads the image takes as channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pytorch_grad_cam.engine.inputs import ImagePlace, PackedPatches, SpatialFrom, call, image_of, key_of, rows_of
from pytorch_grad_cam.engine.trace import Call, traced

_Convolution = nn.modules.conv._ConvNd
_SECOND = 1
_MOST_SPATIAL_AXES = 3


def found_axes(model: nn.Module, inputs: Any, spatial_from: SpatialFrom) -> SpatialFrom:
    """Where the image is, with the axis of its channels if that is not the second.

    The second axis counts as the channels where the model's first convolution takes as many, and where nothing tells.
    Of the forward's first learned module that reads all of the image: the second axis of a convolution's input, which
    is the image with its axes in another order, with an axis more, or with frames folded into the batch; the last axis
    that anything else reads of a sequence (N, T, features).
    Cost: nothing, or one forward of the first sample where the numbers do not fit. Within `undisturbed`. Raises
    ValueError where no convolution tells and the last axis is as short as colours are, but not the second, and where
    the model fails at what seems to be one image without the axis of the batch.
    """
    for key, shapes, ndim in _PACKED:
        if isinstance(inputs, Mapping) and shapes in inputs and key in inputs and inputs[key].ndim == ndim:
            return PackedPatches(key, shapes, _block_of(model) if ndim == 2 else 1, key == shapes)
    convolution = next((module for module in model.modules() if isinstance(module, _Convolution)), None)
    image = _image_of(inputs, spatial_from, isinstance(convolution, nn.Conv1d) and convolution.in_channels == 1)
    if convolution is None and not isinstance(spatial_from, ImagePlace) and _may_be_channels_last(image.shape):
        raise ValueError(_MAY_BE_CHANNELS_LAST.format(tuple(image.shape), "HW" if image.ndim == 4 else "THW"))
    fits = image.ndim > 3 if convolution is None else convolution.in_channels == image.shape[_SECOND] and image.ndim > 2
    if fits or isinstance(inputs, list):
        return spatial_from
    learned = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    with torch.no_grad(), traced(model, set(learned)) as calls:
        try:
            call(model, rows_of(inputs, torch.tensor([0]), len(image)))
        except RuntimeError as error:
            if convolution is not None and _lacks_batch(image.shape, convolution):
                raise ValueError(_LACKS_BATCH.format(tuple(image.shape), convolution.in_channels)) from error
            raise
    for entry in calls:
        channels = _channels_of(entry, image.shape)
        if channels is not _UNKNOWN:
            return spatial_from if channels == _SECOND else ImagePlace(key_of(spatial_from), channels)
    return spatial_from


_UNKNOWN = -1
# Grey, two bands, colours, colours with opacity: shorter than any axis of an image along which something lies.
_MOST_COLOURS = 4
_MAY_BE_CHANNELS_LAST = (
    "the image is {0}, whose channels seem to be its last axis, and the model has no convolution of PyTorch that says "
    "so: pass axes='N{1}C', or axes='NC{1}' if they are its second axis"
)
_LACKS_BATCH = (
    "the image is {0}, and the model's first convolution takes {1} channels: the axis of the batch seems to be "
    "missing, pass image[None]"
)
# Patches of images in their own proportions, where their grids are, and the axes of the patches: NaFlex in transformers
# and in timm, what language models that look at images read in transformers, and Pix2Struct, whose patches begin with
# their places.
_PACKED = (
    ("pixel_values", "spatial_shapes", 3),
    ("patches", "patch_coord", 3),
    ("pixel_values", "image_grid_thw", 2),
    ("flattened_patches", "flattened_patches", 3),
)


def _block_of(model: nn.Module) -> int:
    """How many patches along an axis the model merges, and so gets one after the other."""
    return next((cast(int, m.spatial_merge_size) for m in model.modules() if hasattr(m, "spatial_merge_size")), 1)


def _may_be_channels_last(shape: Sequence[int]) -> bool:
    return len(shape) > 3 and shape[-1] <= _MOST_COLOURS < min(shape[1:-1])


def _lacks_batch(shape: Sequence[int], convolution: _Convolution) -> bool:
    """Whether it is the shape of one image of the convolution's channels."""
    return shape[0] == convolution.in_channels and len(shape) == len(convolution.kernel_size) + 1


def _image_of(inputs: Any, spatial_from: SpatialFrom, takes_signals: bool) -> torch.Tensor:
    """The image, or a signal (N, time) where there is no tensor with more axes."""
    try:
        return image_of(inputs, spatial_from)
    except TypeError:
        signals = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
        if not takes_signals or not signals or signals[0].ndim != 2:
            raise
        return signals[0]


def _channels_of(entry: Call, shape: Sequence[int]) -> int | None:
    """The axis of the image of this shape that the module takes as channels; None for an image without channels,
    `_UNKNOWN` where it did not read the whole image.
    """
    read = [] if entry.read is None else [*entry.read.shape]
    if isinstance(entry.module, _Convolution):
        whole = sorted(size for size in read if size != 1) == sorted(size for size in shape[1:] if size != 1)
        if not whole or len(shape) - 2 > _MOST_SPATIAL_AXES:
            return _UNKNOWN
        if read[_SECOND] == 1 and 1 not in shape[1:]:
            return None
        alike = [axis for axis in range(1, len(shape)) if shape[axis] == read[_SECOND]]
        # Of axes of one length that which leaves the others in the order in which they are read.
        others = [size for size in read[:_SECOND] + read[_SECOND + 1 :] if size != 1]
        in_order = [axis for axis in alike if [*shape[1:axis], *shape[axis + 1 :]] == others]
        return (in_order or alike)[0]
    reads_features = len(shape) == 3 and read == [1, *shape[1:]] and type(entry.module) is not nn.BatchNorm1d
    return 2 if reads_features else _UNKNOWN
