"""Whether a map for which no layer was named is right: in place, the gradient's, and from a layer that says much."""

import re
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves, tree_map_only

from benchmarks.families.question import Question, Target, image_in

RIGHT = "right and sensible"
LITTLE = "right, layer says little"
REFUSED = "refused"
WARNED = "wrong or blank, warned"
SILENT = "silently wrong"
VERDICTS = (RIGHT, LITTLE, REFUSED, WARNED, SILENT)

TOLERANCE = 1e-4
# Tried in turn: how much of a part of the image becomes other noise of the same strength, a little or all, and in how
# many images. With random weights the place of an answer needs many of them to stand out, and some networks saturate.
NOISES = (0.1, 1.0)
IMAGES = (2, 6, 12)
_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


class FoundLayer(NamedTuple):
    """as_map: from what the layer returned, or its gradient, to (N, C, *grid); reading says in words how."""

    name: str
    layer: nn.Module
    as_map: Callable[[Any], torch.Tensor]
    reading: str


class Found(NamedTuple):
    """maps: (1, *size). enlarged: whether their size is to be the image's, not the grid's."""

    maps: torch.Tensor
    layers: Sequence[FoundLayer]
    warned: bool
    enlarged: bool


class Judgement(NamedTuple):
    verdict: str
    why: str
    layer: str


Find = Callable[[Question, Target], Found]


def found_by_us(question: Question, target: Target) -> Found:
    from pytorch_grad_cam import CamWarning, GradCAM

    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        with GradCAM(question.model, **question.options) as cam:
            maps = cam(question.inputs, target.given, as_tensor=True)
    warned = any(isinstance(warning.message, CamWarning) for warning in issued)
    return Found(maps, layers_of(cam), warned, enlarged=True)


def layers_of(cam: Any) -> list[FoundLayer]:
    """The layers that a CAM found, and how each is read."""
    found = (cam.location, *cam.location.others)
    return [FoundLayer(each.name, each.layer, each.as_map, str(each.layout)) for each in found]


def found_by_torch_cam(question: Question, target: Target) -> Found:
    """It gets the score as its users have to write it for such outputs: the only class of one sample."""
    from torchcam.methods import GradCAM

    image = image_in(question.inputs, question.image)
    with GradCAM(question.model, input_shape=tuple(image.shape[1:])) as cam:
        (maps,) = cam(0, target.score(question.answer()).reshape(1, 1))
        (name,) = cam.target_names
    layer = dict(question.model.named_modules())[name]
    return Found(maps, [FoundLayer(name, layer, _as_it_is, "channels first")], warned=False, enlarged=False)


def judged(question: Question, target: Target, find: Find = found_by_us) -> Judgement:
    try:
        found = find(question, target)
    except Exception as error:  # noqa: BLE001
        return Judgement(REFUSED, described(error), "")
    layers = ", ".join(f"{layer.name} ({type(layer.layer).__name__}; {layer.reading})" for layer in found.layers)
    trouble = trouble_with(question, target, found, find)
    if trouble:
        return Judgement(WARNED if found.warned else SILENT, trouble, layers)
    if any(re.fullmatch(question.sensible, layer.name) for layer in found.layers):
        return Judgement(RIGHT, "", layers)
    return Judgement(LITTLE, "", layers)


