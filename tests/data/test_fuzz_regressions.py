"""What was found while the readers were fuzzed: each input once ended in something else than a clear error."""

import io
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from implicit_l2o.data._files import check_claim
from implicit_l2o.data.images import load_mnist
from implicit_l2o.data.lodopab import SIDE, LodopabSlices
from implicit_l2o.data.slices import read_dicom, read_nifti
from implicit_l2o.data.tables import read_arrays, read_inputs
from implicit_l2o.data.tntp import TntpError, read_network
from implicit_l2o.experiment.errors import ConfigurationError
from implicit_l2o.experiment.sources import merged, read_yaml
from implicit_l2o.training import CheckpointError, read_checkpoint, write_checkpoint

NET = """<NUMBER OF ZONES> 2
<NUMBER OF NODES> 3
<NUMBER OF LINKS> 1
<END OF METADATA>
1 2 10 2 5 0.15 4 0 0 1 ;
"""


def refused(call: Callable[[], Any], path: Path, message: str, kind: type[Exception] = ValueError) -> None:
    """It raises one line that names the file, and warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kind, match=message) as error:
            call()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# TNTP.


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("NODES> 3", "NODES> 1e12", r"_net.tntp:2: got 1000000000000; expected at most 10002 where there are 1 links"),
        ("ZONES> 2\n<NUMBER OF NODES> 3", "ZONES> 2000\n<NUMBER OF NODES> 2000", ":1: got 2000; expected at most 1002"),
        ("10 2 5", "10 -2 5", "fixed_cost finite values >= 0; got -6.0"),
        ("10 2 5", "10 1e308 5", "fixed_cost finite values >= 0; got inf"),
    ],
)
def test_a_network_that_no_line_shows_to_be_wrong(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "a_net.tntp"
    path.write_text(NET.replace(old, new))
    refused(lambda: read_network(path, distance_factor=3.0), path, message, TntpError)


# What a file claims.


def test_a_small_file_may_claim_much_and_a_large_one_more(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    check_claim(path, 1 << 28)
    refused(lambda: check_claim(path, (1 << 28) + 1), path, "has 1000 bytes and claims to hold 268435457")


def npz(path: Path, header: str) -> Path:
    text = header.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("d.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"\0" * 32)
    return path


@pytest.mark.parametrize("rows", ["1000000000000", "99999999999999999999"])
def test_an_array_of_a_trillion_rows(tmp_path: Path, rows: str) -> None:
    path = npz(tmp_path / "a.npz", f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({rows}, 2)}}")
    refused(lambda: read_arrays(path), path, r"more than fits into the memory|not a readable \.npz file")


def test_an_archive_that_unpacks_to_a_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d.npy", b"short")
    content = bytearray(path.read_bytes())
    for at in (match.start() for match in re.finditer(b"PK\x01\x02", bytes(content))):
        content[at + 24 : at + 28] = struct.pack("<I", 1 << 30)  # the size that the directory states
    path.write_bytes(content)
    refused(lambda: read_arrays(path), path, "claims to hold 1073741824")


def h5(path: Path, fill: Callable[[Any], None]) -> Path:
    h5py: Any = pytest.importorskip("h5py", reason="h5py, which writes and reads the files, is not installed")
    with h5py.File(path, "w") as archive:
        fill(archive)
    return path


@pytest.mark.parametrize(("shape", "chunks"), [((10**6, 10**6), (1, 1)), ((10**12,), (10,)), ((2,), (10**8,))])
def test_a_table_of_a_trillion_numbers_that_were_never_written(tmp_path: Path, shape: Any, chunks: Any) -> None:
    def fill(archive: Any) -> None:
        archive.create_dataset("d", shape, np.float64, chunks=chunks, maxshape=(None,) * len(shape))

    path = h5(tmp_path / "a.h5", fill)
    refused(lambda: read_arrays(path), path, "claims to hold")


def test_the_text_of_a_table_is_not_read(tmp_path: Path) -> None:
    """HDF5's library loops for ever in damaged heaps, where such text lies (found by the fuzzer after 4,722 inputs)."""

    def fill(archive: Any) -> None:
        archive["name"] = ["first", "second"]
        archive["title"] = "a text"
        archive["d"] = np.arange(4.0).reshape(2, 2)

    path = h5(tmp_path / "a.h5", fill)
    assert read_arrays(path)["name"].tolist() == [None, None]
    assert read_inputs(path, shape=(2,)).tolist() == [[0.0, 1.0], [2.0, 3.0]]
    refused(lambda: read_inputs(path, name="name", shape=(2,)), path, "'name' holds objects, not numbers")


def test_slices_that_are_stored_in_one_part_larger_than_a_file(tmp_path: Path) -> None:
    def fill(archive: Any) -> None:
        archive.create_dataset(
            "data", (2, SIDE, SIDE), np.float32, chunks=(2000, SIDE, SIDE), maxshape=(None, SIDE, SIDE)
        )

    path = h5(tmp_path / "ground_truth_test_000.hdf5", fill)
    refused(
        lambda: LodopabSlices(tmp_path, "test", count=2).read([0]), path, "stored in parts of .* more than a file has"
    )


def test_a_damaged_part_of_the_slices(tmp_path: Path) -> None:
    def fill(archive: Any) -> None:
        data = archive.create_dataset("data", (2, SIDE, SIDE), np.float32, chunks=(1, SIDE, SIDE), compression="gzip")
        data[0] = 0.5

    path = h5(tmp_path / "ground_truth_test_000.hdf5", fill)
    content = path.read_bytes()
    at = content.index(b"\x78\x5e") if b"\x78\x5e" in content else content.index(b"\x78\x9c")  # the packed part
    path.write_bytes(content[: at + 2] + b"\xff" * 20 + content[at + 22 :])
    refused(
        lambda: LodopabSlices(tmp_path, "test", count=2).read([0]), path, "is damaged or truncated .*; fetch it again"
    )


