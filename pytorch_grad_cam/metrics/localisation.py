"""Does a map point at the object? What it says is held against a box or a mask; no model is asked.

All take maps (N, *spatial), arrays or tensors, and their ground truth (see `ground_truth.masks_of`), and return float32
(N,) on the maps' device, from 0 to 1, the higher the better. None changes when a map is multiplied by a positive
number, or with the order of the images. A constant map says nothing and gets what a random map gets in the mean, the
object's share of the pixels, except from `iou`.
All raise ValueError for maps that are not finite and for what `masks_of` raises.
"""

import torch
import torch.nn.functional as F

from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.metrics.ground_truth import Maps, Truth, finite_maps, masks_of
from pytorch_grad_cam.metrics.shares import shares_of

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def pointing_game(maps: Maps, truth: Truth, tolerance: int = 0) -> torch.Tensor:
    r"""Whether the highest pixel lies on the object: 1 or 0 (Zhang et al. 2018, arXiv:1608.00507).

    $1[\arg\max_p L_p \in B]$; the mean over images is the paper's hits / (hits + misses). Where several pixels are the
    highest, the share of them that does, which is what one drawn at random would get. (The paper takes one; Quantus
    counts a hit where any of them is inside.)
    tolerance: how far outside a pixel may lie, in pixels, by the distance of their centres; the paper's is 15 for
    photographs. Raises ValueError for a negative one.
    """
    found = finite_maps(maps)
    inside = _widened(masks_of(truth, found), tolerance).flatten(1)
    values = found.flatten(1)
    highest = values == values.amax(1, keepdim=True)
    return (highest & inside).sum(1).float() / highest.sum(1)


def energy_pointing_game(maps: Maps, truth: Truth) -> torch.Tensor:
    r"""The share of the map's sum that lies on the object (Wang et al. 2020, Score-CAM, arXiv:1910.01279).

    $\sum_{p \in B} L_p / \sum_p L_p$. What is negative counts as 0. It is Quantus' relevance mass accuracy (Arras et
    al. 2022, arXiv:2003.07258).
    """
    positive = finite_maps(maps).relu()
    inside = masks_of(truth, positive).flatten(1)
    return (shares_of(positive.flatten(1)) * inside).sum(1).float()


def top_k_intersection(maps: Maps, truth: Truth, k: int | None = None) -> torch.Tensor:
    r"""The share of the k highest pixels that lies on the object (Theiner et al. 2022, arXiv:2104.14995).

    $|T_k \cap B| / k$. k: None takes as many pixels as the object has: the relevance rank accuracy (Arras et al. 2022,
    arXiv:2003.07258). Where the k-th value is that of several pixels, what a draw among them would get in the mean.
    (Quantus takes the pixels that its sort puts first.) Raises ValueError unless k is from 1 to the number of pixels.
    """
    found = finite_maps(maps)
    inside = masks_of(truth, found).flatten(1)
    values = found.flatten(1)
    pixels = values.shape[1]
    if k is not None and not 1 <= k <= pixels:
        raise ValueError(f"k is {k}, expected from 1 to the {pixels} pixels of a map")
    count = inside.sum(1, keepdim=True) if k is None else torch.full_like(values[:, :1], k, dtype=torch.long)
    last = values.sort(1, descending=True).values.gather(1, count - 1)
    above, equal = values > last, values == last
    drawn = (count - above.sum(1, keepdim=True)) / equal.sum(1, keepdim=True)
    return ((above * inside + drawn * equal * inside).sum(1) / count[:, 0]).float()


def iou(maps: Maps, truth: Truth, threshold: float = 0.5) -> torch.Tensor:
    r"""Intersection over union of the object and of the map's upper part (Selvaraju et al. 2017, arXiv:1610.02391).

    $|U \cap B| / |U \cup B|$, $U = \{p : L_p \ge \tau\}$. threshold: the least value of that part, of a map scaled from
    0 to 1. The paper takes 0.15 and the box around the largest region, see `box_accuracy`; here the pixels themselves
    are compared. A constant map has no upper part and gets 0. Raises ValueError unless the threshold is above 0 and at
    most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}, expected above 0 and at most 1")
    found = finite_maps(maps)
    inside = masks_of(truth, found).flatten(1)
    upper = min_max(found).flatten(1) >= threshold
    return (upper & inside).sum(1).float() / (upper | inside).sum(1)


def _widened(inside: torch.Tensor, tolerance: int) -> torch.Tensor:
    """The masks (N, *spatial) with all pixels that are at most so far from one of theirs."""
    if tolerance < 0:
        raise ValueError(f"tolerance is {tolerance}, expected a number of pixels, 0 or more")
    if tolerance == 0:
        return inside
    offsets = torch.arange(-tolerance, tolerance + 1, device=inside.device)
    rank = inside.ndim - 1
    distances = torch.stack(torch.meshgrid(*[offsets] * rank, indexing="ij")).pow(2).sum(0)
    disc = (distances <= tolerance**2).float()[None, None]
    return _CONVOLUTIONS[rank](inside[:, None].float(), disc, padding=tolerance)[:, 0] > 0.5
