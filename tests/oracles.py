"""Slow, independent answers for one sample: an interior-point solver, bisection, dense matrices. NumPy, no package code.

`project` and `prox` state the problem to Clarabel as a cone program, so they share nothing with a closed form.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import clarabel
import numpy as np
import scipy.optimize
import scipy.sparse as sp

STEP = 0.7  # the step of every prox that is compared


def cone_program(P: np.ndarray, q: np.ndarray, blocks: Iterable[tuple[Any, np.ndarray, np.ndarray]]) -> np.ndarray:
    """`argmin z.Pz/2 + q.z` subject to `b - A z` in a cone, for each block `(cone, A, b)`."""
    cones, rows, right = [], [np.zeros((0, len(q)))], [np.zeros(0)]
    for cone, A, b in blocks:
        cones.append(cone(len(b)))
        rows.append(A)
        right.append(b)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    problem = (sp.csc_matrix(P), q, sp.csc_matrix(np.vstack(rows)), np.concatenate(right), cones, settings)
    solution = clarabel.DefaultSolver(*problem).solve()
    assert str(solution.status) in ("Solved", "AlmostSolved"), solution.status
    return np.array(solution.x)


def project(
    x: np.ndarray,
    at_least: float | np.ndarray | None = None,
    at_most: float | np.ndarray | None = None,
    *,
    below: tuple[np.ndarray, np.ndarray] | None = None,
    equal: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """`argmin |y - x|` subject to bounds, to `G y <= h` for `below = (G, h)` and to `A y = b` for `equal = (A, b)`."""
    flat, eye = x.ravel(), np.eye(x.size)
    blocks = []
    if at_least is not None:
        blocks.append((clarabel.NonnegativeConeT, -eye, -np.broadcast_to(at_least, x.shape).ravel()))
    if at_most is not None:
        blocks.append((clarabel.NonnegativeConeT, eye, np.broadcast_to(at_most, x.shape).ravel()))
    if below is not None:
        blocks.append((clarabel.NonnegativeConeT, below[0].reshape(len(below[1]), -1), below[1]))
    if equal is not None:
        blocks.append((clarabel.ZeroConeT, *equal))
    return cone_program(eye, -flat, blocks).reshape(x.shape)


def prox(x: np.ndarray, groups: Sequence[Iterable[int]], weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """`argmin_y STEP sum_g w_g |y_g| + |y - x|^2 / 2`, with `t_g >= |y_g|` as second-order cones."""
    n, k = x.size, len(groups)
    P = np.diag([1.0] * n + [0.0] * k)
    q = np.concatenate([-x.ravel(), STEP * np.ravel(weights)])
    select = -np.eye(n + k)
    cones = [select[[n + g, *group]] for g, group in enumerate(groups)]
    blocks = [(clarabel.SecondOrderConeT, cone, np.zeros(len(cone))) for cone in cones]
    return cone_program(P, q, blocks)[:n].reshape(x.shape)


def second_order_cone(x: np.ndarray) -> np.ndarray:
    """`argmin |y - x|` subject to `|y_1..| <= y_0`."""
    eye = np.eye(x.size)
    return cone_program(eye, -x, [(clarabel.SecondOrderConeT, -eye, np.zeros(x.size))])


def exponential_cone(x: np.ndarray) -> np.ndarray:
    """`argmin |y - x|` subject to `y_1 exp(y_0 / y_1) <= y_2`."""
    return cone_program(np.eye(3), -x, [(lambda _: clarabel.ExponentialConeT(), -np.eye(3), np.zeros(3))])


def power_cone(x: np.ndarray, alpha: float) -> np.ndarray:
    """`argmin |y - x|` subject to `y_0^alpha y_1^(1 - alpha) >= |y_2|`."""
    rough = cone_program(np.eye(3), -x, [(lambda _: clarabel.PowerConeT(alpha), -np.eye(3), np.zeros(3))])
    if np.linalg.norm(rough) < 1e-6 or np.linalg.norm(rough - x) < 1e-6:
        return rough

    # On the boundary, where Clarabel's answer has five digits: descent in the logarithms of the first two entries.
    def point(logs: np.ndarray) -> np.ndarray:
        return np.array([*np.exp(logs), np.sign(x[2]) * np.exp(alpha * logs[0] + (1 - alpha) * logs[1])])

    def gradient(logs: np.ndarray) -> np.ndarray:
        y = point(logs)
        return np.array([y[0], y[1]]) * (y - x)[:2] + np.array([alpha, 1 - alpha]) * y[2] * (y - x)[2]

    return point(scipy.optimize.fsolve(gradient, np.log(np.maximum(rough[:2], 1e-12)), xtol=1e-13))


def semidefinite_cone(x: np.ndarray) -> np.ndarray:
    """`argmin |Y - X|` subject to `Y` positive semidefinite, from the eigenvalues of the symmetric part."""
    values, vectors = np.linalg.eigh((x + x.T) / 2)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def cone_product(x: np.ndarray) -> np.ndarray:
    """`argmin |y - x|` in the product of cones that `cases.py` draws."""
    eye = np.eye(x.size)
    sizes = [1, 2, 3, 2, 3, 3, 3, 3, 3]
    kinds = [
        clarabel.ZeroConeT,
        clarabel.NonnegativeConeT,
        *[clarabel.SecondOrderConeT] * 3,
        lambda _: clarabel.PSDTriangleConeT(2),
        lambda _: clarabel.ExponentialConeT(),
        lambda _: clarabel.PowerConeT(0.4),
        lambda _: clarabel.PowerConeT(0.7),
    ]
    ends = np.cumsum(sizes)
    blocks = [
        (kind, -eye[end - size : end], np.zeros(size)) for kind, size, end in zip(kinds, sizes, ends, strict=True)
    ]
    return cone_program(eye, -x, blocks)


def l2_ball(x: np.ndarray, radius: float, center: float | np.ndarray) -> np.ndarray:
    """`argmin |y - x|` subject to `|y - center| <= radius`, as a cone."""
    n = x.size
    center = np.broadcast_to(center, x.shape).ravel()
    rows = np.vstack([np.zeros(n), -np.eye(n)])
    right = np.concatenate([[radius], -center])
    return cone_program(np.eye(n), -x.ravel(), [(clarabel.SecondOrderConeT, rows, right)]).reshape(x.shape)


def simplex(x: np.ndarray, total: float) -> np.ndarray:
    """`max(x - theta, 0)` with `theta` by bisection on the sum."""
    theta = bisect(lambda theta: np.maximum(x - theta, 0).sum() - total, x.min() - total, x.max())
    return np.maximum(x - theta, 0)


def entropic_simplex(x: np.ndarray, temperature: float, total: float) -> np.ndarray:
    """`argmin_y temperature sum y log y + |y - x|^2 / (2 STEP)`, `sum y = total`: bisections within a bisection."""
    weight = STEP * float(temperature)

    def entry(c: float) -> float:
        def equation(y: float) -> float:
            return y + weight * np.log(y) - c

        return 0.0 if equation(1e-300) > 0 else bisect(equation, 1e-300, max(c, 1.0))

    def entries(shift: float) -> np.ndarray:
        return np.array([entry(c - shift) for c in x.ravel()])

    width = 2 + 2 * total + 10 * weight * (1 + abs(np.log(total)) + np.log(x.size))
    shift = bisect(lambda shift: entries(shift).sum() - total, x.max() - width, x.max() + width)
    return entries(shift).reshape(x.shape)


def l1_ball(x: np.ndarray, radius: float, center: float | np.ndarray) -> np.ndarray:
    """Soft thresholding of `x - center`, the threshold by bisection on the norm."""
    offset = x - center
    if np.abs(offset).sum() <= radius:
        return x
    theta = bisect(lambda theta: np.maximum(np.abs(offset) - theta, 0).sum() - radius, 0.0, np.abs(offset).max())
    return center + np.sign(offset) * np.maximum(np.abs(offset) - theta, 0)


def bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """The root of a monotone function."""
    return float(scipy.optimize.bisect(f, low, high, xtol=1e-14, maxiter=500))


def dense(apply: Callable[[np.ndarray], np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """The matrix of a linear map, column by column."""
    basis = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.stack([apply(e).ravel() for e in basis], axis=1)


def correlate(x: np.ndarray, weight: np.ndarray, padding: tuple[int, int], stride: tuple[int, int]) -> np.ndarray:
    """`conv2d` of one image `(C_in, H, W)`, written out as loops."""
    x = np.pad(x, [(0, 0), (padding[0],) * 2, (padding[1],) * 2])
    kh, kw = weight.shape[2:]
    rows, columns = ((size - k) // s + 1 for size, k, s in zip(x.shape[1:], (kh, kw), stride, strict=True))
    out = np.zeros((weight.shape[0], rows, columns))
    for i in range(rows):
        for j in range(columns):
            patch = x[:, i * stride[0] : i * stride[0] + kh, j * stride[1] : j * stride[1] + kw]
            out[:, i, j] = (weight * patch).sum((1, 2, 3))
    return out
