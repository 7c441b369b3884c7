"""Metrics of other libraries on given cases, each in its own environment: `python metrics_of_peers.py LIBRARY FILE`.

Nothing of this package is imported here. It is also where the network, the explanation and the draws are made that both
sides use.
"""

import sys
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from torch import nn

SIZE = (12, 16)
IMAGES = 3
CLASSES = 2  # so that there is one other class
STEPS, SAMPLES, RADIUS, NOISE, BINS, TOP = 6, 4, 0.3, 0.5, 20, 15


def network(seed):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 8, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES)).eval()


def case(seed):
    """Images, classes, maps, boxes and masks."""
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.normal(size=(IMAGES, 3, *SIZE)).astype(np.float32))
    maps = rng.random((IMAGES, *SIZE)).astype(np.float32)
    left, top = rng.integers(0, 10, IMAGES), rng.integers(0, 7, IMAGES)
    boxes = np.stack([left, top, left + rng.integers(2, 6, IMAGES), top + rng.integers(2, 5, IMAGES)], axis=1)
    masks = np.zeros((IMAGES, *SIZE), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return images, rng.integers(0, CLASSES, IMAGES), maps, masks


def saliency(model, images, classes):
    """|input x gradient|, the sum over the channels: (N, H, W)."""
    x = torch.as_tensor(images).detach().clone().requires_grad_()
    with torch.enable_grad():
        score = model(x)[torch.arange(len(x)), torch.as_tensor(classes)].sum()
        (gradient,) = torch.autograd.grad(score, x)
    return (x * gradient).abs().sum(1).detach()


def draws(draw, seed):
    generator = torch.Generator().manual_seed(seed)
    return [draw((3, *SIZE), generator=generator) for _ in range(SAMPLES)]


def of_quantus(seed):
    import quantus

    model = network(seed)
    images, classes, maps, masks = case(seed)
    common = {"abs": False, "normalise": False, "disable_warnings": True}
    given = {
        "model": model, "x_batch": images.numpy(), "y_batch": classes, "a_batch": maps[:, None].copy(),
        "s_batch": masks[:, None], "device": "cpu",
    }  # fmt: skip
    remaining = iter(draws(torch.rand, seed))

    def perturb(arr, indices, **_):
        return arr + RADIUS * (2 * next(remaining).numpy().reshape(1, -1) - 1)

    def explain(model, inputs, targets, **_):
        return saliency(model, inputs, targets).numpy()[:, None]

    own = {**given, "explain_func": explain, "a_batch": None}
    spearman = quantus.similarity_func.correlation_spearman
    shuffled = {"similarity_func": spearman, "seed": 42, **common}
    cascade = quantus.MPRT(layer_order="top_down", skip_layers=False, **shuffled)(**own)
    entropy = {"complexity_func": quantus.complexity_func.discrete_entropy, "complexity_func_kwargs": {"n_bins": BINS}}
    efficient = quantus.EfficientMPRT(layer_order="top_down", seed=42, **entropy, **common)
    of_maps = saliency(model, images, classes).numpy()[:, None]
    return {
        "pointing game": quantus.PointingGame(**common)(**given),
        "energy": quantus.RelevanceMassAccuracy(**common)(**given),
        "top-k": quantus.TopKIntersection(k=TOP, **common)(**given),
        "top-k of the object": quantus.RelevanceRankAccuracy(**common)(**given),
        "entropy": quantus.Complexity(**common)(**given),
        "sparseness": quantus.Sparseness(**common)(**given),
        "max-sensitivity": quantus.MaxSensitivity(nr_samples=SAMPLES, perturb_func=perturb, **common)(**own),
        "random logit": quantus.RandomLogit(similarity_func=spearman, num_classes=CLASSES, seed=0, **common)(**own),
        "MPRT": np.mean([values for name, values in cascade.items() if name != "original"], axis=0),
        "efficient MPRT": efficient(**{**own, "a_batch": of_maps}),
    }


class Given:
    """What torch-cam takes for its extractor: maps that are there already."""

    def __init__(self, model, maps):
        self.model, self.maps = model, maps

    def __call__(self, class_idx=None, scores=None, normalized=True, **_):
        return [self.maps]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return nullcontext()


def of_torch_cam(seed):
    from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

    model, (images, classes, maps, _) = network(seed), case(seed)
    scaled = torch.from_numpy(maps - maps.min((1, 2), keepdims=True))
    scaled = scaled / scaled.amax((1, 2), keepdim=True)
    found = {"deletion": [], "insertion": [], "average drop": [], "increase": []}
    probabilities = partial(torch.softmax, dim=-1)
    for image, category, cam in zip(images, classes, scaled, strict=True):
        extractor = Given(model, cam[None])
        curves = DeletionInsertionMetric(extractor, probabilities, steps=STEPS)
        curves.update(image[None], int(category))
        found["deletion"].append(curves.summary()["deletion_auc"])
        found["insertion"].append(curves.summary()["insertion_auc"])
        confidence = ClassificationMetric(extractor, probabilities)
        confidence.update(image[None], int(category))
        found["average drop"].append(100 * confidence.summary()["avg_drop"])
        found["increase"].append(confidence.summary()["conf_increase"])
    return found


def of_captum(seed):
    from captum.metrics import infidelity, sensitivity_max

    model, (images, classes, maps, _) = network(seed), case(seed)
    target = torch.from_numpy(classes)

    def noisy(x):
        noise = NOISE * torch.stack(draws(torch.randn, seed)).repeat(len(images), 1, 1, 1)
        return noise, x - noise

    def neighbours(x, radius):
        return x + radius * (2 * torch.stack(draws(torch.rand, seed)).repeat(len(images), 1, 1, 1) - 1)

    attributions = torch.from_numpy(maps)[:, None].expand_as(images)
    found = {
        f"infidelity{label}": infidelity(
            model, noisy, images, attributions, target=target, n_perturb_samples=SAMPLES, normalize=normalise
        )
        for label, normalise in (("", True), (", not normalised", False))
    }

    def explain(x, target):
        return (saliency(model, x[0] if isinstance(x, tuple) else x, target),)

    found["max-sensitivity"] = sensitivity_max(
        explain, images, neighbours, perturb_radius=RADIUS, n_perturb_samples=SAMPLES, target=target
    )
    return found


LIBRARIES = {"quantus": of_quantus, "torch-cam": of_torch_cam, "captum": of_captum}

if __name__ == "__main__":
    library, file, cases = sys.argv[1:]
    every = [LIBRARIES[library](seed) for seed in range(int(cases))]
    np.savez(file, **{name: np.array([np.asarray(found[name]).tolist() for found in every]) for name in every[0]})
