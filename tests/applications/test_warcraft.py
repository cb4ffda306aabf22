"""Warcraft maps: the folder layout, the drawn maps, flows between neighbours, and that every method learns."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.optimize import linprog
from torch.utils.data import TensorDataset

import implicit_l2o as il2o

pytest.importorskip("lightning")
pytest.importorskip("numba")

import check_warcraft

from implicit_l2o.applications.warcraft import (
    PatchNetwork,
    ResNetStem,
    TwoStageTask,
    WarcraftData,
    WarcraftTask,
    comparison,
)
from implicit_l2o.applications.warcraft import __main__ as command
from implicit_l2o.applications.warcraft.metrics import CostRatio, ExactRate, IdenticalRate, NormalizedRegret
from implicit_l2o.applications.warcraft.model import LEAST, perturb
from implicit_l2o.data.warcraft import CellGrid, Maps, generate, load, path_costs, save
from implicit_l2o.training import AbstractData, Calibration, Optimization, Samples, Splits, fit
from implicit_l2o.training.calibrate import calibrate_task

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SMALL = PatchNetwork(width=8)

# --- the grid ---


@given(side=st.integers(2, 14))
def test_arcs_join_every_cell_to_its_neighbours(side):
    arcs = CellGrid(side).arcs
    expected = {
        (i * side + j, k * side + l)
        for i in range(side)
        for j in range(side)
        for k in range(max(0, i - 1), min(side, i + 2))
        for l in range(max(0, j - 1), min(side, j + 2))
        if (i, j) != (k, l)
    }
    assert {(int(a), int(b)) for a, b in arcs} == expected
    assert len(arcs) == len(expected) == CellGrid(side).n_arcs


def test_there_are_1012_arcs_between_144_cells():
    lp = CellGrid().program()
    assert (lp.n, lp.m_eq) == (1012, 144)


@given(seed=st.integers(0, 1000), side=st.integers(2, 8))
def test_paths_are_the_cheapest_by_a_linear_program(seed, side):
    grid = CellGrid(side)
    costs = 0.1 + torch.rand(1, side, side, generator=torch.Generator().manual_seed(seed))
    lp = grid.program()
    arcs = grid.arc_costs(costs)
    best = linprog(arcs[0].double().numpy(), A_eq=lp.A_eq, b_eq=lp.b_eq.numpy(), bounds=(0, None))
    path = grid.shortest_paths(costs)
    assert float(path_costs(path, costs)) == pytest.approx(best.fun, rel=1e-5)
    assert check_warcraft.cheapest(costs[0].double().numpy()) == pytest.approx(best.fun, rel=1e-5)
    assert check_warcraft.leads_through(path[0].numpy() > 0.5)


@given(seed=st.integers(0, 1000))
def test_the_cells_of_a_path_say_its_arcs(seed):
    grid = CellGrid(7)
    costs = 0.1 + torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(seed))
    x = grid.decoder(grid.arc_costs(costs))
    assert torch.equal(grid.path_arcs(grid.cells(x)), x)
    assert float(lp_violation(grid, x)) < 1e-6


def lp_violation(grid, x):
    return grid.program().violation(x).max()


def test_the_layer_answers_with_the_flow_of_an_independent_solver():
    cp = pytest.importorskip("cvxpy")
    grid = CellGrid(5)
    lp, costs = grid.program(), 0.1 + torch.rand(1, 5, 5, generator=torch.Generator().manual_seed(1))
    c = grid.arc_costs(costs).double()
    x = cp.Variable(lp.n)
    objective = cp.Minimize(c[0].numpy() @ x + 0.5 * cp.sum_squares(x))
    cp.Problem(objective, [lp.A_eq @ x == lp.b_eq.numpy(), x >= 0]).solve(solver=cp.CLARABEL)
    found = il2o.LPLayer(lp, gamma=1.0, polish=True)(c).x
    np.testing.assert_allclose(found[0].numpy(), x.value, atol=2e-5)


# --- the maps ---


def test_maps_follow_from_their_seed():
    first, again, other = (generate(3, seed=seed) for seed in (5, 5, 6))
    for part in ("images", "costs", "paths"):
        assert torch.equal(getattr(first, part), getattr(again, part))
    assert not torch.equal(first.images, other.images)
    assert first.images.dtype == torch.uint8
    assert torch.isin(first.costs, torch.tensor([0.8, 1.2, 5.3, 7.7, 9.2])).all()
    assert not torch.equal(generate(2, seed=(5, 0)).costs, generate(2, seed=(5, 1)).costs)


def test_terrain_is_coherent_and_colour_alone_does_not_tell_it():
    maps = generate(150, seed=0)
    costs = maps.costs
    assert 0.45 < float((costs[:, 1:] == costs[:, :-1]).double().mean()) < 0.9  # 0.2 if cells were drawn one by one
    assert all(0.1 < float((costs == cost).double().mean()) < 0.4 for cost in costs.unique())
    colour = maps.images.double().unflatten(1, (12, 8)).unflatten(3, (12, 8)).mean((2, 4)).reshape(-1, 3) / 128
    kinds = torch.nn.functional.one_hot(costs.flatten().unique(return_inverse=True)[1], 5).double()
    terms = torch.cat([colour, colour**2, torch.ones(len(colour), 1)], 1)
    half = len(terms) // 2
    table = torch.linalg.lstsq(terms[:half], kinds[:half]).solution
    told = (terms[half:] @ table).argmax(1)
    assert 0.6 < float((told == kinds[half:].argmax(1)).double().mean()) < 0.92
    paths = CellGrid().shortest_paths(costs.unique()[told].unflatten(0, (-1, 12, 12)))
    extra = path_costs(paths, costs[75:]) / path_costs(maps.paths[75:], costs[75:]) - 1
    assert float((extra < 1e-5).double().mean()) < 0.5


def test_a_folder_is_read_as_it_was_written(tmp_path):
    maps = generate(4, seed=2)
    for split in ("train", "val", "test"):
        save(tmp_path, split, maps)
    again = load(tmp_path, "val")
    for part in ("images", "costs", "paths"):
        assert torch.equal(getattr(maps, part), getattr(again, part))
    splits = WarcraftData(folder=str(tmp_path), train=3, validation=2, test=4).splits
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [3, 2, 4]
    assert torch.equal(splits.train.tensors[0], maps.images[:3])
    with pytest.raises(ValueError, match="has 4 maps of split train; got 9"):
        _ = WarcraftData(folder=str(tmp_path), train=9, validation=2, test=4).splits


def test_the_public_layout_is_read(tmp_path):
    """The dtypes of the published files: bytes, half precision, bytes."""
    maps = generate(2, seed=3)
    np.save(tmp_path / "test_maps.npy", maps.images.numpy())
    np.save(tmp_path / "test_vertex_weights.npy", maps.costs.numpy().astype(np.float16))
    np.save(tmp_path / "test_shortest_paths.npy", maps.paths.numpy().astype(np.uint8))
    read = load(tmp_path, "test")
    assert read.costs.dtype == read.paths.dtype == torch.float32
    torch.testing.assert_close(read.costs, maps.costs, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["train_maps.npy", "train_vertex_weights.npy", "train_shortest_paths.npy"])
def test_a_missing_file_is_named_with_its_source(tmp_path, name):
    save(tmp_path, "train", generate(1, seed=0))
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing: .*doi.org/10.17617/3.YJCQ5S"):
        load(tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "maps",
            np.zeros((1, 96, 96), np.uint8),
            r"train_maps.npy needs bytes \(N, h, w, 3\); got uint8 \(1, 96, 96\)",
        ),
        ("maps", np.zeros((1, 96, 96, 3)), "needs bytes .* got float64"),
        ("maps", np.zeros((1, 96, 80, 3), np.uint8), "8 side, 8 side, 3"),
        ("vertex_weights", np.ones((1, 12, 11)), r"needs numbers \(1, 12, 12\); got float64 \(1, 12, 11\)"),
        ("vertex_weights", np.zeros((1, 12, 12)), "needs positive costs; got 0.0 to 0.0"),
        ("shortest_paths", np.ones((2, 12, 12)), r"needs numbers \(1, 12, 12\)"),
        ("shortest_paths", np.full((1, 12, 12), 2), "needs zeros and ones; got 2 to 2"),
    ],
)
def test_other_contents_are_named(tmp_path, name, array, message):
    save(tmp_path, "train", generate(1, seed=0))
    np.save(tmp_path / f"train_{name}.npy", array)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, "train")


def test_a_truncated_file_is_named(tmp_path):
    save(tmp_path, "train", generate(1, seed=0))
    (tmp_path / "train_maps.npy").write_bytes((tmp_path / "train_maps.npy").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"train_maps.npy is no array of NumPy, or it is truncated"):
        load(tmp_path, "train")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CellGrid(1), "side >= 2; got side=1"),
        (lambda: generate(0, seed=0), "count >= 1; got count=0"),
        (lambda: load(".", "validation"), "one of train, val, test; got 'validation'"),
        (lambda: WarcraftTask(loss="regret"), 'must be "solution" or "fenchel_young"; got \'regret\''),
        (lambda: WarcraftTask(gamma=0.0), "gamma > 0; got gamma=0.0"),
        (lambda: WarcraftTask(training_tolerance=0.0), "training_tolerance > 0; got training_tolerance=0.0"),
        (lambda: WarcraftTask(perturbation=-1.0), "perturbation >= 0; got perturbation=-1.0"),
        (lambda: WarcraftTask(level=0.0), "level > 0; got level=0.0"),
        (lambda: WarcraftTask(copies=0), "copies >= 1; got copies=0"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- the model ---


@pytest.mark.parametrize("spec", [SMALL, ResNetStem(width=4)])
def test_networks_see_images_alone_and_give_positive_costs(spec):
    images = generate(2, seed=0).images
    network = spec.build(12, seed=1)
    costs = network(images)
    assert costs.shape == (2, 12, 12)
    assert float(costs.detach().min()) > LEAST
    assert torch.equal(spec.build(12, seed=1)(images), costs)


def test_the_published_network_has_its_size():
    """ResNet18's stem and first stage, 157,504 weights, and 65 of the 1x1 convolution."""
    assert sum(p.numel() for p in ResNetStem().build(12).parameters()) == 157_504 + 65


