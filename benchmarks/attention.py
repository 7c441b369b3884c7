"""Of how many vision transformers the attention can be read: `python -m benchmarks.attention`.

The smallest network of each of timm's families that have attention, and tiny configurations of transformers' models in
each implementation of attention that runs here, all with random weights. Where these are not read, the network is built
once more with weights that carry a place through it, as trained ones do: projections that keep the variance (of tiny
configurations the 0.02 of wide ones takes it away), tables of biases that favour near positions, and batch norms with
the statistics of noise. A network counts where LeGrad draws a
map, without a warning of its place, and the output of the call is that of the model within 1e-5 of its largest value.
It is captured where attention weights are seen and kept, with that output, whether or not they are then put into a map:
of windows that nobody puts back, of pooled keys, or where the place check warns, as it may with random weights.
Families without a softmax over tokens are listed apart, in `WITHOUT`. `--only vit swin` does those whose name
begins so.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.report import rows_of, save, write_report
from pytorch_grad_cam import LeGrad
from pytorch_grad_cam.attention.attention_watch import AttentionWatch
from pytorch_grad_cam.attention.attentions import Attention
from pytorch_grad_cam.engine.targets import scores_in
from pytorch_grad_cam.engine.trees import floating_tensors

# timm's modules with attention; the name of the smallest network of each is found.
TIMM = (
    "beit", "cait", "coat", "convit", "crossvit", "davit", "deit", "edgenext", "efficientformer", "efficientformer_v2",
    "eva", "fastvit", "gcvit", "hiera", "levit", "maxxvit", "mobilevit", "mvitv2", "naflexvit", "nest", "nextvit",
    "pit", "pvt_v2", "repvit", "shvit", "swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr", "tiny_vit",
    "tnt", "twins", "visformer", "vision_transformer", "vision_transformer_hybrid", "vision_transformer_relpos",
    "vision_transformer_sam", "vitamin", "volo", "efficientvit_msra",
)  # fmt: skip
# Families that take no softmax over an image's tokens, and why.
WITHOUT = {
    "xcit": "attention between channels",
    "efficientvit_mit": "attention without a softmax",
    "swiftformer": "attention without a softmax",
    "coat": "attention between channels",
    "edgenext": "attention between channels",
    "repvit": "no attention",
}
# Tiny configurations of transformers, by name: the model's class, the configuration's, and its arguments.
TRANSFORMERS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "attention_networks.json").read_text())
CLASSES = 2  # as many as the smallest head has
HEADLESS = ("DINOv3ViTModel",)
SIZES = {"detr": 128}
PRECISION = 1e-5
IMAGES = 8  # of noise, for the statistics of batch norms
# Of timm's families that are made for pictures of 1024 pixels: arguments, and the size of the input.
SMALLER: dict[str, Any] = {"vision_transformer_sam": ({"img_size": 256}, (3, 256, 256))}
NOTES = (
    "random weights, where these are not read such that carry a place; read: LeGrad draws a map, no warning of its "
    "place, the call's output is the model's within 1e-5"
)


def noise(*shape: int) -> torch.Tensor:
    """The same whichever networks are asked."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def timm_networks() -> Iterator[tuple[str, Callable[[], nn.Module], Any]]:
    import timm

    for family in TIMM:
        if family in WITHOUT:
            continue
        names = timm.list_models(module=family)
        sizes = {name: timm.get_pretrained_cfg(name) for name in names}
        candidates = sorted(names, key=_order)
        for name in candidates[:1]:
            size = sizes[name].input_size if sizes[name] is not None else (3, 224, 224)
            arguments, size = SMALLER.get(family, ({}, size))
            build = partial(timm.create_model, name, **arguments)
            yield f"timm {family}: {name}", build, noise(1, *size)


def _order(name: str) -> tuple[int, str]:
    """Small ones first, by what names say."""
    marks = ("test_", "_tiny", "tiny_", "_xxs", "_xxt", "_nano", "_xs", "_t0", "_s0", "_m0", "_b0", "_small", "_s_")
    return next((place for place, mark in enumerate(marks) if mark in name), len(marks)), name


def transformers_networks() -> Iterator[tuple[str, Callable[[], nn.Module], Any]]:
    import transformers

    for name, (model, configuration, arguments) in ((name, row.values()) for name, row in TRANSFORMERS.items()):
        if not hasattr(transformers, model):
            continue
        # The flex attention of one network: compiling its first, unwatched forward takes a minute each.
        for attention in ("eager", "sdpa", *(["flex_attention"] if name == "vit" else [])):

            def build(model=model, configuration=configuration, arguments=arguments, attention=attention):
                config = getattr(transformers, configuration)(**arguments)
                return getattr(transformers, model)._from_config(config, attn_implementation=attention)

            side = SIZES.get(name, arguments.get("image_size", 32))
            side = side if isinstance(side, int) else side[0]
            pixels = noise(2, 3, side, side) if "video" not in model.lower() else noise(2, 6, 3, side, side)
            inputs: dict[str, Any] = {"pixel_values": pixels}
            if "text_config" in arguments or name == "vilt":
                inputs["input_ids"] = torch.randint(3, 99, (2, 7))
                inputs["attention_mask"] = torch.ones(2, 7, dtype=torch.long)
            yield f"transformers {name}, {attention}", build, inputs


