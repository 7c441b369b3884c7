"""The layers and layouts that are found at the first call with an input of a new size."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import image_of
from pytorch_grad_cam.engine.layouts import Layout, channels_first, layouts_of
from pytorch_grad_cam.locate.search import Location, layout_of


class FoundLayers:
    """The layers that `locate` finds, and the hooks on them; threads can share one object.

    search: from what the model is called with to the location. make_hooks: from target layers and a reshape_transform
    to hooks. reshape_transform: None takes the layout of the location.
    """

    def __init__(
        self,
        search: Callable[[Any], Location],
        make_hooks: Callable,
        reshape_transform: Callable | None,
        spatial_from: int | str | None,
    ) -> None:
        self.search = search
        self.make_hooks = make_hooks
        self.reshape_transform = reshape_transform
        self.spatial_from = spatial_from
        self._lock = threading.Lock()
        self._released = False
        self._by_size: dict[tuple[int, ...], tuple[Location, Any]] = {}
        self._hooks_by_reading: dict[tuple[nn.Module, Layout], Any] = {}

    def __reduce__(self) -> tuple:
        """A copy without locations and hooks: it searches anew."""
        return FoundLayers, (self.search, self.make_hooks, self.reshape_transform, self.spatial_from)

    def hooks_for(self, x: Any) -> tuple[Location, Any]:
        """The location for inputs like x, and hooks on its layer.

        Raises RuntimeError after `release()`. Cost: for a new size that of `locate`.
        """
        if self._released:
            raise RuntimeError("the hooks were released (at the end of `with`, or by release()): make a new object")
        size = tuple(image_of(x, self.spatial_from).shape[2:])
        with self._lock:
            if size not in self._by_size:
                location = self.search(x)
                self._by_size[size] = location, self._hooks_on(location)
            return self._by_size[size]

    def _hooks_on(self, location: Location) -> Any:
        """The hooks on a location's layer; sizes with the same reading, such as all sizes of a CNN, share them."""
        layout = location.layout
        reading = location.layer, layout if "T" in layout.axes else layout._replace(grid=())
        if reading not in self._hooks_by_reading:
            reshape_transform = self.reshape_transform or location.as_map
            self._hooks_by_reading[reading] = self.make_hooks([location.layer], reshape_transform)
        return self._hooks_by_reading[reading]

    def release(self) -> None:
        """Remove the hooks from the model."""
        self._released = True
        for hooks in self._hooks_by_reading.values():
            hooks.release()


class FoundLayouts:
    """The layouts of given layers."""

    def __init__(self, model: nn.Module, spatial_from: int | str | None) -> None:
        self.model = model
        self.spatial_from = spatial_from
        self._by_layer_and_size: dict[tuple[nn.Module, tuple[int, ...]], Layout] = {}

    def of(self, layer: nn.Module, activations: torch.Tensor, x: Any) -> Layout:
        """The layout of what a layer returned for x.

        A tensor with as many axes as the input is channels first, unless only channels last fits the input's
        proportions. Raises ValueError where nothing fits, see `locate.layout_of`. Cost: for tokens of a new size one
        forward.
        """
        image = image_of(x, self.spatial_from)
        if activations.ndim == image.ndim:
            readings = layouts_of(activations.shape, len(image), image.shape[2:], set())
            usual = channels_first(activations.shape)
            return usual if not readings or usual in readings else readings[0]
        key = layer, tuple(image.shape[2:])
        if key not in self._by_layer_and_size:
            self._by_layer_and_size[key] = layout_of(self.model, x, layer, self.spatial_from)
        return self._by_layer_and_size[key]
