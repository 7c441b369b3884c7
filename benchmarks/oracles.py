"""The papers' formulas, literally, in float64 loops over images, channels and positions; nothing of the library.

An oracle gets a model, its target layer, one image and a class, and returns the signed map before the final ReLU.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import nn

ORACLES: dict[str, Callable] = {}


def oracle(method: str) -> Callable:
    def register(function: Callable) -> Callable:
        ORACLES[method] = function
        return function

    return register


def activation_and_gradient(
    model: nn.Module, layer: nn.Module, image: torch.Tensor, category: int | Callable
) -> tuple[np.ndarray, np.ndarray]:
    """A (C, *spatial) and d score / d A by a plain backward through the whole model.

    category: a class, or the score as a function of the logits.
    """
    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits = model(image[None])[0]
    score = category(logits) if callable(category) else logits[category]
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
    """By a full SVD of (positions, channels), channels centred."""
    matrix = np.array([[values[k][p] for k in range(len(values))] for p in positions(values)])
    matrix = matrix - matrix.mean(axis=0)
    _, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return with_sign(matrix @ vt[0], matrix).reshape(values.shape[1:])


def with_sign(projection: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Agrees with the sum over the channels; where that hardly says anything, the strongest value is positive."""
    agreement = sum(projection[p] * sum(row) for p, row in enumerate(matrix))
    if abs(agreement) <= 1e-4 * sum(abs(projection[p]) * sum(abs(row)) for p, row in enumerate(matrix)):
        agreement = projection.max() + projection.min()
    return -projection if agreement < 0 else projection


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


def softmax_of(scores):
    exponentials = [np.exp(score - max(scores)) for score in scores]
    return [each / sum(exponentials) for each in exponentials]


