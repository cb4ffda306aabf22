"""The charts of a report, each with its heading and caption: training, solver, certificates."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from implicit_l2o.report import figures, numbers
from implicit_l2o.report.folder import VERDICTS, Property, RunFolder, Samples, mapping, number, sequence, text
from implicit_l2o.report.tables import metric_label

_SOLVER_PANELS = {  # column: heading, caption, logarithmic
    "solver/steps": ("Iterations", "of the solves in training", False),
    "solver/residual": ("Residual", "how far T(z) is from z when the solve stops", True),
    "solver/converged": ("Share converged", "of the solves, within the tolerance", False),
    "solver/contraction": (
        "Contraction estimate",
        "by what factor a step shrinks distances",
        False,
    ),
    "solver/gradient_cosine": (
        "Gradient cosine",
        "of the gradient used with the exact one",
        False,
    ),
}


def training(run: RunFolder) -> list[dict[str, Any]]:
    """Panels of the loss, of every validation metric, and of what else the training logged."""
    progress, xlabel = _progress(run.metrics)
    kept = _kept(run, progress)
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
        if name in ("train/loss", "val/loss", "step", "epoch") or group in ("solver", "test"):
            continue
        label, colour = (metric_label(metrics, short), "blue") if group == "val" else (_other(name), "green")
        caption = "on validation data" if group == "val" else ""
        series = [figures.Series("", *_points(progress, columns[name]), colour)]
        panels.append(
            _panel(f"log{len(panels)}", series, xlabel, label, caption, False, kept if group == "val" else None)
        )
    return panels


def _other(name: str) -> str:
    return "learning rate" if name == "lr" else text(name)


def solver(run: RunFolder) -> dict[str, Any] | None:
    """Panels over training of what the solver logged, and histograms over the test samples."""
    progress, xlabel = _progress(run.metrics)
    columns = {name: column for name, column in run.metrics.items() if np.isfinite(column).any()}
    panels = []
    for name in [
        *_SOLVER_PANELS,
        *(name for name in columns if name.startswith("solver/") and name not in _SOLVER_PANELS),
    ]:
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
    for key, title, column in (
        ("steps", "Iterations at test", samples.steps),
        ("residual", "Residual at test", samples.residual),
    ):
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
        caption = f"{numbers.count(len(known))} test samples"
        caption += f", {unknown} more without a finite value" if unknown else ""
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


def _kept(run: RunFolder, progress: NDArray[np.floating]) -> float | None:
    """Where the kept weights are from: the last row of their epoch; None where metrics.csv does not have it."""
    best, epoch = number(run.results.get("best_epoch")), run.metrics.get("epoch")
    if best is None or epoch is None:
        return None
    rows = (epoch == best) & np.isfinite(progress)
    return float(progress[rows].max()) if rows.any() else None


def certificates(run: RunFolder) -> list[dict[str, Any]]:
    """One entry a property: its rule in words, its counts, and the spread of its values with the limits."""
    counted = mapping(run.results.get("certificates"))
    columns = {one.name: one for one in (run.samples.properties if run.samples else [])}
    names = dict.fromkeys([*counted, *run.rules, *run.limits, *columns])
    return [
        _certificate(run, name, order, mapping(counted.get(name)), columns.get(name))
        for order, name in enumerate(names)
    ]


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
    caption = [_rule(rule, len(reference))] if rule else []
    caption += [f"{unknown} of {numbers.count(len(values))} test samples have no finite value"] if unknown else []
    caption += ["no test values"] if len(values) == unknown else []
    return {
        "name": text(name),
        "rule": _rule(rule, len(reference)),
        "limits": None if limits is None else [numbers.short(limit) for limit in limits],
        "counts": [
            (verdict, numbers.count(part), (part or 0) / total if total else 0) for verdict, part in counts.items()
        ],
        "svg": None if svg is None else Markup(svg),
        "caption": "; ".join(filter(None, caption)),
    }


def _fixed(rule: Mapping[str, Any]) -> tuple[float, float] | None:
    limit, above = number(rule.get("limit")), number(rule.get("above"))
    return None if limit is None else (limit, limit if above is None else max(limit, above))


def _rule(rule: Mapping[str, Any], size: int) -> str:
    """How the limits were set, in words."""
    if not size:
        return "fixed threshold" if "limit" in rule else ""
    shares = [(number(rule.get(f"p_{word}")), word) for word in ("pass", "warn", "fail")]
    said = ", ".join(f"{numbers.share(part)} {word}" for part, word in shares if part)
    return f"calibrated on {numbers.count(size)} values" + (f": {said}" if said else "")
