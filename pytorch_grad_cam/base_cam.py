"""The algorithm that all methods share, from a model and an image to a heat map."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from pytorch_grad_cam.array_interface import accepts_arrays, adapt_overrides, to_array
from pytorch_grad_cam.foreign_hooks import as_hooks
from pytorch_grad_cam.layers import resolve_layers
from pytorch_grad_cam.locate import locate
from pytorch_grad_cam.maps import check_rank, full_precision, min_max, over_positions, resize
from pytorch_grad_cam.model_state import model_device, on_device_of, undisturbed
from pytorch_grad_cam.old_spellings import old_call, old_constructor
from pytorch_grad_cam.principal_component import first_principal_component
from pytorch_grad_cam.target_scores import Target, TargetRule, Targets, resolve_targets, target_scores
from pytorch_grad_cam.trees import detached

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
    layer and its layout are found at the first call with an input of a new size (see `locate.locate`).
    reshape_transform: from what a layer returns to (N, C, *spatial), for tokens
    (`utils.reshape_transforms`).
    compute_input_gradient: the input that the override points get has its `.grad`.
    uses_gradients: None as the class says; False saves the backward pass.
    tta_transforms: a ttach.Compose for `aug_smooth`; None is a horizontal flip times the factors 0.9, 1, 1.1.
    detach: False leaves activations, gradients and maps in the autograd graph.

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
    ) -> None:
        self.model = model
        self.device = model_device(model)
        self.target_layers = [] if target_layers is None else resolve_layers(model, target_layers)
        self._finds_layers = self.uses_layers and target_layers is None
        self._found_for: torch.Size | None = None
        self._finding = threading.Lock()
        self.reshape_transform = reshape_transform
        self.compute_input_gradient = compute_input_gradient
        wanted = self.uses_gradients if uses_gradients is None else uses_gradients
        self.uses_gradients = wanted and self.uses_targets
        self.tta_transforms = tta_transforms
        self.detach = detach
        self._thread = threading.local()
        self.outputs = None
        self.activations_and_grads = self.hooks_class(model, self.target_layers, reshape_transform, detach)

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

        input_tensor: (N, C, *spatial), one to three spatial axes.
        targets: what to explain, see `target_scores.resolve_targets`; None is each image's highest class.
        aug_smooth: the mean of the maps of augmented images, six by default, each at the cost of one map; the class
        explained is that of the image itself.
        eigen_smooth: the first principal component of the weighted activations instead of their sum.
        as_tensor: return a tensor on the model's device.

        Returns float32 (N, *spatial) in [0, 1], each map from 0 to 1 (the mean of such maps with aug_smooth); a map
        without positive evidence is zeros.
        `outputs` then holds the model's detached output.

        Raises ValueError for a layer that did not run, that the score does not depend on or whose output is no map of
        the input's rank; RuntimeError after the end of `with`; for targets see `target_scores.resolve_targets`.

        Cost: one forward of the model and, with gradients, one backward of the part behind the first target layer.
        """
        if self._finds_layers:
            self._find_layers(input_tensor)
        frozen = self.detach and self._hooks() is self.activations_and_grads  # others may need the parameters' graph
        with undisturbed(self.model, frozen=frozen):
            if isinstance(targets, TargetRule) and type(self).forward is not BaseCAM.forward:
                targets = resolve_targets(targets, self._outputs_of(input_tensor))  # which knows lists of callables
            smoothed = self.forward_augmentation_smoothing if aug_smooth else self.forward
            maps = torch.as_tensor(smoothed(input_tensor, targets, eigen_smooth)).float()
        return maps if as_tensor else to_array(maps)

    def forward(self, input_tensor: torch.Tensor, targets: Targets, eigen_smooth: bool = False) -> torch.Tensor:
        """The maps (N, *spatial) of one batch, a tensor on the model's device."""
        input_tensor = self._on_device(input_tensor)
        hooks = self._hooks()
        try:
            outputs = hooks.capture(input_tensor, self.uses_gradients)
            self.outputs = detached(outputs)
            resolved = resolve_targets(targets, outputs) if self.uses_targets else []
            if self.uses_gradients:
                score = target_scores(outputs, resolved).sum()
                inputs = [input_tensor] if self.compute_input_gradient else []
                for tensor, gradient in zip(inputs, hooks.differentiate(score, inputs), strict=True):
                    tensor.grad = gradient
            cams = self.compute_cam_per_layer(input_tensor, resolved, eigen_smooth)
        finally:
            hooks.clear()
        return self.aggregate_multi_layers(cams)

    def compute_cam_per_layer(
        self, input_tensor: torch.Tensor, targets: list[Target], eigen_smooth: bool
    ) -> list[torch.Tensor]:
        """For each target layer its maps (N, 1, *spatial), rectified, scaled to [0, 1] and resized to the input."""
        hooks = self._hooks()
        gradients = hooks.gradients or [None] * len(hooks.captured_layers)
        calls: dict[nn.Module, list[torch.Tensor]] = {}
        for layer, activations, grads in zip(hooks.captured_layers, hooks.activations, gradients, strict=True):
            check_rank(activations, input_tensor)
            grads = None if grads is None else full_precision(grads)
            cam = self.get_cam_image(input_tensor, layer, targets, full_precision(activations), grads, eigen_smooth)
            scaled = resize(min_max(cam.relu())[:, None], input_tensor.shape[2:])
            calls.setdefault(layer, []).append(scaled)
        return [torch.stack(maps).mean(0) for maps in calls.values()]

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

    def get_target_width_height(self, input_tensor: torch.Tensor) -> tuple[int, ...]:
        """The input's spatial size, the last axis first: the `target_size` of `utils.image.scale_cam_image`."""
        return tuple(input_tensor.shape[2:])[::-1]

    def forward_augmentation_smoothing(
        self, input_tensor: torch.Tensor, targets: Targets, eigen_smooth: bool = False
    ) -> torch.Tensor:
        """The mean of the maps over the augmentations, each turned back: (N, *spatial)."""
        clean_maps = torch.as_tensor(self.forward(input_tensor, targets, eigen_smooth))
        outputs = self.outputs
        if self.uses_targets:
            targets = resolve_targets(targets, outputs)
        images = _as_images(input_tensor)
        smoothed = []
        for augmentation in self.tta_transforms or _flips_and_factors():
            augmented = augmentation.augment_image(images)
            if torch.equal(augmented, images):
                maps = clean_maps
            else:
                other_rank = input_tensor.ndim != augmented.ndim
                restored = augmented.reshape(input_tensor.shape) if other_rank else augmented
                maps = torch.as_tensor(self.forward(restored, targets, eigen_smooth))
            smoothed.append(augmentation.deaugment_mask(_as_images(maps[:, None])))
        self.outputs = outputs
        return torch.stack(smoothed).mean(0).reshape(clean_maps.shape)

    @property
    def outputs(self) -> Any:
        """The model's detached output in this thread's last call; in a thread without a call, that of any thread."""
        return getattr(self._thread, "outputs", self._last_outputs)

    @outputs.setter
    def outputs(self, outputs: Any) -> None:
        self._thread.outputs = self._last_outputs = outputs

    def _hooks(self) -> Any:
        return as_hooks(self.activations_and_grads, self.model, self.target_layers)

    def _outputs_of(self, input_tensor: torch.Tensor) -> Any:
        with torch.no_grad():
            return self.model(self._on_device(input_tensor))

    def _find_layers(self, input_tensor: torch.Tensor) -> None:
        with self._finding:
            if input_tensor.shape[2:] == self._found_for:
                return
            location = locate(self.model, on_device_of(self.model, input_tensor))
            self.target_layers, self._found_for = [location.layer], input_tensor.shape[2:]
            transform = self.reshape_transform or location.layout.__call__
            self.activations_and_grads.release()
            self.activations_and_grads = self.hooks_class(self.model, self.target_layers, transform, self.detach)

    def _on_device(self, input_tensor: torch.Tensor) -> torch.Tensor:
        input_tensor = on_device_of(self.model, input_tensor)
        if input_tensor.is_inference():
            input_tensor = input_tensor.clone()
        return input_tensor.detach().requires_grad_() if self.compute_input_gradient else input_tensor

    def __enter__(self) -> BaseCAM:
        return self

    def __exit__(self, *exception: object) -> None:
        self.activations_and_grads.release()


def _flips_and_factors() -> ttach.Compose:
    import ttach

    return ttach.Compose([ttach.HorizontalFlip(), ttach.Multiply(factors=[0.9, 1, 1.1])])


def _as_images(tensor: torch.Tensor) -> torch.Tensor:
    """(N, C, *spatial) of any rank as the (N, C', H, W) that ttach expects; the last axis stays the horizontal one."""
    height = tensor.shape[-2] if tensor.ndim > 3 else 1
    return tensor.reshape(len(tensor), -1, height, tensor.shape[-1])
