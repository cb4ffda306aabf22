"""The metrics of predicted equilibria: how far they are from the exact ones, and what the players could still gain."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from implicit_l2o.data.matrix_games import antisymmetric
from implicit_l2o.games import MatrixGame


class AbstractMean(Metric):
    """The mean of a number a sample, in double precision."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, values: Float[Tensor, " B"]) -> None:
        """Add a batch."""
        self.total += values.double().sum()
        self.count += len(values)

    def compute(self) -> Float[Tensor, ""]:
        """The mean so far; NaN before the first sample."""
        return self.total / self.count


@final
class EquilibriumError(AbstractMean):
    """The mean squared error over the entries of both strategies, as in the published tables."""

    def update(self, answer: Tensor, x: Tensor, upper: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add a batch of answers with the exact equilibria."""
        self.add((answer - x).square().mean(1))


@final
class TrueGap(AbstractMean):
    """What the two players together could gain by answering each other best, in the true game with its entropy.

    Zero exactly at the equilibrium. An entry that is exactly zero, as a projection gives, costs no entropy.

    Args:
        actions: of each player.
        temperature: of their entropy; 0 gives the exploitability.
    """

    def __init__(self, actions: int, temperature: float) -> None:
        super().__init__()
        self.actions, self.temperature = actions, temperature

    def update(self, answer: Tensor, x: Tensor, upper: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add a batch of answers with the true payoffs."""
        inside = answer.clamp(min=0)  # a step outside by rounding has no entropy
        self.add(MatrixGame(antisymmetric(upper, self.actions), self.temperature).gap(inside))
