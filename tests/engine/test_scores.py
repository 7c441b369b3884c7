"""Which tensor of an output is the score: logits before probabilities, a similarity, and never the first of several."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from nets import convolutional, images
from torch import nn

from pytorch_grad_cam import AblationCAM, EigenCAM, GradCAM, ScoreCAM
from pytorch_grad_cam.engine.scores import Undecided
from pytorch_grad_cam.engine.targets import resolve_targets, scores_in

LOGITS = torch.tensor([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]])
OTHER = torch.tensor([[0.3, 0.1, 0.2], [0.7, 0.9, 0.3]])
MAPS = torch.zeros(2, 8, 4, 4)
ACTIVATIONS = {
    "softmax": lambda x: x.softmax(1),
    "sigmoid": torch.sigmoid,
    "log_softmax": lambda x: x.log_softmax(1),
    "by hand": lambda x: x.exp() / x.exp().sum(1, keepdim=True),
}


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = convolutional(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_logits_before_probabilities(kind, graph):
    logits = LOGITS.clone().requires_grad_(graph) * 1
    probabilities = ACTIVATIONS[kind](logits)
    for output in (
        (probabilities, logits),
        (logits, probabilities),
        [probabilities, logits],
        {"probabilities": probabilities, "scores": logits},
        (probabilities, logits, MAPS),
    ):
        assert scores_in(output) is logits


@pytest.mark.parametrize("cam_class", [GradCAM, ScoreCAM, AblationCAM])
def test_a_classifier_that_returns_probabilities_and_logits(cam_class):
    """As ultralytics' classifiers do."""
    x, model = images(), Wrapped(lambda logits: (logits.softmax(1), logits))
    np.testing.assert_allclose(cam_class(model, "net.last")(x, 3), cam_class(model.net, "last")(x, 3), atol=1e-6)


def test_the_graph_says_it_without_looking_at_values():
    logits = LOGITS.clone().requires_grad_() * 1
    probabilities = logits.bfloat16().softmax(1).float()[:, :3]
    probabilities.data.fill_(float("nan"))
    assert scores_in((probabilities, logits)) is logits


Clip = namedtuple("Clip", ["image", "text", "scale"])


@pytest.mark.parametrize("texts", [3, 2])
def test_the_similarity_of_a_contrastive_model(texts):
    """As open_clip returns it: features that are normalised, and the scale of their similarity."""
    torch.manual_seed(0)
    image, text = nn.functional.normalize(torch.randn(2, 8)), nn.functional.normalize(torch.randn(texts, 8))
    scale, bias = torch.tensor(10.0), torch.tensor(-3.0)
    expected = 10 * image @ text.T
    for output in (
        (image, text, scale),
        Clip(image, text, scale),
        {"image_features": image, "text_features": text, "logit_scale": scale},
    ):
        torch.testing.assert_close(scores_in(output), expected)
    torch.testing.assert_close(scores_in((image, text, scale, bias)), expected - 3)
    keyed = {"image_features": 4 * image, "text_features": text, "logit_scale": scale, "logit_bias": bias}
    torch.testing.assert_close(scores_in(keyed), expected - 3)
    torch.testing.assert_close(scores_in({"image_embeds": image, "text_embeds": text}), image @ text.T)


def test_features_without_texts_are_no_class_scores():
    for output in ((OTHER, None, torch.tensor(10.0)), {"image_features": OTHER, "logit_scale": torch.tensor(10.0)}):
        with pytest.raises(ValueError, match=r"features of the image alone.*texts.*output_transform"):
            resolve_targets(1, scores_in(output))


def test_two_heads_and_a_loss_are_no_similarity():
    assert isinstance(scores_in((LOGITS, OTHER, torch.tensor(1.0))), Undecided)


