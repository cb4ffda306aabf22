"""`LPLayer(polish=True)`: solutions to 1e-9 by independent solvers, both gradients, and what it does where it cannot."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import CASES, Case
from test_lp_layer import as_csr, clarabel_solution, random_programs, triangle
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o import Status
from implicit_l2o.data.shortest_path import Grid

pytest.importorskip("numba", reason="polishing is compiled by numba")
F64 = torch.float64


def stationarity(lp: il2o.LinearProgram, cost: Tensor, gamma: float, x: Tensor) -> float:
    """How far `x` is from optimal: |x - argmin| is at most this, by a projected gradient step over the active constraints.

    Independent of the solver: the residual of the least-squares fit of `c + gamma x` by normals that are active at `x`.
    """
    from scipy.optimize import nnls

    x_, c = x.numpy(), cost.numpy()
    lower, upper = (np.broadcast_to(np.asarray(b, float), lp.n) for b in (lp.lower, lp.upper))
    eye, normals = np.eye(lp.n), []
    if lp.A_eq is not None:
        A = as_csr(lp.A_eq).toarray()
        normals += [A, -A]
    if lp.A_ub is not None:
        A, b = as_csr(lp.A_ub).toarray(), lp.b_ub.numpy()
        normals.append(A[A @ x_ > b - 1e-6])
    normals += [-eye[x_ < lower + 1e-7], eye[x_ > upper - 1e-7]]
    return float(nnls(np.concatenate(normals).T, -(c + gamma * x_))[1]) / gamma


@pytest.mark.parametrize("gamma", [0.01, 0.5])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_programs_by_hand_are_solved_exactly(case: Case, gamma: float) -> None:
    solution = il2o.LPLayer(case.program, gamma=gamma, polish=True, tolerance=1e-8)(case.cost)
    assert int(solution.status) == Status.CONVERGED
    assert float(case.program.violation(solution.x)) < 1e-8
    assert stationarity(case.program, case.cost[0], gamma, solution.x[0]) < 1e-6


@given(random_programs())
@settings(max_examples=80, deadline=None)
def test_random_programs_are_solved_exactly(program: tuple[il2o.LinearProgram, Tensor, float]) -> None:
    lp, cost, gamma = program
    solution = il2o.LPLayer(lp, gamma=gamma, polish=True, tolerance=1e-8)(cost)
    assert bool(solution.converged)
    assert float(lp.violation(solution.x)) < 1e-8
    np.testing.assert_allclose(solution.x[0], clarabel_solution(lp, cost[0].numpy(), gamma), atol=1e-4)


@pytest.mark.parametrize("side", [4, 16])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_grids_from_an_interior_point_and_from_davis_yin(side: int, dtype: torch.dtype) -> None:
    grid = Grid(side)
    A, b = grid.flow_constraints()
    lp = il2o.LinearProgram(A_eq=A, b_eq=b)
    cost = 1 + torch.rand(3, grid.n_arcs, dtype=dtype, generator=torch.Generator().manual_seed(0))
    solution = il2o.LPLayer(lp, gamma=0.1, polish=True)(cost)
    assert bool(solution.converged.all())
    for k in range(3):
        reference = clarabel_solution(lp, cost[k].double().numpy(), 0.1)
        np.testing.assert_allclose(solution.x[k], reference, atol=1e-6 if dtype == F64 else 1e-5)
    iterated = il2o.LPLayer(lp, gamma=0.1, tolerance=1e-6 if dtype == F64 else 2e-4)(cost)
    torch.testing.assert_close(iterated.x, solution.x, atol=2e-3, rtol=0)


def test_the_latent_is_a_fixed_point_of_davis_yin() -> None:
    """With slacks and an upper bound, of the splitting over variables and slacks that the iteration uses."""
    lp, gamma, step = mixed(), 0.7, 0.5
    solution = il2o.LPLayer(lp, gamma=gamma, polish=True, step=step)(COST)
    rows = torch.cat([lp.A_eq, lp.A_ub])
    norms = lp.A_ub.norm(dim=1)
    slacks = torch.cat([torch.zeros(2, 2, dtype=F64), torch.diag(norms)])
    cost = il2o.QuadraticCost(
        linear=torch.cat([COST, torch.zeros(2, 2, dtype=F64)], 1),
        diagonal=torch.tensor([gamma] * 4 + [0.0] * 2, dtype=F64),
    )
    unbounded = torch.full((2,), float("inf"), dtype=F64)
    box = il2o.Box(lower=torch.zeros(6, dtype=F64), upper=torch.cat([lp.upper, unbounded]))
    flow = il2o.AffineSet(torch.cat([rows, slacks], 1), torch.cat([lp.b_eq, lp.b_ub]))
    T = il2o.DavisYin(il2o.Problem(F=cost, g=box, h=flow), step=step)
    torch.testing.assert_close(T(solution.z), solution.z, atol=1e-9, rtol=0)
    torch.testing.assert_close(T.readout(solution.z)[:, :4], solution.x, atol=1e-12, rtol=0)


def mixed() -> il2o.LinearProgram:
    return il2o.LinearProgram(
        A_eq=torch.tensor([[1.0, 1.0, 1.0, 0.0], [2.0, 2.0, 2.0, 0.0]], dtype=F64),  # twice the same
        b_eq=torch.tensor([1.0, 2.0], dtype=F64),
        A_ub=torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, -1.0]], dtype=F64),
        b_ub=torch.tensor([0.4, 5.0], dtype=F64),
        upper=torch.tensor([1.0, 1.0, 1.0, 0.9], dtype=F64),
    )


COST = torch.tensor([[-0.3, 0.1, 0.2, -0.4], [0.2, -0.5, 0.1, -0.2]], dtype=F64)


def test_the_exact_gradient_agrees_with_differences() -> None:
    layer = il2o.LPLayer(mixed(), gamma=0.7, polish=True, backward=il2o.Implicit())
    b_eq = torch.tensor([[1.0, 2.0], [1.2, 2.4]], dtype=F64)
    cost, b_ub = COST.clone().requires_grad_(), torch.tensor([[0.4, 5.0], [0.1, 5.0]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, u: layer(c, b_eq=b_eq, b_ub=u).x, (cost, b_ub))
    shared = torch.tensor([0.35, 5.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: layer(COST, b_ub=u).x, (shared,))
    single = il2o.LPLayer(triangle(), gamma=0.7, polish=True, backward=il2o.Implicit())
    b = torch.tensor([[1.0], [1.3]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, b: single(c, b_eq=b).x, (COST[:, :3].clone().requires_grad_(), b))


def test_the_exact_gradient_on_a_grid_agrees_with_differences() -> None:
    grid = Grid(4)
    A, b = grid.flow_constraints()
    layer = il2o.LPLayer(il2o.LinearProgram(A_eq=A, b_eq=b), gamma=1.0, polish=True, backward=il2o.Implicit())
    cost = torch.rand(2, grid.n_arcs, dtype=F64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: layer(c).x, (cost,))


@pytest.mark.parametrize("lp", [mixed(), triangle()], ids=["slacks", "simplex"])
def test_jfb_in_closed_form_is_jfb(lp: il2o.LinearProgram) -> None:
    grads = []
    for polish in (True, False):
        cost = COST[:, : lp.n].clone().requires_grad_()
        b_eq = lp.b_eq.clone().requires_grad_()
        layer = il2o.LPLayer(lp, gamma=0.7, polish=polish, tolerance=1e-11, max_steps=50_000, step=0.4)
        x = layer(cost, b_eq=b_eq).x
        grads.append(torch.autograd.grad((x * torch.arange(1.0, lp.n + 1)).sum(), (cost, b_eq)))
    torch.testing.assert_close(grads[0], grads[1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("backward", [il2o.Neumann(500), il2o.Implicit()], ids=lambda mode: type(mode).__name__)
def test_every_backward_mode_starts_at_the_exact_point(backward: il2o.AbstractBackward) -> None:
    """A learned bound has no closed form: there the iteration's own exact gradient is taken, from the same point."""
    upper = torch.tensor([0.6, 1.0, 1.0], dtype=F64, requires_grad=True)
    cost = torch.tensor([[-0.9, 0.1, 0.24]], dtype=F64, requires_grad=True)
    layer = il2o.LPLayer(triangle(upper=upper), gamma=0.7, polish=True, backward=backward, tolerance=1e-9)
    solution = layer(cost)
    assert int(solution.steps) <= 1
    in_cost, in_upper = torch.autograd.grad(solution.x @ torch.tensor([1.0, 2.0, 4.0], dtype=F64), (cost, upper))
    torch.testing.assert_close(in_upper, torch.tensor([1.0 - 3.0, 0.0, 0.0], dtype=F64), atol=1e-6, rtol=0)
    torch.testing.assert_close(in_cost, torch.tensor([[0.0, 1.0, -1.0]], dtype=F64) / 0.7, atol=1e-6, rtol=0)


