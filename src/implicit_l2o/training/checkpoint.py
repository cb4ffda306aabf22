"""Checkpoints that are whole, hold tensors and plain types only, and say in one line what is wrong with them."""

import copy
import numbers
import os
import re
import warnings
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO, cast, final

import numpy as np
import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor

from implicit_l2o.training.files import FileError, reason, remove_partial, replacing

ENDING = ".ckpt"


class CheckpointError(FileError):
    """A checkpoint could not be written or read; the message is one line that names the file and what to do."""


@final
class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way to its checkpoint files, such that a kill or a full disk never costs the former checkpoint.

    A checkpoint is written under another name in the same folder, flushed to the disk and renamed. It holds tensors and
    plain types only, and is never loaded with anything else. Partial files of killed runs go when the next one is saved.
    Under several processes Lightning lets the first one write.

    Example:
        >>> import lightning.pytorch as pl
        >>> from implicit_l2o.training import AtomicCheckpointIO
        >>> trainer = pl.Trainer(plugins=[AtomicCheckpointIO()], accelerator="cpu", logger=False)
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: something in it is neither a tensor nor plain, or the file cannot be written.
        """
        if storage_options is not None:
            raise TypeError(f"AtomicCheckpointIO takes no storage_options; got {storage_options!r}.")
        write_checkpoint(checkpoint, path)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read a checkpoint, whatever `weights_only` says, without running any code in it.

        Raises:
            CheckpointError: there is none, or it is damaged, or it is no training checkpoint.
        """
        # Through this name alone do Lightning's processes hand weights to the one that started them.
        require = () if Path(path).name == ".temp.ckpt" else ("state_dict", "loops")
        return read_checkpoint(path, map_location=map_location or "cpu", require=require)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)


def write_checkpoint(checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write tensors and plain types to a file, whole or not at all, such that `read_checkpoint` reads them.

    Args:
        checkpoint: nested dictionaries and sequences of tensors, numbers, strings, None. Numbers of NumPy, paths and
            enumerations are written as plain ones.
        path: a local file.

    Raises:
        CheckpointError: something is neither a tensor nor plain, or the file cannot be written.

    Example:
        >>> import pathlib, tempfile, torch
        >>> from implicit_l2o.training import read_checkpoint, write_checkpoint
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name) / "model.ckpt"
        >>> write_checkpoint({"state_dict": {"weight": torch.ones(2)}}, path)
        >>> read_checkpoint(path)
        {'state_dict': {'weight': tensor([1., 1.])}}
        >>> folder.cleanup()
    """
    if "://" in str(path):
        raise CheckpointError(f"Cannot write {path}: checkpoints are written to local folders only.")
    path = Path(path)
    content = _plain(dict(checkpoint), "", path)
    remove_partial(path.parent, ENDING)
    try:
        with replacing(path) as file:
            sink = _Sink(file)
            try:
                torch.save(content, cast(BinaryIO, sink))
            except RuntimeError:
                if sink.error is None:
                    raise
            if sink.error is not None:
                raise sink.error
    except FileError as error:
        raise CheckpointError(str(error)) from error


def read_checkpoint(
    path: str | os.PathLike[str], *, map_location: Any = "cpu", require: Sequence[str] = ()
) -> dict[str, Any]:
    """Read what `write_checkpoint` or a training wrote, checked against its checksums, without running any code in it.

    Args:
        path: the file.
        map_location: the device of its tensors, as for `torch.load`.
        require: keys that it must have.

    Raises:
        CheckpointError: there is no such file, it is truncated or altered, it is no checkpoint, or it holds objects other
            than tensors and plain types. The message says which other checkpoint of the folder can be read.
    """
    path = Path(path)
    try:
        return _read(path, map_location, require)
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_alternatives(path, require)}") from error.__cause__


def _read(path: Path, map_location: Any, require: Sequence[str]) -> dict[str, Any]:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a checkpoint.")
    if not path.exists():
        raise CheckpointError(f"There is no checkpoint {path}.")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {reason(error)}.") from error
    if start != b"PK\x03\x04":
        raise CheckpointError(f"{path} is not a checkpoint, or its beginning is damaged.")
    try:
        # torch.load does not compare the checksums that torch.save writes.
        with zipfile.ZipFile(path) as archive:
            if _unpacks(archive, path.stat().st_size):
                raise CheckpointError(f"{path} is no checkpoint: it is packed, or its parts overlap.")
            damaged = archive.testzip()
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged directory of the archive leads to
        raise CheckpointError(f"{path} is truncated or damaged.") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: its part {damaged} does not match its checksum.")
    try:
        with warnings.catch_warnings():  # a foreign pickle may warn as often as it names another protocol
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        # torch's own message is long, and advises to load it nevertheless.
        found = re.search(r"GLOBAL (\S+)", str(error))
        other = found.group(1) if found else f"something else ({type(error).__name__})"
        raise CheckpointError(
            f"{path} is not a checkpoint of tensors and plain types: it holds {other}; nothing of it was run."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint: it holds one {type(content).__name__}.")
    if missing := [key for key in require if key not in content]:
        raise CheckpointError(f"{path} is not a checkpoint of a training: it has no {', '.join(missing)}.")
    return content


def _unpacks(archive: zipfile.ZipFile, size: int) -> bool:
    """Whether an archive holds more than its size: torch.save packs nothing, so nobody's memory need be filled."""
    parts = archive.infolist()
    return (
        any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(part.file_size for part in parts) > size
    )


