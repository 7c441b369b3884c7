"""Texts as classes of models that compare images and texts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attentive import Attentive
from nets import CLASSES, images, state_of
from torch import nn
from torch.nn.functional import normalize

from pytorch_grad_cam import GradECLIP, LayerCAM, LeGrad, TextClassifier, explain
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

TEXTS = ["a cat", "a dog there", "two birds"]


class Contrastive(nn.Module):
    """CLIP as transformers has it: features in an output (5) or alone (4), texts by a table of letters."""

    def __init__(self, in_output=True, bias=False):
        super().__init__()
        self.vision = Attentive("fused")
        self.letters = nn.Embedding(128, CLASSES)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        if bias:
            self.logit_bias = nn.Parameter(torch.tensor(-3.0))
        self.in_output, self.encoded, self.paddings = in_output, 0, []
        self.eval()

    def get_image_features(self, pixel_values):
        return self._given(self.vision(pixel_values))

    def get_text_features(self, input_ids, attention_mask):
        self.encoded += 1
        return self._given((self.letters(input_ids) * attention_mask[..., None]).sum(1))

    def _given(self, features):
        return SimpleNamespace(pooler_output=features) if self.in_output else features

    def expected(self, pixels, texts):
        rows = [self.letters(torch.tensor([ord(letter) for letter in text])).sum(0) for text in texts]
        similarity = normalize(self.vision(pixels), dim=1) @ normalize(torch.stack(rows), dim=1).T
        return similarity * self.logit_scale.exp() + getattr(self, "logit_bias", 0)


class Processor:
    """Texts to the numbers of their letters; pictures to tensors."""

    def __init__(self):
        self.paddings = []

    def __call__(self, texts, padding, truncation, return_tensors):
        self.paddings.append(padding)
        longest = 20 if padding == "max_length" else max(map(len, texts))
        ids = torch.tensor([[ord(letter) for letter in text] + [0] * (longest - len(text)) for text in texts])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


class OpenClip(Contrastive):
    get_image_features = get_text_features = property(lambda self: (_ for _ in ()).throw(AttributeError))

    def encode_image(self, image):
        return self.vision(image)

    def encode_text(self, text):
        return self.letters(text).sum(1)


@pytest.mark.parametrize("in_output", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_similarities_are_the_models(in_output, bias):
    model, processor, x = Contrastive(in_output, bias), Processor(), images()
    before = state_of(model)
    classifier = TextClassifier(model, TEXTS, processor)
    torch.testing.assert_close(classifier(x), model.expected(x, TEXTS))
    assert classifier.texts == TEXTS
    assert model.encoded == 1
    assert processor.paddings == ["max_length" if bias else True]
    assert state_of(model) == before


def test_embeddings_and_open_clip():
    model, x = OpenClip(), images()
    tokens = torch.randint(1, 99, (3, 6))
    expected = (
        normalize(model.vision(x), dim=1) @ normalize(model.encode_text(tokens), dim=1).T * model.logit_scale.exp()
    )
    by_texts = TextClassifier(model, TEXTS, lambda texts: tokens)
    by_embeddings = TextClassifier(model, model.encode_text(tokens))
    torch.testing.assert_close(by_texts(x), expected)
    torch.testing.assert_close(by_embeddings(x), expected)


@pytest.mark.parametrize("kind", [LeGrad, GradECLIP])
def test_maps_of_several_texts_from_one_forward(kind):
    model, x = Contrastive(), images()
    classifier = TextClassifier(model, TEXTS, Processor())
    cam = kind(classifier, check_place=False)
    cam(x)
    runs = []
    model.vision.register_forward_hook(lambda *_: runs.append(1))
    together = cam(x, [[0, 1, 2]] * 2)
    assert len(runs) == 1
    assert model.encoded == 1
    plain = kind(Attentive("fused"))
    for place, embedding in enumerate(classifier.embeddings):
        alone = plain(x, lambda features, text=embedding: normalize(features, dim=0) @ text)
        np.testing.assert_allclose(together[:, place], alone, atol=1e-5)


@pytest.mark.parametrize("methods", ["legrad", LayerCAM])
def test_explain_by_texts(methods):
    model = Contrastive()
    picture = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    how = {"methods": methods, "preprocess": lambda image: images()[0], "processor": Processor()}
    explanation = explain(model, picture, targets=TEXTS, **how)
    assert explanation.maps.shape == (3, 12, 16)
    assert [str(panel).split(",")[0].rsplit(" ", 1)[0] for panel in explanation.panels] == TEXTS
    by_embeddings = explain(model, picture, targets=TextClassifier(model, TEXTS, Processor()).embeddings, **how)
    np.testing.assert_allclose(by_embeddings.maps, explanation.maps, atol=1e-6)


def test_what_is_refused():
    with pytest.raises(UnusableInput, match="compares no images and texts"):
        TextClassifier(Attentive(), TEXTS, Processor())
    with pytest.raises(TypeError, match="processor or tokenizer"):
        TextClassifier(Contrastive(), TEXTS)


@pytest.fixture(scope="module")
def naflex():
    """SigLIP 2, which takes pictures as patches in their own proportions, and what its processor gives."""
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "Siglip2Config"):
        pytest.skip("this transformers has no SigLIP 2")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 99, "projection_size": 32, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.Siglip2Config(vision_config={**sizes, "num_patches": 64, "patch_size": 8}, text_config=text)
    processor = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=64)
    picture = np.random.default_rng(0).integers(0, 255, (48, 96, 3), dtype=np.uint8)
    return transformers.Siglip2Model(config).eval(), processor, picture


@pytest.mark.parametrize("kind", [LeGrad, GradECLIP, LayerCAM])
def test_patches_in_their_own_proportions(naflex, kind):
    """The grid is the processor's, and padding is no part of it."""
    model, processor, picture = naflex
    inputs = dict(processor(images=picture, return_tensors="pt"))
    assert inputs["spatial_shapes"].tolist() == [[5, 10]]
    with kind(TextClassifier(model, torch.randn(2, 32))) as cam:
        maps = cam(inputs, [[0, 1]])
    assert maps.shape == (1, 2, 5, 10)
    assert maps.max() == 1


def test_explain_does_not_show_patches_as_a_picture(naflex):
    model, processor, picture = naflex
    with pytest.raises(UnusableInput, match="NaFlex"):
        explain(model, picture, "legrad", targets=torch.randn(2, 32), processor=processor)
