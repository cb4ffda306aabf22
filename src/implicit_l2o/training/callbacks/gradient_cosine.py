"""How far the gradient that trains the model is from the exact one."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.training.callbacks._implicit import backward_modes, check_every, implicit_modules, log_row

_RTOL = {torch.float64: 1e-10, torch.float32: 1e-6, torch.bfloat16: 1e-2}  # of the adjoint equation


@final
class GradientCosine(pl.Callback):
    """Logs every `every` training steps how the gradient that trains the model compares with the exact one.

    On that step's batch, before the step, the gradient of all parameters is computed twice: under the configured backward
    modes, and with `Implicit` to a tight tolerance in their place, at the same fixed points.

    - `solver/gradient_cosine`: of the two, over the batches of all processes; 1 for the same direction, and the step
      descends while it is positive;
    - `solver/gradient_norm_ratio`: the trained one's norm over that of the exact one;
    - `solver/gradient_skipped`: how many comparisons were skipped so far, once there is one. Where the adjoint equation
      of a sample cannot be solved (`I - dT/dz` is singular) there is no exact gradient, and nothing is compared; nor where
      a gradient vanishes or is not finite.

    The training is not changed: random states, buffers (of batch normalisation, say) and attributes are put back, and no
    `.grad` is written. It costs about three training steps. Without an implicit module in the model it says so
    once and does nothing.

    Args:
        every: training steps from one comparison to the next; the first is before the first step.

    Raises:
        ValueError: `every` is below 1.

    Attributes:
        skipped: comparisons without a result.

    Example:
        >>> from implicit_l2o.training.callbacks import GradientCosine
        >>> GradientCosine(every=500).skipped
        0
    """

    def __init__(self, every: int = 100) -> None:
        check_every("GradientCosine", every)
        self.every = every
        self.skipped = 0
        self._last = -1  # the step before which the last comparison was made

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say so where there is nothing to compare."""
        if not implicit_modules(pl_module):
            rank_zero_info("GradientCosine: the model has no implicit module, so there is no gradient to compare.")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Compare."""
        step = trainer.global_step
        modules = implicit_modules(pl_module)
        if step % self.every or step == self._last or not modules:  # several batches may make up one step
            return
        self._last = step
        cosine, ratio = self._compare(trainer, pl_module, batch, modules)
        if math.isfinite(cosine) and math.isfinite(ratio):
            values = {"solver/gradient_cosine": cosine, "solver/gradient_norm_ratio": ratio}
        else:
            if not self.skipped:
                rank_zero_info(
                    f"GradientCosine: skipped at step {step}: for some samples the exact gradient does not exist or "
                    "vanishes. solver/gradient_skipped counts these."
                )
            self.skipped += 1
            values = {"solver/gradient_skipped": float(self.skipped)}
        log_row(trainer, values, step)
        pl_module.log_dict(values, on_step=True, on_epoch=False, logger=False)

    def state_dict(self) -> dict[str, Any]:
        """The count."""
        return {"skipped": self.skipped, "last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped, self._last = state_dict["skipped"], state_dict["last"]

    def _compare(
        self, trainer: pl.Trainer, task: pl.LightningModule, batch: Any, modules: list[Any]
    ) -> tuple[float, float]:
        reports: list[il2o.AdjointReport] = []
        with _unchanged(task), warnings.catch_warnings():
            warnings.simplefilter("ignore", il2o.ConvergenceWarning)  # the training step gives the same ones
            mine = _gradient(trainer, task, batch)
        with _unchanged(task), warnings.catch_warnings(), backward_modes(modules, lambda _: _Exact(reports)):
            warnings.simplefilter("ignore", il2o.ConvergenceWarning)
            true = _gradient(trainer, task, batch)
        known = [report.status for report in reports if report.status is not None]
        unsolved = sum((status == il2o.Status.MAX_STEPS).sum() for status in known) + mine.new_zeros(())
        # Of the global batch, which is what trains the model. Every process takes part, whatever it found.
        mine, true = (trainer.strategy.reduce(vector, reduce_op="mean") for vector in (mine, true))
        if float(trainer.strategy.reduce(unsolved, reduce_op="sum")):
            return math.nan, math.nan
        a, b = float(torch.linalg.vector_norm(mine)), float(torch.linalg.vector_norm(true))
        if a * b == 0:
            return math.nan, math.nan
        return float(torch.dot(mine / a, true / b)), a / b


def _gradient(trainer: pl.Trainer, task: Any, batch: Any) -> Float[Tensor, " n"]:
    """The gradient of the training loss as one vector, float64."""
    leaves = [parameter for parameter in task.parameters() if parameter.requires_grad]
    infer = getattr(task, "training_inference", task.infer)
    with trainer.precision_plugin.forward_context():
        loss = task.loss(infer(batch[0]), batch)
    if not loss.requires_grad:  # every sample failed
        return torch.cat([torch.zeros_like(leaf).flatten().double() for leaf in leaves])
    parts = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten().double() for part in parts])


@contextmanager
def _unchanged(task: pl.LightningModule) -> Iterator[None]:
    """Run the model and its loss without a trace: what they log is dropped, and all that they can change is put back."""
    modules = list(task.modules())
    attributes = [dict(vars(module)) for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    values = [buffer.clone() for owned in buffers for buffer in owned.values() if buffer is not None]
    generators = {g for owned in attributes for g in owned.values() if isinstance(g, torch.Generator)}
    states = [(generator, generator.get_state()) for generator in generators]
    try:
        vars(task).update(log=lambda *_, **__: None, log_dict=lambda *_, **__: None)
        with isolate_rng():
            yield
    finally:
        for module, former in zip(modules, attributes, strict=True):
            vars(module).clear()
            vars(module).update(former)
        saved = iter(values)
        for module, owned in zip(modules, buffers, strict=True):
            module._buffers.clear()
            for name, buffer in owned.items():
                module._buffers[name] = buffer if buffer is None else buffer.copy_(next(saved))
        for generator, state in states:
            generator.set_state(state)


@dataclass(frozen=True, eq=False)
class _Exact(il2o.AbstractBackward):
    """`Implicit` to a tight tolerance, which keeps how its adjoint equations went."""

    reports: list[il2o.AdjointReport] = field(repr=False)

    def run(self, T: Any, z0: Float[Tensor, "B *shape"], solver: il2o.AbstractFixedPointSolver) -> il2o.FixedPoint:
        """As `Implicit`."""
        point = il2o.Implicit(il2o.GMRES(rtol=_RTOL[z0.dtype])).run(T, z0, solver)
        if point.adjoint is not None:
            self.reports.append(point.adjoint)
        return point
