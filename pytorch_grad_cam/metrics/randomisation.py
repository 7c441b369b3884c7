"""Does a map depend on what the network has learnt? Its parameters are drawn anew, and the map should change.

Adebayo et al. 2018, Sanity checks for saliency maps, arXiv:1810.03292. `cam` is an object that makes maps, called as
`cam(input_tensor=..., targets=...)`, whose `model` is randomised and put back. Targets are those of a CAM, one an
image; classes that are not given are those of the trained model. Nothing changes with the order of the images.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Literal

import torch
from torch import nn

from pytorch_grad_cam.engine.targets import Targets
from pytorch_grad_cam.metrics.ground_truth import finite_maps
from pytorch_grad_cam.metrics.perturbation_confidence import clean_scores, maps_of
from pytorch_grad_cam.metrics.similarity import Similarity, similarity
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

Order = Literal["top_down", "bottom_up"]
_CONTAINERS = dict, OrderedDict, list  # before torch 2.5 a module's own tables are ordered ones


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """Whatever happens to the model within, afterwards its modules have the attributes that they had, and its
    parameters and buffers are the same tensors with the same values.

    Within, copies take their place, so that what autograd keeps of them stays valid; those that modules share are still
    shared. Memory: a copy of all.
    """
    attributes = [(vars(module), dict(vars(module))) for module in model.modules()]
    contents = [(value, copy(value)) for _, own in attributes for value in own.values() if type(value) in _CONTAINERS]
    held: list[tuple[dict[str, Any], str, torch.Tensor]] = [
        (table, name, tensor)
        for module in model.modules()
        for table in _tables(module)
        for name, tensor in table.items()
        if tensor is not None
    ]
    copies: dict[torch.Tensor, torch.Tensor] = {}
    try:
        for table, name, tensor in held:
            if tensor not in copies:
                copies[tensor] = _copy(tensor)
            table[name] = copies[tensor]
        yield
    finally:
        for table, own in attributes:
            table.clear()
            table.update(own)
        for value, own in contents:
            value.clear()
            value.update(own) if isinstance(value, dict) else value.extend(own)


def _tables(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return module._parameters, module._buffers


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    values = tensor.detach().clone()
    return nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values


def randomised_modules(model: nn.Module, order: Order = "top_down") -> list[tuple[str, nn.Module]]:
    """The modules that have parameters of their own, by name: from the output to the input, or from there.

    In the order in which the model holds them. Raises ValueError for another order, and where there are none.
    """
    if order not in ("top_down", "bottom_up"):
        raise ValueError(f"order is {order!r}, expected 'top_down' or 'bottom_up'")
    found = [(name, module) for name, module in model.named_modules() if any(True for _ in module.parameters(False))]
    if not found:
        raise ValueError(f"{type(model).__name__} has no parameters that could be randomised")
    return found[::-1] if order == "top_down" else found


def randomise_within(model: nn.Module, module: nn.Module, seed: int) -> None:
    """`randomise` for a module of a model, which then forgets what it has made of its parameters.

    Some models keep that in evaluation mode, as attention biases by position or merged weights: they are put into
    training mode before and into evaluation mode after it. Within `kept`.
    """
    model.train()
    randomise(module, seed)
    model.eval()


def randomise(module: nn.Module, seed: int) -> None:
    """Draws the module's own parameters anew: by its `reset_parameters`; where it has none its values are shuffled.

    The global generators are left as they were.
    """
    own = list(module.parameters(recurse=False))
    devices = sorted({parameter.device.index for parameter in own if parameter.is_cuda})
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(seed)
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            return
        for parameter in own:
            order = torch.randperm(parameter.numel()).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))


def cascading_randomisation(
    cam: Any,
    images: torch.Tensor,
    targets: Targets,
    order: Order = "top_down",
    kind: Similarity = "spearman",
    seed: int = 0,
    samples: int = 1,
    noise: float = 0.1,
) -> dict[str, torch.Tensor]:
    """How alike a map is to that of the trained model while module after module is randomised: MPRT. Lower is better.

    For each module's name, in the order in which they join, the correlations: float32 (N,) in [-1, 1]. kind: see
    `similarity.similarity`. order: 'top_down' begins at the output, as the paper does, 'bottom_up' at the input.
    samples: above 1 the smooth form, sMPRT (Hedstroem et al. 2024, arXiv:2401.06465): maps are means over so many
    images, the last one clean and the others with Gaussian noise whose standard deviation is `noise` times the range of
    the image's values, the same draws for every image and every state of the model.
    seed: all modules draw with it, as in Quantus.
    Raises ValueError for another order or kind, fewer than one sample, a model without parameters, and a `cam` without
    one. Cost: (1 + modules) * samples calls of cam, and a forward.
    """
    model = _model_of(cam)
    modules = randomised_modules(model, order)
    resolved = list(clean_scores(model, images, targets)[1])
    before = _smooth_maps(cam, images, resolved, samples, noise, seed)
    found = {}
    with kept(model):
        for name, module in modules:
            randomise_within(model, module, seed)
            found[name] = similarity(before, _smooth_maps(cam, images, resolved, samples, noise, seed), kind)
    return found


def mprt(cam: Any, images: torch.Tensor, targets: Targets, **options: Any) -> torch.Tensor:
    """The mean of `cascading_randomisation` over its steps: float32 (N,) in [-1, 1]. Lower is better."""
    return torch.stack([*cascading_randomisation(cam, images, targets, **options).values()]).mean(0)


def efficient_mprt(cam: Any, images: torch.Tensor, targets: Targets, bins: int = 100, seed: int = 0) -> torch.Tensor:
    """By how much the map is more complex once all of the model is randomised: eMPRT. Higher is better.

    (H' - H) / H with the entropies H of the histograms of the map's values in `bins` equal parts of their range, before
    and after (Hedstroem et al. 2024, arXiv:2401.06465): float32 (N,), from -1, without an upper bound. A map without
    any complexity before, such as a blank one, has 0 where it stays so and infinity where not. The map's scale makes no
    difference. Raises ValueError for fewer than two bins, a model without parameters, and a `cam` without one.
    Cost: two calls of cam, and a forward.
    """
    if bins < 2:
        raise ValueError(f"bins is {bins}, expected at least 2")
    model = _model_of(cam)
    modules = randomised_modules(model)
    resolved = list(clean_scores(model, images, targets)[1])
    before = _entropy_of_histogram(_maps(cam, images, resolved), bins)
    with kept(model):
        for _, module in modules:
            randomise_within(model, module, seed)
        after = _entropy_of_histogram(_maps(cam, images, resolved), bins)
    rise = after - before
    return torch.where(rise == 0, 0, rise / before).float()


def random_logit(
    cam: Any,
    images: torch.Tensor,
    classes: Sequence[int | ClassifierOutputTarget],
    kind: Similarity = "pearson",
    seed: int = 0,
) -> torch.Tensor:
    """How alike a map is to that of another class: float32 (N,) in [-1, 1]. Lower is better.

    Sixt et al. 2020, arXiv:1912.09818; Quantus compares by SSIM unless told otherwise. classes: one an image, by its
    number or as a ClassifierOutputTarget, whose other class is drawn among the rest with the seed and the class itself,
    so that the order of the images makes no difference. kind: see `similarity.similarity`. A method that knows no class
    has 1. Raises ValueError for another number of classes than images and for a model with one class; IndexError for a
    class that does not exist; TypeError for other callables, which have no other class. Cost: two calls of cam, and a
    forward.
    """
    model = _model_of(cam)
    own = [_number_of(each) for each in classes]
    if len(own) != len(images):
        raise ValueError(f"{len(own)} classes for {len(images)} images, expected one for each")
    count = _number_of_classes(model, images[:1], own)
    others = [_another(category % count, count, seed) for category in own]
    return similarity(_maps(cam, images, own), _maps(cam, images, others), kind)


def _number_of(category: Any) -> int:
    if type(category) is ClassifierOutputTarget:
        category = category.category
    if callable(category):
        raise TypeError(f"{category!r} is no class, so that there is no other one to compare with: pass its number")
    return int(category)


def _another(category: int, count: int, seed: int) -> int:
    generator = torch.Generator().manual_seed(seed * count + category)
    return (category + 1 + int(torch.randint(count - 1, (), generator=generator))) % count


def _number_of_classes(model: nn.Module, image: torch.Tensor, classes: Sequence[int]) -> int:
    counts: list[int] = []

    def count(output: torch.Tensor) -> torch.Tensor:
        counts.append(output.shape[-1])
        return output.flatten()[0]

    clean_scores(model, image, count)
    if counts[0] < 2:
        raise ValueError("the model has one class: there is no other one to compare with")
    wrong = [each for each in classes if not -counts[0] <= each < counts[0]]
    if wrong:
        raise IndexError(f"class {wrong[0]} does not exist: the model has {counts[0]} classes")
    return counts[0]


def _model_of(cam: Any) -> nn.Module:
    model = getattr(cam, "model", None)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{type(cam).__name__} has no `model` to randomise: pass an object such as GradCAM(model)")
    return model


def _maps(cam: Callable[..., Any], images: torch.Tensor, targets: Any) -> torch.Tensor:
    return finite_maps(maps_of(images, cam(input_tensor=images, targets=targets)))


def _smooth_maps(
    cam: Callable[..., Any], images: torch.Tensor, targets: Any, samples: int, noise: float, seed: int
) -> torch.Tensor:
    if samples < 1:
        raise ValueError(f"samples is {samples}, expected at least 1")
    spans = images.flatten(1).amax(1) - images.flatten(1).amin(1)
    deviations = noise * spans.reshape(-1, *[1] * (images.ndim - 1))
    generator = torch.Generator().manual_seed(seed)
    total = _maps(cam, images, targets)
    for _ in range(samples - 1):
        draw = torch.randn(images.shape[1:], generator=generator).to(images)
        total = total + _maps(cam, images + deviations * draw, targets)
    return total / samples


def _entropy_of_histogram(maps: torch.Tensor, bins: int) -> torch.Tensor:
    values = maps.double().flatten(1)
    lowest, highest = values.aminmax(dim=1, keepdim=True)
    span = (highest - lowest).masked_fill(highest == lowest, 1)
    places = ((values - lowest) / span * bins).long().clamp(max=bins - 1)
    counts = torch.zeros(len(values), bins, dtype=values.dtype, device=values.device)
    shares = counts.scatter_add(1, places, torch.ones_like(values)) / values.shape[1]
    return -torch.xlogy(shares, shares).sum(1)
