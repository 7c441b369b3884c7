"""The way out for models whose words look at the image by cross-attention, as Llama 3.2 (Mllama) does."""

import warnings

import pytest
import torch
from torch import nn
from vlms import IMAGE, model_called

from pytorch_grad_cam import TAM, CamWarning, LayerCAM, LeGrad, TokenTarget
from pytorch_grad_cam.engine.maps import resize

CELLS, TILES, TOKEN = 4, 2, 9
NEXT_WORD = TokenTarget(4, TOKEN)  # behind the prompt


class OneTile(nn.Module):
    """The model as a function of the first of its tiles, the others as they are."""

    def __init__(self, model, inputs):
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, picture):
        tiles = torch.cat([picture[:, None, None], self.inputs["pixel_values"][:, :, 1:]], dim=2)
        return self.model(**{**self.inputs, "pixel_values": tiles})


@pytest.fixture(scope="module")
def llama():
    """The model, its inputs, and it as a function of a tile."""
    model = model_called("Mllama")
    for name, parameter in model.named_parameters():
        if "gate" in name:  # closed at first
            nn.init.constant_(parameter, 0.5)
    ids = torch.tensor([[1, IMAGE, 5, 6]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(1, 1, TILES, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        "aspect_ratio_ids": torch.tensor([[2]]),
        "aspect_ratio_mask": torch.ones(1, 1, TILES, dtype=torch.long),
        "cross_attention_mask": torch.ones(1, 4, 1, TILES, dtype=torch.long),
    }
    return model, inputs, OneTile(model, inputs)


@pytest.mark.slow
def test_tam_names_the_way_out(llama):
    model, inputs, _ = llama
    with pytest.raises(ValueError, match=r"cross-attention\?\).*LayerCAM of a module that puts one picture"):
        TAM(model)(inputs)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [None, "model.model.multi_modal_projector"])
def test_one_tile(llama, layer):
    """LayerCAM's formula by plain autograd, in the first tile's cells of the layer, behind its class token."""
    model, inputs, of_tile = llama
    picture = inputs["pixel_values"][:, 0, 0]

    def cells(output):
        tokens = output.reshape(1, TILES, -1, output.shape[-1])[:, 0, 1 : 1 + CELLS**2]
        return tokens.mT.unflatten(2, (CELLS, CELLS))

    cam = LayerCAM(of_tile, layer, cells if layer else None, relu=False, normalize=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CamWarning)
        found = cam(picture, NEXT_WORD, as_tensor=True)
    kept = []
    (chosen,) = cam.target_layers
    handle = chosen.register_forward_hook(lambda module, args, output: kept.append(output))
    logit = model(**inputs).logits[0, -1, TOKEN]
    handle.remove()
    output = kept[0] if isinstance(kept[0], torch.Tensor) else kept[0][0]
    (gradient,) = torch.autograd.grad(logit, output)
    expected = (cells(gradient).relu() * cells(output)).sum(1)
    torch.testing.assert_close(found, resize(expected[:, None].detach(), (32, 32))[:, 0], atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_attention_of_one_tile(llama):
    _, inputs, of_tile = llama
    with warnings.catch_warnings():
        warnings.simplefilter("error", CamWarning)
        assert LeGrad(of_tile)(inputs["pixel_values"][:, 0, 0], NEXT_WORD).max() == 1
