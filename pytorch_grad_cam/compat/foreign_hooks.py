"""Hooks of the form of grad-cam 1.x in the place of ours: `cam.activations_and_grads = TheirHooks(...)`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from pytorch_grad_cam.compat.activations_and_gradients import ActivationsAndGradients
from pytorch_grad_cam.engine.inputs import Inputs, SpatialFrom, image_of, with_image


class ForeignHooks:
    """An object of that form as an `engine.capture.Capturing`.

    Called with the input it runs the model (and may process its output); a backward from the result fills `gradients`,
    one for each of `activations`, which belong to the target layers in their order.
    """

    def __init__(
        self,
        hooks: Any,
        spatial_from: SpatialFrom,
        model: nn.Module,
        layers: Sequence[nn.Module],
        gradients: bool,
        detach: bool,
    ) -> None:
        self.runs: list[tuple[nn.Module, Any]] = []
        self._hooks, self._model, self._layers = hooks, model, layers
        self._gradients, self._spatial_from = gradients, spatial_from

    def __enter__(self) -> "ForeignHooks":
        return self

    def __exit__(self, *exception: object) -> None:
        if isinstance(self._hooks, ActivationsAndGradients):
            self._hooks.clear()  # theirs keep what they like

    def run(self, inputs: Inputs) -> Any:
        """What the hooks return. The graph begins at the image, for hooks that need one."""
        if self._gradients:
            image = image_of(inputs, self._spatial_from)
            self._image = image if image.requires_grad else image.detach().requires_grad_()
            inputs = with_image(inputs, self._image, self._spatial_from)
        with torch.set_grad_enabled(self._gradients):
            outputs = self._hooks(inputs)
        self.runs = list(zip(self._layers, self._hooks.activations, strict=False))
        return outputs

    def differentiate(
        self, score: torch.Tensor, keep_graph: bool = False, inputs: Sequence[torch.Tensor] = ()
    ) -> tuple[list[Any], Sequence[torch.Tensor | None]]:
        """A whole backward, which runs the tensor hooks on its way; no `.grad` is written.

        Raises ValueError when it does not reach all layers that were captured, and for several scores of one output.
        """
        name = type(self._hooks).__name__
        if keep_graph and not isinstance(self._hooks, ActivationsAndGradients):
            raise ValueError(f"{name} takes one target an image: call the CAM once for each")
        sources = [self._image, *(parameter for parameter in self._model.parameters() if parameter.requires_grad)]
        found: Sequence[torch.Tensor | None] = [None]
        if score.requires_grad:
            found = torch.autograd.grad(score, sources, allow_unused=True, retain_graph=keep_graph)
        gradients = [gradient for gradient in self._hooks.gradients if gradient is not None]
        if len(gradients) < len(self.runs):
            raise ValueError(
                f"{name} has {len(self.runs)} activations but {len(gradients)} gradients: the score does not depend on "
                "all target layers"
            )
        return gradients[: len(self.runs)], [found[0] for _ in inputs]


def must_be_called(hooks: Any) -> bool:
    """Whether hooks that were put into a CAM must be called: others' hooks, and ours with a call of their own."""
    return not isinstance(hooks, ActivationsAndGradients) or (
        type(hooks).__call__ is not ActivationsAndGradients.__call__
    )


def transform_of(hooks: Any) -> Callable[[Any], torch.Tensor] | None:
    """What is left to do with what hooks that were put into a CAM capture, as a reshape_transform."""
    transform = getattr(hooks, "reshape_transform", None)
    return torch.as_tensor if must_be_called(hooks) and transform is not None else transform
