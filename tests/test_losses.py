import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import implicit_l2o as il2o
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.losses import fenchel_young, normalized_regret, regret, solution_mse


def simplex_argmin(w, gamma):
    """The exact minimiser of `w.x + gamma |x|^2 / 2` over the simplex, differentiable almost everywhere."""
    return il2o.Simplex().project(-w / gamma)


def test_solution_mse_is_per_sample():
    x = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    assert solution_mse(x, torch.zeros_like(x)).tolist() == [2.5, 0.0]


def test_regret_of_decisions_and_its_normalisation():
    costs = torch.tensor([[1.0, 2.0, 4.0], [3.0, 1.0, -2.0]])
    x = torch.eye(3)[[2, 1]]
    best = torch.eye(3)[[0, 2]]
    assert regret(x, costs, best).tolist() == [3.0, 3.0]
    assert float(normalized_regret(x, costs, best)) == pytest.approx(6 / 3)  # |1| + |-2|: not the mean of 3 and 3/2


def test_no_decision_has_negative_regret():
    grid = Grid(4)
    generator = torch.Generator().manual_seed(0)
    costs, guesses = torch.randn(2, 200, grid.n_arcs, generator=generator)
    best = grid.shortest_paths(costs)
    assert (regret(grid.shortest_paths(guesses), costs, best) >= -1e-5).all()
    assert float(regret(best, costs, best).abs().max()) == 0.0


def test_losses_differentiate_twice():
    x, y, c = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    for loss in (solution_mse, lambda x, y: regret(x, c, y), lambda x, y: normalized_regret(x, c, y)):
        assert gradcheck(loss, (x, y))
        assert gradgradcheck(loss, (x, y))


@pytest.mark.parametrize("gamma", [0.3, 2.0])
def test_fenchel_young_gradient_is_that_of_the_optimal_value(gamma):
    """Finite differences of `f(target) - min f`, whose minimiser moves with `w`, against the gradient that ignores it."""
    w = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    target = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0]]

    def loss(w):
        f = il2o.QuadraticCost(linear=w, diagonal=gamma)
        return fenchel_young(f, simplex_argmin(w, gamma), target)

    assert gradcheck(loss, (w,))
    (gradient,) = torch.autograd.grad(loss(w).sum(), w)
    torch.testing.assert_close(gradient, target - simplex_argmin(w.detach(), gamma))


def test_fenchel_young_is_zero_at_the_minimiser_and_positive_elsewhere():
    w = torch.randn(50, 6, dtype=torch.float64)
    f = il2o.QuadraticCost(linear=w, diagonal=1.0)
    x = simplex_argmin(w, 1.0)
    torch.testing.assert_close(fenchel_young(f, x, x), torch.zeros(50, dtype=torch.float64))
    corners = torch.eye(6, dtype=torch.float64)[torch.arange(50) % 6]
    assert (fenchel_young(f, x, corners) >= 0).all()


def test_fenchel_young_sends_no_gradient_through_the_solution():
    w = torch.randn(2, 3, requires_grad=True)
    x = torch.full((2, 3), 1 / 3, requires_grad=True)
    fenchel_young(il2o.QuadraticCost(linear=w), x, torch.eye(3)[:2]).sum().backward()
    assert x.grad is None
    assert w.grad is not None
