"""The bridges to PyEPO: its losses on our oracles are ours, a batch is one solve, models go there and back."""

import numpy as np
import pytest
import torch
from torch import nn

import implicit_l2o as il2o
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.data.shortest_path import generate as generate_paths
from implicit_l2o.decoders import MILP, has_numba
from implicit_l2o.interop import pyepo as bridge
from implicit_l2o.losses import perturbed_fenchel_young, regret, spo_plus

pyepo = pytest.importorskip("pyepo", reason="PyEPO is not installed")

pytestmark = pytest.mark.skipif(not has_numba(), reason="numba is in the extra 'exact'")
EPO = pyepo.EPO


class Counted:
    """An oracle that knows how often it was called and on how many samples."""

    def __init__(self, oracle):
        self.oracle, self.sizes = oracle, []

    def __call__(self, costs):
        self.sizes.append(len(costs))
        return self.oracle(costs)


def grid_lp(side):
    A, b = Grid(side).flow_constraints()
    return il2o.LinearProgram(A_eq=A, b_eq=b)


def knapsack():
    from implicit_l2o.decoders import Knapsack

    weights = np.random.default_rng(0).uniform(3, 8, (2, 10))
    capacity = np.array([20.0, 20.0])
    return il2o.LinearProgram(A_ub=weights, b_ub=capacity, upper=1.0), Knapsack(weights, capacity)


def problem(maximize, side=4):
    """An oracle that minimises, PyEPO's model of it, and random costs in the model's sense."""
    from implicit_l2o.decoders import GridPaths

    lp, decoder = knapsack() if maximize else (grid_lp(side), GridPaths(side))
    oracle = Counted(decoder)
    model = bridge.opt_model(lp, oracle, maximize=maximize)
    predicted, costs = torch.rand(2, 6, lp.n) + 0.2
    best = decoder(-costs if maximize else costs)
    return model, decoder, model.decoder, predicted.requires_grad_(), costs, best


SENSES = pytest.mark.parametrize("maximize", [False, True], ids=["minimise", "maximise"])


# Our losses and PyEPO's


@SENSES
def test_pyepos_spo_plus_is_ours_in_value_and_gradient_and_one_solve(maximize):
    model, decoder, counted, predicted, costs, best = problem(maximize)
    theirs = bridge.SPOPlus().bind(model)(predicted, costs, best)
    sign = -1 if maximize else 1
    ours = spo_plus(decoder, sign * predicted, sign * costs, best).mean()
    torch.testing.assert_close(theirs, ours)
    torch.testing.assert_close(torch.autograd.grad(theirs, predicted), torch.autograd.grad(ours, predicted))
    assert counted.sizes == [6]


@SENSES
def test_pyepos_perturbed_fenchel_young_gradient_is_ours_under_the_same_noise(maximize):
    model, decoder, counted, predicted, costs, best = problem(maximize)
    theirs = bridge.PFYL(samples=5, sigma=0.4, seed=7).bind(model)(predicted, costs, best)
    # Values are maximised by an oracle that sees their negative; its gaps to the target are then negative as well.
    oracle, sign = (lambda values: decoder(-values), -1) if maximize else (decoder, 1)
    generator = torch.Generator().manual_seed(7)
    ours = sign * perturbed_fenchel_young(oracle, predicted, best, sigma=0.4, samples=5, generator=generator).mean()
    torch.testing.assert_close(torch.autograd.grad(theirs, predicted), torch.autograd.grad(ours, predicted))
    assert counted.sizes == [30]


@SENSES
def test_black_boxes_have_the_gradients_of_their_papers(maximize):
    model, decoder, counted, predicted, costs, best = problem(maximize)
    sign = -1 if maximize else 1
    x = decoder(sign * predicted.detach())
    # The absolute value of the regret's error: the sign of (objective - best objective).
    slope = torch.sign(((x - best) * costs).sum(1, keepdim=True)) * costs / len(costs)
    (gradient,) = torch.autograd.grad(bridge.NID().bind(model)(predicted, costs, best), predicted)
    torch.testing.assert_close(gradient, -sign * slope)
    loss = bridge.DBB(lambd=8.0).bind(model)(predicted, costs, best)
    torch.testing.assert_close(loss, regret(x, sign * costs, best).mean())
    (gradient,) = torch.autograd.grad(loss, predicted)
    moved = decoder(sign * (predicted.detach() + sign * 8.0 * slope))
    torch.testing.assert_close(gradient, sign * (moved - x) / 8.0)
    assert counted.sizes == [6, 6, 6]


