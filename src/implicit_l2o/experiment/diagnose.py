"""Finds the first key that is wrong in a configuration which the parser has refused.

The parser checks everything, but its message grows with the depth of the key and does not list the valid ones. So what the
user wrote is walked beside the signatures, key by key, and each value is given to the parser alone.
"""

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser
from torch import Tensor

from implicit_l2o.experiment.errors import alike, in_words, nearest, one_line, shown, unknown
from implicit_l2o.experiment.sources import NODE, merged

_NO_OBJECTS = ("builtins", "pathlib", "datetime", "enum")  # what a YAML says without a class path

Schema = dict[str, Any]  # annotations by key, schemas where keys have keys of their own


def diagnose(parser: ArgumentParser, arguments: Sequence[str], message: str) -> str:
    """The first thing wrong with the arguments, in one line; the parser's own message where nothing is found.

    Raises:
        ConfigurationError: a file is no configuration at all.
    """
    given = merged(arguments)
    return complaint(parser, given) or _missing(("model", "data"), given) or _flattened(message)


def complaint(parser: ArgumentParser, given: Mapping[str, Any]) -> str | None:
    """The first key that is unknown, or whose value does not fit."""
    schema, _ = _schema(parser)
    return _keys(schema, {key: value for key, value in given.items() if key not in ("print_config", "help")}, "")


def _missing(required: Sequence[str], given: Mapping[str, Any]) -> str | None:
    absent = [key for key in required if not given.get(key)]
    if not absent:
        return None
    hint = "" if "config" in given else " Name a configuration with --config FILE."
    return f"{' and '.join(absent)} must be given.{hint}"


