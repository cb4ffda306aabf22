"""The words and numbers of a report as plain values: its head, the examples, how to reproduce the run."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from implicit_l2o.report import numbers
from implicit_l2o.report.folder import VERDICTS, RunFolder, mapping, number, sequence, text
from implicit_l2o.report.tables import better, method_label, metric_label

_STATUSES = {"complete": "complete", "interrupted": "interrupted", "failed": "failed"}


def headline(run: RunFolder) -> dict[str, Any]:
    """Summary, status, seed, and the numbers that a reader wants first."""
    results = run.results
    status = text(results.get("status")).lower()
    seed = number(results.get("seed"))
    return {
        "summary": text(results.get("summary")),
        "status": status if status in _STATUSES else "unknown",
        "failure": text(results.get("failure")),
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
        lower = better(metrics, name) == "lower"
        others = [(number(mapping(row).get(name)), method) for method, row in test.items() if method != "model"]
        known = [(value, method) for value, method in others if value is not None]
        note = ""
        if known:
            value, method = (min if lower else max)(known, key=lambda pair: pair[0])
            note = f"best other method: {numbers.value(value)}, {method_label(results, method)}"
        label = metric_label(metrics, name)
        return [{"label": f"{label} on test data", "value": numbers.value(own), "note": note}]
    return []


def _trust_tile(run: RunFolder) -> dict[str, str] | None:
    trusted = number(run.results.get("trusted"))
    total = run.samples.count if run.samples else None
    if trusted is None:
        return None
    if not total:
        return {
            "label": "trusted answers",
            "value": numbers.count(trusted),
            "note": "converged, every certificate passes",
        }
    note = f"{numbers.count(trusted)} of {numbers.count(total)} test samples converged and pass every certificate"
    return {"label": "trusted answers", "value": numbers.share(trusted / total), "note": note}


def _solver_tile(results: Mapping[str, Any]) -> dict[str, str] | None:
    solver = mapping(results.get("solver"))
    converged, mean, most = (number(solver.get(key)) for key in ("converged", "steps_mean", "steps_max"))
    if converged is None:
        return None
    steps = [] if mean is None else [f"{mean:.1f} iterations on average"]
    steps += [] if most is None else [f"at most {numbers.count(most)}"]
    return {"label": "solves converged on test data", "value": numbers.share(converged), "note": ", ".join(steps)}


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One line each about the training."""
    monitor = text(results.get("monitor")) or "validation"
    epochs, best = number(results.get("epochs")), number(results.get("best_epoch"))
    facts = [
        ("epochs", numbers.count(epochs) if epochs is not None else ""),
        ("weights kept", "" if best is None else f"after epoch {best + 1:.0f}, by {monitor}"),
        ("parameters", _known(numbers.count, results.get("parameters"))),
        ("time per epoch", _known(numbers.duration, results.get("seconds_per_epoch"))),
        ("time in all", _known(numbers.duration, results.get("seconds"))),
        ("peak memory", _known(numbers.memory, results.get("peak_memory"))),
    ]
    return [(name, said) for name, said in facts if said]


def _known(write: Callable[[float | None], str], value: object) -> str:
    return "" if number(value) is None else write(number(value))


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


def origin(results: Mapping[str, Any]) -> dict[str, Any]:
    """What repeats the run: command, seed, commit, versions, machine; and what the application added."""
    extra = mapping(results.get("extra"))
    facts = [
        ("seed", text(results.get("seed"))),
        ("seeds", ", ".join(text(seed) for seed in sequence(results.get("seeds")))),
        ("git commit", text(results.get("git_commit")) or "not recorded"),
    ]
    return {
        "command": text(results.get("command")),
        "facts": [(name, said) for name, said in facts if said],
        "versions": [(text(name), text(value)) for name, value in mapping(results.get("versions")).items()],
        "machine": [
            (text(name), text(value) or json.dumps(value)) for name, value in mapping(results.get("machine")).items()
        ],
        "extra": json.dumps(extra, indent=2, ensure_ascii=False) if extra else "",
    }
