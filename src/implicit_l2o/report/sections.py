"""What each section of a report says, as plain values that the templates lay out."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from implicit_l2o.report import figures, numbers
from implicit_l2o.report.folder import VERDICTS, Property, RunFolder, Samples, mapping, number, sequence, text

_SOLVER_PANELS = {  # column: heading, caption, logarithmic
    "solver/steps": ("Iterations", "of the solves in training", False),
    "solver/residual": ("Residual", "how far T(z) is from z when the solve stops", True),
    "solver/converged": ("Share converged", "of the solves, within the tolerance", False),
    "solver/contraction": ("Contraction estimate", "factor by which a step shrinks the distance; below 1 is contracting", False),
    "solver/gradient_cosine": ("Gradient cosine", "of the gradient used against the exact one; 1 is the same direction", False),
}
_STATUSES = {"complete": "complete", "interrupted": "interrupted", "failed": "failed"}
_FIRST_ROWS = 20  # of the sample table, for a page without scripts


def headline(run: RunFolder) -> dict[str, Any]:
    """Summary, status, seed, and the numbers that a reader wants first."""
    results = run.results
    status = text(results.get("status")).lower()
    seed = number(results.get("seed"))
    return {
        "summary": text(results.get("summary")),
        "status": status if status in _STATUSES else "unknown",
        "seed": None if seed is None else f"{seed:.0f}",
        "date": text(results.get("date")),
        "name": text(results.get("name")),
        "tiles": [tile for tile in (*_metric_tiles(results), _trust_tile(run), _solver_tile(results)) if tile],
        "facts": _facts(results),
    }


def _metric_tiles(results: Mapping[str, Any]) -> list[dict[str, str] | None]:
    """The first metric of the model, beside the strongest of the others."""
    test, metrics = mapping(results.get("test")), mapping(results.get("metrics"))
    for name in metrics:
        own = number(mapping(test.get("model")).get(name))
        if own is None:
            continue
        lower = _better(metrics, name) == "lower"
        others = [(number(mapping(row).get(name)), method) for method, row in test.items() if method != "model"]
        known = [(value, method) for value, method in others if value is not None]
        note = ""
        if known:
            value, method = (min if lower else max)(known, key=lambda pair: pair[0])
            note = f"next best: {numbers.value(value)}, {_label(results, method)}"
        label = _metric_label(metrics, name)
        return [{"label": f"test {label}", "value": numbers.value(own), "note": note}]
    return []


def _trust_tile(run: RunFolder) -> dict[str, str] | None:
    trusted = number(run.results.get("trusted"))
    total = run.samples.count if run.samples else None
    if trusted is None:
        return None
    if not total:
        return {"label": "trusted answers", "value": numbers.count(trusted), "note": "converged, every certificate passes"}
    note = f"{numbers.count(trusted)} of {numbers.count(total)} test samples converged and pass every certificate"
    return {"label": "trusted answers", "value": numbers.share(trusted / total), "note": note}


def _solver_tile(results: Mapping[str, Any]) -> dict[str, str] | None:
    solver = mapping(results.get("solver"))
    converged, mean, most = (number(solver.get(key)) for key in ("converged", "steps_mean", "steps_max"))
    if converged is None:
        return None
    steps = [] if mean is None else [f"{mean:.1f} iterations on average"]
    steps += [] if most is None else [f"at most {numbers.count(most)}"]
    return {"label": "test solves converged", "value": numbers.share(converged), "note": ", ".join(steps)}


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One line each about the training."""
    epochs, best = number(results.get("epochs")), number(results.get("best_epoch"))
    facts = [
        ("epochs", numbers.count(epochs) if epochs is not None else ""),
        ("weights kept", "" if best is None else f"after epoch {best + 1:.0f}, by {text(results.get('monitor')) or 'validation'}"),
        ("parameters", _known(numbers.count, results.get("parameters"))),
        ("time per epoch", _known(numbers.duration, results.get("seconds_per_epoch"))),
        ("time in all", _known(numbers.duration, results.get("seconds"))),
        ("peak memory", _known(numbers.memory, results.get("peak_memory"))),
    ]
    return [(name, said) for name, said in facts if said]


def _known(write: Any, value: object) -> str:
    return "" if number(value) is None else write(number(value))


def result_table(run: RunFolder) -> dict[str, Any] | None:
    """One row a method, the model first; the best value of each metric is marked."""
    return _table(run.results, {name: mapping(row) for name, row in mapping(run.results.get("test")).items()})


