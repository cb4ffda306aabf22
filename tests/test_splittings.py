"""Splittings: the theorems they rest on, independent solvers, closed forms, and the ranges of their steps."""

import math

import clarabel
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

import implicit_l2o as il2o
from cases import SPLITTINGS, draw, spoil
from implicit_l2o.testing import check_splitting

TIGHT = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-10, rtol=0.0, max_steps=20_000))


def primal_dual_metric(splitting: il2o.CondatVu | il2o.LinearizedADMM):
    """The squared norm in which the primal-dual operators are averaged (Condat 2013; docstring of LinearizedADMM)."""
    K = splitting.problem.K
    assert K is not None
    n, m = K.in_shape[0], K.out_shape[0]

    def metric(z: Tensor) -> Tensor:
        if isinstance(splitting, il2o.CondatVu):
            x, y = z.split([n, m], -1)
            p, sign = torch.zeros_like(y), -1.0
        else:
            p, y, x = z.split([m, m, n], -1)
            sign = 1.0
        inner = (
            0.0 if isinstance(splitting, il2o.CondatVu) else 1 / splitting.inner_step_size - splitting.dual_step_size
        )
        cross = 2 * sign * (K.apply(x) * y).sum(-1)
        step, dual = splitting.step_size, splitting.dual_step_size
        return inner * p.square().sum(-1) + x.square().sum(-1) / step + y.square().sum(-1) / dual + cross

    return metric


@pytest.mark.parametrize("name", SPLITTINGS)
@pytest.mark.parametrize("n", [1, 4])
def test_the_contract_of_a_splitting(name: str, n: int) -> None:
    w, total = draw(5, n)
    splitting = SPLITTINGS[name].make(w, total)
    metric = primal_dual_metric(splitting) if isinstance(splitting, il2o.CondatVu | il2o.LinearizedADMM) else None
    # Tseng's map is averaged against its fixed points only.
    tseng = isinstance(splitting, il2o.ForwardBackwardForward | il2o.CombettesPesquet)
    rest = il2o.solve(splitting, torch.zeros_like(w), solver=TIGHT).z if tseng else None
    check_splitting(splitting, torch.randn_like(w), metric=metric, fixed_point=rest)


def test_linearized_admm_with_an_inner_step_below_its_limit_is_averaged_too() -> None:
    w, total = draw(5, 3)
    problem = SPLITTINGS["linearized_admm"].make(w, total).problem
    splitting = il2o.LinearizedADMM(problem, dual_step=0.5, inner_step=0.8)
    check_splitting(splitting, torch.randn_like(w), metric=primal_dual_metric(splitting))


@pytest.mark.parametrize("relaxation", [0.5, 1.0, 1.3])
def test_relaxed_davis_yin_converges(relaxation: float) -> None:
    w, total = draw(8, 5)
    case = SPLITTINGS["davis_yin"]
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-9, 0.0, 5000), relaxation=relaxation)
    solution = il2o.solve(case.make(w, total), torch.zeros_like(w), solver=solver)
    assert case.solution is not None
    torch.testing.assert_close(solution.x, case.solution(w, total), atol=1e-6, rtol=0)


