"""The blocks of a model whose attention is that of the image's tokens, where the user names none."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.attention.attention_watch import AttentionWatch
from pytorch_grad_cam.attention.attentions import Attention
from pytorch_grad_cam.attention.blocked_tokens import blocked_tokens
from pytorch_grad_cam.attention.tokens import tokens_in
from pytorch_grad_cam.attention.windows import Places, places_of, weighs_channels
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, call, image_of, rows_of, with_image
from pytorch_grad_cam.engine.layers import names_of
from pytorch_grad_cam.engine.layouts import Layout
from pytorch_grad_cam.engine.trees import first_tensor, floating_tensors
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.watch import Arguments, Watch
from pytorch_grad_cam.locate.search import layout_of

_SAMPLES = 2
_known: weakref.WeakKeyDictionary[nn.Module, dict[Any, Tower]] = weakref.WeakKeyDictionary()


class Tower(NamedTuple):
    """Blocks one behind the other, each with an attention of the image's tokens.

    layout: how the last block's output holds the map; its tokens are those of the attention, in their order. tokens:
    how many. reads: (tokens,) whether the score reads the last block's output there: at the class token, or at all.
    places: of each attention, by its block and its number among the block's, which token each place of its windows is;
    None where it is over all tokens. is_whole: whether no other attention lies on the way from the image to the last
    block. further_heads: the attentions that are heads of the one before them, where a block computes them one by one.
    """

    blocks: list[nn.Module]
    layout: Layout
    tokens: int
    reads: torch.Tensor
    places: dict[tuple[nn.Module, int], Places | None]
    is_whole: bool
    further_heads: set[tuple[nn.Module, int]]

    def last(self, count: int) -> Tower:
        """The last blocks alone."""
        blocks = self.blocks[-count:]
        places = {attention: found for attention, found in self.places.items() if attention[0] in blocks}
        return self._replace(blocks=blocks, places=places, is_whole=False)


class _Run(NamedTuple):
    """An attention of the traced forward: within which modules it ran, the outermost first, and which of their
    executions it was; its number among those of the last of them; whether it is further heads of one before it.
    """

    modules: tuple[nn.Module, ...]
    executions: tuple[int, ...]
    attention: Attention
    number: int = 0
    are_further_heads: bool = False


class _Chains(Watch):
    """Which modules run now, what each returned, and which of them keep their input's shape."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.modules(), before=object)
        self.running: list[nn.Module] = []
        self.executions: Counter[nn.Module] = Counter()
        self.outputs: dict[nn.Module, Any] = {}
        self.keeping: set[nn.Module] = set()

    def starts(self, module: nn.Module, args: Any) -> None:
        self.running.append(module)
        self.executions[module] += 1

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> None:
        del self.running[self.running.index(module) :]
        self.outputs[module] = output
        given, returned = floating_tensors(inputs), floating_tensors(output)
        if given and returned and given[0].shape == returned[0].shape and given[0].ndim > 2:
            self.keeping.add(module)


def tower_of(
    model: nn.Module,
    inputs: Inputs,
    spatial_from: SpatialFrom,
    read: Callable[[Any], Any],
    blocks: Sequence[nn.Module] = (),
) -> Tower:
    """The blocks whose attention is that of the image's tokens, the last such ones of the model; or those of `blocks`.

    A block is the largest module with one attention alone that returns as many tokens as it gets. Those of the last
    kind are taken whose output is a map of the image, see `locate.layout_of`. read: the scores in the
    model's output.

    It is known for later calls with images of that size. Cost of the first: a forward of at most two samples with its
    graph, that of `layout_of`, and where attention is within windows some backwards of single blocks.
    Raises ValueError where there are none.
    """
    image = image_of(inputs, spatial_from)
    case = (tuple(image.shape[1:]), tuple(blocks))
    known = _known.setdefault(model, {})
    if case not in known:
        known[case] = _found(model, inputs, spatial_from, read, blocks)
    return known[case]


