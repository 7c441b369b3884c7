"""Contrastive models of images and texts as classifiers whose classes are texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from pytorch_grad_cam.engine.inputs import on_device_of
from pytorch_grad_cam.engine.undisturbed import undisturbed
from pytorch_grad_cam.zoo.classifiers import Classifier
from pytorch_grad_cam.zoo.preprocessing import given_preprocessing
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

Texts = Sequence[str] | torch.Tensor


class TextClassifier(nn.Module):
    """How alike an image is to each of some texts: (N, texts), the model's own similarity, as scores of classes.

    Every method explains it as a classifier, several texts from one forward: `LeGrad(clip_of_texts)(pixels, [[0, 1]])`.
    It takes what the model takes of an image: the pixels, or keywords as `pixel_values`, `spatial_shapes`.

    model: one with `get_image_features` and `get_text_features` (transformers: CLIP, SigLIP, SigLIP 2 and their kin) or
    with `encode_image` and `encode_text` (OpenCLIP). It is shared, not copied, and left as it is.
    texts: strings, or their embeddings (texts, D), which then need no processor.
    processor: of transformers the model's processor or tokenizer, of OpenCLIP its tokenizer.

    The texts go through the model once, here. Raises UnusableInput for a model of another kind, TypeError for texts
    without a processor.
    """

    embeddings: torch.Tensor

    def __init__(self, model: nn.Module, texts: Texts, processor: Any = None) -> None:
        super().__init__()
        if not is_contrastive(model):
            raise UnusableInput(
                f"{type(model).__name__} compares no images and texts: expected get_image_features and "
                "get_text_features, or encode_image and encode_text"
            )
        self.model = model
        self.texts = [f"text {number}" for number in range(len(texts))] if _are_embeddings(texts) else list(texts)
        self.register_buffer("embeddings", normalize(self._embedded(texts, processor), dim=-1))
        self.train(model.training)

    def forward(self, *pixels: Any, **inputs: Any) -> torch.Tensor:
        """The similarities (N, texts)."""
        model: Any = self.model
        get = model.get_image_features if hasattr(model, "get_image_features") else model.encode_image
        features = normalize(_features_in(get(*pixels, **inputs)), dim=-1)
        similarity = features @ self.embeddings.to(features).T
        bias = getattr(model, "logit_bias", None)
        scaled: torch.Tensor = similarity * model.logit_scale.exp()
        return scaled if bias is None else scaled + bias

    def _embedded(self, texts: Texts, processor: Any) -> torch.Tensor:
        model: Any = self.model
        if isinstance(texts, torch.Tensor):
            embeddings: torch.Tensor = on_device_of(model, texts.detach())
            return embeddings
        if processor is None:
            raise TypeError("texts need the model's processor or tokenizer: pass processor=, or embeddings as texts")
        with undisturbed(model), torch.no_grad():
            if not hasattr(model, "get_text_features"):
                return _features_in(model.encode_text(on_device_of(model, processor(list(texts)))))
            # Models with a bias, as SigLIP, were trained on texts that are all filled up.
            padding = "max_length" if hasattr(model, "logit_bias") else True
            tokenizer = getattr(processor, "tokenizer", processor)
            tokens = tokenizer(list(texts), padding=padding, truncation=True, return_tensors="pt")
            return _features_in(model.get_text_features(**on_device_of(model, dict(tokens))))


def classifier_of_texts(model: nn.Module, texts: Texts, processor: Any, preprocess: Any) -> Classifier:
    """The texts as classes, with the preprocessing of images.

    preprocess: from a Pillow image to the input; None is the processor's own. Raises as `TextClassifier`.
    """
    of_texts = TextClassifier(model, texts, processor)
    of_images = getattr(processor, "image_processor", processor) if preprocess is None else preprocess
    return Classifier(of_texts, given_preprocessing(of_images), of_texts.texts)


def is_contrastive(model: Any) -> bool:
    """Whether a model has features of images and of texts, and a scale of their similarity."""
    pairs = (("get_image_features", "get_text_features"), ("encode_image", "encode_text"))
    return hasattr(model, "logit_scale") and any(all(hasattr(model, name) for name in pair) for pair in pairs)


def _are_embeddings(texts: Texts) -> bool:
    return isinstance(texts, torch.Tensor)


def _features_in(output: Any) -> torch.Tensor:
    """What a model gives for images or texts: the features themselves, or in transformers 5 an output that has them."""
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return features
