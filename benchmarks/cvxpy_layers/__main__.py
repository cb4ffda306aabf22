"""Twelve standard problems, forward and backward, ours and cvxpylayers with its backends.

    OMP_NUM_THREADS=1 python -m benchmarks.cvxpy_layers             # writes results/cvxpy_layers.json

Each problem and size is a process of its own with a limit of time; what it had not measured by then is shown as not run.
Results are kept row by row, and rows that are there are not run again unless `--again` says so.
"""

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.cvxpy_layers.problems import PROBLEMS
from implicit_l2o.report import machine, write_json

RESULTS = Path(__file__).parents[2] / "results" / "cvxpy_layers.json"
PACKAGES = ("clarabel", "cvxpy", "cvxpylayers", "diffcp", "moreau", "scs", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=150.0, help="most wall time of a problem at one size")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    results |= {"machine": machine(), "packages": {name: version(name) for name in PACKAGES}, "batch": arguments.batch}
    for size in arguments.sizes:
        for problem in arguments.problems:
            rows = results["rows"]
            old = [row for row in rows if (row["problem"], row["size"]) == (problem, size)]
            if old and not arguments.again:
                continue
            row = {"problem": problem, "size": size, **_measure(problem, size, arguments)}
            results["rows"] = [r for r in rows if r not in old] + [row]
            write_json(RESULTS, results)
            _show(row)


def _measure(problem: str, size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.cvxpy_layers.one", problem, str(size)]
    command += ["--batch", str(arguments.batch), "--repeats", str(arguments.repeats)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=arguments.seconds)
        text, ended = run.stdout, None if run.returncode == 0 else (run.stderr.strip().splitlines() or ["?"])[-1][:200]
    except subprocess.TimeoutExpired as late:
        text = late.stdout.decode() if isinstance(late.stdout, bytes) else (late.stdout or "")
        ended = f"stopped after {arguments.seconds:g} s"
    facts: dict[str, Any] = {}
    methods: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # a peer's own output, or a line cut off by the limit
            continue
        if "facts" in record:
            facts |= record["facts"]
            continue
        method = methods.setdefault(record.pop("method"), {"forward": [], "backward": []})
        for name in ("forward", "backward"):
            if name in record:
                method[name].append(record.pop(name))
        method |= record
    return {**facts, "ended": ended, "methods": methods}


def _show(row: dict[str, Any]) -> None:
    print(f"{row['problem']}, {row['size']} ({row.get('variables')} variables in the cone program)", row["ended"] or "")
    for name, method in row["methods"].items():
        if method["forward"]:
            forward, backward = (1e3 * min(method[part]) for part in ("forward", "backward"))
            errors = f"x {method['x_error']:.0e}, gradient {method['gradient_error']:.0e}"
            print(f"  {name:24s} {forward:9.1f} + {backward:8.1f} ms, {errors}")
        else:
            print(f"  {name:24s} {method.get('failure', 'not run')}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
