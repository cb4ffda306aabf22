"""Seconds to a relative gap: the path-based solver against Frank-Wolfe and its conjugate variants, side by side.

    OMP_NUM_THREADS=1 python -m benchmarks.assignment --folder shared/data/tntp

Writes `results/assignment.json`. Every method starts from nothing, on the same compiled shortest paths. The methods of a
network run in turns, and the least processor time over the turns counts, since other work on the machine only adds. A method
that does not get there in `--max-steps` searches for shortest paths is measured once, with the gap that it reached.

Then what one context of the traffic data takes from the warm start.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from implicit_l2o import Status
from implicit_l2o.data.tntp import load
from implicit_l2o.data.traffic import STRENGTHS, contexts
from implicit_l2o.games import (
    Assignment,
    LinkAssignment,
    TrafficNetwork,
    frank_wolfe,
    gaps,
    user_equilibria,
    user_equilibrium,
)
from implicit_l2o.report import machine, write_json

ROOT = Path(__file__).parents[1]
TOLERANCES = (1e-3, 1e-4, 1e-6, 1e-10)
CONTEXTS = 40
WARM = (1e-6, 1e-10, 1e-13)

Method = Callable[[TrafficNetwork, float, int], Assignment | LinkAssignment]


def ours(network: TrafficNetwork, tolerance: float, max_steps: int) -> Assignment:
    """The path-based solver."""
    return user_equilibrium(network, tolerance=tolerance, max_steps=max_steps, on_failure="ignore")


def by_frank_wolfe(directions: Any) -> Method:
    """One of the variants."""

    def method(network: TrafficNetwork, tolerance: float, max_steps: int) -> LinkAssignment:
        return frank_wolfe(
            network, directions=directions, tolerance=tolerance, max_steps=max_steps, on_failure="ignore"
        )

    return method


METHODS: dict[str, Method] = {
    "user_equilibrium": ours,
    "biconjugate": by_frank_wolfe("biconjugate"),
    "conjugate": by_frank_wolfe("conjugate"),
    "plain": by_frank_wolfe("plain"),
}


def measured(network: TrafficNetwork, tolerance: float, turns: int, max_steps: int) -> dict[str, dict[str, Any]]:
    """Least processor seconds of every method, its steps and the gap by the independent measure."""
    rows: dict[str, dict[str, Any]] = {}
    for turn in range(turns):
        for name, method in METHODS.items():
            if turn and not rows[name]["reached"]:
                continue
            begin = time.process_time()
            found = method(network, tolerance, max_steps)
            seconds = time.process_time() - begin
            if name not in rows:
                rows[name] = {
                    "seconds": seconds,
                    "steps": found.steps,
                    "gap": float(gaps.relative_gap(network, found.flow, found.times)),
                    "reached": found.status == Status.CONVERGED,
                    "beckmann": found.beckmann,
                }
            rows[name]["seconds"] = min(rows[name]["seconds"], seconds)
    return rows


def warm(network: TrafficNetwork) -> dict[str, dict[str, float]]:
    """Processor milliseconds of a context from the warm start."""
    model = contexts(network)
    latency = model.latency(model.draw(CONTEXTS, seed=100))
    start = user_equilibrium(network, model.latency(model.draw(1, seed=0) * 0)[0], tolerance=1e-10).paths
    rows = {}
    for tolerance in WARM:
        begin = time.process_time()
        found = user_equilibria(network, latency, tolerance=tolerance, start=start, progress=False)
        rows[f"{tolerance:g}"] = {
            "milliseconds": 1e3 * (time.process_time() - begin) / CONTEXTS,
            "steps": float(found.steps.mean()),
            "most_steps": int(found.steps.max()),
            "converged": float(found.converged.mean()),
        }
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="of the public networks; default: download them")
    parser.add_argument("--turns", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--max-steps", type=int, default=3000, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "assignment.json")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "command": "python -m benchmarks.assignment",
        "unit": "processor seconds",
        "max_steps": options.max_steps,
        "turns": options.turns,
        "tolerances": [f"{tolerance:g}" for tolerance in TOLERANCES],
        "networks": {},
    }
    for method in METHODS.values():
        method(load("Braess", options.folder), 1e-3, 100)  # compiles
    for name in ("Braess", *STRENGTHS):
        network = load(name, options.folder)
        rows: dict[str, dict[str, Any]] = {method: {} for method in METHODS}
        for tolerance in TOLERANCES:
            for method, row in measured(network, tolerance, options.turns, options.max_steps).items():
                rows[method][f"{tolerance:g}"] = row
            print(
                name, tolerance, json.dumps({method: row[f"{tolerance:g}"] for method, row in rows.items()}), flush=True
            )
        result["networks"][name] = {
            "edges": network.edges,
            "nodes": network.nodes,
            "origins": len(network.origins),
            "pairs": int((network.between > 0).sum()),
            "methods": rows,
        }
        if name in STRENGTHS:
            result["networks"][name]["warm"] = warm(network)
            print(name, json.dumps(result["networks"][name]["warm"]), flush=True)
    result |= {"contexts": CONTEXTS, "threads": 1, "cores_used": len(os.sched_getaffinity(0)), "machine": machine()}
    write_json(options.out, result)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
