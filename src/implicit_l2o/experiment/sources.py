"""The configuration as the user wrote it: YAML files, and the options after them."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from implicit_l2o.experiment.errors import ConfigurationError, one_line

_MOST = 100_000  # values of a configuration
NODE = ("class_path", "init_args", "dict_kwargs")  # the keys of a class in a configuration


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration file.

    Raises:
        ConfigurationError: it is not there or not readable, no YAML, empty, or no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no text in UTF-8, hence no YAML.") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is no YAML: {_what(error)}") from error
    except Exception as error:  # such as a date that does not exist, or brackets a thousand deep
        raise ConfigurationError(f"{path} is no YAML: {one_line(error)}") from error
    if content is None:
        raise ConfigurationError(f"{path} is empty; a configuration has at least the keys model and data.")
    if not isinstance(content, dict):
        kind = {list: "a list", str: "a text"}.get(type(content), f"a {type(content).__name__}")
        raise ConfigurationError(f"{path} must hold keys and values, such as `model: ...`; it holds {kind}.")
    if _written_out(content) > _MOST:
        raise ConfigurationError(
            f"{path} has an alias (*name) inside what it stands for, or more than {_MOST} values when they are written out."
        )
    return content


def _written_out(value: Any, above: frozenset[int] = frozenset()) -> int:
    """How many values there are without aliases, counted until there are too many; an alias inside itself is too many."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) in above:
        return _MOST + 1
    total = 1
    for item in value.values() if isinstance(value, dict) else value:
        total += _written_out(item, above | {id(value)})
        if total > _MOST:
            break
    return total


def _what(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    return f"{where}{one_line(problem)}"


def config_files(arguments: Sequence[str]) -> list[Path]:
    """The YAML files among the arguments of a command."""
    return [Path(str(value)) for key, value in options(arguments) if key in ("config", "c")]


def see_beside(files: Sequence[Path]) -> None:
    """Make the modules importable that lie beside a configuration, after those of the working directory."""
    for file in files:
        folder = str(file.resolve().parent)
        if file.is_file() and folder not in sys.path:
            sys.path.append(folder)


def merged(arguments: Sequence[str]) -> dict[str, Any]:
    """What the files and the options say together, later ones over earlier ones."""
    found: dict[str, Any] = {}
    for key, value in options(arguments):
        if key in ("config", "c"):
            _over(found, read_yaml(Path(str(value))))
        else:
            _set(found, key.split("."), value)
    return found


def options(arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Key and value of every option; the value read as YAML, as it will be."""
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            continue
        key, equals, text = word.lstrip("-").partition("=")
        if not equals:
            if not words or words[0].startswith("--"):
                continue  # a flag, such as --print_config
            text = words.pop(0)
        yield key, text if key in ("config", "c") else _value(text)


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except Exception:  # no YAML, or a date that does not exist; the parser says what it is to be
        return text


def _over(old: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        _set(old, [str(key)], value)


def _set(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    key, *rest = keys
    if key.endswith("+"):  # one more in a list
        key = key.removesuffix("+")
        before = tree.get(key)
        tree[key] = [*(before if isinstance(before, list) else []), value]
        return
    if "class_path" in tree and key not in NODE:  # --model.cap stands for --model.init_args.cap
        tree = tree.setdefault("init_args", {})
    before = tree.get(key)
    if rest:
        if isinstance(before, list):  # the last one is meant
            if before and isinstance(before[-1], str):
                before[-1] = {"class_path": before[-1]}
            if before and isinstance(before[-1], dict):
                _set(before[-1], rest, value)
            return
        if not isinstance(before, dict):
            tree[key] = {"class_path": before} if isinstance(before, str) else {}
        _set(tree[key], rest, value)
    elif isinstance(before, dict) and isinstance(value, Mapping):
        _change_class(before, value.get("class_path"))
        _over(before, value)
    elif isinstance(before, dict) and isinstance(value, str) and "class_path" in before:
        _change_class(before, value)
        before["class_path"] = value
    else:
        if key == "class_path":
            _change_class(tree, value)
        tree[key] = dict(value) if isinstance(value, Mapping) else value


def _change_class(node: dict[str, Any], path: Any) -> None:
    """Another class has arguments of its own."""
    if path is not None and node.get("class_path") not in (None, path):
        node.pop("init_args", None)