def _alternatives(path: Path, require: Sequence[str]) -> str:
    """Which other checkpoints in the folder can be read, the newest first."""
    try:
        others = [other for other in path.parent.glob(f"*{ENDING}") if other != path and other.is_file()]
        others.sort(key=lambda other: other.stat().st_mtime, reverse=True)
    except OSError:
        others = []
    readable = []
    for other in others:
        try:
            _read(other, "cpu", require)
        except CheckpointError:
            continue
        readable.append(other.name)
    if readable:
        return f"In the same folder can be read: {', '.join(readable)}."
    return "No other checkpoint in its folder can be read."


class _Sink:
    """Takes what torch.save writes, and keeps the first error: torch would hide it behind one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.error: OSError | None = None
        self._file = file

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """The file is flushed when all is written."""


# What torch.load(weights_only=True) makes without being told.
_ATOMS = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)


def _plain(value: Any, name: str, path: Path) -> Any:
    """The same with plain types only; tensors are shared."""
    if type(value) in _ATOMS or isinstance(value, Tensor):
        return value
    for kind, convert in _CONVERSIONS:
        if isinstance(value, kind):
            return _plain(convert(value), name, path)
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        # An ordered dictionary keeps its attributes: there a module's state has the versions of its layers.
        out: Any = copy.copy(value) if type(value) in (OrderedDict, Counter) else dict(value)
        for key, item in value.items():
            if type(key) not in _ATOMS and not isinstance(key, Enum):
                raise CheckpointError(f"Cannot save {path}: {name or 'it'} has the key {key!r}, which is not plain.")
            out[key] = _plain(item, f"{name}.{key}".lstrip("."), path)
        return {k.value if isinstance(k, Enum) else k: v for k, v in out.items()} if type(out) is dict else out
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(item, f"{name}[{i}]", path) for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else set(items) if isinstance(value, set | frozenset) else items
    raise CheckpointError(
        f"Cannot save {path}: {name} is a {type(value).__module__}.{type(value).__qualname__}; "
        "a checkpoint holds tensors, numbers, strings and their dictionaries and lists."
    )


_CONVERSIONS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: value.value),
    (np.generic, lambda value: value.item()),
    (os.PathLike, os.fspath),
    (numbers.Integral, int),  # and what derives from the plain ones
    (numbers.Real, float),
    (str, lambda value: str.__str__(value)),
)
