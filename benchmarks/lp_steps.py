"""Which step of Davis-Yin needs the fewest iterations, on programs that the rule was and was not chosen on.

    python -m benchmarks.lp_steps            # writes results/lp_steps.json, a few minutes on one core

For every program and `gamma` in 1, 0.1, 0.01 the iterations until every entry of `x` is within 1e-4 of the reference, and
until `|T(z) - z| <= 1e-4`, are counted for 25 steps on a logarithmic scale. A rule that gives a step is judged by its
iterations over those of the best of these steps, in the geometric mean. Constants are fitted on one half of the programs,
`TUNING`, and the rules compared on the other, `HELD_OUT`; the halves were written down before rules were compared. The
iteration here is its own, in plain matrices, so that a change of the library's projections or loops does not move the study.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lp_layers.pin import pin

CORE = pin() if __name__ == "__main__" else None

import numpy as np  # noqa: E402  the process is pinned first
import scipy.sparse as sp  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.lp_layers import reference  # noqa: E402
from benchmarks.lp_layers.problems import Row, general, grid, knapsack  # noqa: E402
from implicit_l2o.linear_program.step import automatic_step  # noqa: E402
from implicit_l2o.report import machine, write_json  # noqa: E402

ROOT = Path(__file__).parents[1]
TUNING = (
    "assignment 10x10",
    "transport 10x20",
    "sparse equations",
    "set cover",
    "flow with capacities",
    "b-matching",
    "generalized network",
    "grid 5",
    "grid 15",
    "knapsack 50",
)
HELD_OUT = (
    "assignment 20x20",
    "multi-commodity flow",
    "sparse inequalities",
    "facility location",
    "portfolio",
    "scheduling",
    "grid 10",
    "grid 20",
    "knapsack 500",
)
GAMMAS = (1.0, 0.1, 0.01)
STEPS = np.logspace(-1.55, 2.2, 25)
BATCH = 6
ACCURACY = 1e-4
MOST = 2500  # iterations
RELAXATION = 1.7
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sets:
    """The box and the rows over variables and slacks, the projection onto the rows as a matrix.

    Attributes:
        lower: `(n + slacks,)`; upper likewise.
        null: the projection onto the null space of the rows.
        offset: the point of the rows that is closest to 0.
        n: variables without slacks.
        rank: of the rows.
        condition: the largest singular value of the rows over the least that is not zero.
    """

    lower: Tensor
    upper: Tensor
    null: Tensor
    offset: Tensor
    n: int
    rank: int
    condition: float

    @classmethod
    def of(cls, row: Row) -> "Sets":
        """`[A_eq 0; A_ub D]`, `D` the norms of the rows of `A_ub`, as in the library."""
        slacks = 0 if row.A_ub is None else row.A_ub.shape[0]
        blocks: list[Any] = []
        if row.A_eq is not None:
            blocks.append(sp.hstack([row.A_eq, sp.csr_array((row.A_eq.shape[0], slacks))]))
        if row.A_ub is not None:
            norms = np.sqrt(np.asarray(row.A_ub.multiply(row.A_ub).sum(axis=1)).ravel())
            blocks.append(sp.hstack([row.A_ub, sp.diags_array(norms)]))
        rows = sp.vstack(blocks).toarray()
        b = np.concatenate([side for side in (row.b_eq, row.b_ub) if side is not None])
        singular = np.linalg.svd(rows, compute_uv=False)
        rank = int((singular > 1e-10 * singular[0]).sum())
        inverse = np.linalg.pinv(rows, rcond=1e-10)
        return cls(
            torch.from_numpy(np.r_[row.lower, np.zeros(slacks)]),
            torch.from_numpy(np.r_[row.upper, np.full(slacks, np.inf)]),
            torch.from_numpy(np.eye(rows.shape[1]) - inverse @ rows),
            torch.from_numpy(inverse @ b),
            row.n,
            rank,
            float(singular[0] / singular[rank - 1]),
        )

    def lift(self, x: Array) -> Tensor:
        """Zero on the slacks."""
        return torch.nn.functional.pad(torch.from_numpy(x), (0, len(self.offset) - self.n))


def iterations(sets: Sets, cost: Tensor, answer: Tensor, gamma: float, step: Tensor) -> tuple[Tensor, Tensor]:
    """Iterations of each sample until `|T(z) - z| <= 1e-4`, and until `x` is within 1e-4; `step` is `(samples,)`.

    The relaxation is 1.7, less where the theorem wants it: below `2 - step gamma / 2`.
    """
    quadratic = sets.lift(np.full(sets.n, gamma))
    step = step[:, None]
    relaxation = (0.98 * (2 - step * gamma / 2)).clamp_max(RELAXATION)
    z, samples = torch.zeros_like(cost), torch.arange(len(cost))
    found = torch.full((2, len(cost)), float(MOST))
    for number in range(1, MOST + 1):
        x = z.clamp(sets.lower, sets.upper)
        move = (2 * x - z - step * (cost + quadratic * x)) @ sets.null + sets.offset - x
        if number % 5 == 0:
            small = move.norm(dim=1) <= ACCURACY, (x - answer)[:, : sets.n].abs().amax(1) <= ACCURACY
            for which, reached in enumerate(small):
                of = samples[reached]
                found[which, of] = found[which, of].clamp_max(number)
            open_ = (found[:, samples] == MOST).any(0)
            if not open_.any():
                break
            if not open_.all():
                parts = (samples, step, relaxation, cost, answer, z, move)
                samples, step, relaxation, cost, answer, z, move = (part[open_] for part in parts)
        z = z + relaxation * move
    return found[0], found[1]


@dataclass(frozen=True, eq=False)
class Case:
    """A program with a gamma: what a rule may read, and what each step costs.

    Attributes:
        features: numbers by name.
        steps: that were tried.
        x: median iterations over the samples to an x error of 1e-4, for each step; residual: to that residual.
    """

    name: str
    gamma: float
    features: Mapping[str, float]
    steps: Array
    residual: Array
    x: Array

    def of(self, step: float) -> float:
        """Iterations at a step, between those that were tried (both on logarithmic scales)."""
        inside = np.clip(step, self.steps[0], self.steps[-1])
        return float(np.exp(np.interp(np.log(inside), np.log(self.steps), np.log(self.x))))


def program(name: str) -> Row:
    """A row of the benchmark with fewer samples."""
    kind, _, size = name.partition(" ")
    sized = {"grid": grid, "knapsack": knapsack}
    return sized[kind](int(size), batch=BATCH) if kind in sized else general(name, batch=BATCH)


def measured(name: str, gamma: float) -> Case:
    """Run every step that the theorem allows."""
    row = program(name)
    sets, exact = Sets.of(row), reference.solve(row, gamma)
    steps = STEPS[STEPS * gamma < 1.9]
    cost, answer = (sets.lift(part).repeat(len(steps), 1) for part in (row.cost, exact.x))
    each = torch.from_numpy(steps).repeat_interleave(BATCH)
    residual, x = (
        found.view(-1, BATCH).median(1).values.numpy() for found in iterations(sets, cost, answer, gamma, each)
    )
    size = len(sets.offset)
    features = {
        "rank": float(sets.rank),
        "variables": float(size),
        "free": float(size - sets.rank),
        "share of rank": sets.rank / size,
        "condition": sets.condition,
        "closest point": float(sets.offset.norm()) / size**0.5,
        "solution": float(np.sqrt((exact.x**2).mean())),
    }
    return Case(name, gamma, features, steps, residual, x)


Rule = Callable[[Case], float]


def librarys(case: Case) -> float:
    """What the library takes today."""
    cost = torch.ones(1, 4, dtype=torch.float64)  # a root mean square of 1, as every cost here has
    return float(automatic_step(cost, case.gamma, int(case.features["rank"]))[0])


def earlier(case: Case) -> float:
    """What the library took before this study: less, the higher the rank, as paths through a long grid want it."""
    gamma, rank = case.gamma, case.features["rank"]
    return min(0.7 * gamma**-0.5, 2 / (gamma * max(4.0, rank**0.5)), 0.5 / gamma)


def power(constant: float, exponent: float, feature: str | None = None, of_feature: float = 0.0) -> Rule:
    """`constant gamma^-exponent feature^of_feature`."""
    return lambda case: (
        constant * case.gamma**-exponent * (1.0 if feature is None else case.features[feature] ** of_feature)
    )


def score(rule: Rule, cases: Sequence[Case]) -> dict[str, float]:
    """Iterations over those of the best step: the geometric mean and the largest."""
    ratios = [case.of(rule(case)) / float(case.x.min()) for case in cases]
    return {"mean": float(np.exp(np.mean(np.log(ratios)))), "largest": max(ratios)}


def fitted(cases: Sequence[Case], feature: str | None) -> tuple[float, ...]:
    """The constant and the exponents that are best on these cases, by search on a grid that is refined twice."""
    centre, width = (
        np.array([0.5, 0.5, 0.0]),
        np.array([3.0, 0.4, 0.8]),
    )  # of the constant a factor, of the others a difference
    for _ in range(3):
        constants = centre[0] * np.geomspace(1 / width[0], width[0], 13)
        exponents = centre[1] + np.linspace(-width[1], width[1], 9)
        others = centre[2] + np.linspace(-width[2], width[2], 9) if feature else [0.0]
        tried = [(a, p, q) for a in constants for p in exponents for q in others]
        centre = np.array(min(tried, key=lambda t: score(power(t[0], t[1], feature, t[2]), cases)["mean"]))
        width = np.array([width[0] ** 0.3, 0.3 * width[1], 0.3 * width[2]])
    return tuple(float(part) for part in centre)


FEATURES = (None, "rank", "variables", "free", "share of rank", "condition", "closest point", "solution")


def rules(tuning: Sequence[Case]) -> Iterator[tuple[str, Rule]]:
    """Those that need no fit, and the fitted ones."""
    yield "the library's", librarys
    yield "before this study, limited by the rank", earlier
    yield "fixed 0.05", power(0.05, 0.0)
    yield "1 / gamma", power(1.0, 1.0)
    yield "0.5 gamma^-0.5", power(0.5, 0.5)
    yield "0.32 gamma^-0.5", power(0.32, 0.5)
    for feature in FEATURES:
        a, p, q = fitted(tuning, feature)
        name = f"fitted: {a:.3g} gamma^-{p:.2f}" + ("" if feature is None else f" ({feature})^{q:.2f}")
        yield name, power(a, p, feature, q)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lp_steps", description=__doc__)
    parser.add_argument("--programs", nargs="+", default=[*TUNING, *HELD_OUT], metavar="NAME", help="default: all")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "lp_steps.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases: list[Case] = []
    result: dict[str, Any] = {
        "command": "python -m benchmarks.lp_steps",
        "accuracy": ACCURACY,
        "tuning": [name for name in TUNING if name in options.programs],
        "held_out": [name for name in HELD_OUT if name in options.programs],
        "machine": machine(),
        "cases": {},
    }
    for name in options.programs:
        for gamma in GAMMAS:
            case = measured(name, gamma)
            cases.append(case)
            result["cases"][f"{name}, gamma {gamma:g}"] = {
                "features": dict(case.features),
                "steps": case.steps.tolist(),
                "x": case.x.tolist(),
                "residual": case.residual.tolist(),
            }
            write_json(options.out, result)
            best = float(case.steps[case.x.argmin()])
            print(f"{name:22s} gamma {gamma:<5g} best step {best:6.3g}, {case.x.min():5.0f} iterations", flush=True)
    tuning, held_out = ([case for case in cases if case.name in half] for half in (TUNING, HELD_OUT))
    result["rules"] = {
        name: {"tuning": score(rule, tuning), "held_out": score(rule, held_out)} for name, rule in rules(tuning)
    }
    write_json(options.out, result)
    for name, found in result["rules"].items():
        print(f"{name:50s} {found['tuning']['mean']:.2f} tuning, {found['held_out']['mean']:.2f} held out")
    print(
        f"written: {options.out}; median best step by gamma:",
        {gamma: statistics.median(float(c.steps[c.x.argmin()]) for c in cases if c.gamma == gamma) for gamma in GAMMAS},
    )


if __name__ == "__main__":
    main()
