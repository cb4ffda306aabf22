"""Conjugate gradient on the normal equations against dense solves, on the matrices that are hard for it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.backward.base import pullback_and_pushforward
from implicit_l2o.backward.linear import LinearSolve


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def solve(A: Tensor, b: Tensor, **options: float) -> LinearSolve:
    """With one matrix a sample."""
    return il2o.NormalCG(**options).solve(  # pyright: ignore[reportArgumentType]
        lambda u: (A @ u[..., None])[..., 0], lambda r: (A.mT @ r[..., None])[..., 0], b
    )


def with_condition(batch: int, n: int, condition: float, seed: int = 0) -> Tensor:
    """Non-normal matrices with singular values from 1 / condition to 1."""
    left, right = (torch.linalg.qr(draw(batch, n, n, seed=seed + i)).Q for i in (0, 100))
    return (left * torch.logspace(-math.log10(condition), 0, n, dtype=torch.float64)) @ right.mT


@given(batch=st.integers(1, 4), n=st.integers(1, 12), condition=st.floats(1.0, 100.0), seed=st.integers(0, 50))
@settings(max_examples=30)
def test_it_solves_what_a_dense_solve_solves(batch: int, n: int, condition: float, seed: int) -> None:
    A, b = with_condition(batch, n, condition, seed), draw(batch, n, seed=seed + 7)
    found = solve(A, b, rtol=1e-11)
    assert found.converged.all()
    expected = torch.linalg.solve(A, b)
    bound = 2e-11 * condition * expected.norm(dim=1)  # |u - u*| <= |A^-1| |r|, |b| <= |u*| as |A| = 1
    assert ((found.u - expected).norm(dim=1) <= bound + 1e-13).all()
    true = (b - (A @ found.u[..., None])[..., 0]).norm(dim=1) / b.norm(dim=1)
    torch.testing.assert_close(found.residual, true, rtol=0.1, atol=1e-13)  # known no better than u is rounded


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.999])
def test_the_adjoint_of_a_rotation_which_is_far_from_symmetric(gamma: float) -> None:
    angle = torch.linspace(0.1, 3.0, 4, dtype=torch.float64)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)], -2)
    A = torch.eye(2, dtype=torch.float64) - gamma * turn
    b = draw(4, 2)
    found = solve(A, b, rtol=1e-12)
    torch.testing.assert_close(found.u, torch.linalg.solve(A, b), rtol=1e-8, atol=1e-8)


def test_a_nilpotent_part_of_norm_far_above_one() -> None:
    J = torch.diag(
        torch.full((7,), 5.0, dtype=torch.float64), 1
    )  # spectral radius 0, norm 5: Picard blows up before it ends
    A = torch.eye(8, dtype=torch.float64) - J
    b = draw(1, 8)
    found = solve(A[None], b, rtol=1e-12, max_steps=2000)
    assert found.converged.all()
    expected = torch.linalg.solve(A, b.mT).mT
    assert float((found.u - expected).norm() / expected.norm()) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_the_tolerance_is_relative(dtype: torch.dtype, scale: float) -> None:
    A, b = with_condition(3, 6, 5.0).to(dtype), draw(3, 6, dtype=dtype)
    found, scaled = solve(A, b), solve(A, scale * b)
    assert scaled.converged.all()
    torch.testing.assert_close(scaled.u / scale, found.u, rtol=1e-4, atol=0.0)


def test_batch_mates_change_nothing() -> None:
    A, b = (
        torch.stack([*with_condition(1, 9, 3.0), *with_condition(1, 9, 80.0), *with_condition(1, 9, 1.0)]),
        draw(3, 9),
    )
    together = solve(A, b)
    for i in range(3):
        alone = solve(A[i : i + 1], b[i : i + 1])
        torch.testing.assert_close(together.u[i : i + 1], alone.u, rtol=1e-12, atol=1e-13)
        assert together.steps[i] == alone.steps[0]


def test_a_sample_that_is_not_finite_spoils_no_mate_and_is_not_solved() -> None:
    A, b = with_condition(3, 5, 4.0), draw(3, 5)
    A[1, 2, 2] = torch.nan
    found = solve(A, b)
    assert found.converged.tolist() == [True, False, True]
    keep = [0, 2]
    torch.testing.assert_close(found.u[keep], solve(A[keep], b[keep]).u, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_singular_equation_without_a_solution_ends_soon_and_is_not_called_solved(dtype: torch.dtype) -> None:
    A = with_condition(20, 5, 4.0)
    left, size, right = torch.linalg.svd(A)
    size[:, -1] = 0.0
    found = solve(((left * size[:, None]) @ right).to(dtype), draw(20, 5, dtype=dtype))
    assert not found.converged.any()
    assert (found.residual > 1e-4).all()
    assert (found.steps < 60).all()  # of 600: no direction is left after the rank is exhausted


def test_a_zero_right_hand_side_costs_nothing() -> None:
    found = solve(with_condition(2, 4, 2.0), torch.stack([torch.zeros(4, dtype=torch.float64), draw(1, 4)[0]]))
    assert found.converged.all()
    assert found.steps[0] == 0
    assert (found.u[0] == 0).all()
    assert found.steps[1] > 0


def test_max_steps_counts_the_products() -> None:
    calls = 0
    A = with_condition(1, 40, 1e3)

    def counted(matrix: Tensor):
        def product(u: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return (matrix @ u[..., None])[..., 0]

        return product

    found = il2o.NormalCG(max_steps=11).solve(counted(A), counted(A.mT), draw(1, 40))
    assert not found.converged.any()
    assert calls == int(found.steps[0]) <= 11


def test_the_pushforward_is_the_transpose_of_the_pullback() -> None:
    W, z = draw(6, 6), draw(3, 6, seed=1)
    T = lambda z: torch.nn.functional.leaky_relu(z @ W, 0.1).tanh()  # noqa: E731
    pull, push = pullback_and_pushforward(T, z)
    v, w = draw(3, 6, seed=2), draw(3, 6, seed=3)
    torch.testing.assert_close((pull(v) * w).sum(1), (v * push(w)).sum(1), rtol=1e-12, atol=1e-12)
    J = torch.autograd.functional.jacobian(T, z)
    torch.testing.assert_close(push(w), torch.einsum("ijkl,kl->ij", J, w), rtol=1e-12, atol=1e-12)
    constant_pull, constant_push = pullback_and_pushforward(lambda z: torch.ones_like(z), z)
    assert not constant_pull(v).any()
    assert not constant_push(w).any()


def test_a_failed_solve_takes_the_jfb_gradient_and_says_so() -> None:
    J = 0.95 * torch.linalg.qr(draw(6, 6)).Q
    b = torch.ones(2, 6, dtype=torch.float64, requires_grad=True)
    backward = il2o.Implicit(il2o.NormalCG(rtol=1e-12, max_steps=3))
    stopping = il2o.Stopping(atol=1e-10, rtol=0.0, max_steps=5000)
    solver = il2o.KrasnoselskiiMann(stopping)
    point = il2o.fixed_point(lambda z: z @ J + b, torch.zeros_like(b), solver=solver, backward=backward)
    v = draw(2, 6, seed=4)
    with pytest.warns(il2o.ConvergenceWarning, match=r"adjoint solve of 2 of 2 samples did not converge.*JFB"):
        (point.z * v).sum().backward()
    torch.testing.assert_close(b.grad, v)
    assert point.adjoint is not None
    assert point.adjoint.status is not None
    assert (point.adjoint.status == il2o.Status.MAX_STEPS).all()
