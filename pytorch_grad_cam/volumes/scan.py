"""A scan: its voxels, and where in the patient they lie."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pytorch_grad_cam.engine.optional_packages import needing


@dataclass(frozen=True, eq=False)  # == of arrays is no single answer
class Scan:
    """Voxels (*spatial), three axes or more, and the affine (4, 4) from indices on the first three to millimetres.

    The millimetres are those of NIfTI: to the right, to the front and up. window: the centre and the width of the
    values that are shown, where the file says so. inverted: whether high values are shown dark. own_affine: where the
    axes were turned, the affine of the file's.
    """

    voxels: np.ndarray
    affine: np.ndarray
    window: tuple[float, float] | None = None
    inverted: bool = False
    own_affine: np.ndarray | None = None

    @property
    def spacing(self) -> tuple[float, ...]:
        """The millimetres between voxels along the first three axes."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def axes(self) -> str:
        """Where the first three axes point to, as 'RAS' (right, anterior, superior); of oblique ones mostly."""
        with needing("nibabel", "medical"):
            from nibabel.orientations import aff2axcodes

        return "".join(aff2axcodes(self.affine))

    def turned(self, axes: str) -> Scan:
        """The same scan with its axes exchanged and reversed so that they point to `axes`, such as 'RAS'.

        Nothing is resampled, so oblique axes stay oblique. Raises ValueError for what are no axes.
        """
        with needing("nibabel", "medical"):
            from nibabel.orientations import axcodes2ornt, inv_ornt_aff

        if sorted(axes.translate(str.maketrans("LPI", "RAS"))) != ["A", "R", "S"]:
            raise ValueError(f"axes is {axes!r}, expected one of L and R, of P and A, of I and S, as 'RAS'")
        voxels, turn = _turned(self.voxels, self.affine, axcodes2ornt(axes))
        return replace(
            self,
            voxels=voxels,
            affine=self.affine @ inv_ornt_aff(turn, self.voxels.shape[:3]),
            own_affine=self.affine if self.own_affine is None else self.own_affine,
        )

    def in_file(self, cam_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A map of this scan with the axes of the file, and their affine.

        Raises ValueError for a map of another size.
        """
        if cam_map.shape not in (self.voxels.shape, self.voxels.shape[:3]):
            raise ValueError(
                f"the map has shape {cam_map.shape}, the scan {self.voxels.shape}: a map is written where its scan "
                "lies, so bring it to the scan's voxels first, by undoing what was cut, padded and resampled"
            )
        if self.own_affine is None:
            return cam_map, self.affine
        with needing("nibabel", "medical"):
            from nibabel.orientations import io_orientation

        turned, _ = _turned(cam_map, self.affine, io_orientation(self.own_affine))
        return turned, self.own_affine

    def shown(self, window: tuple[float, float] | None = None) -> np.ndarray:
        """The voxels as they are shown, float32 in [0, 1].

        window: the centre and width of the values between black and white, by DICOM's linear rule (PS3.3 C.11.2.1.2);
        None is the file's, else from the lowest to the highest value.
        """
        window = window or self.window
        values = np.asarray(self.voxels, np.float32)
        if window is None:
            lowest, highest = float(values.min()), float(values.max())
            shown: np.ndarray = (values - lowest) / ((highest - lowest) or 1)
        else:
            centre, width = window
            if width < 1:
                raise ValueError(f"the window's width is {width}, expected 1 or more")
            shown = ((values - (centre - 0.5)) / max(width - 1, _THRESHOLD) + 0.5).clip(0, 1)
        return 1 - shown if self.inverted else shown


_THRESHOLD = 1e-6  # the width of a window that is a threshold


def _turned(voxels: np.ndarray, affine: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels with other axes, and how they were turned, both as nibabel writes orientations."""
    from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

    turn: np.ndarray = ornt_transform(io_orientation(affine), axes)
    turned: np.ndarray = apply_orientation(voxels, turn)
    return turned, turn
