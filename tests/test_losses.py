import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import implicit_l2o as il2o
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.losses import (
    fenchel_young,
    normalized_regret,
    perturbed_fenchel_young,
    regret,
    solution_mse,
    spo_plus,
)


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


# Losses that call an exact solver


def cheapest(costs):
    """The exact minimiser over the corners of the simplex, for costs of any shape `(B, *shape)`."""
    flat = costs.flatten(1)
    return torch.nn.functional.one_hot(flat.argmin(1), flat.shape[1]).to(costs).reshape(costs.shape)


@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_spo_plus_bounds_the_regret_and_its_gradient_is_the_subgradient(shape):
    predicted, costs = torch.randn(2, 300, *shape, dtype=torch.float64)
    best = cheapest(costs)
    predicted.requires_grad_()
    loss = spo_plus(cheapest, predicted, costs, best)
    assert loss.shape == (300,)
    assert (loss >= regret(cheapest(predicted), costs, best) - 1e-12).all()
    (gradient,) = torch.autograd.grad(loss.sum(), predicted)
    torch.testing.assert_close(gradient, 2 * (best - cheapest(2 * predicted.detach() - costs)))
    torch.testing.assert_close(spo_plus(cheapest, costs, costs, best), torch.zeros(300, dtype=torch.float64))


def test_spo_plus_is_convex_and_its_gradient_is_that_of_its_value():
    first, second, costs = torch.randn(3, 200, 6, dtype=torch.float64)
    best = cheapest(costs)

    def loss(predicted):
        return spo_plus(cheapest, predicted, costs, best)

    assert (loss((first + second) / 2) <= (loss(first) + loss(second)) / 2 + 1e-12).all()
    part, truth, answer = first[:10].clone().requires_grad_(), costs[:10], best[:10]
    assert gradcheck(lambda p: spo_plus(cheapest, p, truth, answer), (part,))  # away from ties, almost surely


def test_spo_plus_solves_once_without_a_graph_and_sends_nothing_to_the_true_costs():
    calls = []

    def oracle(costs):
        calls.append(torch.is_grad_enabled())
        return cheapest(costs)

    predicted, costs = torch.randn(2, 4, 3).requires_grad_().unbind()
    spo_plus(oracle, predicted, costs, cheapest(costs)).sum().backward()
    assert calls == [False]


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_perturbed_fenchel_young_has_the_gradient_of_berthet_and_is_not_negative(shape):
    predicted = torch.randn(50, *shape, dtype=torch.float64, requires_grad=True)
    target = cheapest(torch.randn(50, *shape, dtype=torch.float64))
    generator = torch.Generator().manual_seed(3)
    loss = perturbed_fenchel_young(cheapest, predicted, target, sigma=0.7, samples=9, generator=generator)
    assert loss.shape == (50,)
    assert (loss >= 0).all()
    noise = torch.randn((50, 9, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mean = torch.stack([cheapest(predicted.detach() + 0.7 * noise[:, k]) for k in range(9)]).mean(0)
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), predicted)[0], target - mean)


def test_perturbed_fenchel_young_falls_towards_zero_as_the_target_becomes_the_clear_choice():
    target = torch.eye(3)[:1]
    losses = [
        float(perturbed_fenchel_young(cheapest, -margin * target, target, sigma=1.0, samples=2000))
        for margin in (-3.0, 0.0, 3.0, 12.0)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0.0


@pytest.mark.parametrize(("option", "message"), [({"sigma": 0.0}, "sigma > 0"), ({"samples": 0}, "samples >= 1")])
def test_perturbed_fenchel_young_refuses_options_out_of_range(option, message):
    with pytest.raises(ValueError, match=message):
        perturbed_fenchel_young(cheapest, torch.ones(1, 2), torch.ones(1, 2), **option)
