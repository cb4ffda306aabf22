"""The demonstration: shortest paths learned from solutions, and handwritten digits; two runs of `il2o run`."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from implicit_l2o.experiment import Options, find_experiment, run
from implicit_l2o.report import write_json


def demo(out: Path, seed: int = 0, *, progress: bool = True) -> dict[str, Any]:
    """Run both experiments into `out/shortest_path` and `out/digits`, and write `out/summary.json`.

    Earlier runs in these two folders are replaced.

    Args:
        out: folder, made if absent.
        seed: of the data, the weights and the order of the batches.
        progress: show bars on stderr.

    Returns:
        What `summary.json` holds, and `"reports"`.

    Raises:
        OSError: `out` cannot be made or written; found out before anything is trained.
    """
    start = time.perf_counter()
    results = {}
    for name, experiment in (("shortest_path", "shortest_path_5x5"), ("digits", "digits")):
        config = [find_experiment(experiment)]
        options = Options(config, seeds=[seed], folder=out / name, overwrite=True, progress=progress)
        _, [results[name]] = run(options)
    summary = {
        "shortest_path": _shortest_path(results["shortest_path"]),
        "digits": _digits(results["digits"]),
        "seconds": time.perf_counter() - start,
    }
    write_json(out / "summary.json", summary)
    return summary | {"reports": [str(out / name / "report.html") for name in results]}


def _shortest_path(results: Mapping[str, Any]) -> dict[str, Any]:
    regret = {name: scores["regret"] for name, scores in results["test"].items()}
    return {
        "regret": regret["model"],
        **{f"regret_{name}": regret[name] for name in ("two_stage", "untrained", "floor")},
        "max_constraint_violation": results["extra"]["max_constraint_violation"],
        "certificates": results["certificates"],
    }


def _digits(results: Mapping[str, Any]) -> dict[str, Any]:
    test, exact = results["test"], "implicit_gradient"
    return {
        "accuracy_jfb": test["model"]["accuracy"],
        "accuracy_implicit": test[exact]["accuracy"],
        "seconds_per_epoch_jfb": results["seconds_per_epoch"],
        "seconds_per_epoch_implicit": results["training"][exact]["seconds_per_epoch"],
    }


def table(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    path, digits = summary["shortest_path"], summary["digits"]
    certificates = path["certificates"]
    rows: list[Sequence[str]] = [
        ("Shortest path, 5x5 grid", "test regret", "above the floor"),
        *(
            (name, f"{path[key]:.4f}", f"{path[key] - path['regret_floor']:+.4f}")
            for name, key in (
                ("  implicit network, from solutions (JFB)", "regret"),
                ("  two-stage, from the costs themselves", "regret_two_stage"),
                ("  untrained", "regret_untrained"),
                ("  floor: exact conditional mean cost", "regret_floor"),
            )
        ),
        (),
        ("  certificates", "PASS / WARN / FAIL", ""),
        *(
            (f"  {name}", " / ".join(str(counts[label]) for label in ("PASS", "WARN", "FAIL")), "")
            for name, counts in certificates.items()
        ),
        ("  largest constraint violation", f"{path['max_constraint_violation']:.1e}", ""),
        (),
        ("Handwritten digits, 8x8", "test accuracy", "s per epoch"),
        *(
            (
                f"  implicit network, {name}",
                f"{100 * digits['accuracy_' + key]:.1f} %",
                f"{digits['seconds_per_epoch_' + key]:.2f}",
            )
            for name, key in (("JFB", "jfb"), ("exact gradient (Implicit)", "implicit"))
        ),
    ]
    widths = [max(len(row[i]) for row in rows if row) for i in range(3)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}".rstrip() if row else "" for row in rows
    ]
    return "\n".join([*lines, "", f"{math.ceil(summary['seconds'])} seconds in all."])
