"""The pixels that the cells of a layer's map look at, and maps drawn there."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, call, image_of, on_device_of, rows_of, with_image
from pytorch_grad_cam.engine.layers import resolve_layers
from pytorch_grad_cam.engine.trees import AsMap
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.watch import Outputs
from pytorch_grad_cam.engine.wrappers import unwrapped
from pytorch_grad_cam.locate.search import layout_of
from pytorch_grad_cam.registration.centre_rules import CentresWatch
from pytorch_grad_cam.registration.mirror_test import Displacement, displacement, strength, strengths_of_views

# In cells. A choice; the tests have nothing between 0.16 and 0.75.
_FAR = 0.25
# A choice, the usual 95 %.
_STANDARD_ERRORS = 2


class Registration(NamedTuple):
    """The affine map from the cells of a layer to the pixels of an image: cell i is centred on first + step * i.

    image_size, grid, first, step: one number for each axis; the centre of the first pixel is at 0.
    geometry, stride: the first centre and the step by the kernels, strides and padding along the path, the middle of
    what a cell can see; None where the path is not plain. measured, error: the first centre by mirrored images (see
    `mirror_test`), the middle of what a cell responds to, and its standard error; None where it was not asked for or
    nothing was found.
    source: what `first` comes from. 'measurement': the measured displacement from even tiles, as far as it is certain
    (see `mirror_test.Displacement.shrunk`); 'geometry', where that alone was asked for: what untrained weights look
    at, which training changes; 'tiles', as maps are usually drawn: where nothing was found, or too little to rule them
    out, as at most last layers, with cells 32 px apart.
    """

    image_size: tuple[int, ...]
    grid: tuple[int, ...]
    first: tuple[float, ...]
    step: tuple[float, ...]
    source: str
    geometry: tuple[float, ...] | None = None
    stride: tuple[float, ...] | None = None
    measured: tuple[float, ...] | None = None
    error: tuple[float, ...] | None = None

    def by_geometry(self) -> Registration:
        """The registration by geometry alone; itself where geometry is not known."""
        if self.geometry is None or self.stride is None:
            return self
        return self._replace(first=self.geometry, step=self.stride, source="geometry", measured=None, error=None)

    @property
    def shift(self) -> tuple[float, ...]:
        """The pixels that the cells look further down, right, ... than even tiles; negative is up and left."""
        return self._beside_tiles(self.first, self.step)

    def _beside_tiles(self, first: Sequence[float], step: Sequence[float]) -> tuple[float, ...]:
        sizes = zip(first, step, self.grid, self.image_size, strict=True)
        return tuple(at + by * (cells - 1) / 2 - (pixels - 1) / 2 for at, by, cells, pixels in sizes)

    @property
    def difference(self) -> tuple[float, ...] | None:
        """Measured minus geometric centres in pixels, in the middle of the grid; None unless both are known."""
        if self.measured is None or self.geometry is None or self.stride is None:
            return None
        measured, by_geometry = self._beside_tiles(self.measured, self.step), self.by_geometry().shift
        return tuple(a - b for a, b in zip(measured, by_geometry, strict=True))

    @property
    def looks_elsewhere(self) -> bool:
        """Whether measured centres differ from geometry by more than a quarter of a cell and two standard errors.

        Then training made the layer respond to one side of what it could see.
        """
        axes = zip(self.difference or (), self.error or (), self.step, strict=False)
        return any(abs(difference) > max(_FAR * step, _STANDARD_ERRORS * error) for difference, error, step in axes)

    def enlarge(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, *image_size) from (N, C, *grid), each cell drawn where it looks.

        Linear between the centres, constant beyond the outermost ones. Raises ValueError for maps of another grid.
        """
        if tuple(maps.shape[2:]) != self.grid:
            raise ValueError(f"the maps have {tuple(maps.shape[2:])} cells, but the registration is for {self.grid}")
        for axis in range(len(self.grid)):
            maps = (maps.movedim(axis + 2, -1) @ self._interpolation(axis).to(maps).T).movedim(-1, axis + 2)
        return maps

    def _interpolation(self, axis: int) -> torch.Tensor:
        """The weight of each cell at each pixel (pixels, cells)."""
        pixels = torch.arange(self.image_size[axis], dtype=torch.float64)
        cells = self.grid[axis]
        positions = ((pixels - self.first[axis]) / self.step[axis]).clamp(0, cells - 1)  # in cells
        return (1 - (positions[:, None] - torch.arange(cells)).abs()).clamp(min=0)

    def __str__(self) -> str:
        text = (
            f"cells every {_numbers(self.step)} px, the first at pixel {_numbers(self.first)}, "
            f"{_numbers(self.shift, '+')} px from where even tiles would be (by {self.source}"
        )
        if self.measured is not None:
            beside = self._beside_tiles(self.measured, self.step)
            text += f"; measured {_numbers(beside, '+')} +-{_numbers(self.error or ())}"
        text += ")"
        if self.looks_elsewhere:
            text += "; the trained weights look more than a quarter of a cell beside what the geometry says"
        return text