def mask_of(channel, size):
    """A channel enlarged to the image with aligned corners, and scaled to [0, 1]."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[channel.ndim]
    large = nn.functional.interpolate(torch.from_numpy(channel)[None, None], size=size, mode=mode, align_corners=True)
    mask = large[0, 0].numpy()
    span = mask.max() - mask.min()
    return (mask - mask.min()) / span if span > 0 else np.zeros_like(mask)


def score_of(model, image, category):
    with torch.no_grad():
        return model(image[None])[0, category].item()


@oracle("ScoreCAM")
def score_cam(model, layer, image, category):
    a, _ = activation_and_gradient(model, layer, image, category)
    masks = [torch.from_numpy(mask_of(channel, image.shape[1:])) for channel in a]
    return weighted_sum(softmax_of([score_of(model, image * mask, category) for mask in masks]), a)


@oracle("SSCAM")
def ss_cam(model, layer, image, category):
    """Of each channel the mean score over noisy masks; the noises are drawn one after the other from a generator."""
    a, _ = activation_and_gradient(model, layer, image, category)
    generator = torch.Generator().manual_seed(0)
    size = image.shape[1:]
    noises = [
        torch.randn(size, generator=generator, dtype=torch.float64).numpy() for _ in range(OPTIONS["SSCAM"]["samples"])
    ]
    scores = []
    for channel in a:
        mask = mask_of(channel, size)
        if channel.max() == channel.min():
            scores.append(score_of(model, image * 0, category))
        else:
            shown = [image * torch.from_numpy(mask + 2.0 * noise) for noise in noises]
            scores.append(sum(score_of(model, each, category) for each in shown) / len(noises))
    return weighted_sum(softmax_of(scores), a)


@oracle("ISCAM")
def is_cam(model, layer, image, category, steps=10):
    """Of each channel the mean score over masks that grow by 1/10, 2/10, 3/10 and so on."""
    a, _ = activation_and_gradient(model, layer, image, category)
    scores = []
    for channel in a:
        mask, strength, total = torch.from_numpy(mask_of(channel, image.shape[1:])), 0.0, 0.0
        for step in range(1, steps + 1):
            strength += step / steps
            total += score_of(model, image * mask * strength, category)
        scores.append(total / steps)
    return weighted_sum(softmax_of(scores), a)


@oracle("GScoreCAM")
def gscore_cam(model, layer, image, category):
    """Scored are the half of the channels with the highest mean gradients; the others count as blank images."""
    a, g = activation_and_gradient(model, layer, image, category)
    importance = [sum(g[k][p] for p in positions(a)) / a[k].size for k in range(len(a))]
    chosen = sorted(range(len(a)), key=lambda k: -importance[k])[: len(a) // 2]
    scores = []
    for k, channel in enumerate(a):
        shown = torch.from_numpy(mask_of(channel, image.shape[1:])) if k in chosen else 0.0
        scores.append(score_of(model, image * shown, category))
    return weighted_sum(softmax_of(scores), a)


@oracle("GroupCAM")
def group_cam(model, layer, image, category):
    """Groups of neighbouring channels; a Gaussian of 51 pixels with sigma 50, the border repeated."""
    a, g = activation_and_gradient(model, layer, image, category)
    size = -(-len(a) // OPTIONS["GroupCAM"]["groups"])
    kernel = np.exp(-(np.arange(-25, 26) ** 2) / (2 * 50**2))
    background = image.numpy()
    for axis in range(1, image.ndim):
        padded = np.pad(background, [(25, 25) if other == axis else (0, 0) for other in range(image.ndim)], mode="edge")
        length = image.shape[axis]
        background = sum(w * padded.take(range(i, i + length), axis) for i, w in enumerate(kernel / kernel.sum()))
    background = torch.from_numpy(background)

    def probability(shown):
        with torch.no_grad():
            return softmax_of(model(shown[None])[0].tolist())[category]

    total = np.zeros(a.shape[1:])
    for start in range(0, len(a), size):
        mask = np.zeros(a.shape[1:])
        for k in range(start, min(start + size, len(a))):
            alpha = sum(g[k][p] for p in positions(a)) / a[k].size
            for p in positions(a):
                mask[p] += alpha * a[k][p]
        mask = np.maximum(mask, 0)
        threshold = np.percentile(mask, 70)
        mask = np.where(mask > threshold, mask, 0)
        if mask.max() == 0:
            continue
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        large = torch.from_numpy(enlarged(mask, image.shape[1:]))
        total += (probability(image * large + background * (1 - large)) - probability(background)) * mask
    return total


@oracle("SmoothGradCAMPlusPlus")
def smooth_grad_cam_plusplus(model, layer, image, category, samples=4, std=0.3):
    a, _ = activation_and_gradient(model, layer, image, category)
    generator = torch.Generator().manual_seed(0)
    powers = {1: np.zeros_like(a), 2: np.zeros_like(a), 3: np.zeros_like(a)}
    for _ in range(samples):
        noise = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        _, g = activation_and_gradient(model, layer, image + std * noise, category)
        for power, mean in powers.items():
            mean += g**power / samples
    weights = []
    for k in range(len(a)):
        total, weight = sum(a[k][p] for p in positions(a)), 0.0
        for p in positions(a):
            denominator = 2 * powers[2][k][p] + total * powers[3][k][p]
            if denominator != 0:
                weight += powers[2][k][p] / denominator * max(powers[1][k][p], 0)
        weights.append(weight)
    return weighted_sum(weights, a)


@oracle("HiResCAM")
def hi_res_cam(model, layer, image, category):
    a, g = activation_and_gradient(model, layer, image, category)
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for p in positions(a):
            total[p] += g[k][p] * a[k][p]
    return total


@oracle("SegXResCAM")
def seg_xres_cam(model, layer, image, category):
    """The highest gradient of each window of 2 cells along each axis, the last ones cut off; enlarged linearly."""
    a, g = activation_and_gradient(model, layer, image, category)
    size = a.shape[1:]
    total = np.zeros(size)
    for k in range(len(a)):
        windows = np.full([(length + 1) // 2 for length in size], -np.inf)
        for p in positions(a):
            window = tuple(at // 2 for at in p)
            windows[window] = max(windows[window], g[k][p])
        pooled = enlarged(windows, size)
        for p in positions(a):
            total[p] += pooled[p] * a[k][p]
    return total


@oracle("GradCAMElementWise")
def grad_cam_elementwise(model, layer, image, category):
    a, g = activation_and_gradient(model, layer, image, category)
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for p in positions(a):
            total[p] += max(g[k][p] * a[k][p], 0)
    return total


@oracle("FEM")
def fem(model, layer, image, category, k_sigma=2):
    a, _ = activation_and_gradient(model, layer, image, category)
    total = np.zeros(a.shape[1:])
    for channel in a:
        values = [channel[p] for p in positions(a)]
        mean = sum(values) / len(values)
        deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
        for p in positions(a):
            if channel[p] > mean + k_sigma * deviation:
                total[p] += mean
    return total


@oracle("SegEigenCAM")
def seg_eigen_cam(model, layer, image, category):
    a, g = activation_and_gradient(model, layer, image, category)
    component = first_component(abs(g) * a)
    return -component if abs(component.min()) > abs(component.max()) else component


@oracle("KPCA_CAM")
def kpca_cam(model, layer, image, category):
    """Sigmoid kernel tanh(x y / C + 1), centred in feature space entry by entry; the leading eigenvector by LAPACK."""
    a, _ = activation_and_gradient(model, layer, image, category)
    rows = np.array([[channel[p] for channel in a] for p in positions(a)])
    rows = rows - rows.mean(axis=0)
    n = len(rows)
    kernel = [[np.tanh(rows[i] @ rows[j] / len(a) + 1) for j in range(n)] for i in range(n)]
    of_row = [sum(row) / n for row in kernel]
    of_all = sum(of_row) / n
    centred = [[kernel[i][j] - of_row[i] - of_row[j] + of_all for j in range(n)] for i in range(n)]
    values, vectors = np.linalg.eigh(np.array(centred))
    projection = vectors[:, -1] * values[-1] ** 0.5
    return with_sign(projection, rows).reshape(a.shape[1:])


@oracle("RandomCAM")
def random_cam(model, layer, image, category):
    """The documented draws: uniform in [-1, 1) from a generator with the seed."""
    a, _ = activation_and_gradient(model, layer, image, category)
    draws = torch.rand(1, len(a), generator=torch.Generator().manual_seed(0))[0]
    return weighted_sum([2 * float(draw) - 1 for draw in draws], a)


@oracle("ShapleyCAM")
def shapley_cam(model, layer, image, category):
    """The whole Hessian of the score with respect to the layer's output, entry by entry."""
    a, g = activation_and_gradient(model, layer, image, category)

    def score(flat):
        handle = layer.register_forward_hook(lambda module, inputs, output: flat.reshape(output.shape))
        logit = model(image[None])[0, category]
        handle.remove()
        return logit

    flat = a.reshape(-1)
    hessian = torch.autograd.functional.hessian(score, torch.from_numpy(flat)).numpy()
    product = np.array([sum(row[j] * flat[j] for j in range(len(flat))) for row in hessian]).reshape(a.shape)
    weights = [sum(g[k][p] - product[k][p] / 2 for p in positions(a)) / a[0].size for k in range(len(a))]
    return weighted_sum(weights, a)


