"""What a rule may read of a program, the rules, and how they are fitted and judged."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.lp_steps.sets import Array
from implicit_l2o.linear_program.step import automatic_step


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
