"""The travelling salesman: PyEPO's data draw by draw, the relaxation and its cuts, and that every method learns."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import implicit_l2o as il2o
from implicit_l2o.data.travelling_salesman import draw, generate
from implicit_l2o.losses import normalized_regret

pytest.importorskip("lightning")
pytest.importorskip("matplotlib")
pytest.importorskip("numba")

from matplotlib.figure import Figure

from implicit_l2o.applications.travelling_salesman import CostTourTask, Floor, PyEPOTourTask, TourData, TourTask
from implicit_l2o.applications.travelling_salesman.cuts import frequent_cuts, phase_cuts
from implicit_l2o.applications.travelling_salesman.metrics import NormalizedRegret
from implicit_l2o.applications.travelling_salesman.model import TourNetwork, cost_network, tour_program
from implicit_l2o.decoders import TravellingSalesman
from implicit_l2o.training import Constant, Optimization, Samples, fit

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FAST = Optimization(learning_rate=0.1)
PYEPO = (6.474400043487549, 3.768899917602539, 3.258500099182129)

# --- data ---


@pytest.mark.parametrize(
    ("n_cities", "degree", "noise", "seed"), [(20, 4, 0.5, 135), (7, 6, 0.0, 9), (50, 1, 0.5, 136)]
)
def test_data_are_pyepos(n_cities, degree, noise, seed):
    tsp = pytest.importorskip("pyepo.data.tsp")
    drawn = draw(30, n_cities=n_cities, degree=degree, noise=noise, seed=seed)
    contexts, costs = tsp.genData(30, 5, n_cities, deg=degree, noise_width=noise, seed=seed)
    np.testing.assert_array_equal(drawn.contexts, contexts)
    np.testing.assert_allclose(
        drawn.costs, costs, rtol=1e-6, atol=1.01e-4
    )  # theirs in float32; a last decimal may round over


def test_data_are_known_without_pyepo():
    """`genData(2, 5, 5, deg=4, noise_width=0.5, seed=135)` of PyEPO 2.2.7, the first costs."""
    np.testing.assert_allclose(draw(2, n_cities=5, degree=4, noise=0.5, seed=135).costs[0, :3], PYEPO, atol=1e-4)


def test_noise_is_around_the_conditional_mean():
    quiet = draw(2000, n_cities=5, noise=0.0, seed=1)
    noisy = draw(2000, n_cities=5, noise=0.5, seed=1)
    np.testing.assert_array_equal(quiet.mean_costs, noisy.mean_costs)
    np.testing.assert_allclose(quiet.costs, quiet.mean_costs, atol=5.1e-5)
    error = (noisy.costs - noisy.mean_costs).mean(0) / noisy.costs.std(0)
    assert np.abs(error).max() < 5 / 2000**0.5


def test_a_run_has_data_of_its_own(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    small = {"n_cities": 6, "train": 8, "validation": 4, "test": 4}
    drawn, data = generate(seed=138, **small), TourData(**small)
    with pytest.raises(RuntimeError, match="no cities before"):
        _ = data.cities
    for name in ("train", "validation", "test"):
        part = getattr(drawn, name)
        expected = (part.contexts, part.tours, part.costs, part.mean_costs)
        found = getattr(data.splits, name).tensors
        assert all(torch.equal(field, want) for field, want in zip(found, expected, strict=True))
    assert torch.equal(data.cities, drawn.cities)
    assert len(drawn.test) == 4


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw(0, n_cities=4), "n_samples >= 1; got n_samples=0"),
        (lambda: draw(1, n_cities=2), "n_cities >= 3; got n_cities=2"),
        (lambda: draw(1, n_cities=4, noise=1.5), "0 <= noise <= 1; got noise=1.5"),
        (lambda: generate(train=0), "train >= 1; got train=0"),
        (lambda: TourTask(gamma=0.0), "gamma > 0; got gamma=0.0"),
        (lambda: TourTask(perturbation=-0.5), "perturbation >= 0.0; got perturbation=-0.5"),
        (lambda: TourTask(copies=0), "copies >= 1; got copies=0"),
        (lambda: TourTask(loss="regret"), 'loss must be "solution" or "fenchel_young"; got \'regret\''),
        (lambda: CostTourTask(loss="regret"), "loss must be one of least_squares, spo_plus, spo_plus_relaxed"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- the relaxation and its cuts ---


def least_cut(weights):
    """By trying every set of vertices that does not hold the first."""
    n = len(weights)
    best = np.inf
    for chosen in itertools.product((False, True), repeat=n - 1):
        inside = np.array([False, *chosen])
        if inside.any():
            best = min(best, weights[inside][:, ~inside].sum())
    return best


@pytest.mark.parametrize("seed", range(5))
def test_the_least_cut_of_the_phases_is_a_minimum_cut(seed):
    random = np.random.default_rng(seed)
    weights = np.triu(random.uniform(size=(8, 8)) * (random.uniform(size=(8, 8)) < 0.5), 1)
    weights += weights.T
    cuts = phase_cuts(weights)
    for value, side in cuts:
        assert value == pytest.approx(weights[side][:, ~side].sum())
        assert 0 < side.sum() < 8
    assert min(value for value, _ in cuts) == pytest.approx(least_cut(weights))


def test_tours_are_in_the_relaxation_and_cuts_exclude_what_violates_them():
    decoder = TravellingSalesman(10)
    costs = torch.rand(40, decoder.n)
    x = il2o.LPLayer(tour_program(decoder), gamma=0.1, tolerance=1e-4)(costs).x
    cuts = frequent_cuts(x, decoder.edges, most=30)
    assert len(cuts)
    assert float((x @ cuts.float().T).min()) < 1.95
    tightened = tour_program(decoder, cuts)
    tours = decoder(costs)
    assert float(tightened.violation(tours).max()) == 0.0
    solved = il2o.LPLayer(tightened, gamma=0.1, tolerance=1e-4, max_steps=20_000)(costs).x
    assert float(tightened.violation(solved).max()) < 1e-2
    bound, without = (float(((costs * y).sum(1) + 0.05 * y.square().sum(1)).sum()) for y in (solved, x))
    exact = float(((costs * tours).sum(1) + 0.05 * tours.square().sum(1)).sum())
    assert without < bound < exact


def test_cuts_are_saved_with_the_weights_and_change_the_layer():
    model = TourNetwork(cost_network(5, 15, seed=0), TravellingSalesman(6), most_cuts=2)
    before = model.layer(training=False)
    assert model.layer(training=False) is before
    assert model.add_cuts(torch.rand(3, 15) < 0.5) == 2
    assert model.layer(training=False).lp.m_ub == 2
    other = TourNetwork(cost_network(5, 15, seed=1), TravellingSalesman(6), most_cuts=2)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.cuts, model.cuts)
    assert other.layer(training=True).lp.m_ub == 2


# --- training ---


@pytest.fixture(scope="module")
def data():
    made = TourData(n_cities=8, train=96, validation=32, test=32, seed=0)
    assert len(made.splits.train) == 96
    return made


def regret_of(task, data):
    with torch.no_grad():
        tours = task.answer(task.infer(data.splits.test.tensors[0]))
    _, best, costs, _ = data.splits.test.tensors
    return float(normalized_regret(tours, costs, best))


METHODS = {
    "fenchel_young": lambda: TourTask(n_cities=8, optimization=FAST),
    "perturbed": lambda: TourTask(n_cities=8, perturbation=0.5, copies=2, optimization=FAST),
    "cuts": lambda: TourTask(n_cities=8, cut_epochs=1, cuts=5, optimization=FAST),
    "solution": lambda: TourTask(n_cities=8, loss="solution", optimization=FAST),
    "least_squares": lambda: CostTourTask(n_cities=8, optimization=FAST),
    "spo_plus": lambda: CostTourTask(n_cities=8, loss="spo_plus", optimization=FAST),
    "spo_plus_relaxed": lambda: CostTourTask(n_cities=8, loss="spo_plus_relaxed", optimization=FAST),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns(name, data):
    torch.manual_seed(0)
    task = METHODS[name]()
    before = regret_of(task, data)
    fit(task, data, epochs=6, progress=False)
    assert regret_of(task, data) < 0.6 * before
    if name == "cuts":
        assert int(task.tours.cuts.any(1).sum()) > 0


def test_spo_plus_is_pyepos(data):
    interop = pytest.importorskip("implicit_l2o.interop.pyepo")
    pytest.importorskip("pyepo")
    batch = data.splits.train.tensors
    torch.manual_seed(0)
    ours, theirs = CostTourTask(n_cities=8, loss="spo_plus"), PyEPOTourTask(interop.SPOPlus(), n_cities=8)
    losses = [task.loss(task.training_inference(batch[0]), batch) for task in (ours, theirs)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    gradients = [
        torch.autograd.grad(loss, task.model.weight)[0] for loss, task in zip(losses, (ours, theirs), strict=True)
    ]
    torch.testing.assert_close(*gradients)


def test_baselines_know_what_they_may(data):
    task = TourTask(n_cities=8)
    floor, constant = Floor(), Constant()
    for baseline in (floor, constant):
        baseline.prepare(task, data, name="", progress=False)
    contexts, best, costs, mean_costs = data.splits.test.tensors
    decided = floor.infer((contexts, best, costs, mean_costs)).x
    assert torch.equal(decided, task.decoder(mean_costs))
    same = task.answer(constant.infer((contexts,)))
    assert torch.equal(same, same[:1].expand_as(same))
    assert normalized_regret(decided, costs, best) < normalized_regret(same, costs, best)


@pytest.mark.bad_input
def test_a_floor_is_of_tours():
    with pytest.raises(TypeError, match="baseline of a tour task; got"):
        Floor().prepare(torch.nn.Identity(), None, name="", progress=False)  # type: ignore[arg-type]


def test_the_metric_does_not_depend_on_the_batches(data):
    _, best, costs, _ = data.splits.test.tensors
    other = best.flip(0)
    whole, parts = NormalizedRegret(), NormalizedRegret()
    whole.update(other, costs, best)
    for chunk in zip(other.split(5), costs.split(5), best.split(5), strict=True):
        parts.update(*chunk)
    assert whole.compute() == parts.compute()
    torch.testing.assert_close(whole.compute(), normalized_regret(other, costs, best))


def test_figures_and_findings(data):
    task = TourTask(n_cities=8)
    batch = data.splits.test.tensors
    found = task.examine(batch[0], batch)
    names = tuple(certificate.measure.name for certificate in task.certificates())
    doubt = task.measures()[0](task.infer(batch[0]))
    values = torch.cat([found["values"], doubt.detach()[:, None]], dim=1)
    samples = Samples(
        answer=found["answer"],
        values=values,
        labels=torch.zeros_like(values, dtype=torch.int64),
        worst=found["worst"],
        names=(*names, "edges off the tour"),
        status=found["status"],
        batch=batch,
    )
    drawn = task.figures(samples, data.splits)
    assert set(drawn) == {"Tours", "Doubt"}
    numbers = task.findings(samples, data.splits)
    assert numbers["excess"] == pytest.approx(regret_of(task, data) - numbers["regret_floor"], abs=1e-6)
    assert numbers["max_constraint_violation"] < 1e-2
    figure = Figure(layout="constrained")
    task.draw(figure, {"inputs": batch[0][0], "answer": found["answer"][0], "target": batch[1][0]})
    assert len(figure.axes) == 2
    assert ((doubt >= -1e-6) & (doubt <= 1)).all()


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("travelling_salesman*.yaml")), ids=lambda path: path.stem)
def test_the_configurations_give_every_method_the_same_problem(path):
    config = yaml.safe_load(path.read_text())
    n_cities = config["model"]["init_args"]["n_cities"]
    assert config["data"]["init_args"]["n_cities"] == n_cities
    assert {"two_stage", "spo_plus", "pfyl", "untrained", "floor"} <= set(config["baselines"])
    for name, baseline in config["baselines"].items():
        if name != "floor":
            assert baseline["init_args"]["task"]["init_args"]["n_cities"] == n_cities
