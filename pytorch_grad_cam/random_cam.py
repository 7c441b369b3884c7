"""Random weights: the baseline that a method must beat."""

import torch

from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.old_spellings import old_constructor


class RandomCAM(BaseCAM):
    """Channels weighted by draws from [-1, 1), new ones for each image.

    seed: two objects with the same seed give the same sequence of maps. Further options are those of BaseCAM.
    Cost: one forward.
    """

    uses_targets = False

    @old_constructor
    def __init__(self, model, target_layers=None, reshape_transform=None, seed: int = 0, **options) -> None:
        super().__init__(model, target_layers, reshape_transform, **options)
        self.generator = torch.Generator().manual_seed(seed)

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        draws = torch.rand(activations.shape[:2], generator=self.generator)
        return (2 * draws - 1).to(activations)
