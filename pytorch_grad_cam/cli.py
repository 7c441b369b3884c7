"""The command line: `python cam.py` in a checkout, `python -m pytorch_grad_cam` anywhere."""

import argparse
import functools
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image

from pytorch_grad_cam.classifiers import UnusableInput, category_called, load_classifier
from pytorch_grad_cam.demo.network import example_scene
from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel
from pytorch_grad_cam.layers import resolve_layers
from pytorch_grad_cam.locate import locate, suggest_layers
from pytorch_grad_cam.methods import available_methods
from pytorch_grad_cam.read_image import read_image
from pytorch_grad_cam.trace import module_outputs
from pytorch_grad_cam.utils.image import deprocess_image, show_cam_on_image

_SMALLEST_PICTURE = 256
_TOP_CLASSES = 5
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
    image = read_image(options.image_path) if options.image_path else Image.fromarray(example_scene())
    classifier = load_classifier(options.model or ("resnet50" if options.image_path else "digits"), options.weights)
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
    categories = [category_called(text, names) for text in options.target_category]
    categories = categories or [int(probabilities.argmax())]

    method = available_methods()[options.method]
    layers, transform = _target_layers(options.target_layers, model, x) if method.uses_layers else ([], None)
    with method(model, layers, transform, align=options.align) as cam:
        if options.batch_size:
            cam.batch_size = options.batch_size
        batch = x.expand(len(categories), *x.shape[1:])
        maps = cam(batch, categories, aug_smooth=options.aug_smooth, eigen_smooth=options.eigen_smooth)
    for registration in cam.registrations.values():
        _say(f"registered, --align cell undoes it: {registration}")
    guided = GuidedBackpropReLUModel(model)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for category, cam_map in zip(categories, maps, strict=True):
        _say(f"{options.method} for {names[category]} ({category})")
        pictures = _pictures(classifier.picture(x[0]), cam_map, guided(x, category))
        suffix = f"_{category}" if len(categories) > 1 else ""
        for kind, picture in pictures.items():
            file = options.output_dir / f"{options.method}_{kind}{suffix}.jpg"
            _enlarged(picture).save(file, quality=95)
            _say(f"wrote {file}")


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="cam.py",
        description="Show what an image classifier looks at. Without --image-path it explains the bundled scene.",
    )
    add = parser.add_argument
    add("--image-path", help="the picture to explain (default: the bundled scene of handwritten digits)")
    add("--method", default="gradcam", choices=sorted(available_methods()), metavar="METHOD", help="%(choices)s")
    add("--model", help="a torchvision or timm classifier, or digits (default: resnet50; without an image digits)")
    add("--weights", default="default", help="default, none (random) or a file with a state dict")
    add("--target-category", nargs="+", default=[], metavar="CLASS", help="numbers or names (default: the highest)")
    add("--target-layers", nargs="+", metavar="NAME", help="dotted names (default: found in one traced forward)")
    add("--preview-model", action="store_true", help="list the layers with their output shapes, and stop")
    add("--aug-smooth", action="store_true", help="mean over six augmented images")
    add("--eigen-smooth", action="store_true", help="first principal component of the weighted activations")
    add("--align", choices=("receptive_field", "cell"), default="receptive_field", help=_ALIGN_HELP)
    add("--device", help="cpu, cuda, cuda:0, mps (default: cpu)")
    add("--use-cuda", action="store_true", help="the same as --device cuda")
    add("--batch-size", type=_positive, help="masked inputs or ablated channels at a time (scorecam, ablationcam)")
    add("--output-dir", type=Path, default=Path("output"), help="where the pictures go (default: output)")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _device(options: argparse.Namespace) -> torch.device:
    name = options.device or ("cuda" if options.use_cuda else "cpu")
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
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
