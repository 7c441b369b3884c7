"""Image classifiers, each with the preprocessing that it was trained with."""

import difflib
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.demo.network import DigitsNet, load_digits_net
from pytorch_grad_cam.engine.maps import min_max
from pytorch_grad_cam.engine.wrappers import unwrapped
from pytorch_grad_cam.zoo.checkpoints import State, classes_in, load_state, read_state
from pytorch_grad_cam.zoo.class_scores import Probabilities
from pytorch_grad_cam.zoo.own_code import is_own_code, own_code
from pytorch_grad_cam.zoo.preprocessing import Preprocessing, given_preprocessing, own_preprocessing
from pytorch_grad_cam.zoo.unusable_input import UnusableInput as UnusableInput

if TYPE_CHECKING:
    from PIL import Image


class Classifier(NamedTuple):
    """A model, its preprocessing from a Pillow image to the input, and its classes' names.

    categories: the classes' names; None: see `class_names.names_of`. probabilities: see `class_scores.class_scores_of`.
    notes: what was guessed or undone when it was loaded, for `Explanation.assumptions`. name: by which it was loaded.
    """

    model: nn.Module
    preprocessing: Preprocessing
    categories: Sequence[str] | None = None
    probabilities: Probabilities = None
    notes: Sequence[str] = ()
    name: str = ""

    @property
    def preprocess(self) -> Callable[["Image.Image"], Any]:
        """From a Pillow image to the input, see `preprocessing.inputs_of` for what it returns."""
        return self.preprocessing.function

    def picture(self, image: torch.Tensor) -> np.ndarray:
        """The picture that an input (C, *spatial) of the model shows: float32 RGB (*spatial, 3) in [0, 1].

        Where the mean is not known, or is that of another number of channels, the lowest value becomes 0 and the
        highest 1. An input of other than three channels is shown by its first one, in grey.
        """
        values = image.detach().movedim(0, -1).float().cpu()
        _, mean, std, *_ = self.preprocessing
        if mean is None or std is None or len(mean) not in (1, len(image)):
            pixels = min_max(values[None])[0].numpy()
        else:
            deviation, centre = (np.array(of_channels, dtype=np.float32) for of_channels in (std, mean))
            pixels = (values.numpy() * deviation + centre).clip(0, 1)
        return pixels if pixels.shape[-1] == 3 else np.repeat(pixels[..., :1], 3, axis=-1)


def load_classifier(name: str, weights: str = "default", model_args: Mapping[str, Any] | None = None) -> Classifier:
    """The classifier of that name.

    name: 'digits'; a model of torchvision or (where they are installed) of timm; one that transformers knows, a folder
    that it was saved to or 'organisation/name' of the hub, with its processor; or a class or function of your own that
    returns a model, `file.py:name` or `package.module:name`, which is called with `model_args`.
    weights: 'default' (fetched by the library; of your own code those that it made), 'none' (random, seeded) or a file
    with a state dict, see `checkpoints`. Of a torchvision or timm model as many classes are made as the file has.
    Raises UnusableInput for an unknown name, a model without classes, a file that does not fit, or weights that cannot
    be fetched.
    """
    if model_args and not is_own_code(name):
        raise UnusableInput(
            f"--model-args are for a model of your own, file.py:name or package.module:name, not {name}"
        )
    state, undone = (None, []) if weights in ("default", "none") else read_state(weights)
    how = "none" if state is not None else weights
    if is_own_code(name):
        classifier = _of_own_code(name, model_args or {})
    elif name == "digits":
        classifier = _digits(how)
    elif name in _torchvision_names():
        classifier = _with_classes(partial(_from_torchvision, name, how), state, undone)
    elif name.partition(".")[0] in _timm_names():
        classifier = _with_classes(partial(_from_timm, name, how), state, undone)
    elif "/" in name or (Path(name) / "config.json").is_file():
        classifier = _from_transformers(name, how)
    else:
        known = {"digits", *_torchvision_names(), *_timm_names()}
        close = difflib.get_close_matches(name, known, n=5)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        without_timm = "" if _timm_names() else " (`pip install timm` adds its models)"
        raise UnusableInput(f"no model is called {name!r}{hint}{without_timm}")
    if state is not None:
        undone += load_state(classifier.model, weights, state)
        notes = [f"weights: {', '.join([weights, *undone])}"]
        classifier = classifier._replace(notes=[*classifier.notes, *notes])
    classifier.model.eval()
    return classifier._replace(name=name)


def _with_classes(create: Callable[..., Classifier], state: State | None, undone: list[str]) -> Classifier:
    """A classifier with as many classes as a state dict; with fewer or more than ImageNet its names are not known."""
    classifier = create()
    count = None if state is None else classes_in(state, classifier.model)
    if count is None:
        return classifier
    undone.append(f"with {count} classes by its last layer")
    return create(num_classes=count)._replace(categories=None)


def made_by_own_code(name: str, arguments: Mapping[str, Any]) -> Any:
    """A module of a user's own code, or what a class or function there returns for the arguments.

    Raises UnusableInput where there is no such name, or the arguments are none of its.
    """
    found = own_code(name)
    if isinstance(found, nn.Module):
        return found
    with _same_random_weights():
        return _called(name, found, arguments)