def test_the_patch_network_looks_no_further_than_the_neighbours():
    network, image = SMALL.build(12, seed=0), generate(1, seed=0).images
    other = image.clone()
    other[:, 40:48, 40:48] = 255  # cell (5, 5)
    changed = (network(image) != network(other))[0].nonzero()
    assert set(map(tuple, changed.tolist())) <= {(i, j) for i in (4, 5, 6) for j in (4, 5, 6)}
    assert len(changed) > 1


def test_perturbed_costs_stay_positive_and_hand_on_every_gradient():
    torch.manual_seed(0)
    w = (0.1 + torch.rand(5, 3, 3)).requires_grad_()
    noisy = perturb(w, 1.0, 4)
    assert noisy.shape == (20, 3, 3)
    assert float(noisy.detach().min()) == pytest.approx(LEAST)
    assert torch.equal(torch.autograd.grad(noisy.sum(), w)[0], torch.full_like(w, 4.0))
    assert torch.equal(perturb(w, 0.0, 2), w.repeat(2, 1, 1))


def test_metrics_are_what_they_say():
    costs = torch.tensor([[[9.0, 1.0], [1.0, 2.0]], [[9.0, 2.0], [6.0, 4.0]]])
    best = torch.eye(2).expand(2, 2, 2)
    around = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])
    decided = torch.cat([best[:1], around])
    values = {}
    for make in (NormalizedRegret, CostRatio, ExactRate, IdenticalRate):
        metric = make()
        for i in range(2):
            metric.update(decided[i : i + 1], costs[i : i + 1], best[i : i + 1])
        values[make] = float(metric.compute())
    expected = {NormalizedRegret: 2 / 6, CostRatio: 1.25, ExactRate: 0.5, IdenticalRate: 0.5}
    assert values == pytest.approx(expected)
    metric = ExactRate()
    metric.update(around, torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), best[:1])  # other cells, the same cost
    assert float(metric.compute()) == 1.0


