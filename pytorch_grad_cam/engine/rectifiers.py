"""The tensor behind a rectifier: what a model makes of a layer's output where all that it does is to rectify it."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.engine.capture import Capture, Captured
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, image_of, rows_of
from pytorch_grad_cam.engine.torch_quirks.quantised_modules import NoDerivative
from pytorch_grad_cam.engine.trees import floating_tensors

if TYPE_CHECKING:
    from typing_extensions import Self

# What is looked at of a batch: normalisation by the batch's own statistics needs two samples.
_SAMPLES = 2


class Rectifier(NamedTuple):
    """What is below 0 becomes 0, and where there is a highest value, what is above it becomes that."""

    highest: float | None = None

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clamp(min=0, max=self.highest)

    def __str__(self) -> str:
        return "ReLU" if self.highest is None else f"ReLU up to {self.highest:g}"


Known = MutableMapping[nn.Module, Rectifier | None]
_known: weakref.WeakKeyDictionary[nn.Module, Known] = weakref.WeakKeyDictionary()


def known_rectifiers(model: nn.Module) -> Known:
    """What is known to be behind the layers of a model, from call to call and from CAM to CAM."""
    return _known.setdefault(model, weakref.WeakKeyDictionary())


class RectifiedCapture:
    """A call's `Capture`, whose runs have the tensors behind the rectifiers and their gradients.

    For methods made for activations that are not negative, and for those that multiply each activation with its own
    gradient, which a ReLU6 takes from those that it cuts. A layer counts as rectified where all that the model does
    with what each of its runs returned is to rectify it, whether by a function, by an operation in place or by another
    module: torchvision's DenseNet.features is. The gradient is that of the rectified tensor, which the zeros have too.

    known: what is behind each layer, see `known_rectifiers`. run_before: the capture of a forward that has
    been made. Cost: for layers that are not known, without gradients and without such a forward, one forward of at most
    two samples.
    """

    def __init__(
        self,
        known: Known,
        run_before: Capture | None,
        model: nn.Module,
        layers: Sequence[nn.Module],
        gradients: bool,
        detach: bool,
        spatial_from: SpatialFrom,
    ) -> None:
        self.runs: Captured = ()
        self._known, self._model, self._layers, self._spatial_from = known, model, layers, spatial_from
        self._has_graph = gradients or run_before is not None
        self._capture = run_before or Capture(model, layers, gradients, detach)
        self._edges: dict[int, GradientEdge] = {}

    def __enter__(self) -> Self:
        self._capture.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._capture.__exit__(*exception)

    def run(self, inputs: Inputs) -> Any:
        """The model's output. Cost: one forward."""
        if not self._has_graph and not all(layer in self._known for layer in self._layers):
            self._look_at_few(inputs)
        outputs = self._capture.run(inputs)
        self.runs = self._capture.runs
        if self._has_graph and any(self._known.get(layer, True) for layer in self._layers):
            self._edges = self._found(self.runs, outputs)
        if any(map(self._known.get, self._layers)):
            self.runs = [(layer, self._rectified(layer, output)) for layer, output in self.runs]
        return outputs

    def differentiate(
        self, score: torch.Tensor, keep_graph: bool = False, inputs: Sequence[torch.Tensor] = ()
    ) -> tuple[Sequence[Any], Sequence[torch.Tensor | None]]:
        """The gradients of a score with respect to what each of `runs` has, and to the inputs; see `Capture`."""
        behind = list(self._edges.values())
        gradients, found = self._capture.differentiate(score, keep_graph, [*behind, *inputs])  # type: ignore[list-item]
        of_behind = dict(zip(self._edges, found, strict=False))
        of_runs = [own if (of := of_behind.get(place)) is None else of for place, own in enumerate(gradients)]
        return of_runs, found[len(behind) :]

    def _rectified(self, layer: nn.Module, output: Any) -> Any:
        rectifier = self._known.get(layer)
        return output if rectifier is None else rectifier(output)

    def _look_at_few(self, inputs: Inputs) -> None:
        """Learn what is behind the layers from a forward with its graph."""
        samples = len(image_of(inputs, self._spatial_from))
        few = rows_of(inputs, torch.arange(min(samples, _SAMPLES)), samples)
        try:
            with Capture(self._model, self._layers, gradients=True) as capture:
                outputs = capture.run(few)
                self._found(capture.runs, outputs)
        except NoDerivative:  # a quantised model has no graph that could tell
            self._known.update(dict.fromkeys(self._layers))

    def _found(self, runs: Captured, outputs: Any) -> dict[int, GradientEdge]:
        """The edge behind the rectifier of each run, by its place; `known` gets what the layers have behind them."""
        readers = _readers(outputs)
        behind = [_reader_of(output, readers) for _, output in runs]
        for layer in self._layers:
            kinds = {
                None if node is None else _rectifier_of(node)
                for (of, _), node in zip(runs, behind, strict=True)
                if of is layer
            }
            self._known[layer] = kinds.pop() if len(kinds) == 1 else None
        return {
            place: GradientEdge(node, 0)
            for place, ((layer, _), node) in enumerate(zip(runs, behind, strict=True))
            if self._known[layer] is not None
        }


def _readers(outputs: Any) -> dict[tuple[Any, int], list[Any]]:
    """What reads each tensor of the outputs' graph, by the tensor's edge; the outputs' own readers are None."""
    ends = [get_gradient_edge(leaf) for leaf in floating_tensors(outputs) if leaf.requires_grad]
    readers: dict[tuple[Any, int], list[Any]] = defaultdict(list)
    for end in ends:
        readers[end.node, end.output_nr].append(None)
    for node in nodes_behind(*(end.node for end in ends)):
        for edge in node.next_functions:
            readers[edge].append(node)
    return readers


def _reader_of(output: Any, readers: dict[tuple[Any, int], list[Any]]) -> Any:
    """The only node that reads a tensor, or a copy of it; None where there is none, or more than one."""
    if not isinstance(output, torch.Tensor) or not output.requires_grad or output.is_inference():
        return None
    edge = get_gradient_edge(output)
    at = edge.node, edge.output_nr
    while len(readers[at]) == 1:
        (reader,) = readers[at]
        if reader is None or not reader.name().startswith("CloneBackward"):
            return reader
        at = reader, 0
    return None


def is_rectified(tensor: torch.Tensor, before: torch.Tensor) -> bool:
    """Whether a tensor of the graph is another one rectified, or a copy of that."""
    node = tensor.grad_fn
    if node is None or before.grad_fn is None or _rectifier_of(node) is None:
        return False
    (read, _), *_ = node.next_functions
    while read is not None and read is not before.grad_fn and read.name().startswith("CloneBackward"):
        (read, _), *_ = read.next_functions
    return read is before.grad_fn


def _rectifier_of(node: Any) -> Rectifier | None:
    bounds = _BOUNDS.get(node.name())
    lowest, highest = (None, None) if bounds is None else bounds(node)
    return Rectifier(highest) if lowest == 0 else None


_BOUNDS: dict[str, Callable[[Any], tuple[float | None, float | None]]] = {
    "ReluBackward0": lambda node: (0, None),
    "HardtanhBackward0": lambda node: (node._saved_min_val, node._saved_max_val),
    "ClampBackward1": lambda node: (node._saved_min, node._saved_max),
    "ClampMinBackward0": lambda node: (node._saved_min, None),
}