def _numbers(values: Sequence[float], sign: str = "") -> str:
    return ", ".join(f"{value + 0.0:{sign}.4g}" for value in values)


def registration_of(
    model: nn.Module,
    layer: nn.Module | str,
    x: Any,
    reshape_transform: AsMap | None = None,
    spatial_from: SpatialFrom = None,
    measure: bool = True,
    grid: Sequence[int] | None = None,
) -> Registration:
    """The registration of a layer: where in inputs like x its cells look.

    By measurement, as far as that is certain, else as even tiles, see `Registration.source`. The measurement takes the
    images of x where they are several, and noise; pass photographs of yours, eight or more, for a better one. The
    answer is kept for the model object, the layer and the size, also when the weights change, until several images
    measure it anew.

    layer: a module of the model or its dotted name. x, spatial_from: as in a CAM's call. reshape_transform: from what
    the layer returns to (N, C, *spatial); None finds the layout. measure: False takes geometry alone, where it is
    known: right for random weights, and wrong for trained ones. grid: the cells of the map, for a layer that runs for
    maps of several sizes.

    Raises ValueError where the layer gives no map. Cost: one forward; with measurement, of images (N, C, H, W), 24 of
    one image, or of fewer and larger batches.
    """
    model = unwrapped(model)
    (module,) = resolve_layers(model, layer)
    image = image_of(x, spatial_from)
    size = tuple(image.shape[2:])
    kept = _KEPT.setdefault(model, weakref.WeakKeyDictionary()).setdefault(module, {})
    of_size = (registration for (kept_size, _), registration in kept.items() if kept_size == size)
    known: Registration | None = next(of_size, None) if grid is None else kept.get((size, tuple(grid)))
    if known is None or (measure and (known.source == "geometry" or len(image) > 1)):
        x = on_device_of(model, x)
        one = rows_of(x, torch.tensor([0]), len(image))
        as_map = reshape_transform or layout_of(model, one, module, spatial_from).of_output
        asked = MapOfLayer(module, as_map, None if grid is None else tuple(grid))
        known = known or by_geometry(model, [asked], one, spatial_from)[0]
        if measure or known.source != "geometry":
            (measured,) = _displacements(model, [asked._replace(grid=known.grid)], x, spatial_from)
            known = with_displacement(known, measured)
        kept[size, known.grid] = known
    return known if measure or known.geometry is None else known.by_geometry()


class MapOfLayer(NamedTuple):
    """A layer, how a map (N, C, *grid) is read of what it returns, and the grid; None is that of its first run."""

    layer: nn.Module
    as_map: AsMap
    grid: tuple[int, ...] | None = None


def register_together(model: nn.Module, maps: Sequence[MapOfLayer], x: Any, spatial_from: SpatialFrom = None) -> None:
    """Measure the layers that `registration_of` does not know yet, and keep the answers for it.

    Cost: that of `registration_of` for one, for all together.
    """
    model = unwrapped(model)
    of_model = _KEPT.setdefault(model, weakref.WeakKeyDictionary())
    samples, size = len(image_of(x, spatial_from)), tuple(image_of(x, spatial_from).shape[2:])
    unknown = [each for each in maps if (size, each.grid) not in of_model.setdefault(each.layer, {})]
    if unknown:
        x = on_device_of(model, rows_of(x, torch.tensor([0]), samples))
        places = by_geometry(model, unknown, x, spatial_from)
        measured = _displacements(model, unknown, x, spatial_from)
        for each, place, moved in zip(unknown, places, measured, strict=True):
            of_model[each.layer][size, each.grid] = with_displacement(place, moved)


Alignment = Literal["cell", "receptive_field"] | Registration


def checked_alignment(align: Alignment) -> Alignment:
    """The alignment itself; raises ValueError for what no CAM takes as `align`."""
    if isinstance(align, Registration) or align in ("cell", "receptive_field"):
        return align
    raise ValueError(f"align is {align!r}, expected 'cell', 'receptive_field' or a Registration")


def aligned(
    align: Alignment,
    model: nn.Module,
    layer: nn.Module,
    inputs: Inputs,
    as_map: AsMap | None,
    spatial_from: SpatialFrom,
    grid: Sequence[int],
) -> Registration:
    """Where the cells of a layer are drawn as `align` says: not by the call's images, so that a map does not depend on
    which ones came first. Cost: see `registration_of`.
    """
    if isinstance(align, Registration):
        return align
    one = rows_of(inputs, torch.tensor([0]), len(image_of(inputs, spatial_from)))
    return registration_of(model, layer, one, as_map, spatial_from, grid=tuple(grid))


