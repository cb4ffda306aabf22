"""The demonstration: shortest paths learned from solutions, and handwritten digits, in one run of about a minute."""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from implicit_l2o.report import write_json

# The keys of summary.json; the applications measure more, which their own commands write.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "shortest_path": (
        "regret",
        "regret_two_stage",
        "regret_untrained",
        "regret_floor",
        "max_constraint_violation",
        "certificates",
    ),
    "digits": ("accuracy_jfb", "accuracy_implicit", "seconds_per_epoch_jfb", "seconds_per_epoch_implicit"),
}


def demo(out: Path, seed: int = 0, *, progress: bool = True) -> dict[str, Any]:
    """Run both applications, draw their figures, and write `out/summary.json`.

    Args:
        out: folder, made if absent.
        seed: of the data, the weights and the order of the batches.
        progress: show bars on stderr.

    Returns:
        What `summary.json` holds, and `"figures"`.

    Raises:
        OSError: `out` cannot be made or written; found out before anything is trained.
    """
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out):
        pass  # a folder that cannot be written is an error now, not after the training
    # Here and not above: they import Lightning, which takes seconds.
    from implicit_l2o.applications import digits, shortest_path

    results = {
        "shortest_path": shortest_path.run(out, seed, progress),
        "digits": digits.run(out, seed, progress),
    }
    summary: dict[str, Any] = {task: {key: results[task][key] for key in keys} for task, keys in _KEYS.items()}
    summary["seconds"] = time.perf_counter() - start
    write_json(out / "summary.json", summary)
    return summary | {"figures": [path for result in results.values() for path in result["figures"]]}


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