def described(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def trouble_with(question: Question, target: Target, found: Found, find: Find) -> str:
    """What is wrong with a map, empty where nothing is. A blank map is right if all evidence is against the score."""
    count, *size = found.maps.shape
    right_size = tuple(size) in question.sizes if found.enlarged else len(size) == len(question.sizes[0])
    if count != 1 or not right_size:
        return f"a map of {tuple(found.maps.shape)} for an image of {question.sizes[0]}"
    by_hand, depends = map_by_hand(question, target, found.layers, size)
    if not depends:
        return "the score does not depend on the layer"
    apart = (found.maps - by_hand).abs().amax().item()
    if not apart <= TOLERANCE and not is_apart_by_rounding(question, target, find):
        return f"{apart:.1g} from the map of the gradient"
    return "; ".join(filter(None, (_known_trouble_in_place(question, layer) for layer in found.layers)))


def is_apart_by_rounding(question: Question, target: Target, find: Find) -> bool:
    """Whether in float64 the map is that of the gradient: where evidence cancels, float32 rounds away what is left."""
    exact = in_double(question)
    found = find(exact, target)
    by_hand, _ = map_by_hand(exact, target, found.layers, found.maps.shape[1:])
    return (found.maps - by_hand).abs().amax().item() <= TOLERANCE


def in_double(question: Question) -> Question:
    """The question with a copy of the model, and with inputs, in float64."""
    inputs = tree_map_only(
        torch.Tensor, lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, question.inputs
    )
    return replace(question, model=deepcopy(question.model).double(), inputs=inputs)


def map_by_hand(
    question: Question, target: Target, layers: Sequence[FoundLayer], size: Sequence[int]
) -> tuple[torch.Tensor, bool]:
    """Grad-CAM from plain hooks and literal autograd, and whether any gradient reaches the layers.

    Where a model runs its encoder under `no_grad`, the graph reaches through it. Each run of a layer has a map,
    rectified, scaled to [0, 1] and enlarged; their mean, of several layers the maximum, is scaled to [0, 1] again.
    """
    image = image_in(question.inputs, question.image).clone().requires_grad_()
    with torch.enable_grad(), Kept(layers) as kept:
        through_no_grad = register_module_forward_pre_hook(_with_gradients)
        try:
            score = target.score(question.answer(image))
        finally:
            through_no_grad.remove()
        gradients = [_gradient(score, tensor) for _, tensor in kept.outputs]
    maps, depends = [], False
    for (layer, tensor), slope in zip(kept.outputs, gradients, strict=True):
        activations, slopes = (layer.as_map(values).detach() for values in (tensor, slope))
        axes = tuple(range(2, activations.ndim))
        evidence = (slopes.mean(axes, keepdim=True) * activations).sum(1, keepdim=True).relu()
        maps.append(F.interpolate(_scaled(evidence), size=tuple(size), mode=_INTERPOLATION[len(axes)])[:, 0])
        depends = depends or bool(slopes.any())
    return _scaled(torch.stack(maps).amax(0) if len(layers) > 1 else torch.stack(maps).mean(0)), depends


def _with_gradients(*_: object) -> None:
    torch.set_grad_enabled(True)


def _gradient(score: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Zeros where the score does not depend on the tensor."""
    if not tensor.requires_grad:
        return torch.zeros_like(tensor)
    (gradient,) = torch.autograd.grad(score, tensor, allow_unused=True, retain_graph=True)
    return torch.zeros_like(tensor) if gradient is None else gradient


def _scaled(values: torch.Tensor) -> torch.Tensor:
    """To [0, 1]; constant ones to zeros."""
    span = values.amax() - values.amin()
    return (values - values.amin()) / span if span > 0 else torch.zeros_like(values)


def _known_trouble_in_place(question: Question, layer: FoundLayer) -> str:
    """Places do not depend on the target."""
    asked = layer.name, layer.reading
    if asked not in question.places:
        question.places[asked] = trouble_in_place(question, layer)
    return question.places[asked]


def trouble_in_place(question: Question, layer: FoundLayer) -> str:
    """Whether other noise in a part of the image changes the layer most in that part of its grid, empty where it does.

    The parts are halves along each axis, 2 ** rank. A grid of one cell on an axis has no halves there. Random weights
    answer everything more strongly at some places than at others: the answers are relative to their mean over all
    parts.
    """
    best = 0
    for noise in NOISES:
        shares: list[torch.Tensor] = []
        for count in IMAGES:
            shares += [_shares(question, layer, noise, seed) for seed in range(len(shares), count)]
            mean = torch.stack(shares).mean(0)
            right = int(((mean / mean.mean(0)).argmax(1) == torch.arange(len(mean))).sum())
            if right == len(mean):
                return "" if right > 1 else "a grid of one cell"
            best = max(best, right)
    return f"{best} of {len(mean)} parts in place"


def _shares(question: Question, layer: FoundLayer, noise: float, seed: int) -> torch.Tensor:
    """(parts, parts): for noise in each part of a random image, which share of the change each part of the grid has."""
    generator = torch.Generator().manual_seed(seed)
    image = question.random_image(generator)
    clean = _activations(question, layer, image)
    axes = [length > 1 for length in clean.shape[2:]]
    parts = list(product(*[(0, 1) if divided else (None,) for divided in axes]))
    rows = []
    for part in parts:
        numbers = torch.arange(image.numel()).reshape(image.shape)
        region = _part(question.reading(numbers), part).flatten()
        noisy = image.clone()
        kept, other = noisy.view(-1)[region], torch.randn(region.shape, generator=generator)
        noisy.view(-1)[region] = (1 - noise**2) ** 0.5 * kept + noise * other
        change = (_activations(question, layer, noisy) - clean).abs()
        change /= change.sum()
        rows.append(torch.stack([_part(change, other).mean() for other in parts]))
    return torch.stack(rows)


def _activations(question: Question, layer: FoundLayer, image: torch.Tensor) -> torch.Tensor:
    """Of all runs of the layer that have the grid of the first one, their channels together."""
    with torch.no_grad(), Kept([layer]) as kept:
        question.answer(image)
    maps = [layer.as_map(tensor).float() for _, tensor in kept.outputs]
    return torch.cat([values for values in maps if values.shape[2:] == maps[0].shape[2:]], dim=1)


def _part(tensor: torch.Tensor, halves: Sequence[int | None]) -> torch.Tensor:
    """The halves of (N, C, *spatial): the first, the last or all of each axis."""
    slices = [slice(None), slice(None)]
    for half, length in zip(halves, tensor.shape[2:], strict=True):
        first = slice(None, max(1, length // 2))
        slices.append(slice(None) if half is None else slice(-max(1, length // 2), None) if half else first)
    return tensor[tuple(slices)]


class Kept:
    """Within, the first tensor of what layers return is kept: by plain hooks, before those of the model's own library.

    A tensor goes on as a copy: what follows may change it in place.
    """

    def __init__(self, layers: Sequence[FoundLayer]) -> None:
        self.layers = layers
        self.outputs: list[tuple[FoundLayer, torch.Tensor]] = []

    def __enter__(self) -> "Kept":
        self._handles = [
            found.layer.register_forward_hook(partial(self._keep, found), prepend=True) for found in self.layers
        ]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, found: FoundLayer, module: nn.Module, inputs: Any, output: Any) -> torch.Tensor | None:
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
        self.outputs.append((found, tensors[0]))
        return output.clone() if isinstance(output, torch.Tensor) else None


def _as_it_is(output: torch.Tensor) -> torch.Tensor:
    return output
