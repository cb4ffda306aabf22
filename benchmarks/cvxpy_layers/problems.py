"""Twelve standard problems at about `n` variables, and random values of their parameters.

Matrices are constant and sparse; costs, right-hand sides or bounds are parameters, as where a network predicts them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor


@dataclass
class Standard:
    """A problem, its parameters, and how to draw a batch of one of them; the others have one value."""

    problem: Any
    parameters: list[Any]
    variables: list[Any]
    draw: Callable[[int, np.random.Generator], list[np.ndarray]]

    def values(self, batch: int, seed: int = 0) -> list[Tensor]:
        rng = np.random.default_rng(seed)
        return [torch.as_tensor(np.asarray(value, dtype=float)) for value in self.draw(batch, rng)]


def _matrix(m: int, n: int) -> sp.csc_array:
    rng = np.random.default_rng(1)
    density = min(0.5, 8 / n)
    matrix = sp.random_array((m, n), density=density, rng=rng, data_sampler=lambda size: rng.standard_normal(size))
    return sp.csc_array(matrix + sp.eye_array(m, n))


def bounded_least_squares(n: int) -> Standard:
    x, b, A = cp.Variable(n), cp.Parameter(2 * n), _matrix(2 * n, n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0, x <= 1])
    return Standard(problem, [b], [x], lambda batch, rng: [rng.standard_normal((batch, 2 * n))])


def lasso(n: int) -> Standard:
    x, b, weight, A = cp.Variable(n), cp.Parameter(2 * n), cp.Parameter(nonneg=True), _matrix(2 * n, n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + weight * cp.norm1(x)))
    return Standard(problem, [b, weight], [x], lambda batch, rng: [rng.standard_normal((batch, 2 * n)), np.array(1.0)])


def huber(n: int) -> Standard:
    x, b, A = cp.Variable(n), cp.Parameter(2 * n), _matrix(2 * n, n)
    problem = cp.Problem(cp.Minimize(cp.sum(cp.huber(A @ x - b)) + 0.01 * cp.sum_squares(x)))
    return Standard(problem, [b], [x], lambda batch, rng: [3 * rng.standard_normal((batch, 2 * n))])


def ridge_logistic(n: int) -> Standard:
    x, b, A = cp.Variable(n), cp.Parameter(n), _matrix(n, n)
    problem = cp.Problem(cp.Minimize(cp.sum(cp.logistic(A @ x)) - b @ x + 0.1 * cp.sum_squares(x)))
    return Standard(problem, [b], [x], lambda batch, rng: [rng.uniform(0, 1, (batch, n))])


def _factors(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.standard_normal((max(2, n // 20), n)) / np.sqrt(n // 20 + 2), rng.uniform(0.3, 1.0, n)


def portfolio(n: int) -> Standard:
    x, mean = cp.Variable(n), cp.Parameter(n)
    F, d = _factors(n)
    y = F @ x
    objective = mean @ x - cp.sum_squares(y) - cp.sum_squares(cp.multiply(d, x))
    problem = cp.Problem(cp.Maximize(objective), [cp.sum(x) == 1, x >= 0])
    return Standard(problem, [mean], [x], lambda batch, rng: [0.3 * rng.standard_normal((batch, n))])


def risk_cone(n: int) -> Standard:
    x, mean = cp.Variable(n), cp.Parameter(n)
    F, d = _factors(n)
    risk = cp.norm(cp.hstack([F @ x, cp.multiply(d, x)])) <= 3 / np.sqrt(n)
    problem = cp.Problem(cp.Maximize(mean @ x), [cp.sum(x) == 1, x >= 0, risk])
    return Standard(problem, [mean], [x], lambda batch, rng: [0.3 * rng.standard_normal((batch, n))])


def regularised_lp(n: int) -> Standard:
    x, c, A = cp.Variable(n), cp.Parameter(n), abs(_matrix(n // 2, n))
    problem = cp.Problem(cp.Minimize(c @ x + 0.05 * cp.sum_squares(x)), [A @ x <= 1, x >= 0])
    return Standard(problem, [c], [x], lambda batch, rng: [rng.standard_normal((batch, n))])


def max_flow(n: int, price: float = 0.01) -> Standard:
    side = max(3, round(np.sqrt(n / 2)))
    nodes = np.arange(side * side).reshape(side, side)
    arcs = np.concatenate(
        [
            np.stack([nodes[:, :-1].ravel(), nodes[:, 1:].ravel()], 1),
            np.stack([nodes[:-1].ravel(), nodes[1:].ravel()], 1),
        ]
    )
    count = len(arcs)
    rows, columns = np.concatenate([arcs[:, 0], arcs[:, 1]]), np.tile(np.arange(count), 2)
    N = sp.csc_array((np.repeat([1.0, -1.0], count), (rows, columns)), shape=(side * side, count))
    f, capacity = cp.Variable(count), cp.Parameter(count, nonneg=True)
    # Of all largest flows the cheapest one, which is unique.
    cost = price * np.random.default_rng(3).uniform(0.5, 1.5, count)
    problem = cp.Problem(cp.Maximize(N[[0]] @ f - cost @ f), [N[1:-1] @ f == 0, f >= 0, f <= capacity])
    return Standard(problem, [capacity], [f], lambda batch, rng: [rng.uniform(0.5, 1.5, (batch, count))])


def simplex_projection(n: int) -> Standard:
    x, p = cp.Variable(n), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum(x) == 1, x >= 0])
    return Standard(problem, [p], [x], lambda batch, rng: [rng.standard_normal((batch, n)) / 2])


def entropic_transport(n: int) -> Standard:
    k = max(3, round(np.sqrt(n)))
    X, C = cp.Variable((k, k)), cp.Parameter((k, k))
    marginals = [cp.sum(X, axis=0) == 1 / k, cp.sum(X, axis=1) == 1 / k]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(C, X)) - 0.2 * cp.sum(cp.entr(X))), marginals)
    return Standard(problem, [C], [X], lambda batch, rng: [rng.uniform(0, 1, (batch, k, k))])


def nearest_correlation(n: int) -> Standard:
    k = max(3, round(np.sqrt(2 * n)))
    X, C = cp.Variable((k, k), PSD=True), cp.Parameter((k, k))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.diag(X) == 1])
    return Standard(problem, [C], [X], lambda batch, rng: [_symmetric(rng.standard_normal((batch, k, k)))])


def _symmetric(x: np.ndarray) -> np.ndarray:
    return (x + x.transpose(0, 2, 1)) / 2


def predictive_control(n: int) -> Standard:
    states, inputs = 4, 2
    steps = max(3, round(n / (states + inputs)))
    rng = np.random.default_rng(4)
    A = np.eye(states) + 0.1 * rng.standard_normal((states, states))
    A /= max(1.0, np.abs(np.linalg.eigvals(A)).max())
    B = 0.5 * rng.standard_normal((states, inputs))
    x, u, start = cp.Variable((states, steps + 1)), cp.Variable((inputs, steps)), cp.Parameter(states)
    constraints = [x[:, 0] == start, x[:, 1:] == A @ x[:, :-1] + B @ u, u <= 0.3, u >= -0.3]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + 0.1 * cp.sum_squares(u)), constraints)
    return Standard(problem, [start], [u], lambda batch, rng: [2 * rng.standard_normal((batch, states))])


PROBLEMS: dict[str, Callable[[int], Standard]] = {
    "least squares with bounds": bounded_least_squares,
    "lasso": lasso,
    "long-only portfolio": portfolio,
    "portfolio with a risk cone": risk_cone,
    "LP with regulariser": regularised_lp,
    "max-flow LP": max_flow,
    "simplex projection": simplex_projection,
    "entropic transport": entropic_transport,
    "nearest correlation matrix": nearest_correlation,
    "predictive control": predictive_control,
    # The longest ones.
    "ridge-logistic": ridge_logistic,
    "huber": huber,
}
