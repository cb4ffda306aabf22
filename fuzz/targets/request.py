"""The body of a request to the server."""

from collections.abc import Iterator
from pathlib import Path

import torch

from fuzz.harness import Target, Unsound
from implicit_l2o.applications.shortest_path.served import ServedPaths
from implicit_l2o.serving import Layer
from implicit_l2o.serving.errors import InputError
from implicit_l2o.serving.http.parse import parse

_MOST = 4
_LAYER = Layer(ServedPaths(side=2, features=2), example=torch.zeros(1, 2))


def read(data: bytes, folder: Path) -> None:
    """The whole input is the body."""
    inputs, _ = parse(data, _LAYER, _MOST)
    if inputs.shape[1:] != (2,) or not 1 <= len(inputs) <= _MOST or not inputs.isfinite().all():
        raise Unsound(f"inputs of the shape {tuple(inputs.shape)}, or not finite")


def seeds() -> Iterator[bytes]:
    """Bodies that are taken, and their like."""
    yield b'{"inputs": [[0.5, 1]]}'
    yield b'{"inputs": [[1, 2], [3e4, -5]], "x": true}'
    yield b'{"x": false, "inputs": [[1.5e300, 1]]}'
    yield b'{"inputs": [["a", null]], "x": 1}'


TARGET = Target(
    read=read,
    seeds=seeds,
    errors=(InputError,),
    names_file=False,
    words=(
        *(
            b'{"inputs": [[',
            b'"x": ',
            b"true",
            b"null",
            b"NaN",
            b"-Infinity",
            b"1e999",
            b"1e39",
            b"[[[[",
            b"]]",
            b"\\u0000",
        ),
        *(b"99999999999999999999", b"-0", b'"inputs":', b"\xef\xbb\xbf", b"\xff\xfe", b"1" * 64),
    ),
    seconds=5,
    most_bytes=8192,
)
