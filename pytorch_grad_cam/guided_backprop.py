"""Guided backpropagation."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.engine.inputs import call, model_device, on_device_of
from pytorch_grad_cam.engine.targets import Targets, resolve_targets, scores_in, target_scores
from pytorch_grad_cam.engine.trees import to_array
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.wrappers import unwrapped

_RECTIFIERS = ("ReluBackward", "ThresholdBackward", "HardtanhBackward", "ClampBackward", "ClampMinBackward")


class GuidedBackpropReLU(torch.autograd.Function):
    r"""A ReLU whose gradient is itself rectified: $g \cdot [x > 0] \cdot [g > 0]$. For guided models of one's own."""

    @staticmethod
    def forward(ctx: Any, input_img: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(input_img)
        return input_img.relu()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> torch.Tensor:
        (input_img,), (grad_output,) = ctx.saved_tensors, grad_outputs
        return torch.mul(grad_output.relu(), input_img > 0)


class GuidedBackpropReLUasModule(nn.Module):
    """`GuidedBackpropReLU` as a layer."""

    def forward(self, input_img: torch.Tensor) -> torch.Tensor:
        """The rectified input, of its shape."""
        rectified: torch.Tensor = GuidedBackpropReLU.apply(input_img)
        return rectified


class GuidedBackpropReLUModel:
    """The gradient of the score with respect to the image, positive at every rectifier on the way back.

    The rectifiers are found in the autograd graph of the call, so modules and functional ReLUs, in place or not, are
    all guided, and the model is not touched. A model without rectifiers (GELU, SiLU) gives the plain gradient and
    a UserWarning that says so.

    device: moves nothing; the model stays where it is. Accepted because grad-cam 1.5 asks for it.
    When to take it: for edges, multiplied with a map (Guided Grad-CAM). Not alone as an explanation: it hardly
    depends on the class and on the weights of the last layers.
    Paper: Springenberg et al. 2015, https://arxiv.org/abs/1412.6806.
    """

    @old_constructor
    def __init__(self, model: nn.Module, device: Any = None) -> None:
        self.model = unwrapped(model)
        self.device = model_device(model) if device is None else device

    def forward(self, input_img: torch.Tensor) -> Any:
        """The model's output."""
        return call(self.model, input_img)

    def __call__(self, input_img: torch.Tensor, target_category: Targets = None) -> np.ndarray:
        """Gradients (*spatial, C) of one image, (N, *spatial, C) of several; float32, signed, on the host.

        input_img: (N, C, *spatial), left as it is. target_category: as the targets of a CAM; None is the highest class.
        Cost: one forward with its graph, one whole backward.
        """
        with undisturbed(self.model), torch.enable_grad():
            image = on_device_of(self.model, input_img.detach()).clone().requires_grad_()
            outputs = scores_in(self.forward(image))
            score = target_scores(outputs, resolve_targets(target_category, outputs, image.shape)).sum()
            rectifiers = [node for node in nodes_behind(score.grad_fn) if _is_rectifier(node)]
            if not rectifiers:
                warnings.warn(
                    f"{type(self.model).__name__} has no ReLU for guided backpropagation to guide: "
                    "this is the plain gradient",
                    UserWarning,
                    stacklevel=2,
                )
            for node in rectifiers:
                node.register_prehook(lambda gradients: tuple(None if g is None else g.relu() for g in gradients))
            gradient = torch.autograd.grad(score, image, allow_unused=True)[0] if score.requires_grad else None
        if gradient is None:
            raise ValueError("no gradient leads from the score to the image: the model detaches what it computes")
        channels_last: np.ndarray = to_array(gradient.float().movedim(1, -1))
        return channels_last[0] if len(channels_last) == 1 else channels_last


def _is_rectifier(node: Any) -> bool:
    """Whether the operation cuts off at zero: ReLU, threshold and clamp at 0, ReLU6 (a hardtanh from 0)."""
    if not node.name().startswith(_RECTIFIERS):
        return False
    return all(getattr(node, bound, 0) == 0 for bound in ("_saved_min", "_saved_min_val", "_saved_threshold"))
