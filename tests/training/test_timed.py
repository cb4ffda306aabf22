"""Trainings of so many seconds: when they end, how the rate falls, that a resume goes on, that gradients are clipped."""

import time

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import implicit_l2o as il2o
from implicit_l2o.training import AbstractData, AbstractTask, Optimization, Splits, TimedTraining, TimeLimit, fit


class Line(AbstractTask):
    """One number; a step takes no time to speak of."""

    def __init__(self, **options):
        super().__init__(
            nn.Linear(1, 1), optimization=Optimization(**{"schedule": "constant", "learning_rate": 0.1} | options)
        )

    def infer(self, d):
        return il2o.Inference(x=self.model(d))

    def loss(self, inference, batch):
        return (inference.x - batch[1]).square().mean()

    def metrics(self):
        return {}


class Points(AbstractData):
    def load(self):
        d = torch.linspace(0, 1, 60).unsqueeze(1)
        return Splits(*(TensorDataset(part, 3 * part + 1) for part in d.split([40, 10, 10])))


class Watch(pl.Callback):
    """What the learning rate and the gradient were in every step."""

    def __init__(self):
        self.rates, self.norms = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))


def test_the_training_ends_when_its_time_is_up():
    timed = TimedTraining(Line(), seconds=0.1, anneal=True, epochs=100_000)
    data = Points(batch_size=4, seed=0)
    timed.prepare(Line(), data, name="line", progress=False)
    numbers = timed.numbers()
    assert 0.1 <= numbers["seconds"] < 0.3
    assert 0 < numbers["epochs"] < 1000
    assert data.batch_size == 4
    assert timed.infer(data.splits.test.tensors).x.shape == (10, 1)


def test_the_rate_falls_along_a_cosine_of_the_time(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("implicit_l2o.training.callbacks.time_limit.time.perf_counter", lambda: float(next(clock)))
    limit, watch = TimeLimit(10.0, anneal=True), Watch()
    fit(Line(), Points(batch_size=4, seed=0), epochs=5, callbacks=[limit, watch], progress=False)
    expected = 0.05 * (1 + torch.cos(torch.pi * torch.arange(10) / 10))
    torch.testing.assert_close(torch.tensor(watch.rates), expected)
    assert limit.steps == 10


def test_processor_time_stands_still_while_others_compute():
    class Waits(Line):
        def loss(self, inference, batch):
            time.sleep(0.02)
            return super().loss(inference, batch)

    limit = TimeLimit(10.0, processor=True)
    fit(Waits(), Points(batch_size=4, seed=0), epochs=1, callbacks=[limit], progress=False)
    assert limit.steps == 10
    assert limit.seconds - limit.left < 10 * 0.02


def test_a_resumed_training_has_the_rest_of_its_time():
    limit = TimeLimit(10.0)
    limit.left, limit.steps = 4.0, 7
    again = TimeLimit(10.0)
    again.load_state_dict(limit.state_dict())
    assert (again.left, again.steps) == (4.0, 7)


def test_gradients_are_clipped():
    free, clipped = Watch(), Watch()
    for watch, most in ((free, None), (clipped, 0.01)):
        fit(Line(), Points(batch_size=40, seed=0), epochs=2, gradient_clip=most, callbacks=[watch], progress=False)
    assert min(free.norms) > 0.01
    assert all(norm == pytest.approx(0.01, rel=1e-4) for norm in clipped.norms)


@pytest.mark.bad_input
@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_has_to_be_positive(seconds):
    with pytest.raises(ValueError, match="seconds > 0"):
        TimeLimit(seconds)


@pytest.mark.parametrize("options", [{"schedule": "cosine"}, {"warmup_steps": 3}])
def test_two_schedules_are_refused(options):
    with pytest.raises(ValueError, match="schedule 'constant' and warmup_steps 0"):
        fit(Line(**options), Points(seed=0), epochs=1, callbacks=[TimeLimit(1.0, anneal=True)], progress=False)
