"""All models that are asked about, by family and library."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

from benchmarks.families import audio, contrastive, dense, detection, language, reading, segmentation, video, volumes
from benchmarks.families.question import Case

FAMILIES: dict[str, dict[str, Callable[[], Iterator[Case]]]] = {
    "detection": {
        "torchvision": detection.torchvision_cases,
        "ultralytics": detection.ultralytics_cases,
        "transformers": detection.transformers_cases,
    },
    "segmentation": {
        "torchvision": segmentation.torchvision_cases,
        "segmentation_models_pytorch": segmentation.segmentation_models_pytorch_cases,
        "transformers": segmentation.transformers_cases,
        "monai": segmentation.monai_cases,
    },
    "video": {"torchvision": video.torchvision_cases, "transformers": video.transformers_cases},
    "audio": {"timm": audio.timm_cases, "transformers": audio.transformers_cases},
    "volumes": {"monai": volumes.monai_cases},
    "depth": {"transformers": dense.transformers_cases},
    "images and texts": {"open_clip": contrastive.open_clip_cases, "transformers": contrastive.transformers_cases},
    "language": {"transformers": language.transformers_cases},
    "readers": {"transformers": reading.transformers_cases},
}


def is_installed(library: str) -> bool:
    return find_spec(library) is not None
