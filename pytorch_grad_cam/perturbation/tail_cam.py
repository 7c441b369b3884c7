"""Methods that ask what the model's part behind a layer makes of other activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.capture import Capturing
from pytorch_grad_cam.engine.detections.box_targets import of_one_prediction
from pytorch_grad_cam.engine.layer_run import Call, Drawn, LayerRun
from pytorch_grad_cam.engine.recorded_tails import RecordedTails
from pytorch_grad_cam.engine.tail import PartialForward
from pytorch_grad_cam.engine.targets import Target, check_own_scores, resolve_targets
from pytorch_grad_cam.engine.trees import floating_tensors
from pytorch_grad_cam.engine.undisturbed import undisturbed

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TailCAM(BaseCAM):
    """A method whose forward records the tail behind each layer, so that asking it costs no forward of its own.

    A subclass says in `of_tail` what it makes of it. batch_size: how many rows the tail gets at a time; None is 32 on a
    CPU and 128 elsewhere. Raises ValueError for a layer whose output does not have the images on its first axis.
    """

    uses_gradients = is_differentiable = False

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        batch_size: int | None = None,
        **options: Unpack[CamOptions],
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **options)
        self.batch_size = batch_size
        self.capture_class = self._recorded_tails

    def _recorded_tails(self, *how: Any) -> RecordedTails:
        return RecordedTails(self.output_transform, self.spatial_from, self._known.learnt, *how)

    def of_tail(self, tail: PartialForward, target_lists: Sequence[Sequence[Target]], run: LayerRun) -> torch.Tensor:
        """What the method makes of the tail for K target lists: (K, N, ...)."""
        raise NotImplementedError

    def asked(self, run: LayerRun) -> torch.Tensor:
        """What `of_tail` gives for the run's own target list."""

        def of_lists(target_lists: Sequence[Sequence[Target]]) -> torch.Tensor:
            with run.tail() as tail:
                _check_no_detections(self, tail, target_lists)
                check_own_scores(tail.scores, len(run.image))
                _check_first_axis(tail)
                return self.of_tail(tail, [resolve_targets(each, tail.scores) for each in target_lists], run)

        is_within_call = bool(run.call.tails)
        with nullcontext() if is_within_call else undisturbed(self.model, known=self._known), torch.no_grad():
            return run.of_targets(of_lists).to(run.activations)

    def _maps_of_layers(self, call: Call, capture: Capturing, transform: Callable[[Any], torch.Tensor] | None) -> Drawn:
        return super()._maps_of_layers(call._replace(tails=getattr(capture, "tails", {})), capture, transform)


def _check_no_detections(cam: TailCAM, tail: PartialForward, target_lists: Sequence[Sequence[Target]]) -> None:
    if of_one_prediction(target_lists) or isinstance(tail.scores, list):
        raise ValueError(
            f"{type(cam).__name__} follows no detections through what is behind the layer: take LayerCAM or HiResCAM, "
            "without gradients AblationCAM or RISE"
        )


def _check_first_axis(tail: PartialForward) -> None:
    for leaf in floating_tensors(tail.layer_output):
        if len(leaf) != tail.batch:
            raise ValueError(
                f"the target layer gives {tuple(leaf.shape)} for {tail.batch} images, to change what the tail is given "
                "they have to be on the first axis: choose another layer, or a method such as GradCAM"
            )
