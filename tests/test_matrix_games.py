"""Matrix games with entropy: the exact equilibrium, the gap, and every way there."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import implicit_l2o as il2o
from implicit_l2o import games
from test_games import TIGHT, sums


class TestMatrixGames:
    @given(seed=st.integers(0, 1000), m=st.integers(1, 6), n=st.integers(1, 6), temperature=st.floats(0.05, 5.0))
    @settings(max_examples=30)
    def test_newton_finds_the_equilibrium_that_a_general_minimiser_finds(self, seed, m, n, temperature) -> None:
        """SciPy minimises the first player's convex problem in logits, with no code of the package."""
        A = np.random.default_rng(seed).normal(size=(m, n))
        answer = games.quantal_response_equilibrium(torch.from_numpy(A)[None], temperature=temperature)
        assert (answer.residual < 1e-10).all()

        def potential(y: np.ndarray) -> tuple[float, np.ndarray]:
            u = np.exp(y - scipy.special.logsumexp(y))
            earns = A.T @ u / temperature
            v = np.exp(earns - scipy.special.logsumexp(earns))
            slope = A @ v / temperature + np.log(u)
            return scipy.special.logsumexp(earns) + u @ np.log(u), u * (slope - u @ slope)

        y = scipy.optimize.minimize(potential, np.zeros(m), jac=True, method="BFGS", options={"gtol": 1e-12}).x
        u = scipy.special.softmax(y)
        np.testing.assert_allclose(answer.u[0].numpy(), u, atol=1e-5)
        np.testing.assert_allclose(answer.v[0].numpy(), scipy.special.softmax(A.T @ u / temperature), atol=1e-5)

    def test_every_way_to_the_equilibrium_agrees(self) -> None:
        """Newton, Tseng's method with the entropic prox, and the primal-dual one with entropy and simplices apart."""
        A = 2 * torch.randn(4, 3, 5, dtype=torch.float64)
        matrix = games.MatrixGame(A, temperature=0.5)
        exact = games.quantal_response_equilibrium(A, temperature=0.5)
        start = torch.cat([torch.full((4, 3), 1 / 3), torch.full((4, 5), 1 / 5)], 1).double()
        x = il2o.solve(il2o.ForwardBackwardForward(matrix.problem()), start, solver=TIGHT).x
        torch.testing.assert_close(x, exact.x, atol=1e-7, rtol=0)
        sums_of_players = sums(3, 5)
        apart = il2o.Problem(F=matrix.problem().F, g=matrix.problem().g, h=sums_of_players)
        y = il2o.solve(il2o.CombettesPesquet(apart), start, solver=TIGHT).x
        torch.testing.assert_close(y, exact.x, atol=1e-6, rtol=0)
        assert (matrix.gap(exact.x) < 1e-12).all()

    @given(seed=st.integers(0, 1000), temperature=st.floats(0.1, 3.0))
    @settings(max_examples=20)
    def test_the_gap_bounds_the_distance(self, seed: int, temperature: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        A = 3 * torch.randn(6, 4, 5, dtype=torch.float64, generator=generator)
        exact = games.quantal_response_equilibrium(A, temperature=temperature).x
        noise = torch.randn(6, 9, dtype=torch.float64, generator=generator)
        x = torch.cat(
            [(exact[:, :4].log() + noise[:, :4]).softmax(-1), (exact[:, 4:].log() + noise[:, 4:]).softmax(-1)], 1
        )
        matrix = games.MatrixGame(A, temperature)
        assert (matrix.gap(x) > 0).all()
        assert ((x - exact).abs().sum(-1).square() <= 4 * matrix.gap(x) / temperature + 1e-9).all()
        assert (matrix.exploitability(x) >= 0).all()

    def test_extreme_payoffs_end_in_a_pure_equilibrium(self) -> None:
        A = torch.tensor([[[5.0, 3.0], [2.0, 1.0]]], dtype=torch.float64) * 100
        answer = games.quantal_response_equilibrium(A)
        torch.testing.assert_close(answer.u, torch.tensor([[0.0, 1.0]], dtype=torch.float64))
        torch.testing.assert_close(answer.v, torch.tensor([[1.0, 0.0]], dtype=torch.float64))
        assert (answer.residual < 1e-10).all()

    def test_batch_mates_and_starts_change_nothing(self) -> None:
        A = 5 * torch.randn(8, 3, 3, dtype=torch.float64)
        A[3] *= 20
        answer = games.quantal_response_equilibrium(A)
        for i in range(8):
            one = games.quantal_response_equilibrium(A[i : i + 1], start=torch.randn(1, 3, dtype=torch.float64))
            torch.testing.assert_close(one.x[0], answer.x[i], atol=1e-9, rtol=0)
        warm = games.quantal_response_equilibrium(A, start=answer.u.clamp(min=1e-300).log())
        assert (warm.steps <= 1).all()

    @pytest.mark.bad_input
    def test_bad_input_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"\(B, m, n\) with m, n >= 1; got \(2, 2\)"):
            games.quantal_response_equilibrium(torch.eye(2))
        for option, message in (
            ({"temperature": 0.0}, "0 < temperature < inf; got temperature=0.0"),
            ({"tolerance": -1.0}, "0 < tolerance < inf; got tolerance=-1.0"),
            ({"max_steps": 0}, "max_steps >= 1; got max_steps=0"),
        ):
            with pytest.raises(ValueError, match=message):
                games.quantal_response_equilibrium(torch.eye(2)[None], **option)
        with pytest.raises(ValueError, match="temperature >= 0; got temperature=-1"):
            games.MatrixGame(torch.eye(2), -1.0)
        with pytest.raises(ValueError, match=r"\(m, n\) or \(B, m, n\); got \(3,\)"):
            games.MatrixGame(torch.zeros(3))
