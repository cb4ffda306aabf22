"""HDF5: slices of LoDoPaB-CT, and tables."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.harness import Target, Unsound
from implicit_l2o.data.lodopab import SIDE, LodopabSlices
from implicit_l2o.data.tables import read_arrays, read_inputs


def read(data: bytes, folder: Path) -> None:
    """The first byte says how the file is read."""
    kind = data[0] % 3 if data else 0
    path = folder / ("ground_truth_test_000.hdf5" if kind == 0 else "table.h5")
    path.write_bytes(data[1:])
    if kind == 0:
        images = LodopabSlices(folder, "test", size=8, count=2).read([0, 1])
        if not (images.isfinite().all() and images.min() >= 0 and images.max() <= 1):
            raise Unsound("a slice leaves [0, 1]")
    elif kind == 1:
        read_arrays(path)
    else:
        read_inputs(path, shape=(2,))


def _written(fill: Callable[[Any], None], **options: Any) -> bytes:
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as archive:
        fill(archive)
    return stream.getvalue()


def _slices(**options: Any) -> Callable[[Any], None]:
    def fill(archive: Any) -> None:
        archive.create_dataset("data", (2, SIDE, SIDE), np.float32, chunks=(1, SIDE, SIDE), **options)

    return fill


def _compressed(archive: Any) -> None:
    _slices(compression="gzip", shuffle=True, fletcher32=True)(archive)
    archive["data"][0] = 0.5


def _table(archive: Any) -> None:
    archive["d"] = np.arange(6.0).reshape(3, 2)
    archive["group/label"] = np.arange(3)


def _kinds(archive: Any) -> None:
    archive["text"] = "a text"
    archive["d"] = np.zeros(3, [("a", np.int32), ("b", np.float64)])
    archive.create_dataset("x", (4, 2), np.int16, maxshape=(None, 2), chunks=(2, 2), compression="gzip", fillvalue=7)


def seeds() -> Iterator[bytes]:
    """Files in the old and in the latest version of the format."""
    for options in ({}, {"libver": "latest"}):
        for fill in (_slices(), _compressed):
            yield b"\0" + _written(fill, **options)
        for fill in (_table, _kinds):
            yield b"\1" + _written(fill, **options)
        yield b"\2" + _written(_table, **options)


TARGET = Target(
    read=read,
    seeds=seeds,
    errors=(ValueError, OSError),
    words=(b"TREE", b"HEAP", b"SNOD", b"OHDR", b"FRHP", b"BTHD", b"\x89HDF\r\n\x1a\n", b"data", b"\xff" * 8),
    most_bytes=1 << 14,
)
