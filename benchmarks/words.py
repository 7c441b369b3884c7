"""Does the map of a word lie on what it names, and what does it cost? `python -m benchmarks.words`.

Held-out scenes of two digits, which the bundled reader spells from left to right. Of each word that is a digit of the
scene: how often the map's maximum lies in its own digit's box (hit) or in the other's (wrong), and the share of the
map's sum inside its own box (energy). TAM, also without its filter of 3 x 3, and methods with gradients by TokenTarget.

The cost of TAM on a model of LLaVA's form with random weights: the processor time that it takes beside the generation,
and how many forwards there are for how many words. Generation and TAM are measured in turn, in one process.
"""

import argparse
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.instances import place_of
from benchmarks.report import save, write_report
from pytorch_grad_cam import TAM, GradCAM, HiResCAM, LayerCAM, TokenTarget
from pytorch_grad_cam.demo.reader import FIRST_NUMERAL, DigitsReader, ReaderProcessor, load_digits_reader
from pytorch_grad_cam.demo.scenes import SIZE, Scene, make_scene
from pytorch_grad_cam.demo.train_reader import answer_to
from pytorch_grad_cam.engine.maps import resize
from pytorch_grad_cam.tam import TokenMaps

METHODS = {"LayerCAM": LayerCAM, "HiResCAM": HiResCAM, "GradCAM": GradCAM}
WORDS = 32


def scenes_of(count: int, seed: int) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [make_scene(rng) for _ in range(count)]


def digits_said(said: TokenMaps, scene: Scene) -> dict[int, int]:
    """For each word that names a digit of the scene the number of that digit."""
    digits = {FIRST_NUMERAL + int(label): digit for digit, label in enumerate(scene.labels)}
    return {word: digits[token] for word, token in enumerate(said.ids.tolist()) if token in digits}


def figures(model: DigitsReader, scenes: Sequence[Scene], method: Any = None, smooth: bool = True) -> dict[str, Any]:
    """All columns of a row. method: a class of CAMs; None is TAM, with its filter if `smooth`."""
    processor, places, right = ReaderProcessor(), [], 0
    tam = TAM(model, smooth=smooth)
    cam = None if method is None else method(model)
    for scene in scenes:
        said = tam(processor(scene.image), max_new_tokens=4)
        right += said.ids.tolist() == answer_to(scene)
        named = digits_said(said, scene)
        if not named:
            continue
        if cam is None:
            maps = resize(said.evidence[0][:, None], (SIZE, SIZE))[list(named), 0]
        else:
            targets = [TokenTarget(said.places[word], int(said.ids[word])) for word in named]
            maps = cam(said.inputs, [targets], as_tensor=True)[0]
        places += [place_of(word_map, scene.boxes, digit) for word_map, digit in zip(maps, named.values(), strict=True)]
    hit, wrong, energy = np.mean(places, axis=0).tolist()
    return {"words": len(places), "hit": hit, "wrong": wrong, "energy": energy, "scenes read": right / len(scenes)}


def cost(rounds: int) -> dict[str, Any]:
    """Of a model of LLaVA's form, 576 image tokens and an answer of 32: what TAM adds to the generation."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=336,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=32_064, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=32_000)
    model = LlavaForConditionalGeneration(config).eval()
    ids = torch.tensor([[1, *[32_000] * 576, *range(5, 25)]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, 336, 336)}
    options = {"max_new_tokens": WORDS, "min_new_tokens": WORDS, "do_sample": False}
    tam, runs, shares = TAM(model), [], []
    handle = model.register_forward_hook(lambda *_: runs.append(1))
    tam(inputs, **options)
    forwards = len(runs)
    handle.remove()
    for _ in range(rounds):
        start = time.process_time()
        with torch.no_grad():
            model.generate(**inputs, **options)
        middle = time.process_time()
        tam(inputs, **options)
        shares.append((time.process_time() - middle) / (middle - start))
    return {"words": WORDS, "forwards": forwards, "time over the generation": round(median(shares), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    scenes, model = scenes_of(options.scenes, options.seed), load_digits_reader()
    rows: dict[str, Any] = {f"TAM{how}": figures(model, scenes, smooth=not how) for how in ("", " without its filter")}
    for name, method in METHODS.items():
        rows[name] = figures(model, scenes, method)
    rows["cost of TAM, LLaVA's form"] = cost(options.rounds)
    save("words", rows)
    write_report("words", rows, f"{options.scenes} scenes, seed {options.seed}; cost: median of {options.rounds}")


if __name__ == "__main__":
    main()
