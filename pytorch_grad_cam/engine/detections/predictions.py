"""What a detector says of one image: every box that it considered, before anything is dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch

from pytorch_grad_cam.engine.detections.log_odds import log_odds
from pytorch_grad_cam.engine.torch_quirks.short_backward import ShortBackward

_EVERYTHING = 1 << 62


class Suppression(NamedTuple):
    """How a detector chooses from its predictions those that it reports.

    min_score: they are above it. max_iou: of two of one class that overlap more the better one stays; None leaves both.
    most: so many at most.
    """

    min_score: float = 0.0
    max_iou: float | None = None
    most: int = _EVERYTHING


class MasksOfBoxes(Protocol):
    """The masks of P predictions."""

    @property
    def of_box(self) -> bool:
        """Whether they cover their boxes, else all of the image."""

    def of(self, row: torch.Tensor) -> torch.Tensor:
        """The logits (h, w) of one prediction. row: a number (1,)."""


class KeypointsOfBoxes(Protocol):
    """How sure a detector is of the keypoints of P predictions."""

    def of(self, row: torch.Tensor) -> torch.Tensor:
        """The logits (K,) of one prediction. row: a number (1,)."""


class Masks(NamedTuple):
    """The masks of P predictions as logits: coefficients (P, M) of the prototypes (M, h, w) of all of the image."""

    coefficients: torch.Tensor
    prototypes: torch.Tensor

    @property
    def of_box(self) -> bool:
        return False

    def of(self, row: torch.Tensor) -> torch.Tensor:
        """The logits (h, w) of one prediction. row: a number (1,)."""
        return torch.einsum("m,mhw->hw", self.coefficients.index_select(0, row)[0], self.prototypes)


class Keypoints(NamedTuple):
    """The keypoints of P predictions by their logits (P, K)."""

    logits: torch.Tensor

    def of(self, row: torch.Tensor) -> torch.Tensor:
        """The logits (K,) of one prediction. row: a number (1,)."""
        return self.logits.index_select(0, row)[0]


class Predictions(NamedTuple):
    """The raw predictions of one image: what suppression and thresholds would drop is among them.

    boxes: (P, 4), x0, y0, x1, y1 in pixels of the image. logits: (P, C), what is explained. scores: (P, C), the same as
    probabilities, by which predictions are compared. labels: (P, C) or (1, C), the class that each of them is for.
    size: (height, width) of the image. suppression: what the detector would report of them. Where the detector has
    them: masks, of which `Masks` is the simplest form; keypoints, as `Keypoints`; angles (P,), by which oriented boxes
    are turned, in radians.

    The predictions of a detector in a form of your own: give the CAM an `output_transform` that returns a list of
    these, one for each image. Boxes and logits keep their autograd graph.

    >>> def predictions_of(output):  # boxes (N, P, 4), logits (N, P, C), of images of 480 x 640
    ...     boxes, logits = output
    ...     labels = torch.arange(logits.shape[2])[None]
    ...     of_images = zip(boxes, logits, logits.detach().sigmoid())
    ...     return [Predictions(*of_image, labels, (480, 640), Suppression(0.3, 0.6)) for of_image in of_images]
    """

    boxes: torch.Tensor
    logits: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    size: tuple[int, int]
    suppression: Suppression = Suppression()
    masks: MasksOfBoxes | None = None
    keypoints: KeypointsOfBoxes | None = None
    angles: torch.Tensor | None = None

    def best(self, label: int | None = None) -> torch.Tensor:
        """Which of the P * C scores is the highest, of a class or of all: a number (1,)."""
        return _best(self.scores, self.logits, self.of(label))

    def nearest(self, box: Sequence[float], label: int | None = None) -> torch.Tensor:
        """Which of the P * C is of the box that overlaps the given one most; of equal boxes the one with the highest
        score. label: of this class only. Cost: a wait for the device.
        """
        own = self.of(label)
        overlap = self._replace(boxes=self.boxes.detach()).iou(box).masked_fill(~own.any(1), -1)
        rows = (overlap == overlap.amax()).nonzero()[:, 0]  # few
        best = _best(self.scores[rows], self.logits[rows], own.expand_as(self.scores)[rows])
        columns = self.scores.shape[1]
        return rows[best // columns] * columns + best % columns

    def detections(self) -> torch.Tensor:
        """Which of the P * C the detector reports, the highest score first. Cost: a wait for the device.

        Of each box the best class, as far as its score is above the threshold; then suppression, class by class.
        """
        from torchvision.ops import batched_nms

        min_score, max_iou, most = self.suppression
        scores, columns = self.scores.detach().max(1)
        rows = (scores > min_score).nonzero()[:, 0]
        labels = self.labels.expand_as(self.scores)[rows, columns[rows]]
        rows = (
            rows[scores[rows].argsort(descending=True, stable=True)]
            if max_iou is None
            else rows[batched_nms(self.boxes.detach()[rows], scores[rows], labels, max_iou)]
        )
        return (rows * self.scores.shape[1] + columns[rows])[:most]

    def has(self, label: int) -> bool:
        """Whether any prediction is for this class. Cost: a wait for the device."""
        return bool((self.labels == label).any()) and len(self.boxes) > 0

    def iou(self, box: Sequence[float]) -> torch.Tensor:
        """How much each of the boxes and the given one overlap: (P,), 0 for a box without an area."""
        given = self.boxes.new_tensor(box)
        corners = torch.maximum(self.boxes[:, :2], given[:2]), torch.minimum(self.boxes[:, 2:], given[2:])
        shared = (corners[1] - corners[0]).clamp(min=0).prod(1)
        areas = (self.boxes[:, 2:] - self.boxes[:, :2]).clamp(min=0).prod(1)
        whole = areas + (given[2:] - given[:2]).prod() - shared
        return shared / whole.clamp(min=torch.finfo(whole.dtype).tiny)

    def row_of(self, which: torch.Tensor) -> torch.Tensor:
        """The prediction that one of the P * C belongs to."""
        return which // self.scores.shape[1]

    def at_size(self, size: tuple[int, int]) -> Predictions:
        """The same in pixels of the image at another size."""
        if size == self.size:
            return self
        factors = [new / old for new, old in zip(size, self.size, strict=True)][::-1]
        scale = self.boxes.new_tensor(factors)
        return self._replace(boxes=self.boxes * scale.repeat(2), size=size)

    def of(self, label: int | None) -> torch.Tensor:
        """Which are of the class, None is any: bool, of the shape of the labels."""
        return torch.ones_like(self.labels, dtype=torch.bool) if label is None else self.labels == label


def _best(scores: torch.Tensor, logits: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Of those asked for the one with the highest score, and of those that round to 1 the best logit: a number (1,)."""
    scores = scores.detach().masked_fill(~asked, -1)
    return logits.detach().masked_fill(scores < scores.amax(), -torch.inf).flatten().argmax(0, keepdim=True)