_KEPT: Any = weakref.WeakKeyDictionary()


def by_geometry(model: nn.Module, maps: Sequence[MapOfLayer], x: Any, spatial_from: SpatialFrom) -> list[Registration]:
    """Of each layer the registration of the first run whose cells are followed from the image; else even tiles.

    Cost: one forward.
    """
    with undisturbed(model), torch.no_grad(), ExitStack() as stack:
        outputs = [stack.enter_context(Outputs([each.layer])) for each in maps]
        image = image_of(x, spatial_from).clone()
        with CentresWatch(image) as watch:
            call(model, with_image(x, image, spatial_from))
            read = [
                [each.as_map(output) for output in of_layer.kept] for each, of_layer in zip(maps, outputs, strict=True)
            ]
    return [_of_first_run(watch, each, runs, tuple(image.shape[2:])) for each, runs in zip(maps, read, strict=True)]


def _of_first_run(
    watch: CentresWatch, asked: MapOfLayer, maps: Sequence[torch.Tensor], size: tuple[int, ...]
) -> Registration:
    if not maps:
        raise ValueError(f"target layer {type(asked.layer).__name__} did not run when the model was called")
    maps_of_grid = [run_maps for run_maps in maps if asked.grid is None or tuple(run_maps.shape[2:]) == asked.grid]
    registrations = [registered(watch, run_maps, size) for run_maps in maps_of_grid or maps]
    return next((candidate for candidate in registrations if candidate.source == "geometry"), registrations[0])


def registered(watch: CentresWatch, maps: torch.Tensor, image_size: tuple[int, ...]) -> Registration:
    """The registration of maps (N, C, *grid) whose axes were followed from the image's; else even tiles."""
    centres, grid = watch.of(maps), tuple(maps.shape[2:])
    tiles = tuple(pixels / cells for cells, pixels in zip(grid, image_size, strict=True))
    even = Registration(image_size, grid, tuple((tile - 1) / 2 for tile in tiles), tiles, "tiles")
    if centres is None or any(axis.of_image for axis in centres.axes[:2]):
        return even
    stretches = [centres.along(axis + 2) for axis in range(len(grid))]
    image_axes = [stretch.image_axis if stretch else None for stretch in stretches]
    if any(image_axis != axis for axis, image_axis in enumerate(image_axes) if grid[axis] > 1):
        return even
    steps = tuple(stretch.step if stretch else tile for stretch, tile in zip(stretches, tiles, strict=True))
    return Registration(image_size, grid, centres.first, steps, "geometry", centres.first, steps)


def with_displacement(known: Registration, measured: Displacement | None) -> Registration:
    """A registration by geometry, or even tiles, as the measured displacement draws it; tiles without one.

    The step is that of even tiles, or the stride where that is smaller, as without padding. Where the stride is larger
    the outermost cells would look past the border, which trained ones do not.
    """
    tiles = tuple(pixels / cells for pixels, cells in zip(known.image_size, known.grid, strict=True))
    step = tuple(map(min, tiles, known.stride or tiles))
    axes = zip(known.image_size, known.grid, step, strict=True)
    centred = tuple((pixels - 1) / 2 - by * (cells - 1) / 2 for pixels, cells, by in axes)
    if measured is None:
        return known._replace(first=centred, step=step, source="tiles")

    def moved(cells: Sequence[float]) -> tuple[float, ...]:
        return tuple(at + by * moved for at, by, moved in zip(centred, step, cells, strict=True))

    error = tuple(by * cells for by, cells in zip(step, measured.error, strict=True))
    source = "measurement" if measured.is_certain() else "tiles"
    drawn = known._replace(first=moved(measured.shrunk()), step=step, source=source)
    return drawn._replace(measured=moved(measured.cells), error=error)


def _displacements(
    model: nn.Module, maps: Sequence[MapOfLayer], x: Inputs, spatial_from: SpatialFrom
) -> list[Displacement | None]:
    """Of each layer by its first run with the grid. Cost: see `strengths_of_views`, for all together."""

    def strengths(inputs: Inputs) -> list[torch.Tensor]:
        with ExitStack() as stack:
            outputs = [stack.enter_context(Outputs([each.layer])) for each in maps]
            call(model, inputs)
        return [_strength_of_run(each, of_layer.kept) for each, of_layer in zip(maps, outputs, strict=True)]

    with undisturbed(model), torch.no_grad():
        views = strengths_of_views(x, spatial_from, strengths)
        return [None if each is None else displacement(each) for each in views]


def _strength_of_run(of_layer: MapOfLayer, outputs: Sequence[Any]) -> torch.Tensor:
    maps = map(of_layer.as_map, outputs)
    return next(strength(each) for each in maps if tuple(each.shape[2:]) == of_layer.grid)
