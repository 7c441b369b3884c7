"""Image classifiers by name, each with the preprocessing that it was trained with, for the command line."""

import difflib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.demo.network import MEAN, STD, DigitsNet, load_digits_net, preprocess_scene

if TYPE_CHECKING:
    from PIL import Image


class UnusableInput(ValueError):
    """What the user asked for cannot be had; the message says why and names the way out."""


class Classifier(NamedTuple):
    """A model in evaluation mode, what turns a Pillow image into its input (C, H, W), and its classes' names.

    mean, std: of the preprocessing, to show the input as a picture. probabilities: from logits (N, classes).
    """

    model: nn.Module
    preprocess: Callable[["Image.Image"], torch.Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    categories: list[str]
    probabilities: Callable[[torch.Tensor], torch.Tensor]

    def picture(self, image: torch.Tensor) -> np.ndarray:
        """The input (C, H, W) of the model as the picture that it shows: float32 RGB (H, W, 3) in [0, 1]."""
        std, mean = (np.array(values, dtype=np.float32) for values in (self.std, self.mean))
        return (image.movedim(0, -1).float().cpu().numpy() * std + mean).clip(0, 1)


def load_classifier(name: str, weights: str = "default") -> Classifier:
    """The classifier of that name: 'digits', or one of torchvision or (where it is installed) timm.

    weights: 'default' (fetched by torchvision or timm), 'none' (random, seeded) or a file with a state dict.
    Raises UnusableInput for an unknown name, a file that does not fit, or weights that cannot be fetched.
    """
    if name == "digits":
        classifier = _digits(weights)
    elif name in _torchvision_names():
        classifier = _from_torchvision(name, weights)
    elif name.partition(".")[0] in _timm_names():
        classifier = _from_timm(name, weights)
    else:
        known = {"digits", *_torchvision_names(), *_timm_names()}
        close = difflib.get_close_matches(name, known, n=5)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        without_timm = "" if _timm_names() else " (`pip install timm` adds its models)"
        raise UnusableInput(f"no model is called {name!r}{hint}{without_timm}")
    if weights not in ("default", "none"):
        _load_state(classifier.model, weights)
    classifier.model.eval()
    return classifier


def _digits(weights: str) -> Classifier:
    categories = [str(digit) for digit in range(10)]
    torch.manual_seed(0)
    model = DigitsNet() if weights == "none" else load_digits_net()
    return Classifier(model, _preprocess_digits, (MEAN,) * 3, (STD,) * 3, categories, torch.sigmoid)


def _preprocess_digits(image: "Image.Image") -> torch.Tensor:
    return preprocess_scene(np.asarray(image.resize((64, 64))))[0]


def _torchvision_names() -> list[str]:
    from torchvision import models

    return models.list_models(module=models)


def _from_torchvision(name: str, weights: str) -> Classifier:
    from torchvision import models

    pretrained = models.get_model_weights(name)["DEFAULT"]
    model = _fetched(name, weights, lambda fetch: models.get_model(name, weights=pretrained if fetch else None))
    transforms = pretrained.transforms()
    return Classifier(
        model, transforms, tuple(transforms.mean), tuple(transforms.std), pretrained.meta["categories"], _softmax
    )


def _timm_names() -> list[str]:
    try:
        import timm
    except ImportError:
        return []
    return timm.list_models()


def _from_timm(name: str, weights: str) -> Classifier:
    import timm
    from torchvision.models import ResNet50_Weights

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports each of its retries
    model = _fetched(name, weights, lambda fetch: timm.create_model(name, pretrained=fetch))
    config = timm.data.resolve_model_data_config(model)
    transforms = timm.data.create_transform(**config, is_training=False)
    imagenet = ResNet50_Weights.DEFAULT.meta["categories"]
    classes = timm.get_pretrained_cfg_value(name, "num_classes") or len(imagenet)
    categories = imagenet if classes == len(imagenet) else [f"class {index}" for index in range(classes)]
    return Classifier(model, transforms, config["mean"], config["std"], categories, _softmax)


def _fetched(name: str, weights: str, create: Callable[[bool], nn.Module]) -> nn.Module:
    fetch = weights == "default"
    torch.manual_seed(0)
    try:
        return create(fetch)
    except Exception as error:
        if not fetch:
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UnusableInput(
            f"the weights of {name} could not be fetched ({reason[0][:120]}): pass --weights FILE with a state dict, "
            "--weights none for random ones, or --model digits, which comes with the package"
        ) from error


def _load_state(model: nn.Module, file: str) -> None:
    if not Path(file).is_file():
        raise UnusableInput(f"there is no weights file {file}: pass --weights default, none, or a file that exists")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model"):
            if isinstance(state, dict) and isinstance(state.get(key), dict):
                state = state[key]
        model.load_state_dict(state)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UnusableInput(f"{file} is no state dict of {type(model).__name__} ({reason})") from error


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(dim=-1)
