"""Callbacks: what they report is right, and the training does not notice them."""

import copy
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import BinaryAUROC

import implicit_l2o as il2o
from implicit_l2o.applications.digits.task import DigitsTask
from implicit_l2o.training import quiet
from implicit_l2o.training.callbacks import GradientCosine, SolverProgressBar, SolverStatistics, WarmWeightAverage

TIGHT = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-5, rtol=0.0, max_steps=2000))


class Solve(NamedTuple):
    status: Tensor
    residual: Tensor
    steps: Tensor | None


class Rows(Logger):
    """Keeps what was logged, by step."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    name = version = "rows"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append({**metrics, "step": step or 0})

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Not kept."""

    def named(self, name: str) -> dict[int, float]:
        return {int(row["step"]): row[name] for row in self.rows if name in row}


class Task(pl.LightningModule):
    """The interface that the callbacks rely on, around any model."""

    def __init__(self, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.model = model
        self.solve: Solve | None = None
        self.measure = nn.functional.mse_loss if loss is None else loss

    def infer(self, d: Tensor) -> il2o.Inference:
        if not isinstance(self.model, il2o.ImplicitLayer):
            return il2o.Inference(x=self.model(d))
        inference = self.model.inference(d)
        assert inference.status is not None
        assert inference.residual is not None
        self.solve = Solve(inference.status, inference.residual.detach(), inference.steps)
        return inference

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        return self.measure(inference.x, batch[1])

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(self.infer(batch[0]), batch)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/loss", self.loss(self.infer(batch[0]), batch))

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test/loss", self.loss(self.infer(batch[0]), batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def least_squares(Q: Tensor, step: float) -> Callable[[Tensor], il2o.ForwardBackward]:
    """`T(z) = z - step (Q z + w)`: its Jacobian is `I - step Q`, its fixed point `-Q^{-1} w`."""
    return lambda w: il2o.ForwardBackward(il2o.Problem(F=il2o.QuadraticCost(linear=w, matrix=Q)), step=step)


def layer(encoder: nn.Module | None = None, **options: Any) -> il2o.ImplicitLayer:
    torch.manual_seed(0)
    encoder = nn.Linear(4, 3) if encoder is None else encoder
    options = {"solver": TIGHT, **options}
    Q = torch.diag(torch.tensor([0.5, 1.0, 2.0]))
    return il2o.ImplicitLayer(encoder, least_squares(Q, 0.4), torch.zeros_like, **options)


def loader(size: int = 24, batch: int = 8, *, shuffle: bool = False) -> DataLoader:
    generator = torch.Generator().manual_seed(3)
    data = TensorDataset(torch.randn(size, 4, generator=generator), torch.randn(size, 3, generator=generator))
    return DataLoader(data, batch_size=batch, shuffle=shuffle)


def trainer(*callbacks: pl.Callback, logger: Any = False, **options: Any) -> pl.Trainer:
    options = {"max_epochs": 1, "enable_checkpointing": False, "enable_progress_bar": False, **options}
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=logger,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **options,
    )


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


# Solver statistics.


class Scripted(Task):
    """Reports solves that were written down before."""

    def __init__(self, solves: list[Solve | None]) -> None:
        super().__init__(nn.Linear(4, 3))
        self.solves = solves

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.solve = self.solves[batch_idx]
        return self.loss(self.infer(batch[0]), batch)


def solve(status: list[int], residual: list[float], steps: list[int]) -> Solve:
    return Solve(torch.tensor(status), torch.tensor(residual), torch.tensor(steps))


def test_statistics_are_those_of_the_whole_window() -> None:
    solves = [
        solve([1, 1], [0.5, 0.25], [3, 5]),
        solve([1, 2], [0.125, 2.0], [7, 100]),
        solve([3, 1, 1, 1], [math.inf, 0.5, 0.5, math.nan], [1, 1, 1, 1]),
        None,
        solve([2], [4.0], [50]),
    ]
    rows = Rows()
    with quiet():
        trainer(SolverStatistics(every=2), logger=rows).fit(Scripted(solves), loader(40))
    assert rows.named("solver/steps") == {1: 115 / 4, 3: 1.0, 4: 50.0}  # the last window is what was left
    assert rows.named("solver/steps_max") == {1: 100.0, 3: 1.0, 4: 50.0}
    assert rows.named("solver/residual") == {1: 2.0, 3: 0.5, 4: 4.0}
    assert rows.named("solver/converged") == {1: 0.75, 3: 0.75, 4: 0.0}
    assert rows.named("solver/contraction") == {}


