"""The benchmark of differentiable linear programs: its references are right, and a wrong peer is found out."""

import itertools
import time
from dataclasses import replace

import highspy
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from benchmarks.lp_layers import measure, reference
from benchmarks.lp_layers.measure import Chosen
from benchmarks.lp_layers.peers import OURS, Method, Peer, Skip, Solve, independent
from benchmarks.lp_layers.problems import ROWS, Row, general, grid, knapsack, row_of
from benchmarks.lp_layers.run import measure_row
from benchmarks.lp_layers.structured import GENERAL, Parts
from benchmarks.lp_steps import rules as of_steps
from benchmarks.lp_steps import sets as davis_yin
from benchmarks.lp_steps import study
from numpy.typing import NDArray
from torch import Tensor

import implicit_l2o as il2o

GAMMA = 0.1
Array = NDArray[np.float64]


def onto_simplex(points: Array) -> Array:
    """The projection of every row onto the unit simplex, by sorting."""
    falling = -np.sort(-points, axis=1)
    excess = np.cumsum(falling, axis=1) - 1
    count = np.arange(1, points.shape[1] + 1)
    last = (falling - excess / count > 0).sum(1)
    return np.maximum(0.0, points - (np.take_along_axis(excess, last[:, None] - 1, 1) / last[:, None]))


def simplex(n: int = 6, batch: int = 5) -> Row:
    parts = Parts(cost=np.random.default_rng(3).normal(size=(batch, n)), A_eq=np.ones((1, n)), b_eq=np.ones(1))
    return row_of("simplex", "general", parts, seed=0)


def by_highs(row: Row, gamma: float, sample: int) -> Array:
    """The solution of one sample by the quadratic solver of HiGHS."""
    model = highspy.HighsModel()
    A = sp.vstack([block for block in (row.A_eq, row.A_ub) if block is not None]).tocsc()
    equations = 0 if row.A_eq is None else row.A_eq.shape[0]
    sides = [side for side in (row.b_eq, row.b_ub) if side is not None]
    upper = np.concatenate(sides)
    lower = upper.copy()
    lower[equations:] = -np.inf
    lp = model.lp_
    lp.num_col_, lp.num_row_ = row.n, len(upper)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = row.cost[sample], row.lower, row.upper
    lp.row_lower_, lp.row_upper_ = lower, upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = A.indptr, A.indices, A.data
    model.hessian_.dim_ = row.n
    model.hessian_.format_ = highspy.HessianFormat.kTriangular
    model.hessian_.start_, model.hessian_.index_ = np.arange(row.n + 1), np.arange(row.n)
    model.hessian_.value_ = np.full(row.n, gamma)
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(model)
    solver.run()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return np.array(solver.getSolution().col_value)


def test_reference_is_the_closed_form_on_a_simplex() -> None:
    row = simplex()
    found = reference.solve(row, GAMMA)
    np.testing.assert_allclose(found.x, onto_simplex(-row.cost / GAMMA), atol=1e-12)
    assert found.residual < 1e-12


@pytest.mark.parametrize("name", ["grid 5", "scheduling", "b-matching", "knapsack 50"])
def test_reference_agrees_with_highs(name: str) -> None:
    row = {"grid 5": grid(5, batch=2), "knapsack 50": knapsack(50, batch=2)}.get(name) or general(name, batch=2)
    found = reference.solve(row, GAMMA)
    for sample in range(2):
        np.testing.assert_allclose(found.x[sample], by_highs(row, GAMMA, sample), atol=2e-5)


@pytest.mark.parametrize("row", [grid(4, batch=3), knapsack(12, batch=3), simplex(batch=3)], ids=lambda row: row.name)
def test_gradient_of_the_reference_is_the_difference_quotient(row: Row) -> None:
    exact = reference.solve(row, GAMMA).gradient
    direction = np.random.default_rng(5).normal(size=row.cost.shape)
    values = []
    for shift in (1e-6, -1e-6):
        moved = replace(row, cost=row.cost + shift * direction)
        values.append((reference.solve(moved, GAMMA).x * row.cotangent).sum(1))
    np.testing.assert_allclose((exact * direction).sum(1), (values[0] - values[1]) / 2e-6, rtol=1e-5, atol=1e-6)


def test_a_reference_that_is_not_optimal_is_refused() -> None:
    row = simplex()
    twice = replace(row, A_eq=sp.csr_array(np.ones((2, row.n))), b_eq=np.array([1.0, 2.0]))
    with pytest.raises(reference.NoReference, match="simplex: sample"):
        reference.solve(twice, GAMMA)


