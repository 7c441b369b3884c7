"""Targets: the number in the model's output that is to be explained.

A target is any callable from the output of one sample to a scalar tensor. These are common ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pytorch_grad_cam.engine.detections.box_targets import BoxTarget as BoxTarget
from pytorch_grad_cam.engine.detections.box_targets import DetectionTarget as DetectionTarget
from pytorch_grad_cam.engine.maps import full_precision, resize
from pytorch_grad_cam.engine.segmentation.segmentation_target import SegmentationTarget as SegmentationTarget
from pytorch_grad_cam.engine.targets import ClassifierOutputTarget as ClassifierOutputTarget


class _Named:
    """Shown as it was made: figures and pages call a target by its repr."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(_shown, vars(self).values()))})"


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim > 1:
        return f"<{' x '.join(map(str, value.shape))}>"
    return str(value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value)


class ClassifierOutputSoftmaxTarget(ClassifierOutputTarget):
    """The probability of one class: the softmax of the logits. Evidence against the other classes counts too.

    Paper: of the score that is explained, Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391.
    """

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        """The category's softmax probability of logits (classes,), or of each row of (N, classes)."""
        return torch.softmax(model_output, dim=-1)[..., self.category]


class ClassifierOutputReST(ClassifierOutputTarget):
    """The logit of one class plus its log-probability: ReST, the utility of ShapleyCAM (arXiv:2501.06261).

    Unlike the probability it has a gradient where the class is certain, unlike the logit it knows the other classes.
    Paper: Cai 2025, https://arxiv.org/abs/2501.06261.
    """

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        """The utility of logits (classes,), or of each row of (N, classes)."""
        return (model_output + torch.log_softmax(model_output, dim=-1))[..., self.category]


class BinaryClassifierOutputTarget(_Named):
    """The output of a classifier with one logit for category 1, its negative for category 0.

    Raises ValueError for other categories.
    Paper: of the score that is explained, Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391.
    """

    def __init__(self, category: int) -> None:
        if category not in (0, 1):
            raise ValueError(f"category is {category}, a classifier with one logit has 0 and 1")
        self.category = category

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        """The signed output, of the output's shape: (1,) for one sample."""
        return model_output if self.category == 1 else -model_output


class SoftmaxOutputTarget(_Named):
    """The softmax of an output, for models with one value per sample; a CAM raises ValueError for others.

    Paper: of the score that is explained, Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391.
    """

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        """The softmax along the last axis, of the output's shape."""
        return torch.softmax(model_output, dim=-1)


class RawScoresOutputTarget(_Named):
    """The output itself, for models with one value per sample (regression); a CAM raises ValueError for others.

    Paper: of the score that is explained, Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391.
    """

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        """The output as it is."""
        return model_output


class SemanticSegmentationTarget(_Named):
    """The sum of one category's scores over the pixels of a mask. `SegmentationTarget` knows predicted ones, too.

    mask: (H, W), array or tensor, boolean or weights; (*spatial) for other ranks. Where the model's output has another
    size the mask is resized linearly.
    Paper: Vinogradova et al. 2020, https://arxiv.org/abs/2002.11434.
    """

    def __init__(self, category: int, mask: np.ndarray | torch.Tensor) -> None:
        self.category = category
        self.mask = torch.as_tensor(mask)

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        """A scalar from the scores (classes, *spatial) of one sample."""
        scores = full_precision(model_output[self.category])
        mask = self.mask.to(scores)
        if mask.shape != scores.shape:
            mask = resize(mask[None, None], scores.shape)[0, 0]
        return (scores * mask).sum()


class TokenTarget(_Named):
    """The logit of a token that a language model says, or might say, at a place of its sequence.

    place: from 0, or from the end; that behind the last token is their number, as 'the next word'. token: its number;
    None is the likeliest one there. `cam(inputs, [[TokenTarget(place) for place in places]])` explains an answer from
    one forward of prompt and answer, which `TAM` gives as `inputs` and `places`. Not for CTC, whose time t has its
    logits at t, not in front of it: there `lambda logits: logits[t, character]`.
    Paper: Li et al. 2025, https://arxiv.org/abs/2506.23270.
    """

    def __init__(self, place: int, token: int | None = None) -> None:
        self.place = place
        self.token = token

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        """A scalar from the logits (T, tokens) of one sample: those at the token in front of the place.

        Raises IndexError for a place that has no token in front of it, or is behind the next one.
        """
        tokens = len(model_output)
        place = self.place if self.place >= 0 else self.place + tokens
        if not 1 <= place <= tokens:
            raise IndexError(f"place {self.place}: a sequence of {tokens} tokens has logits for 1 to {tokens}")
        logits = model_output[place - 1]
        return logits.amax() if self.token is None else logits[self.token]


class FasterRCNNBoxScoreTarget(_Named):
    """How well a detector finds the given boxes: the sum over them of the score and the IoU of the best match.

    The best match of a box is the detection of the same label with the highest IoU, if that is above `iou_threshold`;
    a box without a match adds nothing. labels, bounding_boxes (x1, y1, x2, y2): one of both for each box, else
    ValueError.
    Paper: none defines it, it is that of https://github.com/jacobgil/pytorch-grad-cam.
    """

    def __init__(self, labels: Sequence[int], bounding_boxes: Any, iou_threshold: float = 0.5) -> None:
        if len(labels) != len(bounding_boxes):
            raise ValueError(f"{len(labels)} labels for {len(bounding_boxes)} boxes: pass one for each box")
        self.labels = labels
        self.bounding_boxes = bounding_boxes
        self.iou_threshold = iou_threshold

    def __call__(self, model_outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """A scalar from one image's 'boxes' (D, 4), 'labels' (D,) and 'scores' (D,)."""
        from torchvision.ops import box_iou

        boxes, scores = model_outputs["boxes"], model_outputs["scores"]
        if len(boxes) == 0 or len(self.bounding_boxes) == 0:
            return boxes.new_zeros(())
        wanted = torch.stack([torch.as_tensor(box).to(boxes) for box in self.bounding_boxes])
        labels = torch.tensor([int(label) for label in self.labels], device=boxes.device)
        same_label = labels[:, None] == model_outputs["labels"]
        overlap = box_iou(wanted, boxes).nan_to_num(0)  # of two boxes without an area
        iou, match = (overlap * same_label).max(dim=1)
        found: torch.Tensor = (iou + scores[match]) * (iou > self.iou_threshold)
        return found.sum()


class FinerWeightedTarget(_Named):
    r"""Finer-CAM's score: $\sum_d p_d (y^c - \alpha y^d) / \sum_d p_d$ over similar classes d of probability p.

    main_category: c. comparison_categories: the d, at least one. alpha: how much of the others is subtracted.
    Paper: Zhang et al. 2025, https://arxiv.org/abs/2501.11309.
    """

    def __init__(self, main_category: int, comparison_categories: Sequence[int], alpha: float) -> None:
        self.main_category = main_category
        self.comparison_categories = comparison_categories
        self.alpha = alpha

    def __call__(self, model_output: torch.Tensor) -> torch.Tensor:
        """The score of logits (classes,), or of each row of (N, classes)."""
        others = model_output[..., list(self.comparison_categories)]
        weights = torch.softmax(others, dim=-1)  # the probabilities' common factor cancels
        return model_output[..., self.main_category] - self.alpha * (weights * others).sum(-1)
