"""The methods by their short names."""

from typing import Any

import pytorch_grad_cam
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.meta_cam import MetaCAM


def available_methods() -> dict[str, Any]:
    """The methods by the names of their classes in lower case, without underscores; Grad-CAM++ also as gradcam++.

    >>> available_methods()["kpcacam"].__name__
    'KPCA_CAM'
    """
    exported = [getattr(pytorch_grad_cam, name) for name in pytorch_grad_cam.__all__]
    classes = [c for c in exported if isinstance(c, type) and issubclass(c, BaseCAM | MetaCAM)]
    methods = {c.__name__.lower().replace("_", ""): c for c in classes if c not in (BaseCAM, MetaCAM)}
    return {**methods, "gradcam++": methods["gradcamplusplus"]}
