"""The original CAM."""

import torch
from torch import nn

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.maps import spatial_axes
from pytorch_grad_cam.engine.tail import TOLERANCES
from pytorch_grad_cam.engine.targets import target_scores


def cam_weights(of_classes: torch.Tensor, class_weights: torch.Tensor) -> torch.Tensor:
    r"""Eq. 2: $w_k^c$ of the class that is asked for.

    of_classes: how much each class counts in the target (N, classes), 1 and 0 for a class. class_weights: those of the
    linear layer (classes, C). Returns (N, C).
    """
    return of_classes @ class_weights


class CAM(BaseCAM):
    r"""Channels weighted by the class weights of the network's linear layer: $L = \sum_k w_k^c A^k$ (eq. 2).

    For networks that end in global average pooling and one linear layer, at the layer in front of the pooling. There
    GradCAM gives the same map, divided by the number of positions. A target that is no class has the weights of the
    classes that it reads, each as much as it counts in it.
    Departs from the paper in that what is negative is cut off, unless `relu=False`.

    When to take it: where no gradient can be had. GradCAM takes every other network and layer, too.

    Raises ValueError where no linear layer of the model gives its scores from the mean of each channel; that is looked
    at in every call.
    Cost: one forward; of two samples one more in the first call, see `engine.rectifiers`.
    Paper: Zhou et al. 2016, https://arxiv.org/abs/1512.04150.
    """

    uses_gradients = False
    takes_rectified = averages_positions = True

    def weigh(self, run: LayerRun) -> torch.Tensor:
        weights = self._class_weights(run)
        with torch.enable_grad():
            scores = run.call.scores.detach().requires_grad_()
            (of_classes,) = torch.autograd.grad(target_scores(scores, run.targets).sum(), scores)
        return cam_weights(of_classes.to(run.activations), weights.to(run.activations))

    def _class_weights(self, run: LayerRun) -> torch.Tensor:
        """The weights (classes, C) of the linear layer that gives the scores from the mean of each channel."""
        scores, means = run.call.scores, run.activations.mean(spatial_axes(run.activations))
        classes = scores.shape[1] if isinstance(scores, torch.Tensor) and scores.ndim == 2 else None
        heads = [module for module in self.model.modules() if isinstance(module, nn.Linear)]
        for head in reversed(heads):
            if head.weight.shape == (classes, means.shape[1]):
                found = nn.functional.linear(means.to(head.weight), head.weight, head.bias)
                if _are_close(found.to(scores), scores):
                    return head.weight.detach()
        raise ValueError(
            "CAM needs a network that ends in global average pooling and one linear layer, and the layer in front of "
            f"the pooling: no linear layer gives this model's scores from the mean of each of the {means.shape[1]} "
            f"channels of {type(run.layer).__name__}. GradCAM is the same map where there is such a head, and goes "
            "with every other network and layer"
        )


def _are_close(found: torch.Tensor, scores: torch.Tensor) -> bool:
    tolerance = TOLERANCES.get(scores.dtype, 1e-3)
    return bool(((found - scores).abs() <= tolerance * scores.abs().amax(1, keepdim=True)).all())