def test_natural_residual_knows_every_condition() -> None:
    row = knapsack(10, batch=1)
    assert row.A_ub is not None
    assert row.b_ub is not None
    x, none = np.full(10, 2.0), np.zeros(0)
    assert reference.natural_residual(row, GAMMA, row.cost[0], x, none, np.zeros(2)) >= 1.0  # outside the box
    inside = np.zeros(10)  # with negative costs it pays to take something
    assert reference.natural_residual(row, GAMMA, row.cost[0], inside, none, np.zeros(2)) > 0.1
    slack = np.array([1.0, 0.0])  # a multiplier of a row that is slack
    assert reference.natural_residual(row, GAMMA, 0 * row.cost[0], inside, none, slack) >= 1.0


@pytest.mark.parametrize("name", list(GENERAL))
def test_general_rows_are_feasible_bounded_and_scaled(name: str) -> None:
    row = general(name, batch=2)
    np.testing.assert_allclose(np.sqrt((row.cost**2).mean(1)), 1.0)
    found = reference.solve(row, GAMMA)
    lp = row.program()
    assert float(lp.violation(torch.from_numpy(found.x)).max()) < 1e-9
    assert row.n == lp.n
    assert row.m == lp.m_eq + lp.m_ub


def test_rows_are_the_same_every_time_and_enough_of_them() -> None:
    assert len(GENERAL) >= 10
    assert set(GENERAL) < set(ROWS)
    np.testing.assert_array_equal(grid(5).cost, ROWS["grid 5"]().cost)


def test_independent_equations_have_the_same_solutions() -> None:
    row = grid(4, batch=1)
    A, b = independent(row)
    assert A.shape[0] == 15 == np.linalg.matrix_rank(row.A_eq.toarray())
    x = reference.solve(row, GAMMA).x[0]
    np.testing.assert_allclose(A @ x, b, atol=1e-12)


def of(row: Row, change: Array | float = 0.0, gradient: float = 1.0) -> Solve:
    """A peer that knows the reference, changed; its gradient a multiple of the exact one."""
    found = reference.solve(row, GAMMA)

    class Answer(torch.autograd.Function):
        @staticmethod
        def forward(ctx, cost: Tensor) -> Tensor:
            return torch.from_numpy(found.x + change)

        @staticmethod
        def backward(ctx, *_: Tensor) -> Tensor:
            return gradient * torch.from_numpy(found.gradient)

    return lambda cost: Answer.apply(cost)  # pyright: ignore[reportReturnType]


def judged(row: Row, solve: Solve) -> measure.Errors:
    found = measure.call(solve, *measure.inputs(row, torch.float64))
    return measure.errors(row, reference.solve(row, GAMMA), found.x, found.gradient)


def test_a_right_peer_has_no_errors() -> None:
    right = judged(grid(4, batch=4), of(grid(4, batch=4)))
    assert max(right.x, right.equality, right.inequality, right.bounds, right.gradient_worst) < 1e-12
    assert right.cosine == pytest.approx(1.0)


def test_a_wrong_peer_is_found_out() -> None:
    row = grid(4, batch=4)
    no_bounds = of(row, change=np.linspace(-1.0, 0.0, row.n))  # what one gets that drops x >= 0
    wrong = judged(row, no_bounds)
    assert wrong.x == pytest.approx(1.0)
    assert wrong.bounds > 0.9
    assert wrong.min_x < -0.9
    assert wrong.equality > 0.1
    items = knapsack(12, batch=4)
    assert judged(items, of(items, change=0.1)).inequality > 0.1
    against = judged(row, of(row, gradient=-1.0))
    assert against.x == 0
    assert against.gradient_worst == pytest.approx(2.0)
    assert against.cosine == pytest.approx(-1.0)
    assert judged(row, of(row, change=np.nan)).x == np.inf
    assert measure.finite(np.inf) is None


def ladder(row: Row, *, seconds: float = 0.0, floor: float = 0.0, name: str = "a") -> Method:
    """A method whose error is its tolerance, or the floor, and that takes its time."""

    def make(_: Row, gamma: float, tolerance: float) -> Solve:
        answer = of(row, change=max(0.9 * tolerance, floor))

        def solve(cost: Tensor) -> Tensor:
            until = time.process_time() + seconds
            while time.process_time() < until:
                pass
            return answer(cost)

        return solve

    return Method(name, make)


def climbed(*methods: Method) -> Chosen:
    row = grid(3, batch=2)
    return measure.climb(row, reference.solve(row, GAMMA), Peer("peer", methods), GAMMA)


def test_the_ladder_ends_at_the_loosest_accurate_rung() -> None:
    chosen = climbed(ladder(grid(3, batch=2), floor=0.8e-5))
    assert chosen.tolerance == pytest.approx(1e-5)
    assert chosen.accurate
    assert [rung["tolerance"] for rung in chosen.climbed] == pytest.approx([1e-3, 1e-4, 1e-5])


