"""A run folder as a report reads it: files that are absent, cut off or of the wrong shape cost a line, not the report."""

import csv
import io
import json
import math
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import implicit_l2o as il2o

VERDICTS = tuple(label.name for label in il2o.Label)  # from the best to the worst
_HOLDS = (
    "a run folder has results.json and, as far as the run came, config.yaml, metrics.csv, certificates.json, "
    "predictions.npz and figures/."
)


class Property(NamedTuple):
    """A property over the test samples: its values, and the verdicts as indices of `VERDICTS` (None where unknown)."""

    name: str
    values: list[float | None]
    verdicts: list[int | None]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What is known of each test sample; a column that the run did not write is None.

    Args:
        count: of the samples.
        status: names of `Status`.
        worst: indices of `VERDICTS`.
        steps: iterations of the solve.
        residual: of the solve.
        error: of the answer, as the application measures it.
        properties: the certificates.
        more: columns of predictions.npz that are one number a sample: the answer, the target.
    """

    count: int
    status: list[str] | None = None
    worst: list[int | None] | None = None
    steps: list[float | None] | None = None
    residual: list[float | None] | None = None
    error: list[float | None] | None = None
    properties: list[Property] = field(default_factory=list)
    more: dict[str, list[float | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The readable content of a run folder.

    Args:
        path: the folder.
        results: results.json.
        metrics: columns of metrics.csv, NaN where a cell is empty; empty without the file.
        rules: of certificates.json, by property.
        limits: of certificates.json, by property: the largest value that passes, and that does not fail.
        samples: None where nothing is known of them.
        config: the text of config.yaml.
        notes: what is absent or could not be read, one sentence each.
    """

    path: Path
    results: dict[str, Any]
    metrics: dict[str, NDArray[np.floating]]
    rules: dict[str, dict[str, Any]]
    limits: dict[str, tuple[float, float]]
    samples: Samples | None
    config: str | None
    notes: list[str]


def read_run(folder: Path) -> RunFolder:
    """Read what a run folder has.

    Raises:
        FileNotFoundError: it has no results.json.
        ValueError: results.json is not a complete JSON object.
    """
    results = read_object(folder, "results.json", _HOLDS)
    notes: list[str] = []
    try:
        stored = read_object(folder, "certificates.json", "")
    except FileNotFoundError:
        stored = {}
        notes.append("certificates.json is absent: nothing is known of single samples' certificates.")
    except ValueError as error:
        stored = {}
        notes.append(str(error))
    arrays = _arrays(folder, notes)
    return RunFolder(
        path=folder,
        results=results,
        metrics=_metrics(folder, notes),
        rules={name: rule for name, rule in mapping(stored.get("rules")).items() if isinstance(rule, dict)},
        limits=_limits(stored),
        samples=_samples(stored, arrays, notes),
        config=_config(folder, notes),
        notes=notes,
    )


