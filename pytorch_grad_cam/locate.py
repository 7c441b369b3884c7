"""Find the layer whose map explains a model, and how its output holds the map, from one traced forward pass."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pytorch_grad_cam.layouts import Layout, layouts_of
from pytorch_grad_cam.model_state import undisturbed

_ALIVE = 0.5


class Location(NamedTuple):
    """A layer that gives a map: its dotted name, its output's shape for the traced input, and that output's layout."""

    name: str
    layer: nn.Module
    shape: tuple[int, ...]
    layout: Layout

    def __str__(self) -> str:
        return f"{self.name} ({type(self.layer).__name__}), output {self.shape}: {self.layout}"


class _Call(NamedTuple):
    """One module's run: its name, the module, the first tensor that it read and one that it returned, alone or not."""

    name: str
    module: nn.Module
    read: torch.Tensor | None
    returned: torch.Tensor
    alone: bool


def locate(model: nn.Module, x: torch.Tensor) -> Location:
    """The last layer that every path from the input to the highest logit passes and whose map is alive.

    Alive: the gradient reaches at least half of the positions, and the grid is at least 3 x 3 (2 x 2, or one cell, only
    where there is nothing larger). Where positions die behind it, as behind the last attention of a class-token ViT,
    the first layer that reads it takes its place: the norm before that attention.

    x: an input (N, C, *spatial); its first image is used. Cost: one forward with its graph and one backward.
    Raises ValueError when no module returns a map on which the logit depends.

    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net, preprocess_scene
    >>> print(locate(load_digits_net(), preprocess_scene(example_scene())))
    layer4 (Sequential), output (1, 128, 8, 8): NCSS, grid 8 x 8
    """
    with undisturbed(model), torch.enable_grad():
        image = x[:1].detach().clone().requires_grad_()
        with _traced(model) as calls:
            outputs = model(image)
        logits = next(leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor) and leaf.requires_grad)
        score = _score(logits, calls)
        calls = [call for call in calls if call.returned.requires_grad]
        gradients = torch.autograd.grad(score, [call.returned for call in calls], allow_unused=True, retain_graph=True)
        is_cut = _cuts(score, image)
    size = image.shape[2:]
    grids = {tuple(c.returned.shape[2:]) for c in calls if c.returned.ndim == image.ndim and _is_convolution(c.module)}
    maps = []
    for call, gradient in zip(calls, gradients, strict=True):
        layouts = layouts_of(call.returned.shape, 1, size, grids)
        if layouts and gradient is not None and call.alone:
            maps.append((call, layouts[0], _share_alive(layouts[0], gradient)))
    runs = Counter(call.module for call in calls if call.alone)
    alive = [(call, layout) for call, layout, share in maps if share >= _ALIVE]
    alive = [(call, layout) for call, layout in alive if runs[call.module] == 1] or alive
    for smallest in (3, 2, 1):
        large = [(call, layout) for call, layout in alive if min(layout.grid) >= smallest]
        candidates = [(call, layout) for call, layout in large if is_cut(call.returned)] or large
        if candidates:
            break
    else:
        raise ValueError(
            f"{type(model).__name__} has no module whose output is a map of the {'x'.join(map(str, size))} input on "
            "which the highest logit depends: pass target_layers, and a reshape_transform where the layer gives tokens"
        )
    chosen, layout = _before_pooling(candidates)
    later = maps[next(i for i, (call, _, _) in enumerate(maps) if call is chosen) + 1 :]
    if any(other == layout and share < _ALIVE for _, other, share in later):
        readers = [(call, other) for call, other in alive if call.read is chosen.returned and other == layout]
        chosen, layout = (readers or [(chosen, layout)])[0]
    same = [call for call in calls if call.returned is chosen.returned and call.alone]
    named = min(same, key=lambda call: (runs[call.module] > 1, len(call.name)))
    return Location(named.name, named.module, tuple(named.returned.shape), layout)


def module_outputs(model: nn.Module, x: torch.Tensor) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    """Name, module and shape of every tensor that a module returns, in the order of execution. Cost: one forward."""
    with undisturbed(model), torch.no_grad(), _traced(model) as calls:
        model(x)
    return [(call.name, call.module, tuple(call.returned.shape)) for call in calls]


@contextmanager
def _traced(model: nn.Module) -> Iterator[list[_Call]]:
    calls: list[_Call] = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            read = next((leaf for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor)), None)
            tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
            calls.extend(_Call(name, module, read, tensor, tensor is output) for tensor in tensors)

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _score(logits: torch.Tensor, calls: list[_Call]) -> torch.Tensor:
    """The highest logit; where the head is initialised with zeros, a random projection of what it reads."""
    score = logits.flatten().amax()
    read_by_heads = [call.read for call in calls if call.returned is logits and call.read is not None]
    if not read_by_heads:
        return score
    features = read_by_heads[0]
    (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
    if gradient.any():
        return score
    projection = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    return (features * projection.to(features)).sum()


def _before_pooling(candidates: list[tuple[_Call, Layout]]) -> tuple[_Call, Layout]:
    """The last candidate; if that is a pooling layer, the last of the same grid that is none."""
    _, layout = candidates[-1]
    others = [pair for pair in candidates if pair[1] == layout and not _is_pooling(pair[0].module)]
    return (others or candidates)[-1]


def _is_pooling(module: nn.Module) -> bool:
    return type(module).__module__ == nn.modules.pooling.__name__


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd)


def _share_alive(layout: Layout, gradient: torch.Tensor) -> float:
    return (layout(gradient) != 0).any(1).float().mean().item()


def _cuts(score: torch.Tensor, image: torch.Tensor) -> Any:
    """Tells of a tensor whether every path of the autograd graph from the score to the image goes through it."""
    order = _topological(score.grad_fn)
    paths_down: Counter[tuple[Any, int]] = Counter({(score.grad_fn, 0): 1})
    into: Counter[Any] = Counter({score.grad_fn: 1})
    for node in order:
        for following, output in node.next_functions:
            if following is not None:
                paths_down[following, output] += into[node]
                into[following] += into[node]
    paths_up: Counter[Any] = Counter()
    for node in reversed(order):
        if getattr(node, "variable", None) is image:
            paths_up[node] = 1
        else:
            paths_up[node] = sum(paths_up[following] for following, _ in node.next_functions if following is not None)
    total = paths_up[score.grad_fn]

    def is_cut(tensor: torch.Tensor) -> bool:
        return paths_down[tensor.grad_fn, tensor.output_nr] * paths_up[tensor.grad_fn] == total

    return is_cut


def _topological(root: Any) -> list[Any]:
    """The graph's nodes, each before those that it leads to."""
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((following, False) for following, _ in node.next_functions if following is not None)
    return order[::-1]
