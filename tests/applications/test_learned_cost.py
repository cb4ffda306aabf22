import json
import math

import numpy as np
import pytest
import scipy.optimize
import torch

import implicit_l2o as il2o
from implicit_l2o import testing
from implicit_l2o.data.decisions import DecisionTask

pytest.importorskip("lightning")
pytest.importorskip("matplotlib")

from implicit_l2o.applications.learned_cost import __main__ as command
from implicit_l2o.applications.learned_cost.baselines import count
from implicit_l2o.applications.learned_cost.depth import depth_experiment
from implicit_l2o.applications.learned_cost.experiment import Settings, experiment, measure, models
from implicit_l2o.applications.learned_cost.model import ConvexCostNet, DecisionModel
from implicit_l2o.applications.learned_cost.task import Recipe
from implicit_l2o.report import interval, machine, write_json

SMALL = Settings(train=60, validation=30, test=30, recipe=Recipe(epochs=3, batch_size=20))
MAKERS = {"allocation": DecisionTask.allocation, "transport": DecisionTask.transport}


@pytest.fixture(params=MAKERS)
def task(request):
    return MAKERS[request.param](seed=3)


def scipy_minimum(task, context, total):
    """SLSQP on one sample, from the cost's value and gradient alone."""
    hidden, known = task.hidden(context[None]), task.known

    def value(x):
        x = torch.from_numpy(x)[None]
        return float(hidden.value(x) + known.value(x))

    def slope(x):
        x = torch.from_numpy(x)[None]
        return (hidden.apply(x) + known.apply(x))[0].numpy()

    A, b = task.constraints.numpy(), total.numpy()
    return scipy.optimize.minimize(
        value,
        np.full(task.n, 0.1),
        jac=slope,
        method="SLSQP",
        bounds=[(0, None)] * task.n,
        constraints={"type": "eq", "fun": lambda x: A @ x - b, "jac": lambda x: A},
        options={"ftol": 1e-14, "maxiter": 1000},
    ).x


def test_the_observed_decisions_are_optimal(task):
    data = task.sample(4, seed=0)
    for context, total, decided in zip(data.contexts, data.totals, data.decisions, strict=True):
        np.testing.assert_allclose(decided.numpy(), scipy_minimum(task, context, total), atol=1e-5)


def test_the_hidden_cost_is_the_integral_of_its_gradient(task):
    data = task.sample(5, seed=1)
    x = data.decisions.clone().requires_grad_()
    hidden = task.hidden(data.contexts)
    (slope,) = torch.autograd.grad(hidden.value(x).sum(), x)
    torch.testing.assert_close(slope, hidden.apply(x.detach()))
    testing.check_smooth(hidden, x.detach())


def test_projection_meets_the_constraints_and_moves_no_feasible_point(task):
    data = task.sample(5, seed=2)
    torch.testing.assert_close(task.project(data.decisions, data.totals), data.decisions, atol=1e-8, rtol=0)
    moved = task.project(torch.randn_like(data.decisions), data.totals)
    assert float(task.violation(moved, data.totals).max()) < 1e-8


def test_larger_totals_scale_the_constraints(task):
    plain, scaled = task.sample(3, seed=4), task.sample(3, seed=4, scale=1.5)
    torch.testing.assert_close(scaled.totals, 1.5 * plain.totals)
    assert float(task.violation(scaled.decisions, scaled.totals).max()) < 1e-8


def test_implicit_gradient_is_the_derivative_of_the_decision(task):
    """A directional derivative of the loss in all weights, against central differences of solves to 1e-10."""
    data = task.sample(6, seed=5)
    precise = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-10, rtol=0.0, max_steps=50_000))
    cost = ConvexCostNet(task).double()
    model = DecisionModel(task, cost, backward=il2o.Implicit())
    with torch.no_grad():
        for weight in cost.parameters():  # away from the flat start, where many derivatives vanish
            weight += 0.05 * torch.randn_like(weight)
    weights = list(cost.parameters())
    direction = [torch.randn_like(weight) for weight in weights]

    def loss():
        x = model(data.contexts, data.totals, solver=precise).x
        return (x - data.decisions).square().sum()

    gradients = torch.autograd.grad(loss(), weights)
    slope = float(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)))
    values = []
    with torch.no_grad():
        for h in (1e-5, -2e-5):
            for weight, d in zip(weights, direction, strict=True):
                weight += h * d
            values.append(float(loss()))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-3)


