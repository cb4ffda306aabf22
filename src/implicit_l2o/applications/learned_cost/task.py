"""Training from observed decisions alone: the hidden cost never enters, not even to choose the epoch."""

from collections.abc import Mapping
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import implicit_l2o as il2o
from implicit_l2o.applications.learned_cost.model import SOLVER, DecisionModel
from implicit_l2o.data.decisions import Decisions
from implicit_l2o.training import AbstractTask


def _relaxed(tolerance: float, max_steps: int) -> il2o.KrasnoselskiiMann:
    """Decisions have norm one; the automatic step allows a relaxation below 3/2."""
    stopping = il2o.Stopping(atol=tolerance, rtol=0.0, max_steps=max_steps, check_every=10)
    return il2o.KrasnoselskiiMann(stopping, relaxation=1.4)


TRAINING_SOLVER = _relaxed(3e-3, 300)
VALIDATION_SOLVER = _relaxed(1e-4, 1000)


@dataclass(frozen=True)
class Recipe:
    """How every model is trained, the baselines too; chosen on the hidden cost of seed 10, which no table reports.

    Args:
        epochs: passes over the training data.
        batch_size: observations a step.
        learning_rates: each is tried; the validation error chooses. 1e-2 came first of 1e-3, 3e-3, 1e-2 and 3e-2 on the
            allocation of seed 10 for the convex and quadratic costs and the black box (60 epochs, before the costs
            started flat); for the linear cost, started flat, it was level with 3e-3.
    """

    epochs: int = 16
    batch_size: int = 40
    learning_rates: tuple[float, ...] = (1e-2,)


class DecisionData(pl.LightningDataModule):
    """Loaders over observations `(context, totals, decision)`.

    Args:
        train: training observations.
        validation: validation observations, one batch.
        batch_size: of the training loader.
        seed: of the order of the training data.
    """

    def __init__(self, train: Decisions, validation: Decisions, *, batch_size: int, seed: int) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.batch_size = batch_size
        self._order = torch.Generator().manual_seed(seed)

    def train_dataloader(self) -> DataLoader:
        """Shuffled."""
        return DataLoader(_tensors(self.train), self.batch_size, shuffle=True, generator=self._order)

    def val_dataloader(self) -> DataLoader:
        """All at once."""
        return DataLoader(_tensors(self.validation), len(self.validation))


class ObservedDecisions(AbstractTask):
    """`min |x_theta(d, b) - x*|^2` over observed decisions, through the model's backward mode.

    Args:
        model: `DecisionModel`, solved loosely in training and to 1e-4 in validation, or a network that predicts decisions.
        learning_rate: at the start of the cosine.
    """

    METRIC = "decision error"

    def __init__(self, model: nn.Module, *, learning_rate: float) -> None:
        super().__init__(model, monitor=self.METRIC, learning_rate=learning_rate)

    def loss(self, batch: list[Tensor]) -> Tensor:
        """The mean squared distance on a batch."""
        contexts, totals, observed = batch
        decided = decide(self.model, contexts, totals, solver=TRAINING_SOLVER)
        return (decided - observed).square().sum(-1).mean()

    def metrics(self, batch: list[Tensor]) -> Mapping[str, float]:
        """The relative decision error."""
        contexts, totals, observed = batch
        decided = decide(self.model, contexts, totals, solver=VALIDATION_SOLVER)
        return {self.METRIC: decision_error(decided, observed)}


def decide(
    model: nn.Module,
    contexts: Float[Tensor, "B c"],
    totals: Float[Tensor, "B m"],
    *,
    solver: il2o.AbstractFixedPointSolver = SOLVER,
) -> Float[Tensor, "B n"]:
    """The decisions of any model; `solver` is for those that solve a problem."""
    if isinstance(model, DecisionModel):
        return model(contexts, totals, solver=solver).x
    return model(contexts, totals)


def decision_error(decided: Float[Tensor, "B n"], observed: Float[Tensor, "B n"]) -> float:
    """`|X - X*| / |X*|`, Frobenius norms over the data set: 1 for deciding nothing."""
    return float((decided - observed).norm() / observed.norm())


def _tensors(part: Decisions) -> TensorDataset:
    return TensorDataset(part.contexts, part.totals, part.decisions)
