"""Which outputs of a traced forward's modules can be read as maps, whatever the score."""

from __future__ import annotations

from collections import Counter

from torch import nn

from pytorch_grad_cam.locate.candidate_map import CandidateMap
from pytorch_grad_cam.locate.location import Location
from pytorch_grad_cam.locate.readings import Readings, is_of
from pytorch_grad_cam.locate.traced_forward import TracedForward


class Candidates:
    """The outputs of a traced forward's modules that a score can depend on, and their readings as maps.

    runs: what the modules returned, in the order of execution. readings: of those that can be read as maps the place
    among them and the layouts, the best one first. repeats: how many of these each module has. pooled: the grids that
    adaptive pooling made.
    """

    def __init__(self, forward: TracedForward, readings: Readings) -> None:
        self.image = forward.image
        self.runs = [entry for entry in forward.runs if entry.returned.requires_grad]
        self.readings = [
            (place, layouts)
            for place, entry in enumerate(self.runs)
            if entry.first and (layouts := readings.by_numbers(entry))
        ]
        self.repeats = Counter(self.runs[place].module for place, _ in self.readings)
        self.pooled = {
            tuple(entry.returned.shape[2:])
            for entry in self.runs
            if type(entry.module).__name__.startswith("Adaptive") and is_of((nn.modules.pooling,), entry.module)
        }

    def location(self, chosen: CandidateMap, why: str) -> Location:
        """The location of a map, named by a module that returns it: one that runs once and returns nothing else
        before others, the shortest name before longer ones.
        """
        runs = Counter(entry.module for entry in self.runs if entry.first)
        same = [e for e in self.runs if e.returned is chosen.call.returned and (e.alone or e is chosen.call)]
        # Of names of one length the last: modules behind it may have written into what the others returned.
        named = min(same[::-1], key=lambda entry: (runs[entry.module] > 1, not entry.alone, len(entry.name)))
        samples, shape, axes = len(self.image), [*named.returned.shape], chosen.layout.axes
        shape[axes.index(next(axis for axis in "FNT" if axis in axes))] //= samples
        return Location(named.name, named.module, tuple(shape), chosen.layout, why)
