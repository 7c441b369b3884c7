"""A pytest plugin: torchvision's pretrained models come with seeded random weights, so that nothing is fetched."""

import torch
import torchvision
from torchvision.models import WeightsEnum


def pytest_configure() -> None:
    WeightsEnum.get_state_dict = _random_state  # type: ignore[method-assign]


def _random_state(weights: WeightsEnum, *_: object, **__: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    name = type(weights).__name__.removesuffix("_Weights").lower()
    return torchvision.models.get_model(name).state_dict()
