"""From a batch of inputs to maps: the one path that an image, a list, a loader and a folder take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_map_only

import pytorch_grad_cam
from pytorch_grad_cam.engine.cam_warning import CamWarning, issue, warnings_kept
from pytorch_grad_cam.engine.detections.predictions import Detected, Predictions
from pytorch_grad_cam.engine.inputs import call, image_of, model_device, on_device_of, rows_of
from pytorch_grad_cam.engine.layers import names_of as names_of_layers
from pytorch_grad_cam.engine.segmentation.segmentation_target import SegmentationTarget
from pytorch_grad_cam.engine.targets import scores_in, scores_of_model
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.explanations.arguments import accepted_by, for_constructor
from pytorch_grad_cam.explanations.detected import (
    as_detection,
    best_of_classes,
    box_of,
    first_detections,
    names_of_detected,
)
from pytorch_grad_cam.explanations.explanation import Explanation, Original, Panel
from pytorch_grad_cam.explanations.segmented import (
    SAID,
    as_region,
    first_regions,
    in_input,
    is_segmentation,
    names_of_segmented,
    region_of,
    segments_in,
    shares_of_classes,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.zoo.class_names import category_called, names_of, names_of_single
from pytorch_grad_cam.zoo.class_scores import ClassScores, class_scores_of, followed_outputs
from pytorch_grad_cam.zoo.placement import Placements
from pytorch_grad_cam.zoo.preprocessing import Preprocessing, warning_of
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

if TYPE_CHECKING:
    from pytorch_grad_cam.zoo.classifiers import Classifier

_ROUNDING = 1e-2  # of a normalised value, in half precision
_NOTHING_DETECTED = (
    "nothing was detected: pass a class, whose best raw prediction is explained, or BoxTarget(box, label) for a place"
)
_NOTHING_SEGMENTED = "nothing but background was found: pass a class that is predicted, or a SegmentationTarget"
_NOT_NORMALISED = (
    "all values of the input lie in [0, 1], as before a normalisation, but the model's preprocessing ({origin}) takes "
    "off the mean {mean}: normalise it, or pass the picture itself"
)


@dataclass(frozen=True)
class Request:
    """What is asked of each image.

    methods: classes of CAMs. targets: classes by number or name, and callables; a mapping has names for them; None
    takes the `top` highest classes.
    layers: None finds one; a list gives a map for each entry. smoothing: options of a CAM's call.
    options: those of its constructor. batch_size: what a CAM has at a time besides, masked images for example; None
    leaves that to it. signed: of two targets the first's map minus the second's, in [-1, 1].
    """

    methods: Sequence[Any]
    targets: Sequence[Any] | Mapping[str, Any] | None = None
    layers: Any = None
    top: int = 1
    smoothing: dict[str, bool] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    signed: bool = False


class Explained(NamedTuple):
    """The panels of one image, what its classes are ranked by and their probabilities (classes,), and the warnings."""

    panels: list[Panel]
    scores: np.ndarray
    probabilities: np.ndarray
    warnings: list[str]


class Explainer:
    """Explains batches of inputs by a classifier; a context manager, which releases the CAMs.

    are_given: whether inputs are the user's own, not preprocessed pictures. What the model's outputs are is seen in the
    first image of the first batch, in one forward.
    """

    def __init__(self, classifier: Classifier, request: Request, are_given: bool = False) -> None:
        self.classifier, self.request, self.are_given = classifier, request, are_given
        self.output_transform = request.options.get("output_transform") or scores_in
        self.names: Sequence[str] = []
        self.assumptions: list[str] = []
        self.classes: ClassScores | None = None
        self._segments = False
        self._targets: list[Any] | None = None
        self._has_begun = False
        self._given_names: Sequence[str | None] = []
        self._placements = Placements(classifier.preprocess)
        self._resources = ExitStack()
        self.cams = [
            self._resources.enter_context(self._made(method, layer))
            for method in request.methods
            for layer in (request.layers if _are_several(request.layers) and uses_layers(method) else [request.layers])
        ]
        for cam in self.cams:
            if request.batch_size:
                cam.batch_size = request.batch_size

    def __enter__(self) -> Explainer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    def _made(self, method: Any, layer: Any) -> Any:
        options = for_constructor(method, self.request.options)
        return method(self.classifier.model, layer if uses_layers(method) else [], **options)

    def _begin(self, inputs: Any) -> None:
        """See in the inputs of one image, a batch of one, how outputs are read, and what the targets are."""
        seen_in = self._seen_in(inputs)
        classifier = self.classifier
        outputs = self._outputs_of_first(inputs)
        place = self.request.options.get("spatial_from")
        self._segments = is_segmentation(outputs, image_of(inputs, place).shape)
        if self._segments:
            segments = segments_in(outputs, inputs, place)
            self.names, of_names = names_of_segmented(classifier.model, classifier.categories, segments)
            said = SAID
        elif isinstance(outputs, Detected):
            self.names, of_names = names_of_detected(classifier.model, classifier.categories, outputs.predictions[0])
            said = "the scores of the detector's boxes"
        else:
            self.classes = class_scores_of(classifier.model, outputs, classifier.probabilities)
            said = self.classes.said
            if self.classes.is_single:
                self.names, of_names = names_of_single(classifier.categories)
            else:
                self.names, of_names = names_of(self.classes.classes, classifier.categories, classifier.model)
        self.assumptions = [*classifier.notes, seen_in, f"probabilities: {said}", f"class names: {of_names}"]
        self.assumptions += _drawn(self.request)
        if self.request.targets is not None:
            named = self.request.targets if isinstance(self.request.targets, Mapping) else None
            asked = self.request.targets if named is None else named.values()
            as_target = as_region if self._segments else as_detection if self.classes is None else numbered
            self._targets = [as_target(target, self.names) for target in asked]
            self._given_names = [None] * len(self._targets) if named is None else list(named)
        self._has_begun = True

    def _outputs_of_first(self, inputs: Any) -> Any:
        """The outputs with their graph; where the model does not run on what was assumed, it is said."""
        place = self.request.options.get("spatial_from")
        preprocessing = self.classifier.preprocessing
        shape = image_of(inputs, place).shape
        read = partial(scores_of_model, self.classifier.model, self.output_transform, shape)
        try:
            return followed_outputs(self.classifier.model, inputs, read, place)
        except (RuntimeError, ValueError, AssertionError) as error:
            if self.are_given or not preprocessing.is_assumed:
                raise
            reason = " ".join(str(error).split())[:200]
            name = type(self.classifier.model).__name__
            raise UnusableInput(
                f"{name} does not run on what {preprocessing.origin}, which was assumed, gives ({reason}): pass "
                "preprocess="
            ) from error

    def _seen_in(self, inputs: Any) -> str:
        """How the inputs came about, and how they are shown."""
        preprocessing = self.classifier.preprocessing
        if not self.are_given:
            if preprocessing.is_assumed:
                issue(CamWarning(warning_of(preprocessing)))
            return f"preprocessing: {preprocessing.origin}{' (assumed)' if preprocessing.is_assumed else ''}"
        shown, line = shown_by(preprocessing, image_of(inputs, self.request.options.get("spatial_from")))
        self.classifier = self.classifier._replace(preprocessing=shown)
        return f"preprocessing: none, the inputs were given; {line}"

    def __call__(
        self, inputs: Any, count: int, shown: bool = True, sizes: Sequence[tuple[int, int] | None] | None = None
    ) -> list[Explained]:
        """What is found in `count` images. inputs: theirs, a batch. shown: whether blank maps are warned of too. sizes:
        the (width, height) of the pictures before they were preprocessed, for points in them.

        The first call issues a CamWarning for an assumed preprocessing. Raises what `class_scores_of`, `names_of` and
        `category_called` raise, and IndexError for the number of a class that does not exist.
        Cost: one call of each CAM; with `top` above 1, for the likelier of two classes of one output, for the
        detections of a detector and for a segmenter, a forward.
        """
        inputs = on_device_of(self.classifier.model, self._in_precision(inputs))
        if not self._has_begun:
            self._begin(first_of(inputs, count))
        classes = self.classes
        if classes is None:
            of_images = [rows_of(inputs, torch.tensor([image]), count) for image in range(count)]
            if self._segments:
                pairs = zip(of_images, sizes or [None] * count, strict=True)
                return [self._segmented_in(*pair, shown) for pair in pairs]
            return [self._detected_in(of_image, shown) for of_image in of_images]
        targets = self._targets_of(inputs, count, classes)
        asked = None if targets is None else [[_asked(target, classes) for target in row] for row in targets]
        panels: list[list[Panel]] = [[] for _ in range(count)]
        warnings: list[list[str]] = [[] for _ in range(count)]
        scores, probabilities = np.empty(0), np.empty(0)
        for cam in self.cams:
            with warnings_kept(shown) as issued:
                maps = cam(inputs, asked, as_tensor=True, **self.request.smoothing).cpu().numpy()
            if not len(scores):
                outputs = self.output_transform(cam.outputs)
                probabilities = classes.probabilities(outputs).cpu().numpy()
                scores = classes.scores(outputs.float()).cpu().numpy()
            of_images = targets or [[int(category)] for category in scores.argmax(1)]
            method, layer = type(cam).__name__, " + ".join(names_of_layers(cam.model, cam.target_layers))
            for image, maps_of_image in enumerate(maps if targets else maps[:, None]):
                given_names = self._given_names or [None] * len(of_images[image])
                made = [
                    Panel(method, layer, *self._described(target, given, probabilities[image]), cam_map)
                    for target, given, cam_map in zip(of_images[image], given_names, maps_of_image, strict=True)
                ]
                made = [_minus(*made)] if self.request.signed else made
                panels[image] += [panel._replace(warnings=_said_of(panel, issued, image)) for panel in made]
                warnings[image] += [f"{made[0].where}: {reason}" for reason in _reasons(issued, image)]
        return [Explained(panels[i], scores[i], probabilities[i], warnings[i]) for i in range(count)]

    def _segmented_in(self, inputs: Any, size: tuple[int, int] | None, shown: bool) -> Explained:
        """What is found in one image, a batch of one: a map for each region that was asked for, or class found."""
        place, model = self.request.options.get("spatial_from"), self.classifier.model
        image = image_of(inputs, place)
        with undisturbed(model), torch.no_grad():
            scores = scores_of_model(model, self.output_transform, image.shape, call(model, inputs))
        segments = segments_in(scores, inputs, place)
        if self._targets is None:
            targets: list[Any] = [*first_regions(segments, self.names, self.request.top)]
        else:
            given = self.request.targets.values() if isinstance(self.request.targets, Mapping) else self.request.targets
            placement = None if size is None else self._placements(size)
            pairs = zip(self._targets, given or (), strict=True)
            targets = [each if size is None else in_input(each, asked, placement) for each, asked in pairs]
        warnings = [] if targets else [_NOTHING_SEGMENTED]
        if warnings:
            issue(CamWarning(warnings[0]))
        regions = [region_of(target, segments, image.shape[2:]) for target in targets]
        panels: list[Panel] = []
        for cam in self.cams if targets else []:
            with warnings_kept(shown) as issued:
                maps = cam(inputs, [targets], as_tensor=True, **self.request.smoothing)[0].cpu().numpy()
            where = type(cam).__name__, " + ".join(names_of_layers(cam.model, cam.target_layers))
            given_names = self._given_names or [None] * len(targets)
            made = [
                Panel(*where, category, name or self._name_of_region(target, category), None, cam_map, region=region)
                for target, name, (category, region), cam_map in zip(targets, given_names, regions, maps, strict=True)
            ]
            made = [_minus(*made)] if self.request.signed else made
            panels += [panel._replace(warnings=_said_of(panel, issued, 0)) for panel in made]
            warnings += [f"{made[0].where}: {reason}" for reason in _reasons(issued, 0)]
        shares = shares_of_classes(segments)
        return Explained(panels, shares, shares, warnings)

    def _name_of_region(self, target: Any, category: int | None) -> str:
        """The class's name; where more is meant than all that is predicted of it, what that is."""
        if not isinstance(target, SegmentationTarget):
            return _name_of(target)
        where = "" if target.point is None else " at " + ", ".join(f"{at:.0f}" for at in target.point)
        where += "" if target.instance is None else f" {target.instance}"
        return (self.names[category] if category is not None else "mask") + where

    def _detected_in(self, inputs: Any, shown: bool) -> Explained:
        """What is found in one image, a batch of one: a map for each box that was asked for, or was detected."""
        targets = self._targets
        if targets is None:
            found = self._predictions_of(inputs)
            targets = first_detections(found, self.request.top)
        warnings = [] if targets else [_NOTHING_DETECTED]
        if warnings:
            issue(CamWarning(warnings[0]))
        panels: list[Panel] = []
        for cam in self.cams if targets else []:
            with warnings_kept(shown) as issued:
                maps = cam(inputs, [targets], as_tensor=True, **self.request.smoothing)[0].cpu().numpy()
            found = cam.predictions[0]
            where = type(cam).__name__, " + ".join(names_of_layers(cam.model, cam.target_layers))
            given_names = self._given_names or [None] * len(targets)
            made = [
                self._panel_of(*where, target, given, cam_map, found)
                for target, given, cam_map in zip(targets, given_names, maps, strict=True)
            ]
            made = [_minus(*made)] if self.request.signed else made
            panels += [panel._replace(warnings=_said_of(panel, issued, 0)) for panel in made]
            warnings += [f"{made[0].where}: {reason}" for reason in _reasons(issued, 0)]
        of_classes = [best_of_classes(each, found, len(self.names)) for each in (found.logits, found.scores)]
        return Explained(panels, of_classes[0], np.maximum(of_classes[1], 0), warnings)

    def _predictions_of(self, inputs: Any) -> Predictions:
        """What a detector reports of one image. Cost: one forward."""
        model, place = self.classifier.model, self.request.options.get("spatial_from")
        with undisturbed(model), torch.no_grad():
            shape = image_of(inputs, place).shape
            detected: Detected = scores_of_model(model, self.output_transform, shape, call(model, inputs))
        return detected.predictions[0]

    def _panel_of(
        self, method: str, layer: str, target: Any, given: str | None, cam_map: np.ndarray, found: Predictions
    ) -> Panel:
        meant = box_of(target, found, self.names)
        if meant is None:
            return Panel(method, layer, None, given or _name_of(target), None, cam_map)
        label, box = meant
        return Panel(method, layer, label, given or box.name, box.score, cam_map, boxes=(box,))

    def explanation(
        self,
        found: Explained,
        image: torch.Tensor,
        size: tuple[int, int] | None = None,
        title: str = "",
        label: int | None = None,
    ) -> Explanation:
        """What was found, with the picture that the model was shown.

        image: the model's input (C, H, W). size: the (width, height) of the picture before it was preprocessed. label:
        the number of the right class, in a loader's batch.
        """
        picture = np.rint(255 * self.classifier.picture(image)).astype(np.uint8)
        of_classes = found.scores, found.probabilities, self.names
        versions = {"pytorch_grad_cam": pytorch_grad_cam.__version__, "torch": torch.__version__}
        original = None if size is None else Original(size, self._placements)
        panels = [panel.in_original(original.placement if original else None) for panel in found.panels]
        about = self.assumptions, original, self._about
        truth = self.names[label] if label is not None and 0 <= label < len(self.names) else None
        return Explanation(title, picture, panels, *of_classes, found.warnings, versions, *about, truth)

    @property
    def _about(self) -> dict[str, str]:
        align = self.request.options.get("align", "cell")
        return {
            "model": self.classifier.name or type(self.classifier.model).__name__,
            "align": align if isinstance(align, str) else str(align),
            "date": date.today().isoformat(),
        }

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return model_device(self.classifier.model) or torch.device("cpu")

    def _in_precision(self, inputs: Any) -> Any:
        """Preprocessed floats in the model's precision."""
        if self.are_given:
            return inputs
        dtype = next((p.dtype for p in self.classifier.model.parameters() if p.is_floating_point()), None)
        return tree_map_only(torch.Tensor, lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, inputs)

    def _targets_of(self, inputs: Any, count: int, classes: ClassScores) -> list[list[Any]] | None:
        """The classes and callables of each image; None where that is its highest class, which a CAM finds itself."""
        if self._targets is not None:
            return [self._targets] * count
        if self.request.top == 1 and not classes.is_single:
            return None
        with undisturbed(self.classifier.model), torch.no_grad():
            outputs = self.output_transform(call(self.classifier.model, inputs))
        highest = classes.scores(outputs.float()).argsort(descending=True, stable=True, dim=1)
        targets: list[list[Any]] = highest[:, : self.request.top].tolist()
        return targets

    def target(self, category: int) -> Any:
        """What a CAM is asked for a class, once an image was explained."""
        return category if self.classes is None else self.classes.target(category)

    def _described(
        self, target: Any, given: str | None, probabilities: np.ndarray
    ) -> tuple[int | None, str, float | None]:
        """A target's class number, name and probability; of a callable only the name."""
        if callable(target):
            return None, given or _name_of(target), None
        return target, given or self.names[target], float(probabilities[target])


