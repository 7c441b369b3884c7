"""What subclasses and users of grad-cam 1.x override, call and replace."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.compat.activations_and_gradients import ActivationsAndGradients
from pytorch_grad_cam.compat.array_interface import KEPT_ARGUMENTS, accepts_arrays, given_arrays
from pytorch_grad_cam.compat.foreign_hooks import ForeignHooks, must_be_called, transform_of
from pytorch_grad_cam.engine.augmentations import smoothed_over
from pytorch_grad_cam.engine.capture import gradients_of_list
from pytorch_grad_cam.engine.classes_in_outputs import for_other_images
from pytorch_grad_cam.engine.differentiability import check_differentiable
from pytorch_grad_cam.engine.inputs import Inputs, call, image_of
from pytorch_grad_cam.engine.layer_run import Call, LayerRun
from pytorch_grad_cam.engine.maps import FUSE, NORMALIZE, check_weights, min_max, over_positions, scalings
from pytorch_grad_cam.engine.of_place import check_same_image
from pytorch_grad_cam.engine.principal_component import first_principal_component
from pytorch_grad_cam.engine.targets import (
    ClassTargets,
    Target,
    TargetLists,
    TargetRule,
    Targets,
    chosen,
    resolve_targets,
    scores_of_model,
    several_an_image,
    target_lists,
)
from pytorch_grad_cam.engine.trees import detached, to_array
from pytorch_grad_cam.engine.undisturbed import undisturbed

_PACKAGE = __name__.partition(".")[0]
_FORMULA_OF_POINT = {"get_cam_weights": "weigh", "get_cam_image": "evidence"}
_thread = threading.local()
_STEPS = ("forward", "compute_cam_per_layer")


class OverridePoints:
    """The methods of a BaseCAM of grad-cam 1.x.

    Our methods say `weigh(run)` or `evidence(run)`. A class that overrides `get_cam_weights`, `get_cam_image`,
    `aggregate_multi_layers`, `compute_cam_per_layer` or `forward` instead is recognised when it is made. Outside this
    package these are given NumPy arrays, and what they return becomes a tensor again, unless the class says
    `receives_tensors = True`; with `detach=False` they get tensors in the graph.
    """

    receives_tensors = False
    _has_steps = False
    _has_aggregation = False
    _hooks: Any = None
    _hooks_are_called = False
    _as_made: dict[str, Callable[..., Any]] = {}  # noqa: RUF012

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        definers = {name: _own_definer(cls, name) for name in (*KEPT_ARGUMENTS, *_FORMULA_OF_POINT.values(), *_STEPS)}
        own = {name: definer for name, definer in definers.items() if definer is not None}
        for name in own.keys() & KEPT_ARGUMENTS:
            ours = own[name].__module__.partition(".")[0] == _PACKAGE
            setattr(cls, name, (accepts_arrays if ours else given_arrays)(vars(own[name])[name]))
        for point, formula in _FORMULA_OF_POINT.items():
            if formula in own and point not in own:
                setattr(cls, point, accepts_arrays(_POINT_BY_FORMULA[point](cls)))
            if point in own and formula not in own:
                setattr(cls, formula, _FORMULA_BY_POINT[formula](cls))
        cls._as_made = {name: getattr(cls, name) for name in (*KEPT_ARGUMENTS, *_STEPS)}
        cls._has_steps = cls._has_steps or not own.keys().isdisjoint(_STEPS)
        cls._has_aggregation = cls._has_aggregation or "aggregate_multi_layers" in own

    @property
    def activations_and_grads(self: Any) -> Any:
        """The hooks of 1.x on the target layers, made when they are asked for; the calls of our methods need none.

        Others can be put in their place, see `compat.foreign_hooks`.
        """
        if self._hooks is None or getattr(self._hooks, "target_layers", self.target_layers) != self.target_layers:
            transform = self.reshape_transform or (self.location.as_map if self.location else None)
            self._hooks = ActivationsAndGradients(self.model, self.target_layers, transform, self.detach)
        return self._hooks

    @activations_and_grads.setter
    def activations_and_grads(self: Any, hooks: Any) -> None:
        self._hooks, self._transform = hooks, transform_of(hooks)
        self._hooks_are_called = must_be_called(hooks)
        self.capture_class = type(self).capture_class
        if self._hooks_are_called:
            self.capture_class = partial(ForeignHooks, hooks, self.spatial_from)
        self.target_layers = getattr(hooks, "target_layers", self.target_layers)

    def forward(
        self: Any, input_tensor: Inputs, targets: Targets, eigen_smooth: bool = False
    ) -> np.ndarray | torch.Tensor:
        """The call without `aug_smooth`; classes that say `receives_tensors = True` get a tensor on the device."""
        with undisturbed(self.model, frozen=self.detach):
            maps = maps_by_steps(self, input_tensor, targets, eigen_smooth, forward=False)
        return maps if self.receives_tensors else to_array(maps)

    def forward_augmentation_smoothing(
        self: Any, input_tensor: Inputs, targets: Targets, eigen_smooth: bool = False
    ) -> torch.Tensor:
        """The mean of the maps over the augmentations, each turned back: (N, *spatial)."""
        check_same_image(targets)
        self.outputs = None
        make = maker_of(self)
        clean_maps = make(input_tensor, targets, eigen_smooth)
        outputs = self.outputs
        if outputs is not None:  # as a forward of 1.x may leave it
            image = image_of(input_tensor, self.spatial_from)
            scores = scores_of_model(self.model, self.output_transform, image.shape, outputs)
            targets = chosen(targets, scores)
            if self.uses_targets and several_an_image(targets) is None:
                targets = for_other_images(resolve_targets(targets, scores, image.shape))
        smoothed = smoothed_over(
            self.tta_transforms,
            clean_maps,
            lambda inputs: make(inputs, targets, eigen_smooth),
            input_tensor,
            self.spatial_from,
        )
        self.outputs = outputs
        return smoothed

    def compute_cam_per_layer(
        self: Any, input_tensor: torch.Tensor, targets: Sequence[Target], eigen_smooth: bool
    ) -> list[torch.Tensor]:
        """For each target layer its maps (N, 1, *spatial), rectified, scaled to [0, 1] and resized to the input.

        Of what `activations_and_grads` holds.
        """
        hooks = self.activations_and_grads
        layers = getattr(hooks, "captured_layers", self.target_layers)
        captured = list(zip(layers, hooks.activations, strict=False))
        gradients = list(hooks.gradients) or [None] * len(captured)
        inputs = getattr(hooks, "inputs", None)
        call = _call_of(self, input_tensor if inputs is None else inputs, input_tensor, [targets], eigen_smooth)
        transform = getattr(hooks, "reshape_transform", None) and torch.as_tensor  # what they hold is reshaped
        runs = self._runs(call, captured, transform)
        for captured_run in runs:
            captured_run.explain(0, gradients[captured_run.place], partial(signed_map, self))
        maps, check = self._drawn(call, runs)
        check()
        return maps

    @accepts_arrays
    def aggregate_multi_layers(self, cam_per_target_layer: list[torch.Tensor]) -> torch.Tensor:
        """The mean of the layers' maps, scaled to [0, 1]: (N, *spatial)."""
        return mean_of_layers(cam_per_target_layer)

    def get_cam_image(
        self: Any,
        input_tensor: torch.Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: torch.Tensor,
        grads: torch.Tensor | None,
        eigen_smooth: bool = False,
    ) -> torch.Tensor:
        """The map (N, *grid) of one layer, signed: the weighted activations' sum or first principal component."""
        raise NotImplementedError

    def get_cam_weights(
        self,
        input_tensor: torch.Tensor,
        target_layer: nn.Module,
        targets: Sequence[Target],
        activations: torch.Tensor,
        grads: torch.Tensor | None,
    ) -> torch.Tensor:
        """The channels' weights (N, C), or one for each channel and position (N, C, *grid)."""
        raise NotImplementedError(f"{type(self).__name__} defines neither weigh nor get_cam_weights nor get_cam_image")

    def get_target_width_height(self, input_tensor: torch.Tensor) -> tuple[int, ...]:
        """The input's spatial size, the last axis first: the `target_size` of `utils.image.scale_cam_image`."""
        return tuple(input_tensor.shape[2:])[::-1]


