"""The rules by which one of the maps of a traced forward is chosen for a score."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import nn

from pytorch_grad_cam.locate.answers import answer
from pytorch_grad_cam.locate.asked_score import AskedScore
from pytorch_grad_cam.locate.candidate_map import CandidateMap, breadth, passing
from pytorch_grad_cam.locate.graph_cuts import Paths
from pytorch_grad_cam.locate.readings import Readings, is_of

# What the thresholds rest on. "Nothing changes": in test_locate.py, and in the choice for 38 small networks of timm and
# transformers with seeded random weights; except for LeViTs where said.
# The share of living cells. A choice; nothing changes between 0.03 and 0.9: shares are nearly always 0 or 1.
_ALIVE = 0.5
# The share of the clearest answer. A choice: behind the pooled branch of an ASPP of 8 x 8 cells it is below a third.
_NEARLY_AS_CLEAR = 0.5
# The share of the paths through the coarsest grid. Inside of a block with a shortcut it is at most three in four
# (query, key, value and shortcut); behind the last of the four layers that a segmentation's decoder reads it was 0.86.
_MOST_PATHS = Fraction(4, 5)
# The least cells along an axis, tried in turn. With 2 first, maps of 2 cells win in the tests; with 4 first, a map of
# 3 x 4 costs another forward; with 1 first, 25 of the 38 networks get their pooled map, with 2 to 7 none another one.
_SMALLEST_GRIDS = (3, 2, 1)
# How much longer than high a line of text is at least. A choice: readers get 32 x 100 and 48 x 320 pixels.
_LINE = 3
ONE_OF_SEVERAL = "the last map that the score depends on; none lies on every path to it"


class MapChoice(NamedTuple):
    """What the rules depend on.

    pooled: the grids that adaptive pooling made, which are no stages of an encoder. takes_scores: whether a map that
    nothing learned follows, the scores of boxes, tokens or places themselves, is one of those to choose from.
    """

    asked: AskedScore
    readings: Readings
    pooled: Collection[tuple[int, ...]]
    takes_scores: bool = False

    def best(self, maps: Sequence[CandidateMap]) -> tuple[CandidateMap | None, str]:
        """The best map whose cells answer to noise on the image where they are read, and why it is the best.

        Cost: for tokens, for dense outputs and where a tensor can be read in several ways, one forward; where the first
        choice does not answer in its place, one more.
        """
        best, why = self._best_by_rules(maps)
        while best is not None and not self.readings.are_certain([best.layout, *best.other_layouts]):
            layout = self.readings.by_answers(best.call, clearly=True)
            if layout == best.layout:
                return best, why
            if layout is not None:
                # Which cells are alive depends on the reading: the choice is made anew, with the right one.
                shape = best.call.returned.shape
                maps = [
                    m._replace(layout=layout, other_layouts=()) if m.call.returned.shape == shape else m for m in maps
                ]
                best, why = self._best_by_rules(maps)
                if best is not None and best.layout == layout:
                    return best, why
                continue
            unread = best.layout
            alike = [candidate for candidate in maps if candidate.layout == unread]
            changes = self.readings.changes({candidate.call.module for candidate in alike})
            silent = [m for m in alike if m.call is best.call or not answer(unread, changes(m.call)).is_clear]
            maps = [candidate for candidate in maps if not any(candidate is each for each in silent)]
            best, why = self._best_by_rules(maps)
        return best, why

    def is_alive(self, candidate: CandidateMap) -> bool:
        """Whether the score depends on enough of the map."""
        if self.asked.is_of_whole_image:
            return candidate.alive.float().mean().item() >= _ALIVE
        return (candidate.is_hidden or self.takes_scores) and bool(candidate.alive.any())

    def is_large(self, candidate: CandidateMap) -> bool:
        """Whether the map has as many cells along its axes as a good one; of boxes, tokens and regions living ones."""
        return self._breadth(candidate) >= _SMALLEST_GRIDS[0]

    def _best_by_rules(self, maps: Sequence[CandidateMap]) -> tuple[CandidateMap | None, str]:
        """The rules apply in turn; one that no map passes is skipped."""
        once = passing([m for m in maps if self.is_alive(m)], lambda candidate: candidate.runs_once)
        for smallest in _SMALLEST_GRIDS:
            large = [m for m in once if self._breadth(m) >= smallest]
            if large:
                break
        else:
            return None, ""
        unpadded = passing(large, lambda candidate: not is_of((nn.modules.padding,), candidate.call.module))
        if self.asked.is_dense:
            encoded = self._behind_encoder(unpadded)
            decoded = self._first_decoded(encoded, unpadded)
            if decoded is None:
                return encoded, "the last map of the coarsest grid, behind the encoder"
            return decoded, "the decoder's first level, which all goes through that the encoder's last map says"
        cuts = passing(unpadded, lambda candidate: candidate.is_cut)
        last = cuts[-1]
        same_grid = [candidate for candidate in cuts if candidate.layout == last.layout]
        best = passing(same_grid, lambda candidate: not is_of((nn.modules.pooling,), candidate.call.module))[-1]
        place = next(place for place, candidate in enumerate(maps) if candidate is best)
        behind = maps[place + 1 :]
        joined = self._behind_branches(best, [m for m in behind if m.runs_once])
        if joined:
            return self._best_by_rules(joined)
        if any(m.layout == best.layout and m.is_hidden and self._has_lost_cells(m) for m in behind):
            readers = [m for m in once if _reads(m.call.read, best.call.returned) and m.layout == best.layout]
            if readers:
                return readers[0], "the last map before positions lose their way to the score (class token)"
        if best.is_cut:
            return best, "the last map that every path to the score goes through"
        return best, ONE_OF_SEVERAL

    def _behind_branches(self, best: CandidateMap, behind: Sequence[CandidateMap]) -> list[CandidateMap]:
        """Of the maps behind the best one those that all paths go through again, where broad maps of a coarser grid lie
        between: branches that begin early, as those of a pyramid of features, and what they are put together to has few
        cells that one place reads. None for scores that all positions lead to.

        Of NanoDet (`benchmarks.real`) LayerCAM hits .81 there, with .79 of its sum on the object: before .72 and .29.
        """
        if self.asked.is_of_whole_image or self.asked.is_dense or not best.is_cut:
            return []
        cells = math.prod(best.layout.grid)
        begun = False
        joined = []
        for candidate in filter(self.is_alive, behind):
            if candidate.is_cut:
                joined += [candidate] if begun else []
            else:
                begun = begun or (math.prod(candidate.layout.grid) < cells and self.is_large(candidate))
        return joined

    def _behind_encoder(self, maps: Sequence[CandidateMap]) -> CandidateMap:
        """Of the maps of the coarsest grid through which most paths lead the last that answers to noise nearly as
        clearly as any of them.

        Fewer paths lead through the inside of a block, the branch of one level or one query's sight. Behind branches
        that pool the whole image, cells look everywhere. Cost: one forward.
        """
        strided = passing(maps, lambda candidate: candidate.layout.grid not in self.pooled)
        coarsest = min(math.prod(candidate.layout.grid) for candidate in strided)
        of_grid = [candidate for candidate in strided if math.prod(candidate.layout.grid) == coarsest]
        most = max(candidate.paths for candidate in of_grid)
        coarse = [candidate for candidate in of_grid if candidate.paths >= _MOST_PATHS * most]
        self.readings.changes({candidate.call.module for candidate in maps})  # for what is asked later, too
        answers = [self._clearness(candidate) for candidate in coarse]
        clear = [m for m, found in zip(coarse, answers, strict=True) if found >= _NEARLY_AS_CLEAR * max(answers)]
        return (clear or coarse)[-1]

    def _clearness(self, candidate: CandidateMap) -> float:
        """How clearly the cells answer to noise on the image where they lie. Cost: a forward for a new module."""
        change = self.readings.changes({candidate.call.module})(candidate.call)
        return answer(candidate.layout, change).correlation

    def _first_decoded(self, encoded: CandidateMap, maps: Sequence[CandidateMap]) -> CandidateMap | None:
        """The last map of the next finer grid that is between the encoder's last one and the score on all ways, as
        behind a U-Net's first step up; None where there is none, or it has over twice as many cells along an axis, or
        its cells do not answer where they lie: what an autoencoder decodes from a vector looks at all of the image.

        Of the bundled U-Net (`python -m benchmarks.segmentation`) Grad-CAM has .85 of its sum in the digit's box there,
        .43 at the encoder's last map. Nearer to the output a map repeats the mask.
        """
        cells = encoded.layout.grid
        ways = Paths(self.asked.edge, encoded.call.returned)
        finer = [
            candidate
            for candidate in maps
            if candidate.layout.grid not in self.pooled
            and math.prod(candidate.layout.grid) > math.prod(cells)
            and all(here <= 2 * there for here, there in zip(candidate.layout.grid, cells, strict=True))
            and ways.are_cut_by(candidate.call.returned)
        ]
        coarsest = min((math.prod(candidate.layout.grid) for candidate in finer), default=0)
        of_grid = [candidate for candidate in finer if math.prod(candidate.layout.grid) == coarsest]
        least = _NEARLY_AS_CLEAR * self._clearness(encoded)
        return of_grid[-1] if of_grid and self._clearness(of_grid[-1]) >= least else None

    def _has_lost_cells(self, candidate: CandidateMap) -> bool:
        """Whether most cells do not lead to the score; of tokens, whose score is one of them, all but a few."""
        return not self.is_alive(candidate) or ("T" in candidate.layout.axes and not self.is_large(candidate))

    def _breadth(self, candidate: CandidateMap) -> int:
        cells = candidate.layout.grid
        # A row of 9 cells along a line of text says as much of it as 3 x 3 say of a picture.
        grid = math.isqrt(max(cells)) if self._is_row_of_line(cells) else breadth(cells)
        of_all_cells = self.asked.is_of_whole_image or self.asked.is_dense
        return grid if of_all_cells else min(grid, candidate.breadth_alive)

    def _is_row_of_line(self, grid: tuple[int, ...]) -> bool:
        """Whether the grid is a row of cells along an image that is much longer in that direction."""
        if sorted(grid)[:-1] != [1]:
            return False
        high, long = sorted(self.readings.size)
        return self.readings.size[grid.index(max(grid))] == long >= _LINE * high


def _reads(read: torch.Tensor | None, returned: torch.Tensor) -> bool:
    """Whether a module read what another one returned, as it is or with something added, as positions are in Yolos."""
    node = None if read is None else read.grad_fn
    if read is returned or node is None:
        return read is returned
    return node.name().startswith("AddBackward") and returned.grad_fn in [added for added, _ in node.next_functions]