def is_read(model: nn.Module, inputs: Any) -> str:
    """'' where the attention is read, else why it is not."""
    model.eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # heads and layer scales that begin with zeros say nothing
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1, generator=generator)
    headless = type(model).__name__ in HEADLESS
    cam = LeGrad(model, output_transform=(lambda output: output.pooler_output) if headless else None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        maps = cam(inputs, _targets(model, inputs))
    with torch.no_grad():
        expected = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    wrong = [str(each.message) for each in told if "CamWarning" in type(each.message).__name__]
    wrong = [
        message for message in wrong if "blank" not in message
    ]  # of some classes, which random weights speak against
    if wrong or not maps.reshape(len(maps), -1).any(1).all():
        return wrong[0] if wrong else "blank"
    for ours, theirs in zip(map(scores_in, (cam.outputs,)), map(scores_in, (expected,)), strict=True):
        for mine, own in zip(floating_tensors(ours), floating_tensors(theirs), strict=True):
            error = (mine - own).abs().max() / own.abs().max()
            if not error < PRECISION:
                return f"the output differs by {error:.1e}"
    return ""


def outcome(model: nn.Module, inputs: Any) -> str:
    """That of `is_read`, or what it raised."""
    try:
        return is_read(model, inputs)
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"


def carrying_place(model: nn.Module, inputs: Any) -> nn.Module:
    """The model with weights through which a change of the image is told from one elsewhere, as far as it allows."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
        offsets = getattr(module, "attention_bias_idxs", None)  # LeViT's: of each query and key their distance's number
        if offsets is not None:
            keys = offsets.shape[-1]
            rows, columns = (
                axis.flatten() for axis in torch.meshgrid(*[torch.arange(math.isqrt(keys))] * 2, indexing="ij")
            )
            with torch.no_grad():
                module.attention_biases[:, offsets[0]] = -(rows + columns).float()
    return normalised(model, inputs)


def normalised(model: nn.Module, inputs: Any) -> nn.Module:
    """With batch norms that have the statistics of noise; random activations of some networks die out without."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.train().momentum = 1.0
    if not norms:
        return model.eval()
    image = inputs["pixel_values"] if isinstance(inputs, dict) else inputs
    images = noise(IMAGES, *image.shape[1:])
    with torch.no_grad():
        _ = model(**{**inputs, "pixel_values": images}) if isinstance(inputs, dict) else model(images)
    return model.eval()


def is_captured(model: nn.Module, inputs: Any) -> bool:
    """Whether attention weights are seen, and the model's output is what it is without anybody looking."""
    model.eval()
    seen: list[Attention] = []
    with torch.no_grad():
        expected = model(**inputs) if isinstance(inputs, dict) else model(inputs)
        with AttentionWatch(lambda weights: weights, seen.append):
            found = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    pairs = zip(floating_tensors(scores_in(found)), floating_tensors(scores_in(expected)), strict=True)
    return bool(seen) and all(bool((ours - own).abs().max() < PRECISION * own.abs().max()) for ours, own in pairs)


def _targets(model: nn.Module, inputs: Any) -> Any:
    """A class of detectors, the first text; of models without a head the sum of what they give, else some classes."""
    name = type(model).__name__
    if "Detection" in name or (isinstance(inputs, dict) and "input_ids" in inputs):
        return 0
    if name.endswith("Model"):
        return lambda output: output.square().sum()
    if "Depth" in name:
        return lambda depth: depth.sum()
    return [list(range(CLASSES))] * len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--save", action="store_true", help="write the results and the table in benchmarks/README.md")
    options = parser.parse_args()
    rows: dict[str, dict[str, str]] = {}
    for name, build, inputs in (*timm_networks(), *transformers_networks()):
        if not any(name.partition(" ")[2].startswith(only) for only in options.only):
            continue
        torch.manual_seed(0)
        start = time.perf_counter()
        try:
            model = build()
        except Exception as error:  # noqa: BLE001
            sys.stdout.write(f"{name} does not build here: {str(error)[:80]}\n")
            continue
        why = outcome(model, inputs)
        if why:
            model = carrying_place(
                build(), inputs
            )  # another one: what is known of the first is not that of its weights
            why = outcome(model, inputs)
        sys.stdout.write(f"{name}: {why[:160] or 'read'} ({time.perf_counter() - start:.0f} s)\n")
        sys.stdout.flush()
        captured = "yes" if not why or is_captured(model, inputs) else "no"
        rows[name] = {"captured": captured, "read": f"no: {why[:100]}" if why else "yes"}
    if options.only != [""] and options.save:  # the others as they were
        rows = {**rows_of("attention"), **rows}
    read = sum(row["read"] == "yes" for row in rows.values())
    captured = sum(row.get("captured", row["read"]) == "yes" for row in rows.values())
    for what, count in (("captured", captured), ("read", read)):
        sys.stdout.write(f"{what}: {count} of {len(rows)}, {count / max(len(rows), 1):.1%}\n")
    if options.save:
        report = {name: row for name, row in rows.items() if row["read"] != "yes"}
        save("attention", rows, NOTES)
        total = {"captured": f"{captured} of {len(rows)}", "read": f"{read} of {len(rows)}"}
        write_report("attention_missed", {"all": total, **report}, NOTES)


if __name__ == "__main__":
    main()