def test_the_losses_are_what_they_say():
    """By hand, from the answers of a tight solve."""
    images, paths = (part[:3] for part in (MAPS.images, MAPS.paths))
    torch.manual_seed(0)
    losses = {}
    for loss in ("fenchel_young", "solution"):
        task = WarcraftTask(network=SMALL, loss=loss, gamma=1.0, training_tolerance=1e-3)
        losses[loss] = task.loss(task.training_inference(images), (images, paths)).item()
    x, w = task.infer(images).x, task.grid.arc_costs(task.costs(images))
    y = task.grid.path_arcs(paths)
    young = ((w * (y - x)).sum(1) + 0.5 * (y.square() - x.square()).sum(1)).mean()
    assert losses["fenchel_young"] == pytest.approx(young.item(), abs=5e-3)
    occupancy = (task.grid.cells(x) - paths).square().sum((1, 2)).mean()
    assert losses["solution"] == pytest.approx(occupancy.item(), abs=5e-3)


# --- training ---

MAPS = generate(200, seed=7)
OPTIMIZATION = Optimization(learning_rate=1e-2)


class SmallData(AbstractData):
    """140 maps to learn from, 30 to choose by, 30 to test."""

    def load(self):
        return Splits(*(TensorDataset(*part) for part in self._parts()))

    def _parts(self):
        cuts = [part.split([140, 30, 30]) for part in (MAPS.images, MAPS.paths, MAPS.costs)]
        return zip(*cuts, strict=True)


