"""Games in the core: entropy, the splittings without cocoercivity, variational inequalities, Minkowski sums, learned F."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import implicit_l2o as il2o
import oracles
from cases import Rotation, draw, rotation_solution
from implicit_l2o import games, networks
from implicit_l2o.testing import check_monotone, check_smooth, check_splitting

TIGHT = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-10, rtol=0.0, max_steps=20_000))


@dataclass(frozen=True, eq=False)
class Boastful(il2o.AbstractMonotone):
    """A game that states a cocoercivity it has not."""

    inner: il2o.AbstractMonotone

    @property
    def lipschitz(self) -> float:
        lipschitz = self.inner.lipschitz
        assert isinstance(lipschitz, float)
        return lipschitz

    @property
    def cocoercivity(self) -> float:
        return 1.0 / self.lipschitz

    def apply(self, x: Tensor) -> Tensor:
        return self.inner.apply(x)


def strategies(m: int, n: int) -> il2o.ProductSet:
    return il2o.ProductSet((il2o.Simplex(), il2o.Simplex()), sizes=(m, n))


def sums(m: int, n: int) -> il2o.AffineSet:
    rows = torch.zeros(2, m + n, dtype=torch.float64)
    rows[0, :m] = 1.0
    rows[1, m:] = 1.0
    return il2o.AffineSet(rows, torch.ones(2, dtype=torch.float64))


class TestEntropy:
    @given(seed=st.integers(0, 1000), n=st.integers(1, 6), scale=st.floats(0.01, 100.0))
    @settings(max_examples=25)
    def test_moreau_with_an_independent_conjugate(self, seed: int, n: int, scale: float) -> None:
        """`x = prox_{s g}(x) + s prox_{g*/s}(x / s)`, `g*` log-sum-exp, its prox by a general minimiser."""
        rng = np.random.default_rng(seed)
        x, temperature, step = scale * rng.normal(size=n), float(rng.uniform(0.2, 2.0)), float(rng.uniform(0.2, 2.0))

        def objective(y: np.ndarray) -> tuple[float, np.ndarray]:
            top = y.max() / temperature
            e = np.exp(y / temperature - top)
            value = temperature * (np.log(e.sum()) + top) + step * ((y - x / step) ** 2).sum() / 2
            return value, e / e.sum() + step * (y - x / step)

        dual = scipy.optimize.minimize(objective, x / step, jac=True, method="BFGS", options={"gtol": 1e-10}).x
        y = il2o.EntropicSimplex(temperature).prox(torch.from_numpy(x)[None], step)[0].numpy()
        np.testing.assert_allclose(y + step * dual, x, atol=1e-5 * max(1.0, scale))

    @given(seed=st.integers(0, 1000), exponent=st.floats(-8, 4), size=st.floats(-3, 6))
    @settings(max_examples=60)
    def test_the_equation_is_solved_to_rounding_at_any_scale(self, seed: int, exponent: float, size: float) -> None:
        x = 10**size * torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        a = 10**exponent
        y = il2o.EntropicSimplex(a).prox(x, 1.0)
        torch.testing.assert_close(y.sum(-1), torch.ones(4, dtype=torch.float64), rtol=1e-12, atol=0)
        assert (y >= 0).all()
        multiplier = x - y - a * y.clamp(min=1e-300).log()
        seen = y > 1e-200
        spread = torch.where(seen, multiplier, -math.inf).amax(-1) - torch.where(seen, multiplier, math.inf).amin(-1)
        assert (spread <= 1e-11 * (1 + x.abs().amax(-1) + a * 500)).all()

    def test_hot_is_uniform_and_cold_is_the_projection(self) -> None:
        x = torch.randn(3, 5, dtype=torch.float64)
        torch.testing.assert_close(il2o.EntropicSimplex(1e9).prox(x, 1.0), torch.full_like(x, 0.2), atol=1e-8, rtol=0)
        torch.testing.assert_close(
            il2o.EntropicSimplex(1e-9).prox(x, 1.0), il2o.Simplex().project(x), atol=1e-7, rtol=0
        )

    def test_the_logit_map_minimises_cost_and_entropy(self) -> None:
        """`softmax(-c/t) = argmin <c, x> + g(x)`: the forward-backward method finds it."""
        c = torch.randn(4, 6, dtype=torch.float64)
        problem = il2o.Problem(F=il2o.LinearCost(c), g=il2o.EntropicSimplex(0.7))
        x = il2o.solve(il2o.ForwardBackward(problem), torch.full_like(c, 1 / 6), solver=TIGHT).x
        torch.testing.assert_close(x, il2o.Logit(0.7).apply(-c), atol=1e-8, rtol=0)
        # And Fenchel-Young: g(x) + g*(-c) = -<c, x> there.
        gap = il2o.EntropicSimplex(0.7).value(x) + il2o.Logit(0.7).value(-c) + (c * x).sum(-1)
        assert (gap.abs() < 1e-8).all()

    def test_values(self) -> None:
        entropy = il2o.EntropicSimplex(2.0)
        assert entropy.value(torch.tensor([[0.5, 0.5], [1.0, 0.0], [1.5, -0.5]])).tolist() == pytest.approx(
            [-2 * math.log(2), 0.0, math.inf]
        )

    @pytest.mark.bad_input
    def test_bad_values_are_named(self) -> None:
        with pytest.raises(ValueError, match=r"EntropicSimplex.temperature must be > 0; got 0"):
            il2o.EntropicSimplex(0.0)
        with pytest.raises(ValueError, match=r"EntropicSimplex.total must be > 0; got -1"):
            il2o.EntropicSimplex(total=-1.0)
        with pytest.raises(ValueError, match=r"Logit.temperature must be > 0; got -2"):
            il2o.Logit(-2.0)
        x = torch.zeros(2, 3)
        assert il2o.EntropicSimplex(torch.tensor([1.0, -1.0])).prox(x, 1.0).isnan().any(1).tolist() == [False, True]
        with pytest.raises(ValueError, match=r"shape \(m, n\) or \(B, m, n\); got \(3,\)"):
            il2o.BilinearGame(torch.zeros(3))
        with pytest.raises(ValueError, match=r"m \+ n = 5 entries; got 4"):
            il2o.BilinearGame(torch.zeros(2, 3)).apply(torch.zeros(1, 4))
        with pytest.raises(TypeError, match=r"MonotoneSum.terms\[0\] must be an AbstractMonotone; got a Simplex"):
            il2o.MonotoneSum((il2o.Simplex(),))  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="at least one term"):
            il2o.MonotoneSum(())


def value_of_game(A: np.ndarray) -> float:
    """Of `min_u max_v u.A v` on simplices, by a linear program."""
    m, n = A.shape
    bounds = [(0, None)] * m + [(None, None)]
    answer = scipy.optimize.linprog(
        np.r_[np.zeros(m), 1.0],
        A_ub=np.hstack([A.T, -np.ones((n, 1))]),
        b_ub=np.zeros(n),
        A_eq=np.r_[np.ones(m), 0.0][None],
        b_eq=[1.0],
        bounds=bounds,
    )
    return float(answer.fun)


class TestSplittings:
    @given(seed=st.integers(0, 1000), m=st.integers(2, 5), n=st.integers(2, 5))
    @settings(max_examples=5)
    def test_matrix_games_are_solved_by_both(self, seed: int, m: int, n: int) -> None:
        """The equilibrium need not be unique: neither player can gain, by the value of a linear program."""
        A = torch.randn(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        F, value = il2o.BilinearGame(A), value_of_game(A.numpy())
        start = torch.cat([torch.eye(m, dtype=torch.float64)[:1], torch.eye(n, dtype=torch.float64)[:1]], 1)
        for game in (
            il2o.ForwardBackwardForward(il2o.Problem(F=F, g=strategies(m, n))),
            il2o.CombettesPesquet(il2o.Problem(F=F, g=il2o.NonnegativeOrthant(), h=sums(m, n))),
        ):
            solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-8, 0.0, 200_000, check_every=50))
            u, v = il2o.solve(game, start, solver=solver).x.split((m, n), -1)
            assert float((A @ v[0]).min()) == pytest.approx(value, abs=1e-5)
            assert float((A.T @ u[0]).max()) == pytest.approx(value, abs=1e-5)

    @pytest.mark.bad_input
    def test_those_that_need_cocoercivity_refuse_a_game(self) -> None:
        F = il2o.BilinearGame(torch.eye(2))
        for make, problem in (
            (il2o.ForwardBackward, il2o.Problem(F=F, g=strategies(2, 2))),
            (il2o.DavisYin, il2o.Problem(F=F, g=il2o.NonnegativeOrthant(), h=strategies(2, 2))),
        ):
            with pytest.raises(ValueError, match="F = BilinearGame, which states no cocoercivity"):
                make(problem)

    def test_those_that_need_cocoercivity_fail_on_a_game_where_these_converge(self) -> None:
        """Matching pennies with a false statement: they end further from the equilibrium than they started."""
        F = Boastful(il2o.BilinearGame(torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)))
        rest = torch.full((1, 4), 0.5, dtype=torch.float64)
        start = torch.tensor([[0.6, 0.4, 0.5, 0.5]], dtype=torch.float64)
        whole, halves = il2o.Problem(F=F, g=strategies(2, 2)), il2o.Problem(F=F, g=il2o.Box(lower=0.0), h=sums(2, 2))
        solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-8, 0.0, 2000))

        def distance(splitting: il2o.AbstractSplitting) -> float:
            return float((il2o.solve(splitting, start, solver=solver, on_failure="ignore").x - rest).norm())

        away = float((start - rest).norm())
        assert distance(il2o.ForwardBackward(whole)) > 1.2 * away
        assert distance(il2o.DavisYin(halves)) > 1.2 * away
        assert distance(il2o.ForwardBackwardForward(whole)) < 1e-6
        assert distance(il2o.CombettesPesquet(halves)) < 1e-6

    @pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
    def test_every_step_and_every_stated_relaxation_converges(self, share: float) -> None:
        w, _ = draw(6, 5)
        problem = il2o.Problem(F=Rotation(w), g=il2o.NonnegativeOrthant())
        for T in (
            il2o.ForwardBackwardForward(problem, step=share / 2**0.5),
            il2o.CombettesPesquet(problem, step=share * 2 / (2**0.5 + 10**0.5), dual_scale=2**0.5),
        ):
            limit = 1 / T.averagedness
            assert limit == pytest.approx(2 / (1 + share), rel=1e-6)
            for relaxation in (0.5, 0.98 * limit):
                solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-9, 0.0, 20_000), relaxation=relaxation)
                x = il2o.solve(T, torch.zeros_like(w), solver=solver).x
                torch.testing.assert_close(x, rotation_solution(w), atol=1e-7, rtol=0)

    def test_tsengs_map_is_averaged_between_all_points_for_an_affine_F_only(self) -> None:
        game = il2o.BilinearGame(torch.randn(2, 3, dtype=torch.float64))
        T = il2o.ForwardBackwardForward(il2o.Problem(F=game, g=strategies(2, 3)))
        check_splitting(T, torch.randn(2000, 5, dtype=torch.float64))

        class Bent(il2o.AbstractMonotone):
            """Its Jacobian has eigenvalues 0 and 1 in its symmetric part, on one side of a kink."""

            lipschitz = (1 + 2**0.5) / 2
            cocoercivity = None

            def apply(self, x: Tensor) -> Tensor:
                u, v = x.unbind(-1)
                return torch.stack([u / 2 + v.clamp(min=0), v / 2 - 1], -1)

        T = il2o.ForwardBackwardForward(il2o.Problem(F=Bent()), step=0.6)
        z = torch.tensor([[0.0, -0.1]], dtype=torch.float64)
        J = torch.autograd.functional.jacobian(lambda z: T(z[None])[0], z[0])
        assert torch.linalg.matrix_norm(J, 2) > 1.02
        rest = il2o.solve(T, z, solver=TIGHT).z
        check_splitting(T, torch.randn(2000, 2, dtype=torch.float64), fixed_point=rest)

    @pytest.mark.bad_input
    def test_steps_outside_the_range_state_it(self) -> None:
        problem = il2o.Problem(F=il2o.BilinearGame(torch.tensor([[2.0]])), g=il2o.Box(0.0, 1.0))
        with pytest.raises(ValueError, match=r"ForwardBackwardForward needs 0 < step < 1/L = 0\.5; got step=0\.6"):
            il2o.ForwardBackwardForward(problem, step=0.6)
        for step in (0.0, -1.0, math.nan):
            with pytest.raises(ValueError, match=r"0 < step < 1/L"):
                il2o.ForwardBackwardForward(problem, step=step)
        limit = 2 / (2 + math.sqrt(4 + 4))
        with pytest.raises(ValueError, match=rf"dual_scale\^2\)\) = {limit:.5f}.*; got step=0\.5"):
            il2o.CombettesPesquet(problem, step=0.5, dual_scale=1.0)
        with pytest.raises(ValueError, match="0 < dual_scale < inf; got dual_scale=-1"):
            il2o.CombettesPesquet(problem, dual_scale=-1.0)
        for make in (il2o.ForwardBackwardForward, il2o.CombettesPesquet):
            with pytest.raises(ValueError, match='"auto"'):
                make(problem, step="fast")
            with pytest.raises(ValueError, match=f"{make.__name__} takes no K or l"):
                make(il2o.Problem(K=il2o.Matrix(torch.eye(2)), l=il2o.L1Norm()))
        with pytest.raises(ValueError, match='dual_scale or "auto"'):
            il2o.CombettesPesquet(problem, dual_scale="fast")
        with pytest.raises(ValueError, match="ForwardBackwardForward takes no h"):
            il2o.ForwardBackwardForward(il2o.Problem(g=il2o.Free(), h=il2o.Free()))
        solver = il2o.KrasnoselskiiMann(relaxation=1.8)
        with pytest.raises(ValueError, match=r"ForwardBackwardForward .* 0 < relaxation < 1\.1715"):
            il2o.solve(il2o.ForwardBackwardForward(problem), torch.zeros(1, 2), solver=solver)

        class Unknown(Rotation):
            lipschitz = None  # pyright: ignore[reportAssignmentType]

        with pytest.raises(ValueError, match="states no Lipschitz constant"):
            il2o.ForwardBackwardForward(il2o.Problem(F=Unknown(torch.zeros(2), lipschitz=None)))  # pyright: ignore[reportArgumentType]

    def test_without_a_game_they_are_what_they_should_be(self) -> None:
        """No F: a prox, and a splitting of two sets; one player's cost: the minimiser."""
        x = torch.randn(3, 4, dtype=torch.float64)
        project = il2o.ForwardBackwardForward(il2o.Problem(g=il2o.Simplex()))
        torch.testing.assert_close(il2o.solve(project, x).x, il2o.Simplex().project(x))
        rows, total = torch.ones(1, 4, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        sets = il2o.Problem(g=il2o.NonnegativeOrthant(), h=il2o.AffineSet(rows, total))
        found = il2o.solve(il2o.CombettesPesquet(sets), x, solver=TIGHT).x
        assert (il2o.Simplex().violation(found) < 1e-8).all()
        cost = il2o.QuadraticCost(linear=x, diagonal=1.0)
        for scale in ("auto", 0.3, 3.0):
            T = il2o.CombettesPesquet(il2o.Problem(F=cost, g=sets.g, h=sets.h), dual_scale=scale)
            expected = np.stack([oracles.simplex(-row, 1.0) for row in x.numpy()])
            np.testing.assert_allclose(il2o.solve(T, x, solver=TIGHT).x.numpy(), expected, atol=1e-7)


@dataclass(frozen=True, eq=False)
class Unscaled(il2o.AbstractMonotone):
    """A block sum that states the constant of its inner map: what a careless user would take."""

    inner: games.BlockSum

    @property
    def lipschitz(self):
        return self.inner.inner.lipschitz

    @property
    def cocoercivity(self):
        return self.inner.inner.cocoercivity

    def apply(self, x: Tensor) -> Tensor:
        return self.inner.apply(x)


class TestVariationalInequalities:
    @given(seed=st.integers(0, 1000))
    @settings(max_examples=10)
    def test_cournot_oligopoly_has_its_closed_form(self, seed: int) -> None:
        """Price `a - b sum q`, costs `c_k q_k`: `q_k = (a - (n + 1) c_k + sum c) / (b (n + 1))` where all are active."""
        rng = np.random.default_rng(seed)
        n, a, b = int(rng.integers(2, 6)), 10.0, float(rng.uniform(0.5, 2.0))
        c = torch.from_numpy(rng.uniform(0.0, 1.0, n))
        slope = b * (torch.eye(n, dtype=torch.float64) + torch.ones(n, n, dtype=torch.float64))
        F = il2o.QuadraticCost(linear=c - a, matrix=slope)
        problem = games.game(F, [games.Player(1, il2o.NonnegativeOrthant())] * n)
        x = il2o.solve(games.splitting_of(problem), torch.zeros(1, n, dtype=torch.float64), solver=TIGHT).x
        torch.testing.assert_close(x[0], (a - (n + 1) * c + c.sum()) / (b * (n + 1)), atol=1e-8, rtol=0)
        assert (games.natural_residual(problem, x) < 1e-8).all()
        assert (games.natural_residual(problem, x + 0.1) > 1e-2).all()

    def test_the_splitting_is_the_one_that_the_problem_allows(self) -> None:
        rotation, cost = il2o.BilinearGame(torch.eye(2)), il2o.QuadraticCost(diagonal=1.0)
        box = il2o.Box(0.0, 1.0)
        for F, h, kind in (
            (cost, None, il2o.ForwardBackward),
            (cost, box, il2o.DavisYin),
            (rotation, None, il2o.ForwardBackwardForward),
            (rotation, box, il2o.CombettesPesquet),
        ):
            assert isinstance(games.splitting_of(il2o.Problem(F=F, g=box, h=h)), kind)

    def test_players_with_two_sets_and_with_entropy(self) -> None:
        """Capped simplices as intersections, and the same game as one with the caps as `inside`."""
        A = torch.randn(3, 4, dtype=torch.float64)
        rows = [
            il2o.AffineSet(torch.ones(1, k, dtype=torch.float64), torch.ones(1, dtype=torch.float64)) for k in (3, 4)
        ]
        F = il2o.MonotoneSum((il2o.BilinearGame(A), il2o.QuadraticCost(diagonal=0.5)))
        one = games.game(F, [games.Player(k, il2o.Box(0.0, 0.6), row) for k, row in zip((3, 4), rows, strict=True)])
        two = games.game(F, [games.Player(k, row, il2o.Box(0.0, 0.6)) for k, row in zip((3, 4), rows, strict=True)])
        start = torch.zeros(1, 7, dtype=torch.float64)
        x, y = (il2o.solve(games.splitting_of(problem), start, solver=TIGHT).x for problem in (one, two))
        torch.testing.assert_close(x, y, atol=1e-7, rtol=0)
        assert isinstance(one.g, il2o.ProductSet)
        mixed = games.game(F, [games.Player(3, il2o.EntropicSimplex()), games.Player(4, il2o.Simplex())])
        assert isinstance(mixed.g, il2o.SeparableSum)
        assert mixed.h is None

    @pytest.mark.bad_input
    def test_bad_input_is_named(self) -> None:
        F = il2o.BilinearGame(torch.eye(2))
        with pytest.raises(ValueError, match="at least one player"):
            games.game(F, [])
        with pytest.raises(TypeError, match=r"Player.inside must be a set or a proximable function; got BilinearGame"):
            games.Player(2, F)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="F and g alone"):
            games.natural_residual(il2o.Problem(h=il2o.Free()), torch.zeros(1, 2))
        with pytest.raises(ValueError, match="0 < step < inf; got step=0"):
            games.natural_residual(il2o.Problem(), torch.zeros(1, 2), step=0.0)


