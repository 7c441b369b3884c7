"""The options of the command line and what they mean for a model and a method."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from pytorch_grad_cam.explanations.explainer import Request
from pytorch_grad_cam.explanations.methods import available_methods, method_called, name_of_method, requested
from pytorch_grad_cam.explanations.results import KINDS
from pytorch_grad_cam.explanations.truth import FOLDERS, classes_of_folders, read_truth
from pytorch_grad_cam.folder.image_list import ListedImage
from pytorch_grad_cam.zoo.class_names import read_categories
from pytorch_grad_cam.zoo.class_scores import GIVEN
from pytorch_grad_cam.zoo.classifiers import Classifier, UnusableInput, load_classifier
from pytorch_grad_cam.zoo.classifiers import classifier_of as of_model
from pytorch_grad_cam.zoo.own_code import own_code
from pytorch_grad_cam.zoo.preprocessing import warning_of

if TYPE_CHECKING:
    from pytorch_grad_cam.explanations.typed import Truth

_IMAGE_HELP = (
    "the picture to explain, or several: a folder, a glob, a list of paths (.txt) "
    "(default: the bundled scene of handwritten digits)"
)
_BATCH_HELP = (
    "with one method: images, masked inputs (scorecam), ablated channels (ablationcam) or windows (sess) at a time "
    "(default: 8, on CUDA 64; of one image ablationcam and sess 32)"
)
_METHOD_HELP = (
    "one (default: gradcam, of a detector layercam), or several for a comparison: "
    f"all, {', '.join(sorted(available_methods()))}; with --prompt tam, the default there"
)
_PROMPT_HELP = (
    "what a vision-language model is asked about the picture: each word of its answer gets a map. --model is a folder "
    "of transformers, your own (which may return a model and its processor) or digits, the bundled reader (the "
    "default), --preprocess another processor"
)
OF_WORDS = "tam"
_MODEL_HELP = (
    "a torchvision or timm classifier, digits, a folder of transformers or organisation/name, or your own, "
    "file.py:factory or package.module:Class (default: resnet50; without an image digits)"
)
_WEIGHTS_HELP = "default, none (random) or a file with a state dict (.pt, .safetensors)"
_PREPROCESS_HELP = (
    "from a Pillow image to the input, file.py:function or package.module:function (default: the model's)"
)
_TRUTH_HELP = (
    "the right class, which manifest and page tell beside the model's: of several images a file (CSV, JSON) with the "
    "class of each, or 'folders', where images lie in folders called like their classes; of one image also its class"
)
_POINT_HELP = "of a segmenter: the region at these pixels of the picture, row and column from the upper left corner"
_STRICT_HELP = "stop at the first image that cannot be explained, and where a preprocessing would be assumed"
_COMPARISON_HELP = (
    "a figure (.png, .pdf) of all methods, classes and layers beside each other "
    "(default for several methods: comparison.png in the output folder)"
)
_ALIGN_HELP = "draw each cell where it looks, if that is certain (default), or as even tiles, as grad-cam does"


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; for unknown arguments it writes one line and exits with 2."""
    options = _OneLineParser(
        prog="grad-cam" if Path(sys.argv[0]).stem == "grad-cam" else "cam.py",
        description="Show what an image classifier looks at. Without --image-path it explains the bundled scene.",
    )
    add = options.add_argument
    add("--image-path", help=_IMAGE_HELP)
    add("--method", dest="methods", nargs="+", type=_method, metavar="METHOD", help=_METHOD_HELP)
    add("--prompt", metavar="TEXT", help=_PROMPT_HELP)
    add("--max-new-tokens", type=_positive, default=64, metavar="N", help="of an answer to --prompt (default: 64)")
    add("--model", help=_MODEL_HELP)
    add("--model-args", type=_json_object, default={}, metavar="JSON", help="arguments of your own model, an object")
    add("--weights", default="default", help=_WEIGHTS_HELP)
    add("--preprocess", metavar="FUNCTION", help=_PREPROCESS_HELP)
    add("--categories", metavar="FILE", help="the classes' names: one a line, or JSON (default: the model's)")
    add("--probabilities", choices=GIVEN, help="what the outputs become, or 'none' (default: found, and said)")
    add("--target-category", nargs="+", default=[], metavar="CLASS", help="numbers or names (default: the highest)")
    add("--boxes", type=_positive, metavar="N", help="of a detector: maps of its first N detections (default: 1)")
    add("--point", dest="points", nargs="+", type=_point, default=[], metavar="Y,X", help=_POINT_HELP)
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
    add("--strict", action="store_true", help=_STRICT_HELP)
    add("--output-dir", type=Path, default=Path("output"), help="where the pictures go (default: output)")
    return options


def add_truth(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which class is right; of an evaluation it says where objects are."""
    parser.add_argument("--truth", metavar="TRUTH", help=_TRUTH_HELP)


def truth_of(options: argparse.Namespace, images: Sequence[ListedImage] | None = None) -> Truth | None:
    """The right classes as `truth.tell` takes them. images: of several the list, None of one."""
    said: str | None = options.truth
    if said == FOLDERS and images is not None:
        return classes_of_folders(images)
    if said is None or (images is None and not Path(said).is_file()):
        return said
    return read_truth(said)


def classifier_of(options: argparse.Namespace) -> Classifier:
    """The classifier with its weights, on the device, and what was guessed of it said.

    Raises UnusableInput where it cannot be had, and with --strict where its preprocessing would be assumed.
    """
    device = device_of(options)
    classifier = of_model(
        load_classifier(model_name(options), options.weights, options.model_args),
        None if options.preprocess is None else own_code(options.preprocess),
        None if options.categories is None else read_categories(options.categories),
        probabilities=options.probabilities,
    )
    if options.strict and classifier.preprocessing.is_assumed:
        raise UnusableInput(f"{warning_of(classifier.preprocessing)} (--preprocess); --strict refuses to assume it")
    classifier.model.to(device)
    return classifier


def request_of(options: argparse.Namespace, layers: Any) -> Request:
    """What the options ask of each image. layers: see `Request`."""
    smoothing = {"aug_smooth": options.aug_smooth, "eigen_smooth": options.eigen_smooth}
    how = {"align": options.align}
    targets = [*options.target_category, *options.points] or None
    return Request(requested(options.methods), targets, layers, options.boxes or 1, smoothing, how, options.batch_size)


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


def joined_layers(options: argparse.Namespace) -> Any:
    """The named layers as those of one map, see `Request`; None where they are to be found."""
    return None if options.target_layers is None else [options.target_layers]


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _point(text: str) -> list[int]:
    y, _, x = text.partition(",")
    if not y.isdigit() or not x.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no point, such as 120,80 for row 120 and column 80")
    return [int(y), int(x)]


def _method(text: str) -> str:
    """A method's name in the form of `available_methods`."""
    try:
        return text if text in ("all", OF_WORDS) or text in available_methods() else name_of_method(method_called(text))
    except UnusableInput as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object, such as {{"num_classes": 5}}')
    return found
