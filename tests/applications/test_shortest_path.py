import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from torch.utils.data import TensorDataset

import implicit_l2o as il2o
from implicit_l2o.data.shortest_path import Grid, draw, generate
from implicit_l2o.losses import normalized_regret

pytest.importorskip("lightning")
pytest.importorskip("matplotlib")

import lightning.pytorch as pl
from matplotlib.figure import Figure

from implicit_l2o.applications.shortest_path import Floor, PathData, PathTask, TwoStageTask
from implicit_l2o.applications.shortest_path.model import (
    Perturbation,
    cost_network,
    decide,
    path_layer,
    path_program,
)
from implicit_l2o.training import (
    AbstractData,
    Calibration,
    Constant,
    NormalizedRegret,
    Optimization,
    Samples,
    Splits,
    Trained,
    Untrained,
    fit,
)
from implicit_l2o.training.calibrate import calibrate_task

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

# --- data ---

# `pyepo.data.shortestpath.genData(3, 5, (3, 3), deg=4, noise_width=0.5, seed=135)` of PyEPO 2.2.7: the first sample.
CONTEXT = (0.207751316059934, 1.1291639532198128, -0.37793704197202116, 0.4167055984757437, 0.8136061249618199)
COSTS = (
    *(
        1.3663318157196045,
        1.6866437196731567,
        0.7106138467788696,
        1.3553378582000732,
        0.9570609927177429,
        0.5223029851913452,
    ),
    *(
        0.36361047625541687,
        2.0457024574279785,
        1.3535300493240356,
        0.66502445936203,
        0.7166790962219238,
        0.8654729127883911,
    ),
)


def test_data_are_pyepos():
    contexts, costs, _ = draw(3, n_arcs=12, degree=4, noise=0.5, seed=135)
    np.testing.assert_allclose(contexts[0], CONTEXT, rtol=1e-14)
    np.testing.assert_allclose(contexts[2, 4], 0.6756638448862327, rtol=1e-14)
    np.testing.assert_allclose(costs[0], COSTS, rtol=1e-7)  # PyEPO's costs are float32
    np.testing.assert_allclose(costs[2, 11], 0.36794096, rtol=1e-7)


def test_data_without_noise_are_pyepos_and_the_mean():
    """`genData(2, 5, (3, 3), deg=6, noise_width=0, seed=7)`."""
    _, costs, mean_costs = draw(2, n_arcs=12, degree=6, noise=0.0, seed=7)
    np.testing.assert_array_equal(costs, mean_costs)
    np.testing.assert_allclose(
        mean_costs[1, :3], [0.029555028304457664, 0.5651564002037048, 0.5651564002037048], rtol=1e-7
    )


def test_noise_is_around_the_conditional_mean():
    _, costs, mean_costs = draw(4000, n_arcs=12, noise=0.5, seed=0)
    ratio = costs / mean_costs
    assert ratio.min() >= 0.5
    assert ratio.max() <= 1.5
    np.testing.assert_allclose(ratio.mean(0), 1.0, atol=5 * 0.5 / math.sqrt(3 * 4000))


@pytest.mark.parametrize(("seed", "published"), [(0, 0.070), (1, 0.063), (2, 0.091)])
def test_the_floor_of_the_published_data(seed, published):
    """Data seeds 135 to 137."""
    data = PathData(seed=seed)
    assert [len(part) for part in (data.splits.train, data.splits.validation, data.splits.test)] == [1000, 200, 1000]
    task, floor = PathTask(), Floor()
    floor.prepare(task, data, name="floor", progress=False)
    assert scored(task, floor.infer, data.splits.test) == pytest.approx(published, abs=5e-4)


def scored(task, infer, part):
    """The regret of answers to a part of the data, in two batches."""
    metrics = task.fresh_metrics()
    for batch in zip(*(field.tensor_split(2) for field in part.tensors), strict=True):
        with torch.no_grad():
            task.update(metrics, infer(batch), batch)
    return float(metrics.compute()["regret"])


