"""Equilibria of matrix games from contexts: the law, exact truth, the losses, every method learns, the numbers agree."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure

import implicit_l2o as il2o

pytest.importorskip("lightning")

import check_matrix_games

from implicit_l2o.applications.matrix_games import (
    BlackBoxTask,
    FixedPointTask,
    MatrixGameData,
    PayoffNetTask,
    PayoffTask,
    comparison,
    figures,
)
from implicit_l2o.applications.matrix_games import __main__ as command
from implicit_l2o.applications.matrix_games.model import PayoffModel, payoff_network
from implicit_l2o.data.matrix_games import PayoffLaw, antisymmetric
from implicit_l2o.games import MatrixGame, quantal_response_equilibrium
from implicit_l2o.training import Optimization, fit

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def small(actions: int = 4, **options) -> MatrixGameData:
    return MatrixGameData(actions=actions, train=200, validation=60, test=60, batch_size=50, seed=0, **options)


# --- the games ---


@pytest.mark.parametrize("actions", [2, 5, 30])
def test_the_truth_is_the_equilibrium(actions):
    law = PayoffLaw(actions, seed=3)
    games = law.draw(20, seed=4)
    assert (games.residual <= 1e-10).all()
    assert ((law.weight >= 0) & (law.weight <= 10)).all()
    torch.testing.assert_close(games.payoff, -games.payoff.mT)
    # A symmetric game has a symmetric equilibrium, though the solver treats the players differently.
    torch.testing.assert_close(games.u, games.v, atol=1e-9, rtol=0)
    torch.testing.assert_close(games.u, (-(games.payoff @ games.v[..., None])[..., 0]).softmax(-1), atol=1e-9, rtol=0)


def test_the_cyclic_game_is_rock_paper_scissors():
    games = PayoffLaw(3, "cyclic", seed=1).draw(30, seed=2)
    B, u = games.payoff, games.u
    assert (B[:, 0, 1] < 0).all()
    assert (B[:, 1, 2] < 0).all()
    assert (B[:, 0, 2] > 0).all()
    assert (u > 0).all()
    torch.testing.assert_close((B @ u[..., None])[..., 0], torch.zeros_like(u), atol=1e-12, rtol=0)
    assert (MatrixGame(B).exploitability(games.x) < 1e-12).all()


def test_splits_are_of_one_law_and_share_no_context():
    splits = small().splits
    train, validation, test = (split.tensors[0] for split in (splits.train, splits.validation, splits.test))
    for first, second in ((train, validation), (train, test), (validation, test)):
        assert torch.cdist(first, second).min() > 1e-9
    upper = torch.cat([split.tensors[2] for split in (splits.train, splits.test)])
    fitted = torch.linalg.lstsq(torch.cat([train, test]), upper).solution
    torch.testing.assert_close(fitted.mT, small().law.weight)
    assert not torch.equal(
        MatrixGameData(actions=4, train=2, validation=2, test=2, seed=1).law.weight, small().law.weight
    )


@pytest.mark.bad_input
def test_bad_games_are_named():
    for make, message in (
        (lambda: PayoffLaw(1), "actions >= 2; got actions=1"),
        (lambda: PayoffLaw(4, "cyclic"), "actions = 3; got actions=4"),
        (lambda: PayoffLaw(4, "chess"), '"entropic" or "cyclic"; got \'chess\''),
        (lambda: PayoffLaw(4).draw(0, seed=0), "count >= 1; got count=0"),
        (lambda: antisymmetric(torch.zeros(1, 4), 3), "3 entries above the diagonal; got 4"),
        (lambda: PayoffTask(loss="hinge"), "one of response, likelihood, squared; got 'hinge'"),
        (lambda: BlackBoxTask(loss="response"), "one of squared, likelihood; got 'response'"),
        (lambda: FixedPointTask(form="deep"), '"published" or "cocoercive"; got \'deep\''),
    ):
        with pytest.raises(ValueError, match=message):
            make()


# --- the models ---


def test_the_response_loss_is_zero_at_the_truth_and_convex_in_the_payoffs():
    data = small()
    task = PayoffTask(actions=4)
    batch = data.splits.train.tensors
    B = antisymmetric(batch[2], 4)

    def loss(payoff):
        return float(task.loss(il2o.Inference(x=payoff), batch).detach())

    assert abs(loss(B)) < 1e-12
    for _ in range(20):
        first, second = (antisymmetric(batch[2] + torch.randn_like(batch[2]), 4) for _ in range(2))
        assert loss(first) > 1e-4
        assert loss((first + second) / 2) <= (loss(first) + loss(second)) / 2 + 1e-12


def test_the_response_loss_without_entropy_is_zero_at_the_truth_alone():
    data = MatrixGameData(actions=3, kind="cyclic", train=20, validation=2, test=2, seed=0)
    task, batch = PayoffTask(actions=3, temperature=0.0), data.splits.train.tensors
    B = antisymmetric(batch[2], 3)
    assert float(task.loss(il2o.Inference(x=5 * B), batch)) < 1e-20
    assert float(task.loss(il2o.Inference(x=antisymmetric(batch[2] + 0.5, 3)), batch)) > 1e-6


def test_payoff_nets_derivative_is_that_of_the_equilibrium():
    from implicit_l2o.applications.matrix_games.baselines import _Equilibrium

    A = (2 * torch.randn(2, 3, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda A: _Equilibrium.apply(A, 1e-12)[0], A)
    x, residual = _Equilibrium.apply(A, 1e-10)
    torch.testing.assert_close(x, quantal_response_equilibrium(A.detach()).x, atol=1e-9, rtol=0)
    assert (residual <= 1e-10).all()
    # And of our own layer under the exact mode.
    model = PayoffModel(payoff_network(3), 3, backward=il2o.Implicit())
    w = torch.randn(2, 6, dtype=torch.float64)
    (ours,) = torch.autograd.grad((model.solve(A, A).x * w).sum(), A)
    (theirs,) = torch.autograd.grad((x * w).sum(), A)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


TASKS = {
    "response": lambda: PayoffTask(actions=4, optimization=Optimization(0.3, schedule="constant")),
    "jfb": lambda: PayoffTask(actions=4, loss="likelihood", optimization=Optimization(0.3, schedule="constant")),
    "payoff_net": lambda: PayoffNetTask(actions=4, optimization=Optimization(0.3, schedule="constant")),
    "nfpn": lambda: FixedPointTask(actions=4, form="published", loss="likelihood"),
    "cocoercive": lambda: FixedPointTask(actions=4, loss="likelihood"),
    "black_box": lambda: BlackBoxTask(actions=4),
}


@pytest.mark.parametrize("name", TASKS)
def test_every_method_learns_and_answers_with_strategies(name):
    torch.manual_seed(0)
    data, task = small(), TASKS[name]()
    training = fit(task, data, epochs=5, progress=False)
    errors = [float(epoch["val/mse"]) for epoch in training.history]
    constant = float((data.splits.validation.tensors[1] - task.constant(data.splits.train)).square().mean())
    assert min(errors) < errors[0]
    if name in ("response", "black_box"):
        assert min(errors) < constant
    x, solve = comparison.answer(task, data.splits.test.tensors[0])
    assert (x >= 0).all()
    torch.testing.assert_close(x.unflatten(1, (2, 4)).sum(-1), torch.ones(60, 2, dtype=torch.float64))
    assert solve.get("converged_test", 1.0) == 1.0
    found = task.examine(data.splits.test.tensors[0], data.splits.test.tensors)
    assert (found["worst"] == il2o.Label.PASS).all()


def test_the_structured_model_is_exact_to_the_target_in_seconds():
    torch.manual_seed(0)
    data = MatrixGameData(actions=8, train=1000, validation=200, test=200, batch_size=50, seed=5)
    task = PayoffTask(actions=8, optimization=Optimization(1.0))
    training = fit(task, data, epochs=25, progress=False)
    assert min(float(epoch["val/mse"]) for epoch in training.history) < comparison.TARGET
    # Its payoffs are the law's, as far as equilibria show them: the true game's gap is small too.
    scores = task.fresh_metrics()
    scores.update(comparison.answer(task, data.splits.test.tensors[0])[0], *data.splits.test.tensors[1:])
    assert float(scores.compute()["gap"]) < 1e-2


def test_figures_are_drawn():
    figure = Figure()
    figures.example(figure, {"answer": torch.rand(8), "target": torch.rand(8)})
    assert len(figure.axes) == 2
    sizes = {"5": {"nfpn": {"mse": [1e-3, 2e-3], "seconds": [1.0, 2.0]}, "constant": {"mse": [1e-2, 1e-2]}}}
    assert len(figures.errors(command.LABELS, sizes, 1e-5).axes) == 2


# --- the comparison ---


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """The command on few games for half a second each."""
    folder = tmp_path_factory.mktemp("games")
    methods = ["payoff_response", "black_box"]
    command.main(
        [
            *("--methods", *methods),
            *("--sizes", "5", "--seeds", "0", "1", "--train", "60", "--validation", "20", "--test", "20"),
            *("--seconds", "0.1", "--runs", str(folder), "--out", str(folder), "--assets", str(folder)),
        ]
    )
    return folder


def test_the_command_records_every_method_and_the_script_agrees(run_folder, capsys):
    results = json.loads((run_folder / "matrix_games.json").read_text())
    assert set(results["cases"]) == {"cyclic", "n5"}
    rows = results["cases"]["n5"]
    assert set(rows) == {"payoff_response", "black_box", "constant"}
    assert rows["payoff_response"]["converged_validation"] == [1.0, 1.0]
    assert len(rows["constant"]["mse"]) == 2
    assert (run_folder / "matrix_games_errors.svg").stat().st_size > 1000
    assert check_matrix_games.main([str(run_folder), "--results", str(run_folder / "matrix_games.json")]) == 0
    assert "0 complaints" in capsys.readouterr().out


def test_the_script_finds_what_does_not_agree(run_folder, tmp_path, capsys):
    results = json.loads((run_folder / "matrix_games.json").read_text())
    results["cases"]["n5"]["black_box"]["mse"][1] *= 1.01
    false = tmp_path / "false.json"
    false.write_text(json.dumps(results))
    assert check_matrix_games.main([str(run_folder), "--results", str(false)]) == 1
    assert "black_box, seed 1: mse is" in capsys.readouterr().out
    # And a truth that is none.
    B = check_matrix_games.payoffs(np.array([[1.0, 2.0, 3.0]]), 3)
    assert check_matrix_games.not_an_equilibrium(np.full((1, 6), 1 / 3), B, entropy=True) > 0.1


def test_a_second_run_trains_nothing(run_folder, monkeypatch):
    monkeypatch.setattr(comparison, "train", lambda *_, **__: pytest.fail("trained again"))
    arguments = ["--methods", "black_box", "--sizes", "5", "--seeds", "0", "--runs", str(run_folder)]
    assert command.main([*arguments, "--out", str(run_folder / "again")]) == 0


def test_tuning_is_of_other_games(tmp_path):
    arguments = ["--tune", "--methods", "black_box", "--seconds", "0.02", "--train", "40", "--validation", "10"]
    command.main([*arguments, "--test", "5", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "matrix_games_tuning.json").read_text())
    assert len(found["methods"]["black_box"]) == len(comparison.METHODS["black_box"].grid)
    assert command._parser().parse_args([]).seeds != [500]


def test_the_experiment_is_what_the_page_says():
    config = yaml.safe_load((EXPERIMENTS / "matrix_games.yaml").read_text())
    assert config["model"]["class_path"].endswith("PayoffTask")
    assert config["data"]["init_args"]["actions"] == config["model"]["init_args"]["actions"] == 25