def first_of(inputs: Any, count: int) -> Any:
    """The inputs of the first of `count` images."""
    return rows_of(inputs, torch.zeros(1, dtype=torch.long), count)


def shown_by(preprocessing: Preprocessing, x: torch.Tensor) -> tuple[Preprocessing, str]:
    """By which mean and deviation a given input (N, C, H, W) is shown as a picture, and how to say so.

    An assumed mean is left where pictures normalised by it have no such values. Issues a CamWarning for values in
    [0, 1] where the model's preprocessing is known to normalise.
    """
    is_unit_range = bool(x.min() >= 0 and x.max() <= 1)
    mean, std = preprocessing.mean, preprocessing.std
    if preprocessing.is_assumed and is_unit_range:
        return preprocessing._replace(mean=(0.0,), std=(1.0,)), "shown as they are, in [0, 1] (assumed)"
    if mean is None or std is None or (preprocessing.is_assumed and not _could_be_normalised(x, mean, std)):
        return preprocessing._replace(mean=None), "shown from their lowest value to their highest"
    if is_unit_range and any(mean):
        issue(CamWarning(_NOT_NORMALISED.format(mean=mean, origin=preprocessing.origin)))
    return preprocessing, f"shown by the mean {mean}{' (assumed)' if preprocessing.is_assumed else ''}"


