"""Scans in files: a map, read back by the tool that people use for it, lies where its scan does."""

import re
from pathlib import Path

import numpy as np
import pytest

from pytorch_grad_cam.volumes.dicom import read_dicom
from pytorch_grad_cam.volumes.nifti import read_nifti, write_nifti
from pytorch_grad_cam.volumes.scan import Scan

nibabel = pytest.importorskip("nibabel")
SIZE = (5, 7, 4)
VOXELS = np.random.default_rng(0).integers(-200, 1000, SIZE).astype(np.int16)


def rotation(x, y, z):
    """About the three axes, in degrees."""
    x, y, z = np.radians([x, y, z])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def affine(matrix, origin=(-20.0, 30.0, 12.5)):
    made = np.eye(4)
    made[:3, :3], made[:3, 3] = matrix, origin
    return made


AFFINES = {
    "anisotropic": affine(np.diag([0.7, 0.7, 3.0])),
    "flipped axes": affine(np.diag([-0.7, 1.2, -3.0])),
    "exchanged axes": affine(np.array([[0, 0, 2.5], [-0.8, 0, 0], [0, 1.1, 0]])),
    "oblique": affine(rotation(12, -25, 8) @ np.diag([-0.9, 1.3, 2.0])),
}
placed = pytest.mark.parametrize("placed", AFFINES.values(), ids=AFFINES.keys())


@pytest.fixture
def scan_at(tmp_path):
    def make(placed, voxels=VOXELS, name="scan.nii"):
        nibabel.save(nibabel.Nifti1Image(voxels, placed), tmp_path / name)
        return tmp_path / name

    return make


def where(image, index):
    """The millimetres of a voxel, by nibabel."""
    return nibabel.affines.apply_affine(image.affine, index)


@placed
@pytest.mark.parametrize("axes", [None, "RAS", "LPS", "SAR"])
@pytest.mark.parametrize("name", ["map.nii", "map.nii.gz"])
def test_a_map_opens_where_its_scan_does(placed, axes, name, scan_at, tmp_path):
    scan = read_nifti(scan_at(placed))
    scan = scan if axes is None else scan.turned(axes)
    heat = np.zeros(scan.voxels.shape, np.float32)
    highest = np.unravel_index(scan.voxels.argmax(), scan.voxels.shape)
    heat[highest] = 1
    written = nibabel.load(write_nifti(heat, scan, tmp_path / name))
    image = nibabel.load(tmp_path / "scan.nii")
    np.testing.assert_allclose(written.affine, image.affine, atol=1e-6)
    np.testing.assert_allclose(written.get_qform(), image.affine, atol=1e-5)
    assert written.shape == image.shape
    assert written.get_fdata().argmax() == image.get_fdata().argmax()
    assert (int(written.header["sform_code"]), float(written.header["cal_max"])) == (1, 1)


@placed
def test_a_turned_scan_has_its_voxels_where_they_were(placed, scan_at):
    scan = read_nifti(scan_at(placed))
    turned = scan.turned("RAS")
    assert turned.axes == "RAS"
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(VOXELS, placed))
    np.testing.assert_array_equal(turned.voxels, canonical.get_fdata())
    np.testing.assert_allclose(turned.affine, canonical.affine)
    assert sorted(turned.spacing) == pytest.approx(sorted(scan.spacing))
    np.testing.assert_allclose(turned.turned("LPS").turned("RAS").affine, turned.affine)


def test_signed_maps_are_shown_from_minus_one(scan_at, tmp_path):
    scan = read_nifti(scan_at(AFFINES["oblique"]))
    header = nibabel.load(write_nifti(-np.ones(SIZE), scan, tmp_path / "map.nii")).header
    assert float(header["cal_min"]) == -1


def test_a_file_stays_in_the_file_where_it_can(scan_at):
    as_it_is = read_nifti(scan_at(AFFINES["anisotropic"])).voxels
    assert isinstance(as_it_is, np.memmap)
    compressed = read_nifti(scan_at(AFFINES["anisotropic"], name="scan.nii.gz")).voxels
    assert compressed.dtype == np.float32
    np.testing.assert_array_equal(compressed, as_it_is)


