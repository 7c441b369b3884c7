"""RISE (Petsiuk et al. 2018, arXiv:1806.07421) and D-RISE (Petsiuk et al. 2021, arXiv:2006.03204)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.engine.cam_warning import warn_of_blank
from pytorch_grad_cam.engine.capture import Capturing
from pytorch_grad_cam.engine.chunks import images_at_a_time, in_chunks
from pytorch_grad_cam.engine.detections.similarity import similarity_to
from pytorch_grad_cam.engine.layer_run import Call, Drawn
from pytorch_grad_cam.engine.maps import most_precise_dtype
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.targets import RowScores, check_own_scores
from pytorch_grad_cam.engine.wrappers import as_module
from pytorch_grad_cam.perturbation.random_masks import RandomMasks

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Scores that differ by less, relative to the largest, are one score.
_ROUNDED = 1e-6


def rise_weights(scores: torch.Tensor) -> torch.Tensor:
    r"""$S_i - \bar S$ of the scores (..., masks) of masked images: eq. 6 sums $S_i M_i$ over the masks $M_i$.

    The paper has the scores as they are. Their mean adds the same to all positions in expectation, and else only noise:
    without it scores of any sign can be explained. Scores that are all the same have no weight.
    """
    spread = scores.amax(-1, keepdim=True) - scores.amin(-1, keepdim=True)
    is_one_score = spread <= _ROUNDED * scores.abs().amax(-1, keepdim=True)
    weights: torch.Tensor = (scores - scores.mean(-1, keepdim=True)).masked_fill(is_one_score, 0)
    return weights


class RISE(BaseCAM):
    r"""Random masks, weighted by the score of the image seen through them: $\sum_i (S_i - \bar S) M_i$.

    Of any callable from images to scores, or to detections: no layer, no gradient. With a box as the target this is
    D-RISE: a masked image's score is how well the best of its predictions agrees with the box and its class, see
    `engine.detections.similarity`; an object that the detector missed has a map, too.

    model: a module, or any other callable; what it returns as arrays is read as tensors.
    masks: how many are drawn; the noise of the map falls with their square root. seed: of the masks, which are the same
    for all images. cells: of a mask along each axis of the image; finer ones show smaller objects and need more masks.
    share: of the cells that are shown. `batch_size` is the number of masked images that the model gets at a time (None:
    8 on a CPU, 64 elsewhere). Further options are those of BaseCAM; `eigen_smooth` changes nothing.
    target_layers and reshape_transform are not used, which a UserWarning says where layers are given.
    Raises ValueError for fewer than two masks, no cell and a share outside of (0, 1).
    When to take it: for a model of which only the answer is known: served, exported, no network at all; and for
    boxes that were missed. Not where a thousand forwards are too many, nor for small objects.
    Cost: 1 + masks forwards of each image, whatever the number of targets.
    D-RISE: Petsiuk et al. 2021, https://arxiv.org/abs/2006.03204.
    Paper: Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421.
    """

    averages_positions = uses_gradients = uses_layers = is_differentiable = False
    batch_size: int | None = None

    def __init__(
        self,
        model: Callable[..., Any],
        target_layers: Any = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        *,
        masks: int = 1000,
        seed: int = 0,
        cells: int = 8,
        share: float = 0.5,
        **options: Unpack[CamOptions],
    ) -> None:
        if target_layers:
            warnings.warn("RISE masks the image and uses no target_layers", UserWarning, stacklevel=2)
        if masks < 2 or cells < 1 or not 0 < share < 1:
            raise ValueError(
                f"masks={masks}, cells={cells}, share={share}: expected at least 2 masks of at least 1 cell, and a "
                "share of shown cells between 0 and 1"
            )
        super().__init__(as_module(model), [], reshape_transform, **options)
        self.masks, self.seed, self.cells, self.share = masks, seed, cells, share

    def _maps_of_layers(self, call: Call, capture: Capturing, transform: Any) -> Drawn:
        image = call.image
        size = tuple(image.shape[2:])
        check_own_scores(call.scores, len(image))
        masks = RandomMasks.drawn(self.masks, len(size), self.cells, self.share, self.seed)
        with torch.no_grad():
            weights = rise_weights(self._scores(call, masks).to(most_precise_dtype(image.device)))
            signed = weights.new_zeros(*weights.shape[:2], *size)
            for numbers in torch.arange(self.masks, device=image.device).split(self._at_a_time(image)):
                signed += torch.einsum("knm,m...->kn...", weights[..., numbers], masks.of(numbers, size).to(weights))
        evidence = signed.transpose(0, 1).flatten(0, 1)
        scaled = self._scaled(evidence)
        return [scaled[:, None]], lambda: _warn_of_blank(scaled, evidence, len(image))

    def _scores(self, call: Call, masks: RandomMasks) -> torch.Tensor:
        """The scores (K, N, masks) of the masked images."""
        image, count = call.image, len(call.image)
        if not count:
            return image.new_zeros(len(call.target_lists), 0, self.masks)
        rows = Rows.repeated(range(count), self.masks, image.device)
        score = RowScores([[*map(similarity_to, target_list)] for target_list in call.target_lists], image.device)

        def scores(start: int, stop: int) -> torch.Tensor:
            of_chunk = rows[start:stop]
            numbers = torch.arange(start, stop, device=image.device) % self.masks
            shown = masks.of(numbers, image.shape[2:]).to(image.dtype)[:, None]
            return score(call.scores_of(of_chunk.read(image, count) * shown, of_chunk.index), of_chunk).T

        found = in_chunks(scores, len(rows), self._at_a_time(image), "RISE masks")
        return torch.unflatten(found.T, 1, (count, self.masks))

    def _at_a_time(self, image: torch.Tensor) -> int:
        return images_at_a_time(image.device) if self.batch_size is None else self.batch_size


def _warn_of_blank(scaled: torch.Tensor, signed: torch.Tensor, images: int) -> None:
    blank: dict[str, list[int]] = {}
    for row in (~scaled.flatten(1).any(1)).nonzero()[:, 0].tolist():
        if not signed[row].isfinite().all():
            why = "non-finite scores of masked images"
        elif not signed[row].any():
            why = "the score is the same whatever of the image is masked"
        else:
            why = "no positive evidence, the score falls wherever the image is shown"
        blank.setdefault(why, []).append(row * images // len(scaled))
    for why, samples in blank.items():
        warn_of_blank(samples, images, why)
