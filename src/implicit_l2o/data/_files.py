"""Files that appear only when they are complete, those that are not what they seem, and the folder of downloads."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SMALL = 1 << 28  # bytes that any file may unpack to
_PACKED = 1100  # deflate, which packs densest of what is read here, packs 1032 to 1


def cache_folder() -> Path:
    """`implicit_l2o` in the user's folder of caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "implicit_l2o"


def check_claim(path: Path, claimed: int) -> None:
    """Raise a `ValueError` where a file claims to hold far more bytes than it can, before they are made room for."""
    size = path.stat().st_size
    if claimed > max(_SMALL, _PACKED * size):
        raise ValueError(
            f"{path} has {size} bytes and claims to hold {claimed}; it is damaged, or made to fill the memory."
        )


@contextmanager
def naming(path: Path, what: str, advice: str = "") -> Iterator[None]:
    """Whatever a broken file provokes in the package that reads it becomes a `ValueError`, its reason in brackets.

    A `ValueError` that begins with the path passes as it is, and so does a package that is not installed.
    """
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}{what} ({reason}){advice}.") from error


@contextmanager
def atomic(target: Path) -> Iterator[Any]:
    """A binary file that appears as `target` only when the block ends well; nothing is left behind when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
