"""One method's maps of one image, and the list of layers to choose from."""

import argparse

import numpy as np
import torch
from PIL import Image

from pytorch_grad_cam.cli.options import categories_of, classifier_of, method_of, smoothing_of
from pytorch_grad_cam.cli.saying import say, say_registrations
from pytorch_grad_cam.demo.network import example_scene
from pytorch_grad_cam.engine.inputs import call, on_device_of
from pytorch_grad_cam.engine.trace import module_outputs
from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel
from pytorch_grad_cam.locate.search import suggest_layers
from pytorch_grad_cam.utils.image import deprocess_image, show_cam_on_image
from pytorch_grad_cam.zoo.classifiers import Classifier, UnusableInput
from pytorch_grad_cam.zoo.read_image import read_image

TOP_CLASSES = 5
_SMALLEST_PICTURE = 256  # the shorter side, in pixels


def run(options: argparse.Namespace) -> None:
    """Write the pictures of each class, or list the layers."""
    if options.save or options.workers:
        raise UnusableInput("--save and --workers are for several images: a folder, a glob or a list (.txt)")
    image = image_at(options.image_path)
    classifier = classifier_of(options)
    model = classifier.model
    x = on_device_of(model, classifier.preprocess(image)[None])
    if options.preview_model:
        for rank, location in enumerate(suggest_layers(model, x), start=1):
            say(f"{rank}. {location}")
        for name, module, shape in module_outputs(model, x):
            say(f"{name:40} {type(module).__name__:24} {' x '.join(map(str, shape))}")
        return
    _explain(options, classifier, x)


def image_at(path: str | None) -> Image.Image:
    """The picture at a path, for None the bundled scene. Raises UnusableInput for what cannot be read."""
    return Image.fromarray(example_scene()) if path is None else read_image(path)


def _explain(options: argparse.Namespace, classifier: Classifier, x: torch.Tensor) -> None:
    model = classifier.model
    with torch.no_grad():
        scores = call(model, x).float()
    probabilities = classifier.probabilities(scores)[0]
    names = classifier.names(len(probabilities))
    highest = scores[0].argsort(descending=True, stable=True).tolist()
    for index in highest[:TOP_CLASSES]:
        say(f"{probabilities[index]:7.2%}  {names[index]} ({index})")
    categories = categories_of(options, classifier) or highest[:1]
    with method_of(options, model, x) as cam:
        maps = cam(x, [categories], **smoothing_of(options))[0]
    say_registrations(cam)
    guided = GuidedBackpropReLUModel(model)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for category, cam_map in zip(categories, maps, strict=True):
        say(f"{options.methods[0]} for {names[category]} ({category})")
        pictures = _pictures(classifier.picture(x[0]), cam_map, guided(x, category))
        suffix = f"_{category}" if len(categories) > 1 else ""
        for kind, picture in pictures.items():
            file = options.output_dir / f"{options.methods[0]}_{kind}{suffix}.jpg"
            _enlarged(picture).save(file, quality=95)
            say(f"wrote {file}")


def _pictures(picture: np.ndarray, cam_map: np.ndarray, gradients: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "cam": show_cam_on_image(picture, cam_map, use_rgb=True),
        "gb": deprocess_image(gradients),
        "cam_gb": deprocess_image(cam_map[..., None] * gradients),
    }


def _enlarged(picture: np.ndarray) -> Image.Image:
    """The picture; a small one is enlarged by a whole number so that it can be looked at."""
    image = Image.fromarray(picture)
    factor = -(-_SMALLEST_PICTURE // min(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