# Parquet.


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    pyarrow: Any = pytest.importorskip("pyarrow", reason="pyarrow, which writes and reads the files, is not installed")
    import pyarrow.parquet as writer

    writer.write_table(pyarrow.table(columns), path)
    return path


def encoded(kind: str, pixels: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A header that claims so many pixels."""
    import zlib

    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    end = b"IEND"
    parts = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (body, end))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png_of(100_000, 100_000), "row 0: the bytes are not an image .*decompression bomb"),
        (png_of(9_000, 9_000), "expected a grey .* got mode L, 9000x9000"),
        (encoded("gif", np.zeros((28, 28), np.uint8)), "row 0: the bytes are not an image"),
        (encoded("png", np.zeros((28, 28), np.uint8))[:-20], "row 0: the bytes are not an image"),
    ],
)
def test_images_that_are_not_what_they_seem(tmp_path: Path, data: bytes, message: str) -> None:
    columns = {"image": [{"bytes": data, "path": None}], "label": [3]}
    path = parquet(tmp_path / "test-00000-of-00001.parquet", columns)
    refused(lambda: load_mnist(tmp_path, split="test", cache=tmp_path, progress=False), path, message)


# Slices.


def nifti(path: Path, **fields: Any) -> Path:
    nibabel: Any = pytest.importorskip("nibabel", reason="nibabel, which writes and reads the files, is not installed")
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([-0.5, -0.75, 3.0, 1.0]))
    content = bytearray(image.to_bytes())
    offsets = {"dim": (40, "<8h"), "srow_x": (280, "<4f"), "pixdim": (76, "<8f")}
    for name, value in fields.items():
        at, layout = offsets[name]
        struct.pack_into(layout, content, at, *value)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"srow_x": (np.nan, 0, 0, 0)}, "where its axes point to is not finite"),
        ({"srow_x": (0, 0, 0, 0)}, "is damaged, truncated or no NIfTI file"),
        ({"dim": (3, 32767, 32767, 32767, 1, 1, 1, 1)}, "claims to hold"),
        ({"dim": (3, 2, 3, 0, 1, 1, 1, 1)}, "is damaged or truncated"),
        ({"pixdim": (1, np.inf, 0.75, 3, 1, 1, 1, 1)}, "needs a positive spacing"),
    ],
)
def test_volumes_whose_header_is_damaged(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    path = nifti(tmp_path / "a.nii", **fields)
    refused(lambda: read_nifti(path), path, message)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelSpacing": [0.5]}, "is no readable DICOM file"),
        ({"RescaleSlope": None}, "is no readable DICOM file"),
        ({"RescaleSlope": 1e38}, "values are NaN or infinite"),
        ({"Rows": 65535, "Columns": 65535}, "claims to hold"),
        ({"PixelSpacing": [0.0, 0.5]}, "needs a positive spacing"),
    ],
)
def test_dicom_values_that_no_slice_has(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    pydicom: Any = pytest.importorskip("pydicom", reason="pydicom, which writes and reads the files, is not installed")
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset = pydicom.dataset.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = meta.MediaStorageSOPClassUID, "1.2.3.4", "CT"
    dataset.Rows, dataset.Columns = 2, 2
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PixelSpacing, dataset.RescaleSlope, dataset.RescaleIntercept = [0.5, 0.5], 1, -1024
    dataset.PixelData = b"\1\2\3\4\5\6\7\x08"
    for name, value in tags.items():
        setattr(dataset, name, value)
    path = tmp_path / "a.dcm"
    dataset.save_as(path, enforce_file_format=True)
    refused(lambda: read_dicom(path), path, message)


# Configurations.

LAUGHS = "\n".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: 2001-99-99", "is no YAML: month must be in 1..12"),
        ("[" * 3000, "is no YAML: maximum recursion depth exceeded"),
        ("model: &a {init_args: {task: {architecture: *a}}}", "has an alias .* inside what it stands for"),
        ("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + LAUGHS, "or more than 100000 values"),
    ],
)
def test_yaml_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    refused(lambda: read_yaml(path), path, message, ConfigurationError)


def test_an_option_that_is_no_date() -> None:
    assert merged(["--data.day=2001-99-99"]) == {"data": {"day": "2001-99-99"}}


# Checkpoints.


@pytest.mark.parametrize("fault", ["packed", "overlapping"])
def test_a_checkpoint_that_unpacks_to_more_than_it_is(tmp_path: Path, fault: str) -> None:
    good, path = tmp_path / "good", tmp_path / "last.ckpt"
    write_checkpoint({"state_dict": {"weight": torch.zeros(1000)}, "loops": {}}, good)
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED if fault == "packed" else zipfile.ZIP_STORED)
    if fault == "overlapping":
        content = bytearray(path.read_bytes())
        at = content.index(b"PK\x01\x02")
        content[at + 24 : at + 28] = struct.pack("<I", 1 << 30)
        path.write_bytes(content)
    refused(lambda: read_checkpoint(path), path, "it is packed, or its parts overlap", CheckpointError)


def test_a_checkpoint_whose_pickle_names_other_protocols(tmp_path: Path) -> None:
    good, path = tmp_path / "good", tmp_path / "last.ckpt"
    write_checkpoint({"state_dict": {"weight": torch.zeros(3)}, "loops": {}}, good)
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            pickled = bytes.fromhex("805d802b8080802b8080802b67802b67")
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")  # as errors they would be among those that are translated
        with pytest.raises(CheckpointError, match="it holds something else"):
            read_checkpoint(path)
    assert not heard
