import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

import implicit_l2o as il2o
from implicit_l2o.data.shortest_path import Grid, draw, generate
from implicit_l2o.losses import normalized_regret

pytest.importorskip("lightning")
pytest.importorskip("matplotlib")

from implicit_l2o.applications.shortest_path.baselines import TWO_STAGE, TwoStageTask, floor
from implicit_l2o.applications.shortest_path.experiment import Settings, experiment, initial_network, summary, train
from implicit_l2o.applications.shortest_path.figures import draw as draw_figures
from implicit_l2o.applications.shortest_path.model import FlowModel, Perturbation, cost_network
from implicit_l2o.applications.shortest_path.task import FenchelYoungTask, PathData, Recipe, SolutionTask
from implicit_l2o.training import fit

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


@pytest.mark.parametrize(("seed", "published"), [(135, 0.070), (136, 0.063), (137, 0.091)])
def test_the_floor_of_the_published_data(seed, published):
    data = generate(seed=seed)
    assert (len(data.train), len(data.validation), len(data.test)) == (1000, 200, 1000)
    assert floor(FlowModel(data.grid), data.test) == pytest.approx(published, abs=5e-4)


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
        (lambda: FlowModel(Grid(2), gamma=0.0), "gamma > 0; got gamma=0.0"),
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
    x = FlowModel(grid, gamma=0.5, tolerance=1e-5).layer(torch.nn.Identity())(w).x
    A, b = grid.flow_constraints()
    torch.testing.assert_close(x @ A.T, b.expand(10, -1), atol=1e-4, rtol=0.0)
    assert (x >= 0).all()
    slope = w + 0.5 * x
    assert float((slope * (grid.shortest_paths(slope) - x)).sum(1).min()) > -1e-4


def test_a_small_gamma_gives_the_shortest_path():
    grid = Grid(3)
    w = torch.rand(20, grid.n_arcs)
    flow = FlowModel(grid, gamma=1e-3, tolerance=1e-4)
    x = flow.layer(torch.nn.Identity())(w).x
    cost = (x * w).sum(1)
    torch.testing.assert_close(cost, (grid.shortest_paths(w) * w).sum(1), atol=0.02, rtol=0.0)


@pytest.mark.parametrize("side", [2, 3, 5, 20])
def test_the_step_allows_the_relaxation_on_every_grid(side):
    grid = Grid(side)
    solution = FlowModel(grid, gamma=3.0).layer(torch.nn.Identity())(torch.rand(4, grid.n_arcs))
    assert bool(solution.converged.all())


def test_network_and_perturbation_follow_their_seed_alone():
    state = torch.random.get_rng_state()
    first, second = cost_network(5, 12, seed=3), cost_network(5, 12, seed=3)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, cost_network(5, 12, seed=4)[0].weight)
    w = torch.zeros(1000, 12)
    noise = Perturbation(0.7, seed=1)
    once, again = noise(w), noise(w)
    assert not torch.equal(once, again)
    assert torch.equal(once, Perturbation(0.7, seed=1)(w))
    assert float(once.std()) == pytest.approx(0.7, rel=0.05)
    assert torch.equal(state, torch.random.get_rng_state())


# --- training ---

SMALL = Settings(
    side=3,
    train=150,
    validation=60,
    test=80,
    recipe=Recipe(epochs=6, copies=2),
    two_stage=replace(TWO_STAGE, epochs=20),
)


@pytest.fixture(scope="module")
def outcome():
    return experiment(0, SMALL, progress=False)


def test_training_learns(outcome):
    assert outcome.regret_floor < outcome.regret < 0.5 * outcome.regret_untrained
    assert outcome.regret_two_stage < 0.5 * outcome.regret_untrained
    assert outcome.history[0]["loss"] > outcome.history[-1]["loss"]


def test_the_kept_weights_are_those_of_the_best_epoch(outcome):
    errors = [epoch["solution error"] for epoch in outcome.history]
    assert outcome.best_epoch == int(np.argmin(errors))
    part = outcome.data.validation
    kept = float(normalized_regret(outcome.flow.decide(outcome.network, part.contexts), part.costs, part.paths))
    assert kept == pytest.approx(outcome.history[outcome.best_epoch]["regret"], abs=1e-6)


def test_every_inference_meets_the_constraints(outcome):
    assert bool(outcome.solution.converged.all())
    assert outcome.max_constraint_violation <= 1e-3
    part = summary(outcome)
    for counts in part["certificates"].values():
        assert sum(counts.values()) == len(outcome.data.test)
    assert part["certificates"]["constraint violation"]["PASS"] == len(outcome.data.test)
    json.dumps(part, allow_nan=False)


def test_a_seed_repeats_itself(outcome):
    again = experiment(0, SMALL, progress=False)
    assert (again.regret, again.regret_two_stage) == (outcome.regret, outcome.regret_two_stage)
    assert again.history == outcome.history


