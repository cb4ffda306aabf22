"""A run folder as `il2o run` writes it, made from random numbers: what the tests of the report read."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from implicit_l2o.report import interval, write_json
from implicit_l2o.report.svg import FOREGROUND, PALETTE, save_svg

VERDICTS = ("PASS", "WARN", "FAIL")
CONFIG = "seed_everything: 0\nmodel:\n  class_path: projection.Projection\n  init_args:\n    hidden: 64\n"
PROBLEM = (
    r"x^\star(d) = \operatorname*{argmin}_{x \in \mathbb{R}^n} \tfrac12 \| x - W_\theta d \|^2 \quad "
    r"\text{subject to} \quad \mathbf{1}^\top x = 1, \; 0 \le x \le u"
)


def make_run_folder(
    path: Path,
    *,
    samples: int = 200,
    epochs: int = 12,
    seed: int = 0,
    status: str = "complete",
    properties: tuple[str, ...] = ("constraint violation", "distance to data", "doubt"),
    metrics: tuple[str, ...] = ("accuracy", "distance"),
    changes: dict[str, Any] | None = None,
) -> Path:
    """Write a whole run folder and return its path; the same arguments give the same files.

    Args:
        path: of the folder, which is made.
        samples: of the test set.
        epochs: of the training.
        seed: of the numbers.
        status: of the run.
        properties: the certificates; the first has a fixed threshold, the others are calibrated.
        metrics: the first is better when higher, the others when lower.
        changes: entries of results.json that replace those made here.
    """
    draw = np.random.default_rng(seed)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(CONFIG)
    _write_metrics(path, epochs, metrics, draw)
    certificates = _certificates(samples, properties, draw)
    write_json(path / "certificates.json", certificates)
    table = certificates["samples"]
    order = np.argsort([math.inf if error is None else error for error in table["error"]], kind="stable")
    chosen = {"best": int(order[0]), "median": int(order[samples // 2]), "worst": int(order[-1])}
    for kind, index in chosen.items():
        save_svg(_bars(draw), path / "figures" / f"example_{kind}.svg", label=f"{kind}: sample {index}")
    _image().savefig(path / "figures" / "answers.png", dpi=80)
    _write_predictions(path, table, draw)
    results = {
        "name": "projection",
        "title": "A learned projection onto a capped simplex",
        "summary": "The network reads a context and answers with weights that sum to one. Every answer obeys the caps, "
        "whatever the weights of the network are.",
        "problem": PROBLEM,
        "guarantees": [
            "The weights sum to one, to the tolerance of the solver.",
            "No weight is negative or above its cap.",
        ],
        "status": status,
        "seed": seed,
        "command": f"il2o run experiments/projection.yaml --seeds {seed}",
        "metrics": {
            name: {"better": "higher" if i == 0 else "lower", "label": name.capitalize()}
            for i, name in enumerate(metrics)
        },
        "test": {
            "model": {name: round(0.98 - 0.9 * (i > 0) - 0.01 * seed, 6) for i, name in enumerate(metrics)},
            "constant": {name: 0.1 + 0.8 * (i > 0) for i, name in enumerate(metrics)},
            "two_stage": {name: 0.91 if i == 0 else None for i, name in enumerate(metrics)},
        },
        "labels": {
            "model": "implicit network (JFB)",
            "constant": "constant predictor",
            "two_stage": "two-stage regression",
        },
        "monitor": "val/loss",
        "best_epoch": max(0, epochs - 4),
        "epochs": epochs,
        "parameters": 35856,
        "training": {"two_stage": {"parameters": 35000, "seconds_per_epoch": 0.31, "peak_memory": 4_000_000}},
        "seconds_per_epoch": 0.5123,
        "peak_memory": 5_600_000,
        "seconds": 61.2,
        "solver": {
            "converged": sum(table["converged"]) / samples,
            "steps_mean": sum(table["steps"]) / samples,
            "steps_max": max(table["steps"]),
            "residual_max": max(r for r in table["residual"] if r is not None),
        },
        "certificates": {name: {v: column.count(v) for v in VERDICTS} for name, column in table["labels"].items()},
        "trusted": table["worst"].count("PASS"),
        "examples": [
            {"kind": kind, "index": index, "error": table["error"][index], "figure": f"figures/example_{kind}.svg"}
            for kind, index in chosen.items()
        ],
        "figures": [
            {"file": "figures/answers.png", "title": "Answers", "caption": "Three contexts and the weights they get."},
            {"file": "figures/example_best.svg", "title": "Once more", "caption": "A second figure."},
        ],
        "extra": {"caps": {"largest": 0.4}},
        "machine": {"processor": "x86_64", "cores": 2, "load": 0.3, "python": "3.11.7"},
        "versions": {"implicit_l2o": "0.1.0", "torch": "2.13.0", "lightning": "2.6.6"},
        "git_commit": "4c487bc0ffee",
        "date": None,
    }
    write_json(path / "results.json", results | (changes or {}))
    return path


def make_summary_folder(path: Path, *, seeds: tuple[int, ...] = (0, 1, 2), samples: int = 40) -> Path:
    """Write the folder of several seeds, each with a run folder, and its summary.json; return its path."""
    runs = [
        json.loads((make_run_folder(path / f"seed_{s}", seed=s, samples=samples) / "results.json").read_text())
        for s in seeds
    ]
    first = runs[0]

    def cell(values: list[Any]) -> dict[str, Any]:
        known = [value for value in values if value is not None]
        mean, half = interval(known) if known else (None, None)
        return {"mean": mean, "half_width_95": half, "values": values}

    summary = {
        **{name: first[name] for name in ("name", "title", "metrics", "labels", "machine", "versions", "git_commit")},
        "seeds": list(seeds),
        "test": {
            method: {name: cell([run["test"][method][name] for run in runs]) for name in row}
            for method, row in first["test"].items()
        },
        "numbers": {
            "seconds_per_epoch": cell([0.5 + 0.01 * s for s in seeds]),
            "peak_memory": cell([5_600_000.0 for _ in seeds]),
        },
    }
    write_json(path / "summary.json", summary)
    return path


def _write_metrics(path: Path, epochs: int, metrics: tuple[str, ...], draw: np.random.Generator) -> None:
    """Rows as Lightning's CSV logger writes them: one kind of value a row, the other cells empty."""
    columns = [
        *("step", "epoch", "train/loss", "val/loss", *(f"val/{name}" for name in metrics)),
        *("solver/steps", "solver/steps_max", "solver/residual", "solver/converged", "solver/contraction"),
        *("solver/gradient_cosine", "lr"),
    ]
    per_epoch = 40
    with (path / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for step in range(epochs * per_epoch):
            t = step / per_epoch
            if step % 10 == 9:
                writer.writerow(
                    {
                        "step": step,
                        "epoch": step // per_epoch,
                        "train/loss": 2 * math.exp(-t / 2) + 0.03 + 0.02 * draw.random(),
                        "solver/steps": 9 + 3 * (1 - math.exp(-t)) + draw.random(),
                        "solver/steps_max": 14 + int(5 * draw.random()),
                        "solver/residual": 10 ** (-3 - draw.random()),
                        "solver/converged": 1 - 0.02 * draw.random(),
                        "solver/contraction": 0.6 + 0.2 * (1 - math.exp(-t)),
                        "lr": 1e-3 * (1 - step / (epochs * per_epoch)),
                    }
                )
            if step % per_epoch == per_epoch - 1:
                row = {
                    "step": step,
                    "epoch": step // per_epoch,
                    "val/loss": 2 * math.exp(-t / 2) + 0.05 + 0.01 * max(0, t - 8) ** 2,
                }
                row |= {
                    f"val/{name}": 1 - 0.9 * math.exp(-t) if i == 0 else math.exp(-t) for i, name in enumerate(metrics)
                }
                writer.writerow(row | {"solver/gradient_cosine": 0.9 + 0.05 * draw.random()})


def _certificates(size: int, properties: tuple[str, ...], draw: np.random.Generator) -> dict[str, Any]:
    steps = draw.integers(6, 30, size).tolist()
    residual = (10 ** draw.uniform(-5, -3, size)).tolist()
    converged = (draw.random(size) > 0.03).tolist()
    error: list[float | None] = np.abs(draw.normal(0, 0.1, size)).tolist()
    if size > 3:
        residual[3], error[3], converged[3] = None, None, False  # a solve that broke down
    rules, limits, values, labels = {}, {}, {}, {}
    for i, name in enumerate(properties):
        column: list[float | None] = (
            10 ** draw.normal(-4, 0.7, size) if i == 0 else draw.gamma(2.0, 0.1 * i, size)
        ).tolist()
        if size > 3:
            column[3] = None
        if i == 0:
            rules[name], limits[name] = {"limit": 1e-3, "above": 5e-3}, [1e-3, 5e-3]
        else:
            known = np.sort(draw.gamma(2.0, 0.1 * i, 400))
            limits[name] = [float(known[359]), float(known[379])]
            rules[name] = {"values": known.tolist(), "p_pass": 0.9, "p_warn": 0.05, "p_fail": 0.05, "resolution": 0.0}
        values[name] = column
        low, high = limits[name]
        labels[name] = [
            VERDICTS[2 if v is None or not ok or v > high else int(v > low)]
            for v, ok in zip(column, converged, strict=True)
        ]
    worst = [
        VERDICTS[max([0 if ok else 2, *(VERDICTS.index(labels[name][row]) for name in properties)])]
        for row, ok in enumerate(converged)
    ]
    status = ["CONVERGED" if ok else "MAX_STEPS" for ok in converged]
    if size > 3:
        status[3] = "NONFINITE"
    return {
        "rules": rules,
        "limits": limits,
        "samples": {
            "status": status,
            "converged": converged,
            "residual": residual,
            "steps": steps,
            "error": error,
            "values": values,
            "labels": labels,
            "worst": worst,
        },
    }


def _write_predictions(path: Path, table: dict[str, Any], draw: np.random.Generator) -> None:
    size = len(table["status"])
    with (path / "predictions.npz").open("wb") as file:
        np.savez(
            file,
            answer=draw.random((size, 5)),
            target=draw.integers(0, 10, size),
            status=np.ones(size, dtype=int),
            residual=np.array([np.nan if r is None else r for r in table["residual"]]),
            steps=np.array(table["steps"]),
            error=np.array([np.nan if e is None else e for e in table["error"]]),
        )


def _bars(draw: np.random.Generator) -> Figure:
    figure = Figure(figsize=(3.4, 2.2), layout="constrained")
    ax = figure.add_subplot()
    ax.bar(range(6), draw.random(6), color=PALETTE["blue"])
    ax.tick_params(color=FOREGROUND, labelcolor=FOREGROUND)
    for spine in ax.spines.values():
        spine.set(color=FOREGROUND)
    return figure


def _image() -> Figure:
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for ax, k in zip(figure.subplots(1, 3), (1, 2, 3), strict=True):
        x = np.linspace(0, 1, 60)
        ax.fill_between(x, np.sin(3 * k * x) ** 2, color="#56b4e9")
        ax.plot(x, np.sin(3 * k * x) ** 2, color="#0072b2")
        ax.set_title(f"context {k}")
    return figure