def test_a_run_has_data_of_its_own(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    small = {"side": 3, "train": 8, "validation": 4, "test": 4}
    drawn = generate(seed=138, **small)
    for data in (PathData(**small), PathData(**small, seed=3), PathData(**small, seed=0, first_data_seed=138)):
        for name in ("train", "validation", "test"):
            part = getattr(drawn, name)
            found = getattr(data.splits, name).tensors
            expected = (part.contexts, part.paths, part.costs, part.mean_costs)
            assert all(torch.equal(field, want) for field, want in zip(found, expected, strict=True))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Grid(1), "side >= 2; got side=1"),
        (lambda: draw(0, n_arcs=4), "n_samples >= 1; got n_samples=0"),
        (lambda: draw(1, n_arcs=4, noise=1.5), "0 <= noise <= 1; got noise=1.5"),
        (lambda: generate(train=0), "train >= 1; got train=0"),
        (lambda: Grid(3).shortest_paths(torch.ones(2, 5)), r"shape \(B, 12\); got \(2, 5\)"),
        (lambda: Grid(2).shortest_paths(torch.tensor([[1.0, 1.0, float("nan"), 1.0]])), "finite costs"),
        (lambda: path_layer(path_program(Grid(2)), gamma=0.0), "gamma > 0; got gamma=0.0"),
        (lambda: PathTask(tolerance=0.0), "tolerance > 0; got tolerance=0.0"),
        (lambda: PathTask(training_tolerance=-1.0), "training_tolerance > 0; got -1.0"),
        (lambda: PathTask(perturbation=-0.5), "scale >= 0; got scale=-0.5"),
        (lambda: PathTask(copies=0), "copies >= 1; got copies=0"),
        (lambda: PathTask(loss="regret"), 'loss must be "solution" or "fenchel_young"; got \'regret\''),
        (lambda: decide(Grid(2), il2o.Inference(x=torch.zeros(1, 4))), "'decide' needs the problem"),
    ],
)
def test_bad_sizes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- decoding ---


def paths_by_dijkstra(grid, costs):
    """One sample at a time; the costs are shifted to be positive, by which all paths, equally long, move alike."""
    paths = np.zeros(costs.shape)
    for path, cost in zip(paths, costs, strict=True):
        weights = cost - cost.min() + 1.0
        graph = csr_matrix((weights, grid.arcs.T), shape=(grid.side**2, grid.side**2))
        _, before = dijkstra(graph, indices=0, return_predecessors=True)
        node = grid.side**2 - 1
        while node:
            arc = np.flatnonzero((grid.arcs[:, 0] == before[node]) & (grid.arcs[:, 1] == node))
            path[arc] = 1.0
            node = before[node]
    return paths


@pytest.mark.parametrize("side", [2, 3, 5, 8])
@pytest.mark.parametrize("shift", [0.0, 3.0], ids=["either sign", "positive"])
def test_decoding_is_dijkstra(side, shift):
    grid = Grid(side)
    costs = torch.randn(40, grid.n_arcs, dtype=torch.float64) + shift
    np.testing.assert_array_equal(grid.shortest_paths(costs).numpy(), paths_by_dijkstra(grid, costs.numpy()))


def test_decoding_is_the_best_of_all_paths():
    grid = Grid(4)
    index = {tuple(arc): i for i, arc in enumerate(grid.arcs.tolist())}
    every = []
    for moves in set(itertools.permutations([1] * 3 + [4] * 3)):
        path, node = torch.zeros(grid.n_arcs), 0
        for move in moves:
            path[index[node, node + move]] = 1.0
            node += move
        every.append(path)
    every = torch.stack(every)
    assert len(every) == 20
    costs = torch.randn(100, grid.n_arcs)
    torch.testing.assert_close((grid.shortest_paths(costs) * costs).sum(1), (costs @ every.T).amin(1))


def test_paths_are_unit_flows():
    grid = Grid(5)
    A, b = grid.flow_constraints()
    paths = grid.shortest_paths(torch.rand(20, grid.n_arcs))
    torch.testing.assert_close(paths @ A.T, b.expand(20, -1), atol=0.0, rtol=0.0)
    assert int(torch.linalg.matrix_rank(A)) == 24


# --- model ---


def test_the_layer_solves_the_quadratic_program():
    """The variational inequality `<w + gamma x, p - x> >= 0` for every flow `p`; the worst `p` is a shortest path."""
    grid = Grid(4)
    w = torch.rand(10, grid.n_arcs) * 2
    x = path_layer(path_program(grid), gamma=0.5, tolerance=1e-5)(w).x
    A, b = grid.flow_constraints()
    torch.testing.assert_close(x @ A.T, b.expand(10, -1), atol=1e-4, rtol=0.0)
    assert (x >= 0).all()
    slope = w + 0.5 * x
    assert float((slope * (grid.shortest_paths(slope) - x)).sum(1).min()) > -1e-4


