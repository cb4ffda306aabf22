"""Second-order cones in the batched interior-point method of CVXPY layers, beside Clarabel's answers."""

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
from implicit_l2o.interop.cvxpy import second_order_kernels as second  # noqa: E402
from implicit_l2o.interop.cvxpy.chunked import Chunked  # noqa: E402
from implicit_l2o.interop.cvxpy.pattern import pattern_of  # noqa: E402


def risk_cone(batch: int = 11) -> Problem:
    """One cone of eleven rows, which is a diagonal and two more unknowns."""
    x, mean, limit = cp.Variable(6), cp.Parameter(6), cp.Parameter(nonneg=True)
    F = draw(4, 6, seed=9).numpy()
    risk = cp.norm(cp.hstack([F @ x, cp.multiply(np.linspace(0.3, 1.0, 6), x)])) <= limit
    problem = cp.Problem(cp.Maximize(mean @ x), [cp.sum(x) == 1, x >= 0, risk])
    return problem, [mean, limit], [x], [draw(batch, 6), torch.tensor(1.0, dtype=f64)]


def second_order(batch: int = 5) -> Problem:
    """Cones of many sizes, with parameters in their rows."""
    x, p, G = cp.Variable(4), cp.Parameter(4), cp.Parameter((8, 4))
    rows = [cp.norm(G @ x) <= 3 + x[0], cp.norm(x[:2]) <= 1, cp.norm(x) <= 2, cp.abs(x[3]) <= 0.7]
    problem = cp.Problem(cp.Minimize(p @ x + cp.norm(x - 0.3) + 0.1 * cp.sum_squares(x)), rows)
    return problem, [p, G], [x], [draw(batch, 4), draw(batch, 8, 4, seed=1)]


def mixed(batch: int = 9) -> Problem:
    """Equations, inequalities, second-order and exponential cones."""
    x, p = cp.Variable(5), cp.Parameter(5)
    rows = [cp.sum(x) == 1, x >= -1, cp.norm(x) <= 2, cp.norm(draw(7, 5, seed=2).numpy() @ x) <= 4]
    problem = cp.Problem(cp.Minimize(p @ x + cp.log_sum_exp(2 * x)), rows)
    return problem, [p], [x], [2 * draw(batch, 5)]


def apex(batch: int = 3) -> Problem:
    """Norms that are zero at the solution: a point at the apex of a cone of eight rows, and of one of three."""
    x, p = cp.Variable(9), cp.Parameter(9)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p) + 20 * cp.norm(x[:7]) + 20 * cp.norm(x[7:])))
    return problem, [p], [x], [draw(batch, 9)]


def small_cones(batch: int = 4) -> Problem:
    """Cones of one and of two rows."""
    x, p = cp.Variable(3), cp.Parameter(3)
    rows = [cp.SOC(x[0] + 2, cp.hstack([x[1]])), cp.SOC(1 - x[2], cp.hstack([x[0]])), x <= 1]
    return cp.Problem(cp.Minimize(p @ x + cp.sum_squares(x)), rows), [p], [x], [2 * draw(batch, 3)]


def structure_with(table: np.ndarray) -> Any:
    """A structure of the kernels' own type, so that their machine code on disk names no class of a test."""
    problem, parameters, variables, _ = risk_cone()
    pattern = pattern_of(CvxpyLayer(problem, parameters, variables).canonical)
    assert pattern is not None
    return pattern.structure._replace(seconds=table)


every = pytest.mark.parametrize("make", [risk_cone, second_order, mixed, apex, small_cones])


