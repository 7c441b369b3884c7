"""The biases that a forward pass added, wherever in the model, and a score's gradients where they were added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from pytorch_grad_cam.engine.inputs import Inputs, call
from pytorch_grad_cam.engine.layouts import covers
from pytorch_grad_cam.engine.maps import full_precision


class BiasGradients:
    """Records the biases of a forward pass that are added to channels of several positions: of convolutions, of batch
    and layer normalisations, of linear layers behind which the channels are the last axis. In the order of execution.

    It watches the calls of `F.conv2d`, `F.layer_norm` and their kin, not modules: subclasses, layers that are reused
    or skipped, and functional calls are all read as they were executed; so is a parameter or buffer of one value a
    channel that is added to a map, as converted graphs add their biases. The calls of other threads are not seen.

    Used in a call in the place of `engine.capture.Capture`.
    """

    def __init__(self, model: nn.Module, *_: Any) -> None:
        self.runs: Sequence[tuple[nn.Module, Any]] = ()
        self._model = model
        self._edges: list[GradientEdge] = []
        self._added: list[Added] = []
        self.leaves_out_tokens = False  # whether the last forward added biases to tokens (N, T, C)

    def __enter__(self) -> BiasGradients:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to remove: no hooks are registered."""

    def run(self, inputs: Inputs) -> Any:
        """Run the model and keep its biases. Cost: one forward with its graph."""

        def keep(result: torch.Tensor, added: Added) -> None:
            if result.requires_grad:
                # An edge, not the tensor: what happens to the tensor in place behind it does not move the edge.
                self._edges.append(get_gradient_edge(result))
                self._added.append(added)

        with BiasWatch(self._model, keep) as watch, torch.enable_grad():
            outputs = call(self._model, inputs)
        self.leaves_out_tokens = watch.sees_tokens
        return outputs

    def differentiate(
        self, score: torch.Tensor, keep_graph: bool = False, inputs: Sequence[torch.Tensor] = ()
    ) -> tuple[list[tuple[int, Any]], Sequence[torch.Tensor | None]]:
        """Each bias that the score depends on by way of the inputs: its number in the order of execution, and what
        `contribution` keeps of it. And the gradients with respect to `inputs`, the image first. Cost: one whole
        backward.

        Raises ValueError when no gradient leads from the score to the inputs.
        """
        arrived: dict[int, Any] = {}

        biases = biases_of(self._added)

        def keep(index: int, gradients: tuple[torch.Tensor | None, ...]) -> None:
            gradient = gradients[self._edges[index].output_nr]
            if gradient is not None and _may_be_map(self._added[index], gradient, inputs):
                arrived[index] = self.contribution(biases[index], channels_first(gradient, self._added[index]))

        handles = [edge.node.register_prehook(partial(keep, index)) for index, edge in enumerate(self._edges)]
        found: Sequence[torch.Tensor | None] = [None]
        try:
            if score.requires_grad:
                with torch.autocast(score.device.type, enabled=False):  # what is made of the gradients is not rounded
                    found = torch.autograd.grad(score, inputs, allow_unused=True, retain_graph=keep_graph)
        finally:
            for handle in handles:
                handle.remove()
        if found[0] is None:
            raise ValueError("no gradient leads from the score to the input: the model detaches what it computes")
        return sorted(arrived.items()), found

    def contribution(self, bias: torch.Tensor, gradient: torch.Tensor) -> Any:
        """What is kept of a bias (C,) and the score's gradient (N, C, *spatial) at the positions that it was added to.

        Here both. A subclass that keeps less saves the memory of the gradients, which arrive one by one.
        """
        return bias, gradient


def _may_be_map(added: Added, gradient: torch.Tensor, inputs: Sequence[torch.Tensor]) -> bool:
    """Whether a bias of the last axis was added to the cells of the image, the first input, as far as their number
    says: not to each attention head's tokens. What is added to the second axis says so by its operation.
    """
    if not isinstance(added, OfLastAxis):
        return True
    image, grid = inputs[0].shape[2:], gradient.shape[1:-1]
    return len(grid) == len(image) and covers(tuple(grid), image)


class Normalisation(NamedTuple):
    """A batch normalisation by fixed statistics, each of (C,)."""

    mean: torch.Tensor
    variance: torch.Tensor
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    eps: float


class OfLastAxis(NamedTuple):
    """A bias (C,) of channels that are the last axis."""

    bias: torch.Tensor


class OfTokens(NamedTuple):
    """A bias (C,) of tokens (N, T, C): of several, whose places nothing tells here."""


Added = torch.Tensor | Normalisation | OfLastAxis


def channels_first(result: torch.Tensor, added: Added) -> torch.Tensor:
    """What a bias was added to, or the gradient there, as (N, C, *spatial)."""
    return result.movedim(-1, 1) if isinstance(added, OfLastAxis) else result


