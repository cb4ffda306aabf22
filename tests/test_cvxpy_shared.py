"""The splitting with one factor for all samples, which CVXPY layers take before factors of every sample get large."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

import implicit_l2o as il2o

cp = pytest.importorskip("cvxpy", reason="cvxpy is in the extra 'cvxpy'")
pytest.importorskip("numba", reason="numba is in the extra 'cvxpy'")

from implicit_l2o.interop.cvxpy import CvxpyLayer, ZeroGradientWarning, compact, krylov, rounds  # noqa: E402
from implicit_l2o.interop.cvxpy import ldl_kernels as ldl  # noqa: E402
from implicit_l2o.interop.cvxpy import solve as solve_module  # noqa: E402
from implicit_l2o.interop.cvxpy.chunked import Chunked  # noqa: E402
from implicit_l2o.interop.cvxpy.compact import CompactSplitting  # noqa: E402
from implicit_l2o.interop.cvxpy.kkt import KKT  # noqa: E402
from implicit_l2o.interop.cvxpy.pattern import pattern_of  # noqa: E402
from implicit_l2o.interop.cvxpy.program import ConePrograms  # noqa: E402
from implicit_l2o.interop.cvxpy.shared_factor import SharedFactor  # noqa: E402
from implicit_l2o.interop.cvxpy.solve import Forward  # noqa: E402
from implicit_l2o.interop.cvxpy.splitting import ConicSplitting, weights  # noqa: E402

f64 = torch.float64
Made = tuple[Any, list[Any], list[Any], Callable[[int], list[Tensor]]]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed))


def bounded() -> Made:
    n = 70
    x, b = cp.Variable(n), cp.Parameter(2 * n)
    A = draw(2 * n, n, seed=1).numpy()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= 0, x <= 1])
    return problem, [b], [x], lambda batch: [draw(batch, 2 * n)]


def logistic() -> Made:
    n = 10
    x, b = cp.Variable(n), cp.Parameter(n)
    A = draw(n, n, seed=1).numpy()
    problem = cp.Problem(cp.Minimize(cp.sum(cp.logistic(A @ x)) - b @ x + 0.1 * cp.sum_squares(x)))
    return problem, [b], [x], lambda batch: [draw(batch, n).sigmoid()]


def correlation() -> Made:
    X, C = cp.Variable((5, 5), PSD=True), cp.Parameter((5, 5))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.diag(X) == 1])
    return problem, [C], [X], lambda batch: [(draw(batch, 5, 5) + draw(batch, 5, 5).mT) / 2]


def risk() -> Made:
    x, mean = cp.Variable(12), cp.Parameter(12)
    F = draw(4, 12, seed=1).numpy() / 2
    problem = cp.Problem(cp.Maximize(mean @ x - cp.sum_squares(x) / 2), [cp.sum(x) == 1, cp.norm(F @ x) <= 0.5])
    return problem, [mean], [x], lambda batch: [draw(batch, 12)]


def equations() -> Made:
    """No inequality and no other cone: nothing is left to iterate."""
    x, b = cp.Variable(8), cp.Parameter(12)
    A, C = draw(12, 8, seed=1).numpy(), draw(2, 8, seed=2).numpy()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [C @ x == 1])
    return problem, [b], [x], lambda batch: [draw(batch, 12)]


CASES = pytest.mark.parametrize("make", [bounded, logistic, correlation, risk, equations])


def programs_of(make: Callable[[], Made], batch: int = 3) -> ConePrograms:
    problem, parameters, variables, values = make()
    layer = CvxpyLayer(problem, parameters, variables)
    layer(*values(batch))
    assert layer._last is not None
    return layer._last[0]


def test_a_part_of_a_factor_leaves_the_schur_complement() -> None:
    size, stop, rng = 90, 20, np.random.default_rng(0)
    M = rng.standard_normal((size, size))
    M = M @ M.T + size * np.eye(size)
    M[:stop, :stop] = np.diag(np.diag(M)[:stop])
    M[np.ix_(range(stop), range(stop + 3, stop + 6))] = M[np.ix_(range(stop + 3, stop + 6), range(stop))] = 0.0
    upper = sp.csc_array(np.triu(M))
    upper.sort_indices()
    shape = ldl.symbolic(size, upper.indptr.astype(np.int64), upper.indices.astype(np.int32))
    assert shape.tail <= stop
    columns = np.repeat(np.arange(size), np.diff(upper.indptr))
    places = ldl.places_of(size, shape.columns, shape.below, upper.indices, columns)
    values = np.repeat(upper.data[:, None], 8, 1)
    low, diagonal, signs = np.empty((len(shape.below), 8)), np.empty((size, 8)), np.ones(size)
    ldl.factor(shape, places, values, np.zeros(size), signs, 0.0, low, diagonal, np.zeros((size, 8)), stop)
    found = np.diag(diagonal[stop:, 5])
    above = np.triu_indices(size - stop, 1)
    found[above] = low[shape.columns[stop] :, 5]
    expected = M[stop:, stop:] - M[stop:, :stop] @ np.linalg.solve(M[:stop, :stop], M[:stop, stop:])
    assert np.allclose(np.triu(found), np.triu(expected), rtol=1e-12)


@CASES
@pytest.mark.parametrize("tail", [True, False])
def test_the_shared_factor_solves(make: Callable[[], Made], tail: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = programs_of(make)
    sigma, rho = weights(programs, 1.0)
    factor = SharedFactor.of(programs, sigma, rho)
    if not tail:
        shape = factor.elimination.shape
        whole = replace(factor.elimination, shape=shape._replace(tail=len(factor.diagonal)))
        monkeypatch.setattr("implicit_l2o.interop.cvxpy.shared_factor._elimination_of", lambda canonical: whole)
        factor = SharedFactor.of(programs, sigma, rho)
        assert factor.inverse.shape == (0, 0)
    elif make is bounded:
        assert len(factor.inverse) > 0
    P, A = (part[0] for part in programs.dense)
    H = P + torch.diag(sigma[0]) + A.mT @ (rho[0][:, None] * A)
    for batch in (1, 3, 9):
        right = draw(batch, programs.canonical.n)
        assert torch.allclose(factor.solve(right) @ H, right, atol=1e-8)
    x, y = draw(2, A.shape[1]), draw(2, A.shape[0])
    assert torch.allclose(factor.multiply(x), x @ A.mT)
    assert torch.allclose(factor.multiply_transposed(y), y @ A)


@CASES
@pytest.mark.parametrize("way", ["factors", "krylov"])
def test_answers_and_gradients_are_those_of_the_batched_method(
    make: Callable[[], Made], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, parameters, variables, values = make()
    found = []
    for solver in ("batched", "auto"):
        if solver == "auto":
            monkeypatch.setattr(solve_module, "pays", lambda pattern, programs: True)
            monkeypatch.setattr(solve_module, "avoids_factors", lambda programs: way == "krylov")
            for other in ("_by_chunks", "_by_clarabel"):
                monkeypatch.setattr(Forward, other, lambda *args, **options: pytest.fail("another way was taken"))
            if way == "krylov":
                monkeypatch.setattr(solve_module, "pattern_of", lambda canonical: pytest.fail("factors were asked for"))
                for factors in (KKT, Chunked):
                    monkeypatch.setattr(factors, "at", lambda *args: pytest.fail("factors were asked for"))
        layer = CvxpyLayer(problem, parameters, variables, solver=solver)
        own = [value.requires_grad_() for value in values(11)]
        solution = layer.solve(*own)
        assert solution.residual.max() < 1e-12
        assert solution.converged.all()
        weight = draw(*solution.variables[0].shape, seed=5)
        found.append((solution.variables[0], *torch.autograd.grad((solution.variables[0] * weight).sum(), own)))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-8)


@CASES
def test_a_fixed_point_of_the_compact_map_is_a_solution(make: Callable[[], Made]) -> None:
    problem, parameters, variables, values = make()
    layer = CvxpyLayer(problem, parameters, variables, solver="batched")
    layer(*values(3))
    assert layer._last is not None
    programs, points = layer._last
    splitting = CompactSplitting.of(programs, step=2.0)
    v = splitting.lift(torch.as_tensor(points.w))
    assert torch.allclose(splitting(v), v, atol=1e-7)
    x, w = splitting.point(v)
    assert torch.allclose(x, torch.as_tensor(points.x), atol=1e-6)
    assert torch.allclose(w, torch.as_tensor(points.w), atol=1e-6)


@CASES
def test_products_with_the_derivative_of_the_compact_map(make: Callable[[], Made]) -> None:
    """Against central differences, and the transposed ones against these."""
    splitting = CompactSplitting.of(programs_of(make, 3), step=2.0)
    v, u, g = (draw(3, splitting.cones.size, seed=seed) for seed in (7, 8, 9))
    D = krylov.derivative_at(splitting, v)
    ahead, back = krylov.push_forward(splitting, D, u), krylov.pull_back(splitting, D, g)
    h = 1e-6
    slope = (splitting(v + h * u) - splitting(v - h * u)) / (2 * h)
    assert torch.allclose(ahead, slope, rtol=1e-5, atol=1e-6)
    assert torch.allclose((g * ahead).sum(1), (back * u).sum(1), rtol=1e-9)


@CASES
def test_nothing_is_factored_where_no_exact_gradient_is_asked_for(
    make: Callable[[], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, parameters, variables, values = make()
    own = [value.requires_grad_() for value in values(11)]
    found = []
    for solver in ("batched", "auto"):
        if solver == "auto":
            monkeypatch.setattr(solve_module, "pays", lambda pattern, programs: True)
            monkeypatch.setattr(solve_module, "saves_factors", lambda *args: True)
            for factors in (KKT, Chunked):
                monkeypatch.setattr(factors, "at", lambda *args: pytest.fail("factors were asked for"))
        with torch.no_grad():
            solution = CvxpyLayer(problem, parameters, variables, solver=solver).solve(*own)
        assert solution.converged.all()
        assert solution.residual.max() < 1e-12
        (x,) = CvxpyLayer(problem, parameters, variables, solver=solver, backward=il2o.JFB())(*own)
        found.append((solution.variables[0], x, *torch.autograd.grad(x.square().sum(), own)))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-8)


def test_the_residual_of_an_adjoint_by_gmres_is_that_of_the_optimality_conditions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not that of the regularised equations, which GMRES solves: what a coarse one leaves shows, and more rounds mend it."""
    problem, parameters, variables, values = correlation()
    monkeypatch.setattr(solve_module, "avoids_factors", lambda programs: True)
    monkeypatch.setattr(krylov, "_ENOUGH", torch.inf)
    rounds_of_adjoints, found = krylov._ADJOINTS, []
    for firm, number in ((1e-6, 3), (1e-1, 1), (1e-1, 3)):
        monkeypatch.setattr(compact, "_FIRM", firm)
        monkeypatch.setattr(krylov, "_ADJOINTS", rounds_of_adjoints[:number])
        own = values(3)[0].requires_grad_()
        solution = CvxpyLayer(problem, parameters, variables).solve(own)
        warned = number == 1
        with pytest.warns(il2o.ConvergenceWarning, match="have no solution") if warned else nullcontext():
            torch.autograd.grad(solution.variables[0][:, 0].square().sum(), own)
        assert solution.gradient.residual is not None
        found.append(float(solution.gradient.residual.max()))
    assert found[0] < 1e-11
    assert found[2] < 1e-9 < 1e-5 < found[1]


