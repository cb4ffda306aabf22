"""Shortest paths from costs, the other methods, large grids, the study of backward modes, the independent check."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import yaml

import implicit_l2o as il2o
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.losses import normalized_regret, regret, spo_plus

pytest.importorskip("lightning")
pytest.importorskip("matplotlib")
pytest.importorskip("numba")

from implicit_l2o.applications.shortest_path import (
    CostPathTask,
    CvxpyTask,
    Floor,
    LinearPathData,
    PathData,
    PathTask,
    Polynomial,
    PyEPOTask,
    TimedTraining,
    TwoStageTask,
    backward_study,
)
from implicit_l2o.applications.shortest_path.baselines import monomials
from implicit_l2o.applications.shortest_path.costs import relative_error
from implicit_l2o.applications.shortest_path.model import path_layer, path_program
from implicit_l2o.training import Optimization, Trained

ROOT = Path(__file__).parents[2]
SIDES = (5, 10, 15, 20, 25, 30)


def data(side=3, seed=0, **options):
    return PathData(side=side, seed=seed, **{"train": 200, "validation": 50, "test": 200, **options})


def excess(baseline, splits, task):
    contexts, paths, costs, mean = splits.test.tensors
    decided = task.answer(baseline.infer((contexts, paths, costs, mean)))
    best = task.grid.shortest_paths(mean)
    return float(regret(decided, mean, best).sum() / (costs * paths).sum())


# --- the program and the data ---


def test_the_incidence_matrix_is_sparse_and_the_constraints_dense():
    grid = Grid(4)
    A, b = grid.flow_constraints()
    assert grid.incidence().nnz == 2 * grid.n_arcs
    torch.testing.assert_close(A, torch.from_numpy(grid.incidence().toarray()).float())
    assert b.sum() == 0
    assert torch.equal(b, grid.supply())
    assert bool((path_program(grid).violation(grid.shortest_paths(torch.rand(5, grid.n_arcs))) == 0).all())


def test_degree_and_noise_reach_the_generator():
    noiseless = data(degree=6, noise=0.0).splits.test.tensors
    torch.testing.assert_close(noiseless[2], noiseless[3])
    assert not torch.equal(data(degree=4).splits.test.tensors[3], noiseless[3])


def test_linear_costs_have_no_floor():
    contexts, paths, costs, mean = LinearPathData(side=4, train=4, validation=4, test=20, seed=1).splits.test.tensors
    assert torch.equal(costs, mean)
    assert bool((costs >= 0).all())
    assert bool((contexts <= 1).all())
    assert float(normalized_regret(Grid(4).shortest_paths(mean), costs, paths)) == 0.0
    assert torch.linalg.matrix_rank(costs.double(), rtol=1e-5) == 5


# --- losses from costs ---


def test_the_layers_spo_plus_is_spo_plus_as_gamma_vanishes():
    task = CostPathTask(side=3, gamma=1e-3, training_tolerance=1e-5, regression=0.0)
    grid, costs = task.grid, torch.rand(6, 12) + 0.5
    paths = grid.shortest_paths(costs)
    w = (costs + torch.randn(6, 12)).requires_grad_()
    loss = task.loss(il2o.Inference(x=w), (torch.zeros(6, 5), paths, costs))
    torch.testing.assert_close(loss, spo_plus(grid.shortest_paths, w, costs, paths).mean(), atol=5e-3, rtol=0.0)
    gradient = torch.autograd.grad(loss, w)[0] * 6
    torch.testing.assert_close(gradient, 2 * (paths - grid.shortest_paths(2 * w.detach() - costs)), atol=5e-2, rtol=0.0)


def test_the_layers_spo_plus_has_the_gradient_of_danskin():
    task = CostPathTask(side=3, gamma=1.0, training_tolerance=1e-5, regression=0.0, decision=0.5)
    costs = torch.rand(6, 12) + 0.5
    paths = task.grid.shortest_paths(costs)
    w = torch.rand(6, 12).requires_grad_()
    loss = task.loss(il2o.Inference(x=w), (torch.zeros(6, 5), paths, costs))
    x = path_layer(path_program(task.grid), gamma=1.0, tolerance=1e-5)(2 * w.detach() - costs).x
    torch.testing.assert_close(torch.autograd.grad(loss, w)[0], (paths - x) / 6, atol=1e-4, rtol=0.0)


def test_the_regret_of_the_layer_is_differentiated():
    task = CostPathTask(side=3, loss="regret", regression=0.0, backward=il2o.Implicit(), training_tolerance=1e-5)
    costs = torch.rand(6, 12) + 0.5
    paths, w = task.grid.shortest_paths(costs), torch.rand(6, 12).requires_grad_()
    loss = task.loss(il2o.Inference(x=w), (torch.zeros(6, 5), paths, costs))
    x = path_layer(path_program(task.grid), tolerance=1e-5)(w).x
    torch.testing.assert_close(loss, regret(x, costs, paths).mean(), atol=1e-4, rtol=0.0)
    assert float(torch.autograd.grad(loss, w)[0].abs().max()) > 1e-3


def test_the_regression_is_the_quasi_likelihood():
    w, c = torch.tensor([[2.0, 0.1]], requires_grad=True), torch.tensor([[1.0, 1.0]])
    (gradient,) = torch.autograd.grad(relative_error(w, c, 0.5).sum(), w)
    torch.testing.assert_close(gradient, torch.tensor([[1 / 4, -0.9 / 0.25]]))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, 'loss must be "regret" or "spo_plus"; got \'mse\''),
        ({"decision": -1.0}, "decision >= 0; got decision=-1.0"),
        ({"least": 0.0}, "least > 0; got least=0.0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CostPathTask(side=3, **options)


@pytest.mark.parametrize("options", [{}, {"loss": "regret", "backward": il2o.Neumann(5)}], ids=["SPO+", "regret"])
def test_learning_from_costs(options):
    torch.manual_seed(0)
    task = CostPathTask(side=3, optimization=Optimization(learning_rate=2e-2, weight_decay=0.1), **options)
    trained, three = Trained(task, epochs=10), data()
    before = excess(Trained(CostPathTask(side=3)), three.splits, task)
    trained.prepare(task, three, name="costs", progress=False)
    assert excess(trained, three.splits, task) < 0.1 * before


# --- baselines ---


def test_the_well_specified_model_finds_a_polynomial():
    three = data(noise=0.0, train=400)
    model = Polynomial()
    model.prepare(PathTask(side=3), three, name="polynomial", progress=False)
    assert excess(model, three.splits, PathTask(side=3)) < 2e-4
    assert model.numbers()["rank"] <= 12


def test_monomials_are_the_features_of_the_kernel():
    d, e = torch.randn(4, 3), torch.randn(5, 3)
    phi = [monomials(z, 3, 7.0) for z in (d, e)]
    torch.testing.assert_close(1 + phi[0] @ phi[1].T, (1 + d.double() @ e.double().T / 7.0) ** 3)


@pytest.mark.bad_input
@pytest.mark.parametrize("baseline", [Floor(), Polynomial()])
def test_bounds_are_of_paths_alone(baseline):
    with pytest.raises(TypeError, match="a baseline of PathTask and CostPathTask; got TwoStageTask"):
        baseline.prepare(TwoStageTask(side=3), data(), name="bound", progress=False)


def test_pyepos_losses_are_the_papers():
    pytest.importorskip("pyepo")
    from implicit_l2o.interop.pyepo import PFYL

    grid, costs = Grid(3), torch.rand(6, 12) + 0.5
    w, paths = torch.rand(6, 12).requires_grad_(), grid.shortest_paths(costs)
    batch = (torch.zeros(6, 5), paths, costs)
    loss = PyEPOTask(side=3).loss(il2o.Inference(x=w), batch)
    torch.testing.assert_close(loss, spo_plus(grid.shortest_paths, w, costs, paths).mean(), atol=1e-5, rtol=1e-5)
    young = PyEPOTask(side=3, criterion=PFYL(samples=2, sigma=1.0)).loss(il2o.Inference(x=w), batch)
    assert float(torch.autograd.grad(young, w)[0].abs().sum()) > 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of cvxpylayers
def test_cvxpylayers_solve_the_same_problem_until_their_time_is_up():
    pytest.importorskip("cvxpylayers")
    task = CvxpyTask(side=3, gamma=0.7, optimization=Optimization(learning_rate=1e-2, schedule="constant"))
    w = torch.rand(4, 12)
    ours = path_layer(path_program(Grid(3)), gamma=0.7, tolerance=1e-6)(w).x
    torch.testing.assert_close(task._layer(w.requires_grad_()).float(), ours, atol=1e-3, rtol=0.0)
    timed = TimedTraining(task, seconds=0.05, epochs=500, batch_size=50)
    timed.prepare(PathTask(side=3), data(), name="cvxpylayers", progress=False)
    assert 0 < timed.numbers()["epochs"] < 100
    assert timed.infer(data().splits.test.tensors).x.shape == (200, 12)


# --- the experiments ---


@pytest.mark.parametrize("side", SIDES)
def test_a_grid_is_the_same_for_every_method(side):
    config = yaml.safe_load((ROOT / "experiments" / f"shortest_path_grid_{side}.yaml").read_text())
    tasks = [config["model"], *(b["init_args"]["task"] for b in config["baselines"].values() if "init_args" in b)]
    assert {task["init_args"]["side"] for task in tasks} == {side} == {config["data"]["init_args"]["side"]}
    assert all(task["init_args"].get("hidden", 50) == 50 for task in tasks)
    layered = [task["init_args"] for task in tasks if task["class_path"].endswith("CvxpyTask")]
    assert layered[0]["gamma"] == config["model"]["init_args"]["gamma"]


CONFIGURATION = """
seed_everything: 3
model:
  class_path: implicit_l2o.applications.shortest_path.PathTask
  init_args: {side: 3, copies: 1, loss: fenchel_young}
