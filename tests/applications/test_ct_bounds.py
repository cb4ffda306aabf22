"""The bounds by duality hold for every image and multiplier, and are tight where they should be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

import implicit_l2o as il2o
from implicit_l2o.applications.ct.bounds import least_misfit, suboptimality

M, N = 4, 6


def problem(seed):
    """A, centre c of f(x) = |x - c|^2 / 2, measurement d of an image in the box; in double precision."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    A = draw(M, N)
    inside = torch.rand(1, N, generator=generator, dtype=torch.float64)
    return A, draw(1, N), inside @ A.mT + 0.01 * draw(1, M)


def best_value(A, c, d, radius):
    """`min |x - c|^2 / 2` over the box and the ball, and its place: bounded least squares at the ball's weight, bisected."""
    A, c, d = A.numpy(), c[0].numpy(), d[0].numpy()

    def at(weight):
        stacked = np.vstack([np.eye(N), weight * A])
        x = lsq_linear(stacked, np.concatenate([c, weight * d]), (0, 1), method="bvls", tol=1e-14).x
        return x, np.linalg.norm(A @ x - d)

    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle)[1] > radius else (low, middle)
    x, misfit = at(high)
    assert misfit <= radius * (1 + 1e-9)
    return 0.5 * ((x - c) ** 2).sum(), torch.from_numpy(x)[None]


def bound_of(A, c, d, radius, x, direction):
    return suboptimality(il2o.Matrix(A), x, x - c, d, torch.tensor([radius], dtype=torch.float64), direction).item()


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_the_gap_bounds_the_suboptimality_of_every_image(seed):
    A, c, d = problem(seed)
    least, _ = best_value(A, c, d, 0.5)
    generator = torch.Generator().manual_seed(seed + 1)
    for _ in range(5):
        x = torch.rand(1, N, generator=generator, dtype=torch.float64)
        arbitrary = torch.randn(1, M, generator=generator, dtype=torch.float64)
        value = 0.5 * (x - c).square().sum().item()
        for direction in (x @ A.mT - d, arbitrary):
            assert bound_of(A, c, d, 0.5, x, direction) >= value - least - 1e-7


@pytest.mark.parametrize("seed", range(8))
def test_the_gap_closes_at_the_best_image(seed):
    A, c, d = problem(seed)
    least, x = best_value(A, c, d, 0.5)
    assert bound_of(A, c, d, 0.5, x, x @ A.mT - d) == pytest.approx(0.0, abs=1e-4 * max(1.0, least))


def test_an_inactive_ball_needs_no_multiplier():
    A, c, d = problem(0)
    x = c.clamp(0, 1)  # the best of the box
    assert bound_of(A, c, d, 1e3, x, torch.zeros(1, M, dtype=torch.float64)) == pytest.approx(0.0, abs=1e-12)


def test_no_best_image_where_none_meets_the_constraints():
    A, c, d = problem(0)
    far = d + 100.0
    x = torch.from_numpy(lsq_linear(A.numpy(), far[0].numpy(), (0, 1)).x)[None]
    assert bound_of(A, c, far, 0.5, x, x @ A.mT - far) == float("inf")


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 30))
def test_no_image_explains_more_than_the_misfit_bound(seed, steps):
    A, _, d = problem(seed)
    d = 3 * d
    oracle = lsq_linear(A.numpy(), d[0].numpy(), (0, 1), method="bvls")
    least = float(np.sqrt(2 * oracle.cost))
    start = torch.zeros(1, N, dtype=torch.float64)
    bound = least_misfit(il2o.Matrix(A), start, d, steps=steps).item()
    assert bound <= least + 1e-7
    assert least_misfit(il2o.Matrix(A), start, d, steps=3000).item() == pytest.approx(least, abs=1e-3)


def test_the_misfit_bound_starts_from_anything():
    A, _, d = problem(0)
    broken = torch.full((1, N), float("nan"), dtype=torch.float64)
    assert torch.isfinite(least_misfit(il2o.Matrix(A), broken, 3 * d)).all()


@pytest.mark.bad_input
def test_a_negative_number_of_steps_is_refused():
    A, _, d = problem(0)
    with pytest.raises(ValueError, match="steps >= 0; got steps=-1"):
        least_misfit(il2o.Matrix(A), torch.zeros(1, N, dtype=torch.float64), d, steps=-1)
