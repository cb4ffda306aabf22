"""Checkpoints of a training."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from fuzz.harness import Target
from implicit_l2o.training import CheckpointError, read_checkpoint


def read(data: bytes, folder: Path) -> None:
    """The first byte says whether the input is the file or the list of its contents in a good one."""
    path = folder / "last.ckpt"
    path.write_bytes(data[1:] if not data or data[0] % 2 == 0 else _with(data[1:]))
    read_checkpoint(path, require=("state_dict", "loops"))


def _good() -> bytes:
    stream = io.BytesIO()
    content = {
        "state_dict": {
            "weight": torch.arange(6.0).reshape(2, 3),
            "steps": torch.tensor(3),
            "half": torch.ones(2).bfloat16(),
        },
        "loops": {"fit": {"step": 7, "names": ["a", None, ("b", 1.5, b"c")], "done": {True}}},
    }
    torch.save(content, stream)
    return stream.getvalue()


def _parts() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(_good())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _with(pickled: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in _PARTS.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)
    return stream.getvalue()


_PARTS = _parts()


def seeds() -> Iterator[bytes]:
    """A checkpoint, and its list of contents."""
    yield b"\0" + _good()
    yield b"\1" + next(content for name, content in _PARTS.items() if name.endswith("data.pkl"))


TARGET = Target(
    read=read,
    seeds=seeds,
    errors=(CheckpointError,),
    words=(
        *(
            b"PK\x03\x04",
            b"PK\x01\x02",
            b"PK\x05\x06",
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"cbuiltins\nbytearray\n",
        ),
        *(
            b"ctorch\nSize\n",
            b"ccollections\nOrderedDict\n",
            b"cos\nsystem\n",
            b"R",
            b"(",
            b"t",
            b"\x80\x02",
            b"q\x00",
            b"\x85",
        ),
        *(b"ctorch\nFloatStorage\n", b"X\x07\x00\x00\x00storage", b"Q", b"J\xff\xff\xff\x7f", b"\x8a\x08"),
    ),
    most_bytes=4096,
)
