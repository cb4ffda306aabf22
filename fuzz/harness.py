"""What a reader may do with any input, and what is a finding."""

import importlib
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_WARNINGS = 5  # of one reading

TARGETS = ("tntp", "hdf5", "parquet", "tables", "slices", "config", "checkpoint", "request")


class Unsound(AssertionError):
    """A reader took an input and returned what it promises never to return."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reader under test.

    Args:
        read: takes the input and an empty folder, where it may write; raises what the reader raises, `Unsound` where the
            answer breaks a promise of the reader.
        seeds: inputs that the reader takes, from which the others are mutated.
        errors: the clear errors, subclasses of `ValueError` or `OSError`.
        names_file: whether the message of a clear error has to name the file; a configuration's names the key.
        words: that a mutation may put in.
        seconds: an input that takes longer is a hang.
        megabytes: of memory of the whole process; more is a finding.
        most_bytes: of an input.
    """

    read: Callable[[bytes, Path], None]
    seeds: Callable[[], Iterable[bytes]]
    errors: tuple[type[Exception], ...]
    names_file: bool = True
    words: tuple[bytes, ...] = ()
    seconds: int = 10
    megabytes: int = 2048
    most_bytes: int = 1 << 15


@dataclass(frozen=True)
class Finding:
    """Input and reader disagree with the contract.

    Args:
        key: the same for findings that have one cause, as far as the place tells.
        text: what happened.
    """

    key: str
    text: str


def load(name: str) -> Target:
    """The target of this name.

    Raises:
        ModuleNotFoundError: what it reads is not part of this checkout.
    """
    return importlib.import_module(f"fuzz.targets.{name}").TARGET


def judge(target: Target, data: bytes, folder: Path) -> Finding | None:
    """Let a reader read an input; what is wrong with how it does, or None."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            target.read(data, folder)
        except target.errors as error:
            if target.names_file and str(folder) not in str(error):
                return _finding(error, "does not name the file")
        except Exception as error:
            return _finding(error, "is no clear error")
    if len(heard) > MOST_WARNINGS:
        first = heard[0]
        where = f"{Path(first.filename).name}-{first.lineno}"
        return Finding(f"warnings-{where}", f"{len(heard)} warnings; the first: {first.message} ({where})")
    return None


def _finding(error: Exception, what: str) -> Finding:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "implicit_l2o" in frame.filename] or list(frames)
    places = [f"{Path(frame.filename).stem}-{frame.name}-{frame.lineno}" for frame in (ours[-1], frames[-1])]
    key = "-".join([type(error).__name__, *dict.fromkeys(places)])
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in key)
    message = " ".join(str(error).split())[:300]
    return Finding(safe, f"{type(error).__name__} {what}: {message} (at {' under '.join(dict.fromkeys(places))})")


def emptied(folder: Path) -> Path:
    """The folder, without its files."""
    for path in folder.iterdir():
        if path.is_file() or path.is_symlink():
            path.unlink()
    return folder
