"""PathCAM."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.compat.override_points import weighted
from pytorch_grad_cam.engine.cam_warning import CamWarning, issue, warn_where_apart
from pytorch_grad_cam.engine.capture import Captured, Capturing
from pytorch_grad_cam.engine.inputs import Inputs
from pytorch_grad_cam.engine.layer_run import Call, CapturedRun, Drawn, LayerRun
from pytorch_grad_cam.engine.maps import blurred_along, min_max
from pytorch_grad_cam.engine.targets import Targets
from pytorch_grad_cam.engine.trees import AsMap
from pytorch_grad_cam.grad_cam import grad_cam_weights
from pytorch_grad_cam.locate.found_layers import Asked
from pytorch_grad_cam.locate.location import Location
from pytorch_grad_cam.registration.registration import MapOfLayer, register_together

# Of a cell. Chosen on EfficientNet-Lite0 and Lite1 (202 objects): from none to a third of a cell .97 to .98 are hit. A
# wider Gaussian has its maximum further inside the object, and less of its map there.
_BLUR = 0.25


def rectified_layer_cam(activations: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
    r"""$\sum_k ReLU(\partial y / \partial A^k) \odot ReLU(A^k)$: (N, C, *spatial) to (N, *spatial)."""
    return (grads.relu() * activations.relu()).sum(1)


def along_path(class_map: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
    r"""$(L \odot \frac{1}{|P|} \sum_{l \in P} L_l)^2$ of a map (N, 1, *spatial) and those of the path (N, P, *spatial),
    which are scaled to [0, 1]; with the sign of L.
    """
    product = class_map * min_max(path.flatten(0, 1)).reshape(path.shape).mean(1, keepdim=True)
    return product * product.abs()


def blurred_by_cells(maps: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Maps (N, C, *spatial) with a Gaussian over them, of a fraction of the cells of a grid."""
    for axis, cells in enumerate(grid, start=2):
        maps = blurred_along(maps, axis, _BLUR * maps.shape[axis] / cells)
    return maps


def without_finest(path: Sequence[Location]) -> list[Location]:
    """The maps with fewer cells than the finest have; all where they have the same."""
    cells = [math.prod(location.layout.grid) for location in path]
    coarser = [location for location, count in zip(path, cells, strict=True) if count < max(cells)]
    return coarser or [*path]


class PathCAM(BaseCAM):
    r"""Grad-CAM where the layers in front of it look: $g * (L_{GradCAM} \odot \frac{1}{|P|} \sum_{l \in P} L_l)^2$ with
    $L_l = \sum_k ReLU(\partial y / \partial A^k_l) \odot ReLU(A^k_l)$, each scaled to [0, 1] at the image's size, and a
    Gaussian g of a quarter of Grad-CAM's cells: a place is not known better.

    The last layer knows the class and has few cells; those in front of it know the place. The path $P$ are all maps in
    front of Grad-CAM's layer that every path from the image to the score goes through, but those of the finest grid,
    which show edges. It is found for one layer or none; of several named ones the last is Grad-CAM's and the others are
    the path. A reshape_transform reads all layers: the path are the maps of the shape that it takes. Where Grad-CAM's
    layer stays even tiles (see `registration`) the path does: a product needs its maps in one place.
    When to take it: to point at an object when the last layer is coarse; of our methods it is the best at that, and
    needs neither biases nor a choice of layers. Its map is the middle of the object, not its outline (IoU .22 of the
    digits' boxes, Grad-CAM .61). Not on transformers, where its maximum lies on another object in one of nine of our
    scenes, nor where the network has no map before its last one.
    Cost: one forward and one whole backward.
    Ours, published nowhere: on the path it has the maps of the paper, of rectified activations.
    Paper: Jiang et al. 2021, IEEE TIP 30, https://doi.org/10.1109/TIP.2021.3089943.
    """

    averages_positions = True

    @property
    def _of_class(self) -> list[nn.Module]:
        """The layers of Grad-CAM's maps: the found ones, or the last named one."""
        of_class: list[nn.Module] = self.target_layers if self._finds_layers else self.target_layers[-1:]
        return of_class

    def evidence(self, run: LayerRun) -> torch.Tensor:
        if run.layer in self._of_class:
            return weighted(grad_cam_weights(run.grads), run)
        return rectified_layer_cam(run.activations, run.grads)

    def _prepared(self, inputs: Inputs, targets: Targets) -> tuple[Inputs, torch.Tensor, Capturing, AsMap | None]:
        inputs, image, capture, transform = super()._prepared(inputs, targets)
        if not len(image) or (not self._finds_layers and len(self.target_layers) > 1):
            return inputs, image, capture, transform
        of_path = self._found_layers.path_to(self.target_layers, Asked(inputs, image, targets), transform is not None)
        path = without_finest(of_path)
        for location in path:
            self._found_layouts.keep(location, tuple(image.shape[2:]))
        layers = [*(location.layer for location in path), *self.target_layers]
        how = self.uses_gradients or not self.detach, self.detach
        return inputs, image, self.capture_class(self.model, layers, *how), transform

    def _layers_of_targets(self, call: Call, targets: Targets, capture: Capturing) -> torch.Tensor | None:
        of_class = [run for run in capture.runs if run[0] in self.target_layers]
        return self._found_layers.read_by(call, targets, of_class)

    def _runs(self, call: Call, captured: Captured, transform: AsMap | None) -> list[CapturedRun]:
        if self.align != "receptive_field":
            return super()._runs(call, captured, transform)
        read = [
            (layer, transform or self._found_layouts.as_map(layer, output, call.image, call.inputs), output)
            for layer, output in captured
        ]
        maps = [MapOfLayer(layer, as_map, tuple(as_map(output).shape[2:])) for layer, as_map, output in read]
        register_together(self.model, maps, call.inputs, self.spatial_from)
        runs = super()._runs(call, captured, transform)
        of_class = {layer: where for layer, where in self.registrations.items() if layer in self._of_class}
        if any(where.source != "tiles" for where in of_class.values()):
            return runs
        self.registrations = of_class
        return [each._replace(run=each.run._replace(registration=None)) for each in runs]

    def _drawn(self, call: Call, runs: list[CapturedRun]) -> Drawn:
        """Grad-CAM's maps along the path, and their check."""
        of_class = [each for each in runs if each.run.layer in self._of_class]
        of_path = [each for each in runs if each.run.layer not in self._of_class]
        drawn, check = super()._drawn(call, of_class)
        if not of_path:
            if len(call.image):
                issue(CamWarning(_NO_PATH.format(type(self.model).__name__)))
            return drawn, check
        path = torch.cat(super()._drawn(call, of_path)[0], dim=1)
        grids = {each.run.layer: each.run.activations.shape[2:] for each in of_class}
        joined = [
            blurred_by_cells(along_path(each, path), grid) for each, grid in zip(drawn, grids.values(), strict=True)
        ]

        def check_joined() -> None:
            check()
            warn_where_apart(torch.cat(drawn, dim=1), torch.cat(joined, dim=1), len(call.image), _APART)

        return joined, check_joined


_APART = "no position is high both in Grad-CAM's map and in those of the path"
_NO_PATH = (
    "{} has no map in front of Grad-CAM's layer that every path to the score goes through: this map is Grad-CAM's "
    "alone; name layers that show more cells in front of the last"
)