def biases_of(added: Sequence[Added]) -> list[torch.Tensor]:
    r"""What each adds to its channels: a bias itself; a normalisation what it makes of zeros,
    $\beta - \gamma \mu / \sqrt{\sigma^2 + \epsilon}$. Those with the same eps are computed together.
    """
    biases = [each.mean if isinstance(each, Normalisation) else _own_bias(each).detach() for each in added]
    of_eps: dict[float, list[int]] = {}
    for place, each in enumerate(added):
        if isinstance(each, Normalisation):
            of_eps.setdefault(each.eps, []).append(place)
    for eps, places in of_eps.items():
        found = _made_of_zeros([added[place] for place in places], eps)
        for place, shift in zip(places, found, strict=True):
            biases[place] = shift
    return biases


def _own_bias(added: torch.Tensor | OfLastAxis) -> torch.Tensor:
    return added.bias if isinstance(added, OfLastAxis) else added


def _made_of_zeros(normalisations: Sequence[Any], eps: float) -> list[torch.Tensor]:
    columns = [
        (
            mean,
            variance,
            mean.new_ones(len(mean)) if weight is None else weight,
            torch.zeros_like(mean) if bias is None else bias,
        )
        for mean, variance, weight, bias, _ in normalisations
    ]
    mean, variance, weight, bias = (full_precision(torch.cat(parts).detach()) for parts in zip(*columns, strict=True))
    shifts = F.batch_norm(mean.new_zeros(1, len(mean)), mean, variance, weight, bias, False, 0, eps)[0]
    return list(shifts.split([len(each.mean) for each in normalisations]))


class BiasWatch(TorchFunctionMode):
    """Hands on the result of each operation by which a model adds a bias, and what it adds; but those of tokens, of
    which `sees_tokens` says whether there were any.
    """

    def __init__(self, model: nn.Module, keep: Callable[[torch.Tensor, Added], None]) -> None:
        super().__init__()
        self.keep, self.sees_tokens = keep, False
        self._own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Where a model runs its backbone under no_grad, the graph must reach through it.
        if function is torch._C._set_grad_enabled:
            return None
        result = function(*args, **(kwargs or {}))
        adds = _ADDS.get(function)
        added = None if adds is None else adds(*args, **(kwargs or {}))
        if isinstance(added, OfTokens):
            self.sees_tokens |= result.requires_grad
        elif added is not None and not (adds is _sum_adds and self._is_foreign(added)):
            self.keep(result, added)
        return result

    def _is_foreign(self, added: Any) -> bool:
        bias = _own_bias(added)
        return bias.untyped_storage().data_ptr() not in self._own


def _convolution_adds(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *_: Any, **__: Any
) -> torch.Tensor | None:
    return bias if input.ndim == weight.ndim else None  # not of one sample without a batch


def _batch_norm_adds(
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Added | None:
    if training or running_mean is None or running_var is None:
        return bias
    return Normalisation(running_mean, running_var, weight, bias, eps)


def _layer_norm_adds(
    input: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Added | OfTokens | None:
    """What it subtracts depends on the input and is no bias."""
    return _of_last_axis(input, bias if len(normalized_shape) == 1 else None)


def _linear_adds(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> Added | OfTokens | None:
    return _of_last_axis(input, bias)


def _of_last_axis(input: torch.Tensor, bias: torch.Tensor | None) -> OfLastAxis | OfTokens | None:
    """None for features (N, C), which are no map, and for a single token."""
    if bias is None or input.ndim < _NDIM_OF_TOKENS:
        return None
    if input.ndim == _NDIM_OF_TOKENS:
        return OfTokens() if input.shape[1] > 1 else None
    return OfLastAxis(bias)


def _sum_adds(input: Any, other: Any, *, alpha: float = 1, **_: Any) -> Any:
    """The one of two tensors (C,) that has a value for each channel of the other, which are its second axis or, in
    converted graphs, its last one.
    """
    if not isinstance(input, torch.Tensor) or not isinstance(other, torch.Tensor) or alpha != 1:
        return None
    bias, maps = sorted((input, other), key=torch.numel)
    sizes = (1,) * (maps.ndim - bias.ndim) + bias.shape
    of_channels = (1, *maps.shape[1:2], *(1,) * (maps.ndim - 2))
    if bias.numel() == maps.numel() or maps.ndim < _NDIM_OF_TOKENS:
        return None
    if sizes == of_channels:
        return bias.flatten()
    is_of_last = maps.ndim > _NDIM_OF_TOKENS and sizes == (*(1,) * (maps.ndim - 1), maps.shape[-1])
    return OfLastAxis(bias.flatten()) if is_of_last else None


_NDIM_OF_TOKENS = 3  # (N, T, C)

_ADDS: dict[Callable[..., torch.Tensor], Callable[..., Added | OfTokens | None]] = {
    F.conv1d: _convolution_adds,
    F.conv2d: _convolution_adds,
    F.conv3d: _convolution_adds,
    F.conv_transpose1d: _convolution_adds,
    F.conv_transpose2d: _convolution_adds,
    F.conv_transpose3d: _convolution_adds,
    F.batch_norm: _batch_norm_adds,
    F.layer_norm: _layer_norm_adds,
    F.linear: _linear_adds,
    **dict.fromkeys((torch.add, torch.Tensor.add, torch.Tensor.add_), _sum_adds),
}