def test_a_second_derivative_is_refused() -> None:
    cost = COST[:, :3].clone().requires_grad_()
    x = il2o.LPLayer(triangle(), polish=True)(cost).x
    (first,) = torch.autograd.grad(x.square().sum(), cost, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_bad_samples_fail_alone() -> None:
    cost = torch.tensor([[0.1, 0.3, 1.4], [float("nan"), 0.0, 0.0], [0.5, 0.2, 0.1]], dtype=F64, requires_grad=True)
    solution = il2o.LPLayer(triangle(), gamma=0.7, polish=True, on_failure="ignore")(cost)
    assert solution.status.tolist() == [Status.CONVERGED, Status.NONFINITE, Status.CONVERGED]
    (solution.x * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert cost.grad is not None
    assert float(cost.grad[1].abs().nan_to_num(0.0).max()) == 0.0
    alone = il2o.LPLayer(triangle(), gamma=0.7, polish=True)(cost.detach()[::2])
    torch.testing.assert_close(solution.x[::2], alone.x, atol=1e-9, rtol=0)


def test_an_infeasible_program_says_so() -> None:
    layer = il2o.LPLayer(triangle(upper=0.2), polish=True, max_steps=500, on_failure="ignore")
    assert int(layer(torch.zeros(1, 3, dtype=F64)).status) == Status.INFEASIBLE


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_unit_of_the_costs_does_not_matter(scale: float) -> None:
    cost = torch.tensor([[0.1, 0.3, 1.4]], dtype=F64)
    reference = il2o.LPLayer(triangle(), gamma=1.0, polish=True)(cost)
    together = il2o.LPLayer(triangle(), gamma=scale, polish=True)(scale * cost)
    assert bool(together.converged)
    torch.testing.assert_close(together.x, reference.x, atol=1e-9, rtol=0)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_solution_does_not_matter(scale: float) -> None:
    case = next(case for case in CASES if case.name.startswith("transport 2 x 3"))
    lp = case.program
    small = il2o.LinearProgram(A_eq=lp.A_eq, b_eq=scale * lp.b_eq)
    reference = il2o.LPLayer(lp, gamma=0.1, polish=True)(case.cost)
    scaled = il2o.LPLayer(small, gamma=0.1 / scale, polish=True, tolerance=1e-6 * max(scale, 1e-3))(case.cost)
    assert bool(scaled.converged)
    torch.testing.assert_close(scaled.x / scale, reference.x, atol=1e-6, rtol=0)


def test_fixed_and_free_variables() -> None:
    lp = il2o.LinearProgram(
        A_eq=torch.ones(1, 3, dtype=F64),
        b_eq=torch.ones(1, dtype=F64),
        lower=torch.tensor([0.25, -float("inf"), 0.0], dtype=F64),
        upper=torch.tensor([0.25, float("inf"), 0.1], dtype=F64),
    )
    solution = il2o.LPLayer(lp, gamma=1.0, polish=True)(torch.tensor([[-3.0, 0.4, 0.0]], dtype=F64))
    torch.testing.assert_close(solution.x, torch.tensor([[0.25, 0.65, 0.1]], dtype=F64))


def test_rows_and_bounds_may_differ_by_sample() -> None:
    budgets = torch.tensor([[1.0], [3.0]], dtype=F64)
    upper = torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 0.5]], dtype=F64)
    lp = il2o.LinearProgram(A_eq=torch.ones(1, 3, dtype=F64), b_eq=budgets, upper=upper)
    cost = COST[:, :3]
    solution = il2o.LPLayer(lp, polish=True)(cost)
    for k in range(2):
        one = il2o.LinearProgram(A_eq=torch.ones(1, 3, dtype=F64), b_eq=budgets[k], upper=upper[k])
        np.testing.assert_allclose(solution.x[k], clarabel_solution(one, cost[k].numpy(), 1.0), atol=1e-6)