def test_a_small_gamma_gives_the_shortest_path():
    grid = Grid(3)
    w = torch.rand(20, grid.n_arcs)
    x = path_layer(path_program(grid), gamma=1e-3, tolerance=1e-4)(w).x
    cost = (x * w).sum(1)
    torch.testing.assert_close(cost, (grid.shortest_paths(w) * w).sum(1), atol=0.02, rtol=0.0)


@pytest.mark.parametrize("side", [2, 3, 5, 20])
def test_the_step_allows_the_relaxation_on_every_grid(side):
    grid = Grid(side)
    solution = path_layer(path_program(grid), gamma=3.0)(torch.rand(4, grid.n_arcs))
    assert bool(solution.converged.all())


def test_the_network_follows_its_seed_alone():
    state = torch.random.get_rng_state()
    first, second = cost_network(5, 12, seed=3), cost_network(5, 12, seed=3)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, cost_network(5, 12, seed=4)[0].weight)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_model_and_its_baselines_start_from_the_same_weights():
    """Those of the run's seed, whatever was drawn before they were made."""
    torch.manual_seed(3)
    first = PathTask(side=3).network[0].weight
    torch.rand(7)
    assert torch.equal(first, TwoStageTask(side=3).model[0].weight)
    assert torch.equal(first, cost_network(5, 12, seed=3)[0].weight)
    torch.manual_seed(4)
    assert not torch.equal(first, PathTask(side=3).network[0].weight)


def test_the_perturbation_is_of_its_scale_and_of_the_global_generator():
    w = torch.ones(1000, 12)
    noise = Perturbation(0.7, copies=2)
    torch.manual_seed(1)
    once, again = noise(w), noise(w)
    assert once.shape == (2000, 12)
    assert not torch.equal(once, again)
    torch.manual_seed(1)
    assert torch.equal(once, noise(w))
    assert float(once.std()) == pytest.approx(0.7, rel=0.05)
    assert float(once.mean()) == pytest.approx(1.0, abs=0.05)
    state = torch.random.get_rng_state()
    assert torch.equal(Perturbation(0.0)(w), w)
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_copies_of_a_context_are_averaged():
    task = PathTask(side=3, copies=4, perturbation=0.5)
    d, paths = torch.randn(3, 5), Grid(3).shortest_paths(torch.rand(3, 12))
    inference = task.training_inference(d)
    assert inference.x.shape == (12, 12)
    mean = torch.stack([inference.x[i::3].mean(0) for i in range(3)])
    torch.testing.assert_close(task.loss(inference, (d, paths)), (mean - paths).square().mean())
    young = PathTask(side=3, copies=4, loss="fenchel_young")
    x, w = inference.x, inference.problem.F.linear
    target = paths.repeat(4, 1)
    value = ((w * target).sum(1) + target.square().sum(1) / 2) - ((w * x).sum(1) + x.square().sum(1) / 2)
    torch.testing.assert_close(young.loss(inference, (d, paths)), value.mean())


def test_a_checkpoint_holds_the_network_once():
    names = list(PathTask(side=3).state_dict())
    assert names == [f"model.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")]


# --- metric, answer and baselines ---


def test_the_metric_is_the_normalized_regret_however_it_is_batched():
    grid = Grid(4)
    costs = torch.rand(50, grid.n_arcs) + 0.1
    best, decided = grid.shortest_paths(costs), grid.shortest_paths(torch.rand(50, grid.n_arcs))
    metric = NormalizedRegret()
    for part in torch.arange(50).split([1, 30, 19]):
        metric.update(decided[part], costs[part], best[part])
    torch.testing.assert_close(metric.compute(), normalized_regret(decided, costs, best))
    assert metric.higher_is_better is False


def test_the_constant_path_is_the_best_of_all_by_the_training_loss():
    data = PathData(side=3, train=40, validation=4, test=4, seed=0)
    taken = data.splits.train.tensors[1]
    constant = PathTask(side=3).constant(data.splits.train)
    every = Grid(3).shortest_paths(torch.rand(500, 12)).unique(dim=0)
    assert len(every) == 6
    errors = (every.unsqueeze(1) - taken).square().mean((1, 2))
    torch.testing.assert_close((constant - taken).square().mean(), errors.min())
    assert (every == constant).all(1).any()


def test_the_error_is_the_extra_cost_of_the_decision():
    task = PathTask(side=2)
    x = torch.tensor([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]])
    costs = torch.tensor([[1.0, 2.0, 1.0, 2.0]]).expand(2, -1)
    batch = (torch.zeros(2, 5), Grid(2).shortest_paths(costs), costs, costs)
    inference = il2o.Inference(x=x)
    torch.testing.assert_close(task.error(inference, batch), torch.tensor([1.0, 0.0]))
    assert task.error(inference, batch[:1]) is None  # new contexts, of which no cost is known


