"""CT slices: DICOM and NIfTI."""

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.harness import Target, Unsound
from implicit_l2o.data.slices import read_dicom, read_nifti

_ENDINGS = (".dcm", ".nii", ".nii.gz", ".nii.gz")


def read(data: bytes, folder: Path) -> None:
    """The first byte says which kind of file the input is, or that it is packed first."""
    kind, content = data[0] % 4 if data else 0, data[1:]
    path = folder / f"slices{_ENDINGS[kind]}"
    path.write_bytes(gzip.compress(content, 1) if kind == 3 else content)
    found = read_dicom(path) if kind == 0 else read_nifti(path)
    if not found.hounsfield.isfinite().all() or not all(0 < length < np.inf for length in found.spacing):
        raise Unsound(f"spacing {found.spacing}, or a value that is not finite")


def _dicom(syntax: str, **tags: Any) -> bytes:
    import pydicom
    from pydicom.uid import CTImageStorage

    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3.4"
    packed = syntax == "1.2.840.10008.1.2.5"  # run lengths
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1" if packed else syntax
    dataset = pydicom.dataset.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CTImageStorage, "1.2.3.4", "CT"
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = 3, 4
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PixelSpacing = [0.5, 0.75]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0.0, 0.0, 4.5]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = np.arange(12, dtype=np.uint16).tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    if packed:
        dataset.compress(syntax)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _nifti(kind: type[np.generic], **fields: Any) -> bytes:
    import nibabel

    image = nibabel.Nifti1Image(np.arange(24).reshape(2, 3, 4).astype(kind), np.diag([-0.5, -0.75, 3.0, 1.0]))
    for name, value in fields.items():
        image.header[name] = value
    return image.to_bytes()


def seeds() -> Iterator[bytes]:
    """The encodings of DICOM that need no further package, and NIfTI of several types, packed and not."""
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"):
        yield b"\0" + _dicom(syntax)
    yield b"\0" + _dicom("1.2.840.10008.1.2.1", PixelPaddingValue=7, InstanceNumber=3, NumberOfFrames=1)
    for kind in (np.int16, np.float32, np.float64):
        yield b"\1" + _nifti(kind)
        yield b"\3" + _nifti(kind)
    yield b"\1" + _nifti(np.uint8, sform_code=0, qform_code=1)
    yield b"\2" + gzip.compress(_nifti(np.int16))


TARGET = Target(
    read=read,
    seeds=seeds,
    errors=(ValueError, OSError),
    words=(
        b"DICM",
        b"OW",
        b"SQ",
        b"DS",
        b"UI",
        b"\xff\xff\xff\xff",
        b"\xfe\xff\x00\xe0",
        b"n+1\0",
        b"1.2.840.10008.1.2",
        b"nan",
    ),
    most_bytes=4096,
)
