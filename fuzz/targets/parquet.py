"""Parquet: labelled images of the public hub, and tables."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.harness import Target, Unsound
from implicit_l2o.data.images import load_mnist
from implicit_l2o.data.tables import read_arrays, read_inputs

_NAME = "test-00000-of-00001.parquet"


def read(data: bytes, folder: Path) -> None:
    """The first byte says how the file is read, and whether the input is the file or an image in a good one."""
    kind = data[0] % 4 if data else 0
    if kind < 2:
        (folder / _NAME).write_bytes(data[1:] if kind == 0 else _images([data[1:]], [3]))
        found = load_mnist(folder, split="test", cache=folder, progress=False)
        if found.images.shape != (len(found.labels), 28, 28) or not ((found.labels >= 0) & (found.labels < 10)).all():
            raise Unsound(f"images {found.images.shape} with the labels {np.unique(found.labels)}")
        return
    path = folder / "table.parquet"
    path.write_bytes(data[1:])
    if kind == 2:
        read_arrays(path)
    else:
        read_inputs(path, shape=(2,))


def _written(columns: dict[str, Any], **options: Any) -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream, **options)
    return stream.getvalue()


def _images(encoded: list[bytes], labels: list[int]) -> bytes:
    return _written({"image": [{"bytes": data, "path": None} for data in encoded], "label": labels})


def _encoded(kind: str, pixels: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def seeds() -> Iterator[bytes]:
    """Images as the hub has them and in other formats; tables of numbers, lists, texts, under several compressions."""
    grey = np.arange(784, dtype=np.uint8).reshape(28, 28)
    png = _encoded("png", grey)
    yield b"\0" + _images([png, png], [0, 9])
    for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp"):
        yield b"\1" + _encoded(kind, grey)
    table = {"d": [[1.0, 2.0], [3.0, 4.0]], "a": [1, None], "name": ["first", "second"], "flag": [True, False]}
    for compression in ("none", "snappy", "gzip"):
        yield b"\2" + _written(table, compression=compression)
    yield b"\2" + _written({"a": [1, 2], "b": [[[1], [2]], [[3], [4]]]}, use_dictionary=False, version="1.0")
    yield b"\3" + _written(table, data_page_version="2.0")


TARGET = Target(
    read=read,
    seeds=seeds,
    errors=(ValueError, OSError),
    words=(
        b"PAR1",
        b"\x89PNG\r\n\x1a\n",
        b"IHDR",
        b"IDAT",
        b"IEND",
        b"zTXt",
        b"\xff\xd8\xff",
        b"label",
        b"bytes",
        b"image",
    ),
    most_bytes=1 << 13,
)
