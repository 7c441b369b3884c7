"""What a vision-language model says of a picture, with a map for each word."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

import pytorch_grad_cam
from pytorch_grad_cam.engine.cam_warning import CamWarning, issue
from pytorch_grad_cam.engine.layers import names_of as names_of_layers
from pytorch_grad_cam.engine.maps import min_max, resize, scaled_evidence
from pytorch_grad_cam.explanations.arguments import for_constructor
from pytorch_grad_cam.explanations.explanation import Explanation, Panel
from pytorch_grad_cam.tam import TAM, TokenMaps
from pytorch_grad_cam.utils.model_targets import TokenTarget
from pytorch_grad_cam.zoo.classifiers import Classifier
from pytorch_grad_cam.zoo.pictures import as_picture
from pytorch_grad_cam.zoo.placement import Original, Placements
from pytorch_grad_cam.zoo.preprocessing import given_preprocessing
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

_LONGEST = 672  # of a picture whose patches the model takes in any number, in pixels: a map a word is kept of it
_NOTHING = "nothing that the image's tokens say of it is more than the words before it explain"


class Word(NamedTuple):
    """A word of an answer as it stands there, with the space in front, and the numbers of its tokens."""

    text: str
    tokens: range


class Asked(NamedTuple):
    """What a model is asked: methods to explain it by, how long the answer may be, and options of the methods."""

    prompt: str
    processor: Any
    methods: Sequence[Any]
    longest: int
    options: Mapping[str, Any]


def answer_explained(model: nn.Module, image: Any, asked: Asked, title: str = "") -> Explanation:
    """What the model answers to a picture and a prompt, with a panel for each method and word.

    Of a word of several tokens the map has the highest value of any of them. Cost: one generation; of a method with
    gradients one call, with all tokens as targets.
    """
    picture = as_picture(image)
    inputs = inputs_of_prompt(asked.processor, picture, asked.prompt)
    tam = TAM(model, asked.processor, **for_constructor(TAM, asked.options))
    said = tam(inputs, max_new_tokens=asked.longest)
    if len(said.evidence) > 1:
        raise ValueError(
            f"{type(model).__name__} is shown the picture as {len(said.evidence)} pictures, and nothing says where "
            "each lies in it: pass a processor that shows it as one (`crop_to_patches=False`, `do_pan_and_scan=False`) "
            "or call TAM(model), whose evidence has a map for each"
        )
    tokenizer = getattr(asked.processor, "tokenizer", asked.processor)
    words = words_of(lambda ids: tokenizer.decode(ids, skip_special_tokens=True), said.ids.tolist())
    if not words:
        raise UnusableInput(f"{type(model).__name__} answers nothing to the prompt {asked.prompt!r}")
    shown, original = _shown(model, asked, picture, inputs)
    panels: list[Panel] = []
    warnings: list[str] = []
    probabilities = np.array([float(said.probabilities[list(word.tokens)].prod()) for word in words], np.float32)
    for method in asked.methods:
        layer, maps = ("", said.evidence[0]) if method is TAM else _by_gradients(method, model, said, asked.options)
        drawn = _of_words(maps, words, shown.shape[:2])
        for number, (word, word_map) in enumerate(zip(words, drawn, strict=True)):
            name = word.text.strip()
            said_of = () if word_map.any() else (f"the map of {name!r} is blank: {_NOTHING}",)
            warnings += said_of
            panels.append(
                Panel(method.__name__, layer, None, name, float(probabilities[number]), word_map, tuple(said_of))
            )
    for warning in warnings:
        issue(CamWarning(warning))
    return Explanation(
        title,
        shown,
        panels,
        np.log(probabilities),
        probabilities,
        [word.text.strip() for word in words],
        warnings,
        {"pytorch_grad_cam": pytorch_grad_cam.__version__, "torch": torch.__version__},
        [
            f"prompt: {asked.prompt}",
            "probabilities: those of a word's tokens, multiplied",
            "maps: cells are even tiles; of a word the highest of its tokens' maps",
        ],
        original,
        {"model": type(model).__name__, "date": date.today().isoformat()},
        sentence=tuple(word.text for word in words),
    )


def inputs_of_prompt(processor: Any, picture: Image.Image, prompt: str) -> dict[str, Any]:
    """What a processor makes of a picture and a question about it: by its chat template, where it has one."""
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    else:
        token = getattr(processor, "image_token", None)
        prompt = prompt if token is None or token in prompt else f"{token}{prompt}"
    return dict(processor(images=picture, text=prompt, return_tensors="pt"))


def words_of(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> list[Word]:
    """The words of an answer: what stands between spaces; of scripts without spaces each character.

    A token belongs to the word in which it ends, what has no text, as the end of the answer, to none. decode: from the
    numbers of tokens to their text.
    """
    pieces, text = [], ""
    for count in range(1, len(ids) + 1):
        longer = decode(ids[:count])
        # A character that is not complete yet is shown by a mark in its place.
        piece = "" if longer.endswith("\ufffd") else longer[len(text) :]
        text += piece
        pieces.append(piece)
    words: list[Word] = []
    pending = 0
    for number, piece in enumerate(pieces):
        if not piece:
            continue
        if not words or _begins(words[-1].text, piece):
            words.append(Word(piece, range(pending, number + 1)))
        else:
            words[-1] = Word(words[-1].text + piece, range(words[-1].tokens.start, number + 1))
        pending = number + 1
    return [word for word in words if word.text.strip()]


def _begins(before: str, piece: str) -> bool:
    between_spaces = piece[0].isspace() or before[-1].isspace()
    are_wide = unicodedata.east_asian_width(piece[0]) in "WF" or unicodedata.east_asian_width(before[-1]) in "WF"
    return between_spaces or are_wide


def _by_gradients(
    method: Any, model: nn.Module, said: TokenMaps, options: Mapping[str, Any]
) -> tuple[str, torch.Tensor]:
    targets = [TokenTarget(place, token) for place, token in zip(said.places, said.ids.tolist(), strict=True)]
    with method(model, **for_constructor(method, options)) as cam:
        maps = cam(said.inputs, [targets], as_tensor=True)[0]
        return " + ".join(names_of_layers(cam.model, cam.target_layers)), maps


def _of_words(of_tokens: torch.Tensor, words: Sequence[Word], size: Sequence[int]) -> Iterator[np.ndarray]:
    """The maps of words, float32 (H, W) in [0, 1], from those of tokens (K, h, w)."""
    for word in words:
        evidence = of_tokens[word.tokens.start : word.tokens.stop].float().amax(0)
        drawn = min_max(resize(scaled_evidence(evidence[None])[:, None], size)[:, 0])
        yield drawn[0].cpu().numpy()


def _shown(
    model: nn.Module, asked: Asked, picture: Image.Image, inputs: Mapping[str, Any]
) -> tuple[np.ndarray, Original]:
    """The picture that maps are drawn over: what the model was shown, or where that is patches or tiles the whole
    picture; and where it lies in the original.
    """
    pixels = inputs.get("pixel_values")
    if pixels is None:
        raise ValueError(
            f"what the processor of {type(model).__name__} gives, {', '.join(inputs)}, does not say which part of the "
            "picture its patches are: call TAM(model), whose evidence is on their grid"
        )
    if pixels.ndim == 4:

        def preprocess(image: Image.Image) -> torch.Tensor:
            seen: torch.Tensor = inputs_of_prompt(asked.processor, image, asked.prompt)["pixel_values"]
            return seen

        statistics = given_preprocessing(asked.processor)._replace(function=preprocess)
        values = Classifier(model, statistics).picture(pixels[0])
        return np.rint(255 * values).astype(np.uint8), Original(picture.size, Placements(preprocess))

    def smaller(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image.resize(size), np.float32)).movedim(-1, 0)

    scale = min(1, _LONGEST / max(picture.size))
    size = (max(1, math.floor(picture.width * scale)), max(1, math.floor(picture.height * scale)))
    return np.asarray(picture.resize(size)), Original(picture.size, Placements(smaller))
