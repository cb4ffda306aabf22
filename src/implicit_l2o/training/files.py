"""Files that are whole or not there: written under another name, flushed to the disk, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"  # ends the name of a file that is being written


class FileError(OSError):
    """A file could not be written or read; the message is one line that names the file and the reason."""


def reason(error: BaseException) -> str:
    """What went wrong in the system's words: `No space left on device`."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends well, and only then.

    Until then, and after a failure, `path` is what it was before. The new content is on the disk when the block ends.

    Args:
        path: the file to make or to replace. Its folder is made where it is missing.

    Raises:
        FileError: the folder cannot be written to, or the disk is full.

    Example:
        >>> import pathlib, tempfile
        >>> from implicit_l2o.training.files import replacing
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name) / "answer.txt"
        >>> with replacing(path) as file:
        ...     _ = file.write(b"42")
        >>> path.read_text()
        '42'
        >>> folder.cleanup()
    """
    path = Path(path)
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        _flush_folder(path.parent)
    except FileError:
        raise
    except OSError as error:
        former = "The former file is unchanged." if path.is_file() else "No file was left there."
        raise FileError(f"Cannot write {path}: {reason(error)}. {former}") from error


def remove_partial(folder: Path, ending: str) -> None:
    """Remove what killed processes left half written in a folder: the partial files of names with this ending."""
    with suppress(OSError):
        for path in folder.glob(f"*{ending}{PARTIAL}"):
            with suppress(OSError):
                path.unlink()


def _flush_folder(folder: Path) -> None:
    """Make a renaming last through a loss of power, where the system can do that for folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
