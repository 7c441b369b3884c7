"""Find the layer whose map explains a model, and how its output holds the map, from one traced forward pass."""

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

_ALIVE = 0.5
_LATE = 5
_FAINT = 1e-2
_IN_PLACE = 0.5
_TOO_CLOSE = 0.05
_SMALLEST_GRIDS = (3, 2, 1)
_NO_GRADIENT = (
    "no gradient leads from the output to the image (a quantised model, inference_mode, detach or argmax in it?), "
    "so the layer cannot be found: pass target_layers, for methods without gradients (EigenCAM, ScoreCAM, AblationCAM)"
)


class Location(NamedTuple):
    """A layer that gives a map: its dotted name, its output's shape for the traced input, its layout, and why this one.

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
        """What the layer returned as a map (N, C, *grid): a reshape_transform."""
        return self.layout.of_output(output)

    def __str__(self) -> str:
        return f"{self.name} ({type(self.layer).__name__}), output {self.shape}: {self.layout}; {self.why}"


class _Map(NamedTuple):
    """A tensor that can be read as a map: its best reading and the others, what share of its positions a gradient
    reaches, whether it is a cut, and whether its module ran once.
    """

    call: Call
    layout: Layout
    others: tuple[Layout, ...]
    alive: float
    cut: bool
    once: bool


def locate(
    model: nn.Module,
    x: Any,
    spatial_from: int | str | None = None,
    output_transform: Callable[[Any], Any] = scores_in,
) -> Location:
    """The last layer that every path from the input to the highest logit passes and whose map is alive.

    Alive: the gradient reaches at least half of the positions, and the grid is at least 3 x 3 (2 x 2, or one cell, only
    where there is nothing larger). Where positions die behind it, as behind the last attention of a class-token ViT,
    the first layer that reads it takes its place: the norm before that attention.

    x: what the model is called with, see `model_inputs`; its first sample is used. output_transform: from the model's
    output to its scores, see `model_outputs`. Cost: one forward with its graph, one backward of its last part (of all
    where nothing is found there), for tokens one more forward. Raises ValueError when no module returns a map on which
    the logit depends.
    """
    return _Examined(model, x, spatial_from, output_transform).choice()


def suggest_layers(
    model: nn.Module,
    x: Any,
    spatial_from: int | str | None = None,
    output_transform: Callable[[Any], Any] = scores_in,
) -> list[Location]:
    """What `locate` chooses, then for each other size of grid the last map that is alive, backwards.

    Arguments and errors are those of `locate`. Cost: that of `locate` and one whole backward.
    """
    forward = _Examined(model, x, spatial_from, output_transform)
    locations = [forward.choice()]
    grids = {locations[0].layout.grid}
    alive = [found for found in forward.maps() if found.alive >= _ALIVE]
    for found in [*reversed([m for m in alive if m.cut]), *reversed(alive)]:
        if found.layout.grid not in grids:
            grids.add(found.layout.grid)
            path = "goes through it" if found.cut else "does not all go through it"
            locations.append(forward.location(found, f"the last map of this grid; the score {path}"))
    return locations


def layout_of(model: nn.Module, x: Any, layer: nn.Module, spatial_from: int | str | None = None) -> Layout:
    """How the output of a given layer holds the map. Cost: one forward.

    Raises ValueError when it cannot be read as a map of the image.
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


