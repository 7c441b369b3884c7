"""DeepLIFT (Shrikumar et al. 2017, arXiv:1704.02685): what each input of a computation adds to its result.

A computation is run twice, with a reference and with what is explained. Backwards each function has, instead of its
derivative, how much its result changed between the two, divided by how much its input did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from pytorch_grad_cam.attention.attentions import attention_scores, for_each_head
from pytorch_grad_cam.engine.torch_quirks.as_written import as_written

Tensor = torch.Tensor


class Pair(NamedTuple):
    """A value in both runs. That of what is explained is in the graph."""

    here: Tensor
    reference: Tensor

    def linear(self, function: Callable[[Tensor], Tensor]) -> Pair:
        """Of both what an affine function gives: its own derivative is right."""
        return Pair(function(self.here), function(self.reference))


class _WithMultiplier(torch.autograd.Function):
    """A value whose derivative is a multiplier."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, multiplier: Tensor) -> Tensor:
        ctx.save_for_backward(multiplier)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.saved_tensors[0], None, None


def rescaled(function: Callable[[Tensor], Tensor], x: Pair) -> Pair:
    r"""A function of each number alone by the rescale rule (eq. 10): its multiplier is $\Delta y / \Delta x$.

    Where x is the same in both runs it is the derivative.
    """
    with torch.enable_grad():
        leaf = x.here.detach().requires_grad_()
        value = function(leaf)
        (derivative,) = torch.autograd.grad(value.sum(), leaf)
    reference = function(x.reference)
    change = leaf.detach() - x.reference
    is_same = change.abs() <= torch.finfo(change.dtype).eps * leaf.detach().abs()
    multiplier = torch.where(is_same, derivative, (value.detach() - reference) / change.masked_fill(is_same, 1))
    result: Tensor = _WithMultiplier.apply(x.here, value.detach(), multiplier)
    return Pair(result, reference)


def multiplied(function: Callable[[Tensor, Tensor], Tensor], x: Pair, y: Pair) -> Pair:
    r"""A function that is linear in each of two factors: $\Delta(xy) = \bar y \Delta x + \bar x \Delta y$.

    With the means of both runs; the terms are the Shapley values of the two factors.
    """
    mean_x, mean_y = ((each.here.detach() + each.reference) / 2 for each in (x, y))
    changing = function(x.here, mean_y) + function(mean_x, y.here)
    value = function(x.here.detach(), y.here.detach())
    return Pair(changing + (value - changing).detach(), function(x.reference, y.reference))


def scaled(x: Pair, factor: Pair) -> Pair:
    r"""x times the reciprocal of a norm or a sum of x: $q_a \Delta x + x_b \Delta q$, a the run whose |q| is smaller.

    The mean of both runs would have terms that cancel out, as large as the reciprocal of nearly nothing: a reference of
    zeros has no norm.
    """
    q, q0 = factor.here.detach(), factor.reference
    is_smaller = q.abs() <= q0.abs()
    changing = (
        torch.where(is_smaller, q, q0) * x.here + torch.where(is_smaller, x.reference, x.here.detach()) * factor.here
    )
    return Pair(changing + (x.here.detach() * q - changing).detach(), x.reference * q0)


def softmax(x: Pair, axis: int) -> Pair:
    """The exponential and the reciprocal of its sum by the rescale rule, and their product."""
    shift = torch.maximum(x.here.detach(), x.reference).amax(axis, keepdim=True)
    least = math.log(torch.finfo(shift.dtype).tiny)  # what is masked has a logit of minus infinity
    powers = rescaled(torch.exp, x.linear(lambda each: (each - shift).clamp(min=least)))
    total = powers.linear(lambda each: each.sum(axis, keepdim=True))
    return scaled(powers, rescaled(torch.reciprocal, total))


