"""Run a model again from a layer on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Reversible
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from pytorch_grad_cam.engine.inputs import apply, call, image_of
from pytorch_grad_cam.engine.replicas import replicated
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.targets import scores_in
from pytorch_grad_cam.engine.trees import copied, floating_tensors, has_rows
from pytorch_grad_cam.engine.watch import Arguments, Watch

Replace = Callable[[Any], Any]
"""From what a layer returned to what takes its place."""

TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 5e-2}


class PartialForward:
    """Re-runs the part of a model behind `layer` (its run `call_index`), with other outputs of that layer.

    One forward records what the outermost modules that finished before `layer` returned. When the model is run again
    they return that, without computing, so only the tail and the glue between modules is computed; of a torch.fx graph,
    whose glue may be most of the model, the functions in front of the layer are not either. All of it happens
    in a replica that shares the parameters: the user's model is not touched, and threads do not meet.

    `outputs`, their `scores` and `layer_output` (a tensor (N, ...), or a tree) are those of the recording forward, and
    `runs` says how often the layer ran in it, as far as the replica saw.
    batch: the number of samples N in x, what the model is called with. scores_in: what targets read of an output.
    Where a model does something that the replica cannot follow, all of the model is run and the layer's output is
    exchanged by a hook. One comparison of both decides, see `follows`; `known` keeps its result for the next batch of
    that size.

    Cost of the constructor: one forward, and where nothing is known two more. Raises ValueError when the layer does not
    run.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: nn.Module,
        x: Any,
        batch: int | None = None,
        call_index: int = 0,
        scores_in: Callable[[Any], Any] = scores_in,
        known: dict[Any, Any] | None = None,
    ) -> None:
        self.model, self.layer, self.x, self.call_index = model, layer, x, call_index
        self.scores_in = scores_in
        self.batch = len(image_of(x)) if batch is None else batch
        self._replicas = replicated(model)
        self._recorded: dict[nn.Module, list[Any]] = {}
        self._of_nodes: dict[fx.Node, torch.Tensor] = {}
        self.layer_output: Any = None
        self.runs = 0
        self._follows = False
        self.outputs = self._record()
        if self.layer_output is None:
            self.outputs = self._run_exchanged(x, self._keep_layer_output)
        if self.layer_output is None:
            raise ValueError(f"target layer {type(layer).__name__} did not run when the model was called")
        known = {} if known is None else known
        case = layer, call_index, self.batch
        if self.batch and case not in known:
            known[case] = self.follows()
        self._follows = known.get(case, False)

    def __call__(self, rows: Rows, replace: Replace) -> Any:
        """The model's scores for rows of the samples, its layer returning what `replace(output)` gives.

        replace: from the layer's output for the rows, which it must not write into, to tensors of its own of that
        shape, which the model may write into. Rows of one sample, and all samples in their order, read the recorded
        outputs where they are; any other rows copy them.
        """
        run = self._run_tail if self._follows else self._run_whole
        return self.scores_in(run(rows, replace))

    @property
    def scores(self) -> Any:
        """What targets read of `outputs`."""
        return self.scores_in(self.outputs)

    def follows(self) -> bool:
        """Whether the partial run gives what the whole model gives, with the layer's output kept and set to zero."""

        def half_zero(layer_output: Any) -> Any:
            return tree_map(
                lambda leaf: _zero_behind(leaf, len(rows) - 1) if has_rows(leaf, len(rows)) else copied(leaf),
                layer_output,
            )

        rows = Rows.of([0, 0], torch.device("cpu"))
        if any(tensor.is_inference() for tensor in self._recorded_tensors()):
            return False  # they do not tell whether something was written into them
        try:
            expected = floating_tensors(self.scores_in(self._run_whole(rows, half_zero)))
        except Exception:  # noqa: BLE001
            rows = rows[:1]  # a model for one image
            expected = floating_tensors(self.scores_in(self._run_whole(rows, half_zero)))
        versions = [tensor._version for tensor in self._recorded_tensors()]
        try:
            found = floating_tensors(self.scores_in(self._run_tail(rows, half_zero)))
            equal = len(found) == len(expected) > 0 and all(map(_close, found, expected))
        except Exception:  # noqa: BLE001
            # Whatever the partial run stumbled over, the whole one works: it gave `expected`.
            return False
        untouched = versions == [tensor._version for tensor in self._recorded_tensors()]
        return equal and untouched

    def __enter__(self) -> PartialForward:
        return self

    def __exit__(self, *exception: object) -> None:
        """Let go of the recorded tensors: the replicas refer to themselves and to this object."""
        for replica in self._replicas.values():
            del replica.__dict__["forward"]
        self._replicas.clear()
        self._recorded.clear()
        self._of_nodes.clear()

    def _record(self) -> Any:
        """Run the replica; `_recorded` gets the outputs of what finished before the layer, call by call."""
        finished: list[tuple[nn.Module, Any]] = []
        reached = is_inside = False
        leading = _modules_around(self.layer, self._replicas)

        def recorder(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            def recorded(*args: Any, **kwargs: Any) -> Any:
                nonlocal reached, is_inside
                if reached or (is_inside and module is not self.layer):
                    self.runs += module is self.layer
                    return forward(*args, **kwargs)
                mark = len(finished)
                # Inside a module that keeps its output nothing is kept: the memory serves the next module again.
                is_inside = module not in leading
                output = forward(*args, **kwargs)
                is_inside = False
                if reached:
                    return output
                del finished[mark:]  # what ran inside this module
                finished.append((module, output))
                self.runs += module is self.layer
                reached = self.runs == self.call_index + 1
                # The model goes on with a copy: an operation in place must not change what is kept.
                return copied(output) if reached else output

            return recorded

        def computed(node: fx.Node, compute: Callable[[], Any]) -> Any:
            value = compute()
            if not reached and has_rows(value, self.batch):
                self._of_nodes[node] = value
            return value

        forwards = {module: (replica, replica.forward) for module, replica in self._replicas.items()}
        for module, own in forwards.items():
            self._replicas[module].__dict__["forward"] = recorder(module, _by_nodes(*own, computed))
        outputs = call(self._replicas[self.model], self.x)
        if not reached:
            return outputs
        self._keep_layer_output(finished.pop()[1])
        for module, output in finished:
            self._recorded.setdefault(module, []).append(output)
        for module, own in forwards.items():
            forward = _by_nodes(*own, self._replayed_node)
            self._replicas[module].__dict__["forward"] = self._replayer(module, forward)
        return outputs

    def _replayed_node(self, node: fx.Node, compute: Callable[[], Any]) -> Any:
        return self._rows.read(self._of_nodes[node], self.batch) if node in self._of_nodes else compute()

    def _replayer(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        recorded = self._recorded.get(module, [])
        if not recorded and module is not self.layer:
            return forward

        def replayed(*args: Any, **kwargs: Any) -> Any:
            index = self._calls[module]
            self._calls[module] += 1
            if module is self.layer and index == self.call_index:
                return self._replacement
            if index < len(recorded):
                return self._rows.read(recorded[index], self.batch)
            return forward(*args, **kwargs)

        return replayed

    def _keep_layer_output(self, tree: Any) -> Any:
        self.layer_output = tree
        return copied(tree)

    def _run_tail(self, rows: Rows, replace: Replace) -> Any:
        self._rows = rows
        self._replacement = replace(rows.read(self.layer_output, self.batch))
        self._calls: Counter[nn.Module] = Counter()
        return apply(self._replicas[self.model], rows.read(self.x, self.batch))

    def _run_whole(self, rows: Rows, replace: Replace) -> Any:
        return self._run_exchanged(rows.read(self.x, self.batch), replace)

    def _run_exchanged(self, x: Any, exchange: Replace) -> Any:
        with _Exchange(self.layer, self.call_index, exchange):
            return call(self.model, x)

    def _recorded_tensors(self) -> list[torch.Tensor]:
        recorded = [*self._recorded.values(), *self._of_nodes.values()]
        return [leaf for leaf in tree_leaves(recorded) if isinstance(leaf, torch.Tensor)]


def _modules_around(layer: nn.Module, modules: Reversible[nn.Module]) -> set[nn.Module]:
    """The layer's ancestors among a model's modules, in the order of `model.modules()`."""
    around = {layer}
    for module in reversed(modules):  # children before the module that has them
        if not around.isdisjoint(module._modules.values()):
            around.add(module)
    return around - {layer}


class _Nodes(fx.Interpreter):
    """Runs a graph; what a function of it gives is asked of `computed`, by its node and what computes it."""

    def __init__(self, module: fx.GraphModule, computed: Callable[[fx.Node, Callable[[], Any]], Any]) -> None:
        super().__init__(module)
        self._computed = computed

    def run_node(self, n: fx.Node) -> Any:
        compute = partial(super().run_node, n)
        return self._computed(n, compute) if n.op in ("call_function", "call_method") else compute()


def _by_nodes(
    replica: nn.Module, forward: Callable[..., Any], computed: Callable[[fx.Node, Callable[[], Any]], Any]
) -> Callable[..., Any]:
    """The forward of a module; of a torch.fx graph node by node, unless it was exchanged or is called by keyword."""
    if not isinstance(replica, fx.GraphModule) or getattr(forward, "__func__", None) is not type(replica).forward:
        return forward

    def by_nodes(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs) if kwargs else _Nodes(replica, computed).run(*args)

    return by_nodes


class _Exchange(Watch):
    """Exchanges what one run of a layer returns."""

    def __init__(self, layer: nn.Module, call_index: int, exchange: Replace) -> None:
        super().__init__([layer])
        self._left, self._exchange = call_index, exchange

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> Any:
        self._left -= 1
        return self._exchange(output) if self._left == -1 else None


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    finite = expected[expected.isfinite()].abs().float()
    tolerance = TOLERANCES.get(expected.dtype, 1e-3) * (finite.max().item() if len(finite) else 0)
    return torch.allclose(found.float(), expected.float(), rtol=0, atol=tolerance)


def _zero_behind(tensor: torch.Tensor, kept: int) -> torch.Tensor:
    return torch.cat([tensor[:kept], torch.zeros_like(tensor[kept:])])
