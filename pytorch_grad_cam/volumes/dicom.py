"""A series of DICOM files as one scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytorch_grad_cam.engine.optional_packages import needing
from pytorch_grad_cam.volumes.dicom_slices import Slice, slices_of
from pytorch_grad_cam.volumes.scan import Scan

_MOST_UNEVEN = 0.01  # of the mean distance between slices; positions are written with some digits
_TO_NIFTI = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's millimetres go to the left and to the back


def read_dicom(files: str | Path | Iterable[str | Path], series: str | None = None) -> Scan:
    """A scan from a series of DICOM files, by pydicom: voxels (slices, rows, columns), float32.

    files: a folder or files, in any order, with one slice each or with frames that say where they lie (enhanced CT and
    MR); those of a folder that are no DICOM images are left out. series: the SeriesInstanceUID, where there are
    several. Slices are sorted by where they lie. Values are those of the modality (Rescale Slope and Intercept:
    Hounsfield units in CT); `window` is the first one that the series names, `inverted` is MONOCHROME1.

    Raises ValueError where there is no image, for several series, frames without a place (films), colours, slices that
    are no stack (other sizes or directions, a place taken twice) and unequal distances between them, as where one is
    missing; ImportError without pydicom.
    """
    images = _of_one_series(_images(files), series)
    first, normal = images[0], np.cross(*slices_of(images[0])[0].directions)
    slices = sorted((each for image in images for each in slices_of(image)), key=lambda each: each.position @ normal)
    _check_stack(slices)
    lowest, highest = slices[0], slices[-1]
    distance = _distance([float(each.position @ normal) for each in slices], lowest.thickness)
    rows, columns = lowest.directions
    down, across = lowest.spacing
    affine = np.eye(4)
    step = (highest.position - lowest.position) / max(len(slices) - 1, 1)
    affine[:3, 0] = step if len(slices) > 1 else normal * distance
    affine[:3, 1], affine[:3, 2], affine[:3, 3] = columns * down, rows * across, lowest.position
    voxels = np.stack([each.values for each in slices])
    is_inverted = first.get("PhotometricInterpretation") == "MONOCHROME1"
    return Scan(voxels, _TO_NIFTI @ affine, lowest.window, is_inverted)


def _images(files: str | Path | Iterable[str | Path]) -> list[Any]:
    with needing("pydicom", "medical"):
        from pydicom import dcmread

    if isinstance(files, str | Path):
        folder = Path(files)
        found = map(_image_or_none, sorted(folder.iterdir())) if folder.is_dir() else [dcmread(folder)]
        return [image for image in found if image is not None and "PixelData" in image]
    return [dcmread(file) for file in files]


def _image_or_none(file: Path) -> Any:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        return dcmread(file) if file.is_file() else None
    except InvalidDicomError:
        return None


def _of_one_series(images: list[Any], series: str | None) -> list[Any]:
    found = sorted({str(image.get("SeriesInstanceUID", "")) for image in images})
    if series is not None:
        images = [image for image in images if image.get("SeriesInstanceUID") == series]
    elif len(found) > 1:
        raise ValueError(f"there are {len(found)} series, {', '.join(found)}: say which one by series=")
    if not images:
        raise ValueError(f"there is no DICOM image{'' if series is None else f' of the series {series}'}")
    return images


def _check_stack(slices: Sequence[Slice]) -> None:
    first = slices[0]
    for each in slices[1:]:
        directed = np.allclose(each.directions, first.directions, atol=1e-3)
        if each.values.shape != first.values.shape or not directed or not np.allclose(each.spacing, first.spacing):
            raise ValueError("the slices differ in size, direction or spacing: they are no stack")


def _distance(places: Sequence[float], thickness: float) -> float:
    """Between slices that lie at these places on their normal; of a single one its thickness."""
    if len(places) == 1:
        return thickness
    steps = np.diff(places)
    mean = float(steps.mean())
    if steps.min() < (1 - _MOST_UNEVEN) * mean or steps.max() > (1 + _MOST_UNEVEN) * mean or mean == 0:
        raise ValueError(
            f"the slices are {steps.min():.3g} to {steps.max():.3g} mm apart: one is missing, there twice, or they are "
            "several acquisitions: pass the files of one stack"
        )
    return mean
