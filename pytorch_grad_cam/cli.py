"""The command line: `python cam.py` in a checkout, `python -m pytorch_grad_cam` anywhere."""

import argparse
import functools
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from PIL import Image

import pytorch_grad_cam
from pytorch_grad_cam.chunks import images_at_a_time
from pytorch_grad_cam.classifiers import Classifier, UnusableInput, category_called, load_classifier
from pytorch_grad_cam.demo.network import example_scene
from pytorch_grad_cam.folder.configuration import claim
from pytorch_grad_cam.folder.image_list import first_readable, images_in, means_several
from pytorch_grad_cam.folder.processes import default_workers, process_group
from pytorch_grad_cam.folder.results import KINDS
from pytorch_grad_cam.folder.run import Task, explain_images
from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel
from pytorch_grad_cam.layers import resolve_layers
from pytorch_grad_cam.locate import locate, suggest_layers
from pytorch_grad_cam.methods import available_methods
from pytorch_grad_cam.read_image import read_image
from pytorch_grad_cam.trace import module_outputs
from pytorch_grad_cam.utils.image import deprocess_image, show_cam_on_image

if TYPE_CHECKING:
    from pytorch_grad_cam.explanation import Explanation

_SMALLEST_PICTURE = 256
_TOP_CLASSES = 5
_IMAGE_HELP = (
    "the picture to explain, or several: a folder, a glob, a list of paths (.txt) "
    "(default: the bundled scene of handwritten digits)"
)
_BATCH_HELP = "images, masked inputs (scorecam) or ablated channels (ablationcam) at a time (default: 8, on CUDA 64)"
_METHODS = ("all", *sorted(available_methods()))
_METHOD_HELP = "one, or several for a comparison: %(choices)s"
_COMPARISON_HELP = (
    "a figure (.png, .pdf) of all methods, classes and layers beside each other "
    "(default for several methods: comparison.png in the output folder)"
)
_WITHOUT_INFLUENCE = ("output_dir", "device", "use_cuda", "workers", "preview_model", "methods", "comparison", "report")
_ALIGN_HELP = "draw each cell of a map where it looks (default), or as even tiles, as grad-cam does"


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain an image; returns the exit status: 0, or 2 with one line on standard error."""
    parser = _parser()
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = functools.partial(_warn, parser.prog)
        try:
            run(options)
        except (ValueError, IndexError, OSError) as error:
            sys.stderr.write(f"{parser.prog}: {error}\n")
            return 2
    return 0


def run(options: argparse.Namespace) -> None:
    """Load, explain, write the pictures, and say what was done."""
    device = _device(options)
    several_methods = len(options.methods) > 1 or "all" in options.methods
    if (several_methods or options.comparison or options.report) and not options.preview_model:
        _compare(options, device)
        return
    if options.image_path is not None and means_several(options.image_path):
        _explain_several(options, device)
        return
    if options.save or options.workers:
        raise UnusableInput("--save and --workers are for several images: a folder, a glob or a list (.txt)")
    image = Image.fromarray(example_scene()) if options.image_path is None else read_image(options.image_path)
    classifier = load_classifier(_model(options), options.weights)
    model = classifier.model.to(device)
    x = classifier.preprocess(image)[None].to(device)
    if options.preview_model:
        for rank, location in enumerate(suggest_layers(model, x), start=1):
            _say(f"{rank}. {location}")
        for name, module, shape in module_outputs(model, x):
            _say(f"{name:40} {type(module).__name__:24} {' x '.join(map(str, shape))}")
        return

    with torch.no_grad():
        probabilities = classifier.probabilities(model(x).float())[0]
    names = classifier.names(len(probabilities))
    for index in probabilities.argsort(descending=True)[:_TOP_CLASSES].tolist():
        _say(f"{probabilities[index]:7.2%}  {names[index]} ({index})")
    categories = _categories(options, classifier) or [int(probabilities.argmax())]

    with _cam(options, model, x) as cam:
        batch = x.expand(len(categories), *x.shape[1:])
        maps = cam(batch, categories, aug_smooth=options.aug_smooth, eigen_smooth=options.eigen_smooth)
    _say_registrations(cam)
    guided = GuidedBackpropReLUModel(model)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for category, cam_map in zip(categories, maps, strict=True):
        _say(f"{options.methods[0]} for {names[category]} ({category})")
        pictures = _pictures(classifier.picture(x[0]), cam_map, guided(x, category))
        suffix = f"_{category}" if len(categories) > 1 else ""
        for kind, picture in pictures.items():
            file = options.output_dir / f"{options.methods[0]}_{kind}{suffix}.jpg"
            _enlarged(picture).save(file, quality=95)
            _say(f"wrote {file}")


def _compare(options: argparse.Namespace, device: torch.device) -> None:
    """Methods, layers and classes beside each other: a figure and a page of one image, or a page of several."""
    from pytorch_grad_cam.report import write_report

    several = options.image_path is not None and means_several(options.image_path)
    if several and (options.comparison or not options.report):
        raise UnusableInput("several images have no figure, but a page, also of several methods: pass --report FILE")
    if options.save or options.workers:
        raise UnusableInput("--save and --workers do not go with --report, --comparison or several methods")
    classifier = load_classifier(_model(options), options.weights)
    classifier.model.to(device)
    if several:
        paths = [image.path for image in images_in(options.image_path, options.output_dir)]
        _say(f"wrote {write_report(_explanations(options, classifier, paths), options.report)}")
        return
    (explanation,) = _explanations(options, classifier, [options.image_path])
    for index, name, probability in explanation.top(_TOP_CLASSES):
        _say(f"{probability:7.2%}  {name} ({index})")
    if options.report:
        _say(f"wrote {explanation.report(options.report)}")
    if options.comparison or not options.report:
        file = options.comparison or options.output_dir / "comparison.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        explanation.grid().savefig(file)
        _say(f"wrote {file}")


def _explanations(
    options: argparse.Namespace, classifier: Classifier, paths: Sequence[str | None]
) -> Iterator["Explanation"]:
    """Of each image that can be read; of others why not, unless there is only one."""
    from pytorch_grad_cam.explaining import explain

    for path in paths:
        try:
            image = Image.fromarray(example_scene()) if path is None else read_image(path)
        except UnusableInput as error:
            if len(paths) == 1:
                raise
            _say(f"not read: {error}")
            continue
        explanation = explain(
            classifier,
            image,
            options.methods,
            options.target_category or None,
            options.target_layers,
            align=options.align,
            aug_smooth=options.aug_smooth,
            eigen_smooth=options.eigen_smooth,
        )
        explanation.title = Path(path or "scene.png").name
        yield explanation


def _explain_several(options: argparse.Namespace, device: torch.device) -> None:
    if options.preview_model:
        raise UnusableInput("--preview-model looks at one image")
    images = images_in(options.image_path, options.output_dir)
    options.save, options.model = options.save or ["overlay"], _model(options)
    options.batch_size = options.batch_size or images_at_a_time(device)
    with process_group() as process:
        claim(options.output_dir, _configuration(options), process)
        classifier = load_classifier(options.model, options.weights)
        model = classifier.model.to(device)
        x = classifier.preprocess(first_readable(images))[None].to(device)
        with _cam(options, model, x) as cam:
            task = Task(
                classifier,
                cam,
                method=options.methods[0],
                output_dir=options.output_dir,
                kinds=options.save,
                categories=_categories(options, classifier),
                smoothing={"aug_smooth": options.aug_smooth, "eigen_smooth": options.eigen_smooth},
            )
            unreadable = explain_images(task, images, options.batch_size, options.workers or default_workers(), process)
    _say_registrations(cam)
    for reason in unreadable:
        _say(f"not read: {reason}")
    _say(f"{len(images) - len(unreadable)} of {len(images)} images explained, see {options.output_dir}/manifest.jsonl")


def _configuration(options: argparse.Namespace) -> dict[str, Any]:
    """What the maps depend on."""
    chosen = {name: value for name, value in vars(options).items() if name not in _WITHOUT_INFLUENCE}
    return {"version": pytorch_grad_cam.__version__, "method": options.methods[0], **chosen}


def _model(options: argparse.Namespace) -> str:
    return options.model or ("resnet50" if options.image_path else "digits")


def _categories(options: argparse.Namespace, classifier: Classifier) -> list[int]:
    return [category_called(text, classifier.categories or []) for text in options.target_category]


def _cam(options: argparse.Namespace, model: torch.nn.Module, x: torch.Tensor) -> Any:
    method = available_methods()[options.methods[0]]
    layers, transform = _target_layers(options.target_layers, model, x) if method.uses_layers else ([], None)
    cam = method(model, layers, transform, align=options.align)
    if options.batch_size:
        cam.batch_size = options.batch_size
    return cam


def _say_registrations(cam: Any) -> None:
    for registration in cam.registrations.values():
        _say(f"registered, --align cell undoes it: {registration}")


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="cam.py",
        description="Show what an image classifier looks at. Without --image-path it explains the bundled scene.",
    )
    add = parser.add_argument
    add("--image-path", help=_IMAGE_HELP)
    add(
        "--method",
        dest="methods",
        nargs="+",
        default=["gradcam"],
        choices=_METHODS,
        metavar="METHOD",
        help=_METHOD_HELP,
    )
    add("--model", help="a torchvision or timm classifier, or digits (default: resnet50; without an image digits)")
    add("--weights", default="default", help="default, none (random) or a file with a state dict")
    add("--target-category", nargs="+", default=[], metavar="CLASS", help="numbers or names (default: the highest)")
    add("--target-layers", nargs="+", metavar="NAME", help="dotted names (default: found in one traced forward)")
    add("--preview-model", action="store_true", help="list the layers with their output shapes, and stop")
    add("--aug-smooth", action="store_true", help="mean over six augmented images")
    add("--eigen-smooth", action="store_true", help="first principal component of the weighted activations")
    add("--align", choices=("receptive_field", "cell"), default="receptive_field", help=_ALIGN_HELP)
    add("--device", help="cpu, cuda, cuda:0, mps (default: cpu)")
    add("--use-cuda", action="store_true", help="the same as --device cuda; under torchrun one for each process")
    add("--batch-size", type=_positive, help=_BATCH_HELP)
    add("--save", nargs="+", choices=KINDS, help="of several images: what to write (default: overlay)")
    add("--workers", type=_positive, help="of several images: how many processes decode (default: one for each core)")
    add("--comparison", type=Path, metavar="FILE", help=_COMPARISON_HELP)
    add("--report", type=Path, metavar="FILE", help="a page (.html) of all methods, classes and layers for a browser")
    add("--output-dir", type=Path, default=Path("output"), help="where the pictures go (default: output)")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _device(options: argparse.Namespace) -> torch.device:
    own_cuda = f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    name = options.device or (own_cuda if options.use_cuda else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UnusableInput(f"device {name} cannot be used here ({reason}): try --device cpu") from error
    return device


def _target_layers(names: list[str] | None, model: torch.nn.Module, x: torch.Tensor) -> tuple[list, Any]:
    if names is not None:
        return resolve_layers(model, names), None
    location = locate(model, x)
    _say(f"target layer: {location}")
    return [location.layer], location.as_map


def _pictures(picture: np.ndarray, cam_map: np.ndarray, gradients: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "cam": show_cam_on_image(picture, cam_map, use_rgb=True),
        "gb": deprocess_image(gradients),
        "cam_gb": deprocess_image(cam_map[..., None] * gradients),
    }


def _enlarged(picture: np.ndarray) -> Image.Image:
    """The picture, small ones enlarged by a whole number so that they can be looked at."""
    image = Image.fromarray(picture)
    factor = -(-_SMALLEST_PICTURE // min(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)


def _warn(program: str, message: Warning | str, *_: Any, **__: Any) -> None:
    sys.stderr.write(f"{program}: {message}\n")


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
