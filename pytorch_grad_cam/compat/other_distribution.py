"""Upstream's distribution has the name of this one, and its package too: their files can come to lie in one folder."""

import os
import re
import warnings
from pathlib import Path

_RECORD = re.compile(r"grad_cam-(?P<version>[^-]+?)(-py[\d.]+)?\.(dist|egg)-info")


def warn_of_other_distributions(package: Path, version: str) -> None:
    """A UserWarning where a record of another version of `grad-cam` lies beside the package: files of both are there.

    Cost: the names in one folder are read.
    """
    records = [found for name in os.listdir(package.parent) if (found := _RECORD.fullmatch(name))]
    others = sorted(found[0] for found in records if found["version"] != version)
    if others:
        warnings.warn(
            f"{', '.join(others)} lies beside pytorch_grad_cam {version} in {package.parent}: files of another version "
            "of grad-cam are in the same folder. Remove pytorch_grad_cam and grad_cam-* there, and install again",
            UserWarning,
            stacklevel=3,
        )
