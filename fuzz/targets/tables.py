"""Tables in .npz and .csv files."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fuzz.harness import Target
from implicit_l2o.data.tables import read_arrays, read_inputs


def read(data: bytes, folder: Path) -> None:
    """The first byte says how the file is read, and whether the input is an archive or one array in a good one."""
    kind, content = data[0] % 5 if data else 0, data[1:]
    path = folder / ("table.csv" if kind in (3, 4) else "table.npz")
    path.write_bytes(_zipped(content) if kind == 2 else content)
    if kind in (1, 4):
        read_inputs(path, shape=(2,))
    else:
        read_arrays(path)


def _zipped(array: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d.npy", array)
    return stream.getvalue()


def _archive(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]
    return stream.getvalue()


def _array(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def seeds() -> Iterator[bytes]:
    """Archives, arrays and tables with what may be in them."""
    arrays = {"d": np.arange(6.0).reshape(3, 2), "label": np.arange(3), "name": np.array(["a", "b", "c"])}
    yield b"\0" + _archive(**arrays)
    yield b"\1" + _archive(d=arrays["d"])
    for array in (
        *arrays.values(),
        np.float32(3.0),
        np.zeros(2, [("a", int), ("b", "f4", 3)]),
        np.zeros((0, 4), ">c8"),
    ):
        yield b"\2" + _array(np.asarray(array))
    yield b"\3a,b,name\n1,2.5,first\n3,,second\n"
    yield b'\3"a ""x""",b\n1e308,"2\n3"\n'
    yield b"\4a,b\n1,2\n-3,4e5\n"
    yield "\4größe;b\n1;2\n".encode("latin-1")


TARGET = Target(
    read=read,
    seeds=seeds,
    errors=(ValueError, OSError),
    words=(
        *(b"\x93NUMPY\x01\x00", b"'descr': ", b"'<f8'", b"'|O'", b"'fortran_order': ", b"'shape': (", b"1000000000000"),
        *(b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"nan", b'"', b"\r\n", b"\xff\xfe", b",,"),
    ),
    most_bytes=8192,
)
