"""NIfTI files in, and maps out that open in the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pytorch_grad_cam.engine.optional_packages import needing
from pytorch_grad_cam.volumes.scan import Scan


def read_nifti(file: str | Path) -> Scan:
    """A scan from a NIfTI file (.nii, .nii.gz), by nibabel, with the axes that the file has.

    What lies in the file as it is stays there and is read where it is used (numpy.memmap); what is compressed or scaled
    is float32 in memory. Raises ImportError without nibabel.
    """
    with needing("nibabel", "medical"):
        import nibabel

    image: Any = nibabel.load(file)
    slope, offset = image.dataobj.slope, image.dataobj.inter
    as_it_is = slope == 1 and offset == 0 and Path(file).suffix == ".nii"
    voxels = np.asanyarray(image.dataobj) if as_it_is else image.get_fdata("unchanged", np.float32)
    return Scan(voxels, image.affine)


def write_nifti(cam_map: np.ndarray, scan: Scan, file: str | Path) -> Path:
    """Write a map of a scan, float32, so that it opens where the scan does; return the path.

    cam_map: of the scan's size, or of that of its first three axes. It is written with the axes and the affine that the
    scan's file has, also where the scan was turned, and is shown from 0 to 1 (signed ones from -1). Raises ValueError
    for a map of another size, ImportError without nibabel.
    """
    with needing("nibabel", "medical"):
        import nibabel

    values, affine = scan.in_file(np.asarray(cam_map))
    image = nibabel.Nifti1Image(values.astype(np.float32), affine)
    image.set_sform(affine, "scanner")
    image.set_qform(affine, "scanner", strip_shears=True)
    image.header.set_xyzt_units("mm")
    image.header["cal_min"], image.header["cal_max"] = (-1 if values.min(initial=0) < 0 else 0), 1
    image.header["descrip"] = b"class activation map"
    nibabel.save(image, file)
    return Path(file)