def mean_of_layers(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the layers' maps (N, 1, *spatial), scaled to [0, 1]: (N, *spatial)."""
    joined = maps[0] if len(maps) == 1 else torch.cat([torch.as_tensor(each) for each in maps], dim=1)
    return min_max(joined.relu().mean(1))


def check_options(cam: Any, relu: bool, normalize: Any, fuse: Any, detach: bool) -> None:
    """Raise ValueError for what no CAM takes, where a class of 1.x with steps of its own is asked for other maps than
    those in [0, 1], and for what `check_differentiable` refuses.
    """
    check_differentiable(cam, detach)
    if normalize not in NORMALIZE:
        raise ValueError(f"normalize is {normalize!r}, expected 'minmax', 'max' or None")
    if fuse not in FUSE:
        raise ValueError(f"fuse is {fuse!r}, expected 'mean', 'max', 'product' or None")
    if (relu, normalize, fuse) != (True, "minmax", "mean") and (cam._has_steps or cam._has_aggregation):
        raise ValueError(
            f"{type(cam).__name__} joins maps in [0, 1] by a step of its own: relu, normalize and fuse are not for it"
        )


def aggregated_by_point(cam: Any, maps: list[torch.Tensor], lists: int) -> torch.Tensor:
    """The layers' maps (N * lists, 1, *spatial) joined, list by list, as class or object override it."""
    of_lists = zip(*(each.unflatten(0, (-1, lists)).unbind(1) for each in maps), strict=True)
    joined = [torch.as_tensor(cam.aggregate_multi_layers(list(of_list))) for of_list in of_lists]
    return torch.stack(joined, dim=1).flatten(0, 1)


def signed_map(cam: Any, run: LayerRun) -> torch.Tensor:
    """The signed map (N, *grid) of a run: the class's evidence, or by a point that was replaced since it was made."""
    if is_replaced(cam, "get_cam_image") or is_replaced(cam, "get_cam_weights"):
        return _signed_map_by_point(cam, run)
    return cam.evidence(run)


def _signed_map_by_point(cam: Any, run: LayerRun) -> torch.Tensor:
    if is_replaced(cam, "get_cam_image"):
        return torch.as_tensor(_evidence_by_point(cam.get_cam_image, cam, run))
    weights = _weights_by_point(cam.get_cam_weights, cam, run)
    return weighted(weights if weights is None else torch.as_tensor(weights), run)


def weighted(weights: torch.Tensor, run: LayerRun) -> torch.Tensor:
    """The sum (N, *grid) of the activations, weighted, over the channels; with eigen_smooth their first component.

    weights: (N, C), or one for each position (N, C, *grid). Raises ValueError for others.
    """
    if getattr(weights, "shape", None) not in (run.activations.shape[:2], run.activations.shape):
        check_weights(weights, run.activations)
    products = over_positions(weights, run.activations) * run.activations
    return first_principal_component(products) if run.call.eigen_smooth else products.sum(1)


def contributions_of(
    cam: Any, weighted_sum: Callable[..., torch.Tensor], inputs: Inputs, targets: Targets
) -> list[torch.Tensor]:
    """For each run of each target layer what its channels say, see `BaseCAM.contributions`. weighted_sum: the evidence
    that is made of them.
    """
    no_sum = ValueError(f"a map of {type(cam).__name__} is no weighted sum of channels: none has a share in it")
    if type(cam).evidence is not weighted_sum:
        raise no_sum
    recorder, kept = copy(cam), defaultdict(list)
    recorder._scaled, recorder._rescaled = scalings(relu=False, normalize=None)

    def record(run: LayerRun) -> torch.Tensor:
        weights = cam.weigh(run)
        evidence = weighted(weights, run)  # which refuses weights of other shapes
        kept[run.layer, run.call_index].append(over_positions(weights, run.activations) * run.activations)
        return evidence

    recorder.evidence = record
    recorder(inputs, targets)
    if not kept:  # a method with evidence of another kind, as of attention, biases or masks
        raise no_sum
    several = several_an_image(targets) is not None
    return [torch.stack(of_lists, dim=1) if several else of_lists[0] for of_lists in kept.values()]


def maker_of(cam: Any) -> Callable[[Inputs, Targets, bool], torch.Tensor]:
    """What makes the maps: the steps of 1.x where class or object override a whole one, else our capture."""
    has_steps = cam._has_steps or is_replaced(cam, "forward") or is_replaced(cam, "compute_cam_per_layer")
    return partial(maps_by_steps, cam) if has_steps else cam._maps_by_found_layers if cam._finds_layers else cam._maps


def is_replaced(cam: Any, name: str) -> bool:
    """Whether the object has a point of its own, or the class (or one above it) another than when it was made."""
    return name in cam.__dict__ or getattr(type(cam), name) is not type(cam)._as_made[name]


def maps_by_steps(cam: Any, inputs: Inputs, targets: Targets, eigen_smooth: bool, forward: bool = True) -> torch.Tensor:
    """The maps (N, *spatial), for K targets an image (N, K, *spatial), by the steps of 1.x.

    forward: by `cam.forward` if that is not ours; else by hooks, `compute_cam_per_layer`, `aggregate_multi_layers`.
    """
    by_forward = forward and (type(cam).forward is not OverridePoints.forward or "forward" in cam.__dict__)
    per_layer = OverridePoints.compute_cam_per_layer
    if not by_forward and getattr(cam.compute_cam_per_layer, "__func__", None) is per_layer:
        return cam._maps_by_found_layers(inputs, targets, eigen_smooth)
    inputs, image, capture, _ = cam._prepared(inputs, targets)
    if by_forward:
        if isinstance(targets, TargetRule):  # a forward of 1.x knows lists only
            with torch.no_grad():
                scores = scores_of_model(cam.model, cam.output_transform, image.shape, call(cam.model, inputs))
                targets = resolve_targets(targets, scores, image.shape)
        if isinstance(targets, ClassTargets):
            targets = list(targets)
        with _cleared(cam.activations_and_grads):
            return torch.as_tensor(cam.forward(inputs, targets, eigen_smooth))
    hooks = cam.activations_and_grads
    with capture, _cleared(hooks):
        outputs = capture.run(inputs)
        cam.outputs = detached(outputs)
        scores = scores_of_model(cam.model, cam.output_transform, image.shape, outputs)
        lists, several = target_lists(targets, scores, cam.uses_targets, image.shape)
        maps = []
        wanted = image if cam.compute_input_gradient else None
        for position, target_list in enumerate(lists):
            gradients = gradients_of_list(capture, scores, lists, position, wanted) if cam.uses_gradients else None
            if not must_be_called(hooks):
                hooks.hold(inputs, capture.runs, gradients)
            cams = cam.compute_cam_per_layer(image, list(target_list), eigen_smooth)
            maps.append(torch.as_tensor(cam.aggregate_multi_layers(cams)))
    return torch.stack(maps, dim=1) if several else maps[0]


@contextmanager
def _cleared(hooks: Any) -> Iterator[None]:
    """Afterwards hooks of ours hold nothing; theirs keep what they like."""
    try:
        yield
    finally:
        if isinstance(hooks, ActivationsAndGradients):
            hooks.clear()


def _own_definer(cls: type, name: str) -> type | None:
    """The class itself or the mixin of its own that defines a name; None where it is inherited from a CAM."""
    definer = next((base for base in cls.__mro__ if name in vars(base)), None)
    return definer if definer is cls or (definer and not issubclass(definer, OverridePoints)) else None


def _weights_by_point(point: Callable[..., Any], cam: Any, run: LayerRun) -> torch.Tensor:
    with _handing_on(cam, run) as targets:
        return point(run.image, run.layer, targets, run.activations, run.grads)


def _evidence_by_point(point: Callable[..., Any], cam: Any, run: LayerRun) -> torch.Tensor:
    with _handing_on(cam, run) as targets:
        return point(run.image, run.layer, targets, run.activations, run.grads, run.call.eigen_smooth)


def _weigh_by_point_of(cls: Any) -> Callable[..., Any]:
    def weigh(self: Any, run: LayerRun) -> torch.Tensor:
        """The channels' weights, by the class's `get_cam_weights`: not the object's, which may come by here."""
        return _weights_by_point(partial(cls.get_cam_weights, self), self, run)

    return weigh


def _evidence_by_point_of(cls: Any) -> Callable[..., Any]:
    def evidence(self: Any, run: LayerRun) -> torch.Tensor:
        """The signed map, by the class's `get_cam_image`: not the object's, which may come by here."""
        return _evidence_by_point(partial(cls.get_cam_image, self), self, run)

    return evidence


@contextmanager
def _handing_on(cam: Any, run: LayerRun) -> Iterator[list[Target]]:
    """The run's targets for an override point; within, our formulas that it calls by `super()` know the run."""
    outer, targets = getattr(_thread, "handed_on", None), list(run.targets)
    _thread.handed_on = cam, run, targets
    try:
        yield targets
    finally:
        _thread.handed_on = outer


def _weights_by_formula(cls: Any) -> Callable[..., torch.Tensor]:
    def get_cam_weights(
        self: Any, input_tensor: Any, target_layer: Any, targets: Any, activations: Any, grads: Any
    ) -> torch.Tensor:
        """The channels' weights, see `weigh`."""
        return cls.weigh(self, _run_of(self, input_tensor, target_layer, targets, activations, grads, False))

    return get_cam_weights


def _image_by_formula(cls: Any) -> Callable[..., torch.Tensor]:
    def get_cam_image(
        self: Any,
        input_tensor: Any,
        target_layer: Any,
        targets: Any,
        activations: Any,
        grads: Any,
        eigen_smooth: bool = False,
    ) -> torch.Tensor:
        """The signed map of one layer, see `evidence`."""
        return cls.evidence(self, _run_of(self, input_tensor, target_layer, targets, activations, grads, eigen_smooth))

    return get_cam_image


def _run_of(
    cam: Any, input_tensor: Any, layer: Any, targets: Any, activations: Any, grads: Any, eigen_smooth: bool
) -> LayerRun:
    """The run that a point was given, with what it hands on; a run of a call of its own for points that are called from
    outside, without a cam where they are unbound.
    """
    lists = [[] if targets is None else targets]
    receiver, run, handed = getattr(_thread, "handed_on", None) or (None, None, None)
    if run is not None and receiver is cam and run.layer is layer:
        run = run._replace(activations=activations, grads=grads)
        call = run.call._replace(image=input_tensor, eigen_smooth=eigen_smooth)
        if targets is handed:
            return run._replace(call=call)
        return run._replace(call=call._replace(target_lists=lists), position=0, of_all_lists={})
    call = _call_of(cam, input_tensor, input_tensor, lists, eigen_smooth)
    return LayerRun(call, layer, 0, activations, None, None, {}, 0, grads)


def _call_of(cam: Any, inputs: Inputs, image: torch.Tensor, lists: TargetLists, eigen_smooth: bool) -> Call:
    """The call that a point belongs to which is called from outside, where the model did not run."""
    if cam is None:
        return Call(None, inputs, image, None, lists, eigen_smooth, None, None, {})
    how = cam.output_transform, cam.spatial_from, cam._known.learnt
    return Call(cam.model, inputs, image, None, lists, eigen_smooth, *how)


_FORMULA_BY_POINT = {"weigh": _weigh_by_point_of, "evidence": _evidence_by_point_of}
_POINT_BY_FORMULA = {"get_cam_weights": _weights_by_formula, "get_cam_image": _image_by_formula}
