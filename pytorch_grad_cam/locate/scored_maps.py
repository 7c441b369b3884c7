"""The maps of a traced forward as a score sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.engine.torch_quirks.zero_rows import gradients_without_zero_rows
from pytorch_grad_cam.locate.asked_score import AskedScore
from pytorch_grad_cam.locate.candidate_map import CandidateMap
from pytorch_grad_cam.locate.candidates import Candidates
from pytorch_grad_cam.locate.graph_cuts import Edge, Paths, dead_edges, joins_before

# The last cuts that are looked at first, which saves time. In test_locate.py, and in the choice for 38 small networks
# of timm and transformers with seeded random weights, nothing changes from 4 to 64; 3 adds a warning.
_LATE = 4


class ScoredMaps:
    """The candidates that a score depends on, each with its gradient.

    dead: the edges of the graph that have turned out to be no paths, because no gradient comes through them.
    gradients: those that were taken last, by the tensor.
    """

    def __init__(self, candidates: Candidates, asked: AskedScore) -> None:
        self.candidates, self.asked = candidates, asked
        self.dead = set[Edge]()
        self.gradients: dict[torch.Tensor, torch.Tensor | None] = {}

    def maps(self, late: bool = False) -> list[CandidateMap]:
        """Those maps, in the order of execution.

        late: only those from the fourth last cut on. Cost: one backward, as far as the first of them.
        """
        if not self.candidates.readings:
            return []
        all_runs, paths = self.candidates.runs, self.paths()
        cuts = [place for place, _ in self.candidates.readings if paths.are_cut_by(all_runs[place].returned)]
        start = cuts[-_LATE] if late and len(cuts) >= _LATE else 0
        runs = all_runs[start:]
        returned = [entry.returned for entry in runs]
        gradients = gradients_without_zero_rows(self.asked.score, returned, keep_graph=True)
        self.gradients = dict(zip(returned, gradients, strict=True))
        # A CAM captures one tensor of a module and cuts it off from the others that the module returned: none of
        # those may lead to the score.
        reached = [gradient is not None for gradient in gradients]
        leading = Counter(entry.run for entry, leads in zip(runs, reached, strict=True) if leads)
        learned = [entry for entry, leads in zip(runs, reached, strict=True) if leads and entry.module._parameters]
        read_by_learned = [entry.read.grad_fn for entry in learned if entry.read is not None]
        hidden = {*nodes_behind(*read_by_learned)}
        maps = []
        for place, (layout, *other_layouts) in self.candidates.readings:
            gradient = gradients[place - start] if place >= start else None
            if gradient is not None and leading[all_runs[place].run] == 1:
                entry = all_runs[place]
                of_graph = paths.through(entry.returned), paths.are_cut_by(entry.returned)
                facts = *of_graph, self.candidates.repeats[entry.module] == 1, entry.returned.grad_fn in hidden
                maps.append(CandidateMap(entry, layout, tuple(other_layouts), gradient, *facts))
        return maps

    def paths(self, start: Any = None) -> Paths:
        """The paths to the image from the score, or from another edge of the graph."""
        return Paths(start or self.asked.edge, self.candidates.image, self.dead)

    def joins_behind(self, best: CandidateMap | None) -> list[Any]:
        """Where tensors are put together between the map, or what its module read, and the score."""
        around = [] if best is None else [best.call.returned, best.call.read]
        ends = [tensor.grad_fn for tensor in around if tensor is not None]
        return joins_before(self.asked.edge, ends, self.dead)

    def finds_dead_edges(self, best: CandidateMap | None) -> bool:
        """Whether edges behind the map turn out to be dead that were not known to be. Cost: a backward to them."""
        found = dead_edges(self.asked.score, self.joins_behind(best)) - self.dead
        self.dead |= found
        return bool(found)

    def through(self, join: Any, place: int, maps: Sequence[CandidateMap]) -> list[CandidateMap]:
        """The maps with the gradient that comes through one edge of a join: which cells of a level are alive is nothing
        that other levels, which are made of it, have a say in. Those that it does not reach are left out.
        """
        if not maps:
            return []

        def only_one_edge(gradients: Sequence[torch.Tensor | None], _: Any) -> tuple[torch.Tensor | None, ...]:
            return tuple(
                gradient if gradient is None or number == place else torch.zeros_like(gradient)
                for number, gradient in enumerate(gradients)
            )

        with join.register_hook(only_one_edge):
            tensors = [candidate.call.returned for candidate in maps]
            gradients = torch.autograd.grad(self.asked.score, tensors, allow_unused=True, retain_graph=True)
        pairs = zip(maps, gradients, strict=True)
        return [candidate._replace(gradient=gradient) for candidate, gradient in pairs if gradient is not None]
