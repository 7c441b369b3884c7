"""The algorithm that all methods share, from a model and an image to a heat map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from pytorch_grad_cam.compat.array_interface import accepts_arrays, adapt_overrides
from pytorch_grad_cam.compat.foreign_hooks import ForeignHooks, as_hooks
from pytorch_grad_cam.compat.old_spellings import old_call, old_constructor
from pytorch_grad_cam.engine.cam_warning import LayerEvidence, warn_of_blank_maps, warn_of_proportions
from pytorch_grad_cam.engine.current_call import CurrentCall
from pytorch_grad_cam.engine.inputs import Inputs, call, image_of, rows_of, with_image
from pytorch_grad_cam.engine.layers import resolve_layers
from pytorch_grad_cam.engine.layouts import Layout
from pytorch_grad_cam.engine.maps import check_shape, full_precision, min_max, over_positions, resize, scaled_evidence
from pytorch_grad_cam.engine.outputs import scores_in
from pytorch_grad_cam.engine.principal_component import first_principal_component
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.engine.targets import (
    Target,
    TargetRule,
    Targets,
    chosen,
    resolve_targets,
    several_an_image,
    target_scores,
)
from pytorch_grad_cam.engine.thread_state import ThreadState
from pytorch_grad_cam.engine.trees import detached, to_array
from pytorch_grad_cam.engine.undisturbed import model_device, on_device_of, undisturbed
from pytorch_grad_cam.engine.wrappers import unwrapped
from pytorch_grad_cam.locate.found_layers import FoundLayers, FoundLayouts
from pytorch_grad_cam.locate.search import Location, locate
from pytorch_grad_cam.registration.registration import Alignment, Registration, checked_alignment, registration_of

if TYPE_CHECKING:
    import ttach


class BaseCAM:
    """A class activation map: the target layer's activations, weighted by what they mean for the target.

    A method is a subclass with its own `get_cam_weights` (or `get_cam_image`); both get tensors on the model's device,
    or NumPy arrays in classes outside this package that do not say `receives_tensors = True`. It may say
    `uses_gradients = False` (no backward pass), `uses_targets = False` (for no class in particular, so without
    gradients), `uses_layers = False` (it has no target layers), `hooks_class` (what captures).

    model: any module; it is run in evaluation mode and left exactly as it was.
    target_layers: modules or dotted names of the model, one or several; the map is the mean over the layers. None: the
    layer is found at the first call with an input of a new size (see `locate.locate`); `location` then says which.
    reshape_transform: from what a layer returns to (N, C, *spatial); None finds the layout of tokens and of
    channels-last maps by the input's size (see `locate.layout_of`).
    compute_input_gradient: the input that the override points get has its `.grad`.
    uses_gradients: None as the class says; False saves the backward pass.
    tta_transforms: a ttach.Compose for `aug_smooth`; None is a horizontal flip times the factors 0.9, 1, 1.1.
    detach: False leaves activations, gradients and maps in the autograd graph.
    output_transform: from the model's output to what the targets read; None is `model_outputs.scores_in`.
    spatial_from: which of several inputs is the image, its position or key; None is the first with spatial axes.
    call_index: which run of a layer that runs several times; None is the mean over all.
    align: 'cell' enlarges maps as even tiles, as grad-cam 1.5 does; 'receptive_field' draws each cell where it looks,
    or where a `registration.Registration` says. `registrations` then has what was used, by layer.

    Use it with `with`, or drop it when done: the hooks go with it.

    >>> from pytorch_grad_cam import GradCAM
    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net, preprocess_scene
    >>> with GradCAM(load_digits_net(), "layer4") as cam:
    ...     maps = cam(preprocess_scene(example_scene()), targets=5)
    >>> maps.shape, maps.dtype, float(maps.min()), float(maps.max())
    ((1, 64, 64), dtype('float32'), 0.0, 1.0)
    """

    uses_gradients = True
    uses_targets = True
    uses_layers = True
    receives_tensors = False
    hooks_class: Callable[..., Any] = ActivationsAndGradients

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        adapt_overrides(cls)

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable | None = None,
        compute_input_gradient: bool = False,
        uses_gradients: bool | None = None,
        tta_transforms: ttach.Compose | None = None,
        detach: bool = True,
        *,
        output_transform: Callable[[Any], Any] | None = None,
        spatial_from: int | str | None = None,
        call_index: int | None = None,
        align: Alignment = "cell",
    ) -> None:
        self.model = unwrapped(model)
        self.device = model_device(model)
        self.target_layers = [] if target_layers is None else resolve_layers(self.model, target_layers)
        if self.uses_layers and target_layers is not None and not self.target_layers:
            raise ValueError("target_layers is empty: pass layers, or None to have one found")
        self.reshape_transform = reshape_transform
        self.output_transform = output_transform or scores_in
        self.spatial_from = spatial_from
        self.call_index = call_index
        self.align = checked_alignment(align)
        self.registrations: dict[nn.Module, Registration] = {}
        self.compute_input_gradient = compute_input_gradient
        wanted = self.uses_gradients if uses_gradients is None else uses_gradients
        self.uses_gradients = wanted and self.uses_targets
        self.tta_transforms = tta_transforms
        self.detach = detach
        self._thread = ThreadState()
        self.outputs = None
        self.location: Location | None = None
        self._locate = partial(locate, self.model, spatial_from=spatial_from, output_transform=self.output_transform)
        self._layouts = FoundLayouts(self.model, spatial_from)
        self._tail_follows: dict[tuple[nn.Module, int, int], bool] = {}
        make_hooks = partial(self.hooks_class, self.model, detach=detach)
        if self.uses_layers and target_layers is None:
            self.activations_and_grads: Any = FoundLayers(self._locate, make_hooks, reshape_transform, spatial_from)
        else:
            self.activations_and_grads = make_hooks(self.target_layers, reshape_transform)

    @old_call
    def __call__(
        self,
        input_tensor: torch.Tensor,
        targets: Targets = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
        *,
        as_tensor: bool = False,
    ) -> np.ndarray | torch.Tensor:
        """One heat map an image.

        input_tensor: (N, C, *spatial), one to three spatial axes; with several inputs a tuple of arguments or a mapping
        of keyword arguments, of which `spatial_from` is the image.
        targets: what to explain, see `target_scores.resolve_targets`; None is each image's highest class. Several for
        each image, (N, K), give maps (N, K, *spatial) from one forward.
        aug_smooth: the mean of the maps of augmented images, six by default, each at the cost of one map; the class
        explained is that of the image itself.
        eigen_smooth: the first principal component of the weighted activations instead of their sum.
        as_tensor: return a tensor on the model's device.

        Returns float32 (N, *spatial) in [0, 1], each map from 0 to 1 (the mean of such maps with aug_smooth). A map
        that says nothing is zeros, with a CamWarning that says why.
        `outputs` then holds the model's detached output.

        Raises ValueError for a layer that did not run, that the score does not depend on or whose output is no map of
        the input; RuntimeError after the end of `with` and within a call of the same object; for targets see
        `target_scores.resolve_targets`.

        Cost: one forward of the model and, with gradients, for each of the K targets one backward of the part behind
        the first target layer.
        """
        hooks = self._hooks(input_tensor)
        frozen = self.detach and not isinstance(hooks, ForeignHooks)  # which may need the parameters' graph
        with undisturbed(self.model, frozen=frozen):
            if isinstance(targets, TargetRule) and type(self).forward is not BaseCAM.forward:
                targets = resolve_targets(targets, self._scores(input_tensor))  # a forward of 1.x knows lists only
            smoothed = self.forward_augmentation_smoothing if aug_smooth else self._forward
            try:
                maps = torch.as_tensor(smoothed(input_tensor, targets, eigen_smooth)).float()
            finally:
                hooks.clear()  # what a forward of 1.x leaves there
        return maps if as_tensor else to_array(maps)

    def forward(self, input_tensor: Inputs, targets: Targets, eigen_smooth: bool = False) -> np.ndarray | torch.Tensor:
        """The call without `aug_smooth`; classes that say `receives_tensors = True` get a tensor on the device."""
        with undisturbed(self.model, frozen=self.detach):
            maps = self._maps(input_tensor, targets, eigen_smooth)
        return maps if self.receives_tensors else to_array(maps)

    def _forward(self, input_tensor: Inputs, targets: Targets, eigen_smooth: bool = False) -> torch.Tensor:
        """The maps by a forward of a subclass, or ours, on the model's device."""
        if type(self).forward is BaseCAM.forward:
            return self._maps(input_tensor, targets, eigen_smooth)
        return torch.as_tensor(self.forward(input_tensor, targets, eigen_smooth))

    def _maps(self, input_tensor: Inputs, targets: Targets, eigen_smooth: bool) -> torch.Tensor:
        """The maps (N, *spatial) of one batch, for K targets an image (N, K, *spatial)."""
        if self._current is not None:
            raise RuntimeError(
                f"this {type(self).__name__} is called within its own call: make another one for a target"
            )
        hooks = self._hooks(input_tensor)
        with self._calling(self._on_device(input_tensor)) as current:
            image = image_of(current.inputs, self.spatial_from)
            try:
                outputs = hooks.capture(current.inputs, self.uses_gradients)
                self.outputs = detached(outputs)
                scores = self.output_transform(outputs)
                targets = chosen(targets, scores)
                columns = several_an_image(targets)
                if columns is None:
                    return self._explained(hooks, image, scores, targets, eigen_smooth)
                if not self.uses_targets:
                    maps_of_all = torch.as_tensor(self._explained(hooks, image, scores, None, eigen_smooth))
                    return torch.stack([maps_of_all] * len(columns), dim=1)
                resolved = current.columns = [resolve_targets(column, scores) for column in columns]
                maps = []
                for current.column, column in enumerate(resolved):
                    keep_graph = column is not resolved[-1]
                    maps.append(self._explained(hooks, image, scores, column, eigen_smooth, keep_graph))
                return torch.stack([torch.as_tensor(each) for each in maps], dim=1)
            finally:
                hooks.clear()

    def _explained(
        self,
        hooks: Any,
        image: torch.Tensor,
        scores: Any,
        targets: Targets,
        eigen_smooth: bool,
        keep_graph: bool = False,
    ) -> torch.Tensor:
        """The maps (N, *spatial) of one target an image."""
        resolved = resolve_targets(targets, scores) if self.uses_targets else []
        if self.uses_gradients:
            score = target_scores(scores, resolved).sum()
            wanted = [image] if self.compute_input_gradient else []
            for tensor, gradient in zip(wanted, hooks.differentiate(score, wanted, keep_graph), strict=True):
                tensor.grad = gradient
        return self.aggregate_multi_layers(self.compute_cam_per_layer(image, resolved, eigen_smooth))

    def compute_cam_per_layer(
        self, input_tensor: torch.Tensor, targets: list[Target], eigen_smooth: bool
    ) -> list[torch.Tensor]:
        """For each target layer its maps (N, 1, *spatial), rectified, scaled to [0, 1] and resized to the input."""
        size = self.get_target_width_height(input_tensor)[::-1]
        with self._calling(input_tensor) as current:
            hooks = self._hooks(current.inputs)
            layers, activations = hooks.captured_layers, hooks.activations
            gradients = hooks.gradients or [None] * len(layers)
            maps: dict[nn.Module, list[torch.Tensor]] = {layer: [] for layer in layers}
            evidence = []
            for position, current.call_index in self._chosen_calls(layers):
                layer = layers[position]
                layout = None
                if hooks.reshape_transform is None:
                    layout = self._layouts.of(layer, activations[position], current.inputs)
                found = _as_map(activations[position], layout, input_tensor)
                if layout is None:
                    warn_of_proportions(found.shape[2:], input_tensor.shape[2:])
                as_map = hooks.reshape_transform if layout is None else layout.of_output
                current.registration = self._registration(current.inputs, layer, as_map, found.shape[2:])
                grads = None if gradients[position] is None else _as_map(gradients[position], layout, input_tensor)
                cam = self.get_cam_image(input_tensor, layer, targets, found, grads, eigen_smooth)
                evidence.append(LayerEvidence(found, grads, cam))
                maps[layer].append(self.enlarged(scaled_evidence(cam)[:, None], size))
            cams = [torch.stack(calls).mean(0) for calls in maps.values()]
            highest = torch.stack([cam.flatten(1).amax(1) for cam in cams]).amax(0)
            warn_of_blank_maps(highest, evidence, partial(self._other_layer, current.inputs))
            return cams

    @accepts_arrays
    def get_cam_image(
        self,
        input_tensor: torch.Tensor,
        target_layer: nn.Module,
        targets: list[Target],
        activations: torch.Tensor,
        grads: torch.Tensor | None,
        eigen_smooth: bool = False,
    ) -> torch.Tensor:
        """The map (N, *spatial) of one layer, signed: the weighted activations' sum or first principal component."""
        weights = self.get_cam_weights(input_tensor, target_layer, targets, activations, grads)
        weighted = over_positions(weights, activations) * activations
        return first_principal_component(weighted) if eigen_smooth else weighted.sum(1)

    def get_cam_weights(
        self,
        input_tensor: torch.Tensor,
        target_layer: nn.Module,
        targets: list[Target],
        activations: torch.Tensor,
        grads: torch.Tensor | None,
    ) -> torch.Tensor:
        """The channels' weights (N, C), or one for each channel and position (N, C, *spatial)."""
        raise NotImplementedError(f"{type(self).__name__} defines neither get_cam_weights nor get_cam_image")

    @accepts_arrays
    def aggregate_multi_layers(self, cam_per_target_layer: list[torch.Tensor]) -> torch.Tensor:
        """The mean of the layers' maps, scaled to [0, 1]: (N, *spatial)."""
        return min_max(torch.cat(cam_per_target_layer, dim=1).relu().mean(dim=1))

    def of_targets(
        self, layer: nn.Module, targets: list[Target], compute: Callable[[list[list[Target]]], torch.Tensor]
    ) -> torch.Tensor:
        """What `compute` gives for the targets of the images, one an image.

        compute: from K such lists to (K, ...). In a call with several targets an image it is asked once for all of
        them; for methods whose forwards are the same whatever the target.
        """
        current = self._current
        if current is None or not current.columns:
            return compute([targets])[0]
        run = layer, current.call_index
        if run not in current.of_columns:
            current.of_columns[run] = compute(current.columns)
        return current.of_columns[run][current.column]

    def get_target_width_height(self, input_tensor: torch.Tensor) -> tuple[int, ...]:
        """The input's spatial size, the last axis first: the `target_size` of `utils.image.scale_cam_image`."""
        return tuple(input_tensor.shape[2:])[::-1]

    def forward_augmentation_smoothing(
        self, input_tensor: torch.Tensor, targets: Targets, eigen_smooth: bool = False
    ) -> torch.Tensor:
        """The mean of the maps over the augmentations, each turned back: (N, *spatial)."""
        self.outputs = None
        clean_maps = self._forward(input_tensor, targets, eigen_smooth)
        outputs = self.outputs
        if outputs is not None:  # as a forward of 1.x may leave it
            scores = self.output_transform(outputs)
            targets = chosen(targets, scores)
            if self.uses_targets and several_an_image(targets) is None:
                targets = resolve_targets(targets, scores)
        image = image_of(input_tensor, self.spatial_from)
        images = _as_images(image)
        smoothed = []
        for augmentation in self.tta_transforms or _flips_and_factors():
            augmented = augmentation.augment_image(images)
            if torch.equal(augmented, images):
                maps = clean_maps
            else:
                restored = augmented.reshape(image.shape) if image.ndim != augmented.ndim else augmented
                changed = with_image(input_tensor, restored, self.spatial_from)
                maps = self._forward(changed, targets, eigen_smooth)
            targets_as_channels = maps.reshape(len(maps), -1, *maps.shape[2 - image.ndim :])
            smoothed.append(augmentation.deaugment_mask(_as_images(targets_as_channels)))
        self.outputs = outputs
        return torch.stack(smoothed).mean(0).reshape(clean_maps.shape)

    def scores_of(self, images: torch.Tensor, rows: torch.Tensor) -> Any:
        """What the targets read of the model's output for images in the place of those of the samples `rows`.

        The other inputs are those of the samples in the current call. Cost: one forward.
        """
        inputs = self._inputs(images)
        batch = len(image_of(inputs, self.spatial_from))
        changed = images if inputs is images else with_image(rows_of(inputs, rows, batch), images, self.spatial_from)
        return self.output_transform(call(self.model, changed))

    @property
    def outputs(self) -> Any:
        """The model's detached output in this thread's last call; in a thread without a call, that of any thread."""
        return getattr(self._thread, "outputs", self._last_outputs)

    @outputs.setter
    def outputs(self, outputs: Any) -> None:
        self._thread.outputs = self._last_outputs = outputs

    def enlarged(self, maps: torch.Tensor, size: Sequence[int], align_corners: bool = False) -> torch.Tensor:
        """Maps (N, C, *grid) of the layer of the current call, at the input's size, as `align` says.

        align_corners: with `align="cell"`, the outermost centres lie on the outermost pixels.
        """
        if self._current is None or self._current.registration is None:
            return resize(maps, size, align_corners)
        return self._current.registration.enlarge(maps)

    def _registration(
        self, inputs: Inputs, layer: nn.Module, as_map: Callable | None, grid: Sequence[int]
    ) -> Registration | None:
        if self.align == "cell":
            return None
        if isinstance(self.align, Registration):
            found = self.align
        else:
            found = registration_of(self.model, layer, inputs, as_map, self.spatial_from, grid=grid)
        self.registrations[layer] = found
        return found

    @property
    def _current(self) -> CurrentCall | None:
        return getattr(self._thread, "current", None)

    @contextmanager
    def _calling(self, inputs: Inputs) -> Iterator[CurrentCall]:
        """This thread's call; where there is none, as in a subclass with a forward of its own, one with `inputs`."""
        outer = self._current
        self._thread.current = outer or CurrentCall(inputs)
        try:
            yield self._thread.current
        finally:
            self._thread.current = outer

    def _inputs(self, image: torch.Tensor) -> Inputs:
        """All that the model is called with in the current call; the image alone where there is none."""
        return image if self._current is None else self._current.inputs

    def _hooks(self, inputs: Inputs) -> Any:
        hooks = self.activations_and_grads
        if isinstance(hooks, FoundLayers):
            self.location, found = hooks.hooks_for(inputs)
            self.target_layers = [self.location.layer]
            return found
        return as_hooks(hooks, self.model, self.target_layers)

    def _chosen_calls(self, layers: Sequence[nn.Module]) -> list[tuple[int, int]]:
        """Of the captured runs of the layers those that the map is made of: their positions, and which run each is."""
        runs: dict[nn.Module, list[int]] = {}
        for position, layer in enumerate(layers):
            runs.setdefault(layer, []).append(position)
        if self.call_index is None:
            return [(position, index) for positions in runs.values() for index, position in enumerate(positions)]
        for layer, positions in runs.items():
            if not -len(positions) <= self.call_index < len(positions):
                raise IndexError(
                    f"call_index is {self.call_index}, but {type(layer).__name__} ran {len(positions)} times"
                )
        return [(positions[self.call_index], self.call_index % len(positions)) for positions in runs.values()]

    def _other_layer(self, inputs: Inputs) -> str:
        try:
            location = self._locate(inputs)
        except Exception:  # noqa: BLE001
            return ""  # nothing to advise; the maps are there all the same
        return (
            "" if location.layer in self.target_layers else f"; try target_layers=[{location.name!r}]: {location.why}"
        )

    def _tail(self, image: torch.Tensor, layer: nn.Module) -> PartialForward:
        """The part of the model behind a layer, in the current call."""
        call_index = 0 if self._current is None else self._current.call_index
        return PartialForward(
            self.model, layer, self._inputs(image), len(image), call_index, self.output_transform, self._tail_follows
        )

    def _scores(self, inputs: Inputs) -> Any:
        with torch.no_grad():
            return self.output_transform(call(self.model, self._on_device(inputs)))

    def _on_device(self, inputs: Inputs) -> Inputs:
        inputs = tree_map(_usable, on_device_of(self.model, inputs))
        if not self.compute_input_gradient:
            return inputs
        image = image_of(inputs, self.spatial_from)
        return with_image(inputs, image.detach().requires_grad_(), self.spatial_from)

    def __enter__(self) -> BaseCAM:
        return self

    def __exit__(self, *exception: object) -> None:
        self.activations_and_grads.release()


def _usable(leaf: Any) -> Any:
    """A tensor that was made in inference mode as one that autograd can use."""
    return leaf.clone() if isinstance(leaf, torch.Tensor) and leaf.is_inference() else leaf


def _as_map(tensor: torch.Tensor, layout: Layout | None, input_tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor if layout is None else layout(tensor)
    check_shape(tensor, input_tensor)
    return full_precision(tensor)


def _flips_and_factors() -> ttach.Compose:
    import ttach

    return ttach.Compose([ttach.HorizontalFlip(), ttach.Multiply(factors=[0.9, 1, 1.1])])


def _as_images(tensor: torch.Tensor) -> torch.Tensor:
    """(N, C, *spatial) of any rank as the (N, C', H, W) that ttach expects; the last axis stays the horizontal one."""
    height = tensor.shape[-2] if tensor.ndim > 3 else 1
    return tensor.reshape(len(tensor), -1, height, tensor.shape[-1])
