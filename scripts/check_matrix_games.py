"""Compute the numbers of results/matrix_games.json again, from the answers on file.

    python scripts/check_matrix_games.py runs/matrix_games

Nothing of the package is imported. The recorded equilibria are checked by the players' own responses; errors, violations
of the simplices and the gaps in the true games are computed here, in NumPy.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
EXACT = 1e-9  # of a recorded equilibrium

Array = NDArray[np.float64]


def payoffs(upper: Array, actions: int) -> Array:
    """The antisymmetric matrices with these entries above the diagonal."""
    matrix = np.zeros((len(upper), actions, actions))
    place = 0
    for i in range(actions):
        for j in range(i + 1, actions):
            matrix[:, i, j] = upper[:, place]
            matrix[:, j, i] = -upper[:, place]
            place += 1
    return matrix


def softmax(logits: Array) -> Array:
    """Along the last axis."""
    power = np.exp(logits - logits.max(-1, keepdims=True))
    return power / power.sum(-1, keepdims=True)


def log_sum(logits: Array) -> Array:
    """The logarithm of the sum of exponentials along the last axis."""
    top = logits.max(-1, keepdims=True)
    return top[..., 0] + np.log(np.exp(logits - top).sum(-1))


def not_an_equilibrium(x: Array, B: Array, *, entropy: bool) -> float:
    """How far the strategies are from answering each other: with entropy by the logit rule, else in what they leave."""
    u, v = np.split(x, 2, axis=1)
    costs, gains = np.einsum("bij,bj->bi", B, v), np.einsum("bij,bi->bj", B, u)
    if entropy:
        return float(max(np.abs(u - softmax(-costs)).max(), np.abs(v - softmax(gains)).max()))
    return float((gains.max(1) - costs.min(1)).max())


def gap(x: Array, B: Array, *, entropy: bool) -> float:
    """The mean over the games of what both players can gain together."""
    u, v = np.split(np.clip(x, 0, None), 2, axis=1)
    costs, gains = np.einsum("bij,bj->bi", B, v), np.einsum("bij,bi->bj", B, u)
    if not entropy:
        return float((gains.max(1) - costs.min(1)).mean())
    own = sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(1) for p in (u, v))
    return float(np.clip(log_sum(gains) + log_sum(-costs) + own, 0, None).mean())


def violation(x: Array) -> float:
    """The worst of a sum that is not 1 and an entry that is negative, of either player."""
    return max(float(np.abs(p.sum(1) - 1).max() + np.abs(np.minimum(p, 0)).max()) for p in np.split(x, 2, axis=1))


def complaints(folder: Path, case: str, rows: Mapping[str, Any]) -> Iterator[str]:
    """What does not agree for one kind of games."""
    for name, row in rows.items():
        for index, seed in enumerate(row["seeds"]):
            with np.load(folder / f"seed_{seed}" / "truth.npz") as truth:
                exact, upper = truth["x"], truth["upper"]
            with np.load(folder / f"seed_{seed}" / f"{name}.npz") as kept:
                x = kept["x"]
            entropy = case != "cyclic"
            B = payoffs(upper, exact.shape[1] // 2)
            off = not_an_equilibrium(exact, B, entropy=entropy)
            if off > EXACT:
                yield f"seed {seed}: a strategy on file as exact is off by {off:.1e}"
            if x.shape != exact.shape:
                yield f"{name}, seed {seed}: answers of shape {x.shape} for {exact.shape}"
                continue
            found = {"mse": float(np.square(x - exact).mean()), "gap": gap(x, B, entropy=entropy)}
            for key, value in (found | {"violation": violation(x)}).items():
                recorded = row[key][index]
                if abs(value - recorded) > 1e-6 * abs(value) + 1e-9:
                    yield f"{name}, seed {seed}: {key} is {value:.6e}, recorded {recorded:.6e}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every row of the results; the exit status is 1 if anything does not agree."""
    parser = argparse.ArgumentParser(description="Compute the numbers of the tables of matrix games again.")
    parser.add_argument("runs", type=Path, nargs="?", default=ROOT / "runs" / "matrix_games")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "matrix_games.json")
    options = parser.parse_args(arguments)
    cases = json.loads(options.results.read_text())["cases"]
    wrong = 0
    for case, rows in cases.items():
        for text in complaints(options.runs / case, case, rows):
            print(f"{case}: {text}")
            wrong += 1
    print(f"{sum(len(rows) for rows in cases.values())} rows checked, {wrong} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
