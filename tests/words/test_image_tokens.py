"""Where an image's tokens lie in the prompt, on which grid, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from vlms import CASES, IMAGE, VIDEO, TileTokenizer, model_called

from pytorch_grad_cam.tam import TAM
from pytorch_grad_cam.words.image_tokens import image_tokens


@pytest.mark.parametrize("case", CASES)
def test_views_are_whole_pictures(case):
    """Each view has each of its places once, and they are image tokens."""
    name, inputs, grids = CASES[case]
    views = image_tokens(model_called(name), inputs, TileTokenizer())
    places = torch.cat([view.flatten() for of_image in views for view in of_image])
    assert len(places.unique()) == len(places)
    assert set(inputs["input_ids"][0, places].tolist()) <= {IMAGE, VIDEO}
    assert [max(of_image, key=torch.Tensor.numel).shape for of_image in views] == grids


@pytest.mark.parametrize(("name", "what"), [("Idefics2", "perceiver_config"), ("Blip", "no image tokens")])
def test_models_without_cells_in_the_prompt(name, what):
    inputs = CASES["LLaVA"][1] if name == "Idefics2" else {"input_ids": torch.tensor([[1, 5]])}
    with pytest.raises(ValueError, match=f"{what}.*TokenTarget"):
        TAM(model_called(name))(inputs)


def test_tiles_without_a_processor():
    with pytest.raises(ValueError, match="7 pictures, whose places the prompt says: pass the processor"):
        TAM(model_called("SmolVLM"))(CASES["SmolVLM, tiles"][1])


def test_pictures_that_are_padded():
    inputs = dict(CASES["SmolVLM"][1])
    inputs["pixel_attention_mask"] = inputs["pixel_attention_mask"].clone()
    inputs["pixel_attention_mask"][..., 20:] = False
    with pytest.raises(ValueError, match="padded"):
        TAM(model_called("SmolVLM"))(inputs)


def test_other_numbers_of_tokens():
    inputs = {**CASES["LLaVA"][1], "pixel_values": torch.zeros(1, 3, 32, 48)}
    with pytest.raises(ValueError, match="16 image tokens are no grid of a picture of 32 x 48"):
        TAM(model_called("Llava"))(inputs)


def _configured(**configuration):
    return SimpleNamespace(config=SimpleNamespace(image_token_id=IMAGE, **configuration))


@pytest.mark.parametrize("inputs", [{"pixel_values": torch.zeros(1, 3, 32, 32)}, CASES["LLaVA"][1]])
def test_encoders_and_decoders(inputs):
    """As TrOCR, which has no prompt, and Florence-2, whose answer is not behind it."""
    with pytest.raises(ValueError, match=r"a decoder that looks at the image.*TokenTarget"):
        image_tokens(_configured(is_encoder_decoder=True), inputs)


def test_fewer_tokens_than_pictures():
    """As Llama 3.2, which looks at tiles by cross-attention, from one token."""
    inputs = {"input_ids": torch.tensor([[1, IMAGE, 5]]), "pixel_values": torch.zeros(1, 1, 4, 3, 32, 32)}
    with pytest.raises(ValueError, match=r"1 image tokens for 4 pictures.*cross-attention.*TokenTarget.*one picture"):
        image_tokens(_configured(), inputs)


def test_patches_in_rows_of_several_lengths():
    inputs = {"input_ids": torch.tensor([[IMAGE, IMAGE, 38, IMAGE, 38, 5]]), "image_patches": torch.zeros(1, 3, 192)}
    with pytest.raises(ValueError, match=r"rows of image tokens are \[2, 1\] long"):
        image_tokens(_configured(), inputs)


def test_inputs_without_pictures():
    with pytest.raises(ValueError, match=r"input_ids, have no pixel_values.*TokenTarget"):
        image_tokens(_configured(), {"input_ids": torch.tensor([[1, IMAGE, 5]])})
