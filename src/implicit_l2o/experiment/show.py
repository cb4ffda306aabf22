"""A run's results for people, in the terminal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from implicit_l2o.experiment.errors import ConfigurationError
from implicit_l2o.experiment.folder import RunFolder
from implicit_l2o.report import interval
from implicit_l2o.report.html import build_report, build_summary


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Test metrics of the model and its baselines, mean and 95 % interval where there are several seeds."""
    first = results[0]
    names = list(first["metrics"])
    rows = [["test", *names]]
    for method, label in first["labels"].items():
        cells = [_cell([result["test"][method].get(name) for result in results]) for name in names]
        rows.append([label, *cells])
    counts = _certificates(results)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([*lines, *counts])


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return str(interval(known)) if len(known) == len(values) and known else "-"


def _certificates(results: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(results[0]["certificates"])
    if not names:
        return []
    width = max(map(len, names))
    lines = ["", f"{'certificates':<{width + 2}}  PASS  WARN  FAIL"]
    for name in names:
        sums = [sum(result["certificates"][name][label] for result in results) for label in ("PASS", "WARN", "FAIL")]
        lines.append(f"  {name:<{width}}  " + "  ".join(f"{count:>4}" for count in sums))
    return lines


def rebuild(run: Path) -> Path:
    """Build the report of a run again, and those of its seeds.

    Raises:
        ConfigurationError: the folder holds no run.
    """
    folder = RunFolder(run)
    if not (folder.results.is_file() or folder.summary.is_file()):
        what = "holds no results.json, nor summary.json" if run.is_dir() else "is no folder of a run"
        raise ConfigurationError(f"{run} {what}; `il2o run` writes it.")
    if not folder.summary.is_file():
        return build_report(run)
    for seed in json.loads(folder.summary.read_text())["seeds"]:
        if folder.seed(seed).results.is_file():
            build_report(folder.seed(seed).path)
    return build_summary(run)