@pytest.mark.bad_input
def test_the_floor_is_of_paths_alone():
    with pytest.raises(TypeError, match="a baseline of PathTask and CostPathTask; got TwoStageTask"):
        Floor().prepare(TwoStageTask(side=3), SMALL(), name="floor", progress=False)


# --- training ---


def SMALL(seed=0):
    return PathData(side=3, train=150, validation=60, test=80, seed=seed)


EPOCHS, TWO_STAGE_EPOCHS = 6, 20
OPTIMIZATION = Optimization(learning_rate=5e-3, weight_decay=0.3)


def small_task(seed=0, **options):
    torch.manual_seed(seed)
    return PathTask(side=3, copies=2, optimization=OPTIMIZATION, **options)


def train(task, data):
    return fit(task, data, epochs=EPOCHS, weight_average=0.99, progress=False)


def examined(task, data):
    """The test samples, certified."""
    batch = data.splits.test.tensors
    names = tuple(certificate.name for certificate in task.all_certificates())
    return Samples(names=names, batch=batch, **task.examine(batch[0], batch))


@pytest.fixture(scope="module")
def data():
    return SMALL()


@pytest.fixture(scope="module")
def outcome(data):
    """The trained task, its training, its samples, and the test regrets by method."""
    task = small_task()
    optimization = Optimization(learning_rate=2e-2, weight_decay=0.3)
    baselines = {
        "constant": Constant(),
        "two_stage": Trained(
            TwoStageTask(side=3, optimization=optimization), epochs=TWO_STAGE_EPOCHS, weight_average=0.99
        ),
        "untrained": Untrained(PathTask(side=3)),
        "floor": Floor(),
    }
    training = train(task, data)
    calibrate_task(task, data, Calibration(p_pass=0.9, p_warn=0.05, p_fail=0.05, split="train"))
    regrets = {"model": scored(task, lambda batch: task.infer(batch[0]), data.splits.test)}
    for name, baseline in baselines.items():
        baseline.prepare(task, data, name=name, progress=False)
        regrets[name] = scored(task, baseline.infer, data.splits.test)
    return task, training, examined(task, data), regrets


def test_training_learns(outcome):
    _, training, _, regrets = outcome
    assert regrets["floor"] < regrets["model"] < 0.5 * min(regrets["untrained"], regrets["constant"])
    assert regrets["two_stage"] < 0.5 * regrets["untrained"]
    assert training.history[0]["train/loss"] > training.history[-1]["train/loss"]


def test_the_kept_weights_are_those_of_the_best_epoch(outcome, data):
    task, training, _, _ = outcome
    assert training.best_epoch == int(np.argmin([epoch["val/loss"] for epoch in training.history]))
    contexts, paths, costs, _ = data.splits.validation.tensors
    kept = float(normalized_regret(Grid(3).shortest_paths(task.network(contexts)), costs, paths))
    assert kept == pytest.approx(training.history[training.best_epoch]["val/regret"], abs=1e-6)


def test_every_inference_meets_the_constraints(outcome, data):
    task, _, samples, regrets = outcome
    assert (samples.status == il2o.Status.CONVERGED).all()
    assert samples.names == ("constraint violation", "distance to h's set (bound)", "flow off the path")
    assert (samples.labels[:, :2] == il2o.Label.PASS).all()
    found = task.findings(samples, data.splits)
    assert found["max_constraint_violation"] <= 1e-3
    assert found["regret_floor"] == pytest.approx(regrets["floor"], abs=1e-6)
    assert found["excess"] == pytest.approx(regrets["model"] - regrets["floor"], abs=1e-6)
    assert found["excess_expected"] >= 0
    assert set(found["regret_by_certificate"]) <= {"PASS", "WARN", "FAIL"}
    json.dumps(found, allow_nan=False)


def test_a_seed_repeats_itself(outcome, data):
    _, training, samples, _ = outcome
    again = small_task()
    assert train(again, SMALL()).history == training.history
    assert torch.equal(again.examine(data.splits.test.tensors[0])["answer"], samples.answer)


class OtherCosts(AbstractData):
    """The small data with the same paths, and costs that have nothing to do with them."""

    def load(self):
        splits = SMALL().splits
        return Splits(*(self._hidden(part) for part in (splits.train, splits.validation, splits.test)))

    @staticmethod
    def _hidden(part):
        contexts, paths, costs, mean_costs = part.tensors
        return TensorDataset(contexts, paths, torch.rand_like(costs) + 0.1, torch.rand_like(mean_costs))


