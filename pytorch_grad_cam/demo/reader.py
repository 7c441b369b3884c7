"""A small vision-language model that spells the digits of a scene from left to right.

Its weights come with the package, those of its encoder with `load_digits_net`; `train_reader` made them. Models of
transformers are called, and generate, in the same way.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pytorch_grad_cam.demo.network import load_digits_net, preprocess_scene, with_own_weights
from pytorch_grad_cam.demo.scenes import SIZE

NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPT = "read the digits"
WORDS = ("<end>", "<image>", *PROMPT.split(), *NUMERALS)
END, IMAGE, FIRST_NUMERAL = 0, 1, WORDS.index("zero")
GRID = 16
_CHANNELS = 64 + 128
_WIDTH = 64
_HEADS = 4
_BLOCKS = 3
_LONGEST = GRID * GRID + 16  # tokens of a conversation
_WEIGHTS = Path(__file__).parent / "reader.pt"

Cache = list[tuple[torch.Tensor, torch.Tensor]]


class _Block(nn.Module):
    """Tokens see themselves and those in front of them, whose keys and values a cache holds."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.qkv, self.out = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.mlp = nn.Sequential(nn.Linear(_WIDTH, 2 * _WIDTH), nn.GELU(), nn.Linear(2 * _WIDTH, _WIDTH))

    def forward(
        self, tokens: torch.Tensor, earlier: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        heads = (part.unflatten(2, (_HEADS, -1)).transpose(1, 2) for part in self.qkv(self.norm1(tokens)).chunk(3, 2))
        query, key, value = heads
        if earlier is not None:
            key, value = torch.cat([earlier[0], key], dim=2), torch.cat([earlier[1], value], dim=2)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=earlier is None)
        tokens = tokens + self.out(attended.transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm2(tokens)), (key, value)


class DigitsReader(nn.Module):
    """The demo network's `layer3` and `layer4` as 256 image tokens in front of a prompt, and a decoder of three blocks.

    From `input_ids` (N, T), of which 256 are `IMAGE`, and `pixel_values` (N, 3, 64, 64), see `ReaderProcessor`, to
    'logits' (N, T, words).
    """

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_token_id=IMAGE)
        self.encoder = load_digits_net().requires_grad_(False)
        self.project = nn.Linear(_CHANNELS, _WIDTH)
        self.words, self.places = nn.Embedding(len(WORDS), _WIDTH), nn.Embedding(_LONGEST, _WIDTH)
        self.blocks = nn.ModuleList(_Block() for _ in range(_BLOCKS))
        self.norm, self.head = nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, len(WORDS), bias=False)

    def forward(
        self, input_ids: torch.Tensor, pixel_values: torch.Tensor | None = None, past_key_values: Cache | None = None
    ) -> dict[str, Any]:
        tokens = self.words(input_ids)
        if pixel_values is not None:
            image = self.project(self.cells(pixel_values)).flatten(0, 1)
            tokens = tokens.masked_scatter((input_ids == IMAGE)[..., None], image)
        return self.answered(tokens, past_key_values)

    def answered(self, tokens: torch.Tensor, past_key_values: Cache | None = None) -> dict[str, Any]:
        """The 'logits' behind tokens (N, T, 64) without their places, and what a cache holds of them."""
        start = 0 if past_key_values is None else past_key_values[0][0].shape[2]
        tokens = tokens + self.places.weight[start : start + tokens.shape[1]]
        caches: Cache = []
        for number, block in enumerate(self.blocks):
            tokens, cache = block(tokens, None if past_key_values is None else past_key_values[number])
            caches.append(cache)
        return {"logits": self.head(self.norm(tokens)), "past_key_values": caches}

    def cells(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What `layer3` of the encoder gives for each cell, and `layer4` drawn at its size: (N, 256, 192)."""
        encoder = self.encoder
        x = encoder.relu(encoder.bn1(encoder.conv1(pixel_values)))
        fine = encoder.layer3(encoder.layer2(encoder.layer1(x)))
        coarse = F.interpolate(encoder.layer4(fine), scale_factor=2.0, mode="bilinear")
        return torch.cat([fine, coarse], dim=1).flatten(2).mT

    @torch.no_grad()
    def generate(self, input_ids: torch.Tensor, pixel_values: torch.Tensor, max_new_tokens: int = 8) -> torch.Tensor:
        """The prompt (1, T) and the likeliest words behind it, up to `END`: one forward a word, of that word alone."""
        said = input_ids
        outputs = self(input_ids, pixel_values)
        for _ in range(max_new_tokens):
            following = outputs["logits"][:, -1:].argmax(-1)
            said = torch.cat([said, following], dim=1)
            if int(following) == END or said.shape[1] == input_ids.shape[1] + max_new_tokens:
                break
            outputs = self(following, past_key_values=outputs["past_key_values"])
        return said

    def get_decoder(self) -> nn.ModuleList:
        """What runs over the tokens of image and text."""
        return self.blocks

    def get_output_embeddings(self) -> nn.Linear:
        """What gives the logits, as models of transformers name it."""
        return self.head


class ReaderProcessor:
    """From scenes and a prompt to what `DigitsReader` takes, and from its words to a text."""

    all_special_ids = (END, IMAGE)

    def __call__(self, images: Any, text: str = PROMPT, return_tensors: str = "pt") -> dict[str, torch.Tensor]:
        """One scene, a Pillow image or an array of 64 x 64 pixels, and the prompt behind it.

        Raises ValueError for words that the model does not know, and for pictures of another size.
        """
        unknown = [word for word in text.split() if word not in WORDS]
        if unknown:
            raise ValueError(f"the reader does not know {', '.join(unknown)}: its prompt is {PROMPT!r}")
        height, width = np.asarray(images).shape[:2]
        if (height, width) != (SIZE, SIZE):
            raise ValueError(f"the reader reads scenes of {SIZE} x {SIZE} pixels, not {height} x {width}")
        ids = [IMAGE] * GRID**2 + [WORDS.index(word) for word in text.split()]
        return {"input_ids": torch.tensor([ids]), "pixel_values": preprocess_scene(np.asarray(images))}

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        """The words of token numbers, between spaces."""
        numbers = [int(number) for number in ids]
        return " ".join(WORDS[number] for number in numbers if not (skip_special_tokens and number <= IMAGE))


def own_weights(model: DigitsReader) -> dict[str, torch.Tensor]:
    """The weights without the encoder's, in half precision."""
    return {name: value.half() for name, value in model.state_dict().items() if not name.startswith("encoder.")}


def load_digits_reader() -> DigitsReader:
    """The trained reader, on the CPU, in evaluation mode."""
    return with_own_weights(DigitsReader(), _WEIGHTS)
