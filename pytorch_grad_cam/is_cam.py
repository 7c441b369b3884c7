"""IS-CAM (Naidu et al. 2020, arXiv:2010.03023)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytorch_grad_cam.base_cam import CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.score_cam import ScoreCAM

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ISCAM(ScoreCAM):
    r"""Score-CAM with integrated scores: of each channel the mean score over masks of growing strength.

    $L = ReLU(\sum_k \alpha_k A^k)$, $\alpha = softmax_k \frac{1}{m} \sum_{i=1}^m S(X \odot c_i H^k)$ with the enlarged
    channel $H^k$ in [0, 1] and $c_i = \sum_{j=1}^i j / m$: shares are added up, so that the last masks show the input
    (m + 1) / 2 times as strong as it is.
    steps: how many masks m. share_of_energy, batch_size and further options are those of ScoreCAM.

    When to take it: to compare with. Not worth its cost by our own numbers: of 16 of the bundled digits it finds all,
    as ScoreCAM does for a tenth of the cost, with the same energy (.47) and overlap (.61 and .62).

    Raises ValueError for less than one step.
    Cost: 2 + steps C forwards of each image, whatever the number of targets; of two samples one more in the first call,
    see `engine.rectifiers`.
    Paper: Naidu et al. 2020, https://arxiv.org/abs/2010.03023.
    """

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        steps: int = 10,
        share_of_energy: float = 1.0,
        **options: Unpack[CamOptions],
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps is {steps}, expected at least 1")
        super().__init__(model, target_layers, reshape_transform, share_of_energy, **options)
        self.steps = steps

    def shown(self, masks: torch.Tensor) -> Iterator[torch.Tensor]:
        for step in range(1, self.steps + 1):
            yield masks * (step * (step + 1) / 2 / self.steps)
