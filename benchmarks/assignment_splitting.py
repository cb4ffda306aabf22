"""Seconds to a relative gap for the equilibrium layer's splitting alone: a row beside `benchmarks.assignment`.

    OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.assignment_splitting --folder shared/data/tntp

Adds its row to `results/assignment.json`. Units of the links come from ten steps of Frank-Wolfe, whose time counts. Every 50
iterations the gap is looked at, which does not count; as the flows carry the trips only in the limit, the worst violation of
conservation, per trip, has to be below the gap too.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import implicit_l2o as il2o
from implicit_l2o.data.tntp import load
from implicit_l2o.data.traffic import STRENGTHS, contexts
from implicit_l2o.games import EquilibriumLayer, PolynomialCost, TrafficNetwork, flow_units, frank_wolfe, gaps
from implicit_l2o.report import write_json

ROOT = Path(__file__).parents[1]
TOLERANCES = (1e-3, 1e-4)
_BLOCK = 50


def costs(network: TrafficNetwork) -> PolynomialCost:
    """The travel times; connectors get the small slope of the traffic data, or their flows would not be determined."""
    model = contexts(network)
    latency = model.latency(np.zeros((1, model.dimension)))[0]
    power = np.unique(latency.power)
    coefficient = (latency.power == power) * latency.coefficient
    return PolynomialCost(
        constant=torch.as_tensor(latency.constant.copy())[None],
        coefficient=torch.as_tensor(coefficient),
        scale=torch.as_tensor(latency.scale.copy()),
        power=tuple(power.tolist()),
    )


def measured(network: TrafficNetwork, seconds: float) -> dict[str, dict[str, Any]]:
    """What the splitting takes to every gap, within so many seconds."""
    rows: dict[str, dict[str, Any]] = {}
    begin = time.process_time()
    cost = costs(network)
    rough = frank_wolfe(network, directions="plain", tolerance=0.0, max_steps=10, on_failure="ignore").flow
    rough = torch.as_tensor(np.maximum(rough, 1e-3 * rough.mean()))
    limit = 1.5 * torch.maximum(rough, cost.scale)
    cost = PolynomialCost(
        constant=cost.constant, coefficient=cost.coefficient, scale=cost.scale, power=cost.power, limit=limit
    )
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=_BLOCK, check_every=_BLOCK))
    layer = EquilibriumLayer(network, unit=flow_units(cost, rough[None]), solver=solver, on_failure="ignore")
    z, spent, steps = None, time.process_time() - begin, 0
    while len(rows) < len(TOLERANCES):
        begin = time.process_time()
        with torch.no_grad():
            solution = layer(cost, start=z)
        spent, steps, z = spent + time.process_time() - begin, steps + _BLOCK, solution.z
        flow = solution.x.numpy()
        gap = float(gaps.relative_gap(network, flow, cost.apply(solution.x).numpy())[0])
        violation = float(gaps.conservation_violation(network, flow)[0])
        for tolerance in TOLERANCES:
            reached = max(abs(gap), violation) <= tolerance
            if f"{tolerance:g}" not in rows and (reached or spent > seconds):
                beckmann = float(cost.value(solution.x)[0])
                found = {"seconds": spent, "steps": steps, "gap": max(abs(gap), violation), "reached": reached}
                rows[f"{tolerance:g}"] = {**found, "beckmann": beckmann}
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="of the public networks; default: download them")
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, a network; default: %(default)s")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "assignment.json")
    options = parser.parse_args()
    result = json.loads(options.out.read_text()) if options.out.exists() else {"networks": {}}
    measured(load("SiouxFalls", options.folder), 0.0)  # compiles
    for name in STRENGTHS:
        rows = measured(load(name, options.folder), options.seconds)
        print(name, json.dumps(rows), flush=True)
        result["networks"].setdefault(name, {}).setdefault("methods", {})["splitting"] = rows
    write_json(options.out, result)


if __name__ == "__main__":
    main()
