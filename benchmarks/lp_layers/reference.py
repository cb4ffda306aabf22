"""Solutions to 1e-10 and exact gradients, by other means than the library's: Clarabel, then the active set in float64.

For `min c.x + gamma |x|^2 / 2, A_eq x = b_eq, A_ub x <= b_ub, l <= x <= u` Clarabel at 1e-12 says which bounds and rows are
active. The equations of the free variables `S` and the rows `W`,

    gamma x_S + A_WS^T y = -c_S,     A_WS x_S = b_W - A_WN x_N,

are then solved to round-off: one sparse LU of the matrix with `-delta I` in its corner, refined until it holds for
`delta = 0` (multipliers that the rows leave open stay where Clarabel put them). Where a sign comes out wrong, the set
changes and the equations are solved again. What counts is not how it was found but the natural residual of the
optimality conditions, which knows no active sets: it is checked, and a reference that misses it is refused.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numpy.typing import NDArray

from benchmarks.lp_layers.problems import Row

Array = NDArray[np.float64]
ACCURACY = 1e-10
_DELTA = 1e-9  # of the corner, relative to gamma = 1; refined away
_SWITCHES = 60


class NoReference(Exception):
    """The optimality conditions are not met to the accuracy that a reference needs."""


@dataclass(frozen=True, eq=False)
class Reference:
    """For every sample of a row.

    Attributes:
        x: `(B, n)` the solutions.
        gradient: `(B, n)` the exact gradients of `sum(cotangent * x)` in the costs.
        residual: the largest natural residual of the optimality conditions, in units of `x`.
        moved: the largest distance between `x` and Clarabel's answer, which nothing is inferred from but is good to know.
        vertices: how many samples have no free direction, so that the exact gradient is zero.
    """

    x: Array
    gradient: Array
    residual: float
    moved: float
    vertices: int


def solve(row: Row, gamma: float) -> Reference:
    """The reference of a row.

    Raises:
        NoReference: the natural residual of a sample is above 1e-10.
    """
    found = [_sample(row, gamma, c, w) for c, w in zip(row.cost, row.cotangent, strict=True)]
    x, gradient, residuals, moved = (list(part) for part in zip(*found, strict=True))
    worst = max(residuals)
    if not worst <= ACCURACY:
        raise NoReference(f"{row.name}: sample {int(np.argmax(residuals))} has a residual of {worst:.1e}")
    gradients = np.stack(gradient)
    vertices = int((np.abs(gradients).max(1) < 1e-9).sum())
    return Reference(np.stack(x), gradients, worst, max(moved), vertices)


def natural_residual(row: Row, gamma: float, cost: Array, x: Array, y: Array, z: Array) -> float:
    """How far `x` and the multipliers `y` of the equations and `z` of the inequalities are from optimality.

    The largest entry of `x - clip(x - r)` with `r = c + gamma x + A_eq^T y + A_ub^T z`, of `A_eq x - b_eq`, and of
    `z - max(0, z + A_ub x - b_ub)`.
    """
    slope = cost + gamma * x
    parts = [np.zeros(1)]
    if row.A_eq is not None:
        slope = slope + row.A_eq.T @ y
        parts.append(row.A_eq @ x - row.b_eq)
    if row.A_ub is not None:
        slope = slope + row.A_ub.T @ z
        parts.append(z - np.maximum(0.0, z + row.A_ub @ x - row.b_ub))
    parts.append(x - np.clip(x - slope, row.lower, row.upper))
    return float(np.abs(np.concatenate(parts)).max())


def clarabel(row: Row, gamma: float, cost: Array) -> tuple[Array, Array, Array]:
    """`x`, and the multipliers of the equations and of the inequalities, as close as Clarabel gets."""
    import clarabel as solver

    n, identity = row.n, sp.eye_array(row.n, format="csr")
    below, above = np.isfinite(row.lower), np.isfinite(row.upper)
    blocks = [row.A_eq, row.A_ub, -identity[below], identity[above]]
    sides = [row.b_eq, row.b_ub, -row.lower[below], row.upper[above]]
    A = sp.vstack([block for block in blocks if block is not None and block.shape[0]])
    b = np.concatenate([side for side in sides if side is not None])
    equations = 0 if row.A_eq is None else row.A_eq.shape[0]
    inequalities = 0 if row.A_ub is None else row.A_ub.shape[0]
    cones = [solver.ZeroConeT(equations)] if equations else []
    cones.append(solver.NonnegativeConeT(len(b) - equations))
    settings = solver.DefaultSettings()
    settings.verbose = False
    settings.max_iter = 200
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    P, A = sp.csc_matrix(gamma * sp.eye_array(n)), sp.csc_matrix(A)
    solution = solver.DefaultSolver(P, cost, A, b, cones, settings).solve()
    x, dual = np.array(solution.x), np.array(solution.z)
    return x, dual[:equations], dual[equations : equations + inequalities]


def _sample(row: Row, gamma: float, cost: Array, cotangent: Array) -> tuple[Array, Array, float, float]:
    """The solution, the gradient, the residual, and how far Clarabel's answer moved."""
    start, y, z = clarabel(row, gamma, cost)
    x, best = start, (np.inf, start, y, z)
    equations = len(y)
    A = sp.vstack([block for block in (row.A_eq, row.A_ub) if block is not None]).tocsr()
    b = np.concatenate([side for side in (row.b_eq, row.b_ub) if side is not None])
    for _ in range(_SWITCHES):
        dual = np.concatenate([y, z])
        target = x - (cost + gamma * x + A.T @ dual)  # where the variables want to go
        low, high = target <= row.lower, target >= row.upper
        on = np.ones(len(b), bool)
        on[equations:] = z + (A @ x - b)[equations:] > 0
        x, dual = _equations(
            A, b, cost, gamma, np.where(low, row.lower, np.where(high, row.upper, x)), dual, ~(low | high), on
        )
        y, z = dual[:equations], dual[equations:]
        residual = natural_residual(row, gamma, cost, x, y, z)
        if residual < best[0]:
            best = residual, x, y, z
        if residual <= ACCURACY / 10:
            break
    residual, x, y, z = best
    dual = np.concatenate([y, z])
    target = x - (cost + gamma * x + A.T @ dual)
    free = (target > row.lower) & (target < row.upper)
    on = np.ones(len(b), bool)
    on[equations:] = z + (A @ x - b)[equations:] > 0
    zero = np.zeros(row.n)
    derivative, _ = _equations(A, 0 * b, cotangent, gamma, zero, 0 * b, free, on)  # the same equations, w for c
    return np.clip(x, row.lower, row.upper), derivative, residual, float(np.abs(x - start).max())


def _equations(
    A: sp.csr_array,
    b: Array,
    cost: Array,
    gamma: float,
    x: Array,
    dual: Array,
    free: NDArray[np.bool_],
    on: NDArray[np.bool_],
) -> tuple[Array, Array]:
    """`x` and the multipliers with the variables that are not free where they are, and the rows that are not on left out."""
    x, dual = x.copy(), np.where(on, dual, 0.0)
    rows, columns = A[on], free.nonzero()[0]
    part = rows[:, columns]
    count = len(columns)
    corner = _DELTA / gamma * sp.eye_array(part.shape[0])
    K = sp.block_array([[gamma * sp.eye_array(count), part.T], [part, -corner]], format="csc")
    factor = spla.splu(K, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    for _ in range(12):
        slope = -(cost + gamma * x + A.T @ dual)[columns]
        wrong = np.concatenate([slope, b[on] - rows @ x])
        if np.abs(wrong).max(initial=0.0) < 1e-14:
            break
        change = factor.solve(wrong)
        x[columns] += change[:count]
        dual[on] += change[count:]
    return x, dual
