"""Principal components of activations, for NumPy arrays.

Each function takes (N, C, *spatial), with NaN counted as zero, and returns float32 (N, *spatial).
"""

import numpy as np
import torch

from pytorch_grad_cam.engine.kernel_component import first_kernel_component
from pytorch_grad_cam.engine.principal_component import first_principal_component, strongest_positive


def get_2d_projection(activation_batch: np.ndarray) -> np.ndarray:
    """The first principal component; for its sign see `engine.principal_component.first_principal_component`."""
    return first_principal_component(_to_tensor(activation_batch)).numpy()


def get_2d_projection_kernel(
    activation_batch: np.ndarray, kernel: str = "sigmoid", gamma: float | None = None
) -> np.ndarray:
    """The first kernel component; for its sign see `engine.kernel_component.first_kernel_component`."""
    return first_kernel_component(_to_tensor(activation_batch), kernel, gamma).numpy()


def get_2d_projection_with_sign_correction(activation_batch: np.ndarray) -> np.ndarray:
    """The first principal component, negated where its lowest value is larger in magnitude than its highest."""
    return strongest_positive(first_principal_component(_to_tensor(activation_batch))).numpy()


def _to_tensor(activation_batch: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.where(np.isnan(activation_batch), 0, activation_batch)).float()
