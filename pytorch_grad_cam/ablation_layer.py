"""What AblationCAM puts in the place of the target layer. Subclass one for layers of another layout."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from pytorch_grad_cam.engine.maps import min_max, over_positions
from pytorch_grad_cam.engine.principal_component import first_principal_component
from pytorch_grad_cam.engine.trees import floating_tensors


class AblationLayer(nn.Module):
    """Returns one image's activations many times, in each row with another channel set to zero.

    The layer's output is a tensor, or a tuple or dict of them whose channels count on from one tensor to the next.
    AblationCAM calls `activations_to_be_ablated` once an image; then, for each chunk, it sets `indices` to the
    channels still to be ablated, calls `set_next_batch`, and calls the layer in the place of the model's own.
    """

    channel_axis = 1

    def __init__(self) -> None:
        super().__init__()
        self.indices: np.ndarray = np.arange(0)
        self.activations: Any = None

    def activations_to_be_ablated(self, activations: np.ndarray, ratio_channels_to_ablate: float = 1.0) -> np.ndarray:
        """The channels of one image's (C, *spatial) to ablate, see `strongest_channels`."""
        self.indices = strongest_channels(torch.as_tensor(activations)[None], ratio_channels_to_ablate)[0].numpy()
        return self.indices

    def objectiveness_mask_from_svd(self, activations: np.ndarray, threshold: float = 0.01) -> np.ndarray:
        """Where the first principal component of (C, *spatial) is above the threshold, in absolute terms from 0 to 1.

        Not used here: for layers of other packages that choose their channels by it.
        """
        projection = first_principal_component(torch.as_tensor(activations)[None]).abs()
        return (min_max(projection) > threshold)[0].numpy()

    def set_next_batch(self, input_batch_index: int, activations: Any, num_channels_to_ablate: int) -> None:
        """Keep `num_channels_to_ablate` copies of one image's output of the layer (N, ...)."""

        def copies(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor) or leaf.ndim < 2:
                return leaf
            image = leaf[input_batch_index]
            return image.expand(num_channels_to_ablate, *image.shape).clone()

        self.activations = tree_map(copies, activations)

    def forward(self, x: Any) -> Any:
        """The copies, channel `indices[row]` of each row set to zero."""
        level = next(tensor for tensor in floating_tensors(self.activations) if tensor.ndim > 1)
        channels = torch.as_tensor(self.indices[: len(level)], device=level.device)
        self.indices = self.indices[len(level) :]
        return set_to_zero(self.activations, channels, self.channel_axis)


class AblationLayerVit(AblationLayer):
    """For layers with the channels last: tokens (N, T, C) of a ViT, maps (N, H, W, C) of a Swin."""

    channel_axis = -1


class AblationLayerFasterRCNN(AblationLayer):
    """For feature pyramids, {'0': (N, C, H, W), ..., 'pool': (N, C, h, w)}, with any number of levels and channels.

    Goes with `utils.reshape_transforms.fasterrcnn_reshape_transform`, which joins the levels' channels in this order.
    """


ZEROING = (AblationLayer, AblationLayerVit, AblationLayerFasterRCNN)
"""The layers that do nothing but `set_to_zero`; a subclass may do something else."""


def strongest_channels(activations: torch.Tensor, share: float) -> torch.Tensor:
    """The share of the channels of (N, C, *spatial) with the most energy, the strongest first: (N, k), at least one.

    A channel's energy, its sum of squares, bounds what setting it to zero can change. All channels stay in their order.
    Raises ValueError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"ratio_channels_to_ablate is {share}, expected a share in (0, 1]")
    images, channels = activations.shape[:2]
    if share == 1:
        return torch.arange(channels, device=activations.device).expand(images, -1)
    energy = activations.reshape(images, channels, -1).square().sum(2)
    return energy.sort(dim=1, descending=True, stable=True).indices[:, : max(1, round(share * channels))]


def set_to_zero(output: Any, channels: torch.Tensor, channel_axis: int) -> Any:
    """The output of a layer, channel `channels[row]` of each row set to zero in place.

    output: a tensor, or a tuple or dict of them whose channels count on from one tensor to the next. Never waits for
    the device.
    """
    first = 0
    for tensor in floating_tensors(output):
        if tensor.ndim < 2:
            continue
        level = tensor.movedim(channel_axis, 1)
        every_row = torch.arange(len(level), device=level.device)
        nearest = (channels - first).clamp(0, level.shape[1] - 1)
        values = level[every_row, nearest]
        level[every_row, nearest] = values.masked_fill(over_positions(nearest == channels - first, values), 0)
        first += level.shape[1]
    return output


def ablation_layer_for(given: AblationLayer | None, layer_output: Any, activations: torch.Tensor) -> AblationLayer:
    """The given layer; without one, that for a layer's output by where it has the channels of its maps.

    activations: the maps (N, C, *spatial).
    Raises ValueError where the first axis does not hold the images, or neither the second nor the last the channels.
    """
    if given is not None:
        return given
    levels = floating_tensors(layer_output)
    batch, channels = activations.shape[:2]
    first = levels[0]
    if len(first) != batch:
        raise ValueError(
            f"the target layer gives {tuple(first.shape)} for {batch} images, ablation needs them on the first axis: "
            "choose a layer that has them there (a norm, the patch embedding), or another method"
        )
    if first.shape != activations.shape and first.shape[-1] == channels:
        return AblationLayerVit()
    if channels in (first.shape[1], sum(level.shape[1] for level in levels if level.ndim > 1)):
        return AblationLayer()
    shapes = ", ".join(str(tuple(level.shape)) for level in levels)
    raise ValueError(
        f"the target layer gives {shapes}, its map has {channels} channels: neither the second nor the last axis holds "
        "them. Pass an ablation_layer that sets channels of such an output to zero"
    )