class OtherCosts(SmallData):
    """The same with costs that have nothing to do with the maps."""

    def _parts(self):
        return [(images, paths, torch.rand_like(costs)) for images, paths, costs in super()._parts()]


@pytest.fixture(scope="module")
def outcome():
    """The trained task, its data, and the examined test maps."""
    torch.manual_seed(0)
    data = SmallData(batch_size=35)
    task = WarcraftTask(network=SMALL, optimization=OPTIMIZATION)
    fit(task, data, epochs=8, progress=False)
    calibrate_task(task, data, Calibration(p_pass=0.8, p_warn=0.1, p_fail=0.1))
    batch = data.splits.test.tensors
    names = tuple(certificate.name for certificate in task.all_certificates())
    return task, data, Samples(names=names, batch=batch, **task.examine(batch[0], batch))


def test_training_learns(outcome):
    task, data, samples = outcome
    _, paths, costs = samples.batch
    best = path_costs(paths, costs).sum()
    constant = task.constant(data.splits.train).expand_as(paths)
    trained, same = (float(path_costs(part, costs).sum() / best - 1) for part in (samples.answer, constant))
    assert 0 <= trained < 0.6 * same


def test_answers_are_flows_and_certified(outcome):
    task, data, samples = outcome
    found = task.findings(samples, data.splits)
    assert found["max_constraint_violation"] < 1e-4
    assert (samples.status == il2o.Status.CONVERGED).all()
    assert samples.error is not None
    assert float(samples.error.min()) > -1e-6
    assert samples.names[-1] == "flow off the path"
    assert 0 <= float(samples.values[:, -1].min()) <= float(samples.values[:, -1].max()) <= 1
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("loss", ["solution", "fenchel_young"])
def test_costs_do_not_reach_the_training_from_paths(loss):
    weights = []
    for make in (SmallData, OtherCosts):
        torch.manual_seed(0)
        task = WarcraftTask(network=SMALL, loss=loss, gamma=1.0, optimization=OPTIMIZATION)
        fit(task, make(batch_size=70), epochs=1, progress=False)
        weights.append(torch.cat([p.flatten() for p in task.parameters()]))
    assert torch.equal(*weights)