def of_probabilities(
    boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, size: tuple[int, int], suppression: Suppression
) -> Predictions:
    """Predictions of boxes (P, 4) that each have one label (P,) and its probability (P,): the logit is the log-odds."""
    return Predictions(boxes, log_odds(scores)[:, None], scores.detach()[:, None], labels[:, None], size, suppression)


class DetectedSample(NamedTuple):
    """Of one image what targets read of the output, as ever, and its predictions."""

    plain: Any
    predictions: Predictions


@dataclass(frozen=True)
class Detected:
    """The output of a detector: what targets read of it, sample by sample, and the predictions of each image.

    Targets that are callables get the former, those of this package (`engine.detections.box_targets`) the latter.
    """

    plain: Any
    predictions: list[Predictions]

    @cached_property
    def short_backward(self) -> ShortBackward:
        """What scores of the predictions are differentiated within."""
        return ShortBackward(each.logits for each in self.predictions)

    def __len__(self) -> int:
        return len(self.predictions)

    def __getitem__(self, sample: int) -> DetectedSample:
        return DetectedSample(self.plain[sample], self.predictions[sample])

    def __iter__(self) -> Iterator[DetectedSample]:
        return map(DetectedSample, self.plain, self.predictions)


def corners_of(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes (..., 4) of centre x, centre y, width and height as x0, y0, x1, y1."""
    centres, sides = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=-1)
