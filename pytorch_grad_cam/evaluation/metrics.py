"""The metrics by their names, each with what it needs and which direction is better."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from pytorch_grad_cam.metrics import complexity, localisation, randomisation, robustness
from pytorch_grad_cam.metrics.arcc import Complexity
from pytorch_grad_cam.metrics.average_drop import AverageDrop, AverageGain
from pytorch_grad_cam.metrics.box_accuracy import best_overlaps
from pytorch_grad_cam.metrics.cam_mult_image import IncreaseInConfidence
from pytorch_grad_cam.metrics.deletion_insertion import Deletion, Insertion
from pytorch_grad_cam.metrics.grid_pointing_game import grid_pointing_game
from pytorch_grad_cam.metrics.road import ROADCombined

Needs = Literal["scores", "maps", "truth", "model", "cam"]

_OVERLAPS = (0.3, 0.5, 0.7)
_THRESHOLDS = np.arange(1, 101) / 100


class Metric(NamedTuple):
    """A column of an evaluation.

    function: by `needs` an object that `shared_scores.scored_in_common` takes ('scores'), or a function that returns a
    number for each of N images, of maps ('maps'), maps and truth ('truth'), model, images, maps and targets ('model'),
    or cam, images and targets ('cam'), which baselines do not have. finish: from the rows of all images to a number for
    each, where the function gives more.
    """

    name: str
    higher_is_better: bool
    needs: Needs
    function: Any
    finish: Callable[[np.ndarray], np.ndarray] | None = None


def _box_overlaps(maps: Any, truth: Any) -> torch.Tensor:
    return torch.from_numpy(best_overlaps(maps, truth, _THRESHOLDS).T)


def _cross_fitted(overlaps: np.ndarray) -> np.ndarray:
    """MaxBoxAccV2 (N,) of the best IoU (N, thresholds): thresholds of even images are chosen on odd ones, and so back.

    Of a single image there is no other to choose on: NaN.
    """
    found = np.full(len(overlaps), np.nan)
    for fold in (0, 1):
        own, others = overlaps[fold::2], overlaps[1 - fold :: 2]
        if len(others):
            chosen = [(others >= overlap).mean(0).argmax() for overlap in _OVERLAPS]
            found[fold::2] = np.mean([own[:, c] >= o for c, o in zip(chosen, _OVERLAPS, strict=True)], axis=0)
    return found


_LISTED = [
    Metric("deletion", False, "scores", Deletion()),
    Metric("insertion", True, "scores", Insertion()),
    Metric("ROAD", True, "scores", ROADCombined()),
    Metric("average drop", False, "scores", AverageDrop()),
    Metric("average gain", True, "scores", AverageGain()),
    Metric("increase", True, "scores", IncreaseInConfidence()),
    Metric("pointing game", True, "truth", localisation.pointing_game),
    Metric("energy", True, "truth", localisation.energy_pointing_game),
    Metric("top-k", True, "truth", localisation.top_k_intersection),
    Metric("IoU", True, "truth", localisation.iou),
    Metric("MaxBoxAccV2", True, "truth", _box_overlaps, _cross_fitted),
    Metric("grid pointing game", True, "cam", grid_pointing_game),
    Metric("complexity", False, "maps", Complexity()),
    Metric("entropy", False, "maps", complexity.entropy),
    Metric("sparseness", True, "maps", complexity.sparseness),
    Metric("infidelity", False, "model", robustness.infidelity),
    Metric("max-sensitivity", False, "cam", robustness.max_sensitivity),
    Metric("flip stability", True, "cam", robustness.flip_stability),
    Metric("shift stability", True, "cam", robustness.shift_stability),
    Metric("MPRT", False, "cam", randomisation.mprt),
    Metric("smooth MPRT", False, "cam", partial(randomisation.mprt, samples=10)),
    Metric("efficient MPRT", True, "cam", randomisation.efficient_mprt),
    Metric("random logit", False, "cam", randomisation.random_logit),
]


def available_metrics() -> dict[str, Metric]:
    """The metrics by name."""
    return {metric.name: metric for metric in _LISTED}


def metric_called(name: str) -> Metric:
    """The metric of a name in any case, with or without spaces, hyphens and underscores.

    Raises ValueError for another, with those that are meant.
    """
    known = {_plain(each): metric for each, metric in available_metrics().items()}
    if _plain(name) in known:
        return known[_plain(name)]
    close = [known[each].name for each in difflib.get_close_matches(_plain(name), known, n=3)]
    hint = f"; did you mean {' or '.join(close)}?" if close else f": choose from {', '.join(available_metrics())}"
    raise ValueError(f"no metric is called {name!r}{hint}")


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character not in "-_ ")
