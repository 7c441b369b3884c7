"""The warning of this library, who hears it, and why a map is blank."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch

Maps = Sequence[torch.Tensor]
_thread = threading.local()
_PACKAGE = str(Path(__file__).parents[1]) + os.sep


class CamWarning(UserWarning):
    """A map says nothing, or less than it seems to, and the message says why.

    reason: why, for one map. samples: which maps of the batch.
    """

    def __init__(self, message: str, reason: str = "", samples: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.reason, self.samples = reason, samples


class Asked(Protocol):
    """What the reasons ask of a call: its K target lists, and which score is a probability at its limit."""

    @property
    def target_lists(self) -> Sequence[Any]: ...

    def probability_at_limit(self, sample: int, position: int) -> int | None: ...


class RunEvidence(NamedTuple):
    """What a run of a layer gave for K target lists: activations (N, C, *grid), the signed maps (N, K, *grid), and the
    norm of each gradient (N, K), None for methods without gradients.
    """

    activations: torch.Tensor
    signed: torch.Tensor
    gradient_norms: torch.Tensor | None


def warn_of_blank_maps(drawn: Maps, evidence: Sequence[RunEvidence], advice: Callable[[], str], call: Asked) -> None:
    """A CamWarning for each reason why maps are blank, and one where a layer is left out of their mean.

    drawn: the maps (N * K, 1, *spatial) of each run; a map is blank where it is zero in all of them.
    advice: what to do about a gradient of zero, asked for only then. call: what was asked, of which no graph is needed.
    Cost: the call's one wait for the device, and more only where there is something to say.
    """
    if getattr(_thread, "parts", False):
        return
    alive = sum(drawn[1:], drawn[0]).flatten(1).any(1).reshape(evidence[0].signed.shape[:2])
    whole = alive if len(evidence) == 1 else alive & _finite_in_all(evidence)
    if whole.all():
        return
    for position, of_list in enumerate(_facts(evidence[0], alive) if not evidence[1:] else _of_levels(evidence, alive)):
        samples: dict[str, list[int]] = {}
        for sample, (is_alive, *facts) in enumerate(of_list):
            if not is_alive:
                samples.setdefault(_reason(facts, call, sample, position), []).append(sample)
        for reason, blank in samples.items():
            warn_of_blank(blank, len(alive), reason + (advice() if reason == _ZERO_GRADIENT else ""))
    if not whole[alive].all():
        issue(CamWarning(_LEFT_OUT))


def _finite_in_all(evidence: Sequence[RunEvidence]) -> torch.Tensor:
    return torch.stack([run.signed.flatten(2).isfinite().all(2) for run in evidence]).all(0)


def warn_of_blank(samples: Sequence[int], maps: int, why: str) -> None:
    """Warn that `samples`, of `maps` maps, are blank; not for maps that are parts of another one."""
    if getattr(_thread, "parts", False):
        return
    which = f"{len(samples)} of {maps} maps are blank" if maps > 1 else "the map is blank"
    issue(CamWarning(f"{which}: {why}", why, samples))


def issue(warning: CamWarning) -> None:
    """Show a warning, for the line outside this package that made the call; `warnings_kept` keeps it."""
    kept, shown = cast("tuple[list[CamWarning], bool | None]", getattr(_thread, "keeper", None) or ([], True))
    kept.append(warning)
    if not shown and (warning.samples or shown is None):
        return
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(warning, stacklevel=level)


@contextmanager
def warnings_kept(shown: bool | None = True) -> Iterator[list[CamWarning]]:
    """Within, in this thread: the list gets the CamWarnings that are issued. shown: show those of blank maps, too; None
    shows none at all.
    """
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
    outer = getattr(_thread, "parts", False)
    _thread.parts = True
    try:
        yield
    finally:
        _thread.parts = outer


def warn_where_apart(maps: torch.Tensor, joined: torch.Tensor, images: int, why: str) -> None:
    """A CamWarning for maps (images * K, layers, *spatial) that are blank only since they were joined."""
    blank = maps.flatten(1).any(1) & ~joined.flatten(1).any(1)
    if blank.any():
        of_images = blank.reshape(images, -1).any(1)
        warn_of_blank(of_images.nonzero()[:, 0].tolist(), images, why)


_ZERO_GRADIENT = "zero gradient, the score does not depend on these positions of the layer"
_PROBABILITY = (
    "the score is a probability at {}, which has no gradient: explain the logit before it, by a model without its "
    "softmax or sigmoid or by an output_transform"
)
_AGAINST = "no positive evidence, all that the layer says speaks against the target"
_NOTHING_POSITIVE = "no positive evidence, the map that this method makes of the layer has nothing above zero"
_WITHOUT_GRADIENT = 2  # which of the facts it is
_OVERFLOW = "an overflow? run the model in float32 or bfloat16"
_LEFT_OUT = f"a layer with non-finite values ({_OVERFLOW}) is left out of the mean over the layers"


def _facts(evidence: RunEvidence, alive: torch.Tensor) -> list[list[list[bool]]]:
    """What is true of each map (N, K), list by list: whether it says something, whether it and its layer are finite,
    whether the gradient is zero, the layer constant, no evidence positive. Cost: one wait for the device.
    """
    activations, signed, norms = evidence.activations.flatten(2), evidence.signed.flatten(2), evidence.gradient_norms
    norms = torch.ones_like(signed[..., 0]) if norms is None else norms
    lowest, highest = activations.aminmax(dim=2)
    finite = (lowest.isfinite() & highest.isfinite()).all(1, keepdim=True) & signed.isfinite().all(2) & norms.isfinite()
    facts = alive, finite, norms == 0, (lowest == highest).all(1, keepdim=True).expand_as(alive), signed.amax(2) <= 0
    return torch.stack(facts).permute(2, 1, 0).tolist()


def _of_levels(evidence: Sequence[RunEvidence], alive: torch.Tensor) -> list[list[list[bool]]]:
    """`_facts` of that one of several layers, such as the levels of a detector, which the score depends on: the first.

    Cost: one wait for the device a layer.
    """
    of_layers = zip(*(_facts(run, alive) for run in evidence), strict=True)
    return [[_of_depending(told) for told in zip(*of_list, strict=True)] for of_list in of_layers]


def _of_depending(told: Sequence[list[bool]]) -> list[bool]:
    return next((facts for facts in told if not facts[_WITHOUT_GRADIENT]), told[0])


def _reason(facts: list[bool], call: Asked, sample: int, position: int) -> str:
    """Why a map says nothing. facts: of `_facts` all but the first."""
    finite, without_gradient, of_constant, against = facts
    if not finite:
        return f"non-finite values in the layer ({_OVERFLOW})"
    if without_gradient:
        return _why_zero(call.probability_at_limit(sample, position))
    if of_constant:
        return "constant activations, the layer is the same at all positions (or has only one)"
    nothing_positive = _AGAINST if call.target_lists[position] else _NOTHING_POSITIVE
    return nothing_positive if against else "constant evidence, no position has more than another"


def _why_zero(probability: int | None) -> str:
    return _ZERO_GRADIENT if probability is None else _PROBABILITY.format(probability)