def _of_own_code(name: str, arguments: Mapping[str, Any]) -> Classifier:
    model = made_by_own_code(name, arguments)
    if isinstance(model, Classifier):
        return model
    if not isinstance(model, nn.Module):
        raise UnusableInput(f"{name} is or returns {type(model).__name__}, expected an nn.Module")
    return _around(unwrapped(model))


def _called(name: str, function: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise UnusableInput(f"{name} cannot be called with {dict(arguments)} ({error}): pass --model-args") from error
    return function(**arguments)


def classifier_of(
    model: "nn.Module | Classifier | str | Any",
    preprocess: Any = None,
    categories: Sequence[str] | None = None,
    weights: str = "default",
    probabilities: Probabilities = None,
) -> Classifier:
    """The classifier of a model without its wrappers, of a name and weights as in `load_classifier`, of a folder that
    transformers saved a model to, or of a transformers pipeline, with its processor.

    preprocess: a callable from a Pillow image to the input, or a transformers processor. None is the model's own, see
    `preprocessing.own_preprocessing`.
    categories: the classes' names; None: see `class_names.names_of`. probabilities: see `class_scores_of`.
    """
    if isinstance(model, Classifier):
        classifier = model
    elif isinstance(model, str | os.PathLike):
        classifier = load_classifier(os.fspath(model), weights)
    elif _is_pipeline(model):
        classifier = _around(model.model, given_preprocessing(model.image_processor))
    else:
        classifier = _around(unwrapped(model))
    if preprocess is not None:
        classifier = classifier._replace(preprocessing=given_preprocessing(preprocess))
    if categories is not None:
        classifier = classifier._replace(categories=categories)
    return classifier if probabilities is None else classifier._replace(probabilities=probabilities)


def _around(model: Any, preprocessing: Preprocessing | None = None) -> Classifier:
    categories, probabilities = _of_digits() if isinstance(model, DigitsNet) else (None, None)
    return Classifier(model, preprocessing or own_preprocessing(model), categories, probabilities)


def _is_pipeline(model: Any) -> bool:
    return not isinstance(model, nn.Module) and hasattr(model, "image_processor") and hasattr(model, "model")


def _digits(weights: str) -> Classifier:
    with _same_random_weights():
        model = DigitsNet() if weights == "none" else load_digits_net()
    return _around(model)


def _of_digits() -> tuple[Sequence[str], Probabilities]:
    """The bundled network's names, and its probabilities: a scene has several digits."""
    return [str(digit) for digit in range(10)], torch.sigmoid


def _torchvision_names() -> list[str]:
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def _from_torchvision(name: str, weights: str, **head: Any) -> Classifier:
    from torchvision import models

    pretrained = models.get_model_weights(name)["DEFAULT"]
    # torchvision's transformers are built for one image size: by default for 224, whatever their preprocessing gives.
    size = {"image_size": pretrained.meta["min_size"][0]} if name.startswith("vit_") else {}
    how = {**size, **head}
    model = _fetched(name, weights, lambda fetch: models.get_model(name, weights=pretrained if fetch else None, **how))
    preprocessing = given_preprocessing(pretrained.transforms())._replace(origin=f"that of torchvision's {pretrained}")
    return _around(model, preprocessing)._replace(categories=pretrained.meta["categories"])


def _timm_names() -> list[str]:
    try:
        import timm
    except ImportError:
        return []
    return timm.list_models()


def _from_timm(name: str, weights: str, **head: Any) -> Classifier:
    import timm

    classes = timm.get_pretrained_cfg_value(name, "num_classes")
    if classes == 0:
        raise UnusableInput(f"{name} has no classifier, it gives features: choose a model with classes")
    with _only_errors_of("huggingface_hub"):  # it reports each of its retries
        model = _fetched(name, weights, lambda fetch: timm.create_model(name, pretrained=fetch, **head))
    return _around(model)


def _from_transformers(name: str, weights: str) -> Classifier:
    model = model_of_transformers(name, weights, "AutoModelForImageClassification")
    model.config._name_or_path = name
    return _around(model)


def model_of_transformers(name: str, weights: str, kind: str) -> Any:
    """The model of that folder or 'organisation/name' by a class of transformers that knows which one it is, `kind`.

    weights: 'default', or 'none' (random, seeded). Raises UnusableInput without transformers, and where the weights
    cannot be fetched.
    """
    try:
        import transformers
    except ImportError as error:
        raise UnusableInput(f"{name} is a model of transformers: pip install transformers") from error
    known = getattr(transformers, kind)

    def create(fetch: bool) -> nn.Module:
        made: nn.Module
        if fetch:
            made = known.from_pretrained(name)
        else:
            made = known.from_config(transformers.AutoConfig.from_pretrained(name))
        return made

    return _fetched(name, weights, create)


def _fetched(name: str, weights: str, create: Callable[[bool], nn.Module]) -> nn.Module:
    """What `create` makes, with weights from a library (`weights` is 'default') or random ones, seeded.

    Raises UnusableInput where the weights cannot be fetched.
    """
    fetch = weights == "default"
    try:
        with _same_random_weights():
            return create(fetch)
    except Exception as error:
        if not fetch:
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UnusableInput(
            f"the weights of {name} could not be fetched ({reason[0][:120]}): pass a file with a state dict "
            "(weights=, --weights FILE), 'none' for random ones (--weights none), or the model 'digits', which comes "
            "with the package (--model digits)"
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
