"""Which versions of the image the layers in front of a map look at: itself, or what the model crops or warps of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.engine.trees import floating_tensors
from pytorch_grad_cam.engine.watch import Arguments, Watch
from pytorch_grad_cam.locate.inner_preprocessing import is_learned_alone


class Views(Watch):
    """Within, a forward for the image runs with its graph cut behind each learned module.

    What a learned module reads is a view of the image where it has the image's axes and as many channels and the graph
    leads from it to the image past all other learned modules; features are none. Nor are windows and tiles, which are
    folded into the batch.

    image: (1, C, *spatial), a leaf of the graph. layer: whose runs are asked about.
    """

    def __init__(self, model: nn.Module, image: torch.Tensor, layer: nn.Module) -> None:
        self._learned = {module for module in model.modules() if is_learned_alone(module)}
        super().__init__({*self._learned, layer})
        self._image, self._layer = image, layer
        # By the number of a cut: which other ones the module in front of it reads, and its view of the image.
        self._cuts: list[set[int]] = []
        self._views: dict[int, torch.Tensor] = {}
        self._numbers: dict[torch.Tensor, int] = {}
        self._runs: list[set[int]] = []

    def seen(self, module: nn.Module, inputs: Arguments, output: Any) -> Any:
        if module in self._learned:
            output = self._cut(inputs, output)
        if module is self._layer:
            self._runs.append(self._behind(output)[0])
        return output if module in self._learned else None

    def of_run(self, index: int) -> list[torch.Tensor]:
        """The views that the layer's run sees through learned modules none of which reads another view."""
        reached, stack = set(), [*self._runs[index]]
        while stack:
            number = stack.pop()
            if number not in reached:
                reached.add(number)
                stack.extend([] if number in self._views else self._cuts[number])
        return [self._views[number] for number in sorted(reached & self._views.keys())]

    def _cut(self, inputs: Arguments, output: Any) -> Any:
        """The output as leaves of the graph, which are known from now on."""
        number = len(self._cuts)
        of_others, sees_image = self._behind(inputs)
        self._cuts.append(of_others)
        read = next(iter(floating_tensors(inputs)), None)
        if (
            read is not None
            and sees_image
            and (*read.shape[:2], read.ndim) == (*self._image.shape[:2], self._image.ndim)
        ):
            self._views[number] = read.detach().clone()

        def leaf(tensor: torch.Tensor) -> torch.Tensor:
            if not tensor.is_floating_point():
                return tensor
            made = tensor.detach().requires_grad_()
            self._numbers[made] = number
            with torch.enable_grad():
                return made.clone()  # what follows may change it in place

        return tree_map_only(torch.Tensor, leaf, output)

    def _behind(self, tree: Any) -> tuple[set[int], bool]:
        """Which cuts the graph leads to from the tensors, and whether it leads to the image."""
        nodes = nodes_behind(*(tensor.grad_fn for tensor in floating_tensors(tree)))
        leaves = [node.variable for node in nodes if hasattr(node, "variable")]
        leaves += [tensor for tensor in floating_tensors(tree) if tensor.grad_fn is None]
        numbers = {self._numbers[leaf] for leaf in leaves if leaf in self._numbers}
        return numbers, any(leaf is self._image for leaf in leaves)
