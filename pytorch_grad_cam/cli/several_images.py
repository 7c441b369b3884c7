"""One method's maps of a folder, a glob or a list, by one process or several."""

import argparse
from typing import Any

import pytorch_grad_cam
from pytorch_grad_cam.cli.options import (
    categories_of,
    classifier_of,
    device_of,
    method_of,
    model_name,
    smoothing_of,
)
from pytorch_grad_cam.cli.saying import say, say_registrations
from pytorch_grad_cam.engine.chunks import images_at_a_time
from pytorch_grad_cam.folder.configuration import claim
from pytorch_grad_cam.folder.image_list import first_readable, images_in
from pytorch_grad_cam.folder.processes import default_workers, process_group
from pytorch_grad_cam.folder.run import Task, explain_images
from pytorch_grad_cam.zoo.classifiers import UnusableInput

_WITHOUT_INFLUENCE = ("output_dir", "device", "use_cuda", "workers", "preview_model", "methods", "comparison", "report")


def run(options: argparse.Namespace) -> None:
    """Write what `--save` names for each image, and the manifest; say which images could not be explained."""
    if options.preview_model:
        raise UnusableInput("--preview-model looks at one image")
    device = device_of(options)
    images = images_in(options.image_path, options.output_dir)
    options.save, options.model = options.save or ["overlay"], model_name(options)
    options.batch_size = options.batch_size or images_at_a_time(device)
    with process_group() as process:
        claim(options.output_dir, _configuration(options), process)
        classifier = classifier_of(options)
        x = classifier.preprocess(first_readable(images))[None].to(device)
        with method_of(options, classifier.model, x) as cam:
            task = Task(
                classifier,
                cam,
                method=options.methods[0],
                output_dir=options.output_dir,
                kinds=options.save,
                categories=categories_of(options, classifier),
                smoothing=smoothing_of(options),
            )
            failed = explain_images(task, images, options.batch_size, options.workers or default_workers(), process)
    say_registrations(cam)
    for reason in failed:
        say(f"not explained: {reason}")
    say(f"{len(images) - len(failed)} of {len(images)} images explained, see {options.output_dir}/manifest.jsonl")


def _configuration(options: argparse.Namespace) -> dict[str, Any]:
    """The options that the maps depend on."""
    chosen = {name: value for name, value in vars(options).items() if name not in _WITHOUT_INFLUENCE}
    return {"version": pytorch_grad_cam.__version__, "method": options.methods[0], **chosen}
