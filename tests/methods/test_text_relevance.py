"""Which words of a text matter for a similarity: against a literal loop on what transformers itself returns."""

import numpy as np
import pytest
import torch
from nets import state_of
from torch import nn
from torch.nn.functional import normalize

from pytorch_grad_cam import TextRelevance

_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
END = 98


def model_of(family, attention="eager"):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vision = {**_SIZES, "image_size": 32, "patch_size": 8}
    text = {**_SIZES, "vocab_size": 99, "max_position_embeddings": 12}
    text |= {"bos_token_id": 0, "eos_token_id": END, "pad_token_id": 1}
    own = {"projection_dim": 16} if family == "CLIP" else {}
    config = getattr(transformers, f"{family}Config")(vision_config=vision, text_config=text, **own)
    return getattr(transformers, f"{family}Model")._from_config(config, attn_implementation=attention).eval()


def inputs_of(family):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, END, (3, 7), generator=generator)
    ids[:, -1] = END
    ids[1, 4:] = END  # a shorter one, padded by its end as CLIP's are
    texts = {"input_ids": ids}
    if family == "CLIP":
        texts["attention_mask"] = torch.ones_like(ids)
    return torch.randn(1, 3, 32, 32, generator=generator), texts


def literal_relevance(model, pixels, texts, read):
    """Text by text, block by block, head by head, in float64."""
    model = model.double().requires_grad_(True)
    with torch.no_grad():
        image = normalize(model.get_image_features(pixels.double()).pooler_output, dim=1)[0]
    found = []
    for number, place in enumerate(read):
        one = {name: value[number : number + 1] for name, value in texts.items()}
        outputs = model.get_text_features(**one, output_attentions=True)
        score = normalize(outputs.pooler_output, dim=1)[0] @ image * model.logit_scale.exp()
        gradients = torch.autograd.grad(score, outputs.attentions)
        relevance = np.eye(one["input_ids"].shape[1])
        for weights, gradient in zip(outputs.attentions, gradients, strict=True):
            product = (weights * gradient)[0].detach().numpy()
            speaking = sum(np.maximum(head, 0) for head in product) / len(product)
            relevance = relevance + speaking @ relevance
        found.append((relevance - np.eye(len(relevance)))[place])
    return np.stack(found)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["CLIP", "Siglip"])
def test_the_relevance_of_the_paper(family, attention):
    pixels, texts = inputs_of(family)
    read = [6, 4, 6] if family == "CLIP" else [6, 6, 6]
    model = model_of(family, attention)
    with torch.no_grad():
        model.get_text_features(**texts)  # transformers installs hooks of its own in the first forward
    before = state_of(model)
    found = TextRelevance(model)(pixels, texts)
    assert state_of(model) == before
    expected = literal_relevance(model_of(family), pixels, texts, read)
    np.testing.assert_allclose(found.relevance, expected, rtol=1e-3, atol=1e-5 * expected.max())
    assert expected.max() > 0


def test_one_backward_for_all_texts():
    pixels, texts = inputs_of("CLIP")
    method = TextRelevance(model_of("CLIP"))
    together = method(pixels, texts)
    for number in range(3):
        alone = method(pixels, {name: value[number : number + 1] for name, value in texts.items()})
        torch.testing.assert_close(alone.relevance[0], together.relevance[number])
        torch.testing.assert_close(alone.similarity[0], together.similarity[number])


class OpenClip(nn.Module):
    """As OpenCLIP is called: tensors in, tensors out. The last token is read."""

    def __init__(self, has_attention=True):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.has_attention = nn.Embedding(9, 8), has_attention
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def encode_image(self, image):
        return image.flatten(1)[:, :8]

    def encode_text(self, text):
        tokens = self.words(text)
        return (self.attention(tokens, tokens, tokens)[0] if self.has_attention else tokens)[:, -1]


def test_models_as_open_clip_has_them():
    model, image = OpenClip().eval(), torch.randn(1, 3, 4, 4)
    ids = torch.tensor([[1, 2, 3, 4]])
    found = TextRelevance(model)(image, ids)
    similarity = normalize(model.encode_text(ids), dim=1) @ normalize(model.encode_image(image), dim=1).T
    torch.testing.assert_close(found.similarity, similarity[0].detach())
    assert found.relevance.shape == (1, 4)
    assert (found.relevance >= 0).all()
    assert found.relevance.any()


def test_what_is_refused():
    with pytest.raises(ValueError, match="2 images"):
        TextRelevance(OpenClip())(torch.randn(2, 3, 4, 4), torch.ones(1, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="no attention that can be seen"):
        TextRelevance(OpenClip(has_attention=False))(torch.randn(1, 3, 4, 4), torch.ones(1, 4, dtype=torch.long))
