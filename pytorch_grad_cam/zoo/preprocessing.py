"""From a picture to a model's input: whose preprocessing it is, and what of it nobody said."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from pytorch_grad_cam.demo.network import MEAN, STD, DigitsNet, preprocess_scene
from pytorch_grad_cam.zoo.letterbox import Letterbox
from pytorch_grad_cam.zoo.unusable_input import UnusableInput

if TYPE_CHECKING:
    from PIL.Image import Image

    Statistics = tuple[tuple[float, ...] | None, tuple[float, ...] | None]

IMAGENET_CLASSES = 1000
_RESIZED, _CROPPED = 256, 224  # torchvision's sides, in pixels; larger crops are taken in the same proportion
_COLOURS = 3
_SIDE_OF_ULTRALYTICS, _LEAST_STRIDE = 640, 32  # of its predictors, in pixels
_WAY_OUT = "pass preprocess=, a callable from a Pillow image to the input or a transformers processor"


class Preprocessing(NamedTuple):
    """From a Pillow image to the model's input, and what is known of it.

    function: see `inputs_of` for what it may return. mean, std: by which it normalises; None where nobody knows.
    origin: whose it is. is_assumed: whether nothing says that the model was trained with it.
    """

    function: Callable[[Image], Any]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    origin: str
    is_assumed: bool = False


def given_preprocessing(preprocess: Any) -> Preprocessing:
    """A user's preprocessing: a callable, or a transformers processor or image processor.

    Raises UnusableInput for what is none of these.
    """
    if _is_processor(preprocess):
        processor = getattr(preprocess, "image_processor", None) or preprocess
        return Preprocessing(ByProcessor(processor), *_statistics(processor), f"the given {type(processor).__name__}")
    if not callable(preprocess):
        raise UnusableInput(f"preprocess is {type(preprocess).__name__}: {_WAY_OUT}")
    return Preprocessing(preprocess, *_statistics(preprocess), "the given preprocess")


def own_preprocessing(model: nn.Module) -> Preprocessing:
    """The preprocessing that a model says it was trained with, else an assumption.

    The model's own: the bundled network's; that of timm's configuration (`pretrained_cfg`); the processor that lies
    beside a transformers model's weights; torchvision's detectors, which normalise and resize images themselves, get
    them as they are; ultralytics' networks what its predictors show them. Assumed: for other transformers models the
    defaults of their family's processor, at the size of the configuration; for torchvision's models of 1,000 classes
    torchvision's preset for ImageNet, at the size that the model takes; for all others the same, of one channel in
    grey. That of a model of other channels raises UnusableInput.
    """
    if isinstance(model, DigitsNet):
        return Preprocessing(preprocess_digits, (MEAN,) * 3, (STD,) * 3, "that of the bundled network")
    if getattr(model, "pretrained_cfg", None):
        return _of_timm(model)
    if type(model).__module__.startswith("transformers.") and hasattr(model, "config"):
        found = _of_transformers(model)
        if found is not None:
            return found
    if hasattr(getattr(model, "transform", None), "image_mean"):
        return Preprocessing(_as_it_is, (0.0,), (1.0,), "that of torchvision's detectors: pixels from 0 to 1")
    if isinstance(getattr(model, "stride", None), torch.Tensor) and isinstance(getattr(model, "yaml", None), Mapping):
        return _of_ultralytics(model)
    return _imagenet_preprocessing(model)


def _of_ultralytics(model: Any) -> Preprocessing:
    """What its predictors do, at the size that the network was trained with, else at their default one."""
    arguments = getattr(model, "args", {})
    known = arguments if isinstance(arguments, Mapping) else vars(arguments)
    of_default = "" if "imgsz" in known else ", ultralytics' default"
    side = known.get("imgsz", _SIDE_OF_ULTRALYTICS)
    stride = max(int(model.stride.max()), _LEAST_STRIDE)
    of_axes = [side, side] if isinstance(side, int) else list(side)
    height, width = (math.ceil(edge / stride) * stride for edge in of_axes)
    pixels = (0.0,), (1.0,)
    if getattr(model, "task", None) == "classify":
        from torchvision import transforms

        steps = [transforms.Resize(height), transforms.CenterCrop((height, width)), transforms.ToTensor()]
        origin = f"ultralytics' for classifiers (the centre {height} x {width} px{of_default})"
        return Preprocessing(transforms.Compose(steps), *pixels, origin)
    is_stretched = any(hasattr(module, "num_queries") for module in model.modules())
    how = "stretched to" if is_stretched else "a letterbox within"
    origin = f"ultralytics' ({how} {height} x {width} px{of_default})"
    return Preprocessing(Letterbox(height, width, stride, is_stretched), *pixels, origin)


def _as_it_is(image: Image) -> torch.Tensor:
    """The picture's pixels from 0 to 1, at its own size."""
    return torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0) / 255