class _Examined:
    """One traced forward of the first sample, and what can be asked of it. Cost of the constructor: one forward."""

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
        """The best map of the last few cuts; of all, where that is none or too coarse."""
        best, why = self.best(self.maps(late=True))
        if best is None or min(best.layout.grid) < _SMALLEST_GRIDS[0]:
            best, why = self.best(self.maps())
        return self.location(best, why)

    def maps(self, late: bool = False) -> list[_Map]:
        """The maps among what the modules return, in the order of execution; late: those of the last few cuts only.

        Cost: one backward, as far as the first of them.
        """
        cuts = [position for position, _, cut in self._candidates if cut]
        start = cuts[-_LATE] if late and len(cuts) >= _LATE else 0
        calls = self.calls[start:]
        gradients = torch.autograd.grad(
            self.score, [entry.returned for entry in calls], allow_unused=True, retain_graph=True
        )
        # What is captured of a module is cut off from the other tensors that it returned: none of these may lead to
        # the score.
        leading = Counter(entry.run for entry, gradient in zip(calls, gradients, strict=True) if gradient is not None)
        maps = []
        for position, (layout, *others), cut in self._candidates:
            if position >= start and leading[self.calls[position].run] == 1:
                entry, gradient = self.calls[position], gradients[position - start]
                if gradient is not None:
                    alive = (layout(gradient) != 0).any(1).float().mean().item()
                    maps.append(_Map(entry, layout, tuple(others), alive, cut, self._runs[entry.module] == 1))
        return maps

    def best(self, maps: Sequence[_Map]) -> tuple[_Map | None, str]:
        """The best map by the rules, of those whose tokens are positions. Cost: for tokens, and where a tensor can be
        read in several ways, one forward; where the first choice does not answer in its place, one more.
        """
        best, why = _best(maps)
        while best is not None and ("T" in best.layout.axes or best.others):
            answers = self._answers(best, self._noisy_calls({best.call.module}))
            layout = _clearest(best, answers)
            if "T" not in best.layout.axes or answers[layout] > _IN_PLACE:
                return best._replace(layout=layout), why
            layout = best.layout
            alike = {found.call.module for found in maps if found.layout == layout}
            noisy = self._noisy_calls(alike)
            maps = [m for m in maps if m.layout != layout or self._answers(m, noisy)[layout] > _IN_PLACE]
            best, why = _best(maps)
        return best, why

    def location(self, found: _Map | None, why: str) -> Location:
        """Under the shortest name of the modules that return this tensor, of those that run once and return it alone.

        Raises ValueError where nothing was found.
        """
        if found is None:
            size = "x".join(map(str, self.size))
            raise ValueError(
                f"{type(self.model).__name__} has no module whose output is a map of the {size} input on which the "
                "score depends: pass target_layers, and a reshape_transform where the layer gives tokens"
            )
        runs = Counter(entry.module for entry in self.calls if entry.first)
        same = [e for e in self.calls if e.returned is found.call.returned and (e.alone or e is found.call)]
        named = min(same, key=lambda entry: (runs[entry.module] > 1, not entry.alone, len(entry.name)))
        return Location(named.name, named.module, tuple(named.returned.shape), found.layout, why)

    def _noisy_calls(self, modules: Collection[nn.Module]) -> list[Call]:
        """What modules return for the image with faint noise, stronger towards one corner."""
        image = image_of(self.x, self.spatial_from)
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(image)
        noisy = image + _FAINT * image.std().clamp(min=_FAINT) * _ramp(self.size).to(image) * noise
        with undisturbed(self.model), torch.no_grad(), traced(self.model, modules) as calls:
            call(self.model, with_image(self.x, noisy, self.spatial_from))
        return calls

    def _answers(self, found: _Map, noisy: Sequence[Call]) -> dict[Layout, float]:
        """For each reading of a map whether its positions are those of the image, 1 at best: whether it changes more
        towards the corner where the noise is stronger. Latent vectors and tokens sorted by windows do not.
        """
        runs = [entry for entry in self.calls if entry.module is found.call.module and entry.first]
        index = next(index for index, entry in enumerate(runs) if entry is found.call)
        repeated = [entry for entry in noisy if entry.module is found.call.module and entry.first][index]
        change = (repeated.returned - found.call.returned.detach()).float().abs()
        answers = {}
        for layout in (found.layout, *found.others):
            of_positions = layout(change).sum(1)[0]
            logarithms = [of_positions.clamp(min=1e-20).log(), _ramp(layout.grid).to(change).log()]
            answers[layout] = torch.stack([each.flatten() for each in logarithms]).corrcoef()[0, 1].item()
        return answers


def _clearest(found: _Map, answers: dict[Layout, float]) -> Layout:
    """The reading that answers best. Warns where another answers alike: then the first one."""
    best, *others = sorted(answers, key=lambda layout: -answers[layout])
    if not others or answers[best] - answers[others[0]] >= _TOO_CLOSE:
        return best
    other = next(layout for layout in (best, others[0]) if layout != found.layout)
    issue(
        CamWarning(
            f"{found.call.name} gives {tuple(found.call.returned.shape)}, which can be read as {found.layout} and as "
            f"{other}, and it answers alike to noise on the image in both: it is read as {found.layout}. Pass a "
            "reshape_transform if that is wrong"
        )
    )
    return found.layout


def _ramp(size: Sequence[int]) -> torch.Tensor:
    """From 1 at one corner to a fiftieth at the opposite one, along each axis by another slope."""
    ramp = torch.ones(())
    for axis, length in enumerate(size):
        along = torch.linspace(0, -4 * (axis + 1) / sum(range(len(size) + 1)), length)
        ramp = ramp * along.exp().reshape(-1, *[1] * (len(size) - axis - 1))
    return ramp


def _best(maps: Sequence[_Map]) -> tuple[_Map | None, str]:
    """The rules, one after the other; each keeps what passes it, or all where nothing does."""
    alive = _those(maps, lambda found: found.alive >= _ALIVE, or_all=False)
    once = _those(alive, lambda found: found.once)
    for smallest in _SMALLEST_GRIDS:
        large = _those(once, lambda found: min(found.layout.grid) >= smallest, or_all=False)  # noqa: B023
        if large:
            break
    else:
        return None, ""
    unpadded = _those(large, lambda found: not _is_of(nn.modules.padding, found.call.module))
    cuts = _those(unpadded, lambda found: found.cut)
    last = cuts[-1]
    same_grid = [found for found in cuts if found.layout == last.layout]
    best = _those(same_grid, lambda found: not _is_of(nn.modules.pooling, found.call.module))[-1]
    behind = maps[maps.index(best) + 1 :]
    if any(found.layout == best.layout and found.alive < _ALIVE for found in behind):
        readers = [m for m in once if m.call.read is best.call.returned and m.layout == best.layout]
        if readers:
            return readers[0], "the last map before positions lose their way to the score (class token)"
    if best.cut:
        return best, "the last map that every path to the score goes through"
    return best, "the last map that the score depends on; none lies on every path to it"


def _those(maps: Sequence[_Map], keep: Callable[[_Map], bool], or_all: bool = True) -> list[_Map]:
    kept = [found for found in maps if keep(found)]
    return kept if kept or not or_all else list(maps)


def _score(outputs: Any, calls: Sequence[Call]) -> torch.Tensor:
    """The highest logit; where the head is initialised with zeros, a random projection of what it reads."""
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
    return {
        tuple(entry.returned.shape[2:])
        for entry in calls
        if entry.returned.ndim == rank and isinstance(entry.module, nn.modules.conv._ConvNd)
    }


def _is_of(kind: ModuleType, module: nn.Module) -> bool:
    """Whether a module is one of PyTorch's pooling or padding layers: what they return is what they read, moved."""
    return type(module).__module__ == kind.__name__