def normalised(x: Pair, axes: tuple[int, ...], eps: float) -> Pair:
    """Less the mean over the axes, and divided by the standard deviation."""
    centred = x.linear(lambda each: each - each.mean(axes, keepdim=True))
    variance = rescaled(torch.square, centred).linear(lambda each: each.mean(axes, keepdim=True) + eps)
    return scaled(centred, rescaled(torch.rsqrt, variance))


def highest(x: Pair, pool: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Pair:
    """Max-pooling: what the highest value rose to belongs to where it is, what it fell from to where it was.

    pool: from (N, C, *spatial) to the highest value of each window, and where it is among all positions.
    """
    (value, place), (reference, earlier) = pool(x.here.detach()), pool(x.reference)
    of_both = torch.maximum(value, reference)
    result = value
    for where, change in ((place, of_both - reference), (earlier, value - of_both)):
        here, there = (_taken(each, where) for each in x)
        moved = here.detach() - there
        multiplier = change / moved.masked_fill(moved == 0, 1)
        result = result + _WithMultiplier.apply(here, torch.zeros_like(value), multiplier)
    return Pair(result, reference)


def _taken(values: Tensor, places: Tensor) -> Tensor:
    return values.flatten(2).gather(2, places.flatten(2)).reshape(places.shape)


class _Watch(TorchFunctionMode):
    """Within, what is not linear in what depends on the layer is seen; what consists of such functions is unfolded."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _WRITTEN:
            with self:
                return _WRITTEN[function](*args, **kwargs)
        rule = _RULES.get(function)
        operands = args[: rule.operands] if rule else ()
        if rule is None or len(operands) < rule.operands or not all(map(_depends, operands)):
            return function(*args, **kwargs)
        return self.met(function, rule, operands, args[rule.operands :], kwargs)

    def met(self, function: Any, rule: Rule, operands: Sequence[Tensor], args: Any, kwargs: dict[str, Any]) -> Any:
        """What the function gives; args, kwargs: besides the operands."""
        raise NotImplementedError


class Reference(_Watch):
    """Within, a computation is run with the reference; what its functions were given is kept for `Lifted`."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[Any, list[Tensor]]] = []

    def met(self, function: Any, rule: Rule, operands: Sequence[Tensor], args: Any, kwargs: dict[str, Any]) -> Any:
        self.given.append((function, [operand.detach().clone() for operand in operands]))
        return function(*operands, *args, **kwargs)


class Lifted(_Watch):
    """Within, a computation is run with what is explained: derivatives taken of it are DeepLIFT's multipliers.

    reference: of the same computation. Raises ValueError where it is another one. A function that is not known here
    keeps its derivative; contributions then do not add up to the change of the result.
    """

    def __init__(self, reference: Reference) -> None:
        super().__init__()
        self._given = iter(reference.given)

    def met(self, function: Any, rule: Rule, operands: Sequence[Tensor], args: Any, kwargs: dict[str, Any]) -> Any:
        at_reference, references = next(self._given, (None, []))
        if at_reference is not function or [each.shape for each in references] != [each.shape for each in operands]:
            raise ValueError(
                "DeepLIFT compares two runs of the model's part behind the layer, one of them with zeros, but they "
                "computed different things: take AblationCAM, which only asks for the score"
            )
        in_place = kwargs.pop("inplace", False) or function in _IN_PLACE
        pairs = [Pair(*pair) for pair in zip(operands, references, strict=True)]
        result = rule.apply(_IN_PLACE.get(function, function), *pairs, *args, **kwargs).here
        return operands[0].copy_(result) if in_place else result


class Rule(NamedTuple):
    """How many of a function's arguments it is not linear in, and what it gives: apply(function, pairs, arguments)."""

    operands: int
    apply: Callable[..., Pair]


def _depends(operand: Any) -> bool:
    return isinstance(operand, Tensor) and operand.requires_grad


def _each(function: Any, x: Pair, *args: Any, **kwargs: Any) -> Pair:
    return rescaled(lambda values: function(values, *args, **kwargs), x)


def _product(function: Any, x: Pair, y: Pair) -> Pair:
    return multiplied(function, x, y)


def _softmax(function: Any, x: Pair, dim: Any = None, *_: Any, dtype: Any = None, **named: Any) -> Pair:
    return softmax(x if dtype is None else x.linear(lambda each: each.to(dtype)), named.get("axis", dim))


def _highest(
    with_indices: Any, function: Any, x: Pair, *args: Any, return_indices: bool = False, **kwargs: Any
) -> Pair:
    return highest(x, lambda values: with_indices(values, *args, **kwargs))


def _divided(x: Any, y: Any) -> Any:
    return x * (torch.reciprocal(y) if isinstance(y, Tensor) else 1 / y)


def _layer_norm(
    function: Any, x: Pair, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Pair:
    found = normalised(x, tuple(range(-len(shape), 0)), eps)
    return found.linear(lambda each: _affine(each, weight, bias))


def _group_norm(function: Any, x: Pair, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Pair:
    shape = x.here.shape
    found = normalised(x.linear(lambda each: each.reshape(len(each), groups, -1)), (2,), eps)
    of_channels = [each if each is None else each.reshape(-1, *[1] * (len(shape) - 2)) for each in (weight, bias)]
    return found.linear(lambda each: _affine(each.reshape(shape), *of_channels))


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        key, value = for_each_head(key, query), for_each_head(value, query)
    return torch.softmax(attention_scores(query, key, attn_mask, is_causal, scale), -1) @ value


def _named(*names: str) -> set[Any]:
    """The functions of these names, of PyTorch, its tensors and its networks."""
    return {getattr(room, name) for room in (torch, Tensor, F) for name in names if hasattr(room, name)}


_EACH = (
    "abs", "celu", "clamp", "clamp_max", "clamp_min", "cos", "elu", "erf", "exp", "expm1", "gelu", "hardshrink",
    "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log", "log1p", "logsigmoid", "mish", "reciprocal", "relu",
    "relu6", "rsqrt", "selu", "sigmoid", "silu", "sin", "softplus", "softshrink", "softsign", "sqrt", "square", "tanh",
    "tanhshrink",
)  # fmt: skip
_PRODUCTS = ("mul", "multiply", "__mul__", "__rmul__", "matmul", "__matmul__", "bmm")
# Functions that write into their first argument, with those that do not.
_IN_PLACE = {
    getattr(room, f"{name}_"): getattr(torch, name, None) or getattr(F, name)
    for room in (torch, Tensor, F)
    for name in (*_EACH, "mul")
    if hasattr(room, f"{name}_")
} | {Tensor.__imul__: torch.mul}
_RULES: dict[Any, Rule] = {
    **dict.fromkeys(_named(*_EACH), Rule(1, _each)),
    **{function: Rule(1, _each) for function, plain in _IN_PLACE.items() if plain is not torch.mul},
    **dict.fromkeys(_named("pow", "__pow__"), Rule(1, _each)),
    **dict.fromkeys(_named(*_PRODUCTS, "mul_", "__imul__"), Rule(2, _product)),
    **dict.fromkeys(_named("softmax"), Rule(1, _softmax)),
    **dict.fromkeys(_named("layer_norm"), Rule(1, _layer_norm)),
    **dict.fromkeys(_named("group_norm"), Rule(1, _group_norm)),
    **{
        function: Rule(1, partial(_highest, getattr(F, f"{name}_with_indices")))
        for name in (f"{kind}max_pool{rank}d" for kind in ("", "adaptive_") for rank in (1, 2, 3))
        for function in _named(name)
    },
}
_WRITTEN = {
    **dict.fromkeys(_named("div", "divide", "true_divide", "__truediv__"), _divided),
    **dict.fromkeys(_named("__rtruediv__", "__rdiv__"), lambda x, y: _divided(y, x)),
    F.scaled_dot_product_attention: _attention,
    F.multi_head_attention_forward: as_written(F.multi_head_attention_forward),
}
