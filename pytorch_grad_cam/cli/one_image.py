"""One method's maps of one image, and the list of layers to choose from."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from pytorch_grad_cam.cli.options import classifier_of, joined_layers, request_of, truth_of
from pytorch_grad_cam.cli.saying import say, say_classes, say_how
from pytorch_grad_cam.demo.network import example_scene
from pytorch_grad_cam.engine.inputs import on_device_of
from pytorch_grad_cam.engine.trace import module_outputs
from pytorch_grad_cam.explanations.explainer import Explainer
from pytorch_grad_cam.explanations.methods import name_of_method
from pytorch_grad_cam.explanations.results import names_of_files
from pytorch_grad_cam.explanations.truth import tell
from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel
from pytorch_grad_cam.locate.search import suggest_layers
from pytorch_grad_cam.utils.image import deprocess_image
from pytorch_grad_cam.zoo.classifiers import Classifier, UnusableInput
from pytorch_grad_cam.zoo.preprocessing import inputs_of
from pytorch_grad_cam.zoo.read_image import read_image

SCENE = "scene.png"
_SMALLEST_PICTURE = 256  # the shorter side, in pixels


def run(options: argparse.Namespace) -> None:
    """Write the pictures of each class, or list the layers."""
    if options.save or options.workers:
        raise UnusableInput("--save and --workers are for several images: a folder, a glob or a list (.txt)")
    image = image_at(options.image_path)
    classifier = classifier_of(options)
    if options.preview_model:
        _preview(classifier, image)
        return
    with Explainer(classifier, request_of(options, joined_layers(options))) as explainer:
        inputs = inputs_of(classifier.preprocess(image))
        (found,) = explainer(inputs, 1, [image.size])
        explanation = explainer.explanation(found, inputs[0], image.size, Path(options.image_path or SCENE).name)
    tell(explanation, truth_of(options))
    say_classes(explanation)
    say_how(explainer.cams, explanation.assumptions)
    guided = GuidedBackpropReLUModel(classifier.model)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    names = names_of_files(explanation.title, explanation.panels)
    for position, (panel, name) in enumerate(zip(explanation.panels, names, strict=True)):
        say(f"{name_of_method(type(explainer.cams[0]))} for {panel.name} ({panel.category})")
        pictures = {"": explanation.overlay(position)}
        if not panel.boxes and panel.region is None:
            pictures |= _guided(panel.map, guided(inputs, explainer.target(panel.category or 0)))
        for suffix, picture in pictures.items():
            file = options.output_dir / f"{name}{suffix}.jpg"
            enlarged(picture).save(file, quality=95)
            say(f"wrote {file}")


def image_at(path: str | None) -> Image.Image:
    """The picture at a path, for None the bundled scene. Raises UnusableInput for what cannot be read."""
    return Image.fromarray(example_scene()) if path is None else read_image(path)


def _preview(classifier: Classifier, image: Image.Image) -> None:
    x = on_device_of(classifier.model, inputs_of(classifier.preprocess(image)))
    for rank, location in enumerate(suggest_layers(classifier.model, x), start=1):
        say(f"{rank}. {location}")
    for name, module, shape in module_outputs(classifier.model, x):
        say(f"{name:40} {type(module).__name__:24} {' x '.join(map(str, shape))}")


def _guided(cam_map: np.ndarray, gradients: np.ndarray) -> dict[str, np.ndarray]:
    return {".gb": deprocess_image(gradients), ".cam_gb": deprocess_image(cam_map[..., None] * gradients)}


def enlarged(picture: np.ndarray) -> Image.Image:
    """The picture; a small one is enlarged by a whole number so that it can be looked at."""
    image = Image.fromarray(picture)
    factor = -(-_SMALLEST_PICTURE // min(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
