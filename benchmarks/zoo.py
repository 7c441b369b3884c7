"""Image classifiers of torchvision, timm and transformers with random weights, small ones of each kind."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

Build = Callable[[], tuple[nn.Module, torch.Tensor]]

# Words in the names of a family's small members, the smallest first.
_SMALL = ("test", "atto", "femto", "pico", "zepto", "nano", "xxs", "xxt", "xs", "tiny", "_t_", "mini", "small", "_s_")


def torchvision_models() -> Iterator[tuple[str, Build]]:
    """All classifiers, small ones first."""
    from torchvision import models

    def parameters_of(name: str) -> int:
        return max(weights.meta["num_params"] for weights in models.get_model_weights(name))

    for name in sorted(models.list_models(module=models), key=parameters_of):

        def build(name: str = name) -> tuple[nn.Module, torch.Tensor]:
            side = 299 if name == "inception_v3" else 224
            options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
            return models.get_model(name, weights=None, **options), torch.randn(1, 3, side, side)

        yield name, build


def timm_families() -> Iterator[tuple[str, Build]]:
    """A small model of each family: of the names that begin with the same letters."""
    import timm

    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        families.setdefault(re.match(r"[a-z]+(?:v\d)?", name)[0], []).append(name)
    for names in families.values():
        name = min(names, key=_size_by_name)

        def build(name: str = name) -> tuple[nn.Module, torch.Tensor]:
            model = timm.create_model(name, pretrained=False)
            return model, torch.randn(1, *model.pretrained_cfg["input_size"])

        yield name, build


def _size_by_name(name: str) -> tuple:
    words = [position for position, word in enumerate(_SMALL) if word in f"{name}_"]
    numbers = [int(number) for number in re.findall(r"\d+", name.partition("patch")[0])]
    return (not words, min(words, default=0), sum(numbers), len(name))


def transformers_configurations() -> Iterator[tuple[str, Build]]:
    """Every image classifier of the library, scaled down, on square and on wide images."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    for kind, classes in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items():
        for class_name in [classes] if isinstance(classes, str) else classes:
            for size in ((256, 256), (256, 384)):

                def build(kind: str = kind, class_name: str = class_name, size: tuple = size) -> Any:
                    return _transformer(kind, class_name, size)

                yield f"{class_name} {size[0]}x{size[1]}", build


def _transformer(kind: str, class_name: str, size: tuple[int, int]) -> tuple[nn.Module, torch.Tensor]:
    import transformers

    config = transformers.CONFIG_MAPPING[kind]()
    for part in (config, getattr(config, "vision_config", None), getattr(config, "text_config", None)):
        if part is not None:
            _scale_down(part, size)
    model = getattr(transformers, class_name)(config)
    return model, torch.randn(1, getattr(config, "num_channels", 3), *size)


def _scale_down(config: Any, size: tuple[int, int]) -> None:
    """Three blocks where one number says how many, images of `size` where the configuration says what they are."""
    if not hasattr(config, "depths") and isinstance(getattr(config, "num_hidden_layers", None), int):
        config.num_hidden_layers = 3
    if hasattr(config, "window_size"):
        config.window_size = 4
    if isinstance(getattr(config, "image_size", None), list | tuple):
        config.image_size = list(size)
    elif hasattr(config, "image_size"):
        config.image_size = size[0] if size[0] == size[1] else size


def as_trained(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """The model of such images without the marks of an untrained one, see `as_if_trained`."""
    return as_if_trained(model, lambda: model(torch.randn(2, *x.shape[1:])))


def as_if_trained(model: nn.Module, run_two: Callable[[], Any]) -> nn.Module:
    """The model without two marks of an untrained one, weights of zeros and normalisation by statistics of nothing.

    With them nothing reaches the head, or nothing of the image is left there. run_two: runs it with two samples.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=0.02)
        normalisations = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for module in normalisations:
            module.reset_running_stats()
            module.momentum = None  # the mean over the batches that it gets in training mode
            module.train()
        if normalisations:
            run_two()
    return model.eval()


SOURCES: dict[str, Callable[[], Iterator[tuple[str, Build]]]] = {
    "torchvision": torchvision_models,
    "timm": timm_families,
    "transformers": transformers_configurations,
}
