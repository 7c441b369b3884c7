"""Maps of several libraries made alike, so that they can be compared."""

import numpy as np
import torch

from pytorch_grad_cam.engine.maps import min_max, resize


def finished(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Maps (N, *spatial) of any size, enlarged linearly to `size` and scaled from 0 to 1; channels by their size."""
    tensor = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))
    tensor = tensor.abs().sum(1) if tensor.ndim > 1 + len(size) else tensor.relu()
    return min_max(resize(min_max(tensor)[:, None], size)[:, 0]).numpy()
