"""Which pixel of the image each cell of a layer's map looks at, and maps drawn there."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import call, image_of, on_device_of, rows_of, with_image
from pytorch_grad_cam.engine.layers import resolve_layers
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.watch import Outputs
from pytorch_grad_cam.engine.wrappers import unwrapped
from pytorch_grad_cam.locate.search import layout_of
from pytorch_grad_cam.registration.centre_rules import CentresWatch
from pytorch_grad_cam.registration.measured_centres import MeasuredCentres, measured_centres

_FAR = 0.25
_UNCLEAR = 0.25
_TRAINED = 0.2


class Registration(NamedTuple):
    """The affine map from the cells of a layer to the pixels of an image: cell i is centred on first + step * i.

    image_size, grid, first, step: one number an axis; pixels are counted from the centre of the first one.
    geometry: the first centre by kernels, strides, padding along the path, the middle of what a cell can see; None
    where the path is not plain. measured: by the gradient, the middle of what it responds to (see `measured_centres`),
    with its standard error; None where it was not asked for or nothing was found.
    source: what `first` was made of, 'geometry', 'measurement', or both: the mean of the two, with weights by the
    error and by how far training moves centres, a fifth of a cell; 'tiles' where neither told: even tiles, as maps are
    usually drawn.
    """

    image_size: tuple[int, ...]
    grid: tuple[int, ...]
    first: tuple[float, ...]
    step: tuple[float, ...]
    source: str
    geometry: tuple[float, ...] | None = None
    measured: tuple[float, ...] | None = None
    error: tuple[float, ...] | None = None

    def by_geometry(self) -> Registration:
        """The same without what was measured."""
        if self.geometry is None:
            return self
        return self._replace(first=self.geometry, source="geometry", measured=None, error=None)

    @property
    def shift(self) -> tuple[float, ...]:
        """How many pixels the cells look further down, right, ... than the even tiles that maps are usually drawn as:
        negative is up and left.
        """
        sizes = zip(self.first, self.step, self.grid, self.image_size, strict=True)
        return tuple(first + step * (cells - 1) / 2 - (pixels - 1) / 2 for first, step, cells, pixels in sizes)

    @property
    def difference(self) -> tuple[float, ...] | None:
        """Measured minus geometric centres in pixels; None unless both are known."""
        if self.measured is None or self.geometry is None:
            return None
        return tuple(measured - first for measured, first in zip(self.measured, self.geometry, strict=True))

    @property
    def looks_elsewhere(self) -> bool:
        """Whether the measured centres differ from geometry by more than a quarter of a cell, and two standard errors:
        by training, the layer responds to one side of what it could see.
        """
        axes = zip(self.difference or (), self.error or (), self.step, strict=False)
        return any(abs(difference) > max(_FAR * step, 2 * error) for difference, error, step in axes)

    def enlarge(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, *grid), each cell drawn where it looks: (N, C, *image_size).

        Linear between the centres; beyond the outermost ones their value goes on. Raises ValueError for another grid.
        """
        if tuple(maps.shape[2:]) != self.grid:
            raise ValueError(f"maps of {tuple(maps.shape[2:])} cells, but the registration is of {self.grid}")
        for axis in range(len(self.grid)):
            maps = (maps.movedim(axis + 2, -1) @ self._interpolation(axis).to(maps).T).movedim(-1, axis + 2)
        return maps

    def _interpolation(self, axis: int) -> torch.Tensor:
        """The weight of each cell at each pixel (pixels, cells)."""
        pixels = torch.arange(self.image_size[axis], dtype=torch.float64)
        cells = self.grid[axis]
        at = ((pixels - self.first[axis]) / self.step[axis]).clamp(0, cells - 1)
        return (1 - (at[:, None] - torch.arange(cells)).abs()).clamp(min=0)

    def __str__(self) -> str:
        text = (
            f"cells every {_numbers(self.step)} px, the first at pixel {_numbers(self.first)}, "
            f"{_numbers(self.shift, '+')} px from where even tiles would be (by {self.source}"
        )
        if self.difference is not None:
            text += f", measured {_numbers(self.difference, '+')} px beside geometry, +-{_numbers(self.error or ())}"
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
    reshape_transform: Callable[[Any], torch.Tensor] | None = None,
    spatial_from: int | str | None = None,
    measure: bool = True,
    grid: Sequence[int] | None = None,
) -> Registration:
    """Where in inputs like x the cells of a layer look.

    By geometry where the path from the image is plain (see `centre_rules`), corrected by measurement; else by
    measurement alone. The answer is kept for the model, the layer and the size; make a new model's after training.

    layer: a module of the model or its dotted name. x, spatial_from: as a CAM is called. reshape_transform: from what
    the layer returns to (N, C, *spatial); None finds the layout. measure: False takes geometry alone, where it tells.
    grid: the cells of the map, of a layer that runs for maps of several sizes.

    Cost: one forward; measured, three more and for each axis three backwards. Raises ValueError where the layer gives
    no map.
    """
    model = unwrapped(model)
    (module,) = resolve_layers(model, layer)
    image = image_of(x, spatial_from)
    size = tuple(image.shape[2:])
    kept = _KEPT.setdefault(model, weakref.WeakKeyDictionary()).setdefault(module, {})
    fitting = (found for (of_size, _), found in kept.items() if of_size == size)
    known: Registration | None = next(fitting, None) if grid is None else kept.get((size, tuple(grid)))
    if known is None or (measure and known.source == "geometry"):
        x = on_device_of(model, rows_of(x, torch.tensor([0]), len(image)))
        as_map = reshape_transform or layout_of(model, x, module, spatial_from).of_output
        known = known or _by_geometry(model, module, x, as_map, spatial_from, grid)
        if measure or known.source != "geometry":
            known = _with_measured(known, measured_centres(model, module, x, as_map, spatial_from, known.grid))
        kept[size, known.grid] = known
    return known if measure or known.geometry is None else known.by_geometry()