@oracle("ReciproCAM")
def recipro_cam(model, layer, image, category):
    """The probability of the class where the layer keeps one cell of all channels and all other cells are zero."""
    a, _ = activation_and_gradient(model, layer, image, category)
    total = np.zeros(a.shape[1:])
    for p in positions(a):
        alone = np.zeros_like(a)
        for k in range(len(a)):
            alone[k][p] = a[k][p]
        handle = layer.register_forward_hook(
            lambda module, inputs, output, alone=alone: torch.from_numpy(alone)[None].to(output)
        )
        with torch.no_grad():
            logits = model(image[None])[0].numpy()
        handle.remove()
        exponentials = [np.exp(logit - max(logits)) for logit in logits]
        total[p] = exponentials[category] / sum(exponentials)
    return total


@oracle("LayerIntegratedGradients")
def layer_integrated_gradients(model, layer, image, category, steps=16):
    """Gradients at the middles of 16 parts of the way from zero to the layer's output."""
    a, _ = activation_and_gradient(model, layer, image, category)
    total = np.zeros_like(a)
    for step in range(steps):
        shown = torch.from_numpy(a * (step + 0.5) / steps)[None].requires_grad_()
        handle = layer.register_forward_hook(lambda module, inputs, output, shown=shown: shown.clone())
        score = model(image[None])[0, category]
        handle.remove()
        total += torch.autograd.grad(score, shown)[0][0].numpy() / steps
    result = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for p in positions(a):
            result[p] += total[k][p] * a[k][p]
    return result


@oracle("CAM")
def cam(model, layer, image, category):
    """The class's row of the last linear layer."""
    a, _ = activation_and_gradient(model, layer, image, category)
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    return weighted_sum(head.weight[category].tolist(), a)


@oracle("SSGradCAM")
def ss_grad_cam(model, layer, image, category):
    a, g = activation_and_gradient(model, layer, image, category)
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        alpha = sum(g[k][p] for p in positions(a)) / a[k].size
        highest = max(abs(g[k][p]) for p in positions(a))
        for p in positions(a):
            total[p] += alpha * (abs(g[k][p]) / highest if highest > 0 else 0) * a[k][p]
    return total


@oracle("ODAM")
def odam(model, layer, image, category, sigma=1, reach=3):
    """Each position's gradient is a sum over its neighbours on every axis, the border repeated."""
    a, g = activation_and_gradient(model, layer, image, category)
    offsets = list(itertools.product(range(-reach, reach + 1), repeat=a.ndim - 1))
    shares = {offset: np.exp(-sum(step**2 for step in offset) / (2 * sigma**2)) for offset in offsets}
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for p in positions(a):
            smoothed = 0.0
            for offset, share in shares.items():
                neighbour = tuple(
                    min(max(i + step, 0), size - 1) for i, step, size in zip(p, offset, a.shape[1:], strict=True)
                )
                smoothed += share / sum(shares.values()) * g[k][neighbour]
            total[p] += smoothed * a[k][p]
    return total


