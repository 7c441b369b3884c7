"""The maps of a batch, and what the manifest tells about them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from pytorch_grad_cam.engine.cam_warning import CamWarning, warnings_kept
from pytorch_grad_cam.engine.layers import names_of
from pytorch_grad_cam.zoo.classifiers import Classifier

_TOP_CLASSES = 5


class Explained(NamedTuple):
    """The maps (K, H, W) of one image for the classes `targets`, and what is told about them.

    layers: their names. probabilities: those of all classes. top_classes: the numbers of the highest. warnings: why
    maps are blank.
    """

    maps: np.ndarray
    targets: list[int]
    layers: list[str]
    probabilities: list[float]
    top_classes: list[int]
    warnings: list[str]


def explain_batch(
    cam: Any, classifier: Classifier, x: torch.Tensor, categories: Sequence[int] = (), **smoothing: bool
) -> list[Explained]:
    """The maps of the images x (N, C, H, W), on the model's device, and what is told about them.

    categories: the classes to explain, the same for all images; () takes each image's highest. smoothing: options of
    the CAM's call. Cost: that of one call of the CAM.
    """
    with warnings_kept(shown=False) as issued:
        maps = _maps(cam, x, categories, smoothing).cpu().numpy()
    scores = cam.outputs.float()
    probabilities = classifier.probabilities(scores).tolist()
    top_classes = scores.argsort(descending=True, stable=True)[:, :_TOP_CLASSES].tolist()
    layers = names_of(cam.model, cam.target_layers)
    return [
        Explained(
            maps[sample],
            list(categories) or top_classes[sample][:1],
            layers,
            probabilities[sample],
            top_classes[sample],
            [] if maps[sample].any((1, 2)).all() else _reasons(issued, sample),
        )
        for sample in range(len(x))
    ]


def _maps(cam: Any, x: torch.Tensor, categories: Sequence[int], smoothing: dict[str, bool]) -> torch.Tensor:
    """The maps (N, K, H, W)."""
    if not categories:
        maps: torch.Tensor = cam(x, as_tensor=True, **smoothing)[:, None]
    else:
        maps = cam(x, [list(categories)] * len(x), as_tensor=True, **smoothing)
    return maps


def _reasons(issued: list[CamWarning], sample: int) -> list[str]:
    return list(dict.fromkeys(f"the map is blank: {warning.reason}" for warning in issued if sample in warning.samples))
