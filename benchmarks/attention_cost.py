"""What LeGrad and attention rollout cost beside a bare forward: `python -m benchmarks.attention_cost`.

Of timm's ViT-S the processor time of a later call over that of a forward in `inference_mode` right before it, the
median of the rounds; LeGrad of one class and of eight, as texts of CLIP are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from benchmarks.report import save, write_report
from pytorch_grad_cam import AttentionRollout, LeGrad

TEXTS = 8


def measured(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def rows(batch: int, rounds: int) -> dict[str, dict[str, float]]:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224").eval()
    images = torch.randn(batch, 3, 224, 224)

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    legrad, rollout = LeGrad(model), AttentionRollout(model)
    calls = {
        "LeGrad": lambda: legrad(images, 1),
        f"LeGrad, {TEXTS} targets": lambda: legrad(images, [[*range(TEXTS)]] * batch),
        "AttentionRollout": lambda: rollout(images),
    }
    found = {}
    for name, call in calls.items():
        call()
        forward()
        ratios = []
        for _ in range(rounds):
            bare = measured(forward)
            ratios.append(measured(call) / bare)
        found[name] = {"forwards": round(median(ratios), 3), "lowest": round(min(ratios), 3)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    found = rows(options.batch, options.rounds)
    save("attention_cost", found)
    write_report("attention_cost", found, f"ViT-S, batch {options.batch}; median of {options.rounds} rounds")


if __name__ == "__main__":
    main()