@pytest.mark.parametrize(
    ("tolerance", "backward"),
    [(1e-2, il2o.JFB()), (1e-2, il2o.Implicit()), (1e-6, il2o.JFB()), (1e-2, il2o.Unrolled(5))],
)
def test_the_contraction_of_a_linear_map_is_its_factor(tolerance: float, backward: il2o.AbstractBackward) -> None:
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=tolerance, rtol=0.0))
    model = il2o.ImplicitLayer(
        nn.Linear(4, 3),
        least_squares(torch.eye(3), 0.25),  # T(z) = 0.75 z - w / 4
        torch.zeros_like,
        solver=solver,
        backward=backward,
        on_failure="ignore",
    )
    rows, task = Rows(), Task(model)
    trainer(SolverStatistics(every=2), logger=rows).fit(task, loader(32))
    assert list(rows.named("solver/contraction")) == [1, 3]
    assert list(rows.named("solver/contraction").values()) == pytest.approx([0.75, 0.75], abs=2e-3)
    assert model.backward is backward


def test_a_failed_sample_does_not_spoil_the_contraction() -> None:
    class Bad(Task):
        def infer(self, d: Tensor) -> il2o.Inference:
            d = d.clone()
            d[0] = 1e30  # overflows in the square of the norm
            return super().infer(d)

    model = layer(on_failure="ignore")
    rows = Rows()
    trainer(SolverStatistics(every=1), logger=rows, max_steps=1).fit(
        Bad(model, lambda x, y: (x[1:] - y[1:]).square().mean()), loader()
    )
    assert 0 < rows.named("solver/contraction")[0] < 1


def test_statistics_of_accumulated_batches_are_logged_once_a_step() -> None:
    rows = Rows()
    trainer(SolverStatistics(every=1), logger=rows, accumulate_grad_batches=2).fit(Task(layer()), loader(48))
    assert [row["step"] for row in rows.rows if "solver/steps" in row] == [0, 1, 2]


def test_a_task_that_solves_nothing_logs_nothing() -> None:
    rows = Rows()
    trainer(SolverStatistics(every=1), GradientCosine(every=1), logger=rows).fit(Task(nn.Linear(4, 3)), loader())
    assert not any(name.startswith("solver/") for row in rows.rows for name in row)


def test_a_window_survives_a_resume() -> None:
    one, other = SolverStatistics(every=3), SolverStatistics(every=3)
    one._add(solve([1, 2], [0.1, 0.3], [4, 9]))
    other.load_state_dict(one.state_dict())
    for name in ("_sums", "_maxima"):
        torch.testing.assert_close(getattr(other, name), getattr(one, name))
    assert other._samples == 2


def test_an_exception_puts_the_backward_mode_back() -> None:
    class Broken(Task):
        def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
            raise RuntimeError("broken")

    task = Broken(layer())
    mode = task.model.backward
    with pytest.raises(RuntimeError, match="broken"):
        trainer(SolverStatistics(every=1)).fit(task, loader())
    assert task.model.backward is mode


@pytest.mark.parametrize("callback", [SolverStatistics, GradientCosine])
def test_a_rhythm_is_at_least_one(callback: type) -> None:
    with pytest.raises(ValueError, match=r"needs every >= 1 training steps; got every=0"):
        callback(every=0)


# Gradient cosine.


@pytest.mark.parametrize(
    ("backward", "factor"),
    [
        (il2o.JFB(), lambda Q, J: torch.eye(3)),
        (il2o.Neumann(2), lambda Q, J: torch.eye(3) + J + J @ J),
        (il2o.Implicit(), lambda Q, J: torch.linalg.inv(torch.eye(3) - J)),
    ],
    ids=["JFB", "Neumann", "Implicit"],
)
def test_the_cosine_is_the_closed_form(backward: il2o.AbstractBackward, factor: Callable) -> None:
    """With a loss `<c, x>` the gradient in `w` is `-step F c` for the mode's factor `F`, and `-Q^{-1} c` exactly."""
    c, Q, step = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([[1.0, 0.3, 0.0], [0.3, 2.0, 0.1], [0.0, 0.1, 0.5]]), 0.3
    J = torch.eye(3) - step * Q
    mine, true = step * factor(Q, J) @ c, torch.linalg.inv(Q) @ c
    torch.manual_seed(0)
    model = il2o.ImplicitLayer(
        nn.Linear(4, 3), least_squares(Q, step), torch.zeros_like, solver=TIGHT, backward=backward
    )
    rows = Rows()
    task = Task(model, lambda x, y: (x @ c).mean())
    trainer(GradientCosine(every=2), logger=rows).fit(task, loader(40))
    cosine, ratio = rows.named("solver/gradient_cosine"), rows.named("solver/gradient_norm_ratio")
    assert list(cosine) == [0, 2, 4]
    expected = float(torch.nn.functional.cosine_similarity(mine, true, dim=0))
    assert list(cosine.values()) == pytest.approx([expected] * 3, abs=1e-4)
    assert list(ratio.values()) == pytest.approx([float(mine.norm() / true.norm())] * 3, rel=1e-3)
    assert not rows.named("solver/gradient_skipped")


