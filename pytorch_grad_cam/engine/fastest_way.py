"""Many forwards of a model as it is fastest on its device: how many images at a time, and how they lie in memory."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable, Iterable
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.engine.chunks import images_at_a_time, in_chunks

_SIZES_ON_CPU, _SIZES_ON_DEVICE = (4, 8, 16, 32), (32, 64, 128, 256)
# Of the work; the ways that are slow are then tried with little of it.
_MOST_TRIED = 0.25
# Another way than the usual one is taken where it needs no more than this share of its time: less is noise.
_MUCH_FASTER = 0.95
_LAYOUT_NDIMS = (4, 5)

Run = Callable[[int, int, bool], torch.Tensor]
"""From start, stop and whether images lie channels last in memory to a tensor of stop - start results."""


class Way(NamedTuple):
    """How many images a forward gets, and whether they lie channels last in memory."""

    images: int
    channels_last: bool


_known: weakref.WeakKeyDictionary[nn.Module, tuple[Hashable, dict[Hashable, Way]]] = weakref.WeakKeyDictionary()


def in_fastest_chunks(model: nn.Module, run: Run, total: int, images: torch.Tensor, description: str) -> torch.Tensor:
    """The concatenated results of run(start, stop, channels_last) over 0..total, which call the model with images like
    these (N, C, *spatial).

    The first results are computed in several ways, twice each, and the others in the fastest, which is remembered for
    the model as it is, the size and type of the images, autocast and the number of threads. That is only done where it
    is a small part of the work, and not under `torch.use_deterministic_algorithms`: ways differ by rounding. Autocast
    is the caller's to choose, for maps differ by more.
    Cost: a wait for the device after each result that is timed. Of a CUDA device's memory see `in_chunks`.
    """
    device = images.device
    usual = Way(images_at_a_time(device), device.type == "cpu" and images.ndim in _LAYOUT_NDIMS)
    known = _known_of(model)
    how = torch.get_num_threads(), torch.is_autocast_enabled(device.type), device
    case = tuple(images.shape[1:]), images.dtype, *how
    trial = _Trial(run, device)
    if case not in known and _is_worth_it(total, usual, device):
        known[case] = trial.fastest(usual, images.ndim in _LAYOUT_NDIMS)
    way, tried = known.get(case, usual), trial.done

    def following(start: int, stop: int) -> torch.Tensor:
        return run(tried + start, tried + stop, way.channels_last)

    return torch.cat([*trial.results, in_chunks(following, total - tried, way.images, description)])


def _known_of(model: nn.Module) -> dict[Hashable, Way]:
    """The ways that were found for the model as it is: its modules, and how its parameters lie in memory."""
    parameters = tuple((parameter.dtype, parameter.device, parameter.stride()) for parameter in model.parameters())
    form = tuple(map(type, model.modules())), parameters
    if model not in _known or _known[model][0] != form:
        _known[model] = form, {}
    return _known[model][1]


def _is_worth_it(total: int, usual: Way, device: torch.device) -> bool:
    tried = 2 * (usual.images + sum(_sizes(device)))
    return tried <= _MOST_TRIED * total and not torch.are_deterministic_algorithms_enabled()


def _sizes(device: torch.device) -> Iterable[int]:
    return _SIZES_ON_CPU if device.type == "cpu" else _SIZES_ON_DEVICE


class _Trial:
    """Results from the first on, each timed. done: how many there are."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self.results: list[torch.Tensor] = []
        self.done = 0
        self._run, self._device = run, device
        self._seconds: dict[Way, float] = {}

    def fastest(self, usual: Way, has_layouts: bool) -> Way:
        """The layout is chosen with the usual number of images, and then their number."""
        self._time([Way(usual.images, layout) for layout in ((False, True) if has_layouts else (False,))])
        layout = self._best().channels_last
        self._time([Way(size, layout) for size in _sizes(self._device) if size != usual.images])
        best = self._best()
        return best if self._seconds[best] <= _MUCH_FASTER * self._seconds[usual] else usual

    def _best(self) -> Way:
        return min(self._seconds, key=lambda way: self._seconds[way])

    def _time(self, ways: list[Way]) -> None:
        """The time of an image in each of the ways: the shorter one of two forwards."""
        for way in [*ways, *ways]:
            started = perf_counter()
            result = self._result(way)
            if result is None:
                self._seconds[way] = math.inf
                continue
            took = (perf_counter() - started) / way.images
            self._seconds[way] = min(took, self._seconds.get(way, math.inf))
            self.results.append(result)
            self.done += way.images

    def _result(self, way: Way) -> torch.Tensor | None:
        """None where the device has too little memory, or the model fails with several images, see `in_chunks`."""
        try:
            result = self._run(self.done, self.done + way.images, way.channels_last)
            _wait_for(self._device)
        except Exception as error:  # noqa: BLE001
            if isinstance(error, torch.cuda.OutOfMemoryError):
                torch.cuda.empty_cache()
            return None
        return result


def _wait_for(device: torch.device) -> None:
    backend: Any = getattr(torch, device.type)
    if device.type != "cpu" and hasattr(backend, "synchronize"):
        backend.synchronize()