@pytest.mark.parametrize("way", ["factors", "krylov"])
def test_vertices_are_told_whatever_the_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve_module, "pays", lambda pattern, programs: True)
    monkeypatch.setattr(solve_module, "avoids_factors", lambda programs: way == "krylov")
    x, cost = cp.Variable(4), cp.Parameter(4)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cost @ x), [x >= 0, cp.sum(x) <= 1, x[0] <= 0.5]), [cost], [x])
    own = (1e-3 * (draw(6, 4) - 3.0)).requires_grad_()
    solution = layer.solve(own)
    with pytest.warns(ZeroGradientWarning, match="vertices"):
        torch.autograd.grad(solution.variables[0].square().sum(), own)
    assert solution.gradient.zero is not None
    assert solution.gradient.zero.all()


def test_what_the_splitting_does_not_solve_goes_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, parameters, variables, values = bounded()
    expected = CvxpyLayer(problem, parameters, variables)(*values(4))[0]
    rough, asked = rounds.rough_points, []

    def partly(programs: ConePrograms, *args: Any) -> Any:
        points, splitting = rough(programs, *args)
        points.x[2], points.w[2] = np.nan, np.nan
        points.status[2] = int(il2o.Status.MAX_STEPS)
        return points, splitting

    def by_chunks(self: Forward, pattern: Any, programs: ConePrograms) -> Any:
        asked.append(len(programs))
        return chunks(self, pattern, programs)

    chunks = Forward._by_chunks
    monkeypatch.setattr(solve_module, "pays", lambda pattern, programs: True)
    monkeypatch.setattr(solve_module, "rough_points", partly)
    monkeypatch.setattr(Forward, "_by_chunks", by_chunks)
    # No Newton step: it would find the way from any point.
    monkeypatch.setattr(solve_module, "_FEW", 1)
    solution = CvxpyLayer(problem, parameters, variables).solve(*values(4))
    assert asked == [1]
    assert solution.converged.all()
    assert torch.allclose(solution.variables[0], expected, atol=1e-10)


