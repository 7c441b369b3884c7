"""`explain`: from a model and an image of any form to maps, in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

import pytorch_grad_cam
from pytorch_grad_cam.engine.cam_warning import warnings_kept
from pytorch_grad_cam.engine.inputs import call, on_device_of
from pytorch_grad_cam.engine.layers import names_of
from pytorch_grad_cam.engine.targets import scores_in
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.explanations.explanation import Explanation, Panel
from pytorch_grad_cam.explanations.methods import available_methods
from pytorch_grad_cam.registration.registration import Alignment
from pytorch_grad_cam.utils.image import unit_range
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.zoo.classifiers import Classifier, category_called, classifier_of, knows_preprocessing
from pytorch_grad_cam.zoo.read_image import read_image, upright_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

    from pytorch_grad_cam.base_cam import BaseCAM
    from pytorch_grad_cam.meta_cam import MetaCAM

    Method = str | type[BaseCAM] | type[MetaCAM]
    Target = int | str | Callable[[torch.Tensor], torch.Tensor]


def explain(
    model: nn.Module | Classifier | str,
    image: str | os.PathLike[str] | Image | np.ndarray | torch.Tensor,
    methods: Method | Sequence[Method] = "gradcam",
    targets: Target | Sequence[Target] | None = None,
    layers: Any = None,
    *,
    top: int = 1,
    preprocess: Callable[[Image], torch.Tensor] | None = None,
    categories: Sequence[str] | None = None,
    weights: str = "default",
    align: Alignment = "receptive_field",
    aug_smooth: bool = False,
    eigen_smooth: bool = False,
    **options: Any,
) -> Explanation:
    """An explanation: maps of what the model looks at in the image.

    model: a classifier, a `zoo.classifiers.Classifier`, or the name of one with its `weights`, see
    `zoo.classifiers.load_classifier`.
    image: a file, a Pillow image, an array (H, W, 3), uint8 or float in [0, 1]. A tensor (C, H, W) or (1, C, H, W) is
    given to the model as it is; one in [0, 1] is also the picture, unless the model's preprocessing is known.
    methods: classes or names ('gradcam', 'layercam', 'all'), one or several.
    targets: classes by number or name, or callables as in a CAM, one or several; None takes the `top` highest classes.
    layers: None finds one in the model. A list gives a map for each entry; an entry that is a list itself gives the
    mean over its layers.
    preprocess: from a Pillow image to the input (C, H, W) or (1, C, H, W), which is then cast to the model's precision.
    categories: the classes' names. None, of either: see `zoo.classifiers.classifier_of`.
    align: see `BaseCAM`, but registered maps are the default here. aug_smooth, eigen_smooth: see `BaseCAM.__call__`.
    options: for the methods' constructors.

    A CamWarning is issued, and kept in the result. The model is left as it was. Raises ValueError for an image that
    cannot be read, a class name or a method that does not exist, empty lists, a `top` below 1, and where the methods
    raise it; IndexError for the number of a class that does not exist.
    Cost: one forward, and one call of each method at each layer, with all targets at once.

    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net
    >>> explanation = explain(load_digits_net(), example_scene(), targets=[5, 7])
    >>> [str(panel) for panel in explanation.panels]
    ['5 100.0%, GradCAM at layer4', '7 100.0%, GradCAM at layer4']
    >>> explanation.maps.shape
    (2, 64, 64)
    """
    for name, several in (("methods", methods), ("targets", targets), ("layers", layers)):
        if isinstance(several, list | tuple) and not several:
            raise ValueError(f"{name} is empty: pass one or more, or leave it out")
    if top < 1:
        raise ValueError(f"top is {top}, expected the number of highest classes, 1 or more")
    classifier = classifier_of(model, preprocess, categories, weights)
    x = on_device_of(classifier.model, _input(classifier, image))
    if isinstance(image, torch.Tensor) and preprocess is None and not knows_preprocessing(model) and _is_unit_range(x):
        classifier = classifier._replace(mean=(0.0,), std=(1.0,))
    output_transform = options.get("output_transform") or scores_in
    with undisturbed(classifier.model), torch.no_grad():
        logits = output_transform(call(classifier.model, x))
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise ValueError(f"{type(classifier.model).__name__} gives no class scores (N, classes): take the CAM classes")
    probabilities = classifier.probabilities(logits.float())[0].cpu().numpy()
    scores = logits[0].float().cpu().numpy()
    names = classifier.names(len(probabilities))
    chosen = _targets(targets, scores, names, top)
    smoothing = {"aug_smooth": aug_smooth, "eigen_smooth": eigen_smooth}
    panels: list[Panel] = []
    warnings: list[str] = []
    for method in _methods(methods):
        for layer in layers if isinstance(layers, list | tuple) and method.uses_layers else [layers]:
            with warnings_kept() as issued:
                cam = method(classifier.model, layer if method.uses_layers else [], align=align, **options)
                with cam:
                    maps = cam(x, [chosen], **smoothing)[0]
                    layer_name = " + ".join(names_of(cam.model, cam.target_layers))
            panels += [
                Panel(method.__name__, layer_name, *_described(target, probabilities, names), cam_map)
                for target, cam_map in zip(chosen, maps, strict=True)
            ]
            where = f"{method.__name__} at {layer_name}" if layer_name else method.__name__
            warnings += [f"{where}: {warning}" for warning in issued]
    picture = np.rint(255 * classifier.picture(x[0])).astype(np.uint8)
    versions = {"pytorch_grad_cam": pytorch_grad_cam.__version__, "torch": torch.__version__}
    title = Path(image).name if isinstance(image, str | os.PathLike) else ""
    return Explanation(title, picture, panels, scores, probabilities, names, warnings, versions)


def _input(classifier: Classifier, image: Any) -> torch.Tensor:
    """The image as a batch of one; where it was preprocessed here, in the model's precision."""
    if isinstance(image, torch.Tensor):
        return _batch_of_one("the image", image)
    x = _batch_of_one("what preprocess returns", classifier.preprocess(_as_pillow(image)))
    return x.to(next((p.dtype for p in classifier.model.parameters() if p.is_floating_point()), x.dtype))


