"""Rules: the centres of each operation's output from those of its inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from pytorch_grad_cam.registration.centres import Axis, Centres, along_image, along_nothing

aten = torch.ops.aten
Rule = Callable[..., Centres | None]
# In cells. Follows from the definition: k x k neighbours joined as channels lie up to (k - 1) / k apart.
_SAME_CELL = 1


class CentresWatch(TorchDispatchMode):
    """Within, it follows the centres of the tensors that are computed from an image, as far as they are exact.

    They are exact through convolutions, pooling, padding, slices, reshapes, permutations, interpolation, concatenation,
    and operations that work entry by entry or over channels. Where branches join, those that mix all places (attention,
    gates) do not count. For calls without gradients, where tensors keep their identity.
    """

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        axes = [along_image(axis, size, 1.0) for axis, size in enumerate(image.shape[2:])]
        centres = Centres((along_nothing(image.shape[0]), along_nothing(image.shape[1]), *axes), (0.0,) * len(axes))
        # Held weakly: torch 2.4 cannot return a tensor made by ones_like and its kin that something else holds.
        self._known: Any = WeakTensorKeyDictionary({image: centres})

    def of(self, tensor: Any) -> Centres | None:
        """The centres of a tensor that was computed within; None where they are not known."""
        return self._known[tensor] if self.depends(tensor) else None

    def depends(self, tensor: Any) -> bool:
        """Whether a tensor was computed from the image."""
        return isinstance(tensor, torch.Tensor) and tensor in self._known

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = _RULES.get(function.overloadpacket, _entry_by_entry if _is_pointwise(function) else None)
        if rule is None:
            with self:
                result = function.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = function(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        read = [leaf for leaf in tree_leaves((args, kwargs)) if self.depends(leaf)]
        knows = rule is not None and any(self.of(leaf) is not None for leaf in read)
        for output in outputs if read else []:
            self._known[output] = rule(self, output, *args, **kwargs) if rule and knows else None
        return result


def _is_pointwise(function: Any) -> bool:
    """Whether an operation works entry by entry; only the tags of the variant that is not in place say so."""
    out_of_place = getattr(aten, function.overloadpacket.__name__.removesuffix("_"), function.overloadpacket)
    return torch.Tag.pointwise in getattr(out_of_place, out_of_place.overloads()[0]).tags


def _entry_by_entry(watch: "CentresWatch", output: torch.Tensor, *args: Any, **kwargs: Any) -> Centres | None:
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    return Centres.agreed([watch.of(tensor) for tensor in inputs if tensor.shape == output.shape])


def _unchanged(watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, *_: Any, **__: Any) -> Centres | None:
    return watch.of(x) if output.shape == x.shape else None


def _convolution(
    watch: "CentresWatch",
    output: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    *_: Any,
) -> Centres | None:
    centres = watch.of(x)
    if centres is None or watch.depends(weight) or output.ndim != x.ndim:
        return None
    joined = centres.joined(1, along_nothing(output.shape[1]))
    return _windows(joined, output, weight.shape[2:], stride, padding, dilation, transposed)


def _pooling(
    watch: "CentresWatch",
    output: torch.Tensor,
    x: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] | bool = (1,),
    *_: Any,
    **__: Any,
) -> Centres | None:
    dilation = (1,) if isinstance(dilation, bool) else dilation  # average pooling has ceil_mode here
    return _windows(watch.of(x), output, kernel, stride or kernel, padding, dilation)


def _adaptive_pooling(watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, *_: Any) -> Centres | None:
    sizes = [before / after for before, after in zip(x.shape[2:], output.shape[2:], strict=True)]
    return _windows(watch.of(x), output, sizes, sizes, (0,), (1,))


def _windows(
    centres: Centres | None,
    output: torch.Tensor,
    kernel: Sequence[float],
    stride: Sequence[float],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool = False,
) -> Centres | None:
    """The centres of windows that move over the axes behind batch and channels.

    Entry i reads from stride * i - padding on; transposed, entry i of the input is written there.
    """
    for axis in range(output.ndim - 2):
        k, s, p, d = (values[axis % len(values)] for values in (kernel, stride, padding, dilation))
        if centres is not None and (transposed or (k, s, p) != (1, 1, 0)):
            start = d * (k - 1) / 2 - p
            start, step = (-start / s, 1 / s) if transposed else (start, s)
            centres = _spaced(centres, axis + 2, output.shape[axis + 2], start, step)
    return centres


def _spaced(centres: Centres, position: int, size: int, start: float, step: float) -> Centres | None:
    """The centres with an axis whose entry i lies where entry start + i * step of it lay."""
    if centres.axes[position].size == size == 1:
        return centres
    stretch = centres.along(position)
    if stretch is None or stretch.image_axis is None:
        return None
    moved = centres.moved(stretch.image_axis, start * stretch.step)
    return moved.with_axis(position, along_image(stretch.image_axis, size, step * stretch.step))


def _padding(
    watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, padding: Sequence[int], *_: Any
) -> Centres | None:
    centres = watch.of(x)
    for pair, before in enumerate(padding[::2]):
        position = x.ndim - 1 - pair
        if centres is not None and (before or padding[2 * pair + 1]):
            centres = _cut(centres, position, -before, 1, output.shape[position])
    return centres


def _slice(
    watch: "CentresWatch",
    output: torch.Tensor,
    x: torch.Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Centres | None:
    centres = watch.of(x)
    first, _, _ = slice(start, end, step).indices(x.shape[dim])
    return None if centres is None else _cut(centres, dim % x.ndim, first, step, output.shape[dim])


def _cut(centres: Centres, position: int, start: int, step: int, size: int) -> Centres | None:
    axis = centres.axes[position]
    if (start, step, size) == (0, 1, axis.size):
        return centres
    if axis.extra:
        drops_only_extra = start == axis.extra and size == axis.size - start
        return centres.with_axis(position, Axis(axis.stretches)) if drops_only_extra else None
    if not axis.of_image:
        return centres.with_axis(position, along_nothing(size))
    return _spaced(centres, position, size, start, step)


def _split(watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, _: Any, dim: int = 0) -> Centres | None:
    centres = watch.of(x)
    if centres is None or centres.axes[dim].of_image:
        return None
    return centres.with_axis(dim % x.ndim, along_nothing(output.shape[dim]))


def _without(watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, dim: int = 0, *_: Any) -> Centres | None:
    """The rule of taking one entry of an axis, which drops the axis."""
    centres = watch.of(x)
    return None if centres is None or centres.axes[dim].of_image else centres.with_axis(dim % x.ndim)


def _reduction(
    watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, dims: Any = (), keepdim: bool = False, **_: Any
) -> Centres | None:
    if isinstance(dims, torch.Tensor):  # torch.max of two maps
        return _entry_by_entry(watch, output, x, dims)
    centres = watch.of(x)
    dropped = {dim % x.ndim for dim in ([dims] if isinstance(dims, int) else dims or range(x.ndim))}
    for dim in sorted(dropped, reverse=True):
        if centres is not None:
            centres = None if centres.axes[dim].of_image else centres.with_axis(dim, *[along_nothing(1)] * keepdim)
    return centres


def _concatenation(
    watch: "CentresWatch", output: torch.Tensor, tensors: Sequence[torch.Tensor], dim: int = 0
) -> Centres | None:
    dim = dim % output.ndim
    placed = [(index, watch.of(tensor)) for index, tensor in enumerate(tensors)]
    placed = [(index, centres) for index, centres in placed if centres is not None]
    if not placed:
        return None
    if any(centres.axes[dim].of_image for _, centres in placed if centres is not None):
        (index, centres), *others = placed
        before = sum(tensor.shape[dim] for tensor in tensors[:index])
        if others or centres is None or index + 1 < len(tensors):
            return None
        return centres.with_axis(dim, centres.axes[dim]._replace(extra=centres.axes[dim].extra + before))
    joined = along_nothing(output.shape[dim])
    return Centres.agreed(
        [centres.with_axis(dim, joined) for _, centres in placed if centres is not None], apart=_SAME_CELL
    )


def _reshape(watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, *_: Any) -> Centres | None:
    centres = watch.of(x)
    return None if centres is None else centres.reshaped(output.shape)


def _permutation(watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, dims: Sequence[int]) -> Centres | None:
    centres = watch.of(x)
    return None if centres is None else centres.with_axes([centres.axes[dim] for dim in dims])


def _transposition(
    watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, a: int = 0, b: int = -1
) -> Centres | None:
    dims = list(range(x.ndim))
    dims[a], dims[b] = dims[b], dims[a]
    return _permutation(watch, output, x, dims)


def _pixels_as_channels(watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, factor: int) -> Centres | None:
    *batch, channels, height, width = x.shape
    centres = watch.of(x)
    if centres is not None and len(batch) == 1:
        centres = centres.reshaped((*batch, channels, height // factor, factor, width // factor, factor))
        if centres is not None:
            return centres.with_axes([centres.axes[dim] for dim in (0, 1, 3, 5, 2, 4)]).reshaped(output.shape)
    return None


def _expansion(watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, *_: Any, **__: Any) -> Centres | None:
    centres = watch.of(x)
    if centres is None:
        return None
    added = [along_nothing(size) for size in output.shape[: output.ndim - x.ndim]]
    sizes = output.shape[output.ndim - x.ndim :]
    kept = [a if a.size == size else along_nothing(size) for a, size in zip(centres.axes, sizes, strict=True)]
    return centres.with_axes([*added, *kept])


def _product(watch: "CentresWatch", output: torch.Tensor, a: torch.Tensor, b: torch.Tensor, **_: Any) -> Centres | None:
    """The rule of products of matrices, one of which does not depend on the image."""
    left, right = watch.of(a), watch.of(b)
    if left is not None and not watch.depends(b):
        return left.joined(a.ndim - 1, along_nothing(output.shape[-1]))
    if right is not None and not watch.depends(a):
        return right.joined(b.ndim - 2, along_nothing(output.shape[-2]))
    return None


def _sum_and_product(watch: "CentresWatch", output: torch.Tensor, _: Any, a: Any, b: Any, **__: Any) -> Centres | None:
    return _product(watch, output, a, b)


def _linear(watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, *_: Any) -> Centres | None:
    centres = watch.of(x)
    return None if centres is None else centres.joined(x.ndim - 1, along_nothing(output.shape[-1]))


def _interpolation(watch: "CentresWatch", output: torch.Tensor, x: torch.Tensor, *options: Any) -> Centres | None:
    """The rule of resizing: the same part of the image is covered; with `align_corners` the outermost centres stay."""
    centres = watch.of(x)
    aligned = any(option is True for option in options)
    for position in range(2, x.ndim):
        before, after = x.shape[position], output.shape[position]
        if centres is not None and before != after:
            step = (before - 1) / max(after - 1, 1) if aligned else before / after
            centres = _spaced(centres, position, after, 0 if aligned else (step - 1) / 2, step)
    return centres


def _named(rule: Rule, *names: str) -> dict[Any, Rule]:
    return {getattr(aten, name): rule for name in names if hasattr(aten, name)}


_RULES: dict[Any, Rule] = {
    **_named(_convolution, "convolution"),
    **_named(_pooling, *(f"{kind}_pool{rank}d" for kind in ("max", "avg") for rank in (1, 2, 3))),
    **_named(_pooling, "max_pool2d_with_indices", "max_pool3d_with_indices"),
    **_named(_adaptive_pooling, "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d"),
    **_named(_padding, "constant_pad_nd"),
    **_named(_padding, *(f"{kind}_pad{rank}d" for kind in ("reflection", "replication") for rank in (1, 2, 3))),
    **_named(_slice, "slice"),
    **_named(_split, "split", "split_with_sizes", "chunk"),
    **_named(_without, "select", "unbind"),
    **_named(_reduction, "mean", "sum", "amax", "max"),
    **_named(_concatenation, "cat"),
    **_named(_reshape, "view", "_unsafe_view", "_reshape_alias", "squeeze", "unsqueeze"),
    **_named(_pixels_as_channels, "pixel_unshuffle"),
    **_named(_permutation, "permute"),
    **_named(_transposition, "transpose", "t"),
    **_named(_expansion, "expand"),
    **_named(_product, "mm", "bmm"),
    **_named(_sum_and_product, "addmm", "baddbmm"),
    **_named(_linear, "linear"),
    **_named(_interpolation, *(f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "nearest3d"))),
    **_named(_interpolation, *(f"upsample_{kind}" for kind in ("linear1d", "bilinear2d", "trilinear3d", "bicubic2d"))),
    **_named(_unchanged, "native_layer_norm", "native_batch_norm", "native_group_norm", "cudnn_batch_norm"),
    **_named(_unchanged, "_native_batch_norm_legit_no_training", "_batch_norm_with_update", "native_dropout"),
    **_named(_unchanged, "hardswish", "hardswish_", "_prelu_kernel"),
    **_named(
        _unchanged, "_softmax", "_log_softmax", "clone", "_to_copy", "contiguous", "alias", "detach", "lift_fresh"
    ),
}
