"""Readers of a line of text: a character at one time, and wherever it is read best."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.families.question import Case, Question, Target

HEIGHT, WIDTH = 48, 320
CHARACTERS = 50
# Strides of PP-OCRv5's mobile reader, whose configuration's own are those of the detector.
_LINES = [
    [[3, 16, 32, 1, False]],
    [[3, 32, 64, 1, False], [3, 64, 64, 1, False]],
    [[3, 64, 128, [2, 1], False], [3, 128, 128, 1, False]],
    [[3, 128, 256, [1, 2], False], *[[5, 256, 256, 1, False]] * 4],
    [[5, 256, 512, [2, 1], True], [5, 512, 512, 1, True], [5, 512, 512, [2, 1], False], [5, 512, 512, 1, False]],
]


def transformers_cases() -> Iterator[Case]:
    for name in ("PPOCRV5MobileRec", "PPOCRV5ServerRec", "PPOCRV6TinyRec", "PPOCRV6SmallRec"):
        yield f"transformers {name}", partial(_pp_ocr, name)


def _pp_ocr(name: str) -> Question:
    import transformers

    config = getattr(transformers, f"{name}Config")(head_out_channels=CHARACTERS)
    if name == "PPOCRV5MobileRec":
        config.backbone_config = transformers.PPLCNetV3Config(
            scale=0.75, out_features=["stage2", "stage3", "stage4", "stage5"], divisor=16, block_configs=_LINES
        )
    model = getattr(transformers, f"{name}ForTextRecognition")(config)
    # What is read lies in the backbone's last stage, in the row that it is pooled to, and up to the characters' scores.
    sensible = r"model(\.backbone(\..*3(\..+)?|\..*blocks\.4(\..+)?)?)?|head\.encoder(\..+)?"
    return Question(model, torch.randn(1, 3, HEIGHT, WIDTH), _targets, sensible)


def _targets(output: Any) -> dict[str, Target]:
    probabilities = output.last_hidden_state[0]
    time = len(probabilities) // 2
    character = int(probabilities[time].argmax())
    return {
        "a time": Target(
            lambda read: read[time, character], lambda output: output.last_hidden_state[0, time, character]
        ),
        "class": Target(character, lambda output: output.last_hidden_state[0, :, character].amax()),
    }
