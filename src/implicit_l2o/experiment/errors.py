"""What is wrong with a configuration, in words that name the key and the valid ones."""

import re
import sys
import traceback
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

_PACKAGE = str(Path(__file__).parents[1])
_MOST = 12  # names that are listed; of more, the nearest
_NEAREST = 5
_ALIKE = 0.6  # how alike two names are for one to be the other, mistyped


class ConfigurationError(ValueError):
    """A configuration that cannot be run; its message is for the user."""


def one_line(text: object) -> str:
    """Without line breaks, and with a full stop."""
    line = " ".join(str(text).split())
    return line if line.endswith((".", "!", "?")) else f"{line}."


def unknown(key: str, valid: Iterable[str], owner: str = "") -> str:
    """An unknown key: the valid ones beside it, the nearest first; the owner takes them."""
    parent, _, name = key.rpartition(".")
    names = nearest(name, valid)
    hint = f" Did you mean {names[0]}?" if names and alike(name, names[0]) else ""
    if not names:
        return f"unknown key {key}: {owner or parent} takes none."
    if len(names) <= _MOST:
        return f"unknown key {key}.{hint} Valid: {', '.join(names)}."
    shown = f"{', '.join(names[:_NEAREST])} (all {len(names)}: il2o run CONFIG --print_config)"
    return f"unknown key {key}.{hint} Valid: {shown}."


def nearest(name: str, valid: Iterable[str]) -> list[str]:
    """The valid names, the most alike first."""
    return sorted(dict.fromkeys(valid), key=lambda other: -_likeness(name, other))


def alike(name: str, other: str) -> bool:
    """Whether one may be the other, mistyped."""
    return _likeness(name, other) >= _ALIKE


def _likeness(name: str, other: str) -> float:
    return SequenceMatcher(None, name.lower(), other.lower()).ratio()


def shown(value: Any) -> str:
    """A value as the YAML would have it, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def root(error: BaseException) -> BaseException:
    """The error that a user's or Lightning's class raised, under what jsonargparse made of it."""
    found = error
    seen = {id(error)}
    while _from_parser(found):
        under = found.__cause__ or found.__context__
        if under is None or id(under) in seen:
            break
        seen.add(id(under))
        found = under
    return found


def in_words(error: BaseException) -> str:
    """What an error says; where its kind says that the code is wrong rather than a value, also where it came from."""
    text = one_line(error)
    package = re.search(r"Requirement '([\w.-]+)", text)
    if isinstance(error, ModuleNotFoundError) and (package or error.name):
        name = package[1] if package else error.name
        return f"{name} is not installed: pip install {name}."
    if isinstance(error, OSError) and error.strerror:
        return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror}."
    if isinstance(error, (ValueError, OSError, MisconfigurationException)):
        return text
    return f"{type(error).__name__}: {text}{_place(error)}"


def _place(error: BaseException) -> str:
    """The last line of the user's own code that led to an error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and _PACKAGE not in frame.filename]
    own = [frame for frame in own if not frame.filename.startswith((sys.base_prefix, "<"))]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _from_parser(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).parent.name == "jsonargparse"