def random_qp(n: int, m: int, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    R = rng.normal(size=(n, n))
    Q = R @ R.T / n + 0.1 * np.eye(n)
    A = rng.normal(size=(m, n))
    return Q, rng.normal(size=n), A, A @ rng.uniform(0.1, 1.0, n)


def clarabel_qp(Q: np.ndarray, c: np.ndarray, A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """min x.Q x / 2 + c.x over {A x = b, x >= 0} by an interior-point method."""
    n, m = len(c), len(b)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    rows = scipy.sparse.csc_matrix(np.vstack([A, -np.eye(n)]))
    cones = [clarabel.ZeroConeT(m), clarabel.NonnegativeConeT(n)]
    P = scipy.sparse.csc_matrix(np.triu(Q))
    return np.array(clarabel.DefaultSolver(P, c, rows, np.concatenate([b, np.zeros(n)]), cones, settings).solve().x)


@given(n=st.integers(2, 8), m=st.integers(1, 2), seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_fixed_points_solve_the_quadratic_program(n: int, m: int, seed: int) -> None:
    """`Fix T` = the solutions, for three splittings of one problem, against an interior-point solver."""
    Q, c, A, b = random_qp(n, min(m, n - 1), seed)
    expected = torch.from_numpy(clarabel_qp(Q, c, A, b))
    At, bt = torch.from_numpy(A), torch.from_numpy(b)
    F = il2o.QuadraticCost(linear=torch.from_numpy(c), matrix=torch.from_numpy(Q))
    K = il2o.Matrix(At)
    point = il2o.Box(lower=bt, upper=bt)
    splittings = [
        il2o.DavisYin(il2o.Problem(F=F, g=il2o.NonnegativeOrthant(), h=il2o.AffineSet(At, bt))),
        il2o.CondatVu(il2o.Problem(F=F, g=il2o.NonnegativeOrthant(), K=K, l=point)),
        il2o.LinearizedADMM(il2o.Problem(F=F, g=il2o.NonnegativeOrthant(), K=K, l=point)),
    ]
    for splitting in splittings:
        solver = il2o.Anderson(il2o.Stopping(atol=1e-9, rtol=0.0, max_steps=20_000))
        solution = il2o.solve(splitting, torch.zeros(1, n, dtype=torch.float64), solver=solver)
        torch.testing.assert_close(solution.x[0], expected, atol=2e-5, rtol=1e-5)
        assert (solution.x >= -1e-9).all()
        # And the converse: T leaves its fixed point where it is.
        torch.testing.assert_close(splitting(solution.z), solution.z, atol=1e-8, rtol=0)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_douglas_rachford_solves_basis_pursuit(seed: int) -> None:
    """min |x|_1 over {A x = b}, against HiGHS on the linear program in (x+, x-)."""
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(3, 7)), rng.normal(size=3)
    truth = linprog(np.ones(14), A_eq=np.hstack([A, -A]), b_eq=b, method="highs")
    problem = il2o.Problem(g=il2o.L1Norm(), h=il2o.AffineSet(torch.from_numpy(A), torch.from_numpy(b)))
    solution = il2o.solve(il2o.DouglasRachford(problem), torch.zeros(1, 7, dtype=torch.float64), solver=TIGHT)
    assert float(problem.objective(solution.x)) == pytest.approx(truth.fun, abs=1e-6)
    assert float(problem.violation(solution.x)) < 1e-7


def test_proximal_gradient_satisfies_the_optimality_condition_of_the_lasso() -> None:
    A = il2o.Matrix(torch.randn(6, 9, dtype=torch.float64))
    b = torch.randn(4, 6, dtype=torch.float64)
    problem = il2o.Problem(F=il2o.LeastSquares(A, b), g=il2o.L1Norm(0.5))
    x = il2o.solve(il2o.ForwardBackward(problem), torch.zeros(4, 9, dtype=torch.float64), solver=TIGHT).x
    slope = -A.adjoint(A.apply(x) - b)  # in 0.5 * subdifferential of |x|_1
    assert (slope.abs() <= 0.5 + 1e-7).all()
    active = x.abs() > 1e-7
    assert active.any()
    torch.testing.assert_close(slope[active], 0.5 * x[active].sign(), atol=1e-7, rtol=0)


def test_condat_vu_satisfies_the_optimality_condition_of_total_variation() -> None:
    noisy = torch.randn(2, 1, 5, 6, dtype=torch.float64)
    K = il2o.FiniteDifferences2D((1, 5, 6))
    problem = il2o.Problem(F=il2o.QuadraticCost(linear=-noisy, diagonal=1.0), K=K, l=il2o.L1Norm(0.3))
    solutions = [
        il2o.solve(make(problem), torch.zeros_like(noisy), solver=TIGHT).x
        for make in (il2o.CondatVu, il2o.LinearizedADMM)
    ]
    torch.testing.assert_close(solutions[0], solutions[1], atol=1e-7, rtol=0)
    objective = problem.objective(solutions[0])
    for _ in range(50):
        assert (problem.objective(solutions[0] + 0.01 * torch.randn_like(noisy)) >= objective).all()


@given(seed=st.integers(0, 10_000), step=st.floats(0.05, 1.9), gamma=st.floats(0.1, 1.0))
@settings(max_examples=40)
def test_the_jacobian_of_davis_yin_is_the_closed_form_and_its_norm_obeys_the_bound(seed, step, gamma) -> None:
    """`dT/dz = Q1 Q2 + (1 - step gamma) P1 P2`, `P1`, `P2` onto null(A) and the support of z (TMLR 2024, theorem 5).

    Its norm is at most `max(cos tau, |1 - step gamma|)`, `tau` the first principal angle of the complements.
    """
    rng = np.random.default_rng(seed)
    n, m = 7, 3
    A = torch.from_numpy(rng.normal(size=(m, n)))
    z = torch.from_numpy(rng.normal(size=n))
    cost = il2o.QuadraticCost(linear=torch.from_numpy(rng.normal(size=n)), diagonal=gamma)
    h = il2o.AffineSet(A, torch.from_numpy(rng.normal(size=m)))
    T = il2o.DavisYin(il2o.Problem(F=cost, g=il2o.NonnegativeOrthant(), h=h), step=step)
    J = torch.autograd.functional.jacobian(lambda u: T(u[None])[0], z)
    eye = torch.eye(n, dtype=torch.float64)
    P1 = eye - torch.linalg.pinv(A) @ A
    P2 = torch.diag((z > 0).double())
    closed = (eye - P1) @ (eye - P2) + (1 - step * gamma) * P1 @ P2
    torch.testing.assert_close(J, closed, atol=1e-12, rtol=0)
    cos_tau = float(torch.linalg.matrix_norm((eye - P1) @ (eye - P2), 2))
    assert float(torch.linalg.matrix_norm(J, 2)) <= max(cos_tau, abs(1 - step * gamma)) + 1e-12


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30)
def test_davis_yin_distance_to_the_second_set_is_at_most_the_residual(seed: int) -> None:
    """At any point, converged or not."""
    rng = np.random.default_rng(seed)
    h = il2o.AffineSet(torch.from_numpy(rng.normal(size=(2, 6))), torch.from_numpy(rng.normal(size=2)))
    cost = il2o.QuadraticCost(linear=torch.from_numpy(rng.normal(size=6)), diagonal=1.0)
    T = il2o.DavisYin(il2o.Problem(F=cost, g=il2o.Box(0.0, 1.0), h=h))
    z = torch.from_numpy(10 ** rng.uniform(-3, 3) * rng.normal(size=(5, 6)))
    assert (h.violation(T.readout(z)) <= (T(z) - z).norm(dim=-1) * (1 + 1e-12) + 1e-12).all()


class TestInfeasible:
    @pytest.mark.parametrize("name", [name for name, case in SPLITTINGS.items() if case.constrained])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_is_found_in_its_sample_only(self, name: str, dtype: torch.dtype) -> None:
        w, total = (t.to(dtype) for t in draw(4, 6))
        total[2] = -3.0
        solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-5, 0.0, 500))
        with pytest.warns(
            il2o.ConvergenceWarning, match="sample 2: INFEASIBLE: the constraint sets have no common point"
        ):
            solution = il2o.solve(SPLITTINGS[name].make(w, total), torch.zeros_like(w), solver=solver)
        assert solution.status.tolist() == [1, 1, il2o.Status.INFEASIBLE, 1]

    @pytest.mark.parametrize("step", [1e-4, 1e-2])
    def test_is_not_claimed_of_a_problem_that_is_merely_slow(self, step: float) -> None:
        """A tiny step moves z at a constant pace for very long: that alone must not look like a proof."""
        h = il2o.AffineSet(torch.ones(1, 3, dtype=torch.float64), torch.tensor([100.0], dtype=torch.float64))
        cost = il2o.QuadraticCost(linear=torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64), diagonal=1e-3)
        T = il2o.DavisYin(il2o.Problem(F=cost, g=il2o.NonnegativeOrthant(), h=h), step=step)
        for steps in (1, 3, 10, 100, 1000):
            solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-9, 0.0, steps))
            status = il2o.solve(T, torch.zeros(1, 3, dtype=torch.float64), solver=solver, on_failure="ignore").status
            assert status == il2o.Status.MAX_STEPS

    @given(seed=st.integers(0, 100_000))
    @settings(max_examples=60)
    def test_is_not_claimed_of_feasible_polyhedra(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n, m = int(rng.integers(2, 9)), int(rng.integers(1, 4))
        A = rng.normal(size=(m, n)) * 10 ** rng.uniform(-2, 2, size=(m, 1))
        inside = rng.uniform(0, 1, n) * (rng.uniform(size=n) < 0.5)  # often on the boundary
        h = il2o.AffineSet(torch.from_numpy(A), torch.from_numpy(A @ inside))
        cost = il2o.QuadraticCost(linear=torch.from_numpy(100 * rng.normal(size=n)), diagonal=1.0)
        T = il2o.DavisYin(il2o.Problem(F=cost, g=il2o.Box(0.0, 1.0), h=h))
        solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-10, 0.0, int(rng.integers(1, 300))))
        status = il2o.solve(T, torch.zeros(1, n, dtype=torch.float64), solver=solver, on_failure="ignore").status
        assert status in (il2o.Status.MAX_STEPS, il2o.Status.CONVERGED)