def test_the_untrained_cost_is_flat_at_the_origin(task):
    cost = ConvexCostNet(task)(torch.randn(3, task.n_contexts), torch.zeros(3, len(task.constraints)))
    torch.testing.assert_close(cost.apply(torch.zeros(3, task.n)), torch.zeros(3, task.n), atol=1e-6, rtol=0)


def test_no_model_has_more_parameters_than_the_learned_convex_cost(task):
    sizes = {name: count(make()) for name, make in models(task).items()}
    budget = sizes["convex_implicit"]
    assert all(0.9 * budget < size <= budget for size in sizes.values()), sizes


def test_the_scale_of_the_suboptimality(task):
    """The optimum is 0, the mean decision 1; breaking the constraints pays nothing after the projection."""
    data = task.sample(20, seed=6)
    mean = data.decisions.mean(0)
    assert measure(task, data, data.decisions, mean)["suboptimality"] == pytest.approx(0.0, abs=1e-8)
    assert measure(task, data, mean.expand(20, -1), mean)["suboptimality"] == pytest.approx(1.0)
    nothing = measure(task, data, torch.zeros_like(data.decisions), mean)
    assert nothing["decision_error"] == pytest.approx(1.0)
    assert nothing["suboptimality"] > 0
    assert nothing["max_violation"] == pytest.approx(float(data.totals.norm(dim=1).max()))


@pytest.mark.parametrize("name", MAKERS)
def test_training_learns_and_keeps_the_constraints(name):
    figures = experiment(name, 3, SMALL, progress=False)
    constant = figures["constant"]["decision_error"]
    for method in ("convex_implicit", "convex_jfb"):
        assert figures[method]["decision_error"] < 0.75 * constant
        assert figures[method]["suboptimality"] < 1
        assert figures[method]["max_violation"] < 1e-4
        assert figures[method]["max_violation_beyond"] < 1e-4
    assert figures["black_box"]["max_violation"] > 1e-2
    json.dumps(figures, allow_nan=False)


def test_five_steps_break_the_constraints_and_convergence_does_not():
    figures = depth_experiment(3, SMALL, depths=(5,), progress=False)
    assert figures["5"]["mean_violation"] > 1e-3
    assert figures["5"]["residual"] > 1e-3
    assert figures["implicit"]["max_violation"] < 1e-5
    assert figures["implicit"]["residual"] < 1e-6
    assert figures["implicit"]["decision_error_converged"] == pytest.approx(
        figures["implicit"]["decision_error"], abs=1e-9
    )


def test_the_command_writes_results_and_figures(tmp_path, monkeypatch, capsys):
    def costs(name, seed, settings, *, progress):
        return {method: dict.fromkeys(keys, 0.1 + seed) for method in [*models(MAKERS[name]()), "constant"]}

    def steps(seed, settings, *, progress):
        return {name: dict.fromkeys(keys, 0.1 + seed) for name in ("5", "10", "implicit")}

    figures = ("decision_error", "suboptimality", "max_violation", "mean_violation", "residual")
    keys = [key + suffix for key in figures for suffix in ("", "_beyond")] + ["decision_error_converged"]
    monkeypatch.setattr(command, "experiment", costs)
    monkeypatch.setattr(command.depth, "depth_experiment", steps)
    command.main(["--seeds", "0", "1", "--out", str(tmp_path), "--figures", str(tmp_path), "--quiet"])
    record = json.loads((tmp_path / "learned_cost.json").read_text())
    assert record["tasks"]["transport"]["linear"]["decision_error"]["mean"] == pytest.approx(0.6)
    assert record["machine"]["torch"] == torch.__version__
    assert json.loads((tmp_path / "unrolled_vs_implicit.json").read_text())["steps"]["5"]["residual"]["max"] == 1.1
    assert all((tmp_path / f"{name}.png").exists() for name in ("learned_cost", "unrolled_vs_implicit"))
    assert "written" in capsys.readouterr().out


# --- the record ---


def test_interval_is_students():
    mean, half = interval([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert half == pytest.approx(4.302652729911275 * math.sqrt(7 / 3) / math.sqrt(3))
    assert interval([2.0]) == (2.0, None)


@pytest.mark.bad_input
def test_interval_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one value"):
        interval([])


def test_json_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"machine": machine()})
    before = path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": math.nan})
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
