"""Hooks of other packages in the place of ours: `cam.activations_and_grads = TheirActivationsAndGradients(...)`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients


class ForeignHooks:
    """An object of the form of grad-cam 1.x, in the form that BaseCAM works with.

    Called with the input it runs the model (and may process its output); a backward from the result fills `gradients`,
    one for each of `activations`, which belong to the target layers in their order.
    """

    def __init__(self, hooks: Any, model: nn.Module, target_layers: Sequence[nn.Module]) -> None:
        self.hooks = hooks
        self.model = model
        self.target_layers = target_layers
        self.reshape_transform = getattr(hooks, "reshape_transform", None)

    def capture(self, x: torch.Tensor, gradients: bool) -> Any:
        """What the hooks return for `x`. The graph begins at the input, for hooks that need one."""
        self.x = x if x.requires_grad or not gradients else x.detach().requires_grad_()
        with torch.set_grad_enabled(gradients):
            return self.hooks(self.x)

    def differentiate(
        self, score: torch.Tensor, inputs: Sequence[torch.Tensor] = (), keep_graph: bool = False
    ) -> list[torch.Tensor | None]:
        """A whole backward, which runs the tensor hooks on its way; no `.grad` is written.

        Raises ValueError when it does not reach all layers that were captured.
        """
        if keep_graph:
            raise ValueError(f"{type(self.hooks).__name__} takes one target an image: call the CAM once for each")
        sources = [self.x, *(parameter for parameter in self.model.parameters() if parameter.requires_grad)]
        gradients = torch.autograd.grad(score, sources, allow_unused=True) if score.requires_grad else [None]
        if len(self.hooks.gradients) < len(self.hooks.activations):
            raise ValueError(
                f"{type(self.hooks).__name__} has {len(self.hooks.activations)} activations but "
                f"{len(self.hooks.gradients)} gradients: the score does not depend on all target layers"
            )
        return [gradients[0] for _ in inputs]

    @property
    def captured_layers(self) -> list[nn.Module]:
        return list(self.target_layers)[: len(self.hooks.activations)]

    @property
    def activations(self) -> list[torch.Tensor]:
        return [torch.as_tensor(activation) for activation in self.hooks.activations][: len(self.captured_layers)]

    @property
    def gradients(self) -> list[torch.Tensor]:
        return [torch.as_tensor(gradient) for gradient in self.hooks.gradients][: len(self.captured_layers)]

    def clear(self) -> None:
        """Ours forget what was captured, theirs keep what they like."""
        if isinstance(self.hooks, ActivationsAndGradients):
            self.hooks.clear()


def as_hooks(hooks: Any, model: nn.Module, target_layers: Sequence[nn.Module]) -> Any:
    """The hooks themselves, or where they are no hooks of ours (or call the model in a way of their own) adapted."""
    calls_model_itself = isinstance(hooks, ActivationsAndGradients) and (
        type(hooks).__call__ is not ActivationsAndGradients.__call__
    )
    return ForeignHooks(hooks, model, target_layers) if calls_model_itself or not hasattr(hooks, "capture") else hooks
