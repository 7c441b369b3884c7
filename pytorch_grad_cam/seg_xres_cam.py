"""Seg-XRes-CAM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.maps import resize

if TYPE_CHECKING:
    from typing_extensions import Unpack


def pooled_gradients(grads: torch.Tensor, window: int, pool: Literal["mean", "max"]) -> torch.Tensor:
    r"""$Up(Pool(\partial y / \partial A^k))$: gradients (N, C, *grid) pooled over windows of `window` cells along each
    axis, the last ones cut off by the edge, and enlarged linearly to the grid again.
    """
    size = [min(window, cells) for cells in grads.shape[2:]]
    kind: Any = {"max": (F.max_pool1d, F.max_pool2d, F.max_pool3d), "mean": (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)}
    pooled: torch.Tensor = kind[pool][grads.ndim - 3](grads, size, ceil_mode=True)
    return resize(pooled, grads.shape[2:])


class SegXResCAM(BaseCAM):
    r"""Gradients pooled over windows, enlarged, times the activations: $L = ReLU(\sum_k Up(Pool(\partial y / \partial
    A^k)) \odot A^k)$, eq. 5 of the paper.

    Between two others: windows of one cell are HiResCAM, the mean over one window of the whole layer is Seg-Grad-CAM,
    which is `GradCAM` with a `SegmentationTarget` (Vinogradova et al. 2020, arXiv:2002.11434).

    When to take it: for a region of a segmentation, where Grad-CAM's weights, averaged over the image, mark what looks
    alike elsewhere, and HiResCAM's map is grainy; not for a class of the whole image.

    That windows have 2 cells along each axis, that their maximum is taken, and that it is enlarged linearly, are
    choices of ours.
    window: cells along an axis, all that there are where it is larger. pool: "max" or "mean". Further options are those
    of BaseCAM. Raises ValueError for others.
    Cost: one forward, one backward from the score to the layer.
    Paper: Hasany et al. 2023, https://openaccess.thecvf.com/content/CVPR2023W/XAI4CV/html/Hasany_Seg-XRes-CAM_Explaining_Spatially_Local_Regions_in_Image_Segmentation_CVPRW_2023_paper.html.
    """

    takes_rectified = True

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        *,
        window: int = 2,
        pool: Literal["mean", "max"] = "max",
        **options: Unpack[CamOptions],
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **options)
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"window is {window!r}, expected a number of cells, 1 or more")
        if pool not in ("max", "mean"):
            raise ValueError(f"pool is {pool!r}, expected 'max' or 'mean'")
        self.window, self.pool = window, pool

    def weigh(self, run: LayerRun) -> torch.Tensor:
        return pooled_gradients(run.grads, self.window, self.pool)