@SENSES
@pytest.mark.parametrize("loss", [bridge.DBB(regret=False), bridge.NID(regret=False)], ids=["dbb", "nid"])
def test_black_boxes_learn_from_decisions_alone(loss, maximize):
    model, decoder, _, predicted, costs, best = problem(maximize)
    value = loss.bind(model)(predicted, torch.full_like(costs, float("nan")), best)
    torch.testing.assert_close(value, (decoder(predicted.detach() * (-1 if maximize else 1)) - best).abs().mean())


# The model


@SENSES
def test_the_model_is_solved_in_its_sense(maximize):
    model, _, _, _, costs, best = problem(maximize)
    for cost, answer in zip(costs, best, strict=True):
        model.setObj(cost)
        x, objective = model.solve()
        assert x.tolist() == answer.tolist()
        assert objective == pytest.approx(float((cost * answer).sum()))
    assert model.modelSense == (EPO.MAXIMIZE if maximize else EPO.MINIMIZE)
    assert model.num_cost == costs.shape[1]


@pytest.mark.parametrize("as_tensor", [False, True], ids=["numpy", "torch"])
def test_a_data_set_is_solved_in_a_few_calls(as_tensor, capfd):
    from pyepo.data.dataset import optDataset

    model, decoder, counted, *_ = problem(False)
    costs = torch.rand(2500, model.num_cost)
    data = optDataset(model, torch.zeros(2500, 1), costs if as_tensor else costs.numpy())
    assert torch.equal(data.sols, decoder(costs))
    torch.testing.assert_close(data.objs[:, 0], (costs * data.sols).sum(1))
    assert counted.sizes == [1024, 1024, 452]


def test_costs_that_change_between_two_rows_are_solved_again():
    model, decoder, counted, *_ = problem(False)
    costs = np.random.default_rng(1).random((3, model.num_cost))
    model.setObj(costs[0])
    model.solve()
    costs[1] = costs[1][::-1].copy()
    for row in (1, 2, 0):
        model.setObj(costs[row])
        assert model.solve()[0].tolist() == decoder(torch.from_numpy(costs[row : row + 1]))[0].tolist()
    assert counted.sizes[0] == 3


def test_rows_in_any_order_lists_and_strided_views_are_answered():
    model, decoder, *_ = problem(False)
    costs = np.random.default_rng(1).random((9, 2 * model.num_cost))
    expected = decoder(torch.from_numpy(costs[:, ::2].copy())).numpy()
    for row in (4, 0, 8, 1, 1, 5):
        for given in (costs[:, ::2][row], costs[row, ::2].copy(), torch.from_numpy(costs)[row, ::2]):
            model.setObj(given)
            assert np.array_equal(model.solve()[0], expected[row])
        model.setObj(costs[row, ::2].tolist())
        assert model.solve()[1] == pytest.approx(costs[row, ::2] @ expected[row], rel=1e-6)


def test_without_a_decoder_the_linear_program_is_solved_to_a_vertex():
    model, costs = bridge.opt_model(grid_lp(4)), torch.rand(5, 24)
    for cost, path in zip(costs, Grid(4).shortest_paths(costs), strict=True):
        model.setObj(cost)
        assert model.solve()[1] == pytest.approx(float(cost @ path), abs=1e-6)


def test_the_layers_relaxation_is_a_decoder():
    lp = grid_lp(3)
    layer = il2o.LPLayer(lp, gamma=0.01)
    model = bridge.opt_model(lp, lambda cost: layer(cost).x)
    costs = torch.rand(4, 12) + 0.5
    model.setObj(costs[0])
    x, _ = model.solve()
    assert np.abs(x - Grid(3).shortest_paths(costs)[0].numpy()).max() < 0.1


def test_constraints_are_added_where_no_decoder_was_given():
    lp, decoder = knapsack()
    relaxed = bridge.opt_model(lp, decoder, maximize=True).relax()
    first = relaxed.addConstr([1.0] * 10, 2.0)
    model = first.addConstr(np.eye(10)[0], 0.0)
    model.setObj(np.arange(10, 0, -1.0))
    assert model.solve()[1] == pytest.approx(17.0)
    with pytest.raises(ValueError, match="cannot add a constraint to its decoder"):
        bridge.opt_model(lp, decoder, maximize=True).addConstr([1.0] * 10, 2.0)


def test_copies_and_rebuilt_models_solve_the_same():
    model, _, _, _, costs, best = problem(True)
    for other in (model.copy(), model.rebuild()):
        other.setObj(costs[0])
        assert other.solve()[0].tolist() == best[0].tolist()
        assert other.modelSense == EPO.MAXIMIZE