def test_what_newton_by_gmres_does_not_solve_goes_to_clarabel(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, parameters, variables, values = correlation()
    expected = CvxpyLayer(problem, parameters, variables)(*values(4))[0]
    newton, clarabel, asked = krylov.newton, Forward._by_clarabel, []

    def partly(*args: Any, **options: Any) -> Any:
        x, w, found = newton(*args, **options)
        x[1], found[1] = 0.0, 1.0
        return x, w, found

    def by_clarabel(self: Forward, programs: ConePrograms, *, and_splitting: bool) -> Any:
        asked.append(len(programs))
        return clarabel(self, programs, and_splitting=and_splitting)

    monkeypatch.setattr(solve_module, "avoids_factors", lambda programs: True)
    monkeypatch.setattr(krylov, "newton", partly)
    monkeypatch.setattr(Forward, "_by_clarabel", by_clarabel)
    solution = CvxpyLayer(problem, parameters, variables).solve(*values(4))
    assert asked == [1]
    assert solution.converged.all()
    assert torch.allclose(solution.variables[0], expected, atol=1e-9)


def test_a_step_of_newton_that_is_no_number_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, parameters, variables, values = correlation()
    expected = CvxpyLayer(problem, parameters, variables)(*values(4))[0]
    solve, steps = il2o.GMRES.solve, []

    def breaks(self: il2o.GMRES, apply: Any, b: Tensor) -> Any:
        found = solve(self, apply, b)
        if not steps:
            found.u[1] = torch.nan
        steps.append(found)
        return found

    monkeypatch.setattr(solve_module, "avoids_factors", lambda programs: True)
    monkeypatch.setattr(rounds, "_CURVED", 1e-3)  # so that one step is not enough
    monkeypatch.setattr(il2o.GMRES, "solve", breaks)
    solution = CvxpyLayer(problem, parameters, variables).solve(*values(4))
    assert len(steps) > 1
    assert solution.converged.all()
    assert torch.allclose(solution.variables[0], expected, atol=1e-9)


def test_what_newton_by_gmres_does_not_solve_is_factored(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the point of the splitting, and only then solved anew."""
    problem, parameters, variables, values = bounded()
    expected = CvxpyLayer(problem, parameters, variables)(*values(4))[0]
    newton, polished, chunks = krylov.newton, Forward._polished, Forward._by_chunks
    asked: list[tuple[str, int]] = []

    def partly(*args: Any, **options: Any) -> Any:
        x, w, found = newton(*args, **options)
        found[[1, 3]] = 1.0
        return x, w, found

    def by_factors(self: Forward, pattern: Any, programs: ConePrograms, *args: Any, **options: Any) -> Any:
        asked.append(("factors", len(programs)))
        solved = polished(self, pattern, programs, *args, **options)
        if len(programs) == 2:
            solved.points.status[1] = int(il2o.Status.MAX_STEPS)
        return solved

    def by_chunks(self: Forward, pattern: Any, programs: ConePrograms) -> Any:
        asked.append(("anew", len(programs)))
        return chunks(self, pattern, programs)

    monkeypatch.setattr(solve_module, "pays", lambda pattern, programs: True)
    monkeypatch.setattr(solve_module, "saves_factors", lambda *args: True)
    monkeypatch.setattr(krylov, "newton", partly)
    monkeypatch.setattr(Forward, "_polished", by_factors)
    monkeypatch.setattr(Forward, "_by_chunks", by_chunks)
    with torch.no_grad():
        solution = CvxpyLayer(problem, parameters, variables).solve(*values(4))
    assert asked == [("factors", 2), ("anew", 1), ("factors", 1)]
    assert solution.converged.all()
    assert torch.allclose(solution.variables[0], expected, atol=1e-10)


def test_newton_by_gmres_pays_where_the_splitting_took_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = programs_of(bounded, 8)
    pattern = pattern_of(programs.canonical)
    assert pattern is not None
    assert not rounds.saves_factors(pattern, programs, 10)
    monkeypatch.setattr(type(pattern), "multiplications", 1e8)
    assert rounds.saves_factors(pattern, programs, 10)
    assert not rounds.saves_factors(pattern, programs, 10_000)


def test_an_adjoint_that_gmres_does_not_solve_is_factored(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, parameters, variables, values = correlation()
    gradients: list[Tensor] = []
    for steps in (300, 2):
        monkeypatch.setattr(solve_module, "avoids_factors", lambda programs: True)
        monkeypatch.setattr(krylov, "_ADJOINTS", (il2o.GMRES(rtol=1e-9, max_steps=steps),))
        own = values(3)[0].requires_grad_()
        layer = CvxpyLayer(problem, parameters, variables)
        solution = layer.solve(own)
        (gradient,) = torch.autograd.grad(solution.variables[0][:, 0].square().sum(), own)
        assert solution.gradient.solved is not None
        assert solution.gradient.solved.all()
        gradients.append(gradient)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-6, atol=1e-8)


def test_it_avoids_the_factors_of_large_semidefinite_cones_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not rounds.avoids_factors(programs_of(correlation, 8))
    assert not rounds.avoids_factors(programs_of(bounded, 8))
    large = programs_of(correlation, 8)
    monkeypatch.setattr(rounds, "_MULTIPLICATION", 1e-3)
    assert rounds.avoids_factors(large)
    assert not rounds.avoids_factors(programs_of(bounded, 8))


def test_an_infeasible_sample_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve_module, "pays", lambda pattern, programs: True)
    x, low = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= low, cp.sum(x) <= 1])
    layer = CvxpyLayer(problem, [low], [x], on_failure="ignore")
    own = torch.tensor([[0.1, 0.2], [2.0, 3.0], [0.3, 0.4]], dtype=f64, requires_grad=True)
    solution = layer.solve(own)
    assert [il2o.Status(int(status)).name for status in solution.status] == ["CONVERGED", "INFEASIBLE", "CONVERGED"]
    (gradient,) = torch.autograd.grad(solution.variables[0].sum(), own)
    assert torch.allclose(gradient, torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]], dtype=f64), atol=1e-8)


@pytest.mark.bad_input
@pytest.mark.parametrize("way", ["factors", "krylov", "krylov, having a pattern"])
@pytest.mark.parametrize(("seed", "ball"), [(0, False), (4, False), (1, True)])
def test_points_that_run_away_are_no_solutions(
    way: str, seed: int, ball: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of infeasible problems the splitting's multipliers grow, until what is violated is small beside them."""
    monkeypatch.setattr(solve_module, "pays", lambda pattern, programs: True)
    monkeypatch.setattr(solve_module, "avoids_factors", lambda programs: way == "krylov")
    monkeypatch.setattr(solve_module, "saves_factors", lambda *args: way == "krylov, having a pattern")
    x, cost, limit = cp.Variable(3), cp.Parameter(3), cp.Parameter(5)
    A = draw(5, 3, seed=seed)
    constraints = [A.numpy() @ x <= limit, cp.sum(x) == limit[0], x >= -2, x <= 2]
    if ball:
        constraints.append(cp.norm(x) <= 3)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cost @ x), constraints), [cost, limit], [x], on_failure="ignore")
    limits = draw(8, 5, seed=seed + 200) - 0.7
    solution = layer.solve(2e3 * draw(8, 3, seed=seed + 100), limits)
    assert (solution.status == int(il2o.Status.INFEASIBLE)).any()
    violation = (solution.variables[0] @ A.mT - limits).amax(1)
    assert (violation[solution.converged] < 1e-7).all()
    assert (solution.converged | (solution.status == int(il2o.Status.INFEASIBLE))).all()


