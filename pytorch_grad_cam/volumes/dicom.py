"""A series of DICOM files as one scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytorch_grad_cam.engine.optional_packages import needing
from pytorch_grad_cam.volumes.scan import Scan

_MOST_UNEVEN = 0.01  # of the mean distance between slices; positions are written with some digits
_TO_NIFTI = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's millimetres go to the left and to the back


def read_dicom(files: str | Path | Iterable[str | Path], series: str | None = None) -> Scan:
    """A scan from a series of DICOM files with one slice each, by pydicom: voxels (slices, rows, columns), float32.

    files: a folder or files, in any order; those of a folder that are no DICOM images are left out. series: the
    SeriesInstanceUID, where there are several. Slices are sorted by where they lie. Values are those of the modality
    (Rescale Slope and Intercept: Hounsfield units in CT); `window` is the first one that the series names, `inverted`
    is MONOCHROME1.

    Raises ValueError where there is no image, for several series, files with several frames, colours, slices that are
    no stack (other sizes or directions, a place taken twice) and unequal distances between them, as where one is
    missing; ImportError without pydicom.
    """
    slices = _of_one_series(_images(files), series)
    first = slices[0]
    rows, columns = _direction(first)
    normal = np.cross(rows, columns)
    slices.sort(key=lambda each: _position(each) @ normal)
    _check_stack(slices)
    places = [float(_position(each) @ normal) for each in slices]
    distance = _distance(places, first)
    affine = np.eye(4)
    down, across = (float(length) for length in first.PixelSpacing)
    step = (_position(slices[-1]) - _position(slices[0])) / max(len(slices) - 1, 1)
    affine[:3, 0] = step if len(slices) > 1 else normal * distance
    affine[:3, 1], affine[:3, 2] = columns * down, rows * across
    affine[:3, 3] = _position(slices[0])
    voxels = np.stack([_values(each) for each in slices])
    return Scan(voxels, _TO_NIFTI @ affine, _window(first), first.get("PhotometricInterpretation") == "MONOCHROME1")


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
    for image in images:
        frames, samples = int(image.get("NumberOfFrames", 1)), int(image.get("SamplesPerPixel", 1))
        if frames > 1 or samples > 1:
            raise ValueError(
                f"a file has {frames} frames of {samples} channels, expected one slice of one channel a file"
            )
    return images


def _check_stack(slices: Sequence[Any]) -> None:
    first = slices[0]
    for image in slices[1:]:
        same = (image.Rows, image.Columns) == (first.Rows, first.Columns)
        directed = np.allclose(image.ImageOrientationPatient, first.ImageOrientationPatient, atol=1e-3)
        if not same or not directed or not np.allclose(image.PixelSpacing, first.PixelSpacing):
            raise ValueError("the slices differ in size, direction or spacing: they are no stack")


def _distance(places: Sequence[float], first: Any) -> float:
    """Between slices that lie at these places on their normal."""
    if len(places) == 1:
        return float(first.get("SpacingBetweenSlices", None) or first.get("SliceThickness", None) or 1)
    steps = np.diff(places)
    mean = float(steps.mean())
    if steps.min() < (1 - _MOST_UNEVEN) * mean or steps.max() > (1 + _MOST_UNEVEN) * mean or mean == 0:
        raise ValueError(
            f"the slices are {steps.min():.3g} to {steps.max():.3g} mm apart: one is missing, there twice, or they are "
            "several acquisitions: pass the files of one stack"
        )
    return mean


def _values(image: Any) -> np.ndarray:
    slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
    values: np.ndarray = image.pixel_array.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return values


def _window(image: Any) -> tuple[float, float] | None:
    if "WindowCenter" not in image or "WindowWidth" not in image:
        return None
    centre, width = (np.atleast_1d(image[name].value)[0] for name in ("WindowCenter", "WindowWidth"))
    return float(centre), float(width)


def _direction(image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Along a row and along a column, of length 1."""
    cosines = np.asarray(image.ImageOrientationPatient, float)
    return cosines[:3], cosines[3:]


def _position(image: Any) -> np.ndarray:
    return np.asarray(image.ImagePositionPatient, float)