def _could_be_normalised(x: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> bool:
    lowest = min((0 - of_mean) / of_std for of_mean, of_std in zip(mean, std, strict=True))
    highest = max((1 - of_mean) / of_std for of_mean, of_std in zip(mean, std, strict=True))
    return bool(x.min() >= lowest - _ROUNDING and x.max() <= highest + _ROUNDING)


def uses_layers(method: Any) -> bool:
    """Whether a method, or what a `functools.partial` calls, has layers."""
    return bool(getattr(getattr(method, "func", method), "uses_layers", True))


def _minus(first: Panel, second: Panel) -> Panel:
    """The difference of two panels' maps; 0 is where both say the same."""
    name = f"{first.name} - {second.name}"
    return first._replace(category=None, name=name, probability=None, map=first.map - second.map)


def _drawn(request: Request) -> list[str]:
    align = request.options.get("align", "cell")
    where = {
        "cell": "cells are even tiles",
        "receptive_field": "each cell is drawn where it looks, if that is certain, else as an even tile",
    }
    lines = [f"maps: {where.get(align, 'each cell is drawn where the given registration says')}"]
    if request.signed:
        lines.append("signed maps: the difference of two maps that are scaled to [0, 1] one by one")
    without = [method.__name__ for method in request.methods if align != "cell" and "align" not in accepted_by(method)]
    return [*lines, *(f"maps of {name}: cells are even tiles, for its constructor takes no align" for name in without)]


def _name_of(target: Any) -> str:
    """The name of a callable: a function's, of an object what it says of itself, else its class's."""
    says_nothing: bool = getattr(type(target), "__repr__", None) is object.__repr__
    return str(getattr(target, "__name__", type(target).__name__ if says_nothing else repr(target)))


def _asked(target: Any, classes: ClassScores) -> Any:
    return target if callable(target) else classes.target(target)


def _are_several(layers: Any) -> bool:
    return isinstance(layers, list | tuple)


def numbered(target: Any, names: Sequence[str]) -> Any:
    """A class as its number, counted from the front; a callable as it is."""
    if type(target) is ClassifierOutputTarget:
        target = target.category
    if isinstance(target, str):
        return category_called(target, names)
    if callable(target):
        return target
    number = int(target)
    if not -len(names) <= number < len(names):
        raise IndexError(f"class {number}: the model's output has {len(names)} classes, from 0")
    return number % len(names)


def _said_of(panel: Panel, issued: list[CamWarning], image: int) -> tuple[str, ...]:
    """What the warnings say of a panel: why a map is blank only where it is."""
    return tuple(_reasons([warning for warning in issued if not warning.samples or not panel.map.any()], image))


def _reasons(issued: list[CamWarning], image: int) -> list[str]:
    """What the warnings say of one image."""
    reasons = [
        f"the map is blank: {warning.reason}" if warning.samples else str(warning)
        for warning in issued
        if not warning.samples or image in warning.samples
    ]
    return list(dict.fromkeys(reasons))
