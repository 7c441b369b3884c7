"""Score-CAM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.compat.old_spellings import old_constructor
from pytorch_grad_cam.engine.compiled_model import CompiledModel
from pytorch_grad_cam.engine.layer_run import LayerRun
from pytorch_grad_cam.engine.targets import TargetLists
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.wrappers import compile_options
from pytorch_grad_cam.perturbation.masked_scores import channel_scores, channels_by_energy

if TYPE_CHECKING:
    from typing_extensions import Unpack


def score_cam_weights(scores: torch.Tensor) -> torch.Tensor:
    r"""Algorithm 1: $\alpha_k = \exp(S_k) / \sum_l \exp(S_l)$ of the scores S (N, C) of the masked inputs.

    The baseline's score, which the paper subtracts from all of them, cancels.
    """
    return scores.softmax(dim=1)


class ScoreCAM(BaseCAM):
    """Channels weighted by the score of the input seen through them; no gradients.

    Each channel, enlarged to the input and scaled to [0, 1] (eq. 4), is multiplied with the input, and the model
    scores the product. The paper leaves open how to enlarge: here linearly with aligned corners, as in grad-cam 1.x,
    unless `align` says otherwise.
    share_of_energy: below 1 only the channels are scored that together have this share of an image's squared
    activations, the strongest first; the others count as if they were blank. Further options are those of BaseCAM.
    `batch_size` is the number of masked inputs that the model gets at a time; channels of several images share a batch,
    those that do not vary are scored once. None is 8 on a CPU and 64 elsewhere, with the masked inputs channels last in
    memory on a CPU; where there are many and the model is not compiled, another number or layout that the first of them
    show to be faster, see `engine.fastest_way`. In `torch.autocast`, which is the caller's to enter, maps differ by
    some hundredths.
    No bound on the map's error can be had before all channels are scored: the score behind a weak channel's mask has no
    limit. In order of energy half of the channels leave an error of up to .45 on the bundled digits, so that there is
    no early stopping but `share_of_energy`.

    When to take it: without gradients, where time does not matter, for maps that can be checked by looking at the
    masked images. Not in a loop over a data set: it costs a forward for each channel.
    Cost: 2 + C forwards of each image, whatever the number of targets; of two samples one more in the first call, see
    `engine.rectifiers`.
    Paper: Wang et al. 2020, https://arxiv.org/abs/1910.01279.
    """

    averages_positions = True

    uses_gradients = is_differentiable = False
    takes_rectified = True
    batch_size: int | None = None
    _compiled: CompiledModel | None = None

    @old_constructor
    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: Callable[[Any], torch.Tensor] | None = None,
        share_of_energy: float = 1.0,
        **options: Unpack[CamOptions],
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **options)
        self.share_of_energy = share_of_energy
        told = compile_options(model)
        self._compiled = None if told is None else CompiledModel(self.model, told, at_once=False)

    def compile(self, **options: Any) -> None:
        """Let the model score the masked inputs compiled; the first forward of a call runs as it was written.

        options: those of `torch.compile`. The first masked inputs of each number compile, which takes from seconds to
        minutes, and are compared with the model as it was written; what cannot be compiled, or gives something else,
        runs so, with a CamWarning. A ScoreCAM of a `torch.compile(model)` does this by itself in the second call with
        images of one shape, and says so.
        """
        self._compiled = CompiledModel(self.model, options)

    def weigh(self, run: LayerRun) -> torch.Tensor:
        chosen = channels_by_energy(run.activations.to(run.image.device), self.share_of_energy)
        with undisturbed(self.model, known=self._known), torch.no_grad():
            return score_cam_weights(run.of_targets(partial(self.scores_of_channels, run, chosen)))

    def scores_of_channels(self, run: LayerRun, chosen: torch.Tensor, target_lists: TargetLists) -> torch.Tensor:
        """The scores (K, N, C) of the input seen through each of the chosen channels (N, C), by K target lists."""
        work = run.layer, run.call_index, run.position, run.image.shape
        if self._compiled is not None and self._compiled.is_to_take(work):
            run = run._replace(call=run.call._replace(model=self._compiled))
        return channel_scores(run, chosen, target_lists, self.batch_size, self.shown)

    def shown(self, masks: torch.Tensor) -> Iterable[torch.Tensor]:
        """The masks that the input is seen through in the place of these (M, *spatial)."""
        return [masks]
