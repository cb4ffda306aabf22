"""What the traffic data are like: how far contexts move the equilibrium, and what a constant prediction gets.

    OMP_NUM_THREADS=1 python -m benchmarks.traffic_data --folder shared/data/tntp --cache runs/traffic_data

Writes `results/traffic_data.json`. The equilibria are read from the cache, or solved where they are not there. TRAFIX is the
share of test entries, all links of all samples, with `|prediction - flow| / (|flow| + 1e-3)` below 5e-3. Then, on a few
contexts of the networks that have links of constant time: which flows those links leave open, and what the slope that they
get changes on the other links.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from implicit_l2o.data.equilibria import TOLERANCE, equilibrium_data
from implicit_l2o.data.traffic import STRENGTHS, TrafficContexts, public_contexts
from implicit_l2o.games import PolynomialLatency, user_equilibria
from implicit_l2o.report import machine, write_json

ROOT = Path(__file__).parents[1]
FEW = 20
TINY = 1e-5  # a slope of connectors that moves no other link


def trafix(prediction: np.ndarray, flow: np.ndarray, threshold: float = 5e-3) -> float:
    """Share of entries that are right."""
    return float((np.abs(prediction - flow) / (np.abs(flow) + 1e-3) < threshold).mean())


def solved(model: TrafficContexts, latency: PolynomialLatency) -> np.ndarray:
    """Link flows of a few contexts."""
    return user_equilibria(model.network, latency, tolerance=TOLERANCE, progress=False, on_failure="raise").flow


def connectors(model: TrafficContexts) -> dict[str, Any]:
    """Which flows the links of constant time leave open, and what their slope does to the others."""
    d = model.draw(FEW, seed=300)
    flat = model.connectors
    if not flat.any():
        return {"links": 0}
    tiny = replace(model, connector_slope=TINY)
    latency = tiny.latency(d)
    uneven = latency.coefficient.copy()
    uneven[:, flat] *= np.random.default_rng(0).uniform(0.1, 10.0, (int(flat.sum()), 1))
    even = solved(model, latency)
    other = solved(model, PolynomialLatency(latency.constant, uneven, latency.scale, latency.power))
    given = solved(model, model.latency(d))
    apart = np.abs(even - other) / (even + 1e-3) > 1e-2
    moved = np.abs(given - even)[:, ~flat]
    return {
        "links": int(flat.sum()),
        "open": int(apart.any(0).sum()),
        "slope": model.connector_slope,
        "others_moved": float(np.sqrt((moved**2).sum() / (even[:, ~flat] ** 2).sum())),
        "others_moved_by_half_a_percent": float((moved / (even[:, ~flat] + 1e-3) > 5e-3).mean()),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="of the public networks; default: download them")
    parser.add_argument("--cache", type=Path, help="of the equilibria; default: the user's cache")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "traffic_data.json")
    options = parser.parse_args()
    result: dict[str, Any] = {"command": "python -m benchmarks.traffic_data", "tolerance": TOLERANCE, "networks": {}}
    for name in STRENGTHS:
        model = public_contexts(name, options.folder)
        data = equilibrium_data(model, cache=options.cache)
        mean, flow = data.train.flow.mean(0), data.test.flow
        latency = model.latency(data.test.d[:FEW])
        user_equilibria(model.network, latency[:1], progress=False)  # loads the compiled solver
        begin = time.process_time()
        again = user_equilibria(model.network, latency, tolerance=TOLERANCE, progress=False, on_failure="raise")
        milliseconds = 1e3 * (time.process_time() - begin) / FEW
        largest = np.abs(again.flow - flow[:FEW]) / (flow[:FEW] + 1e-3)
        result["networks"][name] = {
            "strength": model.strength,
            "samples": [len(data.train), len(data.validation), len(data.test)],
            "spread": float(np.sqrt(((flow - mean) ** 2).sum() / (flow**2).sum())),
            "constant_trafix": trafix(np.broadcast_to(mean, flow.shape), flow),
            "constant_mse": float(((flow - mean) ** 2).mean()),
            "largest_gap": float(max(data.train.gap.max(), data.validation.gap.max(), data.test.gap.max())),
            "two_starts_differ": float(largest.max()),
            "milliseconds": milliseconds,
            "connectors": connectors(model),
        }
        print(name, result["networks"][name], flush=True)
    write_json(options.out, result | {"machine": machine()})
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
