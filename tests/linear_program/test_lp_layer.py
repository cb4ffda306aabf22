"""`LinearProgram` and `LPLayer`: right answers by independent solvers, gradients by differences, and bad input."""

import warnings

import clarabel
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import CASES, Case
from scipy.optimize import linprog
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o import Status
from implicit_l2o.linear_program import VertexWarning
from implicit_l2o.linear_program.standard_form import as_csr

F64 = torch.float64


def bounds(lp: il2o.LinearProgram) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = (torch.as_tensor(b, dtype=F64).expand(lp.n).numpy() for b in (lp.lower, lp.upper))
    return lower, upper


def clarabel_solution(lp: il2o.LinearProgram, c: np.ndarray, gamma: float) -> np.ndarray:
    """`argmin c.x + gamma |x|^2 / 2` by an interior-point method."""
    lower, upper = bounds(lp)
    eye = sp.identity(lp.n, format="csr")
    blocks, sides, cones = [], [], []
    if lp.A_eq is not None:
        blocks, sides = [as_csr(lp.A_eq)], [lp.b_eq.double().numpy()]
        cones = [clarabel.ZeroConeT(lp.m_eq)]
    rows, limits = [], []
    if lp.A_ub is not None:
        rows, limits = [as_csr(lp.A_ub)], [lp.b_ub.double().numpy()]
    below, above = np.isfinite(lower), np.isfinite(upper)
    rows += [-eye[below], eye[above]]
    limits += [-lower[below], upper[above]]
    cones.append(clarabel.NonnegativeConeT(sum(len(part) for part in limits)))
    options = clarabel.DefaultSettings()
    options.verbose = False
    options.tol_gap_abs = options.tol_gap_rel = options.tol_feas = 1e-12
    A = sp.vstack([*blocks, *rows]).tocsc()
    b = np.concatenate([*sides, *limits])
    return np.array(clarabel.DefaultSolver((gamma * eye).tocsc(), c, A, b, cones, options).solve().x)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_linear_program_has_the_known_value(case: Case) -> None:
    lp = case.program
    layer = il2o.LPLayer(lp, gamma=0.0, tolerance=1e-8, max_steps=15_000, on_failure="ignore")
    solution = layer(case.cost)
    arrays = [None if a is None else a.numpy() for a in (lp.A_ub, lp.b_ub, lp.A_eq, lp.b_eq)]
    truth = linprog(case.c, *arrays, bounds=np.stack(bounds(lp), axis=1))
    assert truth.fun == pytest.approx(case.value, abs=1e-9)
    if case.name.startswith("Beale"):  # scaled so badly that the iteration crawls: it has to say so
        assert int(solution.status) == Status.MAX_STEPS
        return
    assert int(solution.status) == Status.CONVERGED
    assert float(solution.x @ case.cost[0]) == pytest.approx(case.value, abs=1e-5)
    assert float(lp.violation(solution.x)) < 1e-6


@pytest.mark.parametrize("gamma", [0.1, 2.0])
@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.name.startswith("Beale")], ids=lambda case: case.name
)
def test_the_regularised_program_has_the_solution_of_an_interior_point_method(case: Case, gamma: float) -> None:
    layer = il2o.LPLayer(case.program, gamma=gamma, tolerance=1e-9, max_steps=20_000)
    solution = layer(case.cost)
    assert bool(solution.converged.all())
    np.testing.assert_allclose(
        solution.x[0], clarabel_solution(case.program, np.array(case.c, float), gamma), atol=2e-5
    )


