"""The algorithm that all methods share, from a model and an image to a heat map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast, overload

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.compat.old_spellings import old_constructor, renamed_targets
from pytorch_grad_cam.compat.override_points import (
    OverridePoints,
    aggregated_by_point,
    check_options,
    contributions_of,
    is_replaced,
    maker_of,
    signed_map,
    weighted,
)
from pytorch_grad_cam.engine.cam_warning import RunEvidence, warn_of_blank_maps
from pytorch_grad_cam.engine.capture import Capture, Captured, Capturing, gradients_of_list
from pytorch_grad_cam.engine.compiled_capture import compile_cam, compile_like
from pytorch_grad_cam.engine.detections.checked_predictions import checked_predictions
from pytorch_grad_cam.engine.detections.one_by_one import maps_of_each, one_by_one
from pytorch_grad_cam.engine.detections.predictions import Detected
from pytorch_grad_cam.engine.detections.raw_predictions import suppressing_modules
from pytorch_grad_cam.engine.detections.shown_images import as_shown
from pytorch_grad_cam.engine.input_values import warn_of_raw_values
from pytorch_grad_cam.engine.inputs import ImagePlace, Inputs, SpatialFrom, image_of, place_of, usable, with_image
from pytorch_grad_cam.engine.layer_run import Call, CapturedRun, Drawn, LayerRun, chosen_runs
from pytorch_grad_cam.engine.layers import resolve_layers
from pytorch_grad_cam.engine.maps import Fuse, Normalize, check_shape, fused, over_positions, scalings
from pytorch_grad_cam.engine.rectifiers import RectifiedCapture, Rectifier, known_rectifiers
from pytorch_grad_cam.engine.targets import Targets, scores_in, scores_of_model, target_lists
from pytorch_grad_cam.engine.threads import OfThread
from pytorch_grad_cam.engine.training_mode import warn_of_another_output
from pytorch_grad_cam.engine.trees import AsMap, detached, read_as_map, to_array
from pytorch_grad_cam.engine.undisturbed import KnownModel, undisturbed
from pytorch_grad_cam.engine.wrappers import unwrapped
from pytorch_grad_cam.locate.found_axes import found_axes
from pytorch_grad_cam.locate.found_layers import Asked, FoundElsewhere, FoundLayers, as_asked
from pytorch_grad_cam.locate.found_layouts import FoundLayouts
from pytorch_grad_cam.locate.location import Location
from pytorch_grad_cam.registration.inset import check_drawn
from pytorch_grad_cam.registration.registration import Alignment, Registration, aligned, checked_alignment

if TYPE_CHECKING:
    import ttach
    from typing_extensions import Self


class CamOptions(TypedDict, total=False):
    """The options of every BaseCAM, for `**options: Unpack[CamOptions]` of a subclass that has more of its own."""

    compute_input_gradient: bool
    uses_gradients: bool | None
    tta_transforms: ttach.Compose | None
    detach: bool
    output_transform: Callable[[Any], Any] | None
    spatial_from: SpatialFrom
    call_index: int | None
    align: Alignment
    axes: str | None
    check_place: bool
    relu: bool
    normalize: Normalize
    fuse: Fuse


class BaseCAM(OverridePoints):
    """A class activation map: the target layer's activations, weighted by what they mean for the target.

    A method is a subclass with its own `weigh` or `evidence`. It may say `uses_gradients = False` (no backward pass),
    `uses_targets = False` (no class, so no gradients either), `averages_positions = True` (a channel has one weight for
    all positions, so that a box's map marks other objects, too), `takes_rectified = True` (where the model only
    rectifies a layer's output, what is behind the rectifier is explained, see `rectifiers`), `uses_layers = False`,
    `is_differentiable = False` (its weights are computed outside of the graph, so that `detach=False` is refused),
    `capture_class` (what runs the model). Classes written for grad-cam 1.x override other methods, see
    `compat.override_points`.

    >>> from pytorch_grad_cam import GradCAM
    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net, preprocess_scene
    >>> with GradCAM(load_digits_net(), "layer4") as cam:
    ...     maps = cam(preprocess_scene(example_scene()), targets=5)
    >>> maps.shape, maps.dtype, float(maps.min()), float(maps.max())
    ((1, 64, 64), dtype('float32'), 0.0, 1.0)
    """

    uses_gradients = uses_targets = uses_layers = is_differentiable = True
    takes_rectified = averages_positions = False
    capture_class: Callable[..., Capturing] = Capture
    _location: Location | None = None
    outputs = OfThread()  # the model's detached output in the last call
    predictions = OfThread()  # a detector's detached `Predictions` for each image in the last call, else None
    _released = _has_begun = _modes_compared = False

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: AsMap | None = None,
        compute_input_gradient: bool = False,
        uses_gradients: bool | None = None,
        tta_transforms: ttach.Compose | None = None,
        detach: bool = True,
        *,
        output_transform: Callable[[Any], Any] | None = None,
        spatial_from: SpatialFrom = None,
        call_index: int | None = None,
        align: Alignment = "cell",
        axes: str | None = None,
        check_place: bool = True,
        relu: bool = True,
        normalize: Normalize = "minmax",
        fuse: Fuse = "mean",
    ) -> None:
        """Nothing is run yet.

        model: any module; it is run in evaluation mode and left exactly as it was. In `torch.compile(model)` calls come
        to run compiled, too, see `compile`.
        target_layers: modules or dotted names of the model, one or several; the map is the mean over the layers. None:
        the layer is found at the first call with an input of a new size (see `locate.locate`); `location` then says
        which.
        reshape_transform: from what a layer returns, or the gradient with respect to it, to (N, C, *spatial); one that
        is not linear has an attribute `of_gradients`, from both to the gradient. None finds the layout of tokens and of
        channels-last maps by the input's size (see `locate.layout_of`).
        compute_input_gradient: the input that the override points get has its `.grad`.
        uses_gradients: None as the class says; False saves the backward pass.
        tta_transforms: a ttach.Compose for `aug_smooth`; None is a horizontal flip times the factors 0.9, 1, 1.1.
        detach: False leaves activations, gradients and maps in the autograd graph, for a loss on maps: the parameters
        then get the derivative through the gradients, too, and the graph of the forward is kept until the maps go.
        ValueError for methods that score changed images or activations.
        output_transform: from the model's output to what the targets read; None is `engine.targets.scores_in`.
        spatial_from: which of several inputs is the image, its position or key; None is the first with spatial axes.
        call_index: which run of a layer that runs several times; None is the mean over all.
        axes: the axes of the image where its channels are not the second: 'N' the batch, 'C' the channels, any other
        letter a spatial axis, as 'NTCHW' for clips (N, frames, C, H, W), 'NHWC', 'NTM' for spectrograms without
        channels. None finds them by what the model's first convolution takes, see `locate.found_axes`. Maps have the
        spatial axes in the order in which the image has them.
        check_place: whether the first call for each layer and size of the image checks that the layer answers where the
        map is drawn, and that the model neither pads nor crops its images, see `locate.place_check`, at the cost of one
        forward of the first sample.
        relu: False keeps what speaks against the target, below 0.
        normalize: 'minmax' scales each map from 0 to 1; 'max' divides it by its largest absolute value, so that 0 stays
        what says nothing; None leaves the evidence as the method has it. With more than one layer that is done for each
        before they are joined, and again after it.
        fuse: how the maps of several layers are joined: 'mean', 'max' (the value farthest from 0) or 'product'; None
        hands out those of each layer, (N, layers, *spatial). The levels of a pyramid that were found are joined by
        'max'.
        align: 'cell' enlarges maps as even tiles, as grad-cam 1.5 does; 'receptive_field' draws each cell where it
        looks, or where a `registration.Registration` says. `registrations` then has what was used, by layer.
        """
        self.model = unwrapped(model)
        self.target_layers = [] if target_layers is None else resolve_layers(self.model, target_layers)
        if self.uses_layers and target_layers is not None and not self.target_layers:
            raise ValueError("target_layers is empty: pass layers, or None to have one found")
        self.reshape_transform = self._transform = reshape_transform
        self.tta_transforms, self.output_transform = tta_transforms, output_transform or scores_in
        self.spatial_from = spatial_from if axes is None else place_of(axes, spatial_from)
        self.align, self.check_place, self.fuse = checked_alignment(align), check_place, fuse
        check_options(self, relu, normalize, fuse, detach)
        self._scaled, self._rescaled = scalings(relu, normalize)
        self.registrations: dict[nn.Module, Registration] = {}
        self.uses_gradients = self.uses_targets and (self.uses_gradients if uses_gradients is None else uses_gradients)
        self.compute_input_gradient, self.detach, self.call_index = compute_input_gradient, detach, call_index
        self.outputs = self.predictions = None
        self._known = KnownModel(self.model)
        self.device = self._known.device
        self._finds_layers = self.uses_layers and target_layers is None
        how_scored = self.output_transform, self.uses_targets, self.uses_gradients
        self._found_layers = FoundLayers(self.model, self.spatial_from, *how_scored)
        self._found_layouts = FoundLayouts(self.model, self.spatial_from)
        self._suppressing = suppressing_modules(self.model)
        compile_like(model, self)

    @overload
    def __call__(
        self,
        input_tensor: Inputs,
        targets: Targets = ...,
        aug_smooth: bool = ...,
        eigen_smooth: bool = ...,
        *,
        as_tensor: Literal[False] = ...,
    ) -> np.ndarray: ...
    @overload
    def __call__(
        self,
        input_tensor: Inputs,
        targets: Targets = ...,
        aug_smooth: bool = ...,
        eigen_smooth: bool = ...,
        *,
        as_tensor: Literal[True],
    ) -> torch.Tensor: ...
    @overload
    def __call__(
        self,
        input_tensor: Inputs,
        targets: Targets = ...,
        aug_smooth: bool = ...,
        eigen_smooth: bool = ...,
        *,
        as_tensor: bool,
    ) -> np.ndarray | torch.Tensor: ...
    def __call__(
        self,
        input_tensor: Inputs,
        targets: Targets = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
        *,
        as_tensor: bool = False,
        **old: Any,
    ) -> np.ndarray | torch.Tensor:
        """One heat map an image.

        input_tensor: (N, C, *spatial), one to three spatial axes; with several inputs a tuple of arguments or a mapping
        of keyword arguments, of which `spatial_from` is the image.
        targets: what to explain, see `engine.targets.resolve_targets`; None is each image's highest class. Several for
        each image, (N, K), give maps (N, K, *spatial) from one forward.
        aug_smooth: the mean of the maps of augmented images, six by default, each at the cost of one map; the class
        explained is that of the image itself.
        eigen_smooth: the first principal component of the weighted activations instead of their sum.
        as_tensor: return a tensor on the model's device.

        Returns float32 (N, *spatial) in [0, 1], each map from 0 to 1 (the mean of such maps with aug_smooth), unless
        `relu`, `normalize` or `fuse` say otherwise. A map that says nothing is zeros, with a CamWarning that says why.
        `outputs` then holds the model's detached output.

        Raises ValueError for a layer that did not run, that the score does not depend on or whose output is no map of
        the input; RuntimeError after the end of `with`; for targets see `engine.targets.resolve_targets`.

        A model in training mode whose output has another shape there than in evaluation mode, which is explained, gives
        a CamWarning at the first call, see `engine.training_mode`.

        Cost: one forward of the model and, with gradients, for each of the K targets one backward of the part behind
        the first target layer.
        """
        targets = renamed_targets(targets, old) if old else targets
        if isinstance(input_tensor, list) or (isinstance(targets, list) and list in map(type, targets)):
            apart = one_by_one(input_tensor, targets, self.spatial_from)
            if apart:
                return cast(np.ndarray, maps_of_each(self, apart, aug_smooth, eigen_smooth, as_tensor=as_tensor))
        # Hooks of the user's may need the parameters' graph.
        with undisturbed(self.model, self.detach and not self._hooks_are_called, self._known) as self._known:
            make = self.forward_augmentation_smoothing if aug_smooth else maker_of(self)
            make = partial(as_shown, make, self.model, self._suppressing, self._rescaled) if self._suppressing else make
            maps = torch.as_tensor(make(input_tensor, targets, eigen_smooth)).float()
        if self.model.training and not self._modes_compared and self.uses_targets:
            self._modes_compared = True
            warn_of_another_output(self.model, input_tensor, self.spatial_from, self.output_transform, self.outputs)
        return maps if as_tensor else to_array(maps)

    compile = compile_cam

    def weigh(self, run: LayerRun) -> torch.Tensor:
        """The channels' weights (N, C), or one for each channel and position (N, C, *grid)."""
        return self.get_cam_weights(run.image, run.layer, run.targets, run.activations, run.grads)

    get_cam_weights = OverridePoints.get_cam_weights  # which raises: a method has one of both

    def evidence(self, run: LayerRun) -> torch.Tensor:
        """The signed map (N, *grid) of a run: the weighted activations' sum or first principal component."""
        return weighted(self.weigh(run), run)

    def contributions(self, input_tensor: Inputs, targets: Targets = None) -> list[torch.Tensor]:
        """What each channel of each target layer says for the target, cell by cell: signed, on the layer's own grid.

        One tensor (N, C, *grid), or (N, K, C, *grid) for K targets an image, for each run of each layer, on the model's
        device, float32 or better. Their sum over the channels is the evidence that maps are made of.
        Raises ValueError for a method whose map is no weighted sum of channels, and what a call raises.
        Cost: that of a call.
        """
        return contributions_of(self, BaseCAM.evidence, input_tensor, targets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._released, self._has_begun = True, False
        if self._hooks is not None:
            self._hooks.release()

    def _maps(self, inputs: Inputs, targets: Targets, eigen_smooth: bool) -> torch.Tensor:
        """The maps (N, *spatial), for K targets an image (N, K, *spatial), on the model's device."""
        inputs, image, capture, transform = self._prepared(inputs, targets)
        with capture:
            outputs = capture.run(inputs)
            self.outputs = detached(outputs)
            is_plain = isinstance(outputs, torch.Tensor) and self.output_transform is scores_in
            read = scores_in if is_plain else partial(scores_of_model, self.model, self.output_transform, image.shape)
            scores = read(outputs)
            lists, several = target_lists(targets, scores, self.uses_targets, image.shape)
            how = eigen_smooth, read, self.spatial_from, self._known.learnt
            call = Call(self.model, inputs, image, scores, lists if self.uses_targets else [[]], *how)
            if isinstance(scores, Detected):
                self.predictions = checked_predictions(targets, call, type(self).__name__, self.averages_positions)
            of_targets = self._layers_of_targets(call, targets, capture) if self._finds_layers else None
            of_layers, check = self._maps_of_layers(call, capture, transform)
            is_several = len(of_layers) > 1 or self._has_aggregation or is_replaced(self, "aggregate_multi_layers")
            maps = self._joined(of_layers, call, of_targets) if is_several else self._rescaled(of_layers[0][:, 0])
            check()
        return _of_images(maps, len(image), len(lists)) if several else maps

    def _maps_by_found_layers(self, inputs: Inputs, targets: Targets, eigen_smooth: bool) -> torch.Tensor:
        """`_maps`, once more by other layers where the kept ones are not those of these targets."""
        try:
            return self._maps(inputs, targets, eigen_smooth)
        except FoundElsewhere as elsewhere:
            asked = elsewhere.asked._replace(targets=targets)  # as the user gave them: that is their kind
            self._found_layers.keep(asked, elsewhere.found)
            return self._maps_by_found_layers(inputs, targets, eigen_smooth)

    def _layers_of_targets(self, call: Call, targets: Targets, capture: Capturing) -> torch.Tensor | None:
        """Which of the found layers each target reads, see `FoundLayers.read_by`."""
        return self._found_layers.read_by(call, targets, capture.runs)

    def _joined(self, of_layers: list[torch.Tensor], call: Call, of_targets: torch.Tensor | None) -> torch.Tensor:
        """The layers' maps (N * lists, 1, *spatial) as one, as `fuse` says, or all of them.

        of_targets: see `_layers_of_targets`.
        """
        if self._has_aggregation or is_replaced(self, "aggregate_multi_layers"):
            return aggregated_by_point(self, of_layers, len(call.target_lists))
        maps = torch.cat(of_layers, dim=1)
        if of_targets is not None:
            maps = maps * over_positions(of_targets.to(maps), maps)
        if self.fuse is None:
            return self._rescaled(maps.flatten(0, 1)).reshape(maps.shape)
        return self._rescaled(fused(maps, "max" if self._finds_layers else self.fuse))

    def _prepared(self, inputs: Inputs, targets: Targets) -> tuple[Inputs, torch.Tensor, Capturing, AsMap | None]:
        """The inputs where the model is, and the image among them; what runs the model, and what reads the outputs of
        the target layers as maps if that is known before they have run.
        """
        inputs = usable(inputs, self._known.device)
        if not self._has_begun:
            self._begin(inputs)
        image = image_of(inputs, self.spatial_from)
        if self.compute_input_gradient:
            image = image.detach().requires_grad_()
            inputs = with_image(inputs, image, self.spatial_from)
        already_run = self._found(Asked(inputs, image, targets)) if self._finds_layers else None
        how = self.model, self.target_layers, self.uses_gradients or not self.detach, self.detach
        if self.takes_rectified and self.capture_class is Capture:
            capture = RectifiedCapture(known_rectifiers(self.model), already_run, *how, self.spatial_from)
            return inputs, image, capture, self._transform
        return inputs, image, already_run or self.capture_class(*how), self._transform

    @property
    def location(self) -> Location | None:
        """The layers that were found, how and why, and whether what is behind a rectifier of theirs was explained; None
        where layers are named, and before the first call.
        """
        behind = self.rectifiers.get(self._location.layer) if self._location else None
        if self._location is None or behind is None:
            return self._location
        return self._location._replace(why=f"{self._location.why}; explained behind the {behind} that follows it")

    @property
    def rectifiers(self) -> dict[nn.Module, Rectifier]:
        """The target layers whose output is explained as it is behind the model's rectifier, each with that rectifier.

        Those are the layers whose output the model only rectifies, in methods that say `takes_rectified`; known after a
        call.
        """
        known = known_rectifiers(self.model) if self.takes_rectified else {}
        return {layer: rectifier for layer in self.target_layers if (rectifier := known.get(layer)) is not None}

    def _begin(self, inputs: Inputs) -> None:
        """What is done once: the axes of the image are found, unless they were named, and its values looked at."""
        if self._released:
            raise RuntimeError("this CAM was released (at the end of `with`): make a new one")
        if not isinstance(self.spatial_from, ImagePlace):
            self.spatial_from = self._found_layers.spatial_from = found_axes(self.model, inputs, self.spatial_from)
        self._found_layouts.begin(inputs, self.spatial_from)
        warn_of_raw_values(image_of(inputs, self.spatial_from))
        self._has_begun = True

    def _found(self, asked: Asked) -> Capture | None:
        """Find the target layers; the forward in which they were found if it can be the call's own."""
        location, capture = self._found_layers.location(asked)
        self._location, self.target_layers = location, location.layers
        self._found_layouts.keep(location, tuple(asked.image.shape[2:]))
        is_plain = self.capture_class is Capture and self.detach
        return capture if is_plain and not self.compute_input_gradient else None

    def _maps_of_layers(self, call: Call, capture: Capturing, transform: AsMap | None) -> Drawn:
        """What the layers' runs say of N images for K target lists."""
        runs = self._runs(call, capture.runs, transform)
        image = call.image if self.compute_input_gradient else None
        for position in range(len(call.target_lists)):
            gradients = None
            if self.uses_gradients:
                gradients = gradients_of_list(capture, call.scores, call.target_lists, position, image)
            for captured in runs:
                gradient = None if gradients is None else gradients[captured.place]
                captured.explain(position, gradient, partial(signed_map, self))
        return self._drawn(call, runs)

    def _runs(self, call: Call, captured: Captured, transform: AsMap | None) -> list[CapturedRun]:
        """The runs of the target layers that the map is made of, read as maps by the transform or by their layout."""
        runs = []
        for place, index in chosen_runs(captured, self.call_index, self._found_layouts.of_other_inputs):
            layer, output = captured[place]
            as_map = transform or self._found_layouts.as_map(layer, output, call.image, call.inputs)
            read: AsMap = partial(read_as_map, as_map, self.detach)
            activations = read(output)
            check_shape(activations, call.image)
            if transform is not None:
                read = self._read_by_transform(transform, layer, output, activations, call.image)
            where = self._registered(call, layer, as_map, activations.shape[2:]) if self.align != "cell" else None
            runs.append(CapturedRun(place, read, LayerRun(call, layer, index, activations, where, as_map, {}), [], []))
        return runs

    def _read_by_transform(
        self, transform: AsMap, layer: nn.Module, output: Any, activations: torch.Tensor, image: torch.Tensor
    ) -> AsMap:
        """What reads gradients as maps: the transform, or what it says of them itself."""
        self._found_layouts.check_transform(layer, output, activations.shape, image.shape[2:])
        of_gradients = getattr(transform, "of_gradients", None)
        return partial(read_as_map, partial(of_gradients, output) if of_gradients else transform, self.detach)

    def _registered(self, call: Call, layer: nn.Module, as_map: AsMap, grid: torch.Size) -> Registration | None:
        where = aligned(self.align, self.model, layer, call.inputs, as_map, self.spatial_from, grid)
        self.registrations[layer] = where
        return where

    def _drawn(self, call: Call, runs: list[CapturedRun]) -> Drawn:
        """For each layer its maps (N * K, 1, *spatial), rectified, scaled to [0, 1] and enlarged: the mean over its
        runs. And their check, which warns of blank ones and of layers that do not answer where they are drawn.
        """
        size = self.get_target_width_height(call.image)[::-1]
        drawn, evidence = [], []
        for _, _, run, signed_maps, gradients in runs:
            signed = torch.stack(signed_maps, dim=1)
            evidence.append(RunEvidence(run.activations, signed, torch.stack(gradients, dim=1) if gradients else None))
            drawn.append(run.enlarged(self._scaled(signed.flatten(0, 1))[:, None], size))
        check = partial(warn_of_blank_maps, drawn, evidence, partial(self._advice, call, runs), call)
        if self._found_layouts.unchecked:
            check = partial(self._check_places, call, runs, drawn, check)
        run_once = len({*map(attrgetter("run.layer"), runs)}) == len(runs)
        return drawn if run_once else _means_of_runs(runs, drawn), check

    def _check_places(self, call: Call, runs: list[CapturedRun], drawn: list[Any], check: Callable[[], None]) -> None:
        """`check`, and whether the layers answer where the maps are drawn."""
        check()
        asked = self._found_layouts.unchecked if self.check_place else set()
        check_drawn(call, [run for run in zip(runs, drawn, strict=True) if run[0].run.layer in asked], self._transform)
        self._found_layouts.unchecked.clear()

    def _advice(self, call: Call, runs: Sequence[CapturedRun]) -> str:
        """Which layer to take where no gradient reaches those that are there, see `FoundLayers.advice`."""
        asked = Asked(call.inputs, call.image, as_asked(call.target_lists))
        layers = list(dict.fromkeys(captured.run.layer for captured in runs))
        return self._found_layers.advice(layers, asked, self._finds_layers)


def _means_of_runs(runs: Sequence[CapturedRun], maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """For each layer the mean of its runs' maps."""
    of_layers: dict[nn.Module, list[torch.Tensor]] = {}
    for captured, of_run in zip(runs, maps, strict=True):
        of_layers.setdefault(captured.run.layer, []).append(of_run)
    return [torch.stack(of_layer).mean(0) for of_layer in of_layers.values()]


def _of_images(maps: torch.Tensor, images: int, targets: int) -> torch.Tensor:
    """Maps (N * K, *spatial) as (N, K, *spatial); maps (N, *spatial) that know no targets are the same for all K."""
    of_images = torch.unflatten(maps, 0, (images, -1))
    return of_images if of_images.shape[1] == targets else of_images.repeat_interleave(targets, dim=1)