class TestSteps:
    def problem(self, lipschitz: float = 4.0) -> il2o.Problem:
        return il2o.Problem(F=il2o.QuadraticCost(diagonal=lipschitz), g=il2o.Box(0.0, 1.0))

    @pytest.mark.parametrize("make", [il2o.DavisYin, il2o.ForwardBackward])
    def test_auto_is_safe_and_scales_with_the_curvature(self, make) -> None:
        for lipschitz in (1e-3, 1.0, 1e3):
            assert make(self.problem(lipschitz)).step_size == pytest.approx(1 / lipschitz)
        assert make(il2o.Problem(F=il2o.LinearCost(torch.ones(3)))).step_size == 1.0

    def test_auto_is_per_sample_where_the_curvature_is(self) -> None:
        diagonal = torch.tensor([[1.0, 2.0], [0.5, 0.1]])
        splitting = il2o.DavisYin(il2o.Problem(F=il2o.QuadraticCost(diagonal=diagonal)))
        torch.testing.assert_close(splitting.step_size, torch.tensor([0.5, 2.0]))
        torch.testing.assert_close(splitting.restrict(torch.tensor([1])).step_size, torch.tensor([2.0]))

    @pytest.mark.bad_input
    @pytest.mark.parametrize("make", [il2o.DavisYin, il2o.ForwardBackward])
    def test_a_step_outside_the_range_states_it(self, make) -> None:
        with pytest.raises(ValueError, match=rf"{make.__name__} needs 0 < step < 2/L = 4; got step=5\."):
            make(self.problem(0.5), step=5.0)
        for step in (0.0, -1.0, math.nan):
            with pytest.raises(ValueError, match=r"needs 0 < step < 2/L = 0\.5"):
                make(self.problem(), step=step)
        with pytest.raises(ValueError, match="sample 1"):
            make(self.problem(), step=torch.tensor([0.1, 0.9]))
        with pytest.raises(ValueError, match='"auto"'):
            make(self.problem(), step="safe")

    @pytest.mark.bad_input
    def test_primal_dual_steps_outside_the_range_state_it(self) -> None:
        problem = il2o.Problem(F=il2o.QuadraticCost(diagonal=2.0), K=il2o.Matrix(torch.eye(3)), l=il2o.L1Norm())
        for make in (il2o.CondatVu, il2o.LinearizedADMM):
            with pytest.raises(
                ValueError, match=r"needs 0 < step < 1/\(L/2 \+ dual_step \|K\|\^2\) = 0.5; got step=0.6"
            ):
                make(problem, step=0.6, dual_step=1.0)
            with pytest.raises(ValueError, match="needs 0 < dual_step < inf; got dual_step=-1"):
                make(problem, dual_step=-1.0)
        with pytest.raises(ValueError, match=r"0 < inner_step <= 1/dual_step = 0.5; got inner_step=0.7"):
            il2o.LinearizedADMM(problem, dual_step=2.0, inner_step=0.7)
        with pytest.raises(ValueError, match="DouglasRachford needs 0 < step < inf; got step=-1"):
            il2o.DouglasRachford(il2o.Problem(g=il2o.Box(0.0)), step=-1.0)

    @pytest.mark.bad_input
    def test_a_relaxation_outside_the_range_states_it(self) -> None:
        solver = il2o.KrasnoselskiiMann(relaxation=1.8)
        with pytest.raises(
            ValueError, match=r"DavisYin .* 0 < relaxation < 1.5; got relaxation=1.8 in KrasnoselskiiMann"
        ):
            il2o.solve(il2o.DavisYin(self.problem()), torch.zeros(1, 2), solver=solver)
        gentle = il2o.DavisYin(self.problem(), step=0.05)
        assert il2o.solve(gentle, torch.zeros(1, 2), solver=solver).converged.all()


