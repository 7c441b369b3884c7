"""The tokens of a text are no map of the image that is read with it, whatever grid their number would make."""

import numpy as np
import pytest
import torch
from vlms import CASES, model_called

from pytorch_grad_cam import LayerCAM, LeGrad, TokenTarget


def conversation(name):
    if name != "Blip":
        return CASES[name][1]
    ids = torch.tensor([[1, 5, 6, 7]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": CASES["LLaVA"][1]["pixel_values"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LLaVA", "PaliGemma", "Blip"])
@pytest.mark.parametrize("kind", [LayerCAM, LeGrad])
def test_layers_of_the_image_are_found(name, kind):
    model = model_called({"LLaVA": "Llava"}.get(name, name))
    inputs = conversation(name)
    with kind(model) as cam:
        maps = cam(inputs, [[TokenTarget(-1, 5), TokenTarget(-1, 9)]])
        layer = cam.target_layers[0]
    assert layer not in set(model.get_decoder().modules())
    assert maps.shape == (1, 2, 32, 32)
    assert maps.max() == 1
    np.testing.assert_array_equal(kind(model, layer)(inputs, TokenTarget(-1, 5)).shape, (1, 32, 32))
