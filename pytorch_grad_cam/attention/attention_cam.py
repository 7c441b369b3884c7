"""What the methods on attention weights share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pytorch_grad_cam.attention.attended import Attended, AttendedBlock, by_image
from pytorch_grad_cam.attention.attention_capture import AttentionCapture
from pytorch_grad_cam.attention.flex_attention import flex_as_plain_attention
from pytorch_grad_cam.attention.tokens import like_output
from pytorch_grad_cam.attention.towers import Tower, tower_of
from pytorch_grad_cam.attention.windows import Places
from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.engine.capture import Capturing
from pytorch_grad_cam.engine.inputs import Inputs
from pytorch_grad_cam.engine.layer_run import Call, Drawn
from pytorch_grad_cam.engine.layers import names_of
from pytorch_grad_cam.engine.maps import full_precision
from pytorch_grad_cam.engine.targets import Targets, scores_of_model, target_scores
from pytorch_grad_cam.engine.trees import AsMap
from pytorch_grad_cam.locate.location import Location

if TYPE_CHECKING:
    from typing_extensions import Unpack

_WHY = "the last block with attention of the image's tokens"


class AttentionCAM(BaseCAM):
    """A map made of the attention weights of blocks, and of a score's gradients with respect to them.

    A method is a subclass with `relevance(attended)`. It may say `last_blocks` (how many of the last blocks are taken
    where none are named; None is all), `one_sequence` (it follows tokens from block to block, so that all of them must
    be of one sequence), `reads_output` (it needs the gradients of what the attention gives).

    target_layers: the blocks, modules or names; None are those of the model whose attention is that of the image's
    tokens, see `attention.towers.tower_of`. reshape_transform: from (N, tokens, 1) to (N, 1, *grid); None finds it.
    The other arguments are BaseCAM's; `eigen_smooth` has no meaning, since attention has no channels, and is refused.

    Raises ValueError where the model has no attention of the image's tokens that can be seen.
    """

    capture_of_blocks: Callable[..., AttentionCapture] = AttentionCapture
    last_blocks: int | None = None
    one_sequence = reads_output = False

    def __init__(
        self,
        model: nn.Module,
        target_layers: nn.Module | str | Sequence[nn.Module | str] | None = None,
        reshape_transform: AsMap | None = None,
        **options: Unpack[CamOptions],
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, **options)
        if type(self).uses_gradients and not self.uses_gradients:
            raise ValueError(f"{type(self).__name__} is made of gradients; AttentionRollout needs none")
        self._named = list(self.target_layers)
        self._finds_layers = False  # the blocks are found by their attention, not by what the score reads

    def relevance(self, attended: Attended) -> torch.Tensor:
        """How much each token says for the score: (N, tokens)."""
        raise NotImplementedError

    def _maps(self, inputs: Inputs, targets: Targets, eigen_smooth: bool) -> torch.Tensor:
        if eigen_smooth:
            raise ValueError(f"{type(self).__name__} reads attention, which has no channels for eigen_smooth")
        with flex_as_plain_attention(self.model):
            return super()._maps(inputs, targets, eigen_smooth)

    def _prepared(self, inputs: Inputs, targets: Targets) -> tuple[Inputs, torch.Tensor, Capturing, AsMap | None]:
        inputs, image, _, transform = super()._prepared(inputs, targets)
        how = self._found_tower(inputs, image), self.uses_gradients or not self.detach, self.detach
        return inputs, image, self.capture_of_blocks(self.model, *how), transform

    def _found_tower(self, inputs: Inputs, image: torch.Tensor) -> Tower:
        def read(outputs: Any) -> Any:
            return scores_of_model(self.model, self.output_transform, image.shape, outputs)

        tower = tower_of(self.model, inputs, self.spatial_from, read, self._named)
        if self.one_sequence:
            _check_one_sequence(self, tower)
        if self.last_blocks is not None and not self._named:
            tower = tower.last(self.last_blocks)
        self.target_layers = tower.blocks
        last = tower.blocks[-1]
        if self._transform is None:
            name = names_of(self.model, [last])[0]
            self._location = Location(name, last, (), tower.layout, _WHY)
            self._found_layouts.keep(self._location, tuple(image.shape[2:]))
        return tower

    def _maps_of_layers(self, call: Call, capture: Any, transform: AsMap | None) -> Drawn:
        runs = self._runs(call, capture.runs, transform)
        reads = capture.tower.reads.to(call.image.device)
        for position in range(len(call.target_lists)):
            blocks, behind = self._of_list(call, capture, position)
            relevance = full_precision(self.relevance(Attended(blocks, reads / reads.sum(), behind)))
            runs[0].signed_maps.append(_as_map(relevance.detach() if self.detach else relevance, capture, transform))
            if self.uses_gradients:
                runs[0].gradient_norms.append(_strongest(blocks, len(call.image)))
        return self._drawn(call, runs)

    def _of_list(self, call: Call, capture: Any, position: int) -> tuple[list[AttendedBlock], list[AttendedBlock]]:
        """The attentions of the image's tokens with the gradients of one target list's score, and those behind them."""
        gradients: Sequence[Any] = [None] * len(capture.attentions)
        of_outputs = gradients
        if self.uses_gradients:
            gradients, of_outputs = self.gradients(call, capture, position)
        images = len(call.image)
        found: list[AttendedBlock] = []
        behind: list[AttendedBlock] = []
        for of_block, gradient, of_output in zip(capture.attentions, gradients, of_outputs, strict=True):
            which = of_block.block, of_block.number
            if which in capture.tower.places or of_block.block is None:
                places = capture.tower.places.get(which)
                weights = _of_heads(of_block.attention.weights, places, images)
                of_weights = None if gradient is None else _of_heads(gradient, places, images)
                attended = AttendedBlock(weights, of_weights, of_block.attention, of_output, places)
                if which in capture.tower.further_heads:
                    found[-1] = found[-1].with_heads_of(attended)
                else:
                    (behind if of_block.block is None else found).append(attended)
        return found, behind

    def gradients(self, call: Call, capture: Any, position: int) -> tuple[Sequence[Any], Sequence[Any]]:
        """Of one target list's score, with respect to the weights of each attention that was captured, and to what each
        gives, None where that is not asked for.
        """
        outputs = [of_block.attention.output for of_block in capture.attentions] if self.reads_output else []
        if any(output is None for output in outputs):
            raise ValueError(
                f"the attention of this model is no softmax(Q K^T) V of (..., T, d) that {type(self).__name__} could "
                "read; LeGrad needs its weights alone"
            )
        score = target_scores(call.scores, call.target_lists[position]).sum()
        images = [call.image] if self.compute_input_gradient else []
        keep_graph = position < len(call.target_lists) - 1
        of_weights, others = capture.differentiate(score, keep_graph, [*outputs, *images])
        if images:
            call.image.grad = others[-1]
        return of_weights, others[: len(outputs)] or [None] * len(of_weights)


def _of_heads(tensor: torch.Tensor, places: Places | None, images: int) -> torch.Tensor:
    """(B, heads, T, S), see `AttendedBlock`."""
    return full_precision(by_image(tensor if places is None else places.windows_first(tensor), images))


def _as_map(of_tokens: torch.Tensor, capture: Any, transform: AsMap | None) -> torch.Tensor:
    """Values (N, tokens) as (N, *grid)."""
    layout = capture.tower.layout
    return (layout(like_output(of_tokens, layout)) if transform is None else transform(of_tokens[:, :, None]))[:, 0]


def _check_one_sequence(cam: AttentionCAM, tower: Tower) -> None:
    name = type(cam).__name__
    if any(places is not None for places in tower.places.values()):
        raise ValueError(
            f"{name} follows tokens from block to block, and the attention of this model is within windows: LeGrad "
            "puts windows back in place"
        )
    if not tower.is_whole and not cam._named:
        raise ValueError(
            f"{name} follows tokens from block to block, and this model has attention on other tokens in front of "
            "its last blocks (a pyramid?): name blocks of one sequence as target_layers, or take LeGrad"
        )


def _strongest(blocks: Sequence[AttendedBlock], images: int) -> torch.Tensor:
    """The largest absolute value of the gradients of each image: (N,)."""
    of_blocks = []
    for block in blocks:
        largest = block.gradients.flatten(1).abs().amax(1)  # of images, or of windows
        of_blocks.append(largest.reshape(images, len(largest) // images).amax(1) if images else largest)
    return torch.stack(of_blocks).amax(0)