def test_similarities_for_the_image_before_those_for_the_text():
    """As OpenAI's CLIP returns them."""
    assert scores_in((LOGITS, LOGITS.T)) is LOGITS
    square = torch.randn(3, 3)
    assert scores_in((square, square.T.contiguous())) is square
    assert scores_in({"logits_per_text": LOGITS.T, "logits_per_image": LOGITS}) is LOGITS


@dataclass
class Segmented:
    iou_scores: torch.Tensor
    pred_masks: torch.Tensor


SEVERAL = {
    "SAM": {"iou_scores": torch.rand(2, 1, 3), "pred_masks": torch.rand(2, 1, 3, 8, 8)},
    "dataclass": Segmented(torch.rand(2, 1, 3), torch.rand(2, 1, 3, 8, 8)),
    "two heads": (LOGITS, OTHER),
    "heads of other sizes": [LOGITS, OTHER[:, :2]],
    "features first": (MAPS, LOGITS),
    "deep supervision": [MAPS, MAPS],
    "a pooled output": {"last_hidden_state": torch.zeros(2, 5, 8), "pooler_output": torch.zeros(2, 8)},
    "scores and a list before them": ([MAPS, MAPS], LOGITS),
}


@pytest.mark.parametrize("targets", [None, 1, lambda output: output.sum()])
@pytest.mark.parametrize("kind", SEVERAL)
def test_several_that_could_be_meant_are_refused(kind, targets):
    with pytest.raises(ValueError, match=r"several tensors.*output.*, output.*by output_transform=lambda output: out"):
        resolve_targets(targets, scores_in(SEVERAL[kind]))


def test_the_choices_are_named():
    with pytest.raises(
        ValueError, match=r"\['iou_scores'\] \(2, 1, 3\), .*\['pred_masks'\] \(2, 1, 3, 8, 8\).*output\["
    ):
        resolve_targets(1, scores_in(SEVERAL["SAM"]))
    with pytest.raises(ValueError, match=r"\.iou_scores \(2, 1, 3\).*output\.iou_scores"):
        resolve_targets(1, scores_in(SEVERAL["dataclass"]))
    with pytest.raises(ValueError, match=r"\[0\] \(2, 3\).*\[1\] \(2, 2\).*output\[0\]"):
        resolve_targets(1, scores_in(SEVERAL["heads of other sizes"]))
    with pytest.raises(ValueError, match=r"output\[0\] \(a list\), output\[1\] \(2, 3\)"):
        resolve_targets(1, scores_in(SEVERAL["scores and a list before them"]))


def test_several_in_a_call():
    x, model = images(), Wrapped(lambda logits: {"a": logits, "b": 0 * logits})
    for layers in ("net.last", None):
        with pytest.raises(ValueError, match="several tensors"):
            GradCAM(model, layers)(x, 3)
    np.testing.assert_allclose(EigenCAM(model, "net.last")(x), EigenCAM(model.net, "last")(x), atol=1e-6)
    assert EigenCAM(model)(x).shape == (2, 12, 16)
    chosen = GradCAM(model, "net.last", output_transform=lambda output: output["a"])
    np.testing.assert_array_equal(chosen(x, 3), GradCAM(model.net, "last")(x, 3))


Auxiliary = namedtuple("Auxiliary", ["logits", "aux"])


def test_what_is_certain():
    for output in (
        LOGITS,
        (LOGITS, MAPS),
        (LOGITS, MAPS, MAPS),
        (LOGITS, (MAPS, MAPS)),
        (LOGITS, torch.zeros(2)),
        (torch.tensor(0.3), LOGITS),
        (None, LOGITS),
        ((LOGITS, MAPS), torch.tensor(0.3)),
        Auxiliary(LOGITS, OTHER),
        {"out": LOGITS, "aux": OTHER},
        {"features": OTHER, "logits": LOGITS},
        {"prediction": LOGITS, "labels": torch.zeros(2, 3, dtype=torch.int64)},
        [LOGITS],
    ):
        assert scores_in(output) is LOGITS