class TestMinkowskiSums:
    @pytest.mark.parametrize("blocks", [1, 3, 10])
    def test_the_step_shrinks_with_the_blocks_and_one_beyond_it_diverges(self, blocks: int) -> None:
        F = il2o.QuadraticCost(linear=torch.tensor([1.0, -2.0], dtype=torch.float64), diagonal=0.5)  # beta = 2
        problem = games.minkowski_problem(F, [il2o.Free()] * blocks, shape=2)
        assert il2o.ForwardBackward(problem).step_size == pytest.approx(2 / blocks)
        with pytest.raises(ValueError, match=rf"0 < step < 2/L = {4 / blocks:.6g}"):
            il2o.ForwardBackward(problem, step=4.01 / blocks)
        start = torch.zeros(1, blocks, 2, dtype=torch.float64)
        solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-9, 0.0, 5000))
        v = il2o.solve(il2o.ForwardBackward(problem, step=3.9 / blocks), start, solver=solver).x.sum(1)
        torch.testing.assert_close(v, torch.tensor([[-2.0, 4.0]], dtype=torch.float64), atol=1e-7, rtol=0)
        # Beyond it, with a false constant, the blocks move together and away.
        assert isinstance(problem.F, games.BlockSum)
        careless = il2o.Problem(F=Unscaled(problem.F), g=problem.g)
        step = 4.1 / blocks
        far = il2o.solve(
            il2o.ForwardBackward(careless, step=min(step, 3.99)), start, solver=solver, on_failure="ignore"
        )
        assert far.converged.all() == (blocks == 1)

    def test_constants_are_attained_where_the_blocks_move_together(self) -> None:
        F = games.BlockSum(il2o.QuadraticCost(diagonal=2.0), blocks=4)
        x, y = torch.zeros(1, 4, 3), torch.ones(1, 4, 3)
        change = F.apply(y) - F.apply(x)
        assert float(change.norm()) == pytest.approx(F.lipschitz * float((y - x).norm()))
        assert float((change * (y - x)).sum()) == pytest.approx(F.cocoercivity * float(change.square().sum()))
        check_monotone(
            games.BlockSum(il2o.BilinearGame(torch.randn(3, 2, 2).double()), 5), torch.randn(3, 5, 4).double()
        )

    def test_two_groups_on_two_roads_are_the_projection_on_the_sum_of_their_sets(self) -> None:
        """`{(1, 0) t : 0 <= t <= 1} + {v >= 0, sum = 1}` written out as one polytope for an interior-point solver."""
        roads = [il2o.Box(0.0, torch.tensor([1.0, 0.0], dtype=torch.float64)), il2o.NonnegativeOrthant()]
        trips = [
            il2o.Free(),
            il2o.AffineSet(torch.ones(1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)),
        ]
        target = torch.randn(5, 2, dtype=torch.float64)
        problem = games.minkowski_problem(il2o.QuadraticCost(-target, 1.0), roads, trips, shape=2)
        v = il2o.solve(il2o.DavisYin(problem), torch.zeros(5, 2, 2, dtype=torch.float64), solver=TIGHT).x.sum(1)
        below = (
            np.array([[-1.0, 0.0], [0.0, -1.0], [-1.0, -1.0], [1.0, 1.0], [0.0, 1.0]]),
            np.array([0, 0, -1, 2, 1.0]),
        )
        expected = np.stack([oracles.project(row, below=below) for row in target.numpy()])
        np.testing.assert_allclose(v.numpy(), expected, atol=1e-6)

    @pytest.mark.bad_input
    def test_bad_input_is_named(self) -> None:
        F = il2o.QuadraticCost(diagonal=1.0)
        with pytest.raises(ValueError, match="blocks >= 1; got blocks=0"):
            games.BlockSum(F, 0)
        with pytest.raises(ValueError, match=r"shape \(B, 2, \*shape\); got \(1, 3, 4\)"):
            games.BlockSum(F, 2).apply(torch.zeros(1, 3, 4))
        with pytest.raises(ValueError, match="got 2 and 1"):
            games.minkowski_problem(F, [il2o.Free()] * 2, [il2o.Free()], shape=2)
        with pytest.raises(TypeError, match="AbstractMonotone; got Free"):
            games.BlockSum(il2o.Free(), 2)  # pyright: ignore[reportArgumentType]


