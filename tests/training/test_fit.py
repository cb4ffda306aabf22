"""Training in one's own process: the best epoch is kept, an interrupt comes through, the process is as it was."""

import math
import os
import signal

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanSquaredError

import implicit_l2o as il2o
from implicit_l2o.training import AbstractData, AbstractTask, Optimization, Splits, fit, one_thread


class Line(AbstractTask):
    """Least squares; with a rate that is too large the loss grows from epoch to epoch."""

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__(nn.Linear(2, 1), optimization=Optimization(learning_rate=rate, schedule="constant"))

    def infer(self, d):
        return il2o.Inference(x=self.model(d))

    def loss(self, inference, batch):
        return (inference.x - batch[1]).square().mean()

    def metrics(self):
        return {"squared error": MeanSquaredError()}


class Points(AbstractData):
    def load(self):
        d = torch.randn(60, 2)
        return Splits(*(TensorDataset(part, part.sum(1, keepdim=True)) for part in d.split((40, 10, 10))))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def points():
    return Points(batch_size=10, seed=0)


def test_the_weights_are_those_of_the_best_epoch() -> None:
    task, data = Line(rate=3.0), points()
    training = fit(task, data, epochs=4, progress=False)
    losses = [epoch["val/loss"] for epoch in training.history]
    assert training.best_epoch == min(range(4), key=losses.__getitem__)
    assert not task.training
    with torch.no_grad():
        batch = data.splits.validation.tensors
        assert float(task.loss(task.infer(batch[0]), batch)) == pytest.approx(min(losses), rel=1e-5)
    assert len(training.seconds) == 4
    assert training.seconds_per_epoch > 0


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_average_of_the_weights_is_what_is_validated_and_kept(decay: float) -> None:
    """Against the rule by hand: after step t the average moves by `1 - min(decay, t / (t + 5))` towards the weights."""
    task, data = Line(), points()
    average: list[torch.Tensor] = []

    class Hand(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            weights = nn.utils.parameters_to_vector(pl_module.parameters()).detach().clone()
            if not average:
                average.append(weights)
            share = 1 - min(decay, trainer.global_step / (trainer.global_step + 5))
            average[0] = average[0].lerp(weights, share)

    training = fit(task, data, epochs=1, weight_average=decay, callbacks=[Hand()], progress=False)
    kept = nn.utils.parameters_to_vector(task.parameters()).detach()
    torch.testing.assert_close(kept, average[0])
    batch = data.splits.validation.tensors
    with torch.no_grad():
        assert float(task.loss(task.infer(batch[0]), batch)) == pytest.approx(training.history[0]["val/loss"], rel=1e-5)


@pytest.mark.bad_input
def test_no_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="epochs >= 1; got epochs=0"):
        fit(Line(), points(), epochs=0)


def test_a_loss_that_is_not_finite_ends_it() -> None:
    task = Line()
    with torch.no_grad():
        next(task.parameters()).fill_(math.inf)
    with pytest.raises(FloatingPointError, match="not finite in epoch 0, step 0"):
        fit(task, points(), epochs=1, progress=False)


def test_an_interrupt_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning alone would leave the interpreter, and later interrupts ignored."""
    task = Line()
    loss = task.loss

    def interrupted(inference, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return loss(inference, batch)

    monkeypatch.setattr(task, "loss", interrupted)
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(task, points(), epochs=2, progress=False)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_progress_is_one_bar_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    fit(Line(), points(), epochs=2, label="a label")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "a label: 100%" in captured.err
    assert "2/2" in captured.err
    assert "val/loss" in captured.err
    fit(Line(), points(), epochs=1, progress=False)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_one_thread_is_given_back() -> None:
    threads = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads
