"""Find the layer whose map explains a model, and the layout of its output, from one traced forward."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.inputs import call, image_of, on_device_of, rows_of, with_image
from pytorch_grad_cam.engine.layouts import Layout, layouts_of
from pytorch_grad_cam.engine.targets import scores_in
from pytorch_grad_cam.engine.trace import Call, traced
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.locate.graph_cuts import cuts_between

# What the thresholds rest on. "Nothing changes": in test_locate.py, and in the choice for 38 small networks of timm and
# transformers with seeded random weights; except for LeViTs where said.
# The share of living cells. A choice; nothing changes between 0.03 and 0.9: shares are nearly always 0 or 1.
_ALIVE = 0.5
# The last cuts that are looked at first, which saves time. A choice; nothing changes from 4 to 64, 3 adds a warning.
_LATE = 5
# The noise in standard deviations of the image. A choice; nothing changes between 0.001 and 0.1 but for one LeViT.
_FAINT = 1e-2
# The standard deviation that a constant image is taken to have. A choice; no test changes between 1e-4 and 1.
_LEAST_CONTRAST = 1e-2
# The noise falls to exp(-4). A choice; nothing changes between 2 and 8 but for the LeViTs and, at 2 and 8, one test.
_STEEPNESS = 4
# Keeps the logarithm of no change finite. A choice; nothing changes between 1e-30 and 1e-9.
_LEAST_CHANGE = 1e-20
# The correlation of an answer. A choice; nothing changes between 0 and 0.73 but for the LeViTs: levit_128 gets another
# layer at 0.55.
_IN_PLACE = 0.5
# The difference between two answers. A choice; nothing changes between 0.036 and 0.20.
_TOO_CLOSE = 0.05
# The least cells along an axis, tried in turn. With 2 first, maps of 2 cells win in the tests; with 4 first, a map of
# 3 x 4 costs another forward; with 1 first, 25 of the 38 networks get their pooled map, with 2 to 7 none another one.
_SMALLEST_GRIDS = (3, 2, 1)
_NO_GRADIENT = (
    "no gradient leads from the output to the image (a quantised model, inference_mode, detach or argmax in it?), "
    "so the layer cannot be found: pass target_layers, for methods without gradients (EigenCAM, ScoreCAM, AblationCAM)"
)


class Location(NamedTuple):
    """A layer that gives a map: its dotted name, its output's shape and layout, and why it was chosen.

    >>> from pytorch_grad_cam.demo import example_scene, load_digits_net, preprocess_scene
    >>> print(locate(load_digits_net(), preprocess_scene(example_scene())))
    layer4 (Sequential), output (1, 128, 8, 8): NCSS, grid 8 x 8; the last map that every path to the score goes through
    """

    name: str
    layer: nn.Module
    shape: tuple[int, ...]
    layout: Layout
    why: str

    def as_map(self, output: Any) -> torch.Tensor:
        """The map (N, C, *grid) in what the layer returned; for use as a reshape_transform."""
        return self.layout.of_output(output)

    def __str__(self) -> str:
        return f"{self.name} ({type(self.layer).__name__}), output {self.shape}: {self.layout}; {self.why}"


class _Map(NamedTuple):
    """A tensor that can be read as a map.

    layout, other_layouts: its best reading and the others. share_alive: of its cells, those that a gradient reaches.
    is_cut: whether every path from the score to the image goes through it. runs_once: whether its module does.
    """

    call: Call
    layout: Layout
    other_layouts: tuple[Layout, ...]
    share_alive: float
    is_cut: bool
    runs_once: bool


def locate(
    model: nn.Module,
    x: Any,
    spatial_from: int | str | None = None,
    output_transform: Callable[[Any], Any] = scores_in,
) -> Location:
    """The last layer that every path from the input to the highest logit passes and whose map is alive.

    Alive: the gradient reaches at least half of the cells, and the grid is at least 3 x 3 (2 x 2, or one cell, only
    where there is nothing larger). Where cells die behind that layer, as behind the last attention of a class-token
    ViT, the first layer that reads it takes its place: the norm before that attention.

    x: what the model is called with, see `engine.inputs`; its first sample is used. output_transform: from the model's
    output to its scores, see `engine.outputs`. Raises ValueError when no module returns a map on which the logit
    depends. Cost: one forward with its graph and one backward of its last part (of all where nothing is found there);
    for tokens one more forward.
    """
    return _TracedForward(model, x, spatial_from, output_transform).choice()


def suggest_layers(
    model: nn.Module,
    x: Any,
    spatial_from: int | str | None = None,
    output_transform: Callable[[Any], Any] = scores_in,
) -> list[Location]:
    """The choice of `locate`, then for each other grid the last map that is alive, from the output backwards.

    Arguments and errors are those of `locate`. Cost: that of `locate` and one whole backward.
    """
    forward = _TracedForward(model, x, spatial_from, output_transform)
    locations = [forward.choice()]
    grids = {locations[0].layout.grid}
    alive = [candidate for candidate in forward.maps() if candidate.share_alive >= _ALIVE]
    for candidate in [*reversed([m for m in alive if m.is_cut]), *reversed(alive)]:
        if candidate.layout.grid not in grids:
            grids.add(candidate.layout.grid)
            path = "goes through it" if candidate.is_cut else "does not all go through it"
            locations.append(forward.location(candidate, f"the last map of this grid; the score {path}"))
    return locations


def layout_of(model: nn.Module, x: Any, layer: nn.Module, spatial_from: int | str | None = None) -> Layout:
    """The layout of a given layer's output. Cost: one forward.

    Raises ValueError when the output cannot be read as a map of the image.
    """
    image = image_of(x, spatial_from)
    with undisturbed(model), torch.no_grad(), traced(model) as calls:
        call(model, on_device_of(model, rows_of(x, torch.tensor([0]), len(image))))
    outputs = [entry.returned for entry in calls if entry.module is layer and entry.returned.is_floating_point()]
    if not outputs:
        raise ValueError(f"target layer {type(layer).__name__} did not run when the model was called")
    size, shape = image.shape[2:], tuple(outputs[0].shape)
    readings = layouts_of(shape, 1, size, _grids_of_convolutions(calls, image.ndim))
    if not readings:
        raise ValueError(
            f"the target layer gives {shape}, which is no map of the {'x'.join(map(str, size))} input: pass a "
            "reshape_transform from it to (N, C, *spatial), see pytorch_grad_cam.utils.reshape_transforms"
        )
    return readings[0]


class _TracedForward:
    """One traced forward of the first sample: its maps, and the best of them. Cost of the constructor: one forward."""

    def __init__(
        self, model: nn.Module, x: Any, spatial_from: int | str | None, output_transform: Callable[[Any], Any]
    ) -> None:
        self.model, self.spatial_from = model, spatial_from
        self.x = on_device_of(model, rows_of(x, torch.tensor([0]), len(image_of(x, spatial_from))))
        with undisturbed(model), torch.enable_grad():
            image = image_of(self.x, spatial_from).detach().clone().requires_grad_()
            with traced(model) as calls:
                outputs = call(model, with_image(self.x, image, spatial_from))
            self.score = _score(output_transform(outputs), calls)
        self.size = image.shape[2:]
        self.calls = [entry for entry in calls if entry.returned.requires_grad]
        is_cut = cuts_between(self.score, image)
        grids = _grids_of_convolutions(self.calls, image.ndim)
        self._candidates: list[tuple[int, list[Layout], bool]] = []
        readings: dict[tuple[int, ...], list[Layout]] = {}
        for position, entry in enumerate(self.calls):
            shape = tuple(entry.returned.shape)
            if shape not in readings:
                readings[shape] = layouts_of(shape, 1, self.size, grids)
            if entry.first and readings[shape]:
                self._candidates.append((position, readings[shape], is_cut(entry.returned)))
        self._runs = Counter(self.calls[position].module for position, _, _ in self._candidates)

    def choice(self) -> Location:
        """The best map of the last few cuts; of all maps, where the cuts have none or only too coarse ones."""
        best, why = self.best(self.maps(late=True))
        if best is None or min(best.layout.grid) < _SMALLEST_GRIDS[0]:
            best, why = self.best(self.maps())
        return self.location(best, why)

    def maps(self, late: bool = False) -> list[_Map]:
        """The maps among what the modules return, in the order of execution.

        late: only those from the fifth last cut on. Cost: one backward, as far as the first of them.
        """
        cuts = [position for position, _, is_cut in self._candidates if is_cut]
        start = cuts[-_LATE] if late and len(cuts) >= _LATE else 0
        calls = self.calls[start:]
        gradients = torch.autograd.grad(
            self.score, [entry.returned for entry in calls], allow_unused=True, retain_graph=True
        )
        # A CAM captures one tensor of a module and cuts it off from the others that the module returned: none of
        # those may lead to the score.
        leading = Counter(entry.run for entry, gradient in zip(calls, gradients, strict=True) if gradient is not None)
        maps = []
        for position, (layout, *other_layouts), is_cut in self._candidates:
            if position >= start and leading[self.calls[position].run] == 1:
                entry, gradient = self.calls[position], gradients[position - start]
                if gradient is not None:
                    share_alive = (layout(gradient) != 0).any(1).float().mean().item()
                    runs_once = self._runs[entry.module] == 1
                    maps.append(_Map(entry, layout, tuple(other_layouts), share_alive, is_cut, runs_once))
        return maps

    def best(self, maps: Sequence[_Map]) -> tuple[_Map | None, str]:
        """The best map by the rules whose tokens are the cells of a grid, and why.

        Cost: for tokens, and where a tensor can be read in several ways, one forward; where the first choice does not
        answer in its place, one more.
        """
        best, why = _best(maps)
        while best is not None and ("T" in best.layout.axes or best.other_layouts):
            answers = self._answers(best, self._noisy_calls({best.call.module}))
            layout = _clearest(best, answers)
            if "T" not in best.layout.axes or answers[layout] > _IN_PLACE:
                return best._replace(layout=layout), why
            layout = best.layout
            noisy = self._noisy_calls({candidate.call.module for candidate in maps if candidate.layout == layout})
            maps = [m for m in maps if m.layout != layout or self._answers(m, noisy)[layout] > _IN_PLACE]
            best, why = _best(maps)
        return best, why

    def location(self, chosen: _Map | None, why: str) -> Location:
        """The location of a map, named by a module that returns it: one that runs once and returns nothing else
        before others, the shortest name before longer ones.

        Raises ValueError for None.
        """
        if chosen is None:
            size = "x".join(map(str, self.size))
            raise ValueError(
                f"{type(self.model).__name__} has no module whose output is a map of the {size} input on which the "
                "score depends: pass target_layers, and a reshape_transform where the layer gives tokens"
            )
        runs = Counter(entry.module for entry in self.calls if entry.first)
        same = [e for e in self.calls if e.returned is chosen.call.returned and (e.alone or e is chosen.call)]
        named = min(same, key=lambda entry: (runs[entry.module] > 1, not entry.alone, len(entry.name)))
        return Location(named.name, named.module, tuple(named.returned.shape), chosen.layout, why)

    def _noisy_calls(self, modules: Collection[nn.Module]) -> list[Call]:
        """The calls of modules for the image with faint noise, stronger towards one corner."""
        image = image_of(self.x, self.spatial_from)
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(image)
        noisy = image + _FAINT * image.std().clamp(min=_LEAST_CONTRAST) * _ramp(self.size).to(image) * noise
        with undisturbed(self.model), torch.no_grad(), traced(self.model, modules) as calls:
            call(self.model, with_image(self.x, noisy, self.spatial_from))
        return calls

    def _answers(self, candidate: _Map, noisy: Sequence[Call]) -> dict[Layout, float]:
        """For each reading of a map the correlation of how much its cells change with how strong the noise is there.

        1 at best. Latent vectors and tokens sorted by windows do not change more towards the corner with the noise.
        """
        runs = [entry for entry in self.calls if entry.module is candidate.call.module and entry.first]
        index = next(index for index, entry in enumerate(runs) if entry is candidate.call)
        repeated = [entry for entry in noisy if entry.module is candidate.call.module and entry.first][index]
        change = (repeated.returned - candidate.call.returned.detach()).float().abs()
        answers = {}
        for layout in (candidate.layout, *candidate.other_layouts):
            change_of_cells = layout(change).sum(1)[0]
            logarithms = [change_of_cells.clamp(min=_LEAST_CHANGE).log(), _ramp(layout.grid).to(change).log()]
            answers[layout] = torch.stack([values.flatten() for values in logarithms]).corrcoef()[0, 1].item()
        return answers


def _clearest(candidate: _Map, answers: dict[Layout, float]) -> Layout:
    """The reading that answers best; where two answer alike the first one, with a warning."""
    best, *others = sorted(answers, key=lambda layout: -answers[layout])
    if not others or answers[best] - answers[others[0]] >= _TOO_CLOSE:
        return best
    first, shape = candidate.layout, tuple(candidate.call.returned.shape)
    second = next(layout for layout in (best, others[0]) if layout != first)
    issue(
        CamWarning(
            f"{candidate.call.name} gives {shape}, which can be read as {first} and as {second}, and it answers alike "
            f"to noise on the image in both: it is read as {first}. Pass a reshape_transform if that is wrong"
        )
    )
    return first


def _ramp(size: Sequence[int]) -> torch.Tensor:
    """A ramp from 1 at one corner to a fiftieth at the opposite one, with another slope along each axis."""
    ramp = torch.ones(())
    for axis, length in enumerate(size):
        logarithms = torch.linspace(0, -_STEEPNESS * (axis + 1) / sum(range(len(size) + 1)), length)
        ramp = ramp * logarithms.exp().reshape(-1, *[1] * (len(size) - axis - 1))
    return ramp


def _best(maps: Sequence[_Map]) -> tuple[_Map | None, str]:
    """The best map by the rules, and why. The rules apply in turn; one that no map passes is skipped."""
    alive = [candidate for candidate in maps if candidate.share_alive >= _ALIVE]
    once = _passing(alive, lambda candidate: candidate.runs_once)
    for smallest in _SMALLEST_GRIDS:
        large = [candidate for candidate in once if min(candidate.layout.grid) >= smallest]
        if large:
            break
    else:
        return None, ""
    unpadded = _passing(large, lambda candidate: not _is_of(nn.modules.padding, candidate.call.module))
    cuts = _passing(unpadded, lambda candidate: candidate.is_cut)
    last = cuts[-1]
    same_grid = [candidate for candidate in cuts if candidate.layout == last.layout]
    best = _passing(same_grid, lambda candidate: not _is_of(nn.modules.pooling, candidate.call.module))[-1]
    behind = maps[maps.index(best) + 1 :]
    if any(candidate.layout == best.layout and candidate.share_alive < _ALIVE for candidate in behind):
        readers = [m for m in once if m.call.read is best.call.returned and m.layout == best.layout]
        if readers:
            return readers[0], "the last map before positions lose their way to the score (class token)"
    if best.is_cut:
        return best, "the last map that every path to the score goes through"
    return best, "the last map that the score depends on; none lies on every path to it"


def _passing(maps: Sequence[_Map], rule: Callable[[_Map], bool]) -> list[_Map]:
    """The maps that pass the rule, or all where none does."""
    return [candidate for candidate in maps if rule(candidate)] or list(maps)


def _score(outputs: Any, calls: Sequence[Call]) -> torch.Tensor:
    """The highest logit; for a head of zeros, as some are initialised, a random projection of what it reads."""
    differentiable = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    if not differentiable:
        raise ValueError(_NO_GRADIENT)
    logits = differentiable[0]
    score = logits.flatten().amax()
    read_by_heads = [entry.read for entry in calls if entry.returned is logits and entry.read is not None]
    if not read_by_heads:
        return score
    features = read_by_heads[0]
    if not features.requires_grad:
        return score
    (gradient,) = torch.autograd.grad(score, features, retain_graph=True, allow_unused=True)
    if gradient is None:
        raise ValueError(_NO_GRADIENT)
    if gradient.any():
        return score
    projection = torch.randn(features.shape, generator=torch.Generator().manual_seed(0), device="cpu")
    return (features * projection.to(features)).sum()


def _grids_of_convolutions(calls: Sequence[Call], rank: int) -> set[tuple[int, ...]]:
    """The grids that convolutions made, patch embeddings among them."""
    return {
        tuple(entry.returned.shape[2:])
        for entry in calls
        if entry.returned.ndim == rank and isinstance(entry.module, nn.modules.conv._ConvNd)
    }


def _is_of(kind: ModuleType, module: nn.Module) -> bool:
    """Whether a module is one of PyTorch's pooling or padding layers, which return what they read, pooled or moved."""
    return type(module).__module__ == kind.__name__
