"""CT slices from DICOM and NIfTI files that the tests write: units, orientation, order, and what broken files say."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from implicit_l2o.data.lodopab import MU_MAX
from implicit_l2o.data.slices import Slices, read_dicom, read_nifti

ROWS, COLUMNS, DEPTH = 6, 5, 4
SPACING = (0.75, 0.5)


def volume() -> np.ndarray:
    """`(slice, row, column)` in Hounsfield units, feet first, front on top, the patient's right on the left."""
    return np.random.default_rng(0).integers(-1024, 3071, (DEPTH, ROWS, COLUMNS)).astype(np.int16)


def dicom(path: Path, pixels: np.ndarray, height: float, **tags: Any) -> Path:
    """A CT slice as a scanner stores it, 12 bits with an offset."""
    pydicom: Any = pytest.importorskip("pydicom", reason="pydicom, which writes and reads the files, is not installed")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.dataset.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CTImageStorage, "1.2.3.4", "CT"
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PixelSpacing = list(SPACING)
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0.0, 0.0, height]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = (pixels.astype(np.int32) + 1024).astype(np.uint16).tobytes()
    for name, value in tags.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def nifti(path: Path, codes: str = "LPS") -> Path:
    """The same volume with its axes stored in the order and the directions of `codes`."""
    nibabel: Any = pytest.importorskip("nibabel", reason="nibabel, which writes and reads the files, is not installed")
    stored = volume().transpose(2, 1, 0)  # (column, row, slice): to the left, the back, the head
    affine = np.diag([-SPACING[1], -SPACING[0], 3.0, 1.0])
    image = nibabel.Nifti1Image(stored, affine)
    now, wanted = nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(tuple(codes))
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(now, wanted)), path)
    return path


def test_a_dicom_series_is_sorted_from_the_feet(tmp_path: Path) -> None:
    for place, name in zip((2, 0, 3, 1), "abcd", strict=True):
        dicom(tmp_path / f"{name}.dcm", volume()[place], height=2.5 * place)
    (tmp_path / ".DS_Store").write_bytes(b"nothing")
    slices = read_dicom(tmp_path)
    assert np.array_equal(slices.hounsfield.numpy(), volume())
    assert slices.spacing == SPACING
    assert len(slices) == DEPTH


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LAS", "SRA", "IPL", "PIR"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_volume_however_it_is_stored(tmp_path: Path, codes: str, suffix: str) -> None:
    path = nifti(tmp_path / f"volume{suffix}", codes)
    slices = read_nifti(path)
    assert np.array_equal(slices.hounsfield.numpy(), volume())
    assert slices.spacing == pytest.approx(SPACING)
    assert np.array_equal(read_nifti(path, slices=[3, 1]).hounsfield.numpy(), volume()[[3, 1]])


def test_padding_is_air(tmp_path: Path) -> None:
    pixels = np.zeros((3, 3), np.int16)
    pixels[0, 0] = -1024 + 7
    slices = read_dicom(dicom(tmp_path / "a.dcm", pixels, 0.0, PixelPaddingValue=7))
    assert slices.hounsfield[0, 0, 0] == -1000
    assert slices.hounsfield[0, 1, 1] == 0


def test_attenuation_and_images_are_lodopabs() -> None:
    hounsfield = torch.tensor([[[-1000.0, 0.0], [3071.0, -2000.0]]])
    slices = Slices(hounsfield, (1.0, 1.0))
    # LoDoPaB-CT's own rule, in 1/m: mu = 20 + (20 - 0.02) HU / 1000, the outside of the body cut off.
    expected = (20 + (20 - 0.02) * hounsfield / 1000).clamp_min(0.0) / 81.35858
    torch.testing.assert_close(slices.images(2)[:, 0], expected, atol=2e-3, rtol=0.0)
    torch.testing.assert_close(slices.attenuation()[0, 0], torch.tensor([0.0, 0.2]))
    torch.testing.assert_close(slices.attenuation(water=20.0)[0, 0], torch.tensor([0.0, 20.0]))


def test_the_centred_square_is_taken() -> None:
    wide = torch.full((1, 4, 8), -1000.0)
    wide[:, :, 2:6] = 0.0
    torch.testing.assert_close(Slices(wide, (1.0, 1.0)).images(2), torch.full((1, 1, 2, 2), 0.2 / MU_MAX))
    assert Slices(wide + 5000, (1.0, 1.0)).images(3).max() == 1.0


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "MR"}, "its modality is MR"),
        ({"RescaleSlope": None}, "lacks RescaleSlope"),
        ({"PixelSpacing": None, "PixelData": None}, "lacks PixelData, PixelSpacing"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "must be axial and upright"),
        ({"PixelData": b"\0" * 10}, "its pixels cannot be read"),
    ],
)
def test_dicom_files_that_are_no_ct_slice(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    path = dicom(tmp_path / "a.dcm", volume()[0], 0.0, **tags)
    with pytest.raises(ValueError, match=message):
        read_dicom(path)


def test_dicom_folders_that_are_no_series(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm", volume()[0], 0.0)
    path = dicom(tmp_path / "b.dcm", volume()[0], 1.0, SeriesInstanceUID="9.9")
    with pytest.raises(ValueError, match=r"must be one series; .*b.dcm has series 9.9, a.dcm 1.2.3"):
        read_dicom(tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"b.dcm"):
        read_dicom(tmp_path)
    path.write_text("a letter")
    with pytest.raises(ValueError, match=r"b.dcm is no readable DICOM file"):
        read_dicom(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no file"):
        read_dicom(tmp_path / "empty")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_a_truncated_nifti_file(tmp_path: Path, suffix: str, kept: float) -> None:
    path = nifti(tmp_path / f"volume{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="is damaged"):
        read_nifti(path)


def test_nifti_files_that_are_no_volume(tmp_path: Path) -> None:
    nibabel: Any = pytest.importorskip("nibabel", reason="nibabel is not installed")
    path = nifti(tmp_path / "volume.nii")
    with pytest.raises(IndexError, match="slices 0 to 3; got index 4"):
        read_nifti(path, slices=[0, 4])
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 3), np.int16), np.eye(4)), path)
    with pytest.raises(ValueError, match=r"3 dimensions; it has the shape \(2, 2, 2, 3\)"):
        read_nifti(path)
    path.write_text("a letter")
    with pytest.raises(ValueError, match="no NIfTI file"):
        read_nifti(path)
    zipped = tmp_path / "other.nii.gz"
    zipped.write_bytes(gzip.compress(b"a letter"))
    with pytest.raises(ValueError, match="no NIfTI file"):
        read_nifti(zipped)


@pytest.mark.bad_input
def test_bad_values() -> None:
    image = torch.zeros(1, 2, 2)
    with pytest.raises(ValueError, match="at least one slice"):
        Slices(torch.zeros(0, 2, 2), (1.0, 1.0))
    with pytest.raises(ValueError, match="1 values are NaN or infinite"):
        Slices(torch.tensor([[[0.0, torch.nan]]]), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"positive spacing in mm; got spacing=\(1.0, 0.0\)"):
        Slices(image, (1.0, 0.0))
    with pytest.raises(ValueError, match=r"water > 0 is needed; got water=-1.0"):
        Slices(image, (1.0, 1.0)).attenuation(water=-1.0)
    with pytest.raises(ValueError, match="size >= 1; got size=0"):
        Slices(image, (1.0, 1.0)).images(0)
    with pytest.raises(ValueError, match=r"mu_max > 0; got mu_max=-1.0"):
        Slices(image, (1.0, 1.0)).images(2, mu_max=-1.0)
