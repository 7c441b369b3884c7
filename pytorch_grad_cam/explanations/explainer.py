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
from pytorch_grad_cam.engine.detections.predictions import Detected
from pytorch_grad_cam.engine.inputs import call, image_of, model_device, on_device_of, rows_of
from pytorch_grad_cam.engine.layers import names_of as names_of_layers
from pytorch_grad_cam.engine.targets import scores_in, scores_of_model
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.explanations.arguments import accepted_by, for_constructor
from pytorch_grad_cam.explanations.detected import DetectedBoxes
from pytorch_grad_cam.explanations.explanation import Explanation, Panel
from pytorch_grad_cam.explanations.methods import DefaultMethods
from pytorch_grad_cam.explanations.panel import Places, check_no_point, name_of_target
from pytorch_grad_cam.explanations.segmented import SegmentedRegions, is_segmentation
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.zoo.class_names import category_called, names_of, names_of_single
from pytorch_grad_cam.zoo.class_scores import ClassScores, class_scores_of, followed_outputs
from pytorch_grad_cam.zoo.placement import Original, Placements
from pytorch_grad_cam.zoo.preprocessing import Preprocessing, warning_of
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

if TYPE_CHECKING:
    from pytorch_grad_cam.zoo.classifiers import Classifier

_ROUNDING = 1e-2  # of a normalised value, in half precision
_NOT_NORMALISED = (
    "all values of the input lie in [0, 1], as before a normalisation, but the model's preprocessing ({origin}) takes "
    "off the mean {mean}: normalise it, or pass the picture itself"
)


