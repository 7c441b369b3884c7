"""TAM, the token activation map (Li et al. 2025, arXiv:2506.23270)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from pytorch_grad_cam.engine.maps import full_precision, resize
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.wrappers import unwrapped
from pytorch_grad_cam.words.generation import Generation, generated, head_of
from pytorch_grad_cam.words.image_tokens import View, image_tokens

_SIDE = 3  # of the filter's window


def token_activations(states: torch.Tensor, rows: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    r"""Eq. 1: $ReLU(\langle W_k, h_i \rangle)$, the logit of token k at place i. (P, D) and (K, D) to (K, P)."""
    added = None if bias is None else full_precision(bias)
    return F.linear(full_precision(states), full_precision(rows), added).relu().mT


def without_interference(activations: torch.Tensor, of_earlier: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    r"""Estimated causal inference: $ReLU(a - s \bar a)$, $\bar a = \sum_j r_j a_j / \sum_j r_j$ the mean of what the
    context activates, by its relevance, and $s$ the least squares of $\|a - s \bar a\|^2$.

    activations: of K tokens at P places (K, P). of_earlier: of M tokens of the context (M, P). relevance: (K, M), 0 for
    what is no context of a token. Returns (K, P).
    """
    weights = relevance / relevance.sum(1, keepdim=True).clamp_min(torch.finfo(relevance.dtype).tiny)
    interference = weights @ of_earlier
    squares = interference.square().sum(1, keepdim=True)
    share = (activations * interference).sum(1, keepdim=True) / squares.masked_fill(squares == 0, 1)
    return (activations - share * interference).relu()


def rank_gaussian(maps: torch.Tensor) -> torch.Tensor:
    r"""The mean of each 3 x 3 window by the rank of its values: Gaussian weights about the median, whose width is the
    window's standard deviation over its mean. Windows at the rim are mirrored. (N, h, w), not negative, to (N, h, w).
    """
    rim = _SIDE // 2
    mirrored = "reflect" if min(maps.shape[1:]) > rim else "replicate"
    padded = F.pad(maps[:, None], (rim,) * 4, mode=mirrored)
    windows = F.unfold(padded, _SIDE).sort(1).values  # (N, 9, h * w)
    mean = windows.mean(1, keepdim=True)
    width = windows.std(1, correction=0, keepdim=True) / mean.masked_fill(mean == 0, 1)
    ranks = torch.arange(_SIDE**2, device=maps.device, dtype=maps.dtype)[:, None] - _SIDE**2 // 2
    # A softmax: where all values are equal the width is 0, and the median is the value.
    weights = (-ranks.square() / (2 * width.square()).clamp_min(torch.finfo(maps.dtype).tiny)).softmax(1)
    return (weights * windows).sum(1).reshape(maps.shape)


class TokenMaps(NamedTuple):
    """What a model said, token by token, and where in the images each token is.

    ids, probabilities: (K,), of the tokens and how sure the model was. evidence: for each image (K, h, w), for each
    video (K, frames, h, w), on the grid of its tokens and not negative; images of several views on the finest grid.
    inputs: what the processor gave, with the answer behind the prompt, for TokenTarget and methods with gradients.
    places: of the tokens in it, as `TokenTarget` takes them.
    """

    ids: torch.Tensor
    probabilities: torch.Tensor
    evidence: list[torch.Tensor]
    inputs: dict[str, Any]
    places: range


class TAM:
    r"""A map for each token that a vision-language model says: what the token's row of the head finds in the image's
    tokens, less what the words before it find there.

    $TAM_k = filter(ReLU(a_k - s_k \bar a_k))$ with $a_k(i) = ReLU(\langle W_k, h_i \rangle)$ at the image's tokens i
    (eq. 1), $\bar a_k$ the mean of what the text before it, other than the same token, activates, weighted by the
    token's own logit there, $s_k$ by least squares, and a rank Gaussian filter of 3 x 3.

    Departs from the authors' code in what the context is: all of the prompt behind the last image and the answer so
    far, with the template's own tokens, which that code takes out by their numbers for one model. An image that is
    shown as a whole and in tiles has the mean of both.

    When to take it: for every model whose prompt has tokens of the image (LLaVA, Qwen-VL, PaliGemma, SmolVLM and their
    kin); it needs no gradients. Not to tell two objects of one name apart: the states at the image lie in front of all
    words, so that a token finds the same in them however often it is said. Not for models that look at the image by
    cross-attention or by learned queries (BLIP, BLIP-2, Idefics2): TokenTarget and LayerCAM explain those.

    Cost: the generation, one cached pass; a product of the states with rows of the head; no forward more, no backward.
    Memory: the last states of all tokens, (T + K) x D, and the logits of K steps.

    model: one with `generate` and `get_output_embeddings`, as transformers' are. processor: where the image's tiles lie
    apart in the prompt (Idefics3, SmolVLM) its tokenizer reads their names. smooth: False leaves the filter out, which
    on a coarse grid takes objects of two cells for noise.
    """

    def __init__(self, model: nn.Module, processor: Any = None, *, smooth: bool = True) -> None:
        self.model = unwrapped(model)
        self.smooth = smooth
        self.tokenizer = getattr(processor, "tokenizer", processor)

    def __call__(self, inputs: Mapping[str, Any], **options: Any) -> TokenMaps:
        """The maps of what the model says to one conversation.

        inputs: what the processor gives, a batch of one, with any number of images and videos. options: those of the
        model's `generate`, such as `max_new_tokens`. The model and the random state are left as they were.

        Raises ValueError for several conversations, for beams, and for models whose image tokens are no cells, see
        `words.image_tokens.image_tokens` and `words.generation.generated`.
        """
        views = image_tokens(self.model, inputs, self.tokenizer)
        generation = generated(self.model, inputs, options)
        with undisturbed(self.model), torch.no_grad():
            evidence = self._evidence(generation, views)
        places = range(generation.prompt, len(generation.ids))
        return TokenMaps(
            generation.answer, generation.probabilities, evidence, answered(inputs, generation, views), places
        )

    def _evidence(self, generation: Generation, views: Sequence[Sequence[View]]) -> list[torch.Tensor]:
        ids, answered = generation.ids, len(generation.answer)
        cells = [view.to(ids.device) for of_image in views for view in of_image]
        places = torch.cat([view.flatten() for view in cells])
        text = torch.arange(int(places.max()) + 1, len(ids), device=ids.device)
        head: Any = head_of(self.model)
        bias = getattr(head, "bias", None)
        rows = head.weight[ids[text]], None if bias is None else bias[ids[text]]
        at_image = token_activations(generation.states[places], *rows)
        # A token of the prompt has its own state, one of the answer the state that it was said by.
        at_text = token_activations(generation.states[torch.where(text < generation.prompt, text, text - 1)], *rows)
        number = torch.arange(len(text), device=ids.device)
        is_context = (number < number[:, None]) & (ids[text] != ids[text][:, None])
        said = slice(len(text) - answered, None)
        found = without_interference(at_image[said], at_image, (at_text * is_context)[said])
        of_views = found.split([view.numel() for view in cells], dim=1)
        maps = [each.unflatten(1, view.shape) for each, view in zip(of_views, cells, strict=True)]
        drawn = map(_filtered, maps) if self.smooth else iter(maps)
        return [_joined([next(drawn) for _ in of_image]) for of_image in views]


def answered(inputs: Mapping[str, Any], generation: Generation, views: Sequence[Sequence[View]]) -> dict[str, Any]:
    """The inputs with the answer behind the prompt."""
    ids = generation.ids[None]
    added = {"input_ids": ids}
    for name in ("attention_mask", "token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            # What an answer is marked with is what the image's tokens are not.
            mark = 1 if name == "attention_mask" else 1 - int(inputs[name][0, views[0][0].flatten()[0]] > 0)
            answer = ids.new_full((1, len(generation.answer)), mark)
            added[name] = torch.cat([inputs[name].to(ids), answer], dim=1)
    return {**inputs, **added}


def _filtered(evidence: torch.Tensor) -> torch.Tensor:
    """(K, h, w), or frame by frame (K, frames, h, w)."""
    return rank_gaussian(evidence.flatten(0, -3)).reshape(evidence.shape)


def _joined(views: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the views (K, h, w) of an image, on the grid of the finest."""
    if len(views) == 1:
        return views[0]
    finest = max(views, key=torch.Tensor.numel)
    return torch.stack([resize(view[None], finest.shape[1:])[0] for view in views]).mean(0)
