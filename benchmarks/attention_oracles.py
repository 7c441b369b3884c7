"""The formulas of the methods on attention, literally, in float64 loops; nothing of the library.

An oracle gets what a network shows of its attention for one image, with the gradients, and returns how much each token
says for the score. The network is `tests/attentive.py`, which adds what it is given to its attention weights: the
gradient with respect to the zeros that are added is the one with respect to the weights.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

ATTENTION_ORACLES: dict[str, Callable] = {}


def oracle(method: str) -> Callable:
    def register(function: Callable) -> Callable:
        ATTENTION_ORACLES[method] = function
        return function

    return register


class Shown(NamedTuple):
    """Of each block, the heads first: weights, scores (h, T, T), query, key, value (h, T, d), and the gradients of the
    class's score with respect to the weights and to the output; of the block's own score (LeGrad) with respect to its
    weights. reads: the share of each token in what the head reads. of_values: (T,) the class's score of each token of
    the last block, had its attention none but itself.
    """

    weights: list[np.ndarray]
    scores: list[np.ndarray]
    queries: list[np.ndarray]
    keys: list[np.ndarray]
    values: list[np.ndarray]
    of_weights: list[np.ndarray]
    of_outputs: list[np.ndarray]
    of_own_scores: list[np.ndarray]
    reads: np.ndarray
    of_values: np.ndarray = np.empty(0)


def shown_by(model: Any, image: torch.Tensor, category: int) -> Shown:
    """Plain autograd through the whole model."""
    tokens = model.tokens(image[None]).shape[1]
    heads = len(model.blocks[0].attention.in_proj_weight) // 3 // (model.head.in_features // 2)
    offsets = [image.new_zeros(1, heads, tokens, tokens).requires_grad_() for _ in model.blocks]
    parts: list[Any] = []
    score = model(image[None], offsets, parts)[0, category]
    of_weights = torch.autograd.grad(score, offsets, retain_graph=True, allow_unused=True)
    of_outputs = torch.autograd.grad(score, [part.source for part in parts], retain_graph=True)
    own = []
    current = model.tokens(image[None])
    for number, block in enumerate(model.blocks):
        current = block(current, offsets[number])
        mean = sum(current[:, place] for place in range(tokens)) / tokens
        logit = model.head(model.norm(mean))[0, category]
        own.append(torch.autograd.grad(logit, offsets[number], retain_graph=True)[0])

    def arrays(tensors: Any) -> list[np.ndarray]:
        return [tensor.detach().squeeze(0).double().numpy() for tensor in tensors]

    fields = (
        arrays([getattr(part, name) for part in parts]) for name in ("weights", "scores", "query", "key", "value")
    )
    reads = np.full(tokens, 1 / tokens) if model.pool == "mean" else np.eye(tokens)[0]
    of_values = [_score_of_value(model, image, place, category).item() for place in range(tokens)]
    return Shown(*fields, arrays(of_weights), arrays(of_outputs), arrays(own), reads, np.array(of_values))


def _score_of_value(model: Any, image: torch.Tensor, place: int, category: int) -> torch.Tensor:
    """Its own value, through the projections of the last block's attention, its residuals and MLP, and the head."""
    tokens = model.tokens(image[None])
    *earlier, last = model.blocks
    for block in earlier:
        tokens = block(tokens)
    token, attention = tokens[0, place], last.attention
    rows = slice(-len(token), None)  # of the joint projection, those of the values
    value = attention.in_proj_weight[rows] @ last.norm1(token) + attention.in_proj_bias[rows]
    token = token + attention.out_proj.weight @ value + attention.out_proj.bias
    token = token + last.mlp(last.norm2(token))
    return model.head(model.norm(token))[category]


@oracle("LeGrad")
def legrad(shown: Shown) -> np.ndarray:
    return _mean_of_positive(shown.of_own_scores[-2:])


