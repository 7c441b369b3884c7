"""The layers and layouts that are found at the first call with an input of a new size."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.cam_warning import warn_of_proportions
from pytorch_grad_cam.engine.inputs import Inputs
from pytorch_grad_cam.engine.layouts import channels_first, layouts_of
from pytorch_grad_cam.engine.trees import first_tensor
from pytorch_grad_cam.locate.search import Location, layout_of, locate

Size = tuple[int, ...]


class FoundLayers:
    """The layer that `locate` finds, for each size of the image; threads can share one object."""

    def __init__(
        self, model: nn.Module, spatial_from: int | str | None, output_transform: Callable[[Any], Any]
    ) -> None:
        self.model, self.spatial_from, self.output_transform = model, spatial_from, output_transform
        self._lock = threading.Lock()
        self._locations: dict[Size, Location] = {}
        self._advice: dict[tuple[tuple[nn.Module, ...], Size], str] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy searches for itself."""
        return FoundLayers, (self.model, self.spatial_from, self.output_transform)

    def location(self, inputs: Inputs, size: Size) -> Location:
        """The layer for inputs whose image has this size. Cost: for a new size that of `locate`."""
        with self._lock:
            if size not in self._locations:
                self._locations[size] = locate(self.model, inputs, self.spatial_from, self.output_transform)
            return self._locations[size]

    def advice(self, layers: Sequence[nn.Module], inputs: Inputs, size: Size) -> str:
        """Which layer to take instead of these, as the end of a sentence; empty where there is none to name.

        Cost: for new layers or a new size that of `locate`.
        """
        asked = tuple(layers), size
        if asked not in self._advice:
            try:
                found = self.location(inputs, size)
            except Exception:  # noqa: BLE001
                self._advice[asked] = ""  # nothing to advise; the maps are there all the same
            else:
                other = f"; try target_layers=[{found.name!r}]: {found.why}"
                self._advice[asked] = "" if found.layer in layers else other
        return self._advice[asked]


class FoundLayouts:
    """How the outputs of given layers hold their maps."""

    def __init__(self, model: nn.Module, spatial_from: int | str | None) -> None:
        self.model, self.spatial_from = model, spatial_from
        self._readers: dict[tuple[nn.Module, Size, Size], Callable[[Any], torch.Tensor]] = {}
        self._fitting: set[tuple[Size, Size]] = set()

    def as_map(
        self, layer: nn.Module, output: Any, image: torch.Tensor, inputs: Inputs
    ) -> Callable[[Any], torch.Tensor]:
        """From what the layer returned to a map (N, C, *grid).

        What has as many axes as the image is channels first, unless only channels last fits the image's proportions.
        Cost: for tokens of a new size one forward. Raises ValueError where nothing fits, see `locate.layout_of`.
        """
        case = layer, first_tensor(output).shape, image.shape
        if case not in self._readers:
            self._readers[case] = self._reader(*case, inputs)
        return self._readers[case]

    def _reader(self, layer: nn.Module, shape: Size, of_image: Size, inputs: Inputs) -> Callable[[Any], torch.Tensor]:
        plain = channels_first(shape)
        if len(shape) != len(of_image):
            layout = layout_of(self.model, inputs, layer, self.spatial_from)
        else:
            readings = layouts_of(shape, of_image[0], of_image[2:], set())
            layout = plain if not readings or plain in readings else readings[0]
        return first_tensor if layout == plain else layout.of_output

    def check_proportions(self, grid: Size, image_size: Size) -> None:
        """Warn where the grid of a given reshape_transform has other proportions than the image."""
        if (grid, image_size) not in self._fitting and not warn_of_proportions(grid, image_size):
            self._fitting.add((grid, image_size))
