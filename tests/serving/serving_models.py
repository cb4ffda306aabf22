"""Small servable models for the tests of saving and serving."""

import os
import time

import torch

import implicit_l2o as il2o
from implicit_l2o.serving import AbstractServable, Layer


class Nonnegative(AbstractServable):
    """`x = argmin_{x >= 0} w(d).x + |x|^2 / 2`, with one fixed and one calibrated property."""

    def __init__(self, size: int = 3, *, pause: float = 0.0, steps: int = 100) -> None:
        super().__init__()
        self.pause = pause
        self.layer = il2o.ImplicitLayer(
            encoder=torch.nn.Linear(size, size),
            build=lambda w: il2o.ForwardBackward(
                il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.NonnegativeOrthant()), step=0.5
            ),
            x0=torch.zeros_like,
            solver=il2o.KrasnoselskiiMann(il2o.Stopping(max_steps=steps)),
            on_failure="ignore",
        )

    def infer(self, d):
        end = time.monotonic() + self.pause
        while time.monotonic() < end:  # a slow solve, between the operations of which it can be ended
            _ = torch.ones(8) + 1
        return self.layer.inference(d)

    def certificates(self):
        return (il2o.Certificate(il2o.ConstraintViolation(), il2o.Threshold(1e-3)),)

    def measures(self):
        return (il2o.Sparsity(order=1, name="size"),)

    def check(self, d):
        if bool((d > 100).any()):
            raise ValueError("inputs of at most 100 are needed.")


class Dangerous:
    """Not a servable model: making it would leave a trace."""

    def __init__(self, **_) -> None:
        os.environ["SERVING_TEST_DANGER"] = "made"


def layer(**options) -> Layer:
    torch.manual_seed(0)
    model = Nonnegative(**options)
    calibrated = [il2o.Certificate(measure, il2o.Threshold(1e3)) for measure in model.measures()]
    return Layer(model, example=torch.linspace(-1, 1, 6).reshape(2, 3), calibrated=calibrated)
