"""The scores of inputs that are seen through a channel of a layer."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import nn

from pytorch_grad_cam.engine.chunks import images_at_a_time, in_chunks
from pytorch_grad_cam.engine.fastest_way import in_fastest_chunks
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.maps import min_max, most_precise_dtype
from pytorch_grad_cam.engine.targets import Target, check_own_scores, resolve_targets, scores_of_lists
from pytorch_grad_cam.engine.torch_quirks.memory_layout import in_layout

Shown = Callable[[torch.Tensor], Iterable[torch.Tensor]]
"""From masks (M, *spatial) to those that inputs are seen through in their place, one after the other."""


def channel_scores(
    run: LayerRun,
    chosen: torch.Tensor,
    target_lists: Sequence[Sequence[Target]],
    batch_size: int | None,
    shown: Shown = lambda masks: [masks],
) -> torch.Tensor:
    """The scores (K, N, C) of the images seen through each channel, by K lists of N targets.

    Those that are not chosen, bool (N, C), have the score of a blank image. Else see `masked_scores`.
    """
    image = run.image
    blank = run.call.scores_of(torch.zeros_like(image), torch.arange(len(image)))
    check_own_scores(blank, len(image))
    target_lists = [list(resolve_targets(target_list, blank)) for target_list in target_lists]
    scores = scores_of_lists(blank, target_lists)[:, :, None].repeat(1, 1, chosen.shape[1])
    if chosen.any():
        scores[:, chosen] = masked_scores(run, chosen, target_lists, batch_size, shown).T
    return scores


def masked_scores(
    run: LayerRun,
    chosen: torch.Tensor,
    target_lists: Sequence[Sequence[Target]],
    batch_size: int | None,
    shown: Shown,
) -> torch.Tensor:
    """The scores (M, K) of the images times each of the M chosen channels, enlarged and scaled to [0, 1].

    chosen: bool (N, C). target_lists: K of them. Masks are made for one batch at a time; the score is the mean over
    those that are shown in the place of each. batch_size: None is as `in_fastest_chunks` finds.
    """
    images, activations = run.image, run.activations.to(run.image.device)
    rows = chosen.flatten().nonzero()[:, 0]
    owners = rows // activations.shape[1]
    targets = [[target_list[owner] for owner in owners.tolist()] for target_list in target_lists]

    def scores(start: int, stop: int, channels_last: bool) -> torch.Tensor:
        of_batch = rows[start:stop]
        masks = run.enlarged(activations.flatten(0, 1)[of_batch, None], images.shape[2:], align_corners=True)
        score = partial(run.call.scores_of, rows=owners[start:stop])
        found = []
        for mask in shown(min_max(masks[:, 0])):
            masked = (images[owners[start:stop]] * mask[:, None]).to(images.dtype)
            outputs = in_layout(run.call.model, score, masked, channels_last)
            found.append(scores_of_lists(outputs, [target_list[start:stop] for target_list in targets]).T)
        return torch.stack(found).mean(0)

    if batch_size is None and isinstance(run.call.model, nn.Module):
        return in_fastest_chunks(run.call.model, scores, len(rows), images, "ScoreCAM channels")
    size = images_at_a_time(images.device) if batch_size is None else batch_size  # each other one is compiled for
    in_usual_layout = partial(scores, channels_last=images.device.type == "cpu")
    return in_chunks(in_usual_layout, len(rows), size, "ScoreCAM channels")


def channels_by_energy(activations: torch.Tensor, share: float) -> torch.Tensor:
    """Which channels of (N, C, *spatial) vary and, the strongest first, together have the share of an image's energy.

    A channel's energy is its sum of squares. Returns bool (N, C). Raises ValueError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share_of_energy is {share}, expected a share in (0, 1]")
    positions = activations.flatten(2)
    varies = positions.amax(2) > positions.amin(2)
    if share == 1:
        return varies
    energy, order = (positions.to(most_precise_dtype(positions.device)).square().sum(2) * varies).sort(
        1, descending=True
    )
    before = energy.cumsum(1) - energy
    needed = torch.zeros_like(varies).scatter(1, order, before < share * energy.sum(1, keepdim=True))
    return needed & varies
