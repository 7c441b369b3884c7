"""`evaluate`: models, methods, layers and metrics over many images, in one call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.engine.chunks import images_at_a_time
from pytorch_grad_cam.engine.inputs import call, model_device, on_device_of
from pytorch_grad_cam.engine.layers import names_of as names_of_layers
from pytorch_grad_cam.engine.targets import scores_in
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.evaluation.baselines import baseline_maps
from pytorch_grad_cam.evaluation.data import Labelled, batches_of
from pytorch_grad_cam.evaluation.evaluation import Cost, Evaluation, Row
from pytorch_grad_cam.evaluation.metrics import Metric, metric_called
from pytorch_grad_cam.explanations.arguments import check_keywords, for_constructor
from pytorch_grad_cam.explanations.explainer import uses_layers
from pytorch_grad_cam.explanations.methods import methods_of
from pytorch_grad_cam.metrics.shared_scores import scored_in_common
from pytorch_grad_cam.zoo.class_names import category_called, names_of
from pytorch_grad_cam.zoo.class_scores import ClassScores, Probabilities, class_scores_of, followed_outputs
from pytorch_grad_cam.zoo.classifiers import Classifier, classifier_of

_SECONDS_WITHOUT_BAR = 5


def evaluate(
    model: Any,
    data: Any,
    methods: Any = "gradcam",
    metrics: str | Metric | Sequence[str | Metric] = ("deletion", "insertion", "ROAD"),
    *,
    targets: Any = None,
    truth: Any = None,
    layers: Any = None,
    baselines: bool = True,
    preprocess: Any = None,
    categories: Sequence[str] | None = None,
    probabilities: Probabilities = None,
    weights: str = "default",
    align: str = "receptive_field",
    batch_size: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Evaluation:
    """A table of how good the maps are: a row for each model, method and layer, a column for each metric.

    model: what `explain` takes, or a mapping of names to several. data: images (N, C, *spatial) as the model takes
    them; a list of them; pictures, a folder, a glob or a list of paths as for `explain`; or a loader of batches:
    images, (images, targets) or (images, targets, truth), which is gone through once for each model. methods, layers,
    preprocess, categories, probabilities, weights, align, options: as for `explain`.
    metrics: names of `metrics.available_metrics`, or `metrics.Metric` of your own. Those of scores, such as deletion,
    insertion and ROAD, ask for theirs in shared batches, and see probabilities.
    targets: one an image, or one for all: a class by number or name, or a callable; None takes the highest class.
    truth: boxes or masks, one entry an image, in pixels of the image that is given (of a picture they are followed
    through the preprocessing), see `metrics.ground_truth.masks_of`. baselines: add rows for maps that look at no model.
    batch_size: None: see `engine.chunks.images_at_a_time`. seed: of the random map, of RandomCAM and of the
    intervals.

    Returns an `Evaluation`: numbers of all images, means with 95 % intervals by bootstrap, costs; tables and a figure.
    A progress bar (tqdm, on standard error) appears after five seconds. The models are left as they were.
    Raises ValueError for no images, metrics that do not exist or need a truth that is not given, other numbers of
    targets or truths than images, and what the metrics raise; TypeError for a keyword that no method takes.
    Cost: a call of each method at each layer for each batch, and what the metrics' docstrings say.

    >>> from pytorch_grad_cam.demo import load_digits_net, preprocess_scene, example_scene
    >>> scene = preprocess_scene(example_scene())
    >>> found = evaluate(load_digits_net(), scene, ["gradcam"], ["entropy"], targets=[5])
    >>> [row.method for row in found.rows]
    ['GradCAM', 'random map', 'centre Gaussian', 'edge detector']
    """
    listed = [metrics] if isinstance(metrics, str | Metric) else [*metrics]
    chosen = [metric_called(each) if isinstance(each, str) else each for each in listed]
    classes_of_methods = methods_of(methods)
    if not chosen or not classes_of_methods:
        raise ValueError("methods and metrics are one or more each")
    if isinstance(data, Iterator) and isinstance(model, Mapping) and len(model) > 1:
        raise ValueError("an iterator is gone through once: for several models pass a list or a DataLoader")
    check_keywords(options, classes_of_methods, evaluate.__annotations__)
    rows: list[Row] = []
    assumptions: dict[str, None] = {}
    images = 0
    for name, each in model.items() if isinstance(model, Mapping) else [("", model)]:
        classifier = classifier_of(each, preprocess, categories, weights, probabilities)
        judge = _Judge(name, classifier, chosen, seed, baselines)
        with ExitStack() as stack:
            cams = [
                stack.enter_context(cam)
                for cam in _cams(
                    classifier.model, classes_of_methods, layers, {"seed": seed, **options, "align": align}
                )
            ]
            size = batch_size or images_at_a_time(model_device(classifier.model) or torch.device("cpu"))
            for batch in _shown(batches_of(data, classifier, targets, truth, size)):
                judge.add(batch, cams)
            images = max(images, judge.count)
            rows += judge.rows(cams)
            assumptions |= dict.fromkeys(f"{name}: {line}" if name else line for line in judge.said)
    return Evaluation(rows, {metric.name: metric.higher_is_better for metric in chosen}, images, [*assumptions], seed)


def _shown(batches: Iterator[Labelled]) -> Iterator[Labelled]:
    from tqdm import tqdm

    with tqdm(desc="evaluated", unit="image", delay=_SECONDS_WITHOUT_BAR, leave=False) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch.positions))


def _cams(model: nn.Module, methods: Sequence[Any], layers: Any, options: dict[str, Any]) -> list[Any]:
    several = layers if isinstance(layers, list | tuple) else [layers]
    return [
        method(model, layer if uses_layers(method) else [], **for_constructor(method, options))
        for method in methods
        for layer in (several if uses_layers(method) else [None])
    ]


class _Found:
    """The numbers of one row, batch by batch, and what they cost."""

    def __init__(self) -> None:
        self.values: dict[str, list[np.ndarray]] = {}
        self.maps, self.metrics = [0.0, 0.0], [0.0, 0.0]

    @property
    def spent(self) -> tuple[list[float], list[float]]:
        """Forwards and seconds, of the maps and of the metrics."""
        return self.maps, self.metrics


class _Judge:
    """Holds the maps of one model against the metrics."""

    def __init__(
        self, name: str, classifier: Classifier, metrics: Sequence[Metric], seed: int, has_baselines: bool
    ) -> None:
        self.name, self.classifier, self.metrics = name, classifier, metrics
        self.seed, self.has_baselines = seed, has_baselines
        self.positions: list[int] = []
        self.said: list[str] = [*classifier.notes]
        self._classes: ClassScores | None = None
        self._names: Sequence[str] = []
        self._of_cams: dict[int, _Found] = {}
        self._of_baselines: dict[str, _Found] = {}

    @property
    def count(self) -> int:
        return len(self.positions)

    def add(self, batch: Labelled, cams: Sequence[Any]) -> None:
        """Measures the maps of one more batch."""
        self._check_truth(batch)
        model = self.classifier.model
        images = on_device_of(model, batch.images)
        classes = self._classes or self._begin(images[:1])
        categories = self._categories(images, batch.targets, classes)
        asked = [each if callable(each) else classes.target(each) for each in categories]
        scored = [each if callable(each) else partial(_probability, classes, each) for each in categories]
        self.positions += batch.positions
        for number, cam in enumerate(cams):
            found = self._of_cams.setdefault(number, _Found())
            with _cost(model, found.maps):
                maps = cam(images, asked, as_tensor=True)
            self._measure(found, maps, images, asked, scored, batch.truth, cam)
        if self.has_baselines:
            for name, maps in baseline_maps(images, batch.positions, batch.truth, self.seed).items():
                self._measure(self._of_baselines.setdefault(name, _Found()), maps, images, asked, scored, batch.truth)

    def rows(self, cams: Sequence[Any]) -> list[Row]:
        """A row for each CAM, then for each baseline. Raises ValueError where there were no images."""
        if not self.positions:
            raise ValueError("there are no images: what was given has none")
        found = []
        for number, cam in enumerate(cams):
            layer = " + ".join(names_of_layers(cam.model, cam.target_layers))
            found.append(self._row(type(cam).__name__, layer, self._of_cams[number], False))
        return found + [self._row(name, "", each, True) for name, each in self._of_baselines.items()]

    def _row(self, method: str, layer: str, found: _Found, is_baseline: bool) -> Row:
        order = np.argsort(self.positions)
        values = {}
        for metric in self.metrics:
            of_images = np.concatenate(found.values[metric.name])[order]
            values[metric.name] = of_images if metric.finish is None else metric.finish(of_images)
        maps, metrics = (Cost(forwards / self.count, seconds / self.count) for forwards, seconds in found.spent)
        return Row(self.name, method, layer, values, maps, metrics, is_baseline)

    def _begin(self, image: torch.Tensor) -> ClassScores:
        model, categories = self.classifier.model, self.classifier.categories
        self._classes = class_scores_of(model, followed_outputs(model, image, scores_in), self.classifier.probabilities)
        self._names = names_of(self._classes.classes, categories, model)[0]
        self.said.append(f"probabilities: {self._classes.said}")
        return self._classes

    def _categories(self, images: torch.Tensor, targets: list[Any] | None, classes: ClassScores) -> list[Any]:
        """A class by number, or a callable, for each image."""
        if targets is not None:
            return [category_called(each, self._names) if isinstance(each, str) else each for each in targets]
        with undisturbed(self.classifier.model), torch.no_grad():
            outputs = scores_in(call(self.classifier.model, images))
        highest: list[int] = classes.scores(outputs.float()).argmax(1).tolist()
        return highest

    def _check_truth(self, batch: Labelled) -> None:
        without = [metric.name for metric in self.metrics if metric.needs == "truth"]
        if without and batch.truth is None:
            raise ValueError(f"{', '.join(without)}: boxes or masks are needed, pass truth=, one entry an image")

    def _measure(
        self,
        found: _Found,
        maps: torch.Tensor,
        images: torch.Tensor,
        asked: list[Any],
        scored: list[Any],
        truth: Any,
        cam: Any = None,
    ) -> None:
        model = self.classifier.model
        with _cost(model, found.metrics):
            in_common = [metric for metric in self.metrics if metric.needs == "scores"]
            numbers: dict[str, Any] = {}
            if in_common:
                asking = [metric.function for metric in in_common]
                of_scores = scored_in_common(asking, images, maps, scored, model)
                numbers = {metric.name: each for metric, each in zip(in_common, of_scores, strict=True)}
            for metric in self.metrics:
                if metric.needs == "maps":
                    numbers[metric.name] = metric.function(maps)
                elif metric.needs == "truth":
                    numbers[metric.name] = metric.function(maps, truth)
                elif metric.needs == "model":
                    numbers[metric.name] = metric.function(model, images, maps, scored)
                elif metric.needs == "cam":
                    not_known = np.full(len(images), np.nan)
                    numbers[metric.name] = not_known if cam is None else metric.function(cam, images, asked)
            for name, values in numbers.items():
                of_images = values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
                found.values.setdefault(name, []).append(of_images)


def _probability(classes: ClassScores, category: int, output: torch.Tensor) -> torch.Tensor:
    """Of one sample's output (classes,)."""
    return classes.probabilities(output[None])[0, category]


@contextmanager
def _cost(model: nn.Module, spent: list[float]) -> Iterator[None]:
    """Adds the images that the model was given within, and the seconds."""

    def count(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        given = next((each for each in (*arguments, *keywords.values()) if isinstance(each, torch.Tensor)), None)
        spent[0] += 0 if given is None else len(given)

    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    started = _now(model)
    try:
        yield
    finally:
        handle.remove()
        spent[1] += _now(model) - started


def _now(model: nn.Module) -> float:
    device = model_device(model)
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
