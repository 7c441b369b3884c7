"""Deep Feature Factorization (Collins, Achanta & Suesstrunk 2018, arXiv:1806.10206)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from pytorch_grad_cam.engine.capture import Capture
from pytorch_grad_cam.engine.inputs import on_device_of
from pytorch_grad_cam.engine.layers import resolve_layers
from pytorch_grad_cam.engine.layouts import channels_first
from pytorch_grad_cam.engine.maps import check_shape, full_precision
from pytorch_grad_cam.engine.optional_packages import needing
from pytorch_grad_cam.engine.trees import first_tensor, to_array
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.wrappers import unwrapped
from pytorch_grad_cam.registration.registration import Alignment, aligned, checked_alignment
from pytorch_grad_cam.utils.image import create_labels_legend, scale_cam_image, show_factorization_on_image

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Self


def dff(activations: np.ndarray, n_components: int = 5) -> tuple[np.ndarray, np.ndarray]:
    r"""Concepts W and their maps H with $A \approx W H$, by non-negative matrix factorisation over all images.

    activations: (N, C, *spatial); NaN counts as zero, and every channel is shifted to start at zero and back.
    Returns the concepts (C, n_components) and their maps (N, n_components, *spatial). Needs scikit-learn.
    """
    with needing("scikit-learn", "concepts"):
        from sklearn.decomposition import NMF

    by_channel = np.moveaxis(np.nan_to_num(activations), 1, 0)
    matrix = by_channel.reshape(len(by_channel), -1)
    lowest = matrix.min(axis=1, keepdims=True)
    factorisation = NMF(n_components=n_components, init="random", random_state=0)
    concepts = factorisation.fit_transform(matrix - lowest) + lowest
    explanations = factorisation.components_.reshape(n_components, *by_channel.shape[1:])
    return concepts, np.moveaxis(explanations, 0, 1)


class DeepFeatureFactorization:
    """The concepts that a layer's activations are composed of, and a map of each.

    target_layer: a module of the model or its dotted name. reshape_transform, align: as in a CAM.
    computation_on_concepts: called with the concepts (n_components, C), for instance the model's classifier.

    When to take it: to see which concepts a layer knows and where they are, without a target. Not to explain one
    score.
    Paper: Collins, Achanta & Suesstrunk 2018, https://arxiv.org/abs/1806.10206.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        computation_on_concepts: Callable[[torch.Tensor], torch.Tensor] | None = None,
        *,
        align: Alignment = "cell",
    ) -> None:
        self.model = unwrapped(model)
        self.align = checked_alignment(align)
        self.computation_on_concepts = computation_on_concepts
        layers = resolve_layers(self.model, target_layer)
        self.activations_and_grads = ActivationsAndGradients(self.model, layers, reshape_transform)

    def __call__(self, input_tensor: torch.Tensor, n_components: int = 16) -> tuple[Any, ...]:
        """Factorise the activations of a batch (N, C, *spatial), all images together.

        Returns the concepts (channels, n_components); for each image its maps (n_components, *spatial), float32 in
        [0, 1] at the input's size; and the result of `computation_on_concepts`, an array, where there is one.
        Cost: one forward and, on the host, the factorisation.
        """
        hooks = self.activations_and_grads
        with undisturbed(self.model), torch.no_grad():
            input_tensor = on_device_of(self.model, input_tensor)
            with Capture(self.model, hooks.target_layers, gradients=False) as capture:
                capture.run(input_tensor)
                activations = (hooks.reshape_transform or first_tensor)(capture.runs[0][1])
            check_shape(activations, input_tensor)
            concepts, explanations = dff(to_array(full_precision(activations)), n_components)
            size = tuple(input_tensor.shape[2:])[::-1]
            grid = explanations.shape[2:]
            as_map = hooks.reshape_transform or channels_first((1, 1, *grid)).of_output
            align = self.align
            if align != "cell":
                align = aligned(align, self.model, hooks.target_layers[0], input_tensor, as_map, None, grid)
            maps = [scale_cam_image(image, size, align) for image in explanations]
            if self.computation_on_concepts is None:
                return concepts, maps
            outputs = self.computation_on_concepts(torch.from_numpy(concepts.T).to(activations))
        return concepts, maps, to_array(full_precision(outputs))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.activations_and_grads.release()


def run_dff_on_image(
    model: nn.Module,
    target_layer: nn.Module | str,
    classifier: Callable[[torch.Tensor], torch.Tensor],
    img_pil: Image,
    img_tensor: torch.Tensor,
    reshape_transform: Callable[[Any], torch.Tensor] | None = None,
    n_components: int = 5,
    top_k: int = 2,
) -> np.ndarray:
    """A picture of one image beside its concepts and their classes: uint8 (H, 3 * W, 3).

    classifier: from concepts (n_components, C) to logits. img_pil: the picture, of the size of img_tensor (C, H, W).
    The classes' names are those of `model.config.id2label` (transformers) where it has all of them, else numbers.
    """
    with DeepFeatureFactorization(model, target_layer, reshape_transform, classifier) as factorisation:
        _, explanations, logits = factorisation(img_tensor[None], n_components)
    scores = torch.from_numpy(logits).softmax(-1).numpy()
    picture = np.asarray(img_pil.convert("RGB"))
    legend = create_labels_legend(scores, _labels(model, scores.shape[1]), top_k)
    shown = show_factorization_on_image(picture, explanations[0], image_weight=0.3, concept_labels=legend)
    return np.hstack((picture, shown))


def _labels(model: Any, classes: int) -> dict[int, str]:
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    return names if len(names) == classes else {index: f"class {index}" for index in range(classes)}
