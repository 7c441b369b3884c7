"""Warnings that say why a map is blank."""

import math
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from pytorch_grad_cam.engine.layouts import grid_of_proportions

_thread = threading.local()
_PACKAGE = __name__.partition(".")[0]


class CamWarning(UserWarning):
    """A map says nothing, and the message says why. reason: why, for one map. samples: which maps of the batch."""

    def __init__(self, message: str, reason: str = "", samples: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.samples = samples


class LayerEvidence(NamedTuple):
    """A layer's activations and gradients (N, C, *spatial), and the signed map (N, *spatial) made of them."""

    activations: torch.Tensor
    grads: torch.Tensor | None
    cam: torch.Tensor


def warn_of_blank_maps(
    highest: torch.Tensor, evidence: Sequence[LayerEvidence], alternative: Callable[[], str]
) -> None:
    """A CamWarning for each reason why a map, by its highest value (N,), is blank.

    alternative: what to do about a gradient of zero, asked for only then.
    """
    if _of_parts():
        return
    samples: dict[str, list[int]] = {}
    for sample in (highest == 0).nonzero()[:, 0].tolist():
        samples.setdefault(_reason(evidence[0], sample), []).append(sample)
    for reason, blank in samples.items():
        warn_of_blank(blank, len(highest), reason + (alternative() if reason == _ZERO_GRADIENT else ""))
    if len(evidence) > 1 and not all(layer.cam[highest > 0].isfinite().all() for layer in evidence):
        left_out = "a layer with non-finite values (an overflow? run the model in float32 or bfloat16) is left out"
        issue(CamWarning(f"{left_out} of the mean over the layers"))


def warn_of_blank(samples: Sequence[int], maps: int, why: str) -> None:
    """Warn that `samples`, of `maps` maps, are blank; not for maps that are parts of another one."""
    if _of_parts():
        return
    which = f"{len(samples)} of {maps} maps are blank" if maps > 1 else "the map is blank"
    issue(CamWarning(f"{which}: {why}", why, samples))


def warn_of_proportions(grid: Sequence[int], image_size: Sequence[int]) -> None:
    """Warn where a given reshape_transform gives cells that are not square, and square ones would fit as well."""
    square = grid_of_proportions(math.prod(grid), image_size)
    if square is not None and square != tuple(grid):
        given, expected, pixels = (" x ".join(map(str, size)) for size in (grid, square, image_size))
        cells = f"the reshape_transform gives {given} cells, but an image of {pixels} has {expected}"
        issue(CamWarning(f"{cells}: give it that height and width, or leave it out"))


def issue(warning: CamWarning) -> None:
    """Show a warning, for the line outside this package that made the call; `warnings_kept` keeps it."""
    keeper: tuple[list[CamWarning], bool] = getattr(_thread, "keeper", None) or ([], True)
    kept, shown = keeper
    kept.append(warning)
    if shown or not warning.samples:
        warnings.warn(warning, stacklevel=_level_of_user())


@contextmanager
def warnings_kept(shown: bool = True) -> Iterator[list[CamWarning]]:
    """Within, in this thread: the list gets the CamWarnings that are issued. shown: show those of blank maps."""
    outer = getattr(_thread, "keeper", None)
    kept: list[CamWarning] = []
    _thread.keeper = kept, shown
    try:
        yield kept
    finally:
        _thread.keeper = outer


@contextmanager
def maps_are_parts() -> Iterator[None]:
    """Within, in this thread: blank maps are not warned of, because they are parts of another map."""
    outer = _of_parts()
    _thread.parts = True
    try:
        yield
    finally:
        _thread.parts = outer


def _of_parts() -> bool:
    return getattr(_thread, "parts", False)


def _level_of_user() -> int:
    """The stack level, seen from the caller of this function, of the nearest line outside this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    return level


_ZERO_GRADIENT = "zero gradient, the score does not depend on these positions of the layer"


def _reason(evidence: LayerEvidence, sample: int) -> str:
    activations, cam = evidence.activations[sample], evidence.cam[sample]
    grads = None if evidence.grads is None else evidence.grads[sample]
    if not all(values.isfinite().all() for values in (activations, cam, grads) if values is not None):
        return "non-finite values in the layer (an overflow? run the model in float32 or bfloat16)"
    if grads is not None and not grads.any():
        return _ZERO_GRADIENT
    if (activations.flatten(1).amax(1) == activations.flatten(1).amin(1)).all():
        return "constant activations, the layer is the same at all positions (or has only one)"
    if cam.amax() <= 0:
        return "no positive evidence, all that the layer says speaks against the target"
    return "constant evidence, no position has more than another"
