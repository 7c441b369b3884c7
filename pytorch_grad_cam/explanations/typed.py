"""The types of what `explain` takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL.Image import Image
from torch import nn

from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.base_cam import BaseCAM, CamOptions
from pytorch_grad_cam.engine.trees import AsMap
from pytorch_grad_cam.meta_cam import MetaCAM
from pytorch_grad_cam.tam import TAM
from pytorch_grad_cam.zoo.class_scores import Probabilities
from pytorch_grad_cam.zoo.classifiers import Classifier


class Pipeline(Protocol):
    """A pipeline of transformers."""

    @property
    def model(self) -> object: ...
    @property
    def image_processor(self) -> object: ...


File = str | os.PathLike[str]
Model = nn.Module | Classifier | Pipeline | File
Method = str | type[BaseCAM] | type[MetaCAM] | type[TAM] | Callable[..., BaseCAM | MetaCAM]
Target = int | str | np.integer | tuple[float, float] | Callable[[Any], torch.Tensor]
Layer = nn.Module | str
Layers = Layer | Sequence[Layer | Sequence[Layer]]
OneImage = Image | bytes | bytearray | memoryview | Mapping[str, Any] | tuple[Any, ...]
Truth = int | str | Sequence[int | str] | Mapping[str, int | str]


class Options(CamOptions, total=False):
    """The keywords of `explain` besides the first ones, and those of the constructors of this package's methods.

    A method of your own with others is given them by a `functools.partial`.
    """

    top: int
    preprocess: Callable[..., object] | None
    processor: Callable[..., object] | None
    categories: Sequence[str] | None
    probabilities: Probabilities
    weights: str
    aug_smooth: bool
    eigen_smooth: bool
    signed: bool
    truth: Truth | None
    prompt: str | None
    max_new_tokens: int
    batch_size: int | None
    workers: int | None
    save: Sequence[str]
    reshape_transform: AsMap | None
    base_method: Callable[..., BaseCAM | MetaCAM] | None
    ablation_layer: AblationLayer | None
    ratio_channels_to_ablate: float
    share_of_energy: float
    seed: int | None
    steps: int
    samples: int
    std: float
    groups: int
    gaussian: bool
    sigma: float
    masks: int
    cells: int
    share: float
    k: float
    kernel: Literal["linear", "poly", "rbf", "sigmoid", "cosine"]
    gamma: float | None
    scales: Sequence[int] | None
    num_scales: int
    scale_step_ratio: float
    window: int
    window_size: int | None
    step_size: int | None
    pre_filter_ratio: float
    theta: float
    pool: Literal["mean", "max"]
    smooth: bool
    use_softmax_scores: bool
