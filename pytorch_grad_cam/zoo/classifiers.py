"""Image classifiers, each with the preprocessing that it was trained with."""

import difflib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.demo.network import MEAN, STD, DigitsNet, load_digits_net, preprocess_scene
from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.engine.wrappers import unwrapped

if TYPE_CHECKING:
    from PIL import Image


class UnusableInput(ValueError):
    """An input or option that cannot be used; the message says why, and what to do."""


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(dim=-1) if logits.shape[-1] > 1 else logits.sigmoid()


class Classifier(NamedTuple):
    """A model, its preprocessing from a Pillow image to the input (C, H, W), and its classes' names.

    mean, std: those of the preprocessing, to show the input as a picture; None where they are not known.
    categories: the classes' names; None: see `names`. probabilities: from logits (N, classes); by default their
    softmax, for one logit its sigmoid.
    """

    model: nn.Module
    preprocess: Callable[["Image.Image"], torch.Tensor]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    categories: Sequence[str] | None = None
    probabilities: Callable[[torch.Tensor], torch.Tensor] = _probabilities

    def names(self, count: int) -> Sequence[str]:
        """The names of `count` classes: `categories`, else those of a transformers configuration, else numbers.

        1,000 classes without names get ImageNet's. Raises ValueError for fewer categories than classes.
        """
        if self.categories is None:
            return _configured_names(self.model, count) or names_of_classes(count)
        if len(self.categories) < count:
            raise ValueError(f"categories has {len(self.categories)} names, expected one for each of {count} classes")
        return self.categories

    def picture(self, image: torch.Tensor) -> np.ndarray:
        """The picture that an input (C, H, W) of the model shows: float32 RGB (H, W, 3) in [0, 1].

        Where the mean is not known, or is that of another number of channels, the lowest value becomes 0 and the
        highest 1. An input of other than three channels is shown by its first one, in grey.
        """
        values = image.detach().movedim(0, -1).float().cpu()
        if self.mean is None or self.std is None or len(self.mean) not in (1, len(image)):
            pixels = min_max(values[None])[0].numpy()
        else:
            std, mean = (np.array(values_of_channels, dtype=np.float32) for values_of_channels in (self.std, self.mean))
            pixels = (values.numpy() * std + mean).clip(0, 1)
        return pixels if pixels.shape[2] == 3 else np.repeat(pixels[..., :1], 3, axis=2)