data:
  class_path: implicit_l2o.applications.shortest_path.PathData
  init_args: {side: 3, degree: 6, train: 60, validation: 20, test: 40}
trainer: {max_epochs: 1, accelerator: cpu}
calibration: {split: train, p_pass: 0.9, p_warn: 0.05, p_fail: 0.05}
baselines:
  floor: {class_path: implicit_l2o.applications.shortest_path.Floor}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from implicit_l2o.experiment.run import Options
    from implicit_l2o.experiment.run import run as il2o_run

    folder = tmp_path_factory.mktemp("run")
    (folder / "paths.yaml").write_text(CONFIGURATION)
    il2o_run(Options(config=[folder / "paths.yaml"], folder=folder / "run", progress=False))
    return folder / "run"


def check_paths():
    spec = importlib.util.spec_from_file_location("check_paths", ROOT / "scripts" / "check_paths.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_figures_follow_from_the_predictions(run, capsys):
    assert check_paths().main([str(run)]) == 0
    assert "7 of 7 figures agree" in capsys.readouterr().out


def test_a_wrong_figure_is_found(run, capsys):
    results = run / "results.json"
    before = results.read_text()
    record = json.loads(before)
    record["test"]["floor"]["regret"] += 1e-3
    results.write_text(json.dumps(record))
    assert check_paths().main([str(run)]) == 1
    results.write_text(before)
    assert "floor: regret" in capsys.readouterr().out


def test_the_study_of_backward_modes_runs(tmp_path):
    options = ["--out", str(tmp_path), "--side", "3", "--epochs", "1", "--seeds", "0", "1"]
    assert backward_study.main([*options, "--only", "normalised costs", "regret loss, perturbed, 1.5"]) == 0
    record = json.loads((tmp_path / "shortest_path_backward_3.json").read_text())
    assert [(t["varied"], t["mode"]) for t in record["trainings"]] == [
        ("normalised costs", "JFB"),
        ("normalised costs", "exact"),
        ("regret loss, perturbed, 1.5", "JFB"),
        ("regret loss, perturbed, 1.5", "exact"),
    ]
    assert all(len(t["course"]["excess"]) == 2 and t["numbers"]["regret"][0] > 0 for t in record["trainings"])
