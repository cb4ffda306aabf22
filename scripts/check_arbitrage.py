"""Compute the numbers of results/arbitrage.json again, from the trades on file.

    python scripts/check_arbitrage.py runs/arbitrage

Nothing of the package is imported. Every trade is executed again on the reserves on file, pool by pool in NumPy: whether a
mean falls, whether a pool can pay, what the trade is worth. The best trade in hindsight is solved for again by SciPy for the
first samples. The analytic trade lies on the boundary, where rounding decides; so a recorded number has to lie between
those of a strict and of a lenient pool, which differ by a part in 10^12.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

ROOT = Path(__file__).parents[1]
PRICES = {1: 1.0, 2: 1.9, 3: 0.5}
# Kind, tokens, weights, fee: the published network.
POOLS = (
    ("geometric", (1, 2, 3), (0.2, 0.3, 0.5), 0.98),
    ("geometric", (1, 2), (0.4, 0.6), 0.99),
    ("geometric", (2, 3), (0.5, 0.5), 0.98),
    ("geometric", (1, 3), (0.6, 0.4), 0.99),
    ("arithmetic", (1, 3), (0.6, 0.4), 0.98),
)
ROUNDING = 1e-12  # relative
SOLVED = 3  # samples of each seed whose best trade is solved for again

Array = NDArray[np.float64]


def mean(kind: str, held: Array, weights: Array) -> Array:
    """The weighted mean of what a pool holds; 0 where it would hold less than nothing."""
    if kind == "arithmetic":
        return held @ weights
    return np.where((held > 0).all(1), np.exp(np.log(np.maximum(held, 1e-300)) @ weights), 0.0)


def executed(trade: Array, reserves: Array, lenient: float) -> NDArray[np.bool_]:
    """Which trades `(N, 2, 11)` every pool accepts at the reserves `(N, 11)`, if it overlooks a fall of `lenient`."""
    accepted, at = np.ones(len(trade), dtype=np.bool_), 0
    for kind, tokens, weights, fee in POOLS:
        here = slice(at, at + len(tokens))
        at += len(tokens)
        before, w = reserves[:, here], np.array(weights)
        after = before + fee * trade[:, 0, here] - trade[:, 1, here]
        most = (1 - lenient) * mean(kind, before, w)
        accepted &= (mean(kind, after, w) >= most) & (after >= -lenient * before).all(1)
    return accepted & np.isfinite(trade).all((1, 2))


def worth(trade: Array) -> Array:
    """What is received less what is tendered, at the trader's prices."""
    prices = np.array([PRICES[token] for _, tokens, _, _ in POOLS for token in tokens])
    return (trade[:, 1] - trade[:, 0]) @ prices


def best(reserves: Array) -> float:
    """The largest utility of one sample, by sequential quadratic programming on each pool."""
    total, at = 0.0, 0
    for kind, tokens, weights, fee in POOLS:
        d, w = reserves[at : at + len(tokens)], np.array(weights)
        at += len(tokens)
        p = np.array([PRICES[token] for token in tokens])
        n = len(d)

        def gain(t: Array, kind: str = kind, d: Array = d, w: Array = w, fee: float = fee, n: int = n) -> float:
            after = d + fee * t[:n] - t[n:]
            if kind == "arithmetic":
                return float(w @ (after - d))
            return float(w @ (np.log(np.maximum(after, 1e-9)) - np.log(d)))

        found = minimize(
            lambda t, p=p, n=n: -float(p @ (t[n:] - t[:n])),
            np.full(2 * n, 0.01),
            bounds=[(0, None)] * n + [(0, held) for held in d],
            constraints=[{"type": "ineq", "fun": gain}],
            options={"maxiter": 500, "ftol": 1e-12},
        )
        total += -float(found.fun)
    return total


def scores(trade: Array, reserves: Array, lenient: float) -> dict[str, float]:
    """What the table shows of a method."""
    accepted, utility = executed(trade, reserves, lenient), worth(trade)
    return {
        "executed_utility": float(np.where(accepted, utility, 0.0).mean()),
        "executed": float(accepted.mean()),
        "predicted_utility": float(utility.mean()),
    }


def complaints(folder: Path) -> Iterator[str]:
    """What does not agree for one seed."""
    recorded = json.loads((folder / "results.json").read_text())["test"]
    with np.load(folder / "predictions.npz") as kept:
        trades = {"model": kept["answer"].astype(np.float64)}
        reserves = kept["target"].astype(np.float64)
    if (folder / "baselines.npz").exists():
        with np.load(folder / "baselines.npz") as kept:
            trades |= {name: kept[name].astype(np.float64) for name in kept.files if kept[name].ndim == 3}
    for name, trade in trades.items():
        if (trade < 0).any():
            yield f"{name}: an amount is negative"
        bounds = [scores(trade, reserves, lenient) for lenient in (-ROUNDING, ROUNDING)]
        for key, value in recorded[name].items():
            if key not in bounds[0]:
                continue
            low, high = sorted(bound[key] for bound in bounds)
            if not low - 1e-5 <= value <= high + 1e-5:
                yield f"{name}: {key} is {low:.6f} to {high:.6f}, recorded {value:.6f}"
    if "hindsight" in trades:
        for sample, utility in enumerate(worth(trades["hindsight"][:SOLVED])):
            again = best(reserves[sample])
            if abs(again - utility) > 1e-3 * max(1.0, abs(utility)):
                yield f"sample {sample}: the best trade is worth {again:.6f}, recorded {utility:.6f}"


def rows(folder: Path) -> list[Path]:
    """The folders of the seeds of a run, or the run's own."""
    return sorted(folder.glob("seed_*")) or [folder]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every seed of the runs; the exit status is 1 if anything does not agree."""
    parser = argparse.ArgumentParser(description="Compute the numbers of the arbitrage tables again.")
    parser.add_argument("runs", type=Path, nargs="*", default=[ROOT / "runs" / "arbitrage"])
    options = parser.parse_args(arguments)
    wrong, seeds = 0, 0
    for folder in (seed for run in options.runs for seed in rows(run)):
        found: Any = list(complaints(folder))
        for text in found:
            print(f"{folder}: {text}")
        wrong, seeds = wrong + len(found), seeds + 1
    print(f"{seeds} seeds checked, {wrong} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
