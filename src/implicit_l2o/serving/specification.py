"""A model as class paths and arguments: plain JSON values, from which classes of named packages alone are made."""

import dataclasses
import importlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from implicit_l2o.serving.errors import LayerError
from implicit_l2o.serving.servable import AbstractServable

OWN = "implicit_l2o"
_FIELDS = {"class_path", "init_args"}
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
# The parts of this package that train, and would bring their packages.
_TRAINING = tuple(f"{OWN}.{name}" for name in ("training", "experiment", "report", "cli", "testing", "interop"))
_DEEPEST = 20


def class_path(cls: type) -> str:
    """Where a class is imported from.

    Raises:
        LayerError: it is made inside a function, or in a script.
    """
    if "<locals>" in cls.__qualname__ or cls.__module__ == "__main__":
        raise LayerError(f"{cls.__qualname__} cannot be loaded again: its class must stand at the top of a module.")
    return f"{cls.__module__}.{cls.__qualname__}"


def describe(value: Any, name: str = "init_args") -> Any:
    """An argument as plain JSON values: a dataclass becomes its class path and its fields.

    Raises:
        LayerError: something in it is neither plain nor a dataclass of such.

    Example:
        >>> import implicit_l2o as il2o
        >>> from implicit_l2o.serving.specification import describe
        >>> describe(il2o.JFB())
        {'class_path': 'implicit_l2o.backward.jfb.JFB', 'init_args': {}}
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise LayerError(f"{name} is {value}; a layer is saved with finite numbers.")
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise LayerError(f"{name} has keys that are no strings.")
        return {key: describe(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return {"class_path": class_path(type(value)), "init_args": describe(fields, name)}
    raise LayerError(
        f"{name} is a {type(value).__name__}; a layer is saved with numbers, strings, lists, dataclasses of such, and "
        '{"class_path": ..., "init_args": {...}}.'
    )


def build(specification: Any, *, allow: Sequence[str] = ()) -> AbstractServable:
    """The model that a specification describes, with fresh weights.

    Only classes are made, never functions called; only classes of this package and of `allow` are imported; the outermost is
    an `AbstractServable`, the others are modules and dataclasses.

    Args:
        specification: `{"class_path": ..., "init_args": {...}}`, nested.
        allow: packages, or modules of them, beside `implicit_l2o` whose classes may be made.

    Raises:
        LayerError: a class is not allowed or not there, or does not take the arguments.

    Example:
        >>> from implicit_l2o.serving.specification import build
        >>> path = "implicit_l2o.applications.shortest_path.served.ServedPaths"
        >>> type(build({"class_path": path, "init_args": {"side": 3}})).__name__
        'ServedPaths'
    """
    for name in allow:
        if not _PACKAGE.fullmatch(name):
            raise LayerError(f"allow takes names of packages such as my_package; got {name!r}.")
    if not _is_specification(specification):
        raise LayerError("its layer is not described by class_path and init_args.")
    model = _make(specification, (OWN, *allow), 0)
    if not isinstance(model, AbstractServable):
        raise LayerError(f"{specification['class_path']} is no AbstractServable, so it cannot answer.")
    return model


def _is_specification(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value and set(value) <= _FIELDS


def _make(value: Any, allow: Sequence[str], depth: int) -> Any:
    if depth > _DEEPEST:
        raise LayerError(f"its layer is nested more than {_DEEPEST} times.")
    if isinstance(value, list):
        return tuple(_make(item, allow, depth + 1) for item in value)
    if not isinstance(value, dict):
        return value
    if not _is_specification(value):
        return {key: _make(item, allow, depth + 1) for key, item in value.items()}
    arguments = value.get("init_args", {})
    if not isinstance(arguments, dict):
        raise LayerError(f"the init_args of {value['class_path']} are no table of arguments.")
    cls = _resolve(value["class_path"], allow)
    if not (issubclass(cls, AbstractServable) if depth == 0 else _may_be_part(cls)):
        kind = "an AbstractServable" if depth == 0 else "a module or a dataclass"
        raise LayerError(f"{value['class_path']} is not {kind}, so it is not made.")
    made = {key: _make(item, allow, depth + 1) for key, item in arguments.items()}
    try:
        return cls(**made)
    except (TypeError, ValueError, AttributeError) as error:
        raise LayerError(f"{value['class_path']} does not take its init_args: {error}") from error


def _may_be_part(cls: type) -> bool:
    return issubclass(cls, nn.Module) or dataclasses.is_dataclass(cls)


def _resolve(path: Any, allow: Sequence[str]) -> type:
    """The class at a path; nothing outside the allowed packages is imported, nor taken from them if it came from outside."""
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise LayerError(f"{path!r} is no class path such as my_package.module.Class.")
    _check_allowed(path, path, allow)
    parts = path.split(".")
    shortest = min(name.count(".") + 1 for name in allow if _within(path, name))
    for end in range(len(parts) - 1, shortest - 1, -1):
        module_name = ".".join(parts[:end])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not _within(module_name, error.name):
                raise LayerError(f"{path} needs {error.name}, which is not installed.") from error
            continue
        for name in parts[end:]:
            found = getattr(found, name, None)
        if not isinstance(found, type):
            raise LayerError(f"there is no class {path}.")
        _check_allowed(found.__module__, path, allow)
        return found
    raise LayerError(f"there is no module {'.'.join(parts[:-1])}.")


def _check_allowed(name: str, path: str, allow: Sequence[str]) -> None:
    if not any(_within(name, package) for package in allow):
        raise LayerError(
            f"{path} is not in {' or '.join(allow)}; nothing of it was imported. If you trust it, name its package: "
            f"allow={name.split('.')[0]!r}."
        )
    if any(_within(name, package) for package in _TRAINING):
        raise LayerError(f"{path} belongs to the training or its tools, and is not loaded here.")


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")