def _found(
    model: nn.Module,
    inputs: Inputs,
    spatial_from: SpatialFrom,
    read: Callable[[Any], Any],
    blocks: Sequence[nn.Module],
) -> Tower:
    samples = len(image_of(inputs, spatial_from))
    few = rows_of(inputs, torch.arange(min(samples, _SAMPLES)), samples) if samples > _SAMPLES else inputs
    image = image_of(few, spatial_from).detach().requires_grad_()
    few = with_image(few, image, spatial_from)
    runs: list[_Run] = []
    with undisturbed(model), _Chains(model) as chains:

        def keep(attention: Attention) -> None:
            running = tuple(chains.running)
            runs.append(_Run(running, tuple(chains.executions[module] for module in running), attention))

        with torch.enable_grad(), AttentionWatch(lambda weights: weights, keep):
            outputs = call(model, few)
    of_image = [run for run in runs if run.attention.weights.requires_grad]  # the image is the only leaf of the graph
    held = _blocks_of(of_image, chains.keeping, blocks)
    for last in reversed(held):
        if not _is_among_tokens(last.attention):
            continue
        block = last.modules[-1]
        output = first_tensor(chains.outputs[block])
        layout = None if _holds_windows(output, last.attention) else _layout_of(model, few, block, spatial_from)
        if layout is None:
            layout = blocked_tokens(
                output,
                _behind(block, chains.outputs),
                lambda module: _layout_of(model, few, module, spatial_from),
                len(image),
            )
        if layout is None:
            continue
        tokens = tokens_in(layout, output)
        same = [run for run in held if _is_like(run, last, chains.outputs)]
        places = _places(same, layout, chains.outputs, tokens, len(image))
        if not places:
            continue
        fitting = list(dict.fromkeys(block for block, _ in places))
        reads = _read_tokens(read(outputs), output, layout, tokens)
        further_heads = {(run.modules[-1], run.number) for run in held if run.are_further_heads}
        return Tower(fitting, layout, tokens, reads, places, _is_whole(of_image, fitting), further_heads)
    raise ValueError(_none_found(model, runs, held))


def _blocks_of(runs: Sequence[_Run], keeping: set[nn.Module], named: Sequence[nn.Module]) -> list[_Run]:
    """The runs whose attention is a block's own, each with the modules down to that block."""
    identities = _identities(runs, keeping)
    attentions = {identity: set(run.modules) for identity, run in zip(identities, runs, strict=True)}
    enclosed = Counter(module for modules in attentions.values() for module in modules)
    held: list[_Run] = []
    begun: set[Hashable] = set()
    of_blocks: Counter[nn.Module] = Counter()
    for identity, run in zip(identities, runs, strict=True):
        for depth, module in enumerate(run.modules):
            is_block = module in named if named else depth > 0 and enclosed[module] == 1 and module in keeping
            if is_block:
                chain = run.modules[: depth + 1], run.executions[: depth + 1]
                held.append(_Run(*chain, run.attention, of_blocks[module], identity in begun))
                begun.add(identity)
                of_blocks[module] += 1
                break
    return held


def _identities(runs: Sequence[_Run], keeping: set[nn.Module]) -> list[Hashable]:
    """Of each run what tells its attention from others, but not from further heads of its own: those that one execution
    of the smallest module that returns as many tokens as it gets computes one by one, as EfficientViT's cascade does.

    What weighs values that have been weighed before is no further head, as in differential attention.
    """
    identities: list[Hashable] = []
    weighed: set[Hashable] = set()
    for number, run in enumerate(runs):
        identity = _smallest_around(run, keeping) or number
        of_values = identity, number if run.attention.value is None else id(run.attention.value)
        identities.append((identity, number) if of_values in weighed else identity)
        weighed.add(of_values)
    return identities


def _smallest_around(run: _Run, keeping: set[nn.Module]) -> Hashable:
    for depth in range(len(run.modules) - 1, 0, -1):
        if run.modules[depth] in keeping:
            return run.modules[depth], run.executions[depth], run.attention.weights.shape
    return None


def _is_among_tokens(attention: Attention) -> bool:
    """Whether queries and keys may be the same tokens: not one query of all of them, as a class token's."""
    queries, keys = attention.weights.shape[-2:]
    return queries == keys > 1


def _holds_windows(output: torch.Tensor, attention: Attention) -> bool:
    """Whether one axis of the output is that of the windows within which there is attention, and the next their tokens:
    no map of the image, though numbers may look like one.
    """
    windows = attention.weights.shape[1:-2]
    return (
        output.ndim == 4
        and len(windows) > 1
        and output.shape[1] in windows
        and output.shape[2] == attention.weights.shape[-1]
    )