@dataclass(frozen=True)
class Request:
    """What is asked of each image.

    methods: classes of CAMs, or those that the model's kind decides on.
    targets: classes by number or name, and callables; a mapping has names for them; None takes the `top` highest
    classes.
    layers: None finds one; a list gives a map for each entry. smoothing: options of a CAM's call.
    options: those of its constructor. batch_size: what a CAM has at a time besides, masked images for example; None
    leaves that to it. signed: of two targets the first's map minus the second's, in [-1, 1].
    """

    methods: Sequence[Any] | DefaultMethods
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
        self._places: Places | None = None
        self._asked: list[Any] = []
        self._targets: list[Any] | None = None
        self._has_begun = False
        self._given_names: Sequence[str | None] = []
        self._placements = Placements(classifier.preprocess)
        self._resources = ExitStack()
        self.cams: list[Any] = []
        if not isinstance(request.methods, DefaultMethods):
            self._make(request.methods)

    def __enter__(self) -> Explainer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    def _make(self, methods: Sequence[Any]) -> None:
        layers = self.request.layers
        self.cams = [
            self._resources.enter_context(self._made(method, layer))
            for method in methods
            for layer in (layers if _are_several(layers) and uses_layers(method) else [layers])
        ]
        for cam in self.cams:
            if self.request.batch_size:
                cam.batch_size = self.request.batch_size

    def _made(self, method: Any, layer: Any) -> Any:
        options = for_constructor(method, self.request.options)
        return method(self.classifier.model, layer if uses_layers(method) else [], **options)

    def _begin(self, inputs: Any) -> None:
        """See in the inputs of one image, a batch of one, how outputs are read, and what the targets are."""
        seen_in = self._seen_in(inputs)
        classifier = self.classifier
        outputs = self._outputs_of_first(inputs)
        shape = image_of(inputs, self.request.options.get("spatial_from")).shape
        if is_segmentation(outputs, shape):
            self._places = SegmentedRegions(classifier.model, classifier.categories, outputs, len(shape) - 2)
        elif isinstance(outputs, Detected):
            self._places = DetectedBoxes(classifier.model, classifier.categories, outputs)
        if self._places is not None:
            self.names, of_names, said = self._places.names, self._places.of_names, self._places.said
        else:
            self.classes = class_scores_of(classifier.model, outputs, classifier.probabilities)
            said = self.classes.said
            if self.classes.is_single:
                self.names, of_names = names_of_single(classifier.categories)
            else:
                self.names, of_names = names_of(self.classes.classes, classifier.categories, classifier.model)
        self.assumptions = [*classifier.notes, seen_in, f"probabilities: {said}", f"class names: {of_names}"]
        methods = self.request.methods
        if isinstance(methods, DefaultMethods):
            of_boxes = isinstance(self._places, DetectedBoxes)
            methods = methods.of_boxes if of_boxes else methods.of_scores
            self._make(methods)
            if of_boxes:
                chosen = " and ".join(method.__name__ for method in methods)
                self.assumptions.append(f"method: {chosen}, as the model is a detector (assumed)")
        self.assumptions += _drawn(self.request, methods)
        if self.request.targets is not None:
            named = self.request.targets if isinstance(self.request.targets, Mapping) else None
            self._asked = list(self.request.targets if named is None else named.values())
            as_target = partial(numbered, names=self.names) if self._places is None else self._places.as_target
            self._targets = [as_target(asked) for asked in self._asked]
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
        except TypeError as error:
            if self.are_given:
                raise
            raise UnusableInput(
                f"{type(self.classifier.model).__name__} does not run on a picture alone ({error}): in its place pass "
                "the mapping that the model's processor makes of the picture and what else it reads, such as texts"
            ) from error
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
        self, inputs: Any, count: int, sizes: Sequence[tuple[int, int] | None] | None = None, shown: bool = True
    ) -> list[Explained]:
        """What is found in `count` images. inputs: theirs, a batch. sizes: the (width, height) of the pictures before
        they were preprocessed, which boxes and points of targets are in pixels of; None of inputs that were given.
        shown: whether blank maps are warned of too.

        The first call issues a CamWarning for an assumed preprocessing. Raises what `class_scores_of`, `names_of` and
        `category_called` raise, and IndexError for the number of a class that does not exist.
        Cost: one call of each CAM; with `top` above 1, for the likelier of two classes of one output, and for boxes and
        regions, a forward.
        """
        inputs = on_device_of(self.classifier.model, self._in_precision(inputs))
        if not self._has_begun:
            self._begin(first_of(inputs, count))
        if self._places is not None:
            of_images = [rows_of(inputs, torch.tensor([image]), count) for image in range(count)]
            originals = map(self._original_of, sizes or [None] * count)
            pairs = zip(of_images, originals, strict=True)
            return [self._places_in(self._places, *each, shown) for each in pairs]
        assert self.classes is not None
        return self._classes_in(self.classes, inputs, count, shown)

    def _classes_in(self, classes: ClassScores, inputs: Any, count: int, shown: bool) -> list[Explained]:
        """What is found in `count` images: a map for each class that was asked for, or is the highest."""
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

    def _places_in(self, places: Places, inputs: Any, original: Original | None, shown: bool) -> Explained:
        """What is found in one image, a batch of one: a map for each place that was asked for, or was found."""
        model, image = self.classifier.model, image_of(inputs, self.request.options.get("spatial_from"))
        with undisturbed(model), torch.no_grad():
            outputs = scores_of_model(model, self.output_transform, image.shape, call(model, inputs))
        read = places.read(outputs, image.ndim - 2)
        if self._targets is None:
            targets = [*places.first(read, self.request.top)]
        else:
            targets = [places.as_target(asked, original) for asked in self._asked]
        warnings = [] if targets else [places.nothing]
        if warnings:
            issue(CamWarning(warnings[0]))
        panels: list[Panel] = []
        for cam in self.cams if targets else []:
            with warnings_kept(shown) as issued:
                maps = cam(inputs, [targets], as_tensor=True, **self.request.smoothing)[0].cpu().numpy()
            method, layer = type(cam).__name__, " + ".join(names_of_layers(cam.model, cam.target_layers))
            bare = [Panel(method, layer, None, "", None, cam_map) for cam_map in maps]
            of_targets = zip(bare, targets, strict=True)
            made = [places.shown(panel, target, read, image.shape[2:]) for panel, target in of_targets]
            if self._targets is not None:
                given = zip(made, self._given_names, self._asked, strict=True)
                made = [panel._replace(name=name or f"{panel.name}{_at(asked)}") for panel, name, asked in given]
            made = [_minus(*made)] if self.request.signed else made
            panels += [panel._replace(warnings=_said_of(panel, issued, 0)) for panel in made]
            warnings += [f"{made[0].where}: {reason}" for reason in _reasons(issued, 0)]
        return Explained(panels, *places.of_classes(read), warnings)

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
        original = self._original_of(size)
        panels = [panel.in_original(original.placement if original else None) for panel in found.panels]
        about = self.assumptions, original, self._about
        truth = self.names[label] if label is not None and 0 <= label < len(self.names) else None
        return Explanation(title, picture, panels, *of_classes, found.warnings, versions, *about, truth)

    def _original_of(self, size: tuple[int, int] | None) -> Original | None:
        return None if size is None else Original(size, self._placements)

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
            return None, given or name_of_target(target), None
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


def _drawn(request: Request, methods: Sequence[Any]) -> list[str]:
    align = request.options.get("align", "cell")
    where = {
        "cell": "cells are even tiles",
        "receptive_field": "each cell is drawn where it looks, if that is certain, else as an even tile",
    }
    lines = [f"maps: {where.get(align, 'each cell is drawn where the given registration says')}"]
    if request.signed:
        lines.append("signed maps: the difference of two maps that are scaled to [0, 1] one by one")
    without = [method.__name__ for method in methods if align != "cell" and "align" not in accepted_by(method)]
    return [*lines, *(f"maps of {name}: cells are even tiles, for its constructor takes no align" for name in without)]


def _asked(target: Any, classes: ClassScores) -> Any:
    return target if callable(target) else classes.target(target)


def _are_several(layers: Any) -> bool:
    return isinstance(layers, list | tuple)


def numbered(target: Any, names: Sequence[str]) -> Any:
    """A class as its number, counted from the front; a callable as it is."""
    check_no_point(target)
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


def _at(asked: Any) -> str:
    """The point that was asked for, as it was given."""
    point = asked if isinstance(asked, list | tuple) else getattr(asked, "point", None)
    return "" if point is None else " at " + ", ".join(f"{place:g}" for place in point)


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