def load_classifier(name: str, weights: str = "default") -> Classifier:
    """The classifier of that name: 'digits', or one of torchvision or (where it is installed) timm.

    weights: 'default' (fetched by torchvision or timm), 'none' (random, seeded) or a file with a state dict.
    Raises UnusableInput for an unknown name, a model without classes, a file that does not fit, or weights that cannot
    be fetched.
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


def classifier_of(
    model: "nn.Module | Classifier | str",
    preprocess: Callable[["Image.Image"], torch.Tensor] | None = None,
    categories: Sequence[str] | None = None,
    weights: str = "default",
) -> Classifier:
    """The classifier of a model without its wrappers, or of a name and weights as in `load_classifier`.

    preprocess: None is that of the model's timm configuration; for the bundled network its own; for all others that of
    torchvision's ImageNet classifiers, the centre 224 x 224 of an image whose shorter side is 256.
    categories: the classes' names; None: see `Classifier.names`.
    """
    if isinstance(model, Classifier):
        classifier = model
    elif isinstance(model, str):
        classifier = load_classifier(model, weights)
    else:
        classifier = _classifier_around(unwrapped(model))
    if preprocess is not None:
        mean, std = _statistics(preprocess)
        classifier = classifier._replace(preprocess=preprocess, mean=mean, std=std)
    return classifier if categories is None else classifier._replace(categories=categories)


def knows_preprocessing(model: "nn.Module | Classifier | str") -> bool:
    """Whether `classifier_of` takes the model's own preprocessing, not torchvision's for want of another."""
    if not isinstance(model, nn.Module):
        return True
    inner = unwrapped(model)
    return isinstance(inner, DigitsNet) or bool(getattr(inner, "pretrained_cfg", None))


def _classifier_around(model: nn.Module) -> Classifier:
    if isinstance(model, DigitsNet):
        return _digits_classifier(model)
    if knows_preprocessing(model):
        return Classifier(model, *_timm_preprocessing(model))
    transforms = _imagenet().transforms()
    return Classifier(model, transforms, tuple(transforms.mean), tuple(transforms.std))


def _statistics(preprocess: Any) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """The mean and standard deviation by which a preset, or the last step of a composition, normalises."""
    steps = [preprocess, *getattr(preprocess, "transforms", [])]
    known = [step for step in steps if hasattr(step, "mean") and hasattr(step, "std")]
    return (tuple(known[-1].mean), tuple(known[-1].std)) if known else (None, None)


def _imagenet() -> Any:
    from torchvision.models import ResNet50_Weights

    return ResNet50_Weights.IMAGENET1K_V1


def category_called(text: str, categories: Sequence[str]) -> int:
    """The class that a text means: by its name, its number, its name in any case, or a part of it, in this order.

    Raises UnusableInput where the text means no class, or several.
    """
    part, lowered = text.lower(), [name.lower() for name in categories]
    called = [index for index, name in enumerate(categories) if name == text]
    if not called and re.fullmatch("-?[0-9]+", text):
        if not 0 <= int(text) < len(categories):
            raise UnusableInput(f"class {text}: the model's classes are 0 to {len(categories) - 1}")
        return int(text)
    called = called or [index for index, name in enumerate(lowered) if name == part]
    called = called or [index for index, name in enumerate(lowered) if part in name]
    if len(called) == 1:
        return called[0]
    close = called[:8] or [lowered.index(name) for name in difflib.get_close_matches(part, lowered, n=5)]
    named = [f"{categories[index]} ({index})" for index in close]
    hint = f"; did you mean {', '.join(named)}?" if named else ""
    raise UnusableInput(f"no single class is called {text!r}{hint}: pass a number")


def _digits(weights: str) -> Classifier:
    with _same_random_weights():
        return _digits_classifier(DigitsNet() if weights == "none" else load_digits_net())


def _digits_classifier(model: DigitsNet) -> Classifier:
    categories = [str(digit) for digit in range(10)]
    return Classifier(model, _preprocess_digits, (MEAN,) * 3, (STD,) * 3, categories, torch.sigmoid)


def _preprocess_digits(image: "Image.Image") -> torch.Tensor:
    return preprocess_scene(np.asarray(image.resize((64, 64))))[0]


def _torchvision_names() -> list[str]:
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def _from_torchvision(name: str, weights: str) -> Classifier:
    from torchvision import models

    pretrained = models.get_model_weights(name)["DEFAULT"]
    # torchvision's transformers are built for one image size: by default for 224, whatever their preprocessing gives.
    size = {"image_size": pretrained.meta["min_size"][0]} if name.startswith("vit_") else {}
    model = _fetched(name, weights, lambda fetch: models.get_model(name, weights=pretrained if fetch else None, **size))
    transforms = pretrained.transforms()
    return Classifier(model, transforms, tuple(transforms.mean), tuple(transforms.std), pretrained.meta["categories"])


def _timm_names() -> list[str]:
    try:
        import timm
    except ImportError:
        return []
    return timm.list_models()


def _from_timm(name: str, weights: str) -> Classifier:
    import timm

    classes = timm.get_pretrained_cfg_value(name, "num_classes")
    if classes == 0:
        raise UnusableInput(f"{name} has no classifier, it gives features: choose a model with classes")
    with _only_errors_of("huggingface_hub"):  # it reports each of its retries
        model = _fetched(name, weights, lambda fetch: timm.create_model(name, pretrained=fetch))
    transforms, mean, std = _timm_preprocessing(model)
    return Classifier(model, transforms, mean, std, names_of_classes(classes or 1000))


def _timm_preprocessing(model: nn.Module) -> tuple[Callable[[Any], torch.Tensor], tuple[float, ...], tuple[float, ...]]:
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    config = resolve_model_data_config(model)
    return create_transform(**config, is_training=False), tuple(config["mean"]), tuple(config["std"])


def names_of_classes(count: int) -> list[str]:
    """ImageNet's names for 1,000 classes, numbers for others."""
    imagenet = _imagenet().meta["categories"]
    return imagenet if count == len(imagenet) else [f"class {index}" for index in range(count)]


def _configured_names(model: nn.Module, count: int) -> list[str] | None:
    """The names of `count` classes in a transformers configuration; None for its placeholders."""
    labels = getattr(getattr(model, "config", None), "id2label", None)
    placeholders = {index: f"LABEL_{index}" for index in range(count)}
    if not isinstance(labels, dict) or labels == placeholders or labels.keys() != placeholders.keys():
        return None
    return [labels[index] for index in placeholders]


def _fetched(name: str, weights: str, create: Callable[[bool], nn.Module]) -> nn.Module:
    fetch = weights == "default"
    try:
        with _same_random_weights():
            return create(fetch)
    except Exception as error:
        if not fetch:
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UnusableInput(
            f"the weights of {name} could not be fetched ({reason[0][:120]}): pass --weights FILE with a state dict, "
            "--weights none for random ones, or --model digits, which comes with the package"
        ) from error


@contextmanager
def _same_random_weights() -> Iterator[None]:
    """Within, PyTorch draws from seed 0; afterwards it goes on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


@contextmanager
def _only_errors_of(logger_name: str) -> Iterator[None]:
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


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
