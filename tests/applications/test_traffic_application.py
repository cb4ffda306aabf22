"""Traffic: every model starts at the equilibrium of the network and learns; tables and their check on a small run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import implicit_l2o as il2o

pytest.importorskip("lightning")
pytest.importorskip("numba")

import check_traffic

from implicit_l2o.applications.traffic import EquilibriumTask, FlowTask, Road, TrafficData, comparison, figures
from implicit_l2o.applications.traffic import __main__ as command
from implicit_l2o.applications.traffic.certificates import CONSERVATION, NEGATIVE, WARDROP, WardropGap
from implicit_l2o.applications.traffic.metrics import RelativeError, SquaredError, Trafix, scores
from implicit_l2o.applications.traffic.model import AffineNetwork, LatencyNetwork
from implicit_l2o.data.traffic import contexts
from implicit_l2o.games import PolynomialCost, TrafficNetwork, gaps
from implicit_l2o.training import Convergence, Optimization, fit

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
ROAD = Road("toy")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("traffic"))


def data(cache: str, **options) -> TrafficData:
    return TrafficData(road=ROAD, **({"train": 40, "validation": 10, "test": 12, "cache": cache, "seed": 0} | options))


@pytest.mark.parametrize("form", ["latency", "affine"])
def test_an_untrained_model_answers_with_the_equilibrium_of_the_network(form):
    x = EquilibriumTask(road=ROAD, form=form).infer(torch.rand(3, 5) / 4).x
    torch.testing.assert_close(x, torch.as_tensor(ROAD.flow).expand(3, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(FlowTask(road=ROAD).infer(torch.rand(3, 5)).x, x, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({}, 0.1),
        ({"loss": "solution"}, 0.1),
        ({"form": "affine", "loss": "solution"}, 0.01),
        ({"form": "affine"}, 0.01),
    ],
)
def test_every_loss_learns_and_every_solve_meets_the_tolerance(cache, options, rate):
    torch.manual_seed(0)
    task = EquilibriumTask(road=ROAD, optimization=Optimization(learning_rate=rate), **options)
    convergence = Convergence()
    training = fit(task, data(cache), epochs=4, callbacks=[convergence], progress=False)
    first, last = (training.history[i]["val/relative_error"] for i in (0, -1))
    constant = scores(task.constant(data(cache).splits.train).expand(10, -1), data(cache).splits.validation.tensors[1])
    assert last < min(first, 0.85 * constant["relative_error"])
    assert convergence.shares == [1.0] * 4


def test_the_black_box_learns(cache):
    torch.manual_seed(0)
    task = FlowTask(road=ROAD, optimization=Optimization(learning_rate=1e-2))
    training = fit(task, data(cache), epochs=8, progress=False)
    assert training.history[-1]["val/loss"] < 0.5 * training.history[0]["val/loss"]


def test_the_fenchel_young_loss_is_zero_at_the_true_times_and_its_gradient_too(cache):
    task = EquilibriumTask(road=ROAD)
    d, flow, capacity = (part[:4] for part in data(cache).splits.train.tensors)
    assert isinstance(task.model, LatencyNetwork)
    factor = ((ROAD.network.capacity / capacity.numpy()) ** 4)[:, :, None]
    learned = torch.as_tensor(factor).requires_grad_()
    cost = task.model(d)
    true = PolynomialCost(
        constant=cost.constant,
        coefficient=task.model.start * learned,
        scale=cost.scale,
        power=cost.power,
        limit=cost.limit,
    )
    with torch.no_grad():
        x = task.layer(true).x
    loss = task.loss(il2o.Inference(x=x, data=true), (d, flow, capacity))
    (gradient,) = torch.autograd.grad(loss, learned)
    assert abs(float(loss.detach())) < 1e-8
    assert float(gradient.abs().max()) < 1e-5


def test_other_trips_and_closed_roads_change_the_equilibrium_and_keep_its_constraints():
    task = EquilibriumTask(road=ROAD)
    d = torch.full((2, 5), 0.1)
    closed = torch.tensor([True, False, False, False, False])
    found = task.equilibria(d, trips=torch.as_tensor(1.2 * ROAD.network.trips), closed=closed)
    assert float(found.x[:, 0].abs().max()) == 0.0
    assert gaps.conservation_violation(ROAD.network.scaled(1.2), found.x.detach().numpy()).max() < 1e-3


def test_connectors_keep_their_own_law():
    network = TrafficNetwork(
        name="connector",
        nodes=3,
        zones=3,
        first_thru=0,
        tail=np.array([0, 0, 1]),
        head=np.array([1, 1, 2]),
        free_flow_time=np.array([1.0, 1.0, 0.0]),
        capacity=np.ones(3),
        b=np.array([1.0, 1.0, 0.0]),
        power=np.full(3, 4.0),
        trips=np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
    )
    road = Road("test")
    road.__dict__["contexts"] = contexts(network)
    model = LatencyNetwork(road)
    with torch.no_grad():
        model.body.offset += 1.0
    cost = model(torch.zeros(1, 10))
    flow = torch.ones(1, 3, dtype=torch.float64)
    times = torch.as_tensor(road.latency.value(np.ones((1, 3))))
    assert cost.power == (1.0, 4.0)
    torch.testing.assert_close(cost.apply(flow)[:, 2], times[:, 2])
    assert float(cost.apply(flow).detach()[0, 0]) > 1.5 * float(times[0, 0])
    with pytest.raises(ValueError, match="one power of the network's links among powers"):
        LatencyNetwork(road, powers=(2.0,))


@given(seed=st.integers(0, 100))
def test_scores_are_what_they_say(seed):
    rng = np.random.default_rng(seed)
    x, v = rng.uniform(0.9, 1.1, (2, 7, 3))
    relative = np.abs(x - v) / (np.abs(v) + 1e-3)
    for metric, expected in (
        (Trafix(5e-2), 100 * (relative < 5e-2).mean()),
        (RelativeError(), (np.linalg.norm(x - v, axis=1) / np.linalg.norm(v, axis=1)).mean()),
        (SquaredError(), ((x - v) ** 2).mean()),
    ):
        metric.update(torch.as_tensor(x[:3]), torch.as_tensor(v[:3]))
        metric.update(torch.as_tensor(x[3:]), torch.as_tensor(v[3:]))
        assert float(metric.compute()) == pytest.approx(expected)


def test_certificates_tell_an_equilibrium_from_another_flow():
    task = EquilibriumTask(road=ROAD)
    with torch.no_grad():
        inference = task.infer(torch.zeros(1, 5))
    report = il2o.certify(task.certificates(), inference)
    assert [c.name for c in task.certificates()] == [WARDROP, CONSERVATION, NEGATIVE]
    assert report.worst.tolist() == [il2o.Label.PASS]
    skewed = il2o.Inference(x=inference.x * torch.tensor([1.1, 1.1, 1.0, 1.0, -1.0]), data=inference.data)
    assert il2o.certify(task.certificates()[1:], skewed).labels.tolist() == [[il2o.Label.FAIL, il2o.Label.FAIL]]
    assert bool(torch.isnan(WardropGap(ROAD.network)(il2o.Inference(x=inference.x))).all())


def test_the_command_writes_what_the_check_computes_again(tmp_path, cache):
    options = ["toy", "--seconds", "0.2", "--train", "20", "--validation", "5", "--test", "6", "--cache", cache]
    folders = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--assets", str(tmp_path / "assets")]
    assert command.main([*options, *folders]) == 0
    result = json.loads((tmp_path / "traffic_toy.json").read_text())
    assert set(result["methods"]) == {*comparison.METHODS, "constant"}
    assert all(result["methods"][name]["converged"] == [1.0] for name in ("latency", "latency_jfb", "affine_jfb"))
    assert len(list((tmp_path / "assets").glob("*.svg"))) == 4
    check = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    assert check_traffic.main(check) == 0
    result["methods"]["latency"]["closed/wardrop_gap"][0] += 1e-3
    (tmp_path / "traffic_toy.json").write_text(json.dumps(result))
    assert check_traffic.main(check) == 1


def test_a_network_without_coordinates_is_laid_out_by_distance():
    network = TrafficNetwork(
        name="line",
        nodes=3,
        zones=3,
        first_thru=0,
        tail=np.array([0, 1]),
        head=np.array([1, 2]),
        free_flow_time=np.ones(2),
        capacity=np.ones(2),
        b=np.ones(2),
        power=np.ones(2),
        trips=np.zeros((3, 3)),
    )
    at = figures.places(network)
    apart = np.linalg.norm(at[:, None] - at[None], axis=-1)
    assert apart[0, 2] == pytest.approx(apart[0, 1] + apart[1, 2], rel=1e-6)


def test_the_report_draws_a_sample():
    figure = Figure()
    sample = {"inputs": torch.zeros(5), "answer": torch.rand(5), "target": torch.rand(5)}
    FlowTask(road=ROAD).draw(figure, sample)
    assert len(figure.axes) == 3


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("traffic_*.yaml")), ids=lambda path: path.stem)
def test_experiments_name_one_network(path):
    config = yaml.safe_load(path.read_text())
    roads = [config["model"]["init_args"]["road"], config["data"]["init_args"]["road"]]
    roads += [b["init_args"]["task"]["init_args"]["road"] for b in config["baselines"].values()]
    assert all(road == roads[0] for road in roads)
    assert roads[0]["name"] in command.SIZES


@pytest.mark.bad_input
def test_bad_input_is_refused():
    with pytest.raises(ValueError, match='"latency" or "affine"'):
        EquilibriumTask(road=ROAD, form="cubic")
    with pytest.raises(ValueError, match='"fenchel_young" or "solution"'):
        EquilibriumTask(road=ROAD, loss="regret")
    with pytest.raises(ValueError, match="tolerance > 0; got tolerance=0"):
        EquilibriumTask(road=ROAD, tolerance=0.0)
    with pytest.raises(ValueError, match="0 < training_gap < 1; got training_gap=0"):
        EquilibriumTask(road=ROAD, training_gap=0.0)
    with pytest.raises(ValueError, match="0 < share < 1; got share=1"):
        AffineNetwork(ROAD, share=1.0)
    with pytest.raises(ValueError, match="within > 0; got 0"):
        Trafix(0.0)
