"""The path of grad-cam 1.x to its hooks."""

from pytorch_grad_cam.compat.activations_and_gradients import ActivationsAndGradients

__all__ = ["ActivationsAndGradients"]