def test_models_refuse_what_they_cannot_solve():
    model = bridge.opt_model(grid_lp(3))
    with pytest.raises(RuntimeError, match="no costs yet"):
        model.solve()
    with pytest.raises(ValueError, match=r"12 variables; got costs of shape \(3,\)"):
        model.setObj([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"one feasible set for all samples; got b_eq of shape \(2, 9\)"):
        bridge.opt_model(grid_lp(3).with_rhs(b_eq=torch.zeros(2, 9)))


def test_pyepos_own_regret_is_ours():
    from pyepo.data.dataset import optDataset
    from pyepo.metric import regret as their_regret

    model, decoder, *_ = problem(True)
    features, costs = torch.rand(40, 5), torch.rand(40, 10) + 0.5
    predictor = nn.Linear(5, 10)
    loader = torch.utils.data.DataLoader(optDataset(model, features, costs), batch_size=16)
    with torch.no_grad():
        x = decoder(-predictor(features))
    best = decoder(-costs)
    expected = float(regret(x, -costs, best).sum() / (costs * best).sum())
    assert their_regret(predictor, model, loader) == pytest.approx(expected, rel=1e-5)


# Training


@pytest.mark.parametrize(
    "loss", [bridge.SPOPlus(), bridge.PFYL(), bridge.DBB(), bridge.NID()], ids=lambda loss: type(loss).__name__
)
def test_every_loss_trains(loss):
    from implicit_l2o.decoders import GridPaths

    data = generate_paths(side=3, train=256, validation=1, test=256)
    network = nn.Linear(5, 12)
    criterion = loss.bind(bridge.opt_model(grid_lp(3), GridPaths(3)))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-2)

    @torch.no_grad()
    def test_regret():
        x = GridPaths(3)(network(data.test.contexts))
        return float(regret(x, data.test.costs, data.test.paths).mean())

    before = test_regret()
    for _ in range(15):
        for index in torch.randperm(256).split(32):
            costs, best = data.train.costs[index], data.train.paths[index]
            optimizer.zero_grad()
            criterion(network(data.train.contexts[index]), costs, best).backward()
            optimizer.step()
    assert test_regret() < 0.8 * before


def test_where_pyepo_is_missing_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(bridge, "find_spec", lambda name: None)
    for call in (lambda: bridge.opt_model(grid_lp(2)), lambda: bridge.SPOPlus().bind(None)):
        with pytest.raises(ModuleNotFoundError, match=r"needs PyEPO: pip install 'pyepo>=2\.2'"):
            call()


def test_the_knapsack_of_the_linear_program_is_that_of_highs():
    lp, decoder = knapsack()
    costs = -torch.rand(4, 10, dtype=torch.float64)
    torch.testing.assert_close((costs * decoder(costs)).sum(1), (costs * MILP(lp)(costs)).sum(1))


# All of PyEPO's losses


def losses_of_pyepo(model, data):
    """Each of PyEPO's losses that takes any model, as a function of predicted costs, true costs, and their optima."""
    from pyepo import func

    return {
        "PG": lambda p, c, w, z: func.perturbationGradient(model)(p, c),
        "DPO": lambda p, c, w, z: (func.perturbedOpt(model, n_samples=2)(p) - w).square().mean(),
        "DPOMul": lambda p, c, w, z: (func.perturbedOptMul(model, n_samples=2)(p) - w).square().mean(),
        "PFYMul": lambda p, c, w, z: func.perturbedFenchelYoungMul(model, n_samples=2)(p, w),
        "IMLE": lambda p, c, w, z: (func.implicitMLE(model, n_samples=2)(p) - w).abs().mean(),
        "AIMLE": lambda p, c, w, z: (func.adaptiveImplicitMLE(model, n_samples=2)(p) - w).abs().mean(),
        "RFY": lambda p, c, w, z: func.regularizedFrankWolfeFenchelYoung(model, max_iter=20)(p, w),
        "NCE": lambda p, c, w, z: func.noiseContrastiveEstimation(model, dataset=data)(p, w),
        "CMAP": lambda p, c, w, z: func.contrastiveMAP(model, dataset=data)(p, w),
        "lsLTR": lambda p, c, w, z: func.listwiseLearningToRank(model, dataset=data)(p, c),
    }


@SENSES
@pytest.mark.parametrize("name", losses_of_pyepo(None, None))
def test_all_losses_of_pyepo_run_in_whole_batches(name, maximize):
    from pyepo.data.dataset import optDataset

    model, _, counted, predicted, costs, best = problem(maximize)
    data = optDataset(model, torch.zeros(6, 1), costs)
    assert torch.equal(data.sols, best)
    counted.sizes.clear()
    loss = losses_of_pyepo(model, data)[name](predicted, costs, data.sols, data.objs)
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert torch.isfinite(gradient).all()
    assert set(counted.sizes) <= {6, 12}  # never a sample alone
