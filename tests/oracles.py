"""The papers' formulas, literally, in float64 loops over images, channels and positions; nothing of the library.

An oracle gets a model, its target layer, one image and a class, and returns the signed map before the final ReLU.
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

ORACLES: dict[str, Callable] = {}


def oracle(method: str) -> Callable:
    def register(function: Callable) -> Callable:
        ORACLES[method] = function
        return function

    return register


def activation_and_gradient(
    model: nn.Module, layer: nn.Module, image: torch.Tensor, category: int
) -> tuple[np.ndarray, np.ndarray]:
    """A (C, *spatial) and d score / d A by a plain backward through the whole model."""
    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    score = model(image[None])[0, category]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    return kept[0][0].detach().numpy(), gradient[0].numpy()


def positions(array: np.ndarray) -> itertools.product:
    return itertools.product(*map(range, array.shape[1:]))


def weighted_sum(weights: list[float], activations: np.ndarray) -> np.ndarray:
    """L = sum_k w_k A^k."""
    total = np.zeros(activations.shape[1:])
    for k in range(len(activations)):
        for p in positions(activations):
            total[p] += weights[k] * activations[k][p]
    return total


@oracle("GradCAM")
def grad_cam(model, layer, image, category):
    a, g = activation_and_gradient(model, layer, image, category)
    z = a[0].size
    weights = [sum(g[k][p] for p in positions(a)) / z for k in range(len(a))]
    return weighted_sum(weights, a)


@oracle("GradCAMPlusPlus")
def grad_cam_plusplus(model, layer, image, category):
    a, g = activation_and_gradient(model, layer, image, category)
    weights = []
    for k in range(len(a)):
        total = sum(a[k][p] for p in positions(a))
        weight = 0.0
        for p in positions(a):
            if g[k][p] != 0:
                alpha = g[k][p] ** 2 / (2 * g[k][p] ** 2 + total * g[k][p] ** 3)
                weight += alpha * max(g[k][p], 0)
        weights.append(weight)
    return weighted_sum(weights, a)


@oracle("XGradCAM")
def xgrad_cam(model, layer, image, category):
    a, g = activation_and_gradient(model, layer, image, category)
    weights = []
    for k in range(len(a)):
        total = sum(a[k][p] for p in positions(a))
        weights.append(sum(a[k][p] / total * g[k][p] for p in positions(a)) if total != 0 else 0.0)
    return weighted_sum(weights, a)


@oracle("LayerCAM")
def layer_cam(model, layer, image, category):
    a, g = activation_and_gradient(model, layer, image, category)
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for p in positions(a):
            total[p] += max(g[k][p], 0) * a[k][p]
    return total


def first_component(values: np.ndarray) -> np.ndarray:
    """By a full SVD of (positions, channels), channels centred; its sign agrees with the sum over the channels."""
    matrix = np.array([[values[k][p] for k in range(len(values))] for p in positions(values)])
    matrix = matrix - matrix.mean(axis=0)
    _, _, vt = np.linalg.svd(matrix, full_matrices=False)
    projection = matrix @ vt[0]
    if projection @ matrix.sum(axis=1) < 0:
        projection = -projection
    return projection.reshape(values.shape[1:])


@oracle("EigenCAM")
def eigen_cam(model, layer, image, category):
    a, _ = activation_and_gradient(model, layer, image, category)
    return first_component(a)


@oracle("EigenGradCAM")
def eigen_grad_cam(model, layer, image, category):
    a, g = activation_and_gradient(model, layer, image, category)
    return first_component(a * g)


@oracle("AblationCAM")
def ablation_cam(model, layer, image, category):
    a, _ = activation_and_gradient(model, layer, image, category)
    with torch.no_grad():
        score = model(image[None])[0, category].item()
        weights = []
        for k in range(len(a)):

            def without_channel(module, inputs, output, k=k):
                output = output.clone()
                output[:, k] = 0
                return output

            handle = layer.register_forward_hook(without_channel)
            ablated = model(image[None])[0, category].item()
            handle.remove()
            weights.append((score - ablated) / abs(score))
    return weighted_sum(weights, a)


@oracle("ScoreCAM")
def score_cam(model, layer, image, category):
    a, _ = activation_and_gradient(model, layer, image, category)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[a.ndim - 1]
    scores = []
    for k in range(len(a)):
        channel = torch.from_numpy(a[k])[None, None]
        mask = nn.functional.interpolate(channel, size=image.shape[1:], mode=mode, align_corners=True)[0, 0]
        span = mask.max() - mask.min()
        mask = (mask - mask.min()) / span if span > 0 else torch.zeros_like(mask)
        with torch.no_grad():
            scores.append(model((image * mask)[None])[0, category].item())
    exponentials = [np.exp(s - max(scores)) for s in scores]
    return weighted_sum([e / sum(exponentials) for e in exponentials], a)


def finished_map(signed: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """ReLU, scale to [0, 1], enlarge linearly, scale again."""

    def scaled(values):
        span = values.max() - values.min()
        return (values - values.min()) / span if span > 0 else values * 0

    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[signed.ndim]
    coarse = torch.from_numpy(scaled(np.maximum(signed, 0)))[None, None]
    return scaled(nn.functional.interpolate(coarse, size=size, mode=mode, align_corners=False)[0, 0].numpy())
