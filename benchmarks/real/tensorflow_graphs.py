"""A graph of TensorFlow.js (a .json file and its weights) as a `torch.fx.GraphModule`, node for node.

Values keep TensorFlow's layout, images (N, H, W, C); convolutions and poolings are modules between two permutations.
Known are the operations of the networks that are measured here, and with the attributes that they have there.
"""

from __future__ import annotations

import json
import math
import operator
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F


def load_graph(file: Path, outputs: Sequence[str], channels_last: bool) -> fx.GraphModule:
    """The module from images (N, C, H, W) to the nodes `outputs`, a tuple of tensors.

    channels_last: whether the graph itself takes images (N, H, W, C). Raises KeyError for an operation that is not
    known.
    """
    described = json.loads(file.read_text())
    nodes = {node["name"]: node for node in described["modelTopology"]["node"]}
    translation = _Translation(nodes, _weights(file.parent, described["weightsManifest"]), channels_last)
    translation.graph.output(tuple(map(translation.value, outputs)))
    return fx.GraphModule(translation.modules, translation.graph).eval()


def _weights(folder: Path, manifest: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    data = b"".join((folder / name).read_bytes() for group in manifest for name in group["paths"])
    found, start = {}, 0
    for described in (weight for group in manifest for weight in group["weights"]):
        stored = np.dtype(described.get("quantization", described)["dtype"])
        count = math.prod(described["shape"])
        values = np.frombuffer(data, stored, count, start).reshape(described["shape"])
        found[described["name"]] = values.astype(described["dtype"])
        start += count * stored.itemsize
    return found


class _Translation:
    """The graph so far, and for each of TensorFlow's nodes what it became."""

    def __init__(self, nodes: dict[str, Any], constants: dict[str, np.ndarray], channels_last: bool) -> None:
        self.graph, self.modules = fx.Graph(), nn.Module()
        self._nodes, self._constants, self._channels_last = nodes, constants, channels_last
        self._made: dict[str, Any] = {}

    def value(self, name: str) -> Any:
        """The node of an input's name, which may say which of several outputs it is."""
        plain, _, port = name.partition(":")
        if plain not in self._made:
            for of_input in self._missing_inputs(plain):
                self._made[of_input] = self._translated(of_input)
        made = self._made[plain]
        is_one_of_several = plain in self._nodes and self._nodes[plain]["op"] == "SplitV"
        return self.graph.call_function(operator.getitem, (made, int(port or 0))) if is_one_of_several else made

    def _missing_inputs(self, name: str) -> Iterator[str]:
        """What is not translated yet of a node and what it needs, each behind its own inputs."""
        waiting, seen = [(name, False)], set()
        while waiting:
            current, is_ready = waiting.pop()
            if is_ready:
                yield current
            elif current not in seen and current not in self._made:
                seen.add(current)
                waiting.append((current, True))
                waiting += [(_plain(each), False) for each in self._nodes[current].get("input", [])]

    def _translated(self, name: str) -> Any:
        node = self._nodes[name]
        if name in self._constants:
            return self._constant(name)
        return _OPERATIONS[node["op"]](self, name, node.get("attr", {}), *node.get("input", []))

    def _constant(self, name: str) -> Any:
        value = torch.from_numpy(np.array(self._constants[name]))
        if not value.is_floating_point():
            return value.tolist()
        return self.graph.get_attr(self._kept(name, nn.Buffer(value)))

    def _kept(self, name: str, member: nn.Module | nn.Buffer) -> str:
        """The attribute that a module or tensor becomes."""
        attribute = "".join(character if character.isalnum() else "_" for character in name)
        setattr(self.modules, attribute, member)
        return attribute

    def called(self, name: str, module: nn.Module, value: Any) -> Any:
        return self.graph.call_module(self._kept(name, module), (value,))

    def of_images(self, name: str, module: nn.Module, value: Any) -> Any:
        """A module that takes images (N, C, H, W)."""
        channels_first = self.graph.call_method("permute", (value, 0, 3, 1, 2))
        return self.graph.call_method("permute", (self.called(name, module, channels_first), 0, 2, 3, 1))

    def placeholder(self, name: str, attributes: dict[str, Any]) -> Any:
        images = self.graph.placeholder("images")
        return self.graph.call_method("permute", (images, 0, 2, 3, 1)) if self._channels_last else images

    def same(self, name: str, attributes: dict[str, Any], value: str) -> Any:
        return self.value(value)

    def convolution(self, name: str, attributes: dict[str, Any], value: str, kernel: str, *others: str) -> Any:
        depthwise = "Depthwise" in self._nodes[name]["op"]
        weight = torch.from_numpy(np.array(self._constants[kernel]))
        height, width, inputs, _ = weight.shape
        weight = weight.permute(2, 3, 0, 1).flatten(0, 1)[:, None] if depthwise else weight.permute(3, 2, 0, 1)
        behind = [b64decode(each).decode() for each in attributes.get("fused_ops", {}).get("list", {}).get("s", [])]
        stride, dilation = (_integers(attributes[key])[1:3] for key in ("strides", "dilations"))
        made = nn.Conv2d(
            inputs, len(weight), (height, width), stride, 0, dilation, inputs if depthwise else 1, "BiasAdd" in behind
        )
        made.weight = nn.Parameter(weight.contiguous())
        if made.bias is not None:
            made.bias = nn.Parameter(torch.from_numpy(np.array(self._constants[others[0]])))
        found = self.of_images(name, _padded(made, attributes), self.value(value))
        for function in behind:
            if function != "BiasAdd":
                found = self.called(f"{name}_{function}", _RECTIFIERS[function](), found)
        return found

    def pooling(self, name: str, attributes: dict[str, Any], value: str) -> Any:
        kernel, stride = (_integers(attributes[key])[1:3] for key in ("ksize", "strides"))
        return self.of_images(name, _padded(nn.MaxPool2d(kernel, stride), attributes), self.value(value))

    def rectifier(self, name: str, attributes: dict[str, Any], value: str) -> Any:
        slope = {"negative_slope": attributes["alpha"]["f"]} if "alpha" in attributes else {}
        return self.called(name, _RECTIFIERS[self._nodes[name]["op"]](**slope), self.value(value))

    def function(self, function: Callable[..., Any], name: str, attributes: dict[str, Any], *values: str) -> Any:
        return self.graph.call_function(function, tuple(map(self.value, values)))

    def concatenation(self, name: str, attributes: dict[str, Any], *values: str) -> Any:
        *parts, axis = map(self.value, values)
        return self.graph.call_function(torch.cat, (parts, axis))

    def split(self, name: str, attributes: dict[str, Any], *values: str) -> Any:
        return self.graph.call_function(torch.split, tuple(map(self.value, values)))

    def transposed(self, name: str, attributes: dict[str, Any], value: str, axes: str) -> Any:
        return self.graph.call_method("permute", (self.value(value), *self.value(axes)))

    def reshaped(self, name: str, attributes: dict[str, Any], value: str, shape: str) -> Any:
        return self.graph.call_method("reshape", (self.value(value), *self.value(shape)))

    def padding(self, name: str, attributes: dict[str, Any], value: str, by: str, *others: str) -> Any:
        amounts = [amount for of_axis in reversed(self.value(by)) for amount in of_axis]
        return self.graph.call_function(F.pad, (self.value(value), amounts, "constant", *map(self.value, others)))

    def dense(self, name: str, attributes: dict[str, Any], places: str, shape: str, values: str, default: str) -> Any:
        """A list that TensorFlow stores by the places that differ from its default."""
        found = np.full(self.value(shape), self.value(default))
        found[tuple(np.array(self.value(places), int).reshape(-1, found.ndim).T)] = self.value(values)
        return found.tolist()

    def sum(self, name: str, attributes: dict[str, Any], *values: str) -> Any:
        first, second = map(self.value, values)
        if isinstance(first, list):
            return (np.array(first) + np.array(second)).tolist()
        return self.graph.call_function(torch.add, (first, second))

    def mean(self, name: str, attributes: dict[str, Any], value: str, axes: str) -> Any:
        return self.graph.call_method("mean", (self.value(value), self.value(axes), attributes["keep_dims"]["b"]))

    def resized(self, name: str, attributes: dict[str, Any], value: str, size: str) -> Any:
        centred = attributes["half_pixel_centers"]["b"]
        return self.called(name, Resized(tuple(self.value(size)), centred), self.value(value))


class Resized(nn.Module):
    """Images (N, H, W, C), linearly resized. centred: whether pixel i is at i + 1/2, else the first at the first."""

    def __init__(self, size: tuple[int, int], centred: bool) -> None:
        super().__init__()
        self.size, self.centred = size, centred

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = images.permute(0, 3, 1, 2)
        if not self.centred:
            for axis, size in zip((2, 3), self.size, strict=True):
                maps = _stretched(maps.movedim(axis, -1), size).movedim(-1, axis)
            return maps.permute(0, 2, 3, 1)
        return F.interpolate(maps, self.size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


def _stretched(values: torch.Tensor, size: int) -> torch.Tensor:
    """The last axis with so many entries, entry i from i * old / new."""
    last = values.shape[-1] - 1
    places = torch.arange(size, device=values.device) * values.shape[-1] / size
    before = places.long()
    after, share = (before + 1).clamp(max=last), places - before
    return values[..., before] * (1 - share) + values[..., after] * share


class Padded(nn.Module):
    """TensorFlow's padding SAME: as many outputs as strides, what is odd of the padding at the end."""

    def __init__(self, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], value: float) -> None:
        super().__init__()
        self.axes, self.value = list(zip(kernel, stride, dilation, strict=True)), value

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        amounts: list[int] = []
        for size, (kernel, stride, dilation) in zip(images.shape[2:], self.axes, strict=True):
            missing = max((math.ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
            amounts = [missing // 2, missing - missing // 2, *amounts]
        return F.pad(images, amounts, value=self.value)


def _padded(module: nn.Conv2d | nn.MaxPool2d, attributes: dict[str, Any]) -> nn.Module:
    """The module with TensorFlow's padding; a convolution pads itself where both sides get the same."""
    if b64decode(attributes["padding"]["s"]) != b"SAME":
        return module
    is_pooling = isinstance(module, nn.MaxPool2d)
    dilation = (1, 1) if is_pooling else module.dilation
    spans = [by * (size - 1) for by, size in zip(dilation, module.kernel_size, strict=True)]
    if not is_pooling and module.stride == (1, 1) and not any(span % 2 for span in spans):
        module.padding = tuple(span // 2 for span in spans)
        return module
    return nn.Sequential(Padded(module.kernel_size, module.stride, dilation, -math.inf if is_pooling else 0.0), module)


def _plain(name: str) -> str:
    return name.partition(":")[0].lstrip("^")


def _integers(attribute: dict[str, Any]) -> tuple[int, ...]:
    return tuple(map(int, attribute["list"]["i"]))


_RECTIFIERS: dict[str, Callable[..., nn.Module]] = {"Relu": nn.ReLU, "Relu6": nn.ReLU6, "LeakyRelu": nn.LeakyReLU}
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Placeholder": _Translation.placeholder,
    "Identity": _Translation.same,
    **dict.fromkeys(
        ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"), _Translation.convolution
    ),
    "MaxPool": _Translation.pooling,
    **dict.fromkeys(_RECTIFIERS, _Translation.rectifier),
    **dict.fromkeys(("Add", "AddV2"), _Translation.sum),
    "Mul": lambda translation, *of_node: translation.function(torch.mul, *of_node),
    "Sigmoid": lambda translation, *of_node: translation.function(torch.sigmoid, *of_node),
    "ConcatV2": _Translation.concatenation,
    "SplitV": _Translation.split,
    "Transpose": _Translation.transposed,
    "Reshape": _Translation.reshaped,
    **dict.fromkeys(("Pad", "PadV2"), _Translation.padding),
    "SparseToDense": _Translation.dense,
    "Mean": _Translation.mean,
    "ResizeBilinear": _Translation.resized,
}