@every
def test_answers_and_gradients_are_those_after_clarabel(
    make: Callable[[], Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = make is not mixed  # where steps of exponential cones may be too short
    check_beside_clarabel(make, "batched", lambda: clarabel_is_not_asked(monkeypatch) if alone else None)


def test_large_cones_do_not_slow_the_method_down() -> None:
    """The two unknowns of a large cone take digits away from the predictor, which has to be refined there."""
    n = 120
    x, mean = cp.Variable(n), cp.Parameter(n)
    F, d = draw(6, n, seed=1).numpy() / 8**0.5, np.random.default_rng(2).uniform(0.3, 1.0, n)
    risk = cp.norm(cp.hstack([F @ x, cp.multiply(d, x)])) <= 3 / n**0.5
    layer = CvxpyLayer(cp.Problem(cp.Maximize(mean @ x), [cp.sum(x) == 1, x >= 0, risk]), [mean], [x])
    solution = layer.solve(0.3 * draw(16, n))
    assert solution.converged.all()
    assert solution.steps.max() < 25


@pytest.mark.parametrize("make", [risk_cone, second_order])
def test_the_exact_gradient(make: Callable[..., Problem]) -> None:
    problem, parameters, variables, values = make(1)
    layer = CvxpyLayer(problem, parameters, variables, solver="batched")
    assert torch.autograd.gradcheck(layer, [v.requires_grad_() for v in values], eps=1e-6, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [risk_cone, mixed, apex])
def test_the_batched_equations_are_solved(make: Callable[[], Problem]) -> None:
    problem, parameters, variables, values = make()
    layer = CvxpyLayer(problem, parameters, variables)
    layer(*values)
    assert layer._last is not None
    programs, points = layer._last
    pattern = pattern_of(programs.canonical)
    assert pattern is not None
    kkt = Chunked.at(pattern, programs, points.w, None)
    n, some = (
        points.x.shape[1],
        np.random.default_rng(3).standard_normal((len(points.x), points.x.shape[1] + points.w.shape[1])),
    )
    # Bounds of norms that are not active are not unique, so not every right-hand side has a solution.
    for transposed in (False, True):
        right = kkt._transposed_product(some) if transposed else kkt._product(some)
        assert kkt.solve(right[:, :n], right[:, n:], transposed=transposed)[2].max() < 1e-9


def test_random_programs_agree_with_clarabel() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        n, batch = int(rng.integers(2, 7)), int(rng.integers(1, 12))
        x, p = cp.Variable(n), cp.Parameter(n)
        rows = [cp.norm(x) <= 4, rng.standard_normal(n) @ x <= 1]
        rows += [
            cp.norm(rng.standard_normal((size, n)) @ x + 0.3 * rng.standard_normal(size)) <= 3 + 0.2 * x[0]
            for size in rng.choice([1, 2, 3, 5, 8, 13], 3)
        ]
        problem = cp.Problem(
            cp.Minimize(p @ x + rng.integers(2) * cp.sum_squares(rng.standard_normal((2, n)) @ x)), rows
        )
        value = torch.as_tensor(rng.standard_normal((batch, n)))
        one, other = (CvxpyLayer(problem, [p], [x], solver=name)(value)[0] for name in ("batched", "clarabel"))
        assert torch.allclose(one, other, atol=1e-8), seed


def test_infeasible_and_unbounded_samples_are_told_apart() -> None:
    x, p, c = cp.Variable(8), cp.Parameter(), cp.Parameter(8)
    problem = cp.Problem(cp.Minimize(cp.norm(x) + c @ x), [x[0] >= p, cp.norm(x[:3]) <= 1])
    costs = torch.zeros(4, 8, dtype=f64)
    costs[2, 5] = 3.0  # against a norm of slope one
    solution = CvxpyLayer(problem, [p, c], [x], on_failure="ignore").solve(
        torch.tensor([0.5, 2.0, 0.5, torch.nan], dtype=f64), costs
    )
    names = [il2o.Status(int(status)).name for status in solution.status]
    assert names == ["CONVERGED", "INFEASIBLE", "DIVERGED", "NONFINITE"]
    assert float(solution.variables[0][0, 0]) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_the_scaling_of_nesterov_and_todd(size: int) -> None:
    """`W z = W^-1 s`, `E = W^2` in its two forms, and a step that ends on the boundary."""
    rng = np.random.default_rng(size)
    s, z, ds = (rng.standard_normal((size, 8)) for _ in range(3))
    for point in (s, z):
        point[0] = 0.1 + np.linalg.norm(point[1:], axis=0)
    J = np.diag([1.0, *[-1.0] * (size - 1)])
    for slim in (False, True):
        t = structure_with(np.array([[0, size, 0, size if slim else -1]]))
        values, eta, w, scaled = np.zeros((99, 8)), np.zeros((1, 8)), np.zeros((size, 8)), np.zeros((size, 8))
        second.scale(t, values, s, z, eta, w, scaled)
        for sample in range(8):
            E = eta[0, sample] ** 2 * (2 * np.outer(w[:, sample], w[:, sample]) - J)
            assert np.allclose(E @ z[:, sample], s[:, sample])
            if slim:
                diagonal, u, v = (values[k * size : (k + 1) * size, sample] for k in range(3))
                assert np.allclose(np.diag(-diagonal) + np.outer(u, u) - np.outer(v, v), E)
                assert np.linalg.eigvalsh(np.diag(-diagonal) - np.outer(v, v)).min() > 0
            else:
                assert np.allclose(-values[: size * (size + 1) // 2, sample], E[np.tril_indices(size)])
            step = second.longest(s, ds, 0, size, sample, 50.0)
            end = s[:, sample] + step * ds[:, sample]
            assert step == 50.0 or abs(end[0] - np.linalg.norm(end[1:])) < 1e-9 * (1 + step)
            assert end[0] > -1e-9 * (1 + step)