def test_without_rows_there_is_nothing_to_polish() -> None:
    solution = il2o.LPLayer(il2o.LinearProgram(n=2, upper=1.0), polish=True)(torch.tensor([[-0.4, 3.0]]))
    torch.testing.assert_close(solution.x, torch.tensor([[0.4, 0.0]]))


def test_an_empty_batch_has_an_empty_answer() -> None:
    cost = torch.zeros(0, 3, dtype=F64, requires_grad=True)
    assert il2o.LPLayer(triangle(), polish=True)(cost).x.shape == (0, 3)


@given(st.integers(2, 12), st.integers(1, 20), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_the_compiled_factor_solves_what_it_assembles(m: int, n: int, seed: int) -> None:
    from implicit_l2o.linear_program._ldl import factorise, room, solve, weigh
    from implicit_l2o.linear_program.normal_equations import normal_equations

    random = np.random.default_rng(seed)
    R = random.integers(-2, 3, (m, n)) * (random.random((m, n)) < 0.4)
    rows, norms = normal_equations(sp.csr_array(R.astype(float)), m)
    weights, diagonal = random.random(n) * (random.random(n) < 0.7), random.random(m) * (random.random() < 0.5)
    scaled = R / norms[:, None]
    M = scaled @ np.diag(weights) @ scaled.T + np.diag(diagonal)
    right = M @ random.normal(size=m)  # in the range, so that dependent rows agree
    factor, out = room.py_func(rows), np.empty(m)  # numba would have to hand out a named tuple
    weigh(rows, weights, diagonal, factor)
    factorise(rows, factor)
    solve(rows, factor, right, out)
    np.testing.assert_allclose(M @ out, right, atol=1e-8)


@pytest.mark.bad_input
def test_what_cannot_be_polished_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="gamma > 0 to polish; got gamma=0"):
        il2o.LPLayer(triangle(), gamma=0.0, polish=True)
    monkeypatch.setattr("implicit_l2o._numba.has_numba", lambda: False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'implicit_l2o\[exact\]'"):
        il2o.LPLayer(triangle(), polish=True)
