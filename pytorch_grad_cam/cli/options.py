"""The options of the command line and what they mean for a model and a method."""

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn

import torch

from pytorch_grad_cam.cli.saying import say
from pytorch_grad_cam.engine.layers import resolve_layers
from pytorch_grad_cam.explanations.methods import available_methods
from pytorch_grad_cam.folder.image_list import means_several
from pytorch_grad_cam.folder.results import KINDS
from pytorch_grad_cam.locate.search import locate
from pytorch_grad_cam.zoo.classifiers import Classifier, UnusableInput, category_called, load_classifier

_IMAGE_HELP = (
    "the picture to explain, or several: a folder, a glob, a list of paths (.txt) "
    "(default: the bundled scene of handwritten digits)"
)
_BATCH_HELP = (
    "with one method: images, masked inputs (scorecam), ablated channels (ablationcam) or windows (sess) at a time "
    "(default: 8, on CUDA 64; of one image ablationcam and sess 32)"
)
_METHODS = ("all", *sorted(available_methods()))
_METHOD_HELP = "one, or several for a comparison: %(choices)s"
_COMPARISON_HELP = (
    "a figure (.png, .pdf) of all methods, classes and layers beside each other "
    "(default for several methods: comparison.png in the output folder)"
)
_ALIGN_HELP = "draw each cell of a map where it looks (default), or as even tiles, as grad-cam does"


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; for unknown arguments it writes one line and exits with 2."""
    options = _OneLineParser(
        prog="cam.py",
        description="Show what an image classifier looks at. Without --image-path it explains the bundled scene.",
    )
    add = options.add_argument
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
    return options


def classifier_of(options: argparse.Namespace) -> Classifier:
    """The classifier with its weights, on the device. Raises UnusableInput where it cannot be had."""
    device = device_of(options)
    classifier = load_classifier(model_name(options), options.weights)
    classifier.model.to(device)
    return classifier


def model_name(options: argparse.Namespace) -> str:
    """The model's name; the default for the bundled scene is the bundled network."""
    return options.model or ("resnet50" if options.image_path else "digits")


def device_of(options: argparse.Namespace) -> torch.device:
    """The device; under torchrun each process gets another GPU. Raises UnusableInput for a device that is not here."""
    gpu = f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    name = options.device or (gpu if options.use_cuda else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UnusableInput(f"device {name} cannot be used here ({reason}): try --device cpu") from error
    return device


def asks_for_several(options: argparse.Namespace) -> bool:
    """Whether the path means several images: a folder, a list or a glob."""
    return options.image_path is not None and means_several(options.image_path)


def categories_of(options: argparse.Namespace, classifier: Classifier) -> list[int]:
    """The numbers of the classes to explain."""
    return [category_called(text, classifier.categories or []) for text in options.target_category]


def method_of(options: argparse.Namespace, model: torch.nn.Module, x: torch.Tensor) -> Any:
    """The CAM of the model; where no layers are named, at the one that is found for inputs like x."""
    method = available_methods()[options.methods[0]]
    layers, transform = _target_layers(options.target_layers, model, x) if method.uses_layers else ([], None)
    cam = method(model, layers, transform, align=options.align)
    if options.batch_size:
        cam.batch_size = options.batch_size
    return cam


def smoothing_of(options: argparse.Namespace) -> dict[str, Any]:
    """The smoothing options of a method's call."""
    return {"aug_smooth": options.aug_smooth, "eigen_smooth": options.eigen_smooth}


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _target_layers(
    names: list[str] | None, model: torch.nn.Module, x: torch.Tensor
) -> tuple[list[torch.nn.Module], Any]:
    if names is not None:
        return resolve_layers(model, names), None
    location = locate(model, x)
    say(f"target layer: {location}")
    return [location.layer], location.as_map