@oracle("LIFTCAM")
def lift_cam(model, layer, image, category):
    """DeepLIFT by hand: module by module back from the score, both runs side by side."""
    a, _ = activation_and_gradient(model, layer, image, category)
    modules = list(model)
    behind = modules[next(place for place, module in enumerate(modules) if module is layer) + 1 :]
    here, reference = [torch.from_numpy(a)[None]], [torch.zeros_like(torch.from_numpy(a))[None]]
    with torch.no_grad():
        for module in behind:
            here.append(module(here[-1]))
            reference.append(module(reference[-1]))
    multiplier = torch.zeros_like(here[-1])
    multiplier[0, category] = 1
    for place, module in reversed(list(enumerate(behind))):
        x, x0, y, y0 = here[place], reference[place], here[place + 1], reference[place + 1]
        if isinstance(module, nn.ReLU | nn.Tanh):
            for p in itertools.product(*map(range, x.shape)):
                if x[p] == x0[p]:
                    slope = float(x[p] > 0) if isinstance(module, nn.ReLU) else 1 - float(y[p]) ** 2
                else:
                    slope = float((y[p] - y0[p]) / (x[p] - x0[p]))
                multiplier[p] *= slope
        else:  # affine: its transpose
            leaf = x.clone().requires_grad_()
            (multiplier,) = torch.autograd.grad(module(leaf), leaf, multiplier)
    m = multiplier[0].numpy()
    return weighted_sum([sum(m[k][p] * a[k][p] for p in positions(a)) for k in range(len(a))], a)


