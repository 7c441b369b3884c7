"""Maps of a folder, a glob or a list: files and a manifest, by one process or several, or a page."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytorch_grad_cam
from pytorch_grad_cam.cli.options import classifier_of, device_of, joined_layers, model_name, request_of, truth_of
from pytorch_grad_cam.cli.saying import say, say_how
from pytorch_grad_cam.engine.chunks import images_at_a_time
from pytorch_grad_cam.explanations.explainer import Explainer
from pytorch_grad_cam.explanations.explanation import Explanation
from pytorch_grad_cam.explanations.report import write_report
from pytorch_grad_cam.explanations.run import Run
from pytorch_grad_cam.explanations.sources import Several
from pytorch_grad_cam.explanations.stream import explanations
from pytorch_grad_cam.explanations.truth import tell
from pytorch_grad_cam.folder.configuration import claim
from pytorch_grad_cam.folder.image_list import ListedImage, images_in, means_several
from pytorch_grad_cam.folder.processes import default_workers, process_group
from pytorch_grad_cam.zoo.classifiers import UnusableInput

if TYPE_CHECKING:
    from pytorch_grad_cam.explanations.typed import Truth

_WITHOUT_INFLUENCE = ("output_dir", "device", "use_cuda", "workers", "preview_model", "comparison", "report", "strict")


def are_asked_for(options: argparse.Namespace) -> bool:
    """Whether the path means several images: a folder, a list or a glob."""
    return options.image_path is not None and means_several(options.image_path)


def run(options: argparse.Namespace) -> int:
    """Write what is asked for of each image; say which images could not be explained, and return how many."""
    if options.preview_model:
        raise UnusableInput("--preview-model looks at one image")
    if options.comparison:
        raise UnusableInput("several images have no figure, but a page: pass --report FILE instead of --comparison")
    return _page(options) if options.report else _files(options)


def _page(options: argparse.Namespace) -> int:
    if options.save:
        raise UnusableInput("--save does not go with --report: run both, one after the other")
    classifier = classifier_of(options)
    images = images_in(options.image_path, options.output_dir)
    truth, paths = truth_of(options, images), [image.path for image in images]
    failed: list[str] = []
    with Explainer(classifier, request_of(options, options.target_layers)) as explainer:
        several = Several(False, paths, are_listed=True)
        found = explanations(explainer, several, options.batch_size, options.workers)
        told = _told(zip(images, found, strict=True), truth)
        say(f"wrote {write_report(_explained(told, failed, options.strict), options.report)}")
    say_how(explainer.cams, explainer.assumptions)
    say(f"{len(paths) - len(failed)} of {len(paths)} images explained")
    return len(failed)


def _told(
    found: Iterable[tuple[ListedImage, Explanation | UnusableInput]], truth: Truth | None
) -> Iterator[Explanation | UnusableInput]:
    for image, explanation in found:
        if isinstance(explanation, Explanation):
            tell(explanation, truth, name=image.name)
        yield explanation


def _explained(
    found: Iterable[Explanation | UnusableInput], failed: list[str], is_strict: bool
) -> Iterator[Explanation]:
    for explanation in found:
        if isinstance(explanation, Explanation):
            yield explanation
            continue
        if is_strict:
            raise explanation
        say(f"not explained: {explanation}")
        failed.append(str(explanation))


def _files(options: argparse.Namespace) -> int:
    device = device_of(options)
    images = images_in(options.image_path, options.output_dir)
    truth = truth_of(options, images)
    options.save, options.model = options.save or ["overlay"], model_name(options)
    options.batch_size = options.batch_size or images_at_a_time(device)
    with process_group() as process:
        claim(options.output_dir, _configuration(options), process)
        with Explainer(classifier_of(options), request_of(options, joined_layers(options))) as explainer:
            how = options.batch_size, options.workers or default_workers(), process, options.strict
            run = Run(explainer, images, options.output_dir, options.save, *how, truth)
            deque(run.explanations(), maxlen=0)
    say_how(explainer.cams, explainer.assumptions)
    failed = run.failed()
    for reason in failed:
        say(f"not explained: {reason}")
    say(f"{len(images) - len(failed)} of {len(images)} images explained, see {options.output_dir}/manifest.jsonl")
    return len(failed)


def _configuration(options: argparse.Namespace) -> dict[str, Any]:
    """The options that the maps depend on."""
    chosen = {name: value for name, value in vars(options).items() if name not in _WITHOUT_INFLUENCE}
    return {"version": pytorch_grad_cam.__version__, **chosen}