def _of_timm(model: nn.Module) -> Preprocessing:
    """That of the model's timm configuration."""
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    config = resolve_model_data_config(model)
    transform = create_transform(**config, is_training=False)
    return Preprocessing(transform, tuple(config["mean"]), tuple(config["std"]), "that of the timm configuration")


def preprocess_digits(image: Image) -> torch.Tensor:
    """The bundled network's input (3, 64, 64)."""
    return preprocess_scene(np.asarray(image.convert("RGB").resize((64, 64))))[0]


def warning_of(preprocessing: Preprocessing) -> str:
    """What to say of an assumed preprocessing."""
    return (
        f"the model does not say how images are preprocessed, so that {preprocessing.origin} is assumed; another one "
        f"gives other scores and maps: {_WAY_OUT}"
    )


def inputs_of(preprocessed: Any) -> Any:
    """What a preprocessing returns, as a batch of one: a tensor, or a mapping where the model takes several.

    preprocessed: a tensor or array (C, H, W), or a batch of one; an array may have its channels last. Of a mapping
    with one entry, as image processors return, that; of one with several its tensors.
    Raises UnusableInput for anything else.
    """
    if isinstance(preprocessed, Mapping):
        if "spatial_shapes" in preprocessed:
            raise UnusableInput(
                "the processor gives patches in the picture's own proportions (NaFlex), which are no picture to show: "
                "give a method what it makes, as LeGrad(TextClassifier(model, texts, processor))(inputs)"
            )
        entries = {name: _batch_of_one(entry, name) for name, entry in preprocessed.items()}
        return entries if len(entries) > 1 else next(iter(entries.values()), None)
    return _batch_of_one(preprocessed, "what preprocess returns")


def _batch_of_one(value: Any, what: str) -> torch.Tensor:
    if isinstance(value, list | tuple) and len(value) == 1:
        return _batch_of_one(value[0], what)
    if isinstance(value, np.ndarray):
        channels_last = value.ndim in (3, 4) and value.shape[-1] in (1, 3) and value.shape[-3] not in (1, 3)
        value = torch.from_numpy(np.ascontiguousarray(np.moveaxis(value, -1, -3) if channels_last else value))
    if not isinstance(value, torch.Tensor):
        raise UnusableInput(f"{what} is {type(value).__name__}, expected a tensor or an array (C, H, W)")
    batch = value[None] if value.ndim == 3 and value.is_floating_point() else value
    if len(batch.shape) == 0 or len(batch) != 1 or (batch.is_floating_point() and batch.ndim == 2):
        raise UnusableInput(f"{what} has shape {tuple(value.shape)}, expected (C, H, W) or (1, C, H, W)")
    return batch