def _batch_of_one(what: str, x: torch.Tensor) -> torch.Tensor:
    batch = x if x.ndim == 4 else x[None]
    if batch.ndim != 4 or len(batch) != 1:
        raise ValueError(f"{what} has shape {tuple(x.shape)}, expected (C, H, W) or (1, C, H, W)")
    return batch


def _is_unit_range(x: torch.Tensor) -> bool:
    return bool(x.min() >= 0 and x.max() <= 1)


def _as_pillow(image: Any) -> Image:
    from PIL import Image

    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"the image has shape {pixels.shape}, expected (H, W, 3)")
    return Image.fromarray(np.rint(255 * unit_range(pixels).clip(0, 1)).astype(np.uint8))


def _methods(methods: Method | Sequence[Method]) -> list[Any]:
    known = available_methods()
    several = [methods] if isinstance(methods, str | type) else methods
    if "all" in several:
        return list(dict.fromkeys(known.values()))
    for method in several:
        if isinstance(method, str) and method not in known:
            raise ValueError(f"no method is called {method!r}: choose from {', '.join(sorted(known))}, or all")
    return [known[method] if isinstance(method, str) else method for method in several]


def _targets(targets: Any, scores: np.ndarray, names: Sequence[str], top: int) -> list[Any]:
    """The targets as class numbers and callables."""
    if targets is None:
        highest: list[Any] = np.argsort(-scores, kind="stable")[:top].tolist()
        return highest
    several = targets if isinstance(targets, list | tuple) else [targets]
    return [category_called(target, names) if isinstance(target, str) else target for target in several]


def _described(target: Any, probabilities: np.ndarray, names: Sequence[str]) -> tuple[int | None, str, float | None]:
    """A target's class number, name and probability; of a callable only the name."""
    if type(target) is ClassifierOutputTarget:
        target = target.category
    if callable(target):
        name = getattr(target, "__name__", repr(target))
        return None, name, None
    return int(target), names[target], float(probabilities[target])