def _table(results: Mapping[str, Any], test: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    metrics = mapping(results.get("metrics"))
    names = list(metrics) or list(dict.fromkeys(name for row in test.values() for name in row))
    if not test or not names:
        return None
    methods = sorted(test, key=lambda method: method != "model")
    rows = [{"label": _label(results, method), "model": method == "model", "cells": []} for method in methods]
    for name in names:
        column = [number(test[method].get(name)) for method in methods]
        best = _best(column, _better(metrics, name))
        for row, value, written in zip(rows, column, numbers.column(column), strict=True):
            row["cells"].append({"text": written, "best": value is not None and value == best})
    heads = [{"label": _metric_label(metrics, name), "better": _better(metrics, name)} for name in names]
    return {"heads": heads, "rows": rows}


def _best(column: list[float | None], better: str) -> float | None:
    """The best value; None where nothing can be compared."""
    known = [value for value in column if value is not None]
    if len(known) < 2 or better not in ("higher", "lower"):
        return None
    return max(known) if better == "higher" else min(known)


def _better(metrics: Mapping[str, Any], name: str) -> str:
    return text(mapping(metrics.get(name)).get("better")).lower()


def _metric_label(metrics: Mapping[str, Any], name: str) -> str:
    return text(mapping(metrics.get(name)).get("label")) or text(name)


def _label(results: Mapping[str, Any], method: str) -> str:
    defaults = {"model": "this model", "constant": "constant predictor"}
    return text(mapping(results.get("labels")).get(method)) or defaults.get(method, text(method))


def training(run: RunFolder) -> list[dict[str, Any]]:
    """Panels of the loss, of every validation metric, and of what else the training logged."""
    progress, xlabel = _progress(run.metrics)
    kept = _kept(run, progress, xlabel)
    metrics = mapping(run.results.get("metrics"))
    columns = {name: column for name, column in run.metrics.items() if np.isfinite(column).any()}
    panels = []
    losses = [
        figures.Series(legend, *_points(progress, columns[name]), colour)
        for name, legend, colour in (
            ("train/loss", "training", "vermillion"),
            ("val/loss", "validation", "blue"),
        )
        if name in columns
    ]
    if losses:
        every = np.concatenate([one.y for one in losses])
        log = bool((every > 0).all() and every.max() > 20 * every.min())
        panels.append(_panel("loss", losses, xlabel, "Loss", "", log, kept))
    for name in columns:
        group, _, short = name.partition("/")
        if name in ("train/loss", "val/loss", "step", "epoch") or group == "solver":
            continue
        label, colour = (_metric_label(metrics, short), "blue") if group == "val" else (text(name), "green")
        caption = "on validation data" if group == "val" else ""
        series = [figures.Series("", *_points(progress, columns[name]), colour)]
        panels.append(_panel(f"log{len(panels)}", series, xlabel, label, caption, False, kept if group == "val" else None))
    return panels


def solver(run: RunFolder) -> dict[str, Any] | None:
    """Panels over training of what the solver logged, and histograms over the test samples."""
    progress, xlabel = _progress(run.metrics)
    columns = {name: column for name, column in run.metrics.items() if np.isfinite(column).any()}
    panels = []
    for name in [*_SOLVER_PANELS, *(name for name in columns if name.startswith("solver/") and name not in _SOLVER_PANELS)]:
        if name not in columns or name == "solver/steps_max":
            continue
        title, caption, log = _SOLVER_PANELS.get(name, (text(name.partition("/")[2]), "", False))
        series = [figures.Series("mean", *_points(progress, columns[name]))]
        if name == "solver/steps" and "solver/steps_max" in columns:
            series.append(figures.Series("largest", *_points(progress, columns["solver/steps_max"]), "vermillion"))
        if log:
            series = [_positive(one) for one in series]
        panels.append(_panel(f"solver{len(panels)}", series, xlabel, title, caption, log, None))
    spread = _spread(run.samples) if run.samples else []
    said = mapping(run.results.get("solver"))
    rows = [
        ("converged", numbers.share(number(said.get("converged")))),
        ("iterations, mean", numbers.value(number(said.get("steps_mean")))),
        ("iterations, largest", numbers.count(number(said.get("steps_max")))),
        ("residual, largest", numbers.value(number(said.get("residual_max")))),
    ]
    rows = [row for row in rows if row[1] != numbers.MISSING]
    return {"panels": panels, "spread": spread, "rows": rows} if panels or spread or rows else None


def _spread(samples: Samples) -> list[dict[str, Any]]:
    """Histograms of the test samples' iterations and residuals."""
    panels = []
    for key, title, column in (("steps", "Iterations at test", samples.steps), ("residual", "Residual at test", samples.residual)):
        known = [value for value in column or [] if value is not None]
        if not known:
            continue
        unknown = samples.count - len(known)
        svg = figures.histogram(
            known,
            key=f"test-{key}",
            label=f"histogram of the test samples' {key}",
            xlabel="iterations" if key == "steps" else "residual",
            log=key == "residual",
            whole=key == "steps",
        )
        caption = f"{numbers.count(len(known))} test samples" + (f"; {unknown} without a finite value" if unknown else "")
        panels.append({"title": title, "svg": Markup(svg), "caption": caption})
    return panels


def _panel(
    key: str, series: list[figures.Series], xlabel: str, title: str, caption: str, log: bool, kept: float | None
) -> dict[str, Any]:
    last = series[-1].y[np.isfinite(series[-1].y)][-1]
    label = f"{title} over training; last value {numbers.value(float(last))}"
    svg = figures.curves(series, key=f"curve-{key}", label=label, xlabel=xlabel, log=log, kept=kept)
    return {"title": title, "svg": Markup(svg), "caption": caption, "kept": kept is not None}


def _points(x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The rows that have a value, in the order of training (a resumed run may have appended)."""
    there = np.isfinite(y) & np.isfinite(x)
    order = np.argsort(x[there], kind="stable")
    return x[there][order], y[there][order]


def _positive(series: figures.Series) -> figures.Series:
    """Zeros have no logarithm: they are shown at the smallest positive value."""
    positive = series.y[series.y > 0]
    floor = positive.min() if len(positive) else 1.0
    return series._replace(y=np.maximum(series.y, floor))


def _progress(metrics: Mapping[str, NDArray[np.floating]]) -> tuple[NDArray[np.floating], str]:
    """Where in the training each row is: epochs done, where steps tell; else steps; else rows."""
    size = len(next(iter(metrics.values()), ()))
    step, epoch = metrics.get("step"), metrics.get("epoch")
    if step is not None and epoch is not None:
        known = np.isfinite(step) & np.isfinite(epoch)
        loss = metrics.get("val/loss")
        ends = known & np.isfinite(loss) if loss is not None else known
        if ends.any():
            last = int(np.flatnonzero(ends)[np.argmax(step[ends])])
            length = (step[last] + 1) / (epoch[last] + 1)
            if length > 0:
                return (step + 1) / length, "epochs"
    if step is not None and np.isfinite(step).any():
        return step, "step"
    if epoch is not None and np.isfinite(epoch).any():
        return epoch + 1, "epochs"
    return np.arange(size, dtype=float), "row of metrics.csv"


def _kept(run: RunFolder, progress: NDArray[np.floating], xlabel: str) -> float | None:
    """Where the kept weights are from: the last row of their epoch."""
    best, epoch = number(run.results.get("best_epoch")), run.metrics.get("epoch")
    if best is None:
        return None
    if epoch is not None:
        rows = (epoch == best) & np.isfinite(progress)
        if rows.any():
            return float(progress[rows].max())
    return best + 1 if xlabel == "epochs" else None


def examples(run: RunFolder) -> list[dict[str, Any]]:
    """The inferences that were chosen by their error: best, median, worst."""
    shown = []
    for example in map(mapping, sequence(run.results.get("examples"))):
        index = number(example.get("index"))
        worst = run.samples.worst if run.samples else None
        known = index is not None and worst is not None and 0 <= index < len(worst)
        verdict = worst[int(index)] if known and index is not None and worst is not None else None
        shown.append(
            {
                "kind": text(example.get("kind")) or "example",
                "index": None if index is None else f"{index:.0f}",
                "error": numbers.value(number(example.get("error"))),
                "file": text(example.get("figure")),
                "verdict": None if verdict is None else VERDICTS[verdict],
            }
        )
    return shown


def certificates(run: RunFolder) -> list[dict[str, Any]]:
    """One entry a property: its rule in words, its counts, and the spread of its values with the limits."""
    counted = mapping(run.results.get("certificates"))
    columns = {one.name: one for one in (run.samples.properties if run.samples else [])}
    names = dict.fromkeys([*counted, *run.rules, *run.limits, *columns])
    return [_certificate(run, name, order, mapping(counted.get(name)), columns.get(name)) for order, name in enumerate(names)]


def _certificate(
    run: RunFolder, name: str, order: int, counted: Mapping[str, Any], column: Property | None
) -> dict[str, Any]:
    counts = {verdict: number(counted.get(verdict)) for verdict in VERDICTS} if counted else {}
    if not counts and column is not None:
        counts = {verdict: float(column.verdicts.count(code)) for code, verdict in enumerate(VERDICTS)}
    total = sum(part or 0 for part in counts.values())
    rule = run.rules.get(name, {})
    reference = [number(value) for value in sequence(rule.get("values"))]
    values = column.values if column else []
    limits = run.limits.get(name) or _fixed(rule)
    svg = None
    if any(value is not None for value in (*values, *reference)):
        svg = figures.histogram(
            values,
            key=f"property{order}",
            label=f"histogram of {text(name)}, with the limits",
            xlabel="value",
            limits=limits,
            reference=reference,
        )
    unknown = sum(value is None for value in values)
    return {
        "name": text(name),
        "rule": _rule(rule, len(reference)),
        "limits": None if limits is None else [numbers.value(limit) for limit in limits],
        "counts": [(verdict, numbers.count(part), (part or 0) / total if total else 0) for verdict, part in counts.items()],
        "svg": None if svg is None else Markup(svg),
        "calibrated": len(reference) > 0,
        "tested": len(values) > unknown,
        "unknown": unknown,
    }


def _fixed(rule: Mapping[str, Any]) -> tuple[float, float] | None:
    limit, above = number(rule.get("limit")), number(rule.get("above"))
    return None if limit is None else (limit, limit if above is None else max(limit, above))


def _rule(rule: Mapping[str, Any], size: int) -> str:
    if size:
        shares = [f"{numbers.share(number(rule.get(f'p_{word}')))} {word}" for word in ("pass", "warn", "fail") if number(rule.get(f"p_{word}"))]
        return f"calibrated on {numbers.count(size)} values" + (f", of which {', '.join(shares)}" if shares else "")
    return "fixed threshold" if "limit" in rule else ""


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
        columns.append({"name": "status", "kind": "word", "words": names, "values": [names.index(s) for s in samples.status]})
    for name, values in (("iterations", samples.steps), ("residual", samples.residual), ("error", samples.error), *samples.more.items()):
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
        "verdicts": [(word, worst.count(code)) for code, word in enumerate(VERDICTS)] if samples.worst is not None else [],
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


def origin(results: Mapping[str, Any]) -> dict[str, Any]:
    """What repeats the run: command, seed, commit, versions, machine; and what the application added."""
    extra = mapping(results.get("extra"))
    return {
        "command": text(results.get("command")),
        "seed": text(results.get("seed")),
        "commit": text(results.get("git_commit")),
        "versions": [(text(name), text(value)) for name, value in mapping(results.get("versions")).items()],
        "machine": [
            (text(name), text(value) or json.dumps(value)) for name, value in mapping(results.get("machine")).items()
        ],
        "extra": json.dumps(extra, indent=2, ensure_ascii=False) if extra else "",
    }


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
        best = _best([cell["mean"] for cell in cells.values()], _better(metrics, name))
        written = numbers.column([x for cell in cells.values() for x in (cell["mean"], cell["half"], *cell["values"])])
        low, high = _ends(list(cells.values()))
        rows, used = [], 0
        for method, cell in cells.items():
            size = 2 + len(cell["values"])
            mean, half, *values = written[used : used + size]
            used += size
            rows.append(
                {
                    "label": _label(summary, method),
                    "model": method == "model",
                    "best": cell["mean"] is not None and cell["mean"] == best,
                    "mean": mean,
                    "half": None if cell["half"] is None else half,
                    "values": values,
                    "strip": _strip(cell, low, high),
                }
            )
        better = _better(metrics, name)
        tables.append({"label": _metric_label(metrics, name), "better": better, "rows": rows, "ends": numbers.column([low, high])})
    return tables


def _interval(cell: object) -> dict[str, Any]:
    held = mapping(cell)
    return {
        "mean": number(held.get("mean")),
        "half": number(held.get("half_width_95")),
        "values": [number(value) for value in sequence(held.get("values"))],
    }


def _ends(cells: list[dict[str, Any]]) -> tuple[float, float]:
    reach = [
        value
        for cell in cells
        for value in (*cell["values"], *((cell["mean"] or 0) + s * (cell["half"] or 0) for s in (-1, 1) if cell["mean"] is not None))
        if value is not None
    ]
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
    known = {
        "seconds_per_epoch": ("time per epoch", numbers.duration),
        "seconds": ("time in all", numbers.duration),
        "peak_memory": ("peak memory", numbers.memory),
        "parameters": ("parameters", numbers.count),
    }
    rows = []
    for name, held in mapping(summary.get("numbers")).items():
        cell = _interval(held)
        label, write = known.get(name, (text(name).replace("_", " "), numbers.value))
        if cell["mean"] is not None:
            half = None if cell["half"] is None else write(cell["half"])
            rows.append({"label": label, "mean": write(cell["mean"]), "half": half, "values": [write(v) for v in cell["values"]]})
    return rows