@pytest.mark.parametrize("loss", ["solution", "fenchel_young"])
def test_costs_do_not_reach_the_training_from_solutions(loss):
    """With other costs and the same paths, the same network comes out."""
    weights = []
    for data in (SMALL(), OtherCosts(seed=0)):
        task = small_task(loss=loss)
        train(task, data)
        weights.append(task.network[2].weight)
    assert torch.equal(*weights)


# A loose solve stops where the adjoint equation may be singular; Implicit then says so and takes JFB's gradient.
@pytest.mark.filterwarnings("ignore:Implicit. the adjoint solve:implicit_l2o.ConvergenceWarning")
@pytest.mark.parametrize(
    "options",
    [{"backward": il2o.Neumann(5)}, {"backward": il2o.Implicit()}, {"loss": "fenchel_young"}],
    ids=["Neumann", "Implicit", "Fenchel-Young"],
)
def test_other_gradients_learn_too(options):
    data = SMALL(1)
    task, floor = small_task(1, **options), Floor()
    floor.prepare(task, data, name="floor", progress=False)
    lowest = scored(task, floor.infer, data.splits.validation)
    history = train(task, data).history
    assert lowest < min(epoch["val/regret"] for epoch in history) < 0.35


class Recorder(pl.Callback):
    """The last layer's weights after every step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(pl_module.model[2].weight.detach().clone())


def test_the_averaged_weights_are_kept_and_the_training_goes_on_from_its_own():
    """The running average of the weights after every step, written out; and the steps are those of a training without."""
    recorded, kept = {}, {}
    for decay in (0.0, 0.5):
        data = PathData(side=3, train=150, validation=60, test=80, batch_size=50, seed=0)
        torch.manual_seed(0)
        task, recorder = TwoStageTask(side=3, optimization=Optimization(learning_rate=2e-2)), Recorder()
        fit(task, data, epochs=2, weight_average=decay, callbacks=[recorder], progress=False)
        recorded[decay], kept[decay] = recorder.seen, task.model[2].weight.detach()
        assert len(recorder.seen) == 6
    for plain, averaged in zip(recorded[0.0], recorded[0.5], strict=True):
        torch.testing.assert_close(plain, averaged)
    average = recorded[0.5][0]
    ends = []
    for step, weight in enumerate(recorded[0.5], start=1):
        average = average.lerp(weight, 1 - min(0.5, step / (step + 5)))
        ends.append(average)
    assert any(torch.allclose(kept[0.5], ends[i], atol=1e-6) for i in (2, 5))  # the end of either epoch
    assert not any(torch.allclose(kept[0.5], weight, atol=1e-6) for weight in recorded[0.5])


def test_figures_are_drawn(outcome, data, tmp_path):
    task, _, samples, _ = outcome
    drawn = task.figures(samples, data.splits)
    assert list(drawn) == ["Paths", "Doubt", "Residuals"]
    for name, (figure, caption) in drawn.items():
        figure.savefig(tmp_path / f"{name}.svg")
        assert caption.endswith(".")
    for known in ({"target": samples.batch[1][0]}, {}):
        figure = Figure(layout="constrained")
        task.draw(figure, {"inputs": samples.batch[0][0], "answer": samples.answer[0], **known})
        figure.savefig(tmp_path / "example.svg")
        assert len(figure.axes) == 2


# --- the experiments ---


def test_the_variants_differ_in_what_they_are_named_for():
    main, variants = (
        yaml.safe_load((EXPERIMENTS / f"shortest_path_{name}.yaml").read_text()) for name in ("5x5", "variants")
    )
    for key in ("data", "trainer", "weight_average", "threads", "calibration"):
        assert main[key] == variants[key]
    model, young = main["model"]["init_args"], variants["model"]["init_args"]
    assert model.pop("backward") == {"class_path": "implicit_l2o.JFB"}  # the default
    assert young == {**model, "loss": "fenchel_young"}
    plain = variants["baselines"]["unperturbed"]["init_args"]
    assert plain["task"]["init_args"] == {**model, "perturbation": 0.0, "copies": 1}
    for trained in (plain, main["baselines"]["two_stage"]["init_args"]):
        assert trained["epochs"] == main["trainer"]["max_epochs"]
        assert trained["weight_average"] == main["weight_average"]
        assert trained["batch_size"] == main["data"]["init_args"]["batch_size"]