@CASES
@pytest.mark.bad_input
@pytest.mark.parametrize("solver", ["auto", "batched", "clarabel", "splitting"])
def test_a_batch_of_nothing_but_nan(make: Callable[[], Made], solver: str) -> None:
    problem, parameters, variables, values = make()
    layer = CvxpyLayer(problem, parameters, variables, solver=solver, on_failure="ignore")
    own = torch.full_like(values(2)[0], float("nan")).requires_grad_()
    solution = layer.solve(own)
    assert (solution.status == int(il2o.Status.NONFINITE)).all()
    (gradient,) = torch.autograd.grad(solution.variables[0].sum(), own)
    assert not solution.variables[0].any()
    assert not gradient.any()


@pytest.mark.bad_input
@pytest.mark.parametrize("make", [bounded, correlation])
@pytest.mark.parametrize("solver", ["auto", "clarabel"])
def test_large_numbers_are_not_called_infeasible(make: Callable[[], Made], solver: str) -> None:
    """As Clarabel does when costs and right-hand sides are large beside the rest of the problem."""
    problem, parameters, variables, values = make()
    (value,) = (1e4 * v for v in values(3))
    solution = CvxpyLayer(problem, parameters, variables, solver=solver).solve(value)
    assert solution.converged.all()
    expected = CvxpyLayer(problem, parameters, variables, solver="splitting")(value)[0]
    assert torch.allclose(solution.variables[0], expected, atol=1e-6)


