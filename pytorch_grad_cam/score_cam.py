"""Score-CAM (Wang et al. 2020, arXiv:1910.01279)."""

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.chunks import in_chunks
from pytorch_grad_cam.maps import min_max
from pytorch_grad_cam.model_state import undisturbed
from pytorch_grad_cam.target_scores import resolve_targets, target_scores


def score_cam_weights(scores: torch.Tensor) -> torch.Tensor:
    r"""Algorithm 1: $\alpha_k = \exp(S_k) / \sum_l \exp(S_l)$ of the scores S (N, C) of the masked inputs.

    The baseline's score, which the paper subtracts from all of them, cancels.
    """
    return scores.softmax(dim=1)


class ScoreCAM(BaseCAM):
    """Channels weighted by the score of the input seen through them; no gradients.

    Each channel, enlarged to the input and scaled to [0, 1] (eq. 4), is multiplied with the input, and the model
    scores the product. The paper leaves open how to enlarge: here linearly with aligned corners, as in grad-cam 1.x,
    unless `align` says otherwise.
    `batch_size` is the number of masked inputs that the model gets at a time; channels of several
    images share a batch, masks are made for one batch at a time, channels that do not vary are scored once.

    Cost: 2 + C forwards of each image.
    """

    uses_gradients = False
    batch_size = 16

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        activations = activations.to(input_tensor.device)
        images, channels = activations.shape[:2]
        positions = activations.flatten(2)
        varies = (positions.amax(2) > positions.amin(2)).flatten()

        def masked_scores(rows: torch.Tensor) -> torch.Tensor:
            owners = rows // channels
            masks = self.enlarged(activations.flatten(0, 1)[rows, None], input_tensor.shape[2:], align_corners=True)
            masked = input_tensor[owners] * min_max(masks[:, 0])[:, None]
            scores = self.scores_of(masked.to(input_tensor.dtype), owners)
            return target_scores(scores, [targets[i] for i in owners.tolist()])

        with undisturbed(self.model), torch.no_grad():
            blank = self.scores_of(torch.zeros_like(input_tensor), torch.arange(images))
            targets = resolve_targets(targets, blank)
            scores = target_scores(blank, targets).repeat_interleave(channels)
            rows = varies.nonzero()[:, 0]
            if len(rows) > 0:
                scores[rows] = in_chunks(
                    lambda start, stop: masked_scores(rows[start:stop]), len(rows), self.batch_size, "ScoreCAM channels"
                )
        return score_cam_weights(scores.reshape(images, channels))
