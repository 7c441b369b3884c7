"""What a model is called with: a tensor, a tuple of arguments or a mapping of keyword arguments; one is the image."""

from collections.abc import Mapping
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_map_only, tree_unflatten

from pytorch_grad_cam.engine.layouts import of_squares
from pytorch_grad_cam.engine.trees import copied, has_rows

Inputs = Any


def call(model: nn.Module, inputs: Inputs) -> Any:
    """The model's output, see `apply`, for copies of the inputs: it may change them in place."""
    if isinstance(inputs, torch.Tensor):
        return model(inputs.clone())
    return apply(model, copied(as_tree(inputs)))


def apply(model: nn.Module, inputs: Inputs) -> Any:
    """The model's output: a tuple is unpacked into arguments, a mapping into keyword arguments."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(inputs)


def model_device(model: nn.Module) -> torch.device | None:
    """Where the model runs, see `running_device`, by its first parameter or buffer."""
    return running_device(model, next(chain(model.parameters(), model.buffers()), None))


def running_device(model: nn.Module, first: torch.Tensor | None) -> torch.device | None:
    """The device of the model's first tensor; None for a model that has none, which takes inputs where they are.

    Where accelerate has put it on 'meta' and fetches the values when a module runs: what accelerate says, or None.
    """
    if first is None or first.device.type != "meta":
        return None if first is None else first.device
    hooks = [module._hf_hook for module in model.modules() if hasattr(module, "_hf_hook")]
    devices = [getattr(hook, "execution_device", None) for hook in hooks]
    device = next((device for device in devices if device is not None), None)
    return None if device is None else torch.empty(0, device=device).device  # an index, a name or a device


def on_device_of(model: nn.Module, inputs: Inputs) -> Inputs:
    """The inputs where the model is, see `usable`."""
    return usable(inputs, model_device(model))


def usable(inputs: Inputs, device: torch.device | None) -> Inputs:
    """The tensors on the device, or where they are if that is None; those made in inference mode as copies that
    autograd can use, if the caller is outside of it.
    """
    if not isinstance(inputs, torch.Tensor):
        return tree_map_only(torch.Tensor, partial(usable, device=device), as_tree(inputs))
    if inputs.is_inference() and not torch.is_inference_mode_enabled():
        inputs = inputs.clone()
    return inputs if device is None or inputs.device == device else inputs.to(device)


class ImagePlace(NamedTuple):
    """Which of the inputs is the image, and which of its axes are the channels, where they are not the second.

    key: the position in the tuple or the key in the mapping; None is the first tensor with spatial axes. channels: the
    axis of the channels; None for images without one, as a spectrogram (N, time, mel). axes: as the user named them.
    """

    key: int | str | None
    channels: int | None
    axes: str = ""

    def image_in(self, inputs: Inputs) -> torch.Tensor:
        """The image (N, C, *spatial)."""
        return self.as_image(self._leaf_in(inputs))

    def as_image(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor with the axes of the input, with those of the image (N, C, *spatial)."""
        return tensor.unsqueeze(1) if self.channels is None else tensor.movedim(self.channels, 1)

    def ndim_of(self, image: torch.Tensor) -> int:
        """How many axes the input has."""
        return image.ndim - (self.channels is None)

    def with_image(self, inputs: Inputs, image: torch.Tensor) -> Inputs:
        """The inputs with another one."""
        leaf = self._leaf_in(inputs)
        taken = image.squeeze(1) if self.channels is None else image.movedim(1, self.channels)
        return _exchanged(inputs, leaf, taken)

    def _leaf_in(self, inputs: Inputs) -> torch.Tensor:
        leaf = _leaf_of(inputs, self.key, 3 if self.channels is not None else 2)
        if self.axes and leaf.ndim != len(self.axes):
            raise ValueError(f"axes is {self.axes!r}, but the image is {tuple(leaf.shape)}, of {leaf.ndim} axes")
        return leaf


