"""What a vision-language model answers to a prompt about one picture or several, with a map for each word."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_grad_cam.cli.one_image import SCENE, enlarged, image_at
from pytorch_grad_cam.cli.options import device_of
from pytorch_grad_cam.cli.saying import say
from pytorch_grad_cam.cli.several_images import are_asked_for
from pytorch_grad_cam.explanations.explaining import explain
from pytorch_grad_cam.explanations.explanation import Explanation
from pytorch_grad_cam.explanations.report import write_report
from pytorch_grad_cam.explanations.results import names_of_files
from pytorch_grad_cam.folder.image_list import images_in
from pytorch_grad_cam.folder.manifest import Manifest
from pytorch_grad_cam.zoo.classifiers import UnusableInput
from pytorch_grad_cam.zoo.own_code import own_code
from pytorch_grad_cam.zoo.vision_language import load_vision_language

# Options, by their names in the parsed arguments, that mean something of classes alone.
_OF_CLASSES = (
    "target_category", "truth", "boxes", "points", "target_layers", "preview_model", "categories", "probabilities",
    "aug_smooth", "eigen_smooth", "batch_size", "workers", "strict",
)  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Say the answer, write the files, the figure or the page; return how many pictures could not be explained."""
    refused = [name for name in _OF_CLASSES if getattr(options, name) not in (None, [], False)]
    if refused:
        said = ", ".join(f"--{'point' if name == 'points' else name.replace('_', '-')}" for name in refused)
        raise UnusableInput(f"{said}: with --prompt the targets are the words of the answer")
    several = are_asked_for(options)
    if options.save and not several:
        raise UnusableInput("--save is for several images: a folder, a glob or a list (.txt)")
    own = None if options.preprocess is None else own_code(options.preprocess)
    model, processor = load_vision_language(options.model or "digits", options.weights, options.model_args, own)
    model.to(device_of(options))
    how = {"prompt": options.prompt, "processor": processor, "max_new_tokens": options.max_new_tokens}
    if several:
        return _of_several(options, model, how)
    picture = image_at(options.image_path)
    explanation = explain(model, picture, options.methods, **how)
    explanation.title = Path(options.image_path or SCENE).name
    _say(explanation)
    if options.report:
        say(f"wrote {explanation.report(options.report)}")
    if options.comparison:
        explanation.grid().savefig(options.comparison)
        say(f"wrote {options.comparison}")
    if not options.report and not options.comparison:
        options.output_dir.mkdir(parents=True, exist_ok=True)
        for position, name in enumerate(names_of_files(explanation.title, explanation.panels)):
            file = options.output_dir / f"{name}.jpg"
            enlarged(explanation.overlay(position)).save(file, quality=95)
            say(f"wrote {file}")
    return 0


def _of_several(options: argparse.Namespace, model: Any, how: dict[str, Any]) -> int:
    if options.comparison:
        raise UnusableInput("several images have no figure, but a page: pass --report FILE instead of --comparison")
    if options.report:
        if options.save:
            raise UnusableInput("--save does not go with --report: run both, one after the other")
        images = images_in(options.image_path, options.output_dir)
        explained: list[str] = []
        said = _said(explain(model, options.image_path, options.methods, **how), explained)
        say(f"wrote {write_report(said, options.report)}")
        return len(images) - len(explained)
    to = {"output_dir": options.output_dir, "save": options.save or ["overlay"]}
    deque(_said(explain(model, options.image_path, options.methods, **to, **how), []), maxlen=0)
    failed = Manifest(options.output_dir, rank=0).failed().values()
    for reason in failed:
        say(f"not explained: {reason}")
    say(f"see {options.output_dir}/manifest.jsonl")
    return len(failed)


def _said(explanations: Any, explained: list[str]) -> Iterator[Explanation]:
    """The same, each said; explained: gets the titles."""
    for explanation in explanations:
        say(f"{explanation.title}: {explanation.said}")
        explained.append(explanation.title)
        yield explanation


def _say(explanation: Explanation) -> None:
    """The answer, how sure the model was of each word, and how numbers were made."""
    say(explanation.said)
    first = explanation.panels[0].method
    for panel in explanation.panels:
        if panel.method == first:
            say(f"{panel.probability:7.2%}  {panel.name}")
    for line in explanation.assumptions:
        say(line)
