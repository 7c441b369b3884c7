"""Recipro-CAM (Byun & Lee 2022, arXiv:2209.14074)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.capture import Capturing
from pytorch_grad_cam.engine.layer_run import Call, Drawn, LayerRun
from pytorch_grad_cam.engine.recorded_tails import RecordedTails
from pytorch_grad_cam.engine.targets import Target, check_own_scores, resolve_targets
from pytorch_grad_cam.engine.trees import AsMap
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.perturbation.single_cells import scores_of_cells

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ReciproCAM(BaseCAM):
    r"""What the model says of each cell alone: $L_{ij} = softmax(T(A \odot \delta_{ij}))_c$, with the tail T behind the
    layer; no gradients, so that quantised and other tails without any can be explained.

    Of a target that is no class the score itself. Tokens that are no cells, as the class token, stay as they are.
    gaussian: a cell is shown with its neighbours, weighted by the paper's 3 x 3 Gaussian (on each axis 1/4, 1/2, 1/4).
    batch_size: how many cells the tail gets at a time; None is 32 on a CPU and 128 elsewhere. Further options are those
    of BaseCAM.
    Raises ValueError for a reshape_transform that mixes or scales what the layer returned.
    Cost: one forward (three for the first call with a number of images) and, for each cell of each image, the model's
    tail behind the layer, whatever the number of targets.
    Paper: Byun & Lee 2022, https://arxiv.org/abs/2209.14074.
    """

    uses_gradients = False

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        gaussian: bool = False,
        batch_size: int | None = None,
        **options: Unpack[CamOptions],
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **options)
        self.gaussian, self.batch_size = gaussian, batch_size
        self.capture_class = partial(RecordedTails, self.output_transform, self.spatial_from, self._known_tails)

    def _maps_of_layers(self, call: Call, capture: Capturing, transform: AsMap | None) -> Drawn:
        return super()._maps_of_layers(call._replace(tails=getattr(capture, "tails", {})), capture, transform)

    def evidence(self, run: LayerRun) -> torch.Tensor:
        def of_cells(target_lists: Sequence[Sequence[Target]]) -> torch.Tensor:
            with run.tail() as tail:
                check_own_scores(tail.scores, len(run.image))
                target_lists = [resolve_targets(target_list, tail.scores) for target_list in target_lists]
                how = cast(AsMap, run.as_map), run.activations.shape[2:], self.gaussian, self.batch_size
                return scores_of_cells(tail, target_lists, *how)

        with undisturbed(self.model), torch.no_grad():
            return run.of_targets(of_cells).to(run.activations)
