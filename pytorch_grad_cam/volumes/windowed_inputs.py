"""What the model is called with for windows of a large input, which may lie in a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pytorch_grad_cam.engine.inputs import ImagePlace, Inputs, SpatialFrom, image_of, rows_of, with_image
from pytorch_grad_cam.volumes.windows import Slices, Windows

_CHANNELS_SECOND = ImagePlace(None, 1)


class WindowedInputs:
    """The inputs of one sample, and its image cut into windows, of which only those asked for are read.

    inputs: tensors as a CAM takes them, or alone an array in memory or in a file (N, C, *spatial), of any kind that has
    a shape and is cut by slices: numpy's with its memory maps, h5py's, zarr's, nibabel's `dataobj`. spatial_from: see
    `BaseCAM`; of an array only the axes of its ImagePlace count.
    """

    def __init__(self, inputs: Inputs, spatial_from: SpatialFrom, windows: Windows) -> None:
        self.inputs, self.spatial_from, self.windows = inputs, spatial_from, windows
        self._array = inputs if _is_array(inputs) else None
        place = spatial_from if isinstance(spatial_from, ImagePlace) else _CHANNELS_SECOND
        self._channels = place.channels
        shape = list(inputs.shape if self._array is not None else image_of(inputs, spatial_from).shape)
        if self._array is not None:
            channels = 1 if self._channels is None else shape.pop(self._channels)
            shape.insert(1, channels)
        self.shape: tuple[int, ...] = tuple(shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def image_size(self) -> tuple[int, ...]:
        """Of an image the spatial axes."""
        return self.shape[2:]

    def in_windows(self, windows: Windows) -> WindowedInputs:
        """The same in other windows."""
        return WindowedInputs(self.inputs, self.spatial_from, windows)

    def of(self, sample: int, where: Sequence[Slices]) -> Inputs:
        """The inputs for windows of a sample, as many as there are."""
        parts = [self.windows.padded(self._part(sample, slices), self.image_size) for slices in where]
        image = torch.cat(parts)
        if self._array is not None:
            return image.squeeze(1) if self._channels is None else image.movedim(1, self._channels)
        rows = torch.full((len(where),), sample)
        return with_image(rows_of(self.inputs, rows, len(self)), image, self.spatial_from)

    def _part(self, sample: int, slices: Slices) -> torch.Tensor:
        """A window's part of the image (1, C, *part)."""
        if self._array is None:
            return image_of(self.inputs, self.spatial_from)[(slice(sample, sample + 1), slice(None), *slices)]
        axes: list[slice] = [slice(sample, sample + 1), *slices]
        if self._channels is not None:
            axes.insert(self._channels, slice(None))
        part = torch.from_numpy(np.array(self._array[tuple(axes)], dtype=np.float32))
        return part.unsqueeze(1) if self._channels is None else part.movedim(self._channels, 1)


def _is_array(inputs: Any) -> bool:
    is_cut = hasattr(inputs, "shape") and hasattr(inputs, "__getitem__")
    return is_cut and not isinstance(inputs, torch.Tensor)
