"""Exponential and power cones in the batched interior-point method of CVXPY layers, beside Clarabel's answers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import implicit_l2o as il2o
from conic import Problem, check_beside_clarabel, clarabel_is_not_asked, draw, f64

cp = pytest.importorskip("cvxpy", reason="cvxpy is in the extra 'cvxpy'")
pytest.importorskip("numba", reason="numba is in the extra 'cvxpy'")

from implicit_l2o.interop.cvxpy import CvxpyLayer  # noqa: E402
from implicit_l2o.interop.cvxpy import exponential_kernels as exponential  # noqa: E402
from implicit_l2o.interop.cvxpy import power_kernels as power  # noqa: E402

unit = st.floats(0.02, 0.98)
positive = st.floats(0.01, 100.0)


def in_a_ball(batch: int = 9) -> Problem:
    x, p = cp.Variable(3), cp.Parameter(3)
    rows = [cp.PowCone3D(x[0], x[1], x[2], 0.3), cp.sum_squares(x) <= 1]
    return cp.Problem(cp.Minimize(p @ x), rows), [p], [x], [-draw(batch, 3).abs()]


def several(batch: int = 10) -> Problem:
    """Power cones of three exponents with a parameter in their rows, and a quadratic objective."""
    x, p, G = cp.Variable(4), cp.Parameter(4), cp.Parameter((3, 4))
    cones = cp.PowCone3D(2 + G @ x, 3 + x[:3], x[1:], np.array([0.2, 0.5, 0.9]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 3 * p)), [cones, x <= 2])
    return problem, [p, G], [x], [draw(batch, 4), 0.3 * draw(batch, 3, 4, seed=1)]


def mixed(batch: int = 5) -> Problem:
    """Every kind of cone."""
    x, p = cp.Variable(3), cp.Parameter(3)
    matrix = cp.bmat([[x[0] + 2, x[1]], [x[1], x[2] + 2]])
    rows = [cp.sum(x) <= 1, x >= -1, cp.norm(x) <= 2, matrix >> 0, cp.PowCone3D(x[0] + 2, x[1] + 2, x[2], 0.4)]
    problem = cp.Problem(cp.Minimize(p @ x + cp.sum(cp.exp(x)) + 0.1 * cp.sum_squares(x)), rows)
    return problem, [p], [x], [2 * draw(batch, 3)]


every = pytest.mark.parametrize("make", [in_a_ball, several, mixed])


@every
def test_answers_and_gradients_are_those_after_clarabel(
    make: Callable[[], Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = make is not several  # where steps may be too short
    check_beside_clarabel(make, "auto", lambda: clarabel_is_not_asked(monkeypatch) if alone else None)


@every
def test_the_exact_gradient(make: Callable[..., Problem]) -> None:
    problem, parameters, variables, values = make(1)
    layer = CvxpyLayer(problem, parameters, variables, solver="batched")
    assert torch.autograd.gradcheck(layer, [v.requires_grad_() for v in values], eps=1e-6, atol=1e-5, rtol=1e-4)


def test_the_derivative_of_the_splitting_is_that_of_the_equations() -> None:
    problem, parameters, variables, values = several()
    gradients = []
    for backward in (il2o.Implicit(), il2o.Implicit(il2o.GMRES())):
        own = [value.clone().requires_grad_() for value in values]
        layer = CvxpyLayer(problem, parameters, variables, backward=backward)
        gradients.append(torch.autograd.grad(layer(*own)[0].square().sum(), own))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_random_programs_agree_with_clarabel() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        n, batch = int(rng.integers(3, 7)), int(rng.integers(1, 12))
        x, p = cp.Variable(n), cp.Parameter(n)
        rows = [cp.norm(x) <= 4]
        for alpha in rng.uniform(0.05, 0.95, 3):
            a, b, c = rng.standard_normal((3, n)) / 2
            rows.append(cp.PowCone3D(2 + a @ x, 1 + b @ x, c @ x, float(alpha)))
        problem = cp.Problem(cp.Minimize(p @ x + rng.integers(2) * cp.sum_squares(x)), rows)
        value = torch.as_tensor(rng.standard_normal((batch, n)))
        one, other = (CvxpyLayer(problem, [p], [x], solver=name)(value)[0] for name in ("batched", "clarabel"))
        assert torch.allclose(one, other, atol=1e-7), seed


def test_larger_power_cones_become_several() -> None:
    x, t, price = cp.Variable(4), cp.Variable(), cp.Parameter(4, nonneg=True)
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    problem = cp.Problem(cp.Maximize(t), [cp.PowConeND(x, t, shares), price @ x <= 1])
    layer = CvxpyLayer(problem, [price], [x])
    prices = (0.5 + draw(9, 4).abs()).requires_grad_()
    (bought,) = layer(prices)
    # Of a budget of one, each good gets its share.
    assert torch.allclose(bought * prices, torch.as_tensor(shares).expand(9, 4), atol=1e-8)
    (gradient,) = torch.autograd.grad(bought.sum(), prices)
    assert torch.allclose(gradient, -torch.as_tensor(shares) / prices**2, atol=1e-7)


def test_infeasible_and_unbounded_samples_are_told_apart() -> None:
    x, low, c = cp.Variable(3), cp.Parameter(), cp.Parameter(3)
    rows = [cp.PowCone3D(x[0], x[1], x[2], 0.5), x[2] >= low, x[0] <= 1, x[1] <= 4]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), rows), [low, c], [x], on_failure="ignore")
    lows = torch.tensor([1.0, 3.0, 1.0], dtype=f64)
    costs = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=f64)
    solution = layer.solve(lows, costs)
    assert [il2o.Status(int(status)).name for status in solution.status] == ["CONVERGED", "INFEASIBLE", "CONVERGED"]
    assert torch.allclose(solution.variables[0][0], torch.ones(3, dtype=f64), atol=1e-6)
    free = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), rows[:1]), [c], [x], on_failure="ignore")
    outcome = free.solve(torch.tensor([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.5]], dtype=f64))
    assert [il2o.Status(int(status)).name for status in outcome.status] == ["DIVERGED", "CONVERGED"]


@settings(max_examples=60, deadline=None)
@given(u=positive, v=positive, share=st.floats(-0.95, 0.95), alpha=unit)
def test_the_barrier_of_the_dual_power_cone(u: float, v: float, share: float, alpha: float) -> None:
    w = share * (u / alpha) ** alpha * (v / (1 - alpha)) ** (1 - alpha)

    def value(point: torch.Tensor) -> torch.Tensor:
        a, b, c = point
        f = (a / alpha) ** (2 * alpha) * (b / (1 - alpha)) ** (2 - 2 * alpha)
        return -torch.log(f - c**2) - (1 - alpha) * torch.log(a) - alpha * torch.log(b)

    point = torch.tensor([u, v, w], dtype=f64)
    gradient, hessian = power.barrier(u, v, w, alpha)
    by = np.diag([u, v, abs(w) + 1e-3 * (u * v) ** 0.5])  # so that all entries are of size one or so
    expected = torch.autograd.functional.jacobian(value, point).numpy()
    assert np.allclose(by @ gradient, by @ expected, rtol=1e-8, atol=1e-8 * np.abs(by @ expected).max())
    full = np.zeros((3, 3))
    full[np.tril_indices(3)] = hessian
    found = by @ (full + np.tril(full, -1).T) @ by
    other = by @ torch.autograd.functional.hessian(value, point).numpy() @ by
    assert np.allclose(found, other, rtol=1e-6, atol=1e-8 * np.abs(other).max())
    assert np.linalg.eigvalsh(found).min() > 0


@given(alpha=unit)
def test_the_central_points_are_their_own_duals(alpha: float) -> None:
    for point, gradient in (
        (power.central(alpha), power.barrier(*power.central(alpha), alpha)[0]),
        (exponential.central, exponential.barrier(*exponential.central)[0]),
    ):
        assert np.allclose(point, [-g for g in gradient], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(x=positive, y=positive, share=st.floats(-1.5, 1.5), alpha=unit, seed=st.integers(0, 10**6))
def test_points_of_power_cones_and_their_duals_have_no_negative_product(
    x: float, y: float, share: float, alpha: float, seed: int
) -> None:
    z = share * x**alpha * y ** (1 - alpha)
    assert power.in_primal(x, y, z, alpha) == (abs(share) < 1) or abs(abs(share) - 1) < 1e-9
    rng = np.random.default_rng(seed)
    u, v = rng.exponential(size=2)
    w = rng.uniform(-1, 1) * (u / alpha) ** alpha * (v / (1 - alpha)) ** (1 - alpha)
    assert power.in_dual(u, v, w, alpha)
    if power.in_primal(x, y, z, alpha):
        assert x * u + y * v + z * w > 0
    assert not power.in_primal(-x, y, 0.0, alpha)
    assert not power.in_dual(x, -y, 0.0, alpha)