def test_stored_values_are_scaled(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, AFFINES["anisotropic"])
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(2, -10)
    nibabel.save(image, tmp_path / "scan.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "scan.nii").voxels, 2.0 * VOXELS - 10)


def test_a_map_of_another_size_is_refused(scan_at, tmp_path):
    scan = read_nifti(scan_at(AFFINES["oblique"]))
    with pytest.raises(ValueError, match=r"the map has shape \(5, 7\), the scan \(5, 7, 4\)"):
        write_nifti(np.zeros((5, 7)), scan, tmp_path / "map.nii")
    with pytest.raises(ValueError, match="axes is 'RLS'"):
        scan.turned("RLS")


def test_monai_reads_a_map_where_it_reads_its_scan(scan_at, tmp_path):
    transforms = pytest.importorskip("monai.transforms")
    scan = read_nifti(scan_at(AFFINES["oblique"])).turned("RAS")
    heat = np.float32(scan.voxels == scan.voxels.max())
    write_nifti(heat, scan, tmp_path / "map.nii")
    load = transforms.Compose(
        [transforms.LoadImage(image_only=True, ensure_channel_first=True), transforms.Orientation("RAS")]
    )
    image, found = load(tmp_path / "scan.nii"), load(tmp_path / "map.nii")
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
    np.testing.assert_array_equal(found[0], heat)
    assert found.argmax() == image.argmax()


class TestWindow:
    def test_of_dicom(self):
        """PS3.3 C.11.2.1.2.1: from centre - 0.5 - (width - 1) / 2 to centre - 0.5 + (width - 1) / 2."""
        scan = Scan(np.float32([[[-200, 39, 40, 300]]]), np.eye(4), window=(40, 400))
        expected = (np.float32([-200, 39, 40, 300]) - 39.5) / 399 + 0.5
        np.testing.assert_allclose(scan.shown()[0, 0], expected.clip(0, 1), atol=1e-6)
        assert scan.shown((0, 2)).max() == 1

    def test_without_one_all_values_are_shown(self):
        shown = Scan(np.float32([[[-5, 0, 5]]]), np.eye(4)).shown()
        np.testing.assert_allclose(shown[0, 0], [0, 0.5, 1])

    def test_inverted(self):
        shown = Scan(np.float32([[[0, 1, 4]]]), np.eye(4), inverted=True).shown()
        np.testing.assert_allclose(shown[0, 0], [1, 0.75, 0])

    def test_a_width_below_one_is_refused(self):
        with pytest.raises(ValueError, match="width is 0"):
            Scan(np.zeros((1, 1, 1)), np.eye(4)).shown((0, 0))


class TestSeries:
    ROWS, COLUMNS, SLICES = 6, 5, 4

    @pytest.fixture
    def series(self, tmp_path):
        pydicom = pytest.importorskip("pydicom")
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

        def make(turn=None, places=None, uid=None, **others):
            turn = np.eye(3) if turn is None else turn
            rows, columns, normal = turn.T
            uid = uid or generate_uid()
            places = 2.5 * np.arange(self.SLICES) if places is None else places
            for number, place in enumerate(reversed(list(places))):
                meta = FileMetaDataset()
                meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
                meta.TransferSyntaxUID = ExplicitVRLittleEndian
                image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
                image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
                image.SeriesInstanceUID, image.InstanceNumber = uid, number
                image.Rows, image.Columns = self.ROWS, self.COLUMNS
                image.ImageOrientationPatient = [float(f"{value:.8f}") for value in (*rows, *columns)]
                image.ImagePositionPatient = [float(f"{each:.8f}") for each in [10.0, -20.0, 5.0] + normal * place]
                image.PixelSpacing = [0.8, 1.5]
                image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
                image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
                image.RescaleSlope, image.RescaleIntercept = 2, -1024
                image.WindowCenter, image.WindowWidth = [40, 500], [400, 1500]
                for name, value in others.items():
                    setattr(image, name, value)
                pixels = np.arange(self.ROWS * self.COLUMNS, dtype=np.uint16).reshape(self.ROWS, self.COLUMNS)
                image.PixelData = (pixels + 100 * round(float(place))).tobytes()
                image.save_as(tmp_path / f"{uid[-6:]}_{len(places)}_{number}.dcm", enforce_file_format=True)
            (tmp_path / "notes.txt").write_text("no image")
            return tmp_path, pydicom

        return make

    def test_slices_are_sorted_by_place_and_rescaled(self, series):
        folder, _ = series()
        scan = read_dicom(folder)
        assert scan.voxels.shape == (self.SLICES, self.ROWS, self.COLUMNS)
        assert scan.voxels.dtype == np.float32
        assert [plane[0, 0] for plane in scan.voxels] == [2 * 100 * each - 1024 for each in (0, 2, 5, 8)]
        assert (scan.window, scan.inverted) == ((40, 400), False)
        assert scan.spacing == pytest.approx((2.5, 0.8, 1.5))

    @pytest.mark.parametrize(
        "turn", [np.eye(3), rotation(90, 0, 0), rotation(15, -20, 5)], ids=["axial", "coronal", "oblique"]
    )
    def test_a_map_lies_where_dicom_says(self, turn, series, tmp_path):
        """A voxel lies at the slice's position, a row's spacing down and a column's across, in LPS (PS3.3 C.7.6.2)."""
        folder, pydicom = series(turn)
        scan = read_dicom(folder)
        heat = np.zeros(scan.voxels.shape, np.float32)
        heat[2, 4, 1] = 1
        turned = scan.turned("RAS")
        from_turned = np.zeros(turned.voxels.shape, np.float32)
        from_turned[tuple(np.argwhere(turned.voxels == scan.voxels[2, 4, 1])[0])] = 1
        for name, given, of in (("map", heat, scan), ("turned", from_turned, turned)):
            written = nibabel.load(write_nifti(given, of, tmp_path / f"{name}.nii"))
            found = where(written, np.argwhere(written.get_fdata() == 1)[0])
            slices = [pydicom.dcmread(file) for file in sorted(folder.glob("*.dcm"))]
            image = next(each for each in slices if each.pixel_array[0, 0] == 500)
            cosines = np.array(image.ImageOrientationPatient)
            expected = np.array(image.ImagePositionPatient) + 4 * 0.8 * cosines[3:] + 1 * 1.5 * cosines[:3]
            np.testing.assert_allclose(found, expected * [-1, -1, 1], atol=1e-4)

    def test_several_series(self, series):
        series(uid="1.2.3.111111")
        folder, _ = series(uid="1.2.3.222222")
        with pytest.raises(ValueError, match=r"2 series, 1\.2\.3\.111111, 1\.2\.3\.222222: say which one"):
            read_dicom(folder)
        assert read_dicom(folder, "1.2.3.222222").voxels.shape[0] == self.SLICES
        with pytest.raises(ValueError, match="no DICOM image of the series 1"):
            read_dicom(folder, "1")

    @pytest.mark.parametrize(
        ("others", "message"),
        [
            ({"places": [0.0, 2.5, 7.5]}, "2.5 to 5 mm apart: one is missing"),
            ({"places": [0.0, 2.5, 2.5, 5.0]}, "0 to 2.5 mm apart"),
            ({"SamplesPerPixel": 3}, "1 frames of 3 channels"),
        ],
    )
    def test_what_is_no_stack_is_refused(self, others, message, series):
        folder, _ = series(**others)
        with pytest.raises(ValueError, match=message):
            read_dicom(folder)

    def test_one_slice_and_monochrome1(self, series):
        folder, _ = series(places=[0.0], PhotometricInterpretation="MONOCHROME1", SliceThickness=3)
        scan = read_dicom(sorted(folder.glob("*.dcm")))
        assert scan.inverted
        assert scan.spacing == pytest.approx((3, 0.8, 1.5))

    def test_slices_that_differ(self, series):
        series(uid="1.2.3.111111")
        folder, _ = series(uid="1.2.3.111111", turn=rotation(90, 0, 0), places=[0.0, 2.5, 5.0, 7.5, 10.0])
        with pytest.raises(ValueError, match="they are no stack"):
            read_dicom(folder)


class TestFrames:
    """One file with all slices: each frame's place, and what all share (enhanced CT and MR)."""

    TURN = rotation(15, -20, 5)

    def file(self, folder, places, with_places=True):
        pytest.importorskip("pydicom")
        from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
        from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

        def within(name, **values):
            inner, outer = Dataset(), Dataset()
            for key, value in values.items():
                setattr(inner, key, value)
            setattr(outer, name, [inner])
            return outer

        rows, columns, normal = self.TURN.T
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = EnhancedCTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = EnhancedCTImageStorage, meta.MediaStorageSOPInstanceUID
        image.SeriesInstanceUID, image.NumberOfFrames, image.Rows, image.Columns = generate_uid(), len(places), 3, 2
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        direction = [float(f"{value:.8f}") for value in (*rows, *columns)]
        shared = within("PlaneOrientationSequence", ImageOrientationPatient=direction)
        shared.update(within("PixelMeasuresSequence", PixelSpacing=[0.8, 1.5], SliceThickness=4))
        shared.update(within("FrameVOILUTSequence", WindowCenter=40, WindowWidth=400))
        frames = []
        for number, place in enumerate(places):
            at = [float(f"{each:.8f}") for each in [10.0, -20.0, 5.0] + normal * place]
            frame = within("PlanePositionSequence", ImagePositionPatient=at)
            scaled = {"RescaleSlope": number + 1, "RescaleIntercept": -10, "RescaleType": "HU"}
            frame.update(within("PixelValueTransformationSequence", **scaled))
            frames.append(frame)
        if with_places:
            image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [shared], frames
        image.PixelData = np.arange(6 * len(places), dtype=np.uint16).tobytes()
        image.save_as(folder / "frames.dcm", enforce_file_format=True)
        return folder / "frames.dcm"

    def test_frames_are_sorted_by_place_and_rescaled(self, tmp_path):
        scan = read_dicom(self.file(tmp_path, [5.0, 0.0, 2.5]))
        stored = np.arange(18).reshape(3, 3, 2)
        expected = [stored[1] * 2 - 10, stored[2] * 3 - 10, stored[0] - 10]
        np.testing.assert_array_equal(scan.voxels, expected)
        assert scan.spacing == pytest.approx((2.5, 0.8, 1.5))
        assert (scan.window, scan.inverted) == ((40, 400), False)

    def test_a_map_lies_where_the_frame_says(self, tmp_path):
        scan = read_dicom(self.file(tmp_path, [5.0, 0.0, 2.5]))
        heat = np.zeros(scan.voxels.shape, np.float32)
        heat[1, 2, 1] = 1
        written = nibabel.load(write_nifti(heat, scan, tmp_path / "map.nii"))
        rows, columns, normal = self.TURN.T
        expected = [10.0, -20.0, 5.0] + normal * 2.5 + 2 * 0.8 * columns + 1 * 1.5 * rows
        found = where(written, np.argwhere(written.get_fdata() == 1)[0])
        np.testing.assert_allclose(found, expected * [-1, -1, 1], atol=1e-4)

    def test_one_frame_is_as_thick_as_it_says(self, tmp_path):
        assert read_dicom(self.file(tmp_path, [0.0])).spacing == pytest.approx((4, 0.8, 1.5))

    def test_a_film_is_no_stack(self, tmp_path):
        file = self.file(tmp_path, [0.0, 2.5], with_places=False)
        with pytest.raises(ValueError, match="2 frames of 1 channels, expected slices of one channel that say where"):
            read_dicom(file)

    def test_a_place_that_is_taken_twice(self, tmp_path):
        """As of several times, or echoes."""
        with pytest.raises(ValueError, match=r"0 to 2\.5 mm apart"):
            read_dicom(self.file(tmp_path, [0.0, 2.5, 0.0, 2.5]))


def test_what_the_how_to_shows_of_files(tmp_path, monkeypatch):
    """Those of its blocks that need nibabel; all others run with the documents."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs/how-to/volumes_video_signals.md").read_text()
    first = re.search(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    with_files = re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict = {"__name__": "page"}
    for code in (first[1], *with_files):
        exec(code, names)
    assert (tmp_path / "map.nii.gz").exists()