def test_a_singular_adjoint_is_skipped_and_counted() -> None:
    """`T(z) = z - w` along the null space of `Q`: no adjoint solution, so JFB must not be compared with itself."""
    Q = torch.diag(torch.tensor([1.0, 1.0, 0.0]))

    def build(w: Tensor) -> il2o.ForwardBackward:
        flat = il2o.QuadraticCost(linear=w * torch.tensor([1.0, 1.0, 0.0]), matrix=Q)
        return il2o.ForwardBackward(il2o.Problem(F=flat), step=0.5)

    rows, callback = Rows(), GradientCosine(every=1)
    task = Task(
        il2o.ImplicitLayer(nn.Linear(4, 3), build, torch.zeros_like, solver=TIGHT), lambda x, y: x.sum(-1).mean()
    )
    trainer(callback, logger=rows, max_steps=2).fit(task, loader())
    assert rows.named("solver/gradient_skipped") == {0: 1.0, 1: 2.0}
    assert rows.named("solver/gradient_cosine") == {}
    assert callback.skipped == 2


def test_the_cosine_is_that_of_what_the_loss_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a task, the training's own inference; of the digits' classifier, whose mode is None for JFB."""
    seen, own = [], DigitsTask.training_inference

    def training_inference(task: DigitsTask, d: Tensor) -> il2o.Inference:
        seen.append(task.training)
        return own(task, d)

    monkeypatch.setattr(DigitsTask, "training_inference", training_inference)
    rows, images = Rows(), TensorDataset(torch.rand(16, 1, 8, 8), torch.randint(0, 10, (16,)))
    trainer(GradientCosine(every=1), SolverStatistics(every=1), logger=rows, max_steps=2).fit(
        DigitsTask(), DataLoader(images, batch_size=8)
    )
    assert seen == [True] * 6  # twice to compare, once to train
    assert all(0 < cosine < 1 for cosine in rows.named("solver/gradient_cosine").values())
    assert all(0 < rate < 0.8 for rate in rows.named("solver/contraction").values())  # the proven factor


class Noisy(nn.Module):
    """Everything a forward pass can change: statistics, random states, a generator and a counter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
        self.generator = torch.Generator().manual_seed(5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.passes = 0

    def forward(self, d: Tensor) -> Tensor:
        self.passes += 1
        self.calls = self.calls + 1  # a new tensor
        noise = torch.randn(d.shape, generator=self.generator) + np.random.rand()  # noqa: NPY002 -- the global state
        return self.net(d + 0.1 * noise.float())


class Talkative(Task):
    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        loss = super().loss(inference, batch)
        self.log("train/part", loss, on_step=True, on_epoch=True)
        return loss


def trajectory(*callbacks: pl.Callback, **options: Any) -> tuple[dict[str, Tensor], list[Any]]:
    torch.manual_seed(0)
    model = layer(Noisy())
    task = Talkative(model)
    pl.seed_everything(7, verbose=False)
    run = trainer(*callbacks, max_epochs=3, **options)
    run.fit(task, loader(shuffle=True), loader())
    noisy = model.encoder
    assert isinstance(noisy, Noisy)
    rest = [noisy.passes, noisy.generator.get_state().tolist(), torch.get_rng_state().tolist(), float(np.random.rand())]  # noqa: NPY002
    return copy.deepcopy(task.state_dict()), [*rest, float(run.callback_metrics["train/part"])]


@pytest.mark.parametrize("options", [{}, {"precision": "bf16-mixed"}, {"accumulate_grad_batches": 2}], ids=str)
def test_the_training_does_not_notice(options: dict[str, Any]) -> None:
    weights, rest = trajectory(**options)
    rows = Rows()
    watched, watched_rest = trajectory(
        GradientCosine(every=2),
        SolverStatistics(every=2),
        SolverProgressBar(),
        logger=rows,
        enable_progress_bar=True,
        **options,
    )
    assert len(rows.named("solver/gradient_cosine")) >= 2
    assert len(rows.named("solver/contraction")) >= 2
    assert weights.keys() == watched.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, watched[name]), name
    assert rest == watched_rest