Alignment = Literal["cell", "receptive_field"] | Registration


def checked_alignment(align: Alignment) -> Alignment:
    """What a CAM takes as `align`; raises ValueError for anything else."""
    if isinstance(align, Registration) or align in ("cell", "receptive_field"):
        return align
    raise ValueError(f"align is {align!r}, expected 'cell', 'receptive_field' or a Registration")


_KEPT: Any = weakref.WeakKeyDictionary()


def _by_geometry(
    model: nn.Module,
    layer: nn.Module,
    x: Any,
    as_map: Callable[[Any], torch.Tensor],
    spatial_from: int | str | None,
    grid: Sequence[int] | None,
) -> Registration:
    """Of the first run of the layer whose cells are followed all the way from the image; even tiles where there is
    none. Cost: one forward.
    """
    with undisturbed(model), torch.no_grad(), Outputs([layer]) as outputs:
        image = image_of(x, spatial_from).clone()
        with CentresWatch(image) as watch:
            call(model, with_image(x, image, spatial_from))
            maps = [as_map(output) for output in outputs.kept]
    if not maps:
        raise ValueError(f"target layer {type(layer).__name__} did not run when the model was called")
    of_grid = [each for each in maps if grid is None or tuple(each.shape[2:]) == tuple(grid)]
    found = [registered(watch, each, tuple(image.shape[2:])) for each in of_grid or maps]
    return next((each for each in found if each.source == "geometry"), found[0])


def registered(watch: CentresWatch, maps: torch.Tensor, image_size: tuple[int, ...]) -> Registration:
    """Of maps (N, C, *grid) whose axes were followed from those of the image; even tiles where they were not."""
    centres, grid = watch.of(maps), tuple(maps.shape[2:])
    tiles = tuple(pixels / cells for cells, pixels in zip(grid, image_size, strict=True))
    even = Registration(image_size, grid, tuple((each - 1) / 2 for each in tiles), tiles, "tiles")
    if centres is None or any(axis.of_image for axis in centres.axes[:2]):
        return even
    stretches = [centres.along(image_axis + 2) for image_axis in range(len(grid))]
    followed = [stretch.image_axis if stretch else None for stretch in stretches]
    if any(found != axis for axis, found in enumerate(followed) if grid[axis] > 1):
        return even
    steps = tuple(stretch.step if stretch else tile for stretch, tile in zip(stretches, tiles, strict=True))
    return Registration(image_size, grid, centres.first, steps, "geometry", geometry=centres.first)


def _with_measured(known: Registration, measured: MeasuredCentres | None) -> Registration:
    """Geometry corrected by measurement; instead of tiles measurement, where its error is below a quarter of a cell."""
    if measured is None:
        return known
    if known.geometry is not None:
        first = measured.first_with(known.step)
        axes = zip(known.geometry, first, measured.error, known.step, strict=True)
        mean = tuple(g + (m - g) / (1 + (error / (_TRAINED * step)) ** 2) for g, m, error, step in axes)
        source = "geometry and measurement"
        return known._replace(first=mean, source=source, measured=first, error=measured.error)
    if any(error > _UNCLEAR * step for error, step in zip(measured.error, measured.step, strict=True)):
        return known
    found = known._replace(first=measured.first, step=measured.step, source="measurement")
    return found._replace(measured=measured.first, error=measured.error)
