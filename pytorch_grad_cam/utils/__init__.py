"""Targets, token layouts and images."""

from pytorch_grad_cam.utils import model_targets, reshape_transforms
from pytorch_grad_cam.utils.image import deprocess_image

__all__ = ["deprocess_image", "model_targets", "reshape_transforms"]
