"""Maps of several grids that only together have all paths from a score, as the levels of a pyramid."""

from __future__ import annotations

from typing import Any

from pytorch_grad_cam.engine.autograd_graph import nodes_behind
from pytorch_grad_cam.locate.candidate_map import CandidateMap
from pytorch_grad_cam.locate.graph_cuts import edges_on, nodes_ahead
from pytorch_grad_cam.locate.map_choice import MapChoice
from pytorch_grad_cam.locate.scored_maps import ScoredMaps


def levels(best: CandidateMap | None, rules: MapChoice, scored: ScoredMaps) -> list[CandidateMap]:
    """Those maps, the best of each; none where one map has all paths behind them. best: the best of all by the rules.

    Cost: where tensors are put together behind the best map, one backward, and one more for each of them.
    """
    joins = [] if rules.asked.is_dense else scored.joins_behind(best)
    maps = scored.maps() if joins else []
    for join in joins:
        found = {}
        for place, edge in edges_on(join, scored.dead):
            paths = scored.paths(edge)
            cuts = [m._replace(is_cut=True) for m in maps if paths.are_cut_by(m.call.returned)]
            of_edge, _ = rules.best(scored.through(join, place, cuts))
            if of_edge is not None and _is_one_of_a_row(of_edge, join, best, scored):
                of_edge = best
            if of_edge is not None:
                found[of_edge.call.module] = of_edge
        grids = {level.layout.grid for level in found.values()}
        if len(grids) > 1 and len(grids) == len(found):
            return list(found.values())
    return []


def _is_one_of_a_row(of_edge: CandidateMap, join: Any, best: CandidateMap | None, scored: ScoredMaps) -> bool:
    """Whether a map lies in front of the best one, that all paths go through, and what is put together behind that is
    read by something learned: the times of a recurrent layer, not the predictions for several boxes. That few cells
    lead to the first of the times says nothing against the best map.
    """
    if best is None or not best.is_cut or of_edge.call.run >= best.call.run:
        return False
    within = nodes_behind(scored.asked.edge.node, ends=[join])
    learned = {entry.returned.grad_fn for entry in scored.candidates.runs if entry.module._parameters}
    return not learned.isdisjoint(nodes_ahead(within, [join]) - {join})
