"""Measures every projector and writes the file."""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.projectors.peers import PEERS, Pair
from implicit_l2o.physics import Geometry
from implicit_l2o.report import machine, write_json

ROOT = Path(__file__).parents[2]
SIZES = {"128": Geometry.uniform(128, angles=30), "362": Geometry.uniform(362, angles=60)}
LARGE = ("ours", "ours, batch last", "SciPy CSR", "ASTRA, CPU")  # what is also measured at side 362


def measure(pair: Pair, batch: int, seconds: float) -> dict[str, Any]:
    """Milliseconds an image of the projector, its adjoint, the two in turn, and a gradient; and whether they are adjoint."""
    with torch.no_grad():
        apply, adjoint = least(lambda: pair.forward(pair.x), seconds), least(lambda: pair.adjoint(pair.y), seconds)
        in_turn = least(lambda: (pair.forward(pair.x), pair.adjoint(pair.y)), seconds)
        error = mismatch(pair)
    gradient = least(lambda: differentiate(pair), seconds) if pair.differentiable else None
    times = {"apply": apply, "adjoint": adjoint, "in_turn": in_turn, "gradient": gradient}
    row: dict[str, Any] = {name: None if time is None else 1e3 * time / batch for name, time in times.items()}
    return {**row, "adjoint_error": error, "mebibytes": pair.mebibytes}


def least(function: Callable[[], Any], seconds: float) -> float:
    """The least processor time of one call, in seconds, over at least 5 calls."""
    function()
    until, times = time.perf_counter() + seconds, []
    while len(times) < 5 or time.perf_counter() < until:
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def differentiate(pair: Pair) -> None:
    """The gradient of half the square of the sinogram."""
    x = pair.x.detach().requires_grad_()
    pair.forward(x).square().sum().backward()


def mismatch(pair: Pair) -> float:
    """`|<A x, y> - <x, A^T y>| / (|A x| |y|)`."""
    x, y, Ax, Aty = (flat(part) for part in (pair.x, pair.y, pair.forward(pair.x), pair.adjoint(pair.y)))
    return float(abs(Ax @ y - x @ Aty) / (np.linalg.norm(Ax) * np.linalg.norm(y)))


def flat(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64).ravel()


def main(core: int | None, arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Time parallel-beam projectors and their adjoints.")
    parser.add_argument("--rows", nargs="+", choices=PEERS, default=list(PEERS), metavar="ROW", help=", ".join(PEERS))
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement; default: %(default)s")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "projectors.json")
    options = parser.parse_args(arguments)
    before = json.loads(options.out.read_text()) if options.out.exists() else {"sizes": {}}
    sizes = before["sizes"]
    for size in options.sizes:
        geometry = SIZES[size]
        entry = sizes.setdefault(size, {"rows": {}})
        entry |= {"angles": len(geometry.angles), "bins": geometry.sinogram_shape[1]}
        for name in options.rows:
            if size != "128" and name not in LARGE:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    pair = PEERS[name](geometry, options.batch)
                    entry["rows"][name] = measure(pair, options.batch, options.seconds)
            except ImportError as error:
                print(f"{name}: left out, {error}")
                continue
            print(
                size,
                name,
                {key: value and float(f"{value:.3g}") for key, value in entry["rows"][name].items()},
                flush=True,
            )
            result = {"command": "python -m benchmarks.projectors", "batch": options.batch, "pinned": core is not None}
            write_json(options.out, {**result, "sizes": sizes, "machine": machine()})
