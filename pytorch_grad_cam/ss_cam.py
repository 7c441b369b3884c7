"""SS-CAM (Wang et al. 2020, arXiv:2006.14255)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytorch_grad_cam.base_cam import CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.perturbation.noisy_gradients import noisy
from pytorch_grad_cam.score_cam import ScoreCAM

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SSCAM(ScoreCAM):
    r"""Score-CAM with smoothed scores: of each channel the mean score of the input seen through noisy masks.

    $L = ReLU(\sum_k \alpha_k A^k)$, $\alpha = softmax_k \frac{1}{m} \sum_i S(X \odot (H^k + \delta_i))$ with the
    enlarged channel $H^k$ in [0, 1] and Gaussian noise $\delta_i$, here the same for all channels, images and calls.
    samples: how many noises m. std: of the noise; the paper's 2 hides what a mask shows. seed: of the noise.
    share_of_energy, batch_size and further options are those of ScoreCAM.

    When to take it: to compare with. Not worth its cost by our own numbers: of 16 of the bundled digits it finds .44,
    and points at the wrong one as often (with 5 samples; torch-cam's with 35, too), where ScoreCAM finds all for a
    thirty-fifth of the cost.

    Raises ValueError for less than one sample.
    Cost: 2 + samples C forwards of each image, whatever the number of targets; of two samples one more in the first
    call, see `engine.rectifiers`.
    Paper: Wang et al. 2020, https://arxiv.org/abs/2006.14255.
    """

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        samples: int = 35,
        std: float = 2.0,
        seed: int = 0,
        share_of_energy: float = 1.0,
        **options: Unpack[CamOptions],
    ) -> None:
        if samples < 1:
            raise ValueError(f"samples is {samples}, expected at least 1")
        super().__init__(model, target_layers, reshape_transform, share_of_energy, **options)
        self.samples, self.std, self.seed = samples, std, seed

    def shown(self, masks: torch.Tensor) -> Iterator[torch.Tensor]:
        return noisy(masks, self.std, self.samples, self.seed)