def test_a_model_and_its_baselines_start_from_the_same_weights():
    torch.manual_seed(3)
    first = WarcraftTask(network=SMALL, level=None).costs(MAPS.images[:2])
    torch.rand(7)
    assert torch.equal(first, TwoStageTask(network=SMALL).costs(MAPS.images[:2]))


def test_figures_are_drawn(outcome, tmp_path):
    task, data, samples = outcome
    drawn = task.figures(samples, data.splits)
    assert list(drawn) == ["Paths", "Doubt"]
    for name, (figure, caption) in drawn.items():
        figure.savefig(tmp_path / f"{name}.svg")
        assert caption.endswith(".")
    for known in ({"target": samples.batch[1][0]}, {}):
        figure = Figure(layout="constrained")
        task.draw(figure, {"inputs": samples.batch[0][0], "answer": samples.answer[0], **known})
        figure.savefig(tmp_path / "example.svg")


# --- the comparison ---


def test_the_table_agrees_with_an_independent_computation(tmp_path, capsys):
    pytest.importorskip("pyepo")
    sizes = ("--train", "70", "--validation", "20", "--test", "12", "--epochs", "1", "--seeds", "4")
    places = ("--runs", str(tmp_path / "runs"), "--out", str(tmp_path))
    assert command.main((*sizes, *places)) == 0
    table = json.loads((tmp_path / "warcraft.json").read_text())
    assert set(table["methods"]) == {*comparison.METHODS, *comparison.REFERENCES}
    arguments = [str(tmp_path / "runs"), "--results", str(tmp_path / "warcraft.json")]
    assert check_warcraft.main(arguments) == 0
    table["methods"]["pyepo_dbb"]["exact"][0] += 1e-3
    (tmp_path / "warcraft.json").write_text(json.dumps(table))
    assert check_warcraft.main(arguments) == 1
    assert "seed 4: pyepo_dbb: exact is" in capsys.readouterr().out


def test_a_broken_path_is_found():
    path = CellGrid(6).shortest_paths(torch.ones(1, 6, 6))[0].numpy() > 0.5
    assert check_warcraft.leads_through(path)
    for cell, value in (((0, 0), False), ((3, 3), False), ((0, 5), True)):
        broken = path.copy()
        broken[cell] = value
        assert not check_warcraft.leads_through(broken)


def test_the_paper_experiment_differs_in_what_it_is_named_for():
    small, paper = (
        yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text()) for name in ("warcraft", "warcraft_paper")
    )
    assert small["calibration"] == paper["calibration"]
    ours, theirs = (config["model"]["init_args"] for config in (small, paper))
    assert theirs.pop("network")["class_path"].endswith("ResNetStem")
    assert ours.pop("network")["class_path"].endswith("PatchNetwork")
    assert theirs["optimization"].pop("learning_rate") == 5e-4
    ours["optimization"].pop("learning_rate")
    assert ours == theirs
    assert paper["trainer"]["max_epochs"] == 50


def test_maps_have_a_length():
    assert len(MAPS) == 200
    assert isinstance(MAPS, Maps)


def test_costs_have_the_mean_that_is_asked_for():
    network = SMALL.build(12, level=2.0, seed=0)
    costs = network(MAPS.images[:3]).detach()
    torch.testing.assert_close(costs.mean((1, 2)), torch.full((3,), 2.0))
    assert float(costs.min()) > 0
    plain = SMALL.build(12, seed=0)(MAPS.images[:3]).detach()
    torch.testing.assert_close(costs / costs.sum((1, 2), keepdim=True), plain / plain.sum((1, 2), keepdim=True))