def test_no_gradient_is_left_behind() -> None:
    class Watch(pl.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            assert all(parameter.grad is None for parameter in task.parameters())

    task = Task(layer())
    trainer(GradientCosine(every=1), Watch(), max_steps=1).fit(task, loader())


# Weight average.


def averaged(
    folder: Path, epochs: int, callback: pl.Callback, *, resume: str | None = None, seed: int = 0
) -> tuple[Task, pl.Trainer, list[dict[str, Tensor]]]:
    """A training with its weights after every step."""
    steps = []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
            steps.append({name: value.detach().clone() for name, value in pl_module.named_parameters()})

    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    task = Task(layer(encoder))
    saving = ModelCheckpoint(folder, filename="best", monitor="val/loss", save_last=True, enable_version_counter=False)
    run = trainer(callback, Keep(), saving, max_epochs=epochs, enable_checkpointing=True)
    run.fit(task, loader(), loader(), ckpt_path=resume, weights_only=True)
    return task, run, steps


def test_the_average_is_the_rule_and_is_saved(tmp_path: Path) -> None:
    decay = 0.5  # the warm-up takes 5 steps: t / (t + 5) <= 1/2
    task, run, steps = averaged(tmp_path, 4, WarmWeightAverage(decay))
    expected = dict(steps[0])
    for t, weights in enumerate(steps, start=1):
        d = min(decay, t / (t + 5))
        expected = {name: d * expected[name] + (1 - d) * weight for name, weight in weights.items()}
    assert len(steps) == 12
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for name, weight in expected.items():
        torch.testing.assert_close(last["state_dict"][name], weight)
        torch.testing.assert_close(dict(task.named_parameters())[name].detach(), weight)
        assert torch.equal(last["current_model_state"][name], steps[-1][name])
    counter = last["state_dict"]["model.encoder.1.num_batches_tracked"]
    assert (counter.dtype, int(counter)) == (torch.int64, 12)

    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    loss = float(run.callback_metrics["val/loss"]) if best["epoch"] == 3 else None
    plain = Task(layer(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))))
    plain.load_state_dict(best["state_dict"])
    found = trainer().validate(plain, loader(), verbose=False)[0]["val/loss"]
    if loss is not None:
        assert found == loss  # what was validated is what was saved


@pytest.mark.parametrize("fresh", [False, True], ids=["same trainer", "fresh trainer"])
def test_a_test_takes_the_average_without_a_warning(tmp_path: Path, fresh: bool) -> None:
    task, run, _ = averaged(tmp_path, 3, WarmWeightAverage(0.9))
    if fresh:
        run = trainer(WarmWeightAverage(0.9))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Aa]veraging.*")
        run.test(task, loader(), ckpt_path=str(tmp_path / "best.ckpt"), verbose=False, weights_only=True)
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    for name, value in task.state_dict().items():
        assert torch.equal(value, best["state_dict"][name])


def test_a_resumed_average_ends_the_same(tmp_path: Path) -> None:
    whole, *_ = averaged(tmp_path / "whole", 4, WarmWeightAverage(0.9))
    averaged(tmp_path / "parts", 2, WarmWeightAverage(0.9))
    resumed, *_ = averaged(
        tmp_path / "parts", 4, WarmWeightAverage(0.9), resume=str(tmp_path / "parts/last.ckpt"), seed=9
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_an_interrupted_validation_does_not_exchange_the_two(tmp_path: Path) -> None:
    class Interrupt(pl.Callback):
        def on_validation_batch_end(self, *args: Any) -> None:
            raise RuntimeError("interrupted")

        def on_exception(self, trainer: pl.Trainer, *args: Any) -> None:
            trainer.save_checkpoint(tmp_path / "saved.ckpt")

    task = Task(layer())
    with pytest.raises(RuntimeError, match="interrupted"):
        trainer(average := WarmWeightAverage(0.9), Interrupt()).fit(task, loader(), loader())
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)
    assert average._average_model is not None
    for name, value in task.state_dict().items():
        assert torch.equal(saved["current_model_state"][name], value)
        assert torch.equal(saved["state_dict"][name], average._average_model.module.state_dict()[name])
    assert not torch.equal(
        saved["state_dict"]["model.encoder.weight"], saved["current_model_state"]["model.encoder.weight"]
    )