def test_costs_do_not_reach_the_training_from_solutions():
    """With other costs and the same paths, the same network comes out."""
    data = SMALL.data(0)
    hidden = replace(data, **{name: _other_costs(getattr(data, name)) for name in ("train", "validation")})
    networks = []
    for each in (data, hidden):
        network, flow = initial_network(each, 0), FlowModel(each.grid)
        task = SolutionTask(network, flow, SMALL.recipe, seed=0, training=each.train)
        train(task, each, SMALL.recipe, seed=0)
        networks.append(network)
    assert torch.equal(networks[0][2].weight, networks[1][2].weight)


def _other_costs(sample):
    return replace(sample, costs=torch.rand_like(sample.costs) + 0.1)


# A loose solve stops where the adjoint equation may be singular; Implicit then says so and takes JFB's gradient.
@pytest.mark.filterwarnings("ignore:Implicit. the adjoint solve:implicit_l2o.ConvergenceWarning")
@pytest.mark.parametrize("mode", [il2o.Neumann(5), il2o.Implicit(), None], ids=["Neumann", "Implicit", "Fenchel-Young"])
def test_other_gradients_learn_too(mode):
    data = SMALL.data(1)
    network, flow = initial_network(data, 1), FlowModel(data.grid)
    before = floor(flow, data.validation)
    if mode is None:
        task = FenchelYoungTask(network, flow, SMALL.recipe, seed=1, training=data.train)
    else:
        task = SolutionTask(network, flow, SMALL.recipe, seed=1, training=data.train, backward=mode)
    train(task, data, SMALL.recipe, seed=1)
    assert before < min(epoch["regret"] for epoch in task.history) < 0.35


def test_the_averaged_weights_are_kept_and_the_training_goes_on_from_its_own():
    """The running average of the weights after every step, written out; and the steps are those of a training without."""
    data = SMALL.data(0)
    recorded, kept = {}, {}
    for decay in (0.0, 0.5):
        network = initial_network(data, 0)
        task = TwoStageTask(network, FlowModel(data.grid), replace(SMALL.two_stage, epochs=2, weight_average=decay))
        recorded[decay] = _record_weights(task, network)
        fit(task, PathData(data, "costs", batch_size=50, seed=0), epochs=2, progress=False)
        kept[decay] = network[2].weight.detach()
        assert len(recorded[decay]) == 6
    for plain, averaged in zip(recorded[0.0], recorded[0.5], strict=True):
        torch.testing.assert_close(plain, averaged)
    average = recorded[0.5][0]
    ends = []
    for step, weight in enumerate(recorded[0.5], start=1):
        average = average.lerp(weight, 1 - min(0.5, step / (step + 5)))
        ends.append(average)
    assert any(torch.allclose(kept[0.5], ends[i], atol=1e-6) for i in (2, 5))  # the end of either epoch
    assert not any(torch.allclose(kept[0.5], weight, atol=1e-6) for weight in recorded[0.5])


def _record_weights(task, network):
    """The last layer's weights after every step."""
    seen = []
    end = task.on_train_batch_end

    def recording(outputs, batch, index):
        seen.append(network[2].weight.detach().clone())
        end(outputs, batch, index)

    task.on_train_batch_end = recording
    return seen


@pytest.mark.bad_input
def test_wrong_training_options_are_named():
    data = SMALL.data(0)
    flow = FlowModel(data.grid)
    network = initial_network(data, 0)
    with pytest.raises(ValueError, match=r"weight_average must be in \[0, 1\); got 1"):
        TwoStageTask(network, flow, Recipe(weight_average=1.0))
    with pytest.raises(ValueError, match="epochs >= 1; got epochs=0"):
        fit(TwoStageTask(network, flow), PathData(data, "costs", batch_size=8, seed=0), epochs=0)
    task = TwoStageTask(network, flow, SMALL.two_stage)
    task.monitor = "accuracy"
    with pytest.raises(ValueError, match="monitor must be one of loss, cost error, regret; got 'accuracy'"):
        train(task, data, replace(SMALL.two_stage, epochs=1), seed=0, target="costs")


def test_an_interrupt_comes_through(capfd):
    """Lightning alone would leave the interpreter, and later interrupts ignored."""
    import signal

    data = SMALL.data(0)
    task = TwoStageTask(initial_network(data, 0), FlowModel(data.grid))

    def interrupted(batch):
        raise KeyboardInterrupt

    task.loss = interrupted
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(task, data, SMALL.two_stage, seed=0, target="costs")
    assert signal.getsignal(signal.SIGINT) is handler
    assert capfd.readouterr().out == ""


def test_threads_are_given_back(outcome):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        experiment(0, replace(SMALL, recipe=Recipe(epochs=1), two_stage=Recipe(epochs=1)), progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_figures_are_drawn(outcome, tmp_path):
    drawn = draw_figures(outcome, tmp_path / "new")
    assert [path.name for path in drawn] == [
        "shortest_path_paths.png",
        "shortest_path_training.png",
        "shortest_path_residuals.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_progress_is_one_bar_on_stderr(capfd):
    data = SMALL.data(0)
    task = TwoStageTask(initial_network(data, 0), FlowModel(data.grid))
    train(task, data, Recipe(epochs=2), seed=0, target="costs", label="a label")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "a label: 100%" in captured.err
    assert "2/2" in captured.err