@pytest.mark.bad_input
def test_large_numbers_of_infeasible_problems() -> None:
    x, low = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= low, cp.sum(x) <= 1]), [low], [x], on_failure="ignore"
    )
    lows = torch.tensor([[1e6, 1e6], [-1e6, -1e6]], dtype=f64)
    assert layer.solve(lows).status.tolist() == [int(il2o.Status.INFEASIBLE), int(il2o.Status.CONVERGED)]


def test_it_pays_for_large_shared_matrices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = programs_of(bounded, 8)
    own = replace(programs, Ab=programs.Ab * np.linspace(1.0, 2.0, 8)[:, None])
    pattern = pattern_of(programs.canonical)
    assert pattern is not None
    assert not rounds.pays(pattern, programs)
    monkeypatch.setattr(type(pattern), "multiplications", 1e9)
    assert rounds.pays(pattern, programs)
    assert not rounds.pays(pattern, own)


def test_factors_are_kept_while_the_matrices_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve_module, "pays", lambda pattern, programs: programs.shared)
    problem, parameters, variables, values = bounded()
    layer = CvxpyLayer(problem, parameters, variables, backward=il2o.JFB())
    own = [value.requires_grad_() for value in values(3)]
    layer(*own)[0].sum().backward()
    kept = {key: splitting.factor for key, (_, splitting) in layer._splittings.known.items()}
    assert set(kept) == {(ConicSplitting, 1.0), (CompactSplitting, rounds._WEIGHT)}
    layer(*(value + 1.0 for value in own))[0].sum().backward()
    assert all(layer._splittings.known[key][1].factor is factor for key, factor in kept.items())


