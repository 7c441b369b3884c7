"""MaskCLIP of models that compare images and texts, literally, and where it is refused."""

import numpy as np
import pytest
import torch
from attentive import DIM, Attentive, Blocked, Windows
from nets import images
from torch.nn.functional import normalize

from pytorch_grad_cam import MaskCLIP
from pytorch_grad_cam.engine.maps import resize
from pytorch_grad_cam.mask_clip import above_the_lowest

RAW = {"relu": False, "normalize": None}
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_by_hand():
    scores = torch.tensor([[-3.0, -1, -2], [5, 5, 5]])
    assert above_the_lowest(scores).tolist() == [[0, 2, 1], [0, 0, 0]]


@pytest.fixture(scope="module")
def contrastive():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vision = {**SIZES, "image_size": 32, "patch_size": 8}
    text = {**SIZES, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    clip = transformers.CLIPConfig(vision_config=vision, text_config=text)
    siglip = transformers.SiglipConfig(vision_config=vision, text_config=text)
    return {
        "CLIP": transformers.CLIPModel(clip).eval(),
        "SigLIP": transformers.SiglipModel(siglip).eval(),
    }


def literal_values(model, pixels):
    """The features of each cell's own value: (cells, D)."""
    tower = model.vision_model
    tokens = tower.embeddings(pixels)
    is_clip = hasattr(tower, "pre_layrnorm")
    tokens = tower.pre_layrnorm(tokens) if is_clip else tokens
    *earlier, last = tower.encoder.layers
    for block in earlier:
        given = block(tokens, None)
        tokens = given[0] if isinstance(given, tuple) else given
    attention = last.self_attn
    features = []
    for token in tokens[0, 1 if is_clip else 0 :]:
        token = token + attention.out_proj(attention.v_proj(last.layer_norm1(token)))
        token = token + last.mlp(last.layer_norm2(token))
        if is_clip:
            features.append(model.visual_projection(tower.post_layernorm(token)))
        else:
            # The pooling looks at one token, with a weight of one: its value, then the head's MLP.
            head, token = tower.head, tower.post_layernorm(token)
            pooling = head.attention
            token = pooling.out_proj(pooling.in_proj_weight[-32:] @ token + pooling.in_proj_bias[-32:])
            features.append(token + head.mlp(head.layernorm(token)))
    return torch.stack(features)


@pytest.mark.parametrize("name", ["CLIP", "SigLIP"])
def test_cosine_of_each_cells_value_with_texts(contrastive, name):
    model = contrastive[name]
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "pixel_values": torch.randn(1, 3, 32, 32, generator=generator),
        "input_ids": torch.randint(3, 99, (3, 7), generator=generator),
    }
    maps = MaskCLIP(model, **RAW)(inputs, [[0, 1, 2]], as_tensor=True)[0]
    with torch.no_grad():
        texts = normalize(model.get_text_features(inputs["input_ids"]).pooler_output, dim=1)
        cosines = normalize(literal_values(model, inputs["pixel_values"]), dim=1) @ texts.T
    scaled = (cosines * model.logit_scale.exp()).mT.reshape(3, 4, 4)
    expected = scaled - scaled.amin((1, 2), keepdim=True)
    assert expected.amax().item() > 0.01
    torch.testing.assert_close(maps, resize(expected[:, None], (32, 32))[:, 0], rtol=1e-3, atol=1e-5)


def test_the_models_own_output_is_kept(contrastive):
    model, x = contrastive["CLIP"], torch.randn(2, 3, 32, 32)
    cam = MaskCLIP(model)
    inputs = {"pixel_values": x, "input_ids": torch.randint(3, 99, (3, 7))}
    cam(inputs, 1)
    with torch.no_grad():
        torch.testing.assert_close(cam.outputs.logits_per_image, model(**inputs).logits_per_image)


def test_blocks_that_write_into_their_input():
    class InPlace(Attentive):
        def forward(self, x, *_):
            tokens = self.tokens(x)
            for block in self.blocks:
                tokens = block(tokens)
            return self.score(tokens)

    expected = MaskCLIP(InPlace())(images(), 3)
    model = InPlace()
    for block in model.blocks:
        forward = block.forward

        def writing(tokens, *_, forward=forward):
            return tokens.copy_(forward(tokens.clone()))

        block.forward = writing
    np.testing.assert_allclose(MaskCLIP(model)(images(), 3), expected, atol=1e-6)


def test_maps_of_windows_are_those_of_their_values():
    """Shifts and fillings matter to nothing, where no cell sees another."""
    model, x = Windows(), images()
    maps = MaskCLIP(model, **RAW)(x, 2, as_tensor=True)
    with torch.no_grad():
        cells = model.blocks[0](model.patch(x).movedim(1, -1))
        last = model.blocks[1]
        value = last.norm1(cells) @ last.attention.in_proj_weight[-DIM:].mT + last.attention.in_proj_bias[-DIM:]
        cells = cells + last.attention.out_proj(value)
        scores = model.head(model.norm(cells + last.mlp(last.norm2(cells))))[..., 2]
    expected = scores - scores.amin((1, 2), keepdim=True)
    torch.testing.assert_close(maps, resize(expected[:, None], x.shape[2:])[:, 0], rtol=1e-4, atol=1e-5)


def test_maps_in_the_graph():
    model = Attentive()
    maps = MaskCLIP(model, detach=False, **RAW)(images(), 3, as_tensor=True)
    maps.square().sum().backward()
    bias, step = model.blocks[-1].attention.out_proj.bias, 1e-3
    found = float(bias.grad[0])
    sums = []
    for sign in (1, -1):
        with torch.no_grad():
            bias[0] += sign * step
            sums.append(float(MaskCLIP(model, **RAW)(images(), 3, as_tensor=True).square().sum()))
            bias[0] -= sign * step
    assert found == pytest.approx((sums[0] - sums[1]) / (2 * step), rel=2e-2)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"stand in windows.*LeGrad"):
        MaskCLIP(Blocked("folded"))(torch.randn(1, 3, 16, 24))

    class AsAMap(Attentive):
        def score(self, tokens):
            return super().score(tokens[:, 1:].unflatten(1, (3, 4)).flatten(1, 2))

    with pytest.raises(ValueError, match=r"takes no single cell of the image.*LeGrad"):
        MaskCLIP(AsAMap(pool="mean"))(images())
