"""What an image gains over a blurred one where it is shown within masks."""

from __future__ import annotations

import torch

from pytorch_grad_cam.engine.chunks import images_at_a_time, in_chunks
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.maps import blurred, full_precision
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.targets import ClassTargets, RowScores, check_own_scores, resolve_targets

# The paper's Gaussian, of 51 pixels.
_SIGMA, _REACH = 50.0, 25


def gains(run: LayerRun, masks: torch.Tensor, batch_size: int | None) -> torch.Tensor:
    """The scores (N, G) of the images within masks (N, G, *grid) in [0, 1], and blurred outside, less those of blurred
    images. Of classes it is their probability.

    batch_size: how many images the model gets at a time; None for as many as suit the device.
    Raises ValueError where the images have not a score each.
    Cost: 1 + G forwards of each image.
    """
    image, (count, groups) = run.image, masks.shape[:2]
    if not count:
        return torch.zeros(count, groups, device=image.device)
    masks = masks.to(image.device)
    outside = blurred(full_precision(image), _SIGMA, _REACH).to(image.dtype)
    blank = run.call.scores_of(outside, torch.arange(count))
    check_own_scores(blank, count)
    targets = resolve_targets(run.targets, blank)
    are_classes = isinstance(blank, torch.Tensor) and blank.ndim == 2 and isinstance(targets, ClassTargets)
    score_rows = RowScores([targets], image.device)
    rows = Rows.repeated(range(count), groups, image.device)

    def score(outputs: torch.Tensor, of_rows: Rows) -> torch.Tensor:
        scores: torch.Tensor = score_rows(full_precision(outputs).softmax(1) if are_classes else outputs, of_rows)[0]
        return scores

    def scores_of_shown(start: int, stop: int) -> torch.Tensor:
        of_chunk = rows[start:stop]
        mask = run.enlarged(masks.flatten(0, 1)[start:stop, None], image.shape[2:]).to(image.dtype)
        shown = image[of_chunk.index] * mask + outside[of_chunk.index] * (1 - mask)
        return score(run.call.scores_of(shown, of_chunk.index), of_chunk)

    size = images_at_a_time(image.device) if batch_size is None else batch_size
    scores = in_chunks(scores_of_shown, len(rows), size, "GroupCAM groups").reshape(count, groups)
    return scores - score(blank, Rows.of(range(count), image.device))[:, None]