def test_a_peer_that_is_never_accurate_says_so() -> None:
    chosen = climbed(ladder(grid(3, batch=2), floor=1e-3))
    assert not chosen.accurate
    assert chosen.errors.x == pytest.approx(1e-3)


def test_the_fastest_accurate_method_is_timed() -> None:
    row = grid(3, batch=2)
    fast_and_wrong = ladder(row, floor=1e-2, name="wrong")
    chosen = climbed(ladder(row, seconds=0.01, name="slow"), fast_and_wrong, ladder(row, name="fast"))
    assert chosen.method.name == "fast"


def test_a_peer_that_cannot_is_left_out_with_the_reason() -> None:
    def missing(row: Row, gamma: float, tolerance: float) -> Solve:
        raise ImportError("no module named peer")

    with pytest.raises(Skip, match="no module named peer"):
        climbed(Method("missing", missing))


def test_peers_alternate_and_get_their_samples_in_another_order_every_round() -> None:
    row, order, first = grid(3, batch=4), [], []
    found = reference.solve(row, GAMMA)

    def peer(name: str) -> Chosen:
        def solve(cost: Tensor) -> Tensor:
            order.append(name)
            first.append(int(np.abs(row.cost - cost[0].detach().numpy()).sum(1).argmin()))
            known = torch.from_numpy(np.roll(found.x, -first[-1], 0))
            return known + 0 * cost

        return measure.climb(row, found, Peer(name, [Method(name, lambda *_: solve)]), GAMMA)

    chosen = [peer(name) for name in "ab"]
    order.clear()
    first.clear()
    kept = measure.alternate(row, found, chosen, repeats=3)
    assert order == list("abbaab")
    assert first == [0, 0, 3, 3, 2, 2]
    assert kept["a"]["accurate"]
    assert len(kept["a"]["all_seconds"]) == 3


def test_our_layer_on_a_row() -> None:
    found = measure_row(grid(4, batch=4), OURS[:1], repeats=2)
    assert found["peers"]["JFB"]["accurate"]
    assert found["peers"]["JFB"]["errors"]["x"] <= 1e-5
    assert 0 < found["peers"]["JFB"]["errors"]["cosine"] <= 1
    assert all(name in found for name in ("n", "m", "reference", "skipped"))


def test_costs_of_all_rows_differ_between_samples() -> None:
    row = general("transport 10x20", batch=3)
    assert all(not np.allclose(a, b) for a, b in itertools.combinations(row.cost, 2))


def test_the_study_of_steps_iterates_as_the_layer_does() -> None:
    row = grid(4, batch=4)
    sets, exact = davis_yin.Sets.of(row), reference.solve(row, GAMMA)
    cost, answer = sets.lift(row.cost), sets.lift(exact.x)
    residual, x = davis_yin.iterations(sets, cost, answer, GAMMA, torch.full((4,), 1.5, dtype=torch.float64))
    layer = il2o.LPLayer(row.program(), gamma=GAMMA, step=1.5, tolerance=davis_yin.ACCURACY)
    with torch.no_grad():
        counted = layer(torch.from_numpy(row.cost)).steps
    assert ((residual - counted).abs() <= 5).all()  # it looks every fifth time
    assert (x < davis_yin.MOST).all()


def planted(name: str, gamma: float, rank: float) -> of_steps.Case:
    """A program whose best step is `0.3 gamma^-0.6 rank^-0.2`."""
    steps = np.geomspace(1e-3, 1e3, 121)
    away = np.log(steps / (0.3 * gamma**-0.6 * rank**-0.2))
    return of_steps.Case(name, gamma, {"rank": rank}, steps, 0 * steps, 50 * np.exp(0.3 * away**2))


def test_the_fit_of_a_step_finds_a_planted_rule() -> None:
    cases = [planted("a", gamma, rank) for gamma in study.GAMMAS for rank in (2.0, 30.0, 400.0)]
    constant, exponent, of_rank = of_steps.fitted(cases, "rank")
    assert (constant, exponent, of_rank) == pytest.approx((0.3, 0.6, -0.2), abs=0.05)
    assert of_steps.score(of_steps.power(constant, exponent, "rank", of_rank), cases)["mean"] < 1.02
    assert of_steps.score(of_steps.power(0.05, 0.0), cases)["mean"] > 2


def test_halves_of_the_study_are_disjoint_and_known() -> None:
    assert not set(study.TUNING) & set(study.HELD_OUT)
    assert {*study.TUNING, *study.HELD_OUT} <= set(ROWS)
