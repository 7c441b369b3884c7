"""ShapleyCAM."""

from collections.abc import Sequence
from typing import Any

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.capture import Capture
from pytorch_grad_cam.engine.inputs import Inputs
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.torch_quirks.second_derivatives import twice_differentiable
from pytorch_grad_cam.grad_cam import grad_cam_weights


def shapley_gradient(gradient: torch.Tensor, activation: torch.Tensor, create_graph: bool = False) -> torch.Tensor:
    r"""$\partial y / \partial A - \frac{1}{2} H A$ with the Hessian H of the score y with respect to the activation A.

    gradient: with its graph. The second-order Taylor expansion of what a channel adds to the score, averaged over all
    orders in which the channels can be removed. create_graph: the product with the Hessian keeps its own graph.
    """
    if not gradient.requires_grad:  # the score is linear in the activation
        return gradient
    direction = activation if create_graph else activation.detach()
    how = {"retain_graph": True, "create_graph": create_graph, "allow_unused": True, "materialize_grads": True}
    (product,) = torch.autograd.grad(gradient, activation, direction, **how)
    return gradient - product / 2


class ShapleyCapture(Capture):
    """The capture with Shapley gradients in the place of gradients. Cost: one more backward for each layer."""

    def run(self, inputs: Inputs) -> Any:
        with twice_differentiable():
            return super().run(inputs)

    def derivatives(
        self, score: torch.Tensor, wanted: list[torch.Tensor], keep_graph: bool, create_graph: bool = True
    ) -> Sequence[torch.Tensor | None]:
        gradients = zip(super().derivatives(score, wanted, keep_graph, create_graph=True), wanted, strict=True)
        return [
            None if gradient is None else shapley_gradient(gradient, tensor, not self._detach)
            for gradient, tensor in gradients
        ]


class ShapleyCAM(BaseCAM):
    r"""Channels weighted by their mean Shapley gradient: $\alpha_k = \frac{1}{Z} \sum_{ij} (\nabla y - HA/2)^k_{ij}$.

    The paper takes `utils.model_targets.ClassifierOutputReST` as the score. The Hessian is that of each layer alone;
    of a ViT's tokens it has the class token too.
    When to take it: with the score of its paper, where the curvature of a probability matters; with logits behind a
    linear end it is Grad-CAM. Not for models without a second derivative.
    Cost: one forward, one backward from the score to the layer and one through that backward, for each layer.
    Paper: Cai 2025, https://arxiv.org/abs/2501.06261.
    """

    averages_positions = True

    capture_class = ShapleyCapture

    def weigh(self, run: LayerRun) -> torch.Tensor:
        return grad_cam_weights(run.grads)
