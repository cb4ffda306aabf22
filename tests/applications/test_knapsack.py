"""The knapsack: PyEPO's data draw by draw, the exact mean of rounded values, and that every method learns."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from torch.utils.data import TensorDataset

import implicit_l2o as il2o
from implicit_l2o.data.knapsack import Items, draw, expected_ceiling, generate
from implicit_l2o.losses import normalized_regret

pytest.importorskip("lightning")
pytest.importorskip("matplotlib")
pytest.importorskip("numba")

from matplotlib.figure import Figure

from implicit_l2o.applications.knapsack import Floor, KnapsackData, KnapsackTask, ValueTask
from implicit_l2o.applications.knapsack.metrics import NormalizedRegret
from implicit_l2o.applications.knapsack.model import value_network
from implicit_l2o.training import (
    AbstractData,
    Calibration,
    Constant,
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


@pytest.mark.parametrize(("count", "degree", "noise", "seed"), [(50, 2, 0.05, 135), (20, 4, 0.5, 136), (7, 1, 0.0, 9)])
def test_data_are_pyepos(count, degree, noise, seed):
    knapsack = pytest.importorskip("pyepo.data.knapsack")
    items = Items(count, seed=seed)
    contexts, values, _ = draw(items, 60, degree=degree, noise=noise, more=30)
    weights, theirs, costs = knapsack.genData(60, 5, count, dim=2, deg=degree, noise_width=noise, seed=seed)
    np.testing.assert_array_equal(items.weights().numpy(), weights)
    np.testing.assert_array_equal(contexts[:60], theirs)
    np.testing.assert_array_equal(values[:60], costs)


def test_data_are_known_without_pyepo():
    """`genData(2, 5, 4, dim=2, deg=2, noise_width=0.05, seed=135)` of PyEPO 2.2.7."""
    assert Items(4).weights().tolist() == WEIGHTS
    contexts, values, _ = draw(Items(4), 2)
    assert values.tolist() == VALUES
    np.testing.assert_allclose(contexts[1, 4], LAST, rtol=1e-14)


WEIGHTS = [[4.59, 4.87, 5.19, 7.59], [6.8, 4.97, 4.84, 3.22]]
VALUES = [[8.0, 7.0, 8.0, 7.0], [5.0, 4.0, 5.0, 4.0]]
LAST = 0.08436035857798163


@given(mean=st.floats(-50, 50), noise=st.floats(0.0, 1.0))
def test_the_mean_of_rounded_values_is_exact(mean, noise):
    """Against the sum over the whole numbers: a value is `k` with the probability of the interval `(k - 1, k]`."""
    a, b = sorted((mean * (1 - noise), mean * (1 + noise)))
    found = float(expected_ceiling(np.array([mean]), noise)[0])
    if b - a < 1e-6:
        assert math.ceil(a) - 1e-3 <= found <= math.ceil(b) + 1e-3
        return
    k = np.arange(math.floor(a) - 1, math.ceil(b) + 2)
    share = (np.minimum(b, k) - np.maximum(a, k - 1)).clip(0.0) / (b - a)
    assert found == pytest.approx(float((k * share).sum()), abs=1e-6)


def test_the_noise_is_around_the_conditional_mean():
    """Of 2000 contexts: the mean of what is left is within four standard errors of zero."""
    _, values, mean_values = draw(Items(20), 2000, degree=4, noise=0.5)
    left = values - mean_values
    assert abs(left.mean()) < 4 * left.std() / left.size**0.5


def test_selections_are_the_best_by_an_integer_program():
    items = Items(30)
    samples = generate(items, train=6, validation=1, test=1, more=0)
    W, capacity = items.weights().numpy(), items.capacities().numpy()
    for values, selection in zip(samples.train.values.numpy(), samples.train.selections.numpy(), strict=True):
        best = milp(
            -values,
            constraints=LinearConstraint(W, ub=capacity),
            bounds=Bounds(0, 1),
            integrality=np.ones(30),
            options={"mip_rel_gap": 0.0},
        )
        assert float(values @ selection) == pytest.approx(-best.fun)
        assert (W @ selection <= capacity + 1e-9).all()


def test_more_test_samples_change_nothing_before_them():
    small = {"train": 8, "validation": 4, "test": 4}
    alone, longer = generate(Items(6), **small, more=0), generate(Items(6), **small, more=5)
    for name in ("train", "validation", "test"):
        assert torch.equal(getattr(alone, name).values, getattr(longer, name).values)
    assert len(alone.more) == 0
    assert len(longer.more) == 5


def test_a_run_has_data_of_its_own(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    small = {"train": 8, "validation": 4, "test": 4, "more": 2}
    drawn = generate(Items(6, seed=138), **small)
    for data in (KnapsackData(items=Items(6), **small), KnapsackData(items=Items(6), **small, seed=3)):
        assert torch.equal(data.splits.train.tensors[2], drawn.train.values)
        contexts, *_, published = data.splits.test.tensors
        assert torch.equal(contexts, torch.cat([drawn.test.contexts, drawn.more.contexts]))
        assert published.tolist() == [True] * 4 + [False] * 2
    assert KnapsackTask(items=Items(6)).items == Items(6, seed=138)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Items(0), "count >= 1; got count=0"),
        (lambda: Items(capacity=0.0), "capacity > 0; got capacity=0.0"),
        (lambda: draw(Items(4), 0), "n_samples >= 1; got n_samples=0"),
        (lambda: draw(Items(4), 1, noise=1.5), "0 <= noise <= 1; got noise=1.5"),
        (lambda: draw(Items(4), 1, more=-1), "more >= 0; got more=-1"),
        (lambda: generate(Items(4), train=0), "train >= 1; got train=0"),
        (lambda: KnapsackTask(gamma=0.0), "gamma > 0; got gamma=0.0"),
        (lambda: KnapsackTask(training_tolerance=-1.0), "training_tolerance > 0; got training_tolerance=-1.0"),
        (lambda: KnapsackTask(perturbation=-0.5), "perturbation >= 0; got perturbation=-0.5"),
        (lambda: KnapsackTask(copies=0), "copies >= 1; got copies=0"),
        (lambda: KnapsackTask(loss="regret"), 'must be "solution" or "fenchel_young"; got \'regret\''),
        (lambda: ValueTask(loss="solution"), "loss must be one of least_squares, .*; got 'solution'"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- model, metric ---


def test_the_layer_solves_the_quadratic_program():
    """The variational inequality `<-v + gamma x, p - x> >= 0` over the relaxation; the worst `p` by a linear program."""
    from scipy.optimize import linprog

    items = Items(12)
    v = torch.rand(8, 12) * 4
    x = il2o.LPLayer(items.program(), gamma=1.0, tolerance=1e-5)(-v).x
    slope = (x - v).numpy().astype(float)
    for row, answer in zip(slope, x.numpy(), strict=True):
        found = linprog(row, items.weights().numpy(), items.capacities().numpy(), bounds=(0, 1))
        assert found.fun - float(row @ answer) > -1e-3
    assert float((x.double() @ items.weights().T).max()) <= 20 + 1e-3


def test_a_model_and_its_baselines_start_from_the_same_weights():
    torch.manual_seed(3)
    first = KnapsackTask(items=Items(6)).selector.network.state_dict()
    torch.rand(7)
    second = ValueTask(items=Items(6)).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    state = torch.random.get_rng_state()
    value_network(5, 6, hidden=(7, 8), dropout=0.3, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_metric_is_the_normalized_regret_of_the_samples_it_counts():
    samples = generate(Items(8), train=50, validation=1, test=1, more=0).train
    decided = Items(8).decoder()(-torch.rand(50, 8))
    published = torch.arange(50) < 20
    every, some = NormalizedRegret(), NormalizedRegret(published=True)
    for part in torch.arange(50).split([1, 30, 19]):
        for metric in (every, some):
            metric.update(decided[part], samples.values[part], samples.selections[part], published[part])
    expected = normalized_regret(decided, -samples.values, samples.selections)
    torch.testing.assert_close(every.compute(), expected)
    expected = normalized_regret(decided[:20], -samples.values[:20], samples.selections[:20])
    torch.testing.assert_close(some.compute(), expected)


def test_the_losses_are_what_they_say():
    """By hand, from the answers of a tight solve; both tasks start from the same weights."""
    samples = generate(Items(8), train=5, validation=1, test=1, more=0).train
    batch = (samples.contexts, samples.selections)
    losses = {}
    for loss in ("fenchel_young", "solution"):
        task = KnapsackTask(items=Items(8), loss=loss, tolerance=1e-5, training_tolerance=1e-5)
        losses[loss] = task.loss(task.training_inference(samples.contexts), batch)
    x, v = task.infer(samples.contexts).x, task.values(samples.contexts)

    def objective(at):
        return at.square().sum(1) / 2 - (v * at).sum(1)

    young = (objective(samples.selections) - objective(x)).mean()
    torch.testing.assert_close(losses["fenchel_young"], young, atol=1e-3, rtol=0)
    torch.testing.assert_close(losses["solution"], (x - samples.selections).square().sum(1).mean(), atol=1e-3, rtol=0)


def test_the_copies_of_a_context_are_averaged():
    samples = generate(Items(8), train=3, validation=1, test=1, more=0).train
    batch = (samples.contexts, samples.selections)
    for loss in ("solution", "fenchel_young"):
        task = KnapsackTask(items=Items(8), loss=loss, level=2.0, perturbation=0.5, copies=4)
        inference = task.training_inference(samples.contexts)
        assert inference.x.shape == (12, 8)
        x, v, best = inference.x, -inference.problem.F.linear, samples.selections.repeat(4, 1)
        assert not torch.equal(v[:3], v[3:6])
        if loss == "solution":
            mean = torch.stack([x[i::3].mean(0) for i in range(3)])
            expected = (mean - samples.selections).square().sum(1).mean()
        else:
            expected = ((best.square() - x.square()).sum(1) / 2 - (v * (best - x)).sum(1)).mean()
        torch.testing.assert_close(task.loss(inference, batch), expected)


def test_spo_plus_bounds_the_regret():
    """SPO+ is at least the regret of the decision, of every prediction, exact or relaxed."""
    samples = generate(Items(10), train=40, validation=1, test=1, more=0).train
    batch = (samples.contexts, samples.selections, samples.values)
    task = ValueTask(items=Items(10), loss="spo_plus")
    inference = task.training_inference(samples.contexts)
    decided = task.infer(samples.contexts).x
    lost = (samples.values * (samples.selections - decided)).sum(1).mean()
    assert task.loss(inference, batch).item() >= lost.item() - 1e-4


@pytest.mark.bad_input
def test_the_floor_is_of_knapsacks_alone():
    from implicit_l2o.applications.shortest_path import PathTask

    with pytest.raises(TypeError, match="a baseline of a knapsack task; got PathTask"):
        Floor().prepare(PathTask(side=3), small(), name="floor", progress=False)


@pytest.mark.bad_input
def test_other_items_are_refused():
    with pytest.raises(ValueError, match=r"the data are of Items\(count=12, .*seed=135\), but the task of .*seed=136"):
        fit(KnapsackTask(items=Items(12, seed=136)), small(), epochs=1, progress=False)


# --- training ---

ITEMS = Items(12)
OPTIMIZATION = Optimization(learning_rate=1e-2)


def small():
    return KnapsackData(items=ITEMS, train=200, validation=40, test=40, more=60, batch_size=50)


def scored(task, infer, part):
    """The regret of answers to a part of the data."""
    metrics = task.fresh_metrics()
    with torch.no_grad():
        task.update(metrics, infer(part.tensors), part.tensors)
    return float(metrics.compute()["regret"])


@pytest.fixture(scope="module")
def data():
    return small()


@pytest.fixture(scope="module")
def outcome(data):
    """The trained task, its samples, and the test regrets by method."""
    torch.manual_seed(0)
    task = KnapsackTask(items=ITEMS, optimization=OPTIMIZATION)
    baselines = {
        "constant": Constant(),
        "two_stage": Trained(ValueTask(items=ITEMS, optimization=OPTIMIZATION), epochs=30),
        "untrained": Untrained(KnapsackTask(items=ITEMS)),
        "floor": Floor(),
    }
    fit(task, data, epochs=12, progress=False)
    calibrate_task(task, data, Calibration(p_pass=0.9, p_warn=0.05, p_fail=0.05, split="train"))
    regrets = {"model": scored(task, lambda batch: task.infer(batch[0]), data.splits.test)}
    for name, baseline in baselines.items():
        baseline.prepare(task, data, name=name, progress=False)
        regrets[name] = scored(task, baseline.infer, data.splits.test)
    batch = data.splits.test.tensors
    names = tuple(certificate.name for certificate in task.all_certificates())
    return task, Samples(names=names, batch=batch, **task.examine(batch[0], batch)), regrets


def test_training_learns(outcome):
    _, _, regrets = outcome
    assert regrets["floor"] < regrets["model"] < 0.6 * min(regrets["untrained"], regrets["constant"])
    assert regrets["two_stage"] < 0.6 * regrets["constant"]


def test_every_decision_keeps_the_limits(outcome, data):
    task, samples, regrets = outcome
    found = task.findings(samples, data.splits)
    assert found["max_overweight"] < 1e-5
    assert found["max_constraint_violation"] < 0.2
    assert found["regret_floor"] == pytest.approx(regrets["floor"], abs=1e-5)
    assert found["excess"] == pytest.approx(regrets["model"] - regrets["floor"], abs=1e-5)
    json.dumps(found, allow_nan=False)


class OtherValues(AbstractData):
    """The small data with the same selections, and values that have nothing to do with them."""

    def load(self):
        splits = small().splits
        return Splits(*(self._hidden(part) for part in (splits.train, splits.validation, splits.test)))

    @staticmethod
    def _hidden(part):
        contexts, selections, values, mean_values, published = part.tensors
        return TensorDataset(contexts, selections, torch.rand_like(values), torch.rand_like(mean_values), published)


@pytest.mark.parametrize("loss", ["solution", "fenchel_young"])
def test_values_do_not_reach_the_training_from_solutions(loss):
    """With other values and the same selections, the same network comes out."""
    weights = []
    for data in (small(), OtherValues(batch_size=50)):
        torch.manual_seed(0)
        task = KnapsackTask(items=ITEMS, loss=loss, optimization=OPTIMIZATION)
        fit(task, data, epochs=2, progress=False)
        weights.append(torch.cat([p.flatten() for p in task.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("loss", ["spo_plus", "spo_plus_relaxed", "regret"])
def test_true_values_teach_too(loss, data):
    torch.manual_seed(1)
    task = ValueTask(items=ITEMS, loss=loss, optimization=OPTIMIZATION)
    before = scored(task, lambda batch: task.infer(batch[0]), data.splits.validation)
    history = fit(task, data, epochs=6, progress=False).history
    assert min(epoch["val/regret"] for epoch in history) < 0.7 * before


def test_pyepo_has_our_spo_plus(data):
    """The same network after the same training: the loss is the same, and so is the oracle."""
    pytest.importorskip("pyepo")
    from implicit_l2o.applications.knapsack.peers import PyEPOTask
    from implicit_l2o.interop.pyepo import SPOPlus

    histories = []
    for make in (lambda **o: ValueTask(loss="spo_plus", **o), lambda **o: PyEPOTask(SPOPlus(), **o)):
        torch.manual_seed(2)
        histories.append(fit(make(items=ITEMS, optimization=OPTIMIZATION), data, epochs=2, progress=False).history)
    for ours, theirs in zip(*histories, strict=True):
        assert ours["val/regret"] == pytest.approx(theirs["val/regret"], abs=1e-6)
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of cvxpylayers
def test_cvxpylayers_has_our_answers_and_our_exact_gradient():
    pytest.importorskip("cvxpylayers")
    from implicit_l2o.applications.knapsack.peers import CvxpyLayersTask

    samples = generate(ITEMS, train=4, validation=1, test=1, more=0).train
    batch = (samples.contexts, samples.selections)
    gradients = []
    torch.manual_seed(0)
    for task in (
        KnapsackTask(items=ITEMS, loss="solution", level=2.0, backward=il2o.Implicit()),
        CvxpyLayersTask(items=ITEMS, level=2.0),
    ):
        inference = task.training_inference(samples.contexts)
        task.loss(inference, batch).backward()
        gradients.append((inference.x.detach(), torch.cat([p.grad.flatten() for p in task.parameters()])))
    copy.deepcopy(task)  # as the average of the weights does
    (ours, slope), (theirs, their_slope) = gradients
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    assert float(torch.nn.functional.cosine_similarity(slope, their_slope, dim=0)) > 0.999


def test_exact_solves_are_those_of_davis_yin():
    contexts = generate(ITEMS, train=4, validation=1, test=1, more=0).train.contexts
    torch.manual_seed(0)
    exact = KnapsackTask(items=ITEMS, level=2.0)
    iterated = KnapsackTask(items=ITEMS, level=2.0, polish=False, tolerance=1e-5)
    torch.testing.assert_close(exact.infer(contexts).x, iterated.infer(contexts).x, atol=1e-3, rtol=0)


@pytest.fixture
def on_file(tmp_path):
    """Two small problems with three methods, and the table of them."""
    pytest.importorskip("pyepo")
    from implicit_l2o.applications.knapsack import problems, records, sizes

    both = [problems.Problem(2, 0.05, 8, seed) for seed in (135, 136)]
    for problem in both:
        sizes.references(problem, tmp_path)
        for method in ("fenchel_young", "two_stage"):
            sizes.run(problem, method, sizes.Setting(), tmp_path, epochs=1, progress=False)
    names = ("floor", "constant", "untrained", *sizes.METHODS)
    table = records.collect(tmp_path, (135, 136), {2: (0.05, (8,)), 4: (0.5, (8,))}, names)
    return tmp_path, {"seeds": [135, 136], **table}


def test_the_table_agrees_with_an_independent_computation(on_file, tmp_path, capsys):
    import check_knapsack

    folder, table = on_file
    methods = table["degree_2"]["sizes"]["8"]
    assert set(methods) == {"floor", "constant", "untrained", "fenchel_young", "two_stage"}
    assert table["degree_4"]["sizes"] == {}
    assert methods["two_stage"]["epochs"] == [1, 1]
    (tmp_path / "results.json").write_text(json.dumps(table))
    arguments = [str(folder), "--results", str(tmp_path / "results.json")]
    assert check_knapsack.main(arguments) == 0
    methods["two_stage"]["regret"][1] += 1e-3
    (tmp_path / "results.json").write_text(json.dumps(table))
    assert check_knapsack.main(arguments) == 1
    assert "8 items, seed 136: two_stage: regret is" in capsys.readouterr().out


def test_figures_are_drawn(outcome, data, tmp_path):
    task, samples, _ = outcome
    drawn = task.figures(samples, data.splits)
    assert list(drawn) == ["Selections", "Doubt", "Values"]
    for name, (figure, caption) in drawn.items():
        figure.savefig(tmp_path / f"{name}.svg")
        assert caption.endswith(".")
    for known in ({"target": samples.batch[1][0]}, {}):
        figure = Figure(layout="constrained")
        task.draw(figure, {"inputs": samples.batch[0][0], "answer": samples.answer[0], **known})
        figure.savefig(tmp_path / "example.svg")


# --- the experiments ---


def test_the_published_network_differs_in_what_it_is_named_for():
    small, wide = (yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text()) for name in YAMLS)
    for key in ("data", "weight_average", "threads", "calibration"):
        assert small[key] == wide[key]
    for of in (lambda c: c["model"], lambda c: c["baselines"]["two_stage"]["init_args"]["task"]):
        first, second = of(small)["init_args"], of(wide)["init_args"]
        assert second.pop("hidden") == [5000, 5000]
        assert second.pop("dropout") == 0.3
        assert first.pop("hidden") == [100]
        for options in (first, second):
            options["optimization"].pop("learning_rate")
        assert first == second
    for config in (small, wide):
        assert config["baselines"]["two_stage"]["init_args"]["epochs"] == config["trainer"]["max_epochs"]


YAMLS = ("knapsack", "knapsack_published_network")
