"""MaskCLIP (Zhou, Loy & Dai 2022, arXiv:2112.01071)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from pytorch_grad_cam.attention.attention_cam import AttentionCAM
from pytorch_grad_cam.attention.value_path import ValuePath
from pytorch_grad_cam.engine.layer_run import Call, Drawn
from pytorch_grad_cam.engine.rows import Rows
from pytorch_grad_cam.engine.targets import RowScores, scores_of_model
from pytorch_grad_cam.engine.trees import AsMap


def above_the_lowest(scores: torch.Tensor) -> torch.Tensor:
    """What each cell says for the score more than the cell that says least. (N, cells) to (N, cells)."""
    return scores - scores.amin(1, keepdim=True)


class MaskCLIP(AttentionCAM):
    r"""What the model says of the value of each cell of the last block, without a gradient.

    $L_i = s(f(v_i)) - \min_j s(f(v_j))$: $v_i$ is token i behind the last block when each of its tokens sees itself
    alone (its attention weights are the identity, so that what is left of it are the projections of value and output),
    f the model's part behind the block, and s the score: of CLIP and its kin the cosine with a text, scaled.

    The paper labels each cell with the text of the highest cosine; of one text the map is the cosine, above the
    lowest of the image, since no cosine is zero. Any other score, as a class of a ViT, is read in the same way.
    Residual and MLP of the block stay, as in the authors' code for ViTs.

    When to take it: for CLIP and its kin where there are no gradients, or where several texts share an image and each
    cell shall be given to one of them. A classifier whose cells were never trained to say the class gives noise.

    Cost: two forwards, whatever the number of targets, and the part behind the last block for each cell.
    Raises ValueError where that part takes no single cell.
    Paper: Zhou, Loy & Dai 2022, https://arxiv.org/abs/2112.01071.
    """

    uses_gradients = False
    capture_of_blocks: Callable[..., ValuePath] = ValuePath
    last_blocks = 1

    def _maps_of_layers(self, call: Call, capture: Any, transform: AsMap | None) -> Drawn:
        runs = self._runs(call, capture.runs, transform)
        images, grid = len(call.image), capture.tower.layout.grid
        scores = scores_of_model(self.model, self.output_transform, call.image.shape, capture.of_cells)
        rows = Rows.repeated(range(images), math.prod(grid), call.image.device)
        for of_list in RowScores(call.target_lists, call.image.device)(scores, rows):
            evidence = above_the_lowest(of_list.reshape(images, math.prod(grid))).reshape(images, *grid)
            runs[0].signed_maps.append(evidence.detach() if self.detach else evidence)
        return self._drawn(call, runs)
