"""Semidefinite cones in the batched interior-point method of CVXPY layers, beside Clarabel's answers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import implicit_l2o as il2o
from conic import Problem, check_beside_clarabel, clarabel_is_not_asked, draw, f64

cp = pytest.importorskip("cvxpy", reason="cvxpy is in the extra 'cvxpy'")
pytest.importorskip("numba", reason="numba is in the extra 'cvxpy'")

from implicit_l2o.interop.cvxpy import CvxpyLayer  # noqa: E402
from implicit_l2o.interop.cvxpy import semidefinite_kernels as semidefinite  # noqa: E402
from implicit_l2o.interop.cvxpy.pattern import pattern_of  # noqa: E402
from implicit_l2o.interop.cvxpy.projections import from_matrices, project, to_matrices  # noqa: E402


def nearest_correlation(batch: int = 9) -> Problem:
    X, C = cp.Variable((4, 4), PSD=True), cp.Parameter((4, 4))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.diag(X) == 1])
    return problem, [C], [X], [2 * draw(batch, 4, 4)]


def with_inequalities(batch: int = 3) -> Problem:
    """A linear objective over matrices with bounds, an equation and two cones."""
    X, p = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3))
    rows = [X >> 0, cp.trace(X) == 1, X[0, 1] <= 0.1, X[0, 2] >= -0.1, np.eye(3) * 0.8 - X >> 0]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(p, X)) + 0.1 * cp.sum_squares(X)), rows)
    return problem, [p], [X], [draw(batch, 3, 3)]


def mixed(batch: int = 5) -> Problem:
    """Every kind of cone but power cones."""
    x, p = cp.Variable(3), cp.Parameter(3)
    matrix = cp.bmat([[x[0] + 2, x[1]], [x[1], x[2] + 2]])
    rows = [cp.sum(x) <= 1, x >= -1, cp.norm(x) <= 2, matrix >> 0]
    problem = cp.Problem(cp.Minimize(p @ x + cp.log_sum_exp(x) + 0.5 * cp.sum_squares(x)), rows)
    return problem, [p], [x], [draw(batch, 3)]


def zero_matrix(batch: int = 3) -> Problem:
    """The projection of a negative definite matrix is zero, and stays there."""
    X, C = cp.Variable((3, 3), PSD=True), cp.Parameter((3, 3))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)))
    return problem, [C], [X], [0.1 * draw(batch, 3, 3) - torch.eye(3, dtype=f64)]


def structure_with(table: np.ndarray) -> Any:
    """A structure of the kernels' own type, so that their machine code on disk names no class of a test."""
    problem, parameters, variables, _ = zero_matrix()
    pattern = pattern_of(CvxpyLayer(problem, parameters, variables).canonical)
    assert pattern is not None
    return pattern.structure._replace(matrices=table)


every = pytest.mark.parametrize("make", [nearest_correlation, with_inequalities, mixed, zero_matrix])


@every
@pytest.mark.filterwarnings("ignore::implicit_l2o.interop.cvxpy.ZeroGradientWarning")
def test_answers_and_gradients_are_those_after_clarabel(
    make: Callable[[], Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = make is not mixed  # where steps of exponential cones may be too short
    check_beside_clarabel(make, "batched", lambda: clarabel_is_not_asked(monkeypatch) if alone else None)


@pytest.mark.parametrize("make", [nearest_correlation, with_inequalities])
def test_the_exact_gradient(make: Callable[..., Problem]) -> None:
    problem, parameters, variables, values = make(1)
    layer = CvxpyLayer(problem, parameters, variables, solver="batched")
    assert torch.autograd.gradcheck(layer, [v.requires_grad_() for v in values], eps=1e-6, atol=1e-5, rtol=1e-4)


def test_infeasible_and_unbounded_samples_are_told_apart() -> None:
    X, p, c = cp.Variable((2, 2), symmetric=True), cp.Parameter(), cp.Parameter()
    problem = cp.Problem(cp.Minimize(c * cp.trace(X) + 0 * p), [X >> 0, X[0, 1] == 1, X[0, 0] <= p])
    solution = CvxpyLayer(problem, [p, c], [X], on_failure="ignore").solve(
        torch.tensor([0.5, -1.0, 0.5], dtype=f64), torch.tensor([1.0, 1.0, -1.0], dtype=f64)
    )
    names = [il2o.Status(int(status)).name for status in solution.status]
    assert names == ["CONVERGED", "INFEASIBLE", "DIVERGED"]
    # det X = 0 with X_00 = 1/2, as 1/X_00 is the smallest X_11 and more of X_00 is dearer from one on.
    assert torch.allclose(solution.variables[0][0], torch.tensor([[0.5, 1.0], [1.0, 2.0]], dtype=f64), atol=1e-7)


def test_projections_are_those_of_the_operators() -> None:
    cones = il2o.ConeProduct(zero=2, nonnegative=3, second_order=(1, 4, 4), semidefinite=(3, 2, 3))
    w = np.random.default_rng(0).standard_normal((5, cones.size))
    w[0] = 0.0
    assert np.allclose(project(cones, w), cones.project(torch.as_tensor(w)).numpy(), atol=1e-14)
    triangles = w[:, None, :6]
    assert np.allclose(from_matrices(to_matrices(triangles, 3)), triangles)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_the_scaling_of_nesterov_and_todd(order: int) -> None:
    """`R^-1 S R^-T = R^T Z R`, a diagonal, `E X = W X W`, and a step that stays inside."""
    rng = np.random.default_rng(order)
    size = order * (order + 1) // 2
    roots = rng.standard_normal((2, 8, 1, order, order))
    S, Z = roots @ roots.swapaxes(-1, -2) + 0.01 * np.eye(order)
    D = rng.standard_normal((8, 1, order, order))
    D = D + D.swapaxes(-1, -2)
    s, z, ds = (np.ascontiguousarray(from_matrices(part)[:, 0].T) for part in (S, Z, D))
    t = structure_with(np.array([[0, order, 0, 0]]))
    mats, values, step = semidefinite.matrices_of(t), np.zeros((size * (size + 1) // 2, 8)), np.full(8, 20.0)
    semidefinite.scale(t, values, s, z, mats)
    semidefinite.directions(t, ds, 0 * ds, mats)
    semidefinite.longest(t, mats, step)
    basis = to_matrices(np.eye(size)[:, None], order)
    for sample in range(8):
        R, diagonal = mats.root[:, sample].reshape(order, order).T, np.diag(mats.sigma[:order, sample])
        assert np.allclose(np.linalg.solve(R, np.linalg.solve(R, S[sample, 0]).T), diagonal)
        assert np.allclose(R.T @ Z[sample, 0] @ R, diagonal)
        E = from_matrices(R @ R.T @ basis @ R @ R.T)[:, 0]
        assert np.allclose(-values[:, sample], E[np.tril_indices(size)])
        slopes = np.linalg.eigvals(np.linalg.solve(S[sample, 0], D[sample, 0])).real
        longest = min(20.0, -1 / slopes.min()) if slopes.min() < 0 else 20.0
        assert longest - 0.2 <= step[sample] <= longest * (1 + 1e-9)
