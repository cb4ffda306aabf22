"""How the solver fared during training."""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, final

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.diagnostics import contraction_estimate
from implicit_l2o.training.callbacks._implicit import backward_modes, check_every, implicit_modules, log_row

_SAMPLES = 8  # of the batch, whose contraction is estimated
_LATE, _EARLY = 10, 30  # iterations on from the solution, or from the start where the solution is exact already


@final
class SolverStatistics(pl.Callback):
    """Logs what `task.solve` says of the solves, over every `every` training steps and all processes.

    - `solver/steps`, `solver/steps_max`: mean and largest number of iterations;
    - `solver/residual`: the largest finite residual at a returned point;
    - `solver/converged`: share of the samples that met their tolerance;
    - `solver/contraction`: how much one iteration `z <- T(z)` shrinks the residual, see below.

    The contraction is `contraction_estimate` in the last step of each window, the mean over up to 8 samples: the geometric
    mean of the residual ratios over ten iterations on from the solution, plain ones, whatever the solver does. Where the
    solution is exact to rounding the iterations start where the solve did. It says how fast `T` converges along its orbit;
    it is no bound, and no proof of a contraction.

    Between the windows' ends nothing waits for the device. A task that solves nothing (`task.solve` is None) logs nothing.

    Args:
        every: training steps a window.

    Raises:
        ValueError: `every` is below 1.

    Example:
        >>> from implicit_l2o.training.callbacks import SolverStatistics
        >>> SolverStatistics(every=50).every
        50
    """

    def __init__(self, every: int = 10) -> None:
        check_every("SolverStatistics", every)
        self.every = every
        self._closed = 0  # the step at which the last window ended
        self._clear()
        self._found: list[Tensor] = []
        self._observing = ExitStack()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """In the last step of a window, look on while the solve runs."""
        if (trainer.global_step + 1) % self.every == 0:
            self._found = []
            modules = implicit_modules(pl_module)
            self._observing.enter_context(backward_modes(modules, lambda mode: _Observed(mode, self._found)))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step; at the end of a window, log."""
        self._observing.close()
        solve = getattr(pl_module, "solve", None)
        if solve is not None and len(solve.status):
            self._add(solve)
        step = trainer.global_step
        if step % self.every == 0 and step != self._closed:  # several batches may make up one step
            self._closed = step
            values = self._close(trainer, pl_module.device)
            pl_module.log_dict(values, on_step=True, on_epoch=False, logger=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what is left in a last, shorter window."""
        self._close(trainer, pl_module.device)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Look on no more."""
        self._observing.close()

    def state_dict(self) -> dict[str, Any]:
        """The open window, so that a resumed run logs what an uninterrupted one does."""
        return {
            "sums": self._sums.tolist(),
            "maxima": self._maxima.tolist(),
            "samples": self._samples,
            "closed": self._closed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the window."""
        self._sums = torch.tensor(state_dict["sums"], dtype=torch.float64)
        self._maxima = torch.tensor(state_dict["maxima"], dtype=torch.float64)
        self._samples = state_dict["samples"]
        self._closed = state_dict["closed"]

    def _clear(self) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64)  # iterations, converged samples
        self._maxima = torch.full((2,), -math.inf, dtype=torch.float64)  # iterations, residual
        self._samples = 0

    def _add(self, solve: Any) -> None:
        status, residual = solve.status, solve.residual
        steps = torch.full_like(status, -1) if solve.steps is None else solve.steps
        converged = status == il2o.Status.CONVERGED
        finite = torch.where(torch.isfinite(residual), residual, -math.inf)
        device = status.device
        sums = torch.stack([steps.sum(), converged.sum()]).double()
        maxima = torch.stack([steps.max().double(), finite.max().double()])
        self._sums = self._sums.to(device) + sums
        self._maxima = torch.maximum(self._maxima.to(device), maxima)
        self._samples += len(status)

    def _close(self, trainer: pl.Trainer, device: torch.device) -> dict[str, float]:
        """End the window and log it; every process takes part, also one that solved nothing."""
        rates = torch.cat([torch.zeros(0, dtype=torch.float64), *self._found])
        sums = torch.tensor([self._samples, float(rates.sum()), len(rates)], dtype=torch.float64, device=device)
        sums = torch.cat([self._sums.to(device), sums])
        maxima = self._maxima.to(device)
        self._clear()
        self._found = []
        steps, converged, samples, rate, rates_count = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        steps_max, residual = trainer.strategy.reduce(maxima, reduce_op="max").tolist()
        if not samples:
            return {}
        values = {"solver/converged": converged / samples}
        if steps_max >= 0:
            values |= {"solver/steps": steps / samples, "solver/steps_max": steps_max}
        if residual >= 0:
            values["solver/residual"] = residual
        if rates_count:
            values["solver/contraction"] = rate / rates_count
        log_row(trainer, values, trainer.global_step - 1)
        return values


@dataclass(frozen=True, eq=False)
class _Observed(il2o.AbstractBackward):
    """A backward mode that also estimates the contraction of the `T` it solves."""

    mode: il2o.AbstractBackward
    found: list[Tensor]

    def run(self, T: Any, z0: Float[Tensor, "B *shape"], solver: il2o.AbstractFixedPointSolver) -> il2o.FixedPoint:
        """The mode's own solve, then a few iterations on."""
        point = self.mode.run(T, z0, solver)
        with torch.no_grad():
            rates = _rates(T, z0, point)
            self.found.append(rates[torch.isfinite(rates)].double().cpu())
        return point


def _rates(T: Any, z0: Tensor, point: il2o.FixedPoint) -> Float[Tensor, " k"]:
    z = point.z.detach()
    sound = (point.status == il2o.Status.CONVERGED) | (point.status == il2o.Status.MAX_STEPS)
    if hasattr(T, "restrict"):
        few = sound.nonzero().squeeze(-1)[:_SAMPLES]
        T, z0, z, sound = T.restrict(few), z0[few], z[few], sound[few]
    if not bool(sound.any()):
        return z.new_zeros(0)
    rates = contraction_estimate(T, z, steps=_LATE)
    if bool(rates.isnan().any()):
        rates = torch.where(rates.isnan(), contraction_estimate(T, z0, steps=_EARLY), rates)
    return rates[sound]
