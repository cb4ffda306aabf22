"""The tables of a report as plain values: methods by metrics, seeds, and the test samples."""

import math
from collections.abc import Mapping
from typing import Any

from implicit_l2o.report import numbers
from implicit_l2o.report.folder import VERDICTS, RunFolder, mapping, number, sequence, text

_FIRST_ROWS = 20  # of the sample table, for a page without scripts


_COSTS = {
    "parameters": ("parameters", numbers.count),
    "seconds_per_epoch": ("time per epoch", numbers.duration),
    "peak_memory": ("peak memory", numbers.memory),
}


def result_table(run: RunFolder) -> dict[str, Any] | None:
    """One row a method, the model first; the best value of each metric is marked, and what the trained ones cost follows."""
    table = _table(run.results, {name: mapping(row) for name, row in mapping(run.results.get("test")).items()})
    return None if table is None else _with_costs(table, run.results)


def _table(results: Mapping[str, Any], test: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    metrics = mapping(results.get("metrics"))
    names = list(metrics) or list(dict.fromkeys(name for row in test.values() for name in row))
    if not test or not names:
        return None
    methods = sorted(test, key=lambda method: method != "model")
    rows = [
        {"method": method, "label": method_label(results, method), "model": method == "model", "cells": []}
        for method in methods
    ]
    for name in names:
        column = [number(test[method].get(name)) for method in methods]
        best = _best(column, better(metrics, name))
        for row, value, written in zip(rows, column, numbers.column(column), strict=True):
            row["cells"].append({"text": written, "best": value is not None and value == best})
    heads = [{"label": metric_label(metrics, name), "better": better(metrics, name)} for name in names]
    return {"heads": heads, "rows": rows}


def _with_costs(table: dict[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of what a method's training cost, where two are known: alone it stands among the training's numbers."""
    costs = {"model": results, **mapping(results.get("training"))}
    for name, (label, write) in _COSTS.items():
        column = [number(mapping(costs.get(row["method"])).get(name)) for row in table["rows"]]
        if sum(value is not None for value in column) < 2:
            continue
        table["heads"].append({"label": label, "better": ""})
        for row, value in zip(table["rows"], column, strict=True):
            row["cells"].append({"text": write(value), "best": False})
    return table


def _best(column: list[float | None], direction: str) -> float | None:
    """The best value; None where nothing can be compared."""
    known = [value for value in column if value is not None]
    if len(known) < 2 or direction not in ("higher", "lower"):
        return None
    return max(known) if direction == "higher" else min(known)


def better(metrics: Mapping[str, Any], name: str) -> str:
    """Whether a metric is better "higher" or "lower"; empty where the run does not say."""
    return text(mapping(metrics.get(name)).get("better")).lower()


def metric_label(metrics: Mapping[str, Any], name: str) -> str:
    """What a reader calls a metric."""
    return text(mapping(metrics.get(name)).get("label")) or text(name)


def method_label(results: Mapping[str, Any], method: str) -> str:
    """What a reader calls a method of the result table."""
    defaults = {"model": "this model", "constant": "constant predictor"}
    return text(mapping(results.get("labels")).get(method)) or defaults.get(method, text(method))


def sample_table(run: RunFolder) -> dict[str, Any] | None:
    """Columns of the test samples; `columns` is what the script reads, `rows` the first rows in words."""
    samples = run.samples
    if samples is None:
        return None
    columns: list[dict[str, Any]] = [{"name": "sample", "kind": "count", "values": list(range(samples.count))}]
    if samples.worst is not None:
        columns.append({"name": "verdict", "kind": "verdict", "values": samples.worst})
    if samples.status is not None:
        names = sorted(set(samples.status))
        columns.append(
            {"name": "status", "kind": "word", "words": names, "values": [names.index(s) for s in samples.status]}
        )
    measured = {"iterations": samples.steps, "residual": samples.residual, "error": samples.error, **samples.more}
    for name, values in measured.items():
        if values is not None:
            whole = all(value is None or value == int(value) for value in values) and name != "residual"
            columns.append({"name": name, "kind": "count" if whole else "value", "values": _short(values)})
    for one in samples.properties:
        column = {"name": text(one.name), "kind": "property", "values": _short(one.values)}
        columns.append(column | {"verdicts": "".join("-" if v is None else str(v) for v in one.verdicts)})
    rows = [[_cell(column, row) for column in columns] for row in range(min(_FIRST_ROWS, samples.count))]
    worst = samples.worst or []
    return {
        "columns": columns,
        "count": samples.count,
        "rows": rows,
        "verdicts": [(word, worst.count(code)) for code, word in enumerate(VERDICTS)]
        if samples.worst is not None
        else [],
    }


def _short(values: list[float | None]) -> list[float | int | None]:
    """Six digits: more than are shown, and half the bytes."""
    short = [None if value is None else float(f"{value:.6g}") for value in values]
    return [int(v) if v is not None and v == int(v) and abs(v) < 1e15 else v for v in short]


def _cell(column: Mapping[str, Any], row: int) -> dict[str, Any]:
    value, kind = column["values"][row], column["kind"]
    verdict = None
    if kind == "verdict":
        verdict = None if value is None else VERDICTS[value]
        return {"kind": kind, "text": verdict or numbers.MISSING, "verdict": verdict}
    if kind == "word":
        return {"kind": kind, "text": column["words"][value], "verdict": None}
    if kind == "property":
        code = column["verdicts"][row]
        verdict = None if code == "-" else VERDICTS[int(code)]
    written = numbers.MISSING if value is None else f"{value:.0f}" if kind == "count" else numbers.value(value)
    return {"kind": kind, "text": written, "verdict": verdict}


def seed_tables(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One table a metric: mean and interval of each method, its values by seed, and their place on a common axis."""
    test, metrics = mapping(summary.get("test")), mapping(summary.get("metrics"))
    names = list(metrics) or list(dict.fromkeys(name for row in test.values() for name in mapping(row)))
    methods = sorted(test, key=lambda method: method != "model")
    tables = []
    for name in names:
        cells = {method: _interval(mapping(test[method]).get(name)) for method in methods}
        if all(cell["mean"] is None for cell in cells.values()):
            continue
        best = _best([cell["mean"] for cell in cells.values()], better(metrics, name))
        written = numbers.column([x for cell in cells.values() for x in (cell["mean"], cell["half"], *cell["values"])])
        low, high = _ends(list(cells.values()))
        rows, used = [], 0
        for method, cell in cells.items():
            size = 2 + len(cell["values"])
            mean, half, *values = written[used : used + size]
            used += size
            rows.append(
                {
                    "label": method_label(summary, method),
                    "model": method == "model",
                    "best": cell["mean"] is not None and cell["mean"] == best,
                    "mean": mean,
                    "half": None if cell["half"] is None else half,
                    "values": values,
                    "strip": _strip(cell, low, high),
                }
            )
        direction = better(metrics, name)
        tables.append(
            {
                "label": metric_label(metrics, name),
                "better": direction,
                "rows": rows,
                "ends": numbers.column([low, high]),
            }
        )
    return tables


def _interval(cell: object) -> dict[str, Any]:
    held = mapping(cell)
    return {
        "mean": number(held.get("mean")),
        "half": number(held.get("half_width_95")),
        "values": [number(value) for value in sequence(held.get("values"))],
    }


def _ends(cells: list[dict[str, Any]]) -> tuple[float, float]:
    """The least and the largest of all values and ends of intervals."""
    reach = [value for cell in cells for value in cell["values"] if value is not None]
    for cell in cells:
        if cell["mean"] is not None:
            reach += [cell["mean"] - (cell["half"] or 0), cell["mean"] + (cell["half"] or 0)]
    return min(reach), max(reach)


def _strip(cell: dict[str, Any], low: float, high: float) -> dict[str, Any] | None:
    """Places in percent of the axis from `low` to `high`: the seeds' dots, the mean, the interval."""
    if cell["mean"] is None:
        return None

    def place(value: float) -> str:
        span = high - low
        return f"{4 + 92 * ((value - low) / span if span > 0 and math.isfinite(span) else 0.5):.2f}"

    half = cell["half"] or 0.0
    dots = [place(value) for value in cell["values"] if value is not None]
    return {
        "dots": dots,
        "mean": place(cell["mean"]),
        "low": place(cell["mean"] - half),
        "high": place(cell["mean"] + half),
    }


def seed_numbers(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was measured beside the metrics: times, memory."""
    known = {"seconds": ("time in all", numbers.duration), **_COSTS}
    rows = []
    for name, held in mapping(summary.get("numbers")).items():
        cell = _interval(held)
        label, write = known.get(name, (text(name).replace("_", " "), numbers.value))
        if cell["mean"] is not None:
            half = None if cell["half"] is None else write(cell["half"])
            rows.append(
                {
                    "label": label,
                    "mean": write(cell["mean"]),
                    "half": half,
                    "values": [write(v) for v in cell["values"]],
                }
            )
    return rows