class ByProcessor:
    """A transformers image processor as a function from a Pillow image; worker processes can be sent it."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image) -> Any:
        return dict(self.processor(images=image, return_tensors="pt"))


def _is_processor(preprocess: Any) -> bool:
    return hasattr(preprocess, "image_processor") or hasattr(preprocess, "image_mean")


def _statistics(preprocess: Any) -> Statistics:
    """The mean and standard deviation of a processor, a preset, or the last step of a composition that normalises."""
    if _is_processor(preprocess):
        if getattr(preprocess, "do_normalize", True):
            return _numbers(preprocess.image_mean), _numbers(preprocess.image_std)
        return ((0.0,), (1.0,)) if getattr(preprocess, "do_rescale", True) else ((0.0,), (1 / 255,))
    steps = [preprocess, *getattr(preprocess, "transforms", [])]
    known = [step for step in steps if hasattr(step, "mean") and hasattr(step, "std")]
    return (_numbers(known[-1].mean), _numbers(known[-1].std)) if known else (None, None)


def _numbers(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(np.atleast_1d(np.asarray(values, dtype=float)).tolist())


def _of_transformers(model: Any) -> Preprocessing | None:
    """The processor that was saved with the model, else its family's defaults; None for families without one."""
    from transformers import AutoImageProcessor
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    place = getattr(model.config, "_name_or_path", "")
    if place:
        try:
            processor = AutoImageProcessor.from_pretrained(place, local_files_only=True)
        except (OSError, ValueError):
            processor = None  # none was saved: the family's defaults are assumed, with a warning
        if processor is not None:
            origin = f"that of the {type(processor).__name__} saved with {place}"
            return Preprocessing(ByProcessor(processor), *_statistics(processor), origin)
    if type(model.config) not in IMAGE_PROCESSOR_MAPPING:
        return None
    kinds = IMAGE_PROCESSOR_MAPPING[type(model.config)]  # by backend in transformers 5, slow and fast before
    kind = next(filter(None, reversed([*kinds.values()] if isinstance(kinds, Mapping) else [*kinds])))
    of_images = getattr(model.config, "vision_config", model.config)  # of models for texts too
    side = getattr(of_images, "image_size", None)
    processor = kind(**_sizes(kind(), side)) if isinstance(side, int) else kind()
    origin = f"the default {kind.__name__}{f' at {side} x {side} px' if isinstance(side, int) else ''}"
    return Preprocessing(ByProcessor(processor), *_statistics(processor), origin, is_assumed=True)


def _sizes(processor: Any, side: int) -> dict[str, dict[str, int]]:
    """The sizes that an image processor has, as arguments for images of `side` x `side` pixels."""
    sizes = {name: getattr(processor, name, None) or {} for name in ("size", "crop_size")}
    return {name: dict.fromkeys(dict(size), side) for name, size in sizes.items() if size}


def _imagenet_preprocessing(model: nn.Module) -> Preprocessing:
    from torchvision import transforms
    from torchvision.models import ResNet50_Weights

    channels = _channels_of(model)
    if channels not in (1, _COLOURS):
        why = f"{type(model).__name__} takes images of {channels} channels, which no picture has: {_WAY_OUT}"
        return Preprocessing(partial(_refuse, why), None, None, "none", is_assumed=True)
    is_torchvision = type(model).__module__.startswith("torchvision.models.")
    crop = _side_of(model) if is_torchvision else _CROPPED
    resized = round(crop * _RESIZED / _CROPPED)
    described = f"the centre {crop} x {crop} px of the image, its shorter side resized to {resized} px"
    if channels == 1:
        steps = [transforms.Grayscale(), transforms.Resize(resized), transforms.CenterCrop(crop)]
        grey = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])
        return Preprocessing(grey, (0.5,), (0.5,), f"grey, {described}, mean and deviation 0.5", is_assumed=True)
    preset = ResNet50_Weights.IMAGENET1K_V1.transforms(crop_size=crop, resize_size=resized)
    is_known = is_torchvision and _has_imagenet_head(model)
    origin = f"torchvision's for ImageNet ({described})"
    return Preprocessing(preset, tuple(preset.mean), tuple(preset.std), origin, not is_known)


def _refuse(why: str, _: Image) -> Any:
    raise UnusableInput(why)


def _side_of(model: nn.Module) -> int:
    """The side of the images that a torchvision model takes: transformers for one size alone, Inception 299."""
    side = 299 if type(model).__name__ == "Inception3" else _CROPPED
    return int(getattr(model, "image_size", side))


def _channels_of(model: nn.Module) -> int:
    """The channels that the first convolution takes."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return _COLOURS if first is None else first.in_channels


def _has_imagenet_head(model: nn.Module) -> bool:
    return any(
        getattr(module, "out_features", getattr(module, "out_channels", None)) == IMAGENET_CLASSES
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    )