def _flattened(message: str) -> str:
    """The parser's message in one line, the first of its alternatives alone."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    skip = ("Does not validate against any", "Subtypes:", "Errors:", "Given value")
    kept = [line for line in lines if not line.startswith(skip) and "NoneType" not in line]
    return one_line(" ".join(kept[:4]) or message)


def find_nodes(given: Any, cls: type, values: Mapping[str, Any], key: str = "") -> list[str]:
    """The keys at which a configuration has an object of a class that was given these values."""
    if isinstance(given, Mapping):
        inner = ((f"{key}.{name}".lstrip("."), value) for name, value in given.items())
        own = [key] if _is_node(given, cls, values) else []
        return own + [found for name, value in inner for found in find_nodes(value, cls, values, name)]
    if isinstance(given, list):
        return [found for i, item in enumerate(given) for found in find_nodes(item, cls, values, f"{key}[{i}]")]
    return []


def _is_node(given: Mapping[str, Any], cls: type, values: Mapping[str, Any]) -> bool:
    path = given.get("class_path")
    if not isinstance(path, str) or path.rpartition(".")[2] != cls.__name__:
        return False
    arguments = given.get("init_args") or {}
    plain = {name: value for name, value in arguments.items() if isinstance(value, (bool, int, float, str))}
    return all(values.get(name, value) == value for name, value in plain.items())


def _schema(parser: ArgumentParser) -> tuple[Schema, list[str]]:
    """Annotations by key, and the keys that must be given."""
    schema: Schema = {}
    required = []
    for action in parser._actions:
        annotation = getattr(action, "_typehint", None)
        if annotation is None:  # help, and whole groups, whose keys follow
            continue
        *parents, name = action.dest.split(".")
        inner = schema
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = annotation
        if action.required:
            required.append(action.dest)
    return schema, required


def _keys(schema: Schema, given: Mapping[str, Any], key: str, owner: str = "") -> str | None:
    """What is wrong with the keys of a mapping or their values; the owner takes the keys."""
    for name, value in given.items():
        path = f"{key}.{name}".lstrip(".")
        if name not in schema:
            return unknown(path, schema, owner)
        annotation = schema[name]
        if not isinstance(annotation, dict):
            found = _complaint(annotation, value, path)
        elif isinstance(value, Mapping):
            found = _keys(annotation, value, path)
        elif value is None:
            found = None
        else:
            found = f"{path} must have the keys {', '.join(annotation)}; got {shown(value)}."
        if found:
            return found
    return None


def _complaint(annotation: Any, value: Any, key: str) -> str | None:
    """What is wrong with a value; first with the parts of it, so that the deepest key is named."""
    members = _members(annotation)
    classes = tuple(member for member in members if _by_path(member))
    if isinstance(value, list):
        for member in members:
            if get_origin(member) in (list, tuple, Sequence) and get_args(member):
                for i, item in enumerate(value):
                    found = _complaint(get_args(member)[0], item, f"{key}[{i}]")
                    if found:
                        return found
    elif isinstance(value, Mapping):
        for member in members:
            if get_origin(member) is dict:
                for name, item in value.items():
                    found = _complaint(get_args(member)[1], item, f"{key}.{name}")
                    if found:
                        return found
        plain = [member for member in members if dataclasses.is_dataclass(member)]
        if "class_path" not in value and plain:
            schema, _ = _parameters(plain[0])
            return _keys(schema, value, key) or _misfit(annotation, value, key)
        if classes:
            return _class(classes, value, key) or _misfit(annotation, value, key)
    elif isinstance(value, str) and classes and str not in members and not _fits(annotation, value):
        return _class(classes, {"class_path": value}, key) or _misfit(annotation, value, key)
    return _misfit(annotation, value, key)


def _class(bases: tuple[type, ...], value: Mapping[str, Any], key: str) -> str | None:
    """What is wrong with a `class_path` and its `init_args`."""
    path = value.get("class_path")
    if path is None:
        return f"{key}.class_path is missing; {_candidates(bases, '')}"
    if extra := [name for name in value if name not in NODE]:
        return unknown(f"{key}.{extra[0]}", NODE[:2])
    cls = _import(str(path), bases)
    if isinstance(cls, str):
        return f"{key}: {cls} {_candidates(bases, str(path))}"
    if not _fits_class(cls, bases):
        return f"{key}: {path} is no {_names(bases)}. {_candidates(bases, str(path))}"
    if inspect.isabstract(cls):
        return f"{key}: {path} is abstract. {_candidates((cls,), str(path))}"
    schema, required = _parameters(cls)
    given = value.get("init_args") or {}
    if not isinstance(given, Mapping):
        return f"{key}.init_args must hold keys and values; got {shown(given)}."
    if found := _keys(schema, given, f"{key}.init_args", path):
        return found
    if absent := [name for name in required if name not in given]:
        return f"{key}.init_args.{absent[0]} is missing; {path} takes {', '.join(schema)}."
    return None


def _import(path: str, bases: tuple[type, ...]) -> Any:
    """The class of a path or of a known name; a sentence where there is none."""
    module, _, name = path.rpartition(".")
    if not module:
        known = {cls.__name__: cls for cls in _subclasses(bases)}
        return known.get(name, f"there is no {_names(bases)} called {path!r}.")
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            return f"cannot import {path}: there is no module {error.name} here, beside the configuration or installed."
        return f"cannot import {path}: {in_words(error)}"
    except Exception as error:  # whatever the module does
        return f"cannot import {path}: {in_words(error)}"
    return getattr(imported, name, f"cannot import {path}: {module} has no {name}.")


def _fits_class(cls: Any, bases: tuple[type, ...]) -> bool:
    return (isinstance(cls, type) and issubclass(cls, bases)) or (not isinstance(cls, type) and callable(cls))


def _candidates(bases: tuple[type, ...], path: str) -> str:
    """The classes that could be meant."""
    known = {cls.__name__: f"{cls.__module__}.{cls.__name__}" for cls in _subclasses(bases) if _public(cls)}
    name = path.rpartition(".")[2]
    names = nearest(name, known)
    if not names:
        return f"It takes the class path of a {_names(bases)}, such as my_file.MyClass."
    hint = f"Did you mean {names[0]}? " if alike(name, names[0]) and name != names[0] else ""
    more = f", and {len(names) - 6} more" if len(names) > 6 else ""
    return f"{hint}Known: {', '.join(names[:6])}{more}, or the class path of another {_names(bases)}."


def _public(cls: type) -> bool:
    if inspect.isabstract(cls) or cls.__name__.startswith(("_", "Abstract")):
        return False
    parts = cls.__module__.split(".")
    # What an application does not export is its own affair.
    return parts[:2] != ["implicit_l2o", "applications"] or hasattr(sys.modules[".".join(parts[:3])], cls.__name__)


def _subclasses(bases: Sequence[type]) -> list[type]:
    found: dict[type, None] = {}
    for base in bases:
        for cls in type.__subclasses__(base):
            found[cls] = None
            found |= dict.fromkeys(_subclasses((cls,)))
    return list(found)


def _parameters(cls: Any) -> tuple[Schema, list[str]]:
    """What a class or a function that makes one takes, keyword arguments passed on to a base included."""
    parser = ArgumentParser(exit_on_error=False)
    if isinstance(cls, type):
        parser.add_class_arguments(cls, fail_untyped=False)
    else:
        parser.add_function_arguments(cls, fail_untyped=False)
    return _schema(parser)


def _members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(inner for member in get_args(annotation) for inner in _members(member))
    return (annotation,)


def _by_path(member: Any) -> bool:
    """Whether a value of this type is given by a class path."""
    if not isinstance(member, type) or get_origin(member) is not None:
        return False
    return member.__module__ not in _NO_OBJECTS and member is not Tensor


def _misfit(annotation: Any, value: Any, key: str) -> str | None:
    if _fits(annotation, value):
        return None
    return f"{key} must be {_words(annotation)}; got {shown(value)}."


def _fits(annotation: Any, value: Any) -> bool:
    """Whether the parser takes it."""
    if value is None and annotation is not Any:  # which an option without a default takes of any type
        return type(None) in _members(annotation)
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--x", type=annotation)
        parser.parse_object({"x": value})
    except SystemExit:
        return False
    except Exception:  # its errors are of many kinds
        return False
    return True


def _words(annotation: Any) -> str:
    """A type for people."""
    plain = {
        float: "a float",
        int: "an int",
        bool: "true or false",
        str: "a string",
        type(None): "null",
        list: "a list",
        dict: "a mapping",
    }
    members = [member for member in _members(annotation) if getattr(member, "__name__", "") != "Untyped"]
    choices = [choice for member in members if get_origin(member) is Literal for choice in get_args(member)]
    parts = [f"one of {', '.join(dict.fromkeys(map(str, choices)))}"] if choices else []
    for member in members:
        origin, inner = get_origin(member), get_args(member)
        if member in plain:
            parts.append(plain[member])
        elif origin is Literal:
            continue
        elif origin in (list, tuple, Sequence) and inner:
            parts.append(f"a list of {_plural(inner[0])}")
        elif origin is dict:
            parts.append(f"a mapping from names to {_plural(inner[1])}")
        elif _by_path(member):
            parts.append(f"the class of a {member.__name__}")
        else:
            parts.append(str(getattr(member, "__name__", member)).removeprefix("typing."))
    return " or ".join(dict.fromkeys(parts))


def _plural(annotation: Any) -> str:
    words = {float: "floats", int: "ints", str: "strings", bool: "true or false"}
    return words.get(annotation) or f"{_names(_members(annotation))} objects"


def _names(classes: Sequence[Any]) -> str:
    return " or ".join(getattr(cls, "__name__", str(cls)) for cls in classes)