@oracle("FullGrad")
def full_grad(model, layer, image, category):
    """psi of input x gradient and of each convolution's bias x gradient at its output; channels resized one by one."""
    kept = {}
    layers = [module for module in model.modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    handles = [
        module.register_forward_hook(lambda module, inputs, output: kept.__setitem__(module, output) or output.clone())
        for module in layers
    ]
    x = image[None].clone().requires_grad_()
    score = model(x)[0, category]
    for handle in handles:
        handle.remove()
    gradient, *gradients = torch.autograd.grad(score, [x, *(kept[module] for module in layers)])
    contributions = [(gradient * x)[0].detach().numpy()]
    for module, at_output in zip(layers, gradients, strict=True):
        contributions.append(
            np.stack([float(b) * channel.numpy() for b, channel in zip(module.bias, at_output[0], strict=True)])
        )
    total = np.zeros(image.shape[1:])
    for contribution in contributions:
        magnitude = abs(contribution)
        for channel in (magnitude - magnitude.min()) / (magnitude.max() - magnitude.min()):
            total += enlarged(channel, image.shape[1:])
    return total


@oracle("PathCAM")
def path_cam(model, layer, image, category):
    """Of modules one behind the other; Grad-CAM alone where none is in front. What is rectified next is left out."""
    size = image.shape[1:]
    of_class = np.maximum(grad_cam(model, layer, image, category), 0)
    of_class = (of_class - of_class.min()) / (of_class.max() - of_class.min())
    modules = list(model.children())
    in_front = [
        module
        for number, module in enumerate(modules[: modules.index(layer)])
        if not isinstance(modules[number + 1], nn.ReLU)
    ]
    if not in_front:
        return grad_cam(model, layer, image, category)
    mean = np.zeros(size)
    for module in in_front:
        a, g = activation_and_gradient(model, module, image, category)
        of_module = np.zeros(a.shape[1:])
        for k in range(len(a)):
            for p in positions(a):
                of_module[p] += max(g[k][p], 0) * max(a[k][p], 0)
        mean += finished_map(of_module, size) / len(in_front)
    found = (enlarged(of_class, size) * mean) ** 2
    for axis, cells in enumerate(of_class.shape):
        sigma = 0.25 * size[axis] / cells
        found = gaussian_filter1d(found, sigma, axis, mode="nearest", radius=math.ceil(3 * sigma))
    return found


@oracle("FinerCAM")
def finer_cam(model, layer, image, category):
    """Grad-CAM of the mean of y^c - y^d over the three classes d with the closest logits, weighted by probability."""
    with torch.no_grad():
        logits = model(image[None])[0]
    others = sorted((d for d in range(len(logits)) if d != category), key=lambda d: abs(logits[d] - logits[category]))[
        :3
    ]

    def score(y):
        probabilities = [torch.exp(y[d]) / sum(torch.exp(v) for v in y) for d in others]
        return sum(p * (y[category] - y[d]) for p, d in zip(probabilities, others, strict=True)) / sum(probabilities)

    return grad_cam(model, layer, image, score)


@oracle("RefineCAM")
def refine_cam(model, layer, image, category):
    """Of one layer it is Grad-CAM++; the product over several is in test_meta."""
    return grad_cam_plusplus(model, layer, image, category)


@oracle("SESS")
def sess(model, layer, image, category):
    """Two scales, 1 and 9/7 of the shortest side; square windows of that side; mean where positive; Gaussian blur."""
    size = image.shape[1:]
    side = min(size)
    windows = []
    for scale in (side, side + round(side * 2 / 7)):
        scaled = tuple(int(scale * length / side) for length in size)
        x = enlarged(image, scaled)
        starts = [sorted({*range(0, length - side, side), length - side}) for length in scaled]
        for start in itertools.product(*starts):
            cut = (slice(None), *(slice(s, s + side) for s in start))
            with torch.no_grad():
                score = model(x[cut][None])[0].softmax(0)[category].item()
            windows.append(
                (start, scaled, score, finished_map(grad_cam(model, layer, x[cut], category), (side,) * len(size)))
            )
    highest = max(score for _, _, score, _ in windows)
    total, count = np.zeros(size), np.zeros(size)
    for start, scaled, score, window_map in windows:
        canvas = np.zeros(scaled)
        canvas[tuple(slice(s, s + side) for s in start)] = window_map * score / highest
        pasted = enlarged(canvas, size)
        for p in itertools.product(*map(range, size)):
            if pasted[p] > 0:
                total[p] += pasted[p]
                count[p] += 1
    joined = np.divide(total, count, out=np.zeros(size), where=count > 0)
    kernel = np.exp(-(np.arange(-5, 6) ** 2) / 50)
    kernel /= kernel.sum()
    for axis in range(len(size)):
        padded = np.pad(joined, [(5, 5) if other == axis else (0, 0) for other in range(len(size))], mode="reflect")
        joined = sum(w * padded.take(range(i, i + size[axis]), axis) for i, w in enumerate(kernel))
    return joined


@oracle("RISE")
def rise(model, layer, image, category):
    """Less the mean of the scores; each position of a mask lies between 2 ** rank nodes of its grid."""
    size, cells, count = image.shape[1:], 8, OPTIONS["RISE"]["masks"]
    generator = torch.Generator().manual_seed(0)
    nodes = (torch.rand(count, *[cells + 2] * len(size), generator=generator) < 0.5).numpy()
    shifts = torch.rand(count, len(size), generator=generator).tolist()
    masks = np.zeros((count, *size))
    for number in range(count):
        for p in itertools.product(*map(range, size)):
            places = [(p[a] + 0.5) / size[a] * cells + shifts[number][a] for a in range(len(size))]
            for corner in itertools.product((0, 1), repeat=len(size)):
                node = tuple(int(place) + c for place, c in zip(places, corner, strict=True))
                weight = 1.0
                for place, c in zip(places, corner, strict=True):
                    weight *= place - int(place) if c else 1 - (place - int(place))
                if nodes[(number, *node)]:
                    masks[(number, *p)] += weight
    with torch.no_grad():
        scores = [model((image * torch.from_numpy(mask))[None])[0, category].item() for mask in masks]
    total = np.zeros(size)
    for score, mask in zip(scores, masks, strict=True):
        total += (score - sum(scores) / count) * mask
    return total


OPTIONS = {
    "SESS": {"num_scales": 2},
    "RandomCAM": {"seed": 0},
    "RISE": {"masks": 20},
    "SSCAM": {"samples": 3},
    "GScoreCAM": {"share": 0.5},
    "GroupCAM": {"groups": 5},
}


def enlarged(values, size):
    """Linear interpolation to `size` of a map (*spatial), or of the channels of an image tensor (C, *spatial)."""
    channels = torch.as_tensor(values)[None] if isinstance(values, np.ndarray) else values
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    result = nn.functional.interpolate(channels[None], size=tuple(size), mode=mode, align_corners=False)[0]
    return result[0].numpy() if isinstance(values, np.ndarray) else result


def finished_map(signed: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """ReLU, scale to [0, 1], enlarge linearly, scale again."""

    def scaled(values):
        span = values.max() - values.min()
        return (values - values.min()) / span if span > 0 else values * 0

    return scaled(enlarged(scaled(np.maximum(signed, 0)), size))
