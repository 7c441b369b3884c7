"""Maps of this package for the metrics of Quantus (Hedstroem et al. 2023, arXiv:2202.06861)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.engine.inputs import model_device
from pytorch_grad_cam.explanations.arguments import for_constructor
from pytorch_grad_cam.explanations.explainer import uses_layers
from pytorch_grad_cam.explanations.methods import methods_of


def quantus_explainer(method: Any = "gradcam", layers: Any = None, **options: Any) -> Callable[..., np.ndarray]:
    """A function that Quantus takes as `explain_func`: from a model, images and classes to maps (N, 1, *spatial).

    method: a class or a name, as for `explain`. layers: names are found in the copies of the model, too, whose
    parameters Quantus randomises; modules are not. None has one found. options: for the method's constructor.
    Quantus itself is not needed. The function raises ValueError for layers that are modules of another model, and what
    the method raises. Cost: making the method's object and one call of it, each time.

    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net, preprocess_scene
    >>> explain_func = quantus_explainer("layercam", "layer4")
    >>> images = preprocess_scene(example_scene()).numpy()
    >>> explain_func(model=load_digits_net(), inputs=images, targets=np.array([5])).shape
    (1, 1, 64, 64)
    """
    (chosen,) = methods_of(method)
    made = for_constructor(chosen, options)

    def explain_func(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        images = torch.as_tensor(inputs, dtype=_precision(model), device=model_device(model))
        classes = np.asarray(targets).reshape(-1).astype(int).tolist()
        with chosen(model, layers if uses_layers(chosen) else [], **made) as cam:
            maps: np.ndarray = cam(images, classes)
        return maps[:, None]

    return explain_func


def _precision(model: nn.Module) -> torch.dtype:
    return next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)
