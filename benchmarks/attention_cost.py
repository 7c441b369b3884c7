"""What LeGrad and attention rollout cost beside a bare forward: `python -m benchmarks.attention_cost`.

Of timm's ViT-S the processor time of a later call over that of a forward in `inference_mode` right before it, the
median of the rounds; LeGrad of one class and of eight, as texts of CLIP are. Literal: the same formulas with hooks and
plain autograd on the model whose attention is not fused, without any check, the least that a library can take.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from benchmarks.report import write_report
from pytorch_grad_cam import AttentionRollout, LeGrad

TEXTS = 8


def measured(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def literal_legrad(model: Any, images: torch.Tensor, targets: int) -> torch.Tensor:
    """Of the last two blocks: (targets, N, T)."""
    outputs: list[torch.Tensor] = []
    weights: list[torch.Tensor] = []

    def kept(module: Any, args: Any, attention: torch.Tensor) -> torch.Tensor:
        weights.append(attention.detach().requires_grad_())
        return weights[-1]

    def cut(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        outputs.append(output)
        return output.detach()

    last = model.blocks[-2:]
    handles = [each.attn.attn_drop.register_forward_hook(kept) for each in last]
    handles += [each.register_forward_hook(cut) for each in last]
    model(images)
    for handle in handles:
        handle.remove()
    maps = []
    for target in range(targets):
        of_blocks = []
        for output, weight in zip(outputs, weights, strict=True):
            score = model.head(model.norm(output.mean(1)))[:, target].sum()
            (gradient,) = torch.autograd.grad(score, weight, retain_graph=True)
            of_blocks.append(gradient.relu().mean((1, 2)))
        maps.append(torch.stack(of_blocks).mean(0))
    return torch.stack(maps)


def rows(batch: int, rounds: int) -> dict[str, dict[str, float]]:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224").eval().requires_grad_(False)
    plain = copy.deepcopy(model)
    for block in plain.blocks:
        block.attn.fused_attn = False
    images = torch.randn(batch, 3, 224, 224)

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    def unfused() -> None:
        with torch.inference_mode():
            plain(images)

    legrad, rollout = LeGrad(model), AttentionRollout(model)
    calls = {
        "LeGrad": lambda: legrad(images, 1),
        f"LeGrad, {TEXTS} targets": lambda: legrad(images, [[*range(TEXTS)]] * batch),
        "LeGrad, literal": lambda: literal_legrad(plain, images, 1),
        f"LeGrad, {TEXTS} targets, literal": lambda: literal_legrad(plain, images, TEXTS),
        "AttentionRollout": lambda: rollout(images),
        "forward without fused attention": unfused,
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
    write_report("attention_cost", found, f"ViT-S, batch {options.batch}; median of {options.rounds} rounds")


if __name__ == "__main__":
    main()
