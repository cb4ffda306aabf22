"""What other packages train on the same network and data: PyEPO's losses on an exact decoder, and cvxpylayers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.baselines import AbstractCostTask
from implicit_l2o.applications.shortest_path.model import path_program
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.training import AbstractBaseline, AbstractData, AbstractTask, Optimization, count_parameters, fit

PyEPOLoss = Literal["spo_plus", "pfyl", "dbb"]


@final
class PyEPOTask(AbstractCostTask):
    """PyEPO's own losses, on its model class with our exact decoder in place of its solver.

    Args:
        side: nodes along one side of the grid.
        features: length of a context.
        hidden: width of the cost network.
        loss: `"spo_plus"` (sees the costs), `"pfyl"` the perturbed Fenchel-Young loss (from solutions), or `"dbb"` the black-box
            interpolation, with the decision's cost as its loss.
        samples: perturbations a context, of `"pfyl"`.
        sigma: their standard deviation.
        interpolation: PyEPO's `lambd`, of `"dbb"`.
        optimization: AdamW and its schedule.

    Raises:
        ValueError: the loss is none of these.
        ModuleNotFoundError: PyEPO is not installed.
    """

    def __init__(
        self,
        *,
        side: int = 5,
        features: int = 5,
        hidden: int = 50,
        loss: PyEPOLoss = "spo_plus",
        samples: int = 1,
        sigma: float = 1.0,
        interpolation: float = 10.0,
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(side=side, features=features, hidden=hidden, optimization=optimization)
        self._kind: PyEPOLoss = loss
        self._module = _module(loss, self.grid, samples=samples, sigma=sigma, interpolation=interpolation)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """PyEPO's loss of the batch."""
        w, (_, paths, costs, *_) = inference.x, batch
        if self._kind == "spo_plus":
            return self._module(w, costs, paths, (costs * paths).sum(1, keepdim=True))
        if self._kind == "pfyl":
            return self._module(w, paths)
        return (self._module(w) * costs).sum(1).mean()


def _module(loss: PyEPOLoss, grid: Grid, *, samples: int, sigma: float, interpolation: float) -> nn.Module:
    """One of PyEPO's loss modules."""
    from pyepo.func import SPOPlus, blackboxOpt, perturbedFenchelYoung

    from implicit_l2o.decoders import GridPaths
    from implicit_l2o.interop.pyepo import opt_model

    model = opt_model(path_program(grid), GridPaths(grid.side))
    if loss == "spo_plus":
        return SPOPlus(model, processes=1)
    if loss == "pfyl":
        return perturbedFenchelYoung(model, n_samples=samples, sigma=sigma, processes=1)
    if loss == "dbb":
        return blackboxOpt(model, lambd=interpolation, processes=1)
    raise ValueError(f'loss must be "spo_plus", "pfyl" or "dbb"; got {loss!r}.')


@final
class CvxpyTask(AbstractCostTask):
    """The layer's problem solved and differentiated by cvxpylayers, with the same quadratic term, from solutions alone.

    Args:
        side: nodes along one side of the grid.
        features: length of a context.
        hidden: width of the cost network.
        gamma: of the quadratic term.
        optimization: AdamW and its schedule.

    Raises:
        ModuleNotFoundError: cvxpylayers is not installed.
    """

    def __init__(
        self,
        *,
        side: int = 5,
        features: int = 5,
        hidden: int = 50,
        gamma: float = 1.0,
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(side=side, features=features, hidden=hidden, optimization=optimization)
        import cvxpy as cp
        from cvxpylayers.torch import CvxpyLayer

        x, cost = cp.Variable(self.grid.n_arcs, nonneg=True), cp.Parameter(self.grid.n_arcs)
        # One row follows from the others; left in, an interior-point method would factor a singular matrix.
        rows, supply = self.grid.incidence()[1:], self.grid.supply().numpy()[1:]
        objective = cp.Minimize(cost @ x + gamma / 2 * cp.sum_squares(x))
        problem = cp.Problem(objective, [rows @ x == supply])
        options = {"solve_method": "Clarabel", "n_jobs_forward": 1, "n_jobs_backward": 1}
        # In a tuple, so that it is no part of the module: it holds no weights, and cannot be copied.
        self._layer = (CvxpyLayer(problem, parameters=[cost], variables=[x], solver_args=options),)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The mean squared error of the solutions; the regret of the decisions chooses nothing."""
        if not torch.is_grad_enabled():  # a solve of the validation data would take as long as a training
            return F.mse_loss(self.grid.shortest_paths(inference.x), batch[1])
        return F.mse_loss(self._layer[0](inference.x)[0], batch[1])


@final
class _TimeLimit(pl.Callback):
    """Ends a training in the middle of an epoch when its training steps have taken so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self.steps = 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._left -= time.perf_counter() - self._began
        self.steps += 1
        if self._left <= 0:
            trainer.should_stop = True


@final
@dataclass(eq=False)
class TimedTraining(AbstractBaseline):
    """Another task, trained on the same data for at most so many seconds of training steps.

    The learning rate should not depend on the number of steps: `schedule: constant`.

    Args:
        task: the model, its loss and its optimization.
        seconds: of training steps, without validation.
        epochs: the most passes over the training data.
        weight_average: see `fit`.
        batch_size: None takes that of the data.
    """

    task: AbstractTask
    seconds: float
    epochs: int = 60
    weight_average: float = 0.0
    batch_size: int | None = None
    _numbers: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Train it, and keep its best epoch by its own monitor."""
        limit, size = _TimeLimit(self.seconds), data.batch_size
        data.batch_size = size if self.batch_size is None else self.batch_size
        steps_an_epoch = -(-len(data.splits.train) // data.batch_size)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(data.run_seed)
                training = fit(
                    self.task,
                    data,
                    epochs=self.epochs,
                    weight_average=self.weight_average,
                    callbacks=[limit],
                    progress=progress,
                    label=name,
                )
        finally:
            data.batch_size = size
        epochs = limit.steps / steps_an_epoch
        self._numbers = {
            "parameters": count_parameters(self.task),
            "epochs": epochs,
            "seconds_per_epoch": sum(training.seconds) / epochs,
            "best_epoch": training.best_epoch,
        }

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """What the trained task says."""
        return self.task.infer(batch[0])

    def numbers(self) -> Mapping[str, Any]:
        """Its size and time."""
        return self._numbers