@st.composite
def random_programs(draw: st.DrawFn) -> tuple[il2o.LinearProgram, Tensor, float]:
    """Feasible by construction, with equations, inequalities (some tight), bounds, duplicate rows, or none of them."""
    n, m, p = draw(st.integers(1, 7)), draw(st.integers(0, 3)), draw(st.integers(0, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    point = random.uniform(0, 2, n) * (random.random(n) < 0.7)
    A_eq, A_ub = random.integers(-2, 3, (m, n)).astype(float), random.integers(-2, 3, (p, n)).astype(float)
    if m and draw(st.booleans()):
        A_eq = np.concatenate([A_eq, A_eq[:1]])
    slack = random.uniform(0, 1, p) * (random.random(p) < 0.5)
    upper = None if draw(st.booleans()) else torch.from_numpy(point + random.uniform(0.1, 1, n))
    lp = il2o.LinearProgram(
        A_eq=torch.from_numpy(A_eq),
        b_eq=torch.from_numpy(A_eq @ point),
        A_ub=torch.from_numpy(A_ub),
        b_ub=torch.from_numpy(A_ub @ point + slack),
        upper=upper,
    )
    return lp, torch.from_numpy(random.normal(size=(1, n))), draw(st.sampled_from([0.05, 0.5, 3.0]))


@given(random_programs())
@settings(max_examples=60, deadline=None)
def test_random_programs_have_the_solution_of_an_interior_point_method(
    program: tuple[il2o.LinearProgram, Tensor, float],
) -> None:
    lp, cost, gamma = program
    solution = il2o.LPLayer(lp, gamma=gamma, tolerance=1e-9, max_steps=50_000, on_failure="ignore")(cost)
    if not bool(solution.converged):
        assert int(solution.status) == Status.MAX_STEPS
        return
    # The interior-point method is the less exact of the two where constraints are degenerate.
    np.testing.assert_allclose(solution.x[0], clarabel_solution(lp, cost[0].numpy(), gamma), atol=1e-4)


def triangle(**options: object) -> il2o.LinearProgram:
    return il2o.LinearProgram(A_eq=torch.ones(1, 3, dtype=F64), b_eq=torch.ones(1, dtype=F64), **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e3, 1e8])
def test_the_unit_of_the_costs_does_not_matter(scale: float) -> None:
    cost = torch.tensor([[0.1, 0.3, 1.4]], dtype=F64)
    reference = il2o.LPLayer(triangle(), gamma=1.0, tolerance=1e-9)(cost)
    together = il2o.LPLayer(triangle(), gamma=scale, tolerance=1e-9)(scale * cost)
    relative = il2o.LPLayer(triangle(), normalize=True, tolerance=1e-9)
    assert bool(together.converged)
    torch.testing.assert_close(together.x, reference.x, atol=1e-7, rtol=0)
    torch.testing.assert_close(relative(scale * cost).x, relative(cost).x, atol=1e-7, rtol=0)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_costs_of_extreme_scale_are_solved(scale: float) -> None:
    """With gamma 1 the tiny costs give the point of least norm, the huge ones the cheapest vertex."""
    cost = scale * torch.tensor([[0.1, 0.3, 1.4]], dtype=F64)
    solution = il2o.LPLayer(triangle(), gamma=1.0)(cost)
    expected = [[1 / 3, 1 / 3, 1 / 3]] if scale < 1 else [[1.0, 0.0, 0.0]]
    assert bool(solution.converged)
    torch.testing.assert_close(solution.x, torch.tensor(expected, dtype=F64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backward", [il2o.Implicit()], ids=repr)
def test_gradients_in_costs_and_right_hand_sides_agree_with_differences(backward: il2o.Implicit) -> None:
    lp = il2o.LinearProgram(
        A_eq=torch.tensor([[1.0, 1.0, 1.0, 0.0]], dtype=F64),
        b_eq=torch.tensor([1.0], dtype=F64),
        A_ub=torch.tensor([[1.0, 0.0, 0.0, 1.0]], dtype=F64),
        b_ub=torch.tensor([0.4], dtype=F64),
        upper=torch.tensor([1.0, 1.0, 1.0, 0.9], dtype=F64),
    )
    layer = il2o.LPLayer(lp, gamma=0.7, tolerance=1e-12, max_steps=20_000, backward=backward, on_failure="ignore")
    cost = torch.tensor([[-0.3, 0.1, 0.2, -0.4], [0.2, -0.5, 0.1, -0.2]], dtype=F64, requires_grad=True)
    b_eq = torch.tensor([[1.0], [1.2]], dtype=F64, requires_grad=True)
    b_ub = torch.tensor([[0.4], [0.1]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, e, u: layer(c, b_eq=e, b_ub=u).x, (cost, b_eq, b_ub), eps=1e-5, atol=1e-4)


def test_a_sample_with_nan_costs_fails_alone_and_gives_no_gradient() -> None:
    cost = torch.tensor([[0.1, 0.3, 1.4], [float("nan"), 0.0, 0.0]], dtype=F64, requires_grad=True)
    solution = il2o.LPLayer(triangle(), on_failure="ignore")(cost)
    assert solution.status.tolist() == [Status.CONVERGED, Status.NONFINITE]
    (solution.x * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert cost.grad is not None
    assert bool(cost.grad[0].isfinite().all())
    assert float(cost.grad[1].abs().nan_to_num(0.0).max()) == 0.0


def test_an_infeasible_program_says_so() -> None:
    lp = triangle(upper=0.2)
    solution = il2o.LPLayer(lp, gamma=1.0, max_steps=500, on_failure="ignore")(torch.zeros(1, 3, dtype=F64))
    assert int(solution.status) == Status.INFEASIBLE
    rows = {"A_ub": torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), "b_ub": torch.tensor([1.0, -2.0])}
    solution = il2o.LPLayer(il2o.LinearProgram(**rows), max_steps=2000, on_failure="ignore")(torch.zeros(1, 2))
    assert int(solution.status) == Status.INFEASIBLE


def test_an_unbounded_program_says_so_and_only_without_the_quadratic_term() -> None:
    lp = il2o.LinearProgram(A_eq=torch.tensor([[1.0, -1.0]], dtype=F64), b_eq=torch.zeros(1, dtype=F64))
    cost = torch.tensor([[-1.0, 0.5], [1.0, 0.5]], dtype=F64)
    solution = il2o.LPLayer(lp, gamma=0.0, max_steps=300, on_failure="ignore")(cost)
    assert solution.status.tolist() == [Status.DIVERGED, Status.CONVERGED]
    with pytest.warns(il2o.ConvergenceWarning, match="unbounded"):
        il2o.LPLayer(lp, gamma=0.0, max_steps=300)(cost)
    bent = il2o.LPLayer(lp, gamma=1.0, tolerance=1e-9)(cost)
    torch.testing.assert_close(bent.x[0], torch.tensor([0.25, 0.25], dtype=F64))


def test_a_bounded_program_that_is_only_slow_is_not_called_unbounded() -> None:
    case = next(case for case in CASES if case.name.startswith("Beale"))
    solution = il2o.LPLayer(case.program, gamma=0.0, max_steps=200, on_failure="ignore")(case.cost)
    assert int(solution.status) == Status.MAX_STEPS


def test_empty_blocks_are_no_blocks() -> None:
    lp = il2o.LinearProgram(
        A_eq=torch.zeros(0, 2), b_eq=torch.zeros(0), A_ub=torch.zeros(0, 2), b_ub=torch.zeros(0), upper=1.0
    )
    assert (lp.m_eq, lp.m_ub, lp.n) == (0, 0, 2)
    torch.testing.assert_close(il2o.LPLayer(lp)(torch.tensor([[-0.4, 3.0]])).x, torch.tensor([[0.4, 0.0]]))
    free = il2o.LinearProgram(n=2, lower=None)
    torch.testing.assert_close(
        il2o.LPLayer(free, gamma=2.0, tolerance=1e-6)(torch.tensor([[-0.4, 3.0]])).x, torch.tensor([[0.2, -1.5]])
    )


def test_an_empty_batch_has_an_empty_answer() -> None:
    assert il2o.LPLayer(triangle())(torch.zeros(0, 3, dtype=F64)).x.shape == (0, 3)


@pytest.mark.parametrize("form", [torch.Tensor.to_sparse, lambda A: sp.csr_array(A.numpy()), lambda A: A.numpy()])
def test_matrices_may_be_sparse_or_of_numpy(form: object) -> None:
    A, b = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], dtype=F64), torch.ones(2, dtype=F64)
    cost = torch.tensor([[0.3, 0.1, -0.2]], dtype=F64)
    expected = il2o.LPLayer(il2o.LinearProgram(A_eq=A, b_eq=b))(cost).x
    given_form = il2o.LinearProgram(A_eq=form(A), b_eq=b)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(il2o.LPLayer(given_form)(cost).x, expected)
    assert float(given_form.violation(expected)) < 1e-6


def test_right_hand_sides_may_differ_by_sample() -> None:
    cost = torch.zeros(2, 3, dtype=F64)
    budgets = torch.tensor([[1.0], [3.0]], dtype=F64)
    each = il2o.LPLayer(il2o.LinearProgram(A_eq=torch.ones(1, 3, dtype=F64), b_eq=budgets))(cost).x
    torch.testing.assert_close(each.sum(1), budgets[:, 0])
    torch.testing.assert_close(il2o.LPLayer(triangle())(cost, b_eq=budgets).x, each)


def test_batch_mates_change_nothing() -> None:
    layer = il2o.LPLayer(CASES[4].program, gamma=1.0)
    cost = torch.randn(7, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([layer(row[None]).x for row in cost])
    torch.testing.assert_close(layer(cost).x, alone, atol=1e-12, rtol=1e-12)


def test_a_batch_of_vertices_is_warned_about_and_a_batch_inside_a_face_is_not() -> None:
    cost = torch.tensor([[0.1, 0.3, 1.4]], dtype=F64, requires_grad=True)
    with pytest.warns(VertexWarning, match="Raise gamma"):
        il2o.LPLayer(triangle(), gamma=0.01)(cost)
    with pytest.warns(VertexWarning, match="gamma = 0"):
        il2o.LPLayer(triangle(), gamma=0.0)(cost)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        il2o.LPLayer(triangle(), gamma=1.0)(cost)
        il2o.LPLayer(triangle(), gamma=0.01)(cost.detach())  # nobody asks for a gradient


def test_the_inference_states_the_problem_over_the_variables() -> None:
    case = next(case for case in CASES if case.name.startswith("blending"))
    inference = il2o.LPLayer(case.program, gamma=1.0).inference(case.cost)
    violation = il2o.ConstraintViolation()(inference)
    assert inference.x.shape == (1, 3)
    assert float(violation) < 1e-4
    objective = case.cost[0] @ inference.x[0] + 0.5 * inference.x.square().sum()
    torch.testing.assert_close(il2o.Objective()(inference)[0], objective)


def test_gamma_may_be_changed_between_passes() -> None:
    layer, cost = il2o.LPLayer(triangle(), gamma=1.0), torch.tensor([[0.1, 0.3, 1.4]], dtype=F64)
    before = layer(cost).x
    layer.gamma = 0.1
    torch.testing.assert_close(layer(cost).x, il2o.LPLayer(triangle(), gamma=0.1)(cost).x)
    assert float((layer(cost).x - before).abs().max()) > 0.1


ROW, ONE = torch.ones(1, 3), torch.ones(1)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"A_eq": ROW}, "A_eq without b_eq"),
        ({"b_ub": ONE}, "b_ub without A_ub"),
        ({"A_eq": ROW, "b_eq": torch.ones(2)}, "A_eq of shape"),
        ({"A_eq": ROW * float("nan"), "b_eq": ONE}, "NaN or infinite"),
        ({"A_eq": ROW, "b_eq": ONE * float("inf")}, "b_eq has entries"),
        ({"A_eq": ROW, "b_eq": ONE, "upper": torch.ones(4)}, "upper must be"),
        ({"A_eq": ROW, "b_eq": ONE, "lower": 2.0, "upper": 1.0}, "lower <= upper"),
        ({"A_eq": ROW, "b_eq": ONE, "upper": torch.tensor([1.0, -1.0, 1.0])}, "at variable 1"),
        ({"A_eq": ROW, "b_eq": ONE, "A_ub": torch.ones(1, 2), "b_ub": ONE}, "A_ub has 2 columns"),
        ({"lower": float("nan"), "n": 2}, "lower is NaN"),
        ({}, "number of variables"),
    ],
)
def test_a_program_that_makes_no_sense_is_refused(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        il2o.LinearProgram(**options)


@pytest.mark.bad_input
def test_options_and_costs_out_of_range_are_refused() -> None:
    lp = triangle()
    with pytest.raises(ValueError, match="gamma >= 0; got gamma=-1"):
        il2o.LPLayer(lp, gamma=-1.0)
    with pytest.raises(TypeError, match="takes a LinearProgram; got str"):
        il2o.LPLayer("lp")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"costs of shape \(B, 3\); got \(2, 4\)"):
        il2o.LPLayer(lp)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="needs 0 < step < 2/L"):
        il2o.LPLayer(lp, gamma=1.0, step=3.0)(torch.zeros(1, 3, dtype=F64))
    contradiction = il2o.LinearProgram(A_eq=torch.ones(2, 2), b_eq=torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="no x satisfies A x = b"):
        il2o.LPLayer(contradiction)(torch.zeros(1, 2))