def test_an_average_goes_with_metrics_that_have_buffers() -> None:
    """They come with the first validation, after the average began."""

    class Measured(Task):
        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            if not hasattr(self, "score"):
                self.score = nn.ModuleDict({"area": BinaryAUROC(thresholds=5)})
                self.last = nn.BatchNorm1d(3)
            self.score["area"].update(self.infer(batch[0]).x[:, 0].sigmoid(), (batch[1][:, 0] > 0).int())

    task = Measured(layer())
    trainer(WarmWeightAverage(0.9), max_epochs=3).fit(task, loader(), loader())
    assert torch.equal(task.score["area"].thresholds, torch.linspace(0, 1, 5))


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_a_decay_lies_between_zero_and_one(decay: float) -> None:
    with pytest.raises(ValueError, match=r"WarmWeightAverage needs 0 < decay < 1; got decay="):
        WarmWeightAverage(decay)


# Progress bar.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("validate", [True, False])
def test_a_terminal_shows_one_bar_with_the_solver(monkeypatch: pytest.MonkeyPatch, validate: bool) -> None:
    monkeypatch.setattr("sys.stderr", screen := Terminal())
    run = trainer(SolverProgressBar(interval=0.0), max_epochs=3, enable_progress_bar=True)
    run.fit(Task(layer()), loader(), *([loader()] if validate else []))
    text = screen.getvalue()
    assert "epoch 3/3: 100%" in text
    assert "9/9" in text
    assert re.search(r"loss [\d.]+, [\d.]+ iterations, residual \d\.\de-\d+", text)
    assert ("val/loss" in text) == validate
    assert text.count("\n") == 1  # one bar, left when it is done


def test_a_pipe_gets_one_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(SolverProgressBar(), max_epochs=3, enable_progress_bar=True).fit(Task(layer()), loader(), loader())
    captured = capsys.readouterr()
    lines = captured.err.strip().split("\n")
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all(re.search(r"train/loss .*, val/loss .*, .* iterations, residual .*, .* s$", line) for line in lines)
    assert captured.out == ""


def test_values_are_read_only_when_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    reads = []
    monkeypatch.setattr(SolverProgressBar, "_solve", staticmethod(lambda task: reads.append(1) or []))
    trainer(SolverProgressBar(interval=1e6), max_epochs=2, enable_progress_bar=True).fit(Task(layer()), loader(160))
    assert len(reads) == 3  # the first batch, and the last one of each epoch


def test_tests_and_predictions_are_quiet_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    run = trainer(SolverProgressBar(), enable_progress_bar=True)
    run.test(Task(layer()), loader(), verbose=False)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_an_interval_is_not_negative() -> None:
    with pytest.raises(ValueError, match=r"interval >= 0 seconds; got interval=-1.0"):
        SolverProgressBar(interval=-1.0)


# By class path.

CONFIG = """
trainer:
  accelerator: cpu
  max_epochs: 4
  logger: false
  enable_model_summary: false
  callbacks:
    - class_path: implicit_l2o.training.SolverStatistics
      init_args: {every: 5}
    - class_path: implicit_l2o.training.GradientCosine
      init_args: {every: 50}
    - class_path: implicit_l2o.training.SolverProgressBar
    - class_path: implicit_l2o.training.WarmWeightAverage
      init_args: {decay: 0.5}
    - class_path: EarlyStopping
      init_args: {monitor: val/loss, patience: 1, min_delta: 1000.0}
    - class_path: ModelCheckpoint
      init_args: {monitor: val/loss, dirpath: FOLDER, filename: best}
lr_scheduler:
  class_path: CosineAnnealingLR
  init_args: {T_max: 10}
optimizer:
  class_path: Adam
  init_args: {lr: 0.01}
"""


class Fixed(Task):
    def __init__(self) -> None:
        super().__init__(layer())

    # LightningCLI supplies the optimizer.
    configure_optimizers = pl.LightningModule.configure_optimizers

    def train_dataloader(self) -> DataLoader:
        return loader()

    def val_dataloader(self) -> DataLoader:
        return loader()


def test_a_configuration_names_them_by_class_path(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.replace("FOLDER", str(tmp_path)))
    cli = LightningCLI(Fixed, run=False, save_config_callback=None, args=["--config", str(config)])
    cli.trainer.fit(cli.model)
    assert cli.trainer.current_epoch == 2  # stopped early
    assert (tmp_path / "best.ckpt").exists()
    assert {"solver/steps", "solver/gradient_cosine", "val/loss"} <= set(cli.trainer.callback_metrics)
