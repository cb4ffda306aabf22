"""Iterations of `LPLayer` against the size, gamma, the step and the relaxation, until the residual is 1e-3 and 1e-6."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch

import implicit_l2o as il2o
from benchmarks.lp_layers.problems import Row, grid, knapsack
from implicit_l2o.linear_program.step import automatic_step

Study = Iterator[tuple[str, Any]]

SIDES = (5, 10, 15, 20, 25, 30, 50)
GAMMAS = (1.0, 0.1, 0.01)
TOLERANCES = (1e-3, 1e-6)
MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)
FIXED = 0.05
RELAXATIONS = (1.0, 1.7)
MOST = 3000  # iterations
BATCH = 8  # samples: counts are medians over them, and need no full batch


def count(row: Row, *, gamma: float, step: float | None, relaxation: float, tolerance: float) -> dict[str, Any]:
    """The median and the largest number of iterations over the samples, and the share that converged."""
    layer = il2o.LPLayer(
        row.program(), gamma=gamma, step=step, relaxation=relaxation, tolerance=tolerance, max_steps=MOST
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        solution = layer(torch.from_numpy(row.cost))
    steps = solution.steps.double()
    return {
        "median": float(steps.median()),
        "largest": float(steps.max()),
        "converged": float((solution.status == il2o.Status.CONVERGED).double().mean()),
    }


def step_of(row: Row, gamma: float) -> float:
    """The automatic step of the first sample; the costs all have a root mean square of 1, so it is that of every sample."""
    rank = torch.linalg.matrix_rank(torch.from_numpy(dense_rows(row))) if row.n <= 2000 else row.m - 1
    return float(automatic_step(torch.from_numpy(row.cost[:1]), gamma, int(rank))[0])


def dense_rows(row: Row) -> Any:
    """The rows as an array."""
    import numpy as np

    return np.concatenate([A.toarray() for A in (row.A_eq, row.A_ub) if A is not None])


def settings(automatic: float, gamma: float) -> Iterator[tuple[str, float | None, float]]:
    """Name, step (None is the automatic one) and relaxation, those that the theorem allows."""
    for multiple in MULTIPLES:
        for relaxation in RELAXATIONS if multiple == 1 else RELAXATIONS[-1:]:
            if relaxation < 2 - multiple * automatic * gamma / 2:
                yield f"automatic x {multiple:g}", None if multiple == 1 else multiple * automatic, relaxation
    yield f"fixed {FIXED:g}", FIXED, RELAXATIONS[-1]


def studies(*, quick: bool = False) -> Study:
    """One entry for each row and gamma."""
    rows = [grid(side, batch=BATCH) for side in (SIDES[:1] if quick else SIDES)] + [knapsack(50, batch=BATCH)]
    for row in rows:
        for gamma in GAMMAS:
            automatic = step_of(row, gamma)
            yield (
                f"{row.name}, gamma {gamma:g}",
                [
                    {"rule": name, "step": automatic if step is None else step, "relaxation": relaxation}
                    | {
                        f"{tolerance:g}": count(row, gamma=gamma, step=step, relaxation=relaxation, tolerance=tolerance)
                        for tolerance in TOLERANCES
                    }
                    for name, step, relaxation in settings(automatic, gamma)
                ],
            )