class PackedPatches(NamedTuple):
    """An image that the model takes as patches: (N, patches, numbers), those of the grid first, then padding, or
    (patches of all images, numbers). A map has a cell for each patch.

    key: where they are. shapes: where their grids are: (N, 2), with a leading 1 (N, 3), or the coordinates (N, patches,
    2). block: where patches come in squares that the model merges, the length of one. begins_with_place: whether the
    first two numbers of a patch are its row and column, from 1.
    """

    key: str
    shapes: str
    block: int = 1
    begins_with_place: bool = False

    def image_in(self, inputs: Inputs) -> torch.Tensor:
        """The patches (N, numbers, rows, columns). Raises ValueError for images of several grids and for videos."""
        images, rows, columns = self._grids(inputs)
        packed: torch.Tensor = inputs[self.key]
        of_grid = packed[:, : rows * columns] if packed.ndim > 2 else packed[: images * rows * columns]
        return of_squares(of_grid[..., self._first :], (rows, columns), self.block)

    def with_image(self, inputs: Inputs, image: torch.Tensor) -> Inputs:
        """The inputs with other patches, and the padding as it is."""
        images, numbers, rows, columns = image.shape
        squares = rows // self.block, self.block, columns // self.block, self.block
        of_squares = image.reshape(images, numbers, *squares).permute(0, 2, 4, 3, 5, 1)
        patches = of_squares.reshape(images, rows * columns, numbers)
        packed = inputs[self.key]
        if packed.ndim == 2:
            return {**inputs, self.key: patches.flatten(0, 1)}
        of_grid = torch.cat([packed[:, : patches.shape[1], : self._first], patches], dim=2)
        return {**inputs, self.key: torch.cat([of_grid, packed[:, patches.shape[1] :]], dim=1)}

    def grids(self, inputs: Inputs) -> set[tuple[int, ...]]:
        """The grid of the patches, and that of the squares that the model merges."""
        _, rows, columns = self._grids(inputs)
        return {(rows, columns), (rows // self.block, columns // self.block)}

    @property
    def _first(self) -> int:
        """Where the numbers of a patch that are its pixels begin."""
        return 2 if self.begins_with_place else 0

    def _grids(self, inputs: Inputs) -> tuple[int, int, int]:
        """How many images there are, and the rows and columns of each."""
        shapes = inputs[self.shapes]
        if self.begins_with_place:
            shapes = shapes[..., : self._first].long() - 1
        grids = {tuple(grid) for grid in (shapes if shapes.ndim == 2 else shapes.amax(1) + 1).tolist()}
        if len(grids) > 1:
            raise ValueError(f"images of several grids of patches, {sorted(grids)}: call the CAM once for each grid")
        ((*frames, rows, columns),) = grids
        if frames not in ([], [1]):
            raise ValueError(
                f"a grid of patches {frames[0]} x {rows} x {columns}: maps are made for images, not videos"
            )
        return len(shapes), int(rows), int(columns)


SpatialFrom = int | str | ImagePlace | PackedPatches | None


def place_of(axes: str, key: SpatialFrom) -> ImagePlace:
    """The place of an image whose axes are named: 'N' the batch, first; 'C' the channels, if there are any; any other
    letter a spatial axis. Raises ValueError for other strings.

    >>> place_of("NTCHW", None)
    ImagePlace(key=None, channels=2, axes='NTCHW')
    """
    if not axes.startswith("N") or len({*axes}) < len(axes) or not 1 <= len({*axes} - {"N", "C"}) <= 3:
        raise ValueError(
            f"axes is {axes!r}, expected 'N' (the batch), then 'C' (the channels, if there are any) and a letter for "
            "each of one to three spatial axes, as 'NTCHW' or 'NHWC'"
        )
    return ImagePlace(key_of(key), axes.index("C") if "C" in axes else None, axes)


def key_of(spatial_from: SpatialFrom) -> int | str | None:
    """The position or key alone."""
    return spatial_from.key if isinstance(spatial_from, ImagePlace | PackedPatches) else spatial_from


def image_of(inputs: Inputs, spatial_from: SpatialFrom = None) -> torch.Tensor:
    """The tensor (N, C, *spatial) that maps are made for.

    spatial_from: its position in the tuple or its key; None is the first floating-point tensor with a spatial axis.
    Of a list of images (C, *spatial), as detectors take them, the batch. Raises TypeError when there is none,
    ValueError for a list of images of several sizes.
    """
    if spatial_from is None and isinstance(inputs, torch.Tensor) and inputs.is_floating_point() and inputs.ndim > 2:
        return inputs
    return _image_in(inputs, spatial_from)


def _image_in(inputs: Inputs, spatial_from: SpatialFrom) -> torch.Tensor:
    if is_list_of_images(inputs):
        return _batch_of(inputs)
    if isinstance(spatial_from, ImagePlace | PackedPatches):
        return spatial_from.image_in(inputs)
    return _leaf_of(inputs, spatial_from)


def _leaf_of(inputs: Inputs, key: int | str | None, least_axes: int = 3) -> torch.Tensor:
    wanted = None if key is None else inputs[key]
    for leaf in tree_leaves(as_tree(inputs)):
        is_tensor = isinstance(leaf, torch.Tensor)
        if leaf is wanted or (wanted is None and is_tensor and leaf.is_floating_point() and leaf.ndim >= least_axes):
            return cast(torch.Tensor, leaf)
    raise TypeError(_no_image_in(inputs, key))


def is_list_of_images(inputs: Inputs) -> bool:
    """Whether they are single images (C, H, W), as torchvision's detectors take them, maybe of several sizes."""
    are_tensors = isinstance(inputs, list) and all(isinstance(image, torch.Tensor) for image in inputs)
    return are_tensors and len(inputs) > 0 and all(i.ndim == 3 and i.is_floating_point() for i in inputs)


def _batch_of(images: list[torch.Tensor]) -> torch.Tensor:
    sizes = sorted({tuple(image.shape) for image in images})
    if len(sizes) > 1:
        raise ValueError(f"a list of images of several sizes, {sizes}: call the CAM once for each size")
    return torch.stack(images)


def _no_image_in(inputs: Inputs, key: int | str | None) -> str:
    described = type(inputs).__name__ if key is None else f"input {key!r}"
    tensors = [leaf for leaf in tree_leaves(as_tree(inputs)) if isinstance(leaf, torch.Tensor)]
    of_numbers = next((leaf.dtype for leaf in tensors if leaf.ndim >= 3), None)
    if of_numbers is not None and not of_numbers.is_floating_point:
        return (
            f"the image is {of_numbers}, expected floating-point numbers: pass what the model's preprocessing makes of "
            "it, such as image.float() / 255"
        )
    return (
        f"{described} has no floating-point tensor (N, C, *spatial): pass the image as a tensor (explain() takes "
        "pictures and arrays), and with other inputs a tuple of arguments or a mapping of keyword arguments; "
        "spatial_from= says which of them it is"
    )


def with_image(inputs: Inputs, image: torch.Tensor, spatial_from: SpatialFrom = None) -> Inputs:
    """The inputs with another image (N, C, *spatial)."""
    if is_list_of_images(inputs):
        return list(image)
    if isinstance(spatial_from, ImagePlace | PackedPatches):
        return spatial_from.with_image(inputs, image)
    return _exchanged(inputs, _leaf_of(inputs, spatial_from), image)


def _exchanged(inputs: Inputs, leaf: torch.Tensor, other: torch.Tensor) -> Inputs:
    leaves, structure = tree_flatten(as_tree(inputs))
    index = next(index for index, each in enumerate(leaves) if each is leaf)
    return tree_unflatten([*leaves[:index], other, *leaves[index + 1 :]], structure)


def rows_of(inputs: Inputs, rows: torch.Tensor, batch: int) -> Inputs:
    """The inputs of the samples `rows`: of each tensor that has the batch as its first axis; others as they are."""
    if is_list_of_images(inputs):
        return [inputs[row] for row in rows.tolist()]

    def select(leaf: Any) -> Any:
        return leaf[rows.to(leaf.device)] if has_rows(leaf, batch) else leaf

    return tree_map(select, as_tree(inputs))


def as_tree(inputs: Inputs) -> Inputs:
    """Any mapping (transformers' BatchFeature is no dict) as a dict, which PyTorch looks into."""
    return dict(inputs) if isinstance(inputs, Mapping) else inputs