def read_object(folder: Path, name: str, holds: str) -> dict[str, Any]:
    """A JSON object from a file of the folder.

    Args:
        folder: where it is.
        name: of the file.
        holds: says what such a folder has, for who gave another one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a complete JSON object.
    """
    try:
        content = json.loads((folder / name).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{folder} has no {name}: {holds}") from None
    except (ValueError, RecursionError) as error:  # no JSON, or no UTF-8
        raise ValueError(f"{folder / name} is damaged or cut off, no complete JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{folder / name} holds a JSON {type(content).__name__}; it must be an object.")
    return content


def mapping(value: object) -> dict[str, Any]:
    """The value where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    """The value where it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def number(value: object) -> float | None:
    """The value where it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the largest float
        return None


def text(value: object) -> str:
    """The value as a text without control characters; empty for what is neither text nor number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    printable = "".join(c if c.isprintable() else " " for c in str(value))
    return printable.encode("utf-8", "replace").decode("utf-8").strip()


def _metrics(folder: Path, notes: list[str]) -> dict[str, NDArray[np.floating]]:
    try:
        content = (folder / "metrics.csv").read_text(encoding="utf-8", errors="replace").replace("\0", "")
    except OSError:
        notes.append("metrics.csv is absent: there are no training curves.")
        return {}
    lines = content.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        notes.append("The last line of metrics.csv is cut off and left out.")
        lines = lines[:-1]
    try:
        rows = list(csv.reader(io.StringIO("".join(lines), newline="")))
    except csv.Error as error:
        notes.append(f"metrics.csv cannot be read: {error}.")
        return {}
    if len(rows) < 2:
        notes.append("metrics.csv has no rows: there are no training curves.")
        return {}
    names = rows[0]
    whole = [row for row in rows[1:] if len(row) == len(names)]
    if len(whole) < len(rows) - 1:
        notes.append(f"{len(rows) - 1 - len(whole)} rows of metrics.csv do not match its header and are left out.")
    return {name: np.array([_cell(row[i]) for row in whole], dtype=float) for i, name in enumerate(names)}


def _cell(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _config(folder: Path, notes: list[str]) -> str | None:
    try:
        return (folder / "config.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        notes.append("config.yaml is absent: the run cannot be repeated from this folder alone.")
        return None


def _arrays(folder: Path, notes: list[str]) -> dict[str, NDArray]:
    """The arrays of predictions.npz that have one number a sample."""
    path = folder / "predictions.npz"
    if not path.is_file():
        notes.append("predictions.npz is absent: the answers behind this report were not saved.")
        return {}
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            loaded = {name: file[name] for name in file.files if name in _WANTED}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        notes.append(f"predictions.npz is damaged or cut off ({type(error).__name__}).")
        return {}
    return {name: array for name, array in loaded.items() if array.ndim == 1 and array.dtype.kind in "biuf"}


_WANTED = ("answer", "target", "status", "residual", "steps", "error")


def _limits(stored: dict[str, Any]) -> dict[str, tuple[float, float]]:
    found = {}
    for name, pair in mapping(stored.get("limits")).items():
        numbers = [number(limit) for limit in sequence(pair)]
        if len(numbers) == 2 and numbers[0] is not None and numbers[1] is not None and numbers[0] <= numbers[1]:
            found[name] = (numbers[0], numbers[1])
    return found


def _samples(stored: dict[str, Any], arrays: dict[str, NDArray], notes: list[str]) -> Samples | None:
    """The columns of certificates.json, else of predictions.npz, all of one length."""
    table = mapping(stored.get("samples"))
    values, labels = mapping(table.get("values")), mapping(table.get("labels"))
    columns = {name: column for name, column in table.items() if isinstance(column, list)}
    lengths = [len(column) for column in columns.values()]
    lengths += [len(column) for part in (values, labels) for column in part.values() if isinstance(column, list)]
    lengths = lengths or [len(array) for array in arrays.values()]
    if not lengths or max(lengths) == 0:
        return None
    size = max(set(lengths), key=lambda length: (lengths.count(length), length))

    def read(column: object, name: str) -> list[Any] | None:
        if not isinstance(column, list):
            return None
        if len(column) != size:
            notes.append(f"{name} has {len(column)} entries for {size} samples and is left out.")
            return None
        return column

    def numbers(name: str) -> list[float | None] | None:
        column = read(columns.get(name), f"The column {name!r} of certificates.json")
        if column is None and name in arrays:
            column = read(arrays[name].tolist(), f"The array {name!r} of predictions.npz")
        return None if column is None else [number(value) for value in column]

    status = read(columns.get("status"), "The column 'status' of certificates.json")
    if status is None and "status" in arrays and len(arrays["status"]) == size:
        status = [_status(code) for code in arrays["status"].tolist()]
    properties = []
    for name in dict.fromkeys([*values, *labels]):
        column = read(values.get(name), f"The property {text(name)!r} of certificates.json")
        verdicts = read(labels.get(name), f"The labels of {text(name)!r} in certificates.json")
        if column is not None or verdicts is not None:
            properties.append(
                Property(name, [number(v) for v in column or [None] * size], _verdicts(verdicts or [None] * size))
            )
    worst = read(columns.get("worst"), "The column 'worst' of certificates.json")
    if worst is None and properties:
        known = [
            [v for v in verdicts if v is not None] for verdicts in zip(*(p.verdicts for p in properties), strict=True)
        ]
        worst = [VERDICTS[max(verdicts)] if verdicts else None for verdicts in known]
    more = {name: arrays[name].astype(float) for name in ("answer", "target") if name in arrays}
    return Samples(
        count=size,
        status=None if status is None else [text(name) for name in status],
        worst=None if worst is None else _verdicts(worst),
        steps=numbers("steps"),
        residual=numbers("residual"),
        error=numbers("error"),
        properties=properties,
        more={name: [number(v) for v in array.tolist()] for name, array in more.items() if len(array) == size},
    )


def _verdicts(names: list[Any]) -> list[int | None]:
    return [VERDICTS.index(name) if name in VERDICTS else None for name in names]


def _status(code: int) -> str:
    try:
        return il2o.Status(code).name
    except ValueError:
        return str(code)