def legrad_of_all_blocks(shown: Shown) -> np.ndarray:
    return _mean_of_positive(shown.of_own_scores)


def _mean_of_positive(gradients: list[np.ndarray]) -> np.ndarray:
    heads, tokens, _ = gradients[0].shape
    total = np.zeros(tokens)
    for gradient in gradients:
        for head in range(heads):
            for query in range(tokens):
                for key in range(tokens):
                    total[key] += max(gradient[head][query][key], 0) / (heads * tokens * len(gradients))
    return total


def _rolled_out(fused: list[np.ndarray], reads: np.ndarray) -> np.ndarray:
    tokens = len(reads)
    result = np.eye(tokens)
    for attention in fused:
        step = np.zeros((tokens, tokens))
        for query in range(tokens):
            row = [attention[query][key] + (query == key) for key in range(tokens)]
            for key in range(tokens):
                step[query][key] = row[key] / sum(row)
        result = step @ result
    return sum(reads[query] * result[query] for query in range(tokens))


def _mean_over_heads(of_head: Callable[[np.ndarray, np.ndarray], float], shown: Shown) -> list[np.ndarray]:
    fused = []
    for weights, gradients in zip(shown.weights, shown.of_weights, strict=True):
        heads, tokens, _ = weights.shape
        mean = np.zeros((tokens, tokens))
        for head in range(heads):
            for query in range(tokens):
                for key in range(tokens):
                    mean[query][key] += of_head(weights[head][query][key], gradients[head][query][key]) / heads
        fused.append(mean)
    return fused


@oracle("AttentionRollout")
def attention_rollout(shown: Shown) -> np.ndarray:
    return _rolled_out(_mean_over_heads(lambda weight, gradient: weight, shown), shown.reads)


@oracle("GradientRollout")
def gradient_rollout(shown: Shown) -> np.ndarray:
    return _rolled_out(_mean_over_heads(lambda weight, gradient: weight * max(gradient, 0), shown), shown.reads)


@oracle("TransMM")
def transmm(shown: Shown) -> np.ndarray:
    relevance = np.eye(len(shown.reads))
    for attention in _mean_over_heads(lambda weight, gradient: max(weight * gradient, 0), shown):
        relevance = relevance + attention @ relevance
    return sum(share * row for share, row in zip(shown.reads, relevance, strict=True))


@oracle("AGCAM")
def ag_cam(shown: Shown) -> np.ndarray:
    tokens = len(shown.reads)
    total = np.zeros(tokens)
    for gradients, scores in zip(shown.of_weights, shown.scores, strict=True):
        for of_head, score in zip(gradients, scores, strict=True):
            for key in range(tokens):
                gradient = sum(shown.reads[query] * of_head[query][key] for query in range(tokens))
                mean = sum(shown.reads[query] * score[query][key] for query in range(tokens))
                total[key] += max(gradient, 0) / (1 + np.exp(-mean))
    return total


@oracle("GradECLIP")
def grad_eclip(shown: Shown) -> np.ndarray:
    query, key, value, gradient = (
        np.concatenate(list(parts[-1]), axis=1) for parts in (shown.queries, shown.keys, shown.values, shown.of_outputs)
    )
    tokens = len(query)
    total = np.zeros(tokens)
    for q in range(tokens):
        if not gradient[q].any():
            continue
        cosine = [query[q] @ key[i] / np.linalg.norm(query[q]) / np.linalg.norm(key[i]) for i in range(tokens)]
        for i in range(tokens):
            loosened = (cosine[i] - min(cosine)) / (max(cosine) - min(cosine))
            total[i] += sum(gradient[q][c] * loosened * value[i][c] for c in range(value.shape[1]))
    return np.maximum(total, 0)


@oracle("MaskCLIP")
def mask_clip(shown: Shown) -> np.ndarray:
    """Of all tokens above the lowest of the cells, which is every token but the first."""
    return shown.of_values - min(shown.of_values[1:])
