"""The slices of a DICOM file: its one image, or its frames with the place that each of them says."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# Where a frame says what an image says itself (PS3.3 C.7.6.16.2).
_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
}


class Slice(NamedTuple):
    """One slice. values: (rows, columns) float32, those of the modality. position: the millimetres of its first voxel,
    to the left, the back and up. directions: along a row and along a column (2, 3), of length 1. spacing: down a column
    and along a row. thickness: to the next slice, if the file says so. window: centre and width of what is shown.
    """

    values: np.ndarray
    position: np.ndarray
    directions: np.ndarray
    spacing: tuple[float, float]
    thickness: float
    window: tuple[float, float] | None


def slices_of(image: Any) -> list[Slice]:
    """Those of a file as pydicom reads it. Raises ValueError for colours and for frames that do not say their place."""
    frames, samples = int(image.get("NumberOfFrames", 1)), int(image.get("SamplesPerPixel", 1))
    said = [_Said(image, number) for number in range(frames)]
    if samples > 1 or any(each.get("ImagePositionPatient") is None for each in said):
        raise ValueError(
            f"a file has {frames} frames of {samples} channels, expected slices of one channel that say where they lie"
        )
    stored = image.pixel_array.reshape(frames, image.Rows, image.Columns)
    return [_slice(each, values) for each, values in zip(said, stored, strict=True)]


class _Said:
    """What a file says of a frame: by itself, in the groups of this frame, or in those that all frames share."""

    def __init__(self, image: Any, number: int) -> None:
        own, shared = image.get("PerFrameFunctionalGroupsSequence"), image.get("SharedFunctionalGroupsSequence")
        self._groups = [*([own[number]] if own else []), *(shared or [])]
        self._image = image

    def get(self, name: str) -> Any:
        """The value of an attribute; None where it is not said."""
        for group in self._groups:
            found = group.get(_GROUPS[name])
            if found and name in found[0]:
                return found[0][name].value
        return self._image.get(name)


def _slice(said: _Said, stored: np.ndarray) -> Slice:
    slope, intercept = said.get("RescaleSlope"), said.get("RescaleIntercept")
    values = stored.astype(np.float32) * np.float32(1 if slope is None else slope) + np.float32(intercept or 0)
    down, across = (float(length) for length in said.get("PixelSpacing"))
    return Slice(
        values,
        np.asarray(said.get("ImagePositionPatient"), float),
        np.asarray(said.get("ImageOrientationPatient"), float).reshape(2, 3),
        (down, across),
        float(said.get("SpacingBetweenSlices") or said.get("SliceThickness") or 1),
        _window(said),
    )


def _window(said: _Said) -> tuple[float, float] | None:
    centres, widths = said.get("WindowCenter"), said.get("WindowWidth")
    if centres is None or widths is None:
        return None
    return float(np.atleast_1d(centres)[0]), float(np.atleast_1d(widths)[0])