def _behind(block: nn.Module, outputs: dict[nn.Module, Any]) -> Iterator[tuple[nn.Module, Any]]:
    """What modules that ended after the block returned."""
    ended = list(outputs)
    return (
        (module, outputs[module]) for module in ended[ended.index(block) + 1 :] if floating_tensors(outputs[module])
    )


def _layout_of(model: nn.Module, inputs: Inputs, block: nn.Module, spatial_from: SpatialFrom) -> Layout | None:
    try:
        layout = layout_of(model, inputs, block, spatial_from)
    except ValueError:  # which says that it is no map of the image, as the tokens of a text
        return None
    # One row of cells is no reading of an image: of windows as an axis of their own it is the tokens of one.
    is_row = len(layout.grid) == 2 and min(layout.grid) == 1 < max(layout.grid)
    return layout if layout.axes.startswith(("N", "T")) and not is_row else None


def _is_like(run: _Run, last: _Run, outputs: dict[nn.Module, Any]) -> bool:
    block, other = run.modules[-1], last.modules[-1]
    return first_tensor(outputs[block]).shape == first_tensor(outputs[other]).shape


def _places(
    runs: Sequence[_Run], layout: Layout, outputs: dict[nn.Module, Any], tokens: int, images: int
) -> dict[tuple[nn.Module, int], Places | None]:
    """`Tower.places` of those runs whose queries and keys are the tokens."""
    places: dict[tuple[nn.Module, int], Places | None] = {}
    for run in runs:
        block, shape = run.modules[-1], run.attention.weights.shape
        if not _is_among_tokens(run.attention):
            continue
        of_block = first_tensor(outputs[block]), layout, tokens, images
        has_heads_in_batch = len(shape) == 3 and shape[0] % images == 0
        if shape[-1] == tokens and (has_heads_in_batch or shape[0] == images):
            if not weighs_channels(run.attention, *of_block):
                places[block, run.number] = None
            continue
        found = places_of(run.attention, *of_block)
        if found is not None:
            places[block, run.number] = found
    return places


def _is_whole(of_image: Sequence[_Run], blocks: Sequence[nn.Module]) -> bool:
    """Whether all attentions up to that of the last block are of the blocks."""
    within = [not set(blocks).isdisjoint(run.modules) for run in of_image]
    last = max(place for place, is_within in enumerate(within) if is_within)
    return all(within[:last])


def _read_tokens(scores: Any, output: torch.Tensor, layout: Layout, tokens: int) -> torch.Tensor:
    """(tokens,) where the scores read the block's output."""
    everywhere = torch.ones(tokens, dtype=torch.bool, device=output.device)
    if not isinstance(scores, torch.Tensor) or not scores.requires_grad:
        return everywhere
    # No sum: that of probabilities is constant.
    share = torch.linspace(1, 2, scores.numel(), device=scores.device, dtype=scores.dtype).reshape(scores.shape)
    (gradient,) = torch.autograd.grad((scores * share).sum(), output, allow_unused=True)
    if gradient is None:
        return everywhere
    axis = layout.axes.index("T") if "T" in layout.axes else None
    if axis is None:
        return everywhere
    reads = gradient.abs().movedim(axis, 0).flatten(1).amax(1) > 0
    return reads if reads.any() else everywhere


def _none_found(model: nn.Module, runs: Sequence[_Run], held: Sequence[_Run]) -> str:
    name = type(model).__name__
    if not runs:
        return (
            f"{name} computes no attention that can be seen: softmax(Q K^T) V in PyTorch's functions, not in scripted "
            "or compiled code. Methods that need none are GradCAM and LayerCAM"
        )
    shapes = list(dict.fromkeys(tuple(run.attention.weights.shape) for run in runs))
    seen = ", ".join(f"{shape}" for shape in shapes[:4])
    where = ", ".join(names_of(model, [run.modules[-1] for run in (held or runs)[:3]]))
    return (
        f"none of the {len(runs)} attentions of {name} is one of the image's tokens (weights {seen}; for example in "
        f"{where}): name blocks as target_layers, or take a method without attention, such as LayerCAM"
    )