class TestLearnedMaps:
    @pytest.mark.parametrize("contraction", [0.3, 1.0])
    def test_cocoercive_for_wild_weights_and_the_range_is_what_converges(self, contraction: float) -> None:
        net = networks.CocoerciveNet(
            networks.NonexpansiveNet((6, 20, 6), context=2), contraction=contraction, scale=3.0
        ).double()
        with torch.no_grad():
            for parameter in net.inner.weights:
                parameter.mul_(5.0)
        F = net.condition(torch.randn(50, 2, dtype=torch.float64))
        check_monotone(F, 3 * torch.randn(50, 6, dtype=torch.float64))
        assert float(F.cocoercivity) == pytest.approx(1 / (3 * (1 + contraction)))
        x, y = torch.randn(2, 50, 6, dtype=torch.float64)
        along = ((F.apply(x) - F.apply(y)) * (x - y)).sum(-1)
        assert (along >= float(F.strong_monotonicity) * (x - y).square().sum(-1) - 1e-12).all()
        problem = il2o.Problem(F=F, g=il2o.NonnegativeOrthant(), h=il2o.Simplex())
        limit = 2 / (3 * (1 + contraction))
        assert il2o.solve(il2o.DavisYin(problem, step=0.99 * limit), x, solver=il2o.Anderson()).converged.all()
        with pytest.raises(ValueError, match="DavisYin needs 0 < step < 2/L"):
            il2o.DavisYin(problem, step=1.01 * limit)
        net.condition(torch.randn(5, 2, dtype=torch.float64)).apply(x[:5]).sum().backward()
        assert net.log_scale.grad is not None

    @pytest.mark.parametrize("concave", [0, 3, 6])
    def test_increasing_functions_with_their_integrals_and_bounds(self, concave: int) -> None:
        scale = torch.tensor([1.0, 10.0, 100.0])
        net = networks.IncreasingNet(3, context=2, ramps=6, concave=concave, scale=scale, level=2.0).double()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
        d = torch.randn(4, 2, dtype=torch.float64)
        t = net.condition(d)
        v = 3 * scale.double() * torch.rand(4, 3, dtype=torch.float64)
        check_smooth(t, v)
        # The integral against quadrature, the slope against automatic differentiation.
        s = torch.linspace(0, 1, 4001, dtype=torch.float64)
        for e in range(3):
            line = torch.zeros(4001, 3, dtype=torch.float64)
            line[:, e] = s * v[1, e]
            area = torch.trapezoid(net.condition(d[1:2].expand(4001, 2)).apply(line)[:, e], line[:, e])
            torch.testing.assert_close(t.integral(v)[1, e], area, rtol=1e-4, atol=1e-5)
        point = v.clone().requires_grad_()
        (slope,) = torch.autograd.grad(t.apply(point).sum(), point)
        torch.testing.assert_close(t.slope(v), slope)
        assert (slope > 0).all()
        low, high = torch.zeros(3, dtype=torch.float64), 3 * scale.double()
        assert (t.slope(v) <= t.slope_bound(low, high) + 1e-12).all()
        assert (t.lipschitz_on(low, high) <= t.lipschitz + 1e-12).all()
        if concave in (0, 6):  # attained at an end
            end = (high if concave == 0 else low).expand(4, 3)
            torch.testing.assert_close(t.slope(end), t.slope_bound(low, high))

    def test_an_increasing_net_learns_the_latency_of_a_road(self) -> None:
        """`1 + 0.15 (v/c)^4` with a capacity that depends on the context, to a few per mille."""
        torch.manual_seed(0)
        net = networks.IncreasingNet(1, context=1, ramps=8, scale=1.0)
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-2)
        error = torch.tensor(1.0)
        for _ in range(600):
            d, v = torch.rand(256, 1) - 0.5, 2 * torch.rand(256, 1)
            truth = 1 + 0.15 * (v / (1 + 0.5 * d)) ** 4
            error = (net.condition(d).apply(v) / truth - 1).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
        assert float(error.detach().sqrt()) < 0.03

    @pytest.mark.bad_input
    def test_bad_input_is_named(self) -> None:
        inner = networks.NonexpansiveNet((2, 4, 2))
        for make, message in (
            (lambda: networks.CocoerciveNet(inner, contraction=1.5), "0 < contraction <= 1; got contraction=1.5"),
            (lambda: networks.CocoerciveNet(inner, scale=0.0), "0 < scale < inf; got scale=0.0"),
            (lambda: networks.CocoerciveNet(networks.NonexpansiveNet((2, 4))), "2 inputs and 4 outputs"),
            (lambda: networks.IncreasingNet(0), "entries >= 1 and ramps >= 1; got 0 and 8"),
            (lambda: networks.IncreasingNet(2, concave=9), "0 <= concave <= ramps = 8; got concave=9"),
            (lambda: networks.IncreasingNet(2, scale=-1.0), "scale > 0; got -1.0"),
            (lambda: networks.IncreasingNet(2).condition(torch.zeros(1, 2)), "built without context"),
            (lambda: networks.IncreasingNet(2).condition().slope_bound(1.0, 0.0), "lower <= upper"),
        ):
            with pytest.raises(ValueError, match=message):
                make()
