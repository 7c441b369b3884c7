"""TransMM's form for an encoder and a decoder, against literal loops on what transformers' DETR returns."""

import numpy as np
import pytest
import torch
from nets import images

from pytorch_grad_cam import TransMM
from pytorch_grad_cam.engine.detections.box_targets import PredictionTarget
from pytorch_grad_cam.transmm import queries_relevance, without_residual

QUERIES = 5


@pytest.fixture(scope="module")
def detr():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"}
    backbone = transformers.ResNetConfig(**sizes, out_features=["stage2"])
    of_both = {
        f"{part}_{name}": number
        for part in ("encoder", "decoder")
        for name, number in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 16))
    }
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        backbone_config=backbone,
        use_pretrained_backbone=False,
        backbone=None,
        d_model=16,
        num_queries=QUERIES,
        num_labels=4,
        **of_both,
    )
    return transformers.DetrForObjectDetection._from_config(config, attn_implementation="eager").eval()


def literal_relevance(model, pixels, query, label):
    """Layer by layer in the order of the paper's Algorithm 1, in float64, on one image."""
    outputs = model.requires_grad_(True)(pixels, output_attentions=True)
    encoder, among, across = outputs.encoder_attentions, outputs.decoder_attentions, outputs.cross_attentions
    every = [*encoder, *among, *across]
    gradients = torch.autograd.grad(outputs.logits[0, query, label], every, allow_unused=True)
    found = []
    for weights, gradient in zip(every, gradients, strict=True):
        product = np.zeros(weights.shape[1:]) if gradient is None else (weights * gradient)[0].detach().numpy()
        found.append(np.mean([np.maximum(head, 0) for head in product], axis=0))
    of_encoder, of_decoder, of_cross = (found[:2], found[2:4], found[4:])
    tokens = of_encoder[0].shape[0]
    r_ii, r_qq, r_qi = np.eye(tokens), np.eye(QUERIES), np.zeros((QUERIES, tokens))
    for attention in of_encoder:
        r_ii = r_ii + attention @ r_ii
    for self_attention, cross_attention in zip(of_decoder, of_cross, strict=True):
        r_qi = r_qi + self_attention @ r_qi
        r_qq = r_qq + self_attention @ r_qq
        r_qi = r_qi + literal_normalised(r_qq).T @ cross_attention @ literal_normalised(r_ii)
    return r_qi[query]


def literal_normalised(relevance):
    gained = relevance - np.eye(len(relevance))
    for row in gained:
        if row.sum():
            row /= row.sum()
    return gained + np.eye(len(relevance))


class Query(PredictionTarget):
    """A query and a class."""

    def __init__(self, query, label):
        self.query, self.label = query, label

    def check(self, predictions, sample):
        """It is there."""

    def which(self, predictions):
        return self.query * predictions.logits.shape[1] + self.label

    def __call__(self, predictions):
        return predictions.logits[self.query, self.label]


@pytest.mark.parametrize(("query", "label"), [(0, 1), (3, 2)])
def test_the_relevance_of_the_paper(detr, query, label):
    pixels = torch.cat([images(count=1, seed=3)] * 2, dim=2).repeat(1, 1, 2, 3)
    detr, pixels = detr.double(), pixels.double()
    with TransMM(detr, relu=False, normalize=None, check_place=False) as cam:
        maps = cam(pixels, Query(query, label), as_tensor=True)[0]
        grid = cam.location.layout.grid
    expected = literal_relevance(detr, pixels, query, label).reshape(grid)
    drawn = torch.nn.functional.interpolate(torch.from_numpy(expected)[None, None], maps.shape, mode="bilinear")[0, 0]
    np.testing.assert_allclose(maps, drawn, rtol=1e-3, atol=1e-5 * expected.max())
    assert expected.max() > 0


def test_rows_that_gained_nothing_stay():
    relevance = torch.tensor([[[1.0, 0.0], [1.0, 4.0]]])
    torch.testing.assert_close(without_residual(relevance), torch.tensor([[[1.0, 0.0], [0.25, 1.75]]]))


def test_queries_by_hand():
    """Two queries on three tokens: one look, then the first query at the second, then another look."""
    look = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]])
    other = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    tokens = torch.eye(3)[None]
    assert queries_relevance(tokens, [look]).equal(look)
    second = queries_relevance(tokens, [look, other])
    assert second.tolist() == [[[1.0, 3.0, 2.0], [0.0, 3.0, 0.0]]]
    # The first query's normalised row (1, 1) stands as a column: the second gets what the first looks at, too.
    third = queries_relevance(tokens, [look, other, look])
    assert third.tolist() == [[[2.0, 3.0, 4.0], [1.0, 6.0, 2.0]]]
    with pytest.raises(ValueError, match="no attention"):
        queries_relevance(tokens, [])