@pytest.mark.bad_input
class TestBadProblems:
    def test_terms_a_splitting_does_not_take(self) -> None:
        K, box = il2o.Matrix(torch.eye(2)), il2o.Box(0.0)
        with pytest.raises(ValueError, match="DavisYin takes no K or l"):
            il2o.DavisYin(il2o.Problem(g=box, K=K, l=box))
        with pytest.raises(ValueError, match="DouglasRachford takes no F"):
            il2o.DouglasRachford(il2o.Problem(F=il2o.QuadraticCost(diagonal=1.0), g=box))
        with pytest.raises(ValueError, match="ForwardBackward takes no h"):
            il2o.ForwardBackward(il2o.Problem(g=box, h=box))
        for make in (il2o.CondatVu, il2o.LinearizedADMM):
            with pytest.raises(ValueError, match="needs K and l"):
                make(il2o.Problem(g=box))

    def test_a_game_without_cocoercivity(self) -> None:
        class Rotation(il2o.AbstractMonotone):
            lipschitz = 1.0
            cocoercivity = None

            def apply(self, x: Tensor) -> Tensor:
                return torch.stack([-x[:, 1], x[:, 0]], -1)

        for make in (il2o.DavisYin, il2o.ForwardBackward):
            with pytest.raises(ValueError, match=r"F = Rotation, which states no cocoercivity"):
                make(il2o.Problem(F=Rotation(), g=il2o.Box(0.0)))

    def test_problem_terms_of_the_wrong_kind(self) -> None:
        with pytest.raises(TypeError, match=r"Problem.F must be an AbstractMonotone or None; got Box"):
            il2o.Problem(F=il2o.Box(0.0))
        with pytest.raises(ValueError, match="K and l together"):
            il2o.Problem(K=il2o.Matrix(torch.eye(2)))
        with pytest.raises(TypeError, match="Z"):
            il2o.Problem(Z=il2o.Box(0.0))

    @pytest.mark.parametrize(
        ("linear", "message"),
        [
            (
                torch.zeros(3, 5),
                r"linear has shape \(3, 5\): its first dimension is the batch and must be 1 or B=2",
            ),
            (torch.zeros(2, 4), r"problem.F.linear of shape \(2, 4\) does not broadcast to x of shape \(2, 5\)"),
            (torch.zeros(2, 5, dtype=torch.float64), r"problem.F.linear is torch.float64 but x is torch.float32"),
            (torch.zeros(2, 1, 5), r"with two or more dimensions a parameter carries the batch first"),
        ],
    )
    def test_parameters_that_do_not_fit_the_batch(self, linear: Tensor, message: str) -> None:
        T = il2o.DavisYin(il2o.Problem(F=il2o.QuadraticCost(linear=linear, diagonal=1.0), g=il2o.Box(0.0)))
        with pytest.raises(ValueError, match=message):
            il2o.solve(T, torch.zeros(2, 5))

    def test_an_operator_of_another_size(self) -> None:
        K = il2o.Matrix(torch.ones(2, 4))
        with pytest.raises(ValueError, match=r"problem.K acts on samples of shape \(4,\); got x of shape \(2, 5\)"):
            il2o.solve(il2o.CondatVu(il2o.Problem(K=K, l=il2o.L1Norm())), torch.zeros(2, 5))


def test_spoiled_samples_of_a_float32_batch_leave_the_others() -> None:
    w, total = spoil(*draw(6, 4), infeasible=True)
    clean, _ = draw(6, 4)
    case = SPLITTINGS["davis_yin"]
    x = il2o.solve(case.make(w, total), torch.zeros_like(w), on_failure="ignore").x
    y = il2o.solve(case.make(clean, draw(6, 4)[1]), torch.zeros_like(w)).x
    torch.testing.assert_close(x[2:], y[2:], rtol=1e-12, atol=1e-12)
