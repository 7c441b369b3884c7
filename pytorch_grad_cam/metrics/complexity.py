"""How little of the image a map needs: no model and no annotation is asked.

Both take the absolute values of maps (N, *spatial), arrays or tensors, and return float32 (N,) on the maps' device.
Neither changes when a map is multiplied by a number other than 0, or with the order of the images. A blank map counts
as a constant one. Raise ValueError for maps that are not finite. The mean value of a map is `arcc.Complexity`.
"""

import torch

from pytorch_grad_cam.metrics.ground_truth import Maps, finite_maps
from pytorch_grad_cam.metrics.shares import shares_of


def entropy(maps: Maps) -> torch.Tensor:
    r"""How evenly a map is spread: the entropy of its shares of the sum. Lower is simpler.

    $-\sum_p q_p \ln q_p$, $q_p = |L_p| / \sum |L|$ (Bhatt et al. 2020, arXiv:2005.00631, "complexity"): from 0 for a
    single pixel to $\ln P$ for P equal ones.
    """
    shares = shares_of(finite_maps(maps).abs().flatten(1))
    return -torch.xlogy(shares, shares).sum(1).float()


def sparseness(maps: Maps) -> torch.Tensor:
    r"""How unequal the pixels are: the Gini coefficient of a map. Higher is sparser.

    $\sum_i (2 i - P - 1) q_i / P$ with the shares $q$ of the sum in ascending order (Chalasani et al. 2020,
    arXiv:1810.06583): from 0 for a constant map to 1 - 1 / P for a single pixel of P. (Quantus adds 1e-7 to each pixel
    before.)
    """
    shares = shares_of(finite_maps(maps).abs().flatten(1)).sort(1).values
    pixels = shares.shape[1]
    ranks = 2 * torch.arange(1, pixels + 1, device=shares.device) - pixels - 1
    return ((ranks * shares).sum(1) / pixels).float()