def test_factors_of_balanced_weights_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """They follow from the data: a training would otherwise gather one factor a batch."""
    monkeypatch.setattr(solve_module, "pays", lambda pattern, programs: True)
    monkeypatch.setattr(rounds, "_STEPS", 10)
    monkeypatch.setattr(rounds, "_UNBALANCED", 1.0)
    made, of = [], CompactSplitting.of
    monkeypatch.setattr(CompactSplitting, "of", lambda programs, step: made.append(step) or of(programs, step=step))
    problem, parameters, variables, values = bounded()
    layer = CvxpyLayer(problem, parameters, variables)
    for scale in (1.0, 2.0, 3.0):
        assert layer.solve(*(scale * value for value in values(3))).converged.all()
    assert len(set(made)) > 2
    assert set(layer._splittings.known) == {(CompactSplitting, rounds._WEIGHT)}


@pytest.mark.bad_input
@pytest.mark.parametrize("way", ["pays", "avoids_factors"])
def test_a_wrong_setting_is_refused_before_any_work(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve_module, way, lambda *args: True)
    monkeypatch.setattr(solve_module, "rough_points", lambda *args: pytest.fail("iterated"))
    problem, parameters, variables, values = correlation()
    layer = CvxpyLayer(problem, parameters, variables)
    with pytest.raises(TypeError, match="unrecognized solver setting 'tolerence'"):
        layer(*values(3), solver_args={"tolerence": 1e-3})


def test_a_warm_start_takes_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve_module, "pays", lambda pattern, programs: True)
    problem, parameters, variables, values = bounded()
    layer = CvxpyLayer(problem, parameters, variables)
    cold = layer.solve(*values(3))
    warm = layer.solve(*(value + 1e-6 for value in values(3)), warm_start=True)
    assert (warm.steps < cold.steps).all()
    assert torch.allclose(warm.variables[0], cold.variables[0], atol=1e-4)
