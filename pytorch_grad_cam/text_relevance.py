"""TransMM's bimodal form on the side of the texts (Chefer, Gur & Wolf 2021, arXiv:2103.15679)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import normalize

from pytorch_grad_cam.attention.attended import by_image
from pytorch_grad_cam.attention.attention_watch import AttentionWatch
from pytorch_grad_cam.attention.attentions import Attention
from pytorch_grad_cam.engine.capture import source
from pytorch_grad_cam.engine.inputs import call, on_device_of
from pytorch_grad_cam.engine.maps import full_precision
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.engine.wrappers import unwrapped
from pytorch_grad_cam.transmm import read_rows, self_attention_relevance, speaking_attention


class TextTokens(NamedTuple):
    """What the tokens of texts mean for their similarity to an image.

    relevance: (texts, T), not negative, the higher the more a token says for the similarity. similarity: (texts,), the
    cosine.
    """

    relevance: torch.Tensor
    similarity: torch.Tensor


class TextRelevance:
    r"""Which tokens of a text speak for its similarity to an image: the relevance of each for the one that is read.

    $R = I$, then for each block of the text's encoder $R \leftarrow R + E_h[(\nabla A \odot A)^+] R$ (eqs. 5 and 6),
    with the gradient of the similarity as the model scales it (its logit); of $R - I$ the rows of the tokens that the
    similarity reads. A model without attention between image and text, as CLIP, has one such relevance on each side;
    that of the image is `TransMM`.

    When to take it: to see which word of a prompt a similarity is about. Several texts are compared with one image at
    once. The first token of CLIP, and the last, mark the text's ends: what they get is nobody's word.

    Cost: one forward of the image without a graph, one of the texts, one backward of their encoder. Memory:
    texts x heads x T x T weights for each of its blocks.

    model: one with `get_image_features` and `get_text_features` (transformers: CLIP, SigLIP and their kin) or with
    `encode_image` and `encode_text` (OpenCLIP).
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrapped(model)

    def __call__(self, image: Any, texts: Any) -> TextTokens:
        """The relevance of the tokens of `texts` for the similarity of each to `image`.

        image: what the model takes of one image. texts: what its tokenizer gives: of transformers a mapping with
        `input_ids` (texts, T), of OpenCLIP the numbers alone.

        Raises ValueError for several images, and where the text's encoder has no attention that can be seen.
        """
        model: Any = self.model
        encode_image = getattr(model, "get_image_features", None) or model.encode_image
        encode_text = getattr(model, "get_text_features", None) or model.encode_text
        image, texts = on_device_of(model, image), on_device_of(model, texts)
        attentions: list[Attention] = []
        with undisturbed(model):
            with torch.no_grad():
                of_image = _unit(call(encode_image, image))
            if len(of_image) != 1:
                raise ValueError(f"there are {len(of_image)} images: pass one, which all texts are compared with")
            with AttentionWatch(source, attentions.append):
                similarity = (_unit(call(encode_text, texts)) * of_image).sum(1)
            if not attentions:
                raise ValueError(f"the text's encoder of {type(model).__name__} computes no attention that can be seen")
            weights = [attention.weights for attention in attentions]
            scale = getattr(model, "logit_scale", None)
            logits = similarity if scale is None else similarity * scale.detach().exp()
            gradients = torch.autograd.grad(logits.sum(), weights)  # each text has its own
        blocks = [
            tuple(full_precision(by_image(each.detach(), len(similarity))) for each in pair)
            for pair in zip(weights, gradients, strict=True)
        ]
        relevance = self_attention_relevance(speaking_attention(*block) for block in blocks)
        relevance = relevance - torch.eye(relevance.shape[-1]).to(relevance)
        return TextTokens(read_rows(relevance, blocks[-1][1]), similarity.detach())


def _unit(output: Any) -> torch.Tensor:
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return normalize(full_precision(features), dim=-1)
