"""What the path model is compared with: predict the costs first, or know the generator."""

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb, factorial, prod
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric, MetricCollection

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.base import AbstractPathTask
from implicit_l2o.applications.shortest_path.costs import relative_error
from implicit_l2o.applications.shortest_path.metrics import path_metrics, update_metrics
from implicit_l2o.applications.shortest_path.model import cost_network
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.training import AbstractBaseline, AbstractData, AbstractTask, Optimization


class AbstractCostTask(AbstractTask, ABC):
    """A cost network without a layer: it decides by the exact shortest path under the costs that it predicts.

    Args:
        side: nodes along one side of the grid.
        features: length of a context.
        hidden: width of the cost network.
        optimization: AdamW and its schedule.
    """

    def __init__(
        self, *, side: int = 5, features: int = 5, hidden: int = 50, optimization: Optimization | None = None
    ) -> None:
        grid = Grid(side)
        super().__init__(cost_network(features, grid.n_arcs, hidden=hidden), optimization=optimization)
        self.grid = grid

    @final
    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The predicted costs."""
        return il2o.Inference(x=self.model(d), data=d)

    @final
    def infer(self, d: Tensor) -> il2o.Inference:
        """The shortest path under the predicted costs."""
        return il2o.Inference(x=self.grid.shortest_paths(self.model(d)), data=d)

    def metrics(self) -> Mapping[str, Metric]:
        """The regret of the decisions, and what of it is not the noise."""
        return path_metrics()

    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """Price the decisions by the costs that came true, and by their means."""
        update_metrics(metrics, self.grid, inference.x, batch)


@final
class TwoStageTask(AbstractCostTask):
    """Regression of the costs by least squares, then the shortest path; the same network, shown the costs that came true.

    Args:
        side: nodes along one side of the grid.
        features: length of a context.
        hidden: width of the cost network.
        relative: weigh each error by the inverse square of the predicted cost (`costs.relative_error`), as noise in
            proportion to the costs wants it.
        least: predicted costs below it count as it in these weights.
        optimization: AdamW and its schedule.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path import TwoStageTask
        >>> TwoStageTask(side=3).infer(torch.zeros(1, 5)).x.sum()  # a path on this grid has four arcs
        tensor(4.)
    """

    def __init__(
        self,
        *,
        side: int = 5,
        features: int = 5,
        hidden: int = 50,
        relative: bool = False,
        least: float = 0.5,
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(side=side, features=features, hidden=hidden, optimization=optimization)
        self._relative, self._least = relative, least

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The error of the costs, which chooses the epoch too."""
        if self._relative:
            return relative_error(inference.x, batch[2], self._least).mean()
        return F.mse_loss(inference.x, batch[2])


@final
class Floor(AbstractBaseline):
    """The best possible predictor: it decides by the exact conditional mean of the costs, which only the generator knows.

    The decision that minimises the expected cost given the context is the shortest path under the expected costs, so no
    model can be expected to fall below. Its regret is not zero because the noise on the costs cannot be foreseen.
    """

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Take the grid from the task; nothing is fitted."""
        self._grid = path_grid(task, "Floor")

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The shortest paths under the mean costs."""
        return il2o.Inference(x=self._grid.shortest_paths(batch[3]))


@final
@dataclass(eq=False)
class Polynomial(AbstractBaseline):
    """The well-specified model: polynomials of the generator's degree in the context, fitted to the costs by ridge.

    What the sample size allows to somebody who knows the form of the generator. The monomials carry the weights of the
    kernel `(1 + d.d' / length)^degree`, so that higher powers are shrunk more; then the fitted costs of all arcs are reduced
    to a few directions in common (reduced-rank regression). Length, ridge and rank are those with the smallest validation
    error of the costs.

    Args:
        degree: of the polynomials; None takes that of the data.
        lengths: squared lengths of the kernel to choose from.
        ridges: weights of the ridge to choose from.
        ranks: numbers of directions to choose from; all of them is always a choice.

    Source: T. Hastie, R. Tibshirani and J. Friedman, The Elements of Statistical Learning (2009), sections 3.4, 3.7, 12.3.
    """

    degree: int | None = None
    lengths: Sequence[float] = (5.0, 15.0, 45.0, 135.0)
    ridges: Sequence[float] = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    ranks: Sequence[int] = (5, 10, 15, 20, 25, 30)

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Fit every choice in double precision, and keep the best."""
        self._grid = path_grid(task, "Polynomial")
        degree = getattr(data, "degree", 4) if self.degree is None else self.degree
        train, validation = (part.tensors for part in (data.splits.train, data.splits.validation))
        costs, held_out = train[2].double(), validation[2].double()
        self._intercept = costs.mean(0)

        def error(weights: Tensor, length: float) -> float:
            return float((self._predict(validation[0], weights, length, degree) - held_out).square().mean())

        best, kept = float("inf"), None
        for length in self.lengths:
            X = monomials(train[0], degree, length)
            self._mean = X.mean(0)
            left, values, right = torch.linalg.svd(X - self._mean, full_matrices=False)
            projected = left.T @ (costs - self._intercept)
            for ridge in self.ridges:
                weights = right.T @ ((values / (values.square() + ridge)).unsqueeze(1) * projected)
                found = error(weights, length)
                if found < best:
                    best, kept = found, (weights, length, ridge, self._mean, values.unsqueeze(1) * (right @ weights))
        if kept is None:
            raise ValueError(
                "Polynomial found no finite validation error: the costs have NaN or inf, or there is no choice."
            )
        weights, length, ridge, self._mean, fitted = kept
        directions = torch.linalg.svd(fitted, full_matrices=False).Vh
        rank, full = len(directions), weights
        for candidate in self.ranks:
            reduced = full @ directions[:candidate].T @ directions[:candidate]
            found = error(reduced, length)
            if found < best:
                best, weights, rank = found, reduced, candidate
        self._fitted = (weights, length, degree)
        self._numbers = {"parameters": weights.numel(), "length": length, "ridge": ridge, "rank": rank}

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The shortest paths under the fitted costs."""
        return il2o.Inference(x=self._grid.shortest_paths(self._predict(batch[0], *self._fitted)).to(batch[0]))

    def numbers(self) -> Mapping[str, Any]:
        """Its size and what was chosen."""
        return self._numbers

    def _predict(self, d: Tensor, weights: Tensor, length: float, degree: int) -> Float[Tensor, "B arcs"]:
        return (monomials(d, degree, length) - self._mean) @ weights + self._intercept


def monomials(d: Float[Tensor, "B features"], degree: int, length: float) -> Float[Tensor, "B monomials"]:
    """Every product of 1 to `degree` features, weighted so that `1 + phi(d).phi(d') = (1 + d.d' / length)^degree`.

    In double precision.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path.baselines import monomials
        >>> phi = monomials(torch.tensor([[2.0, 3.0]]), 2, 13.0)
        >>> 1 + phi.square().sum(1), (1 + (4 + 9) / 13) ** 2
        (tensor([4.], dtype=torch.float64), 4.0)
    """
    d = d.double()
    columns = []
    for order in range(1, degree + 1):
        for chosen in combinations_with_replacement(range(d.shape[1]), order):
            arrangements = factorial(order) // prod(factorial(chosen.count(j)) for j in set(chosen))
            weight = (comb(degree, order) * arrangements / length**order) ** 0.5
            columns.append(weight * d[:, list(chosen)].prod(1))
    return torch.stack(columns, 1)


def path_grid(task: AbstractTask, name: str) -> Grid:
    """The grid of the model that a baseline is compared with.

    Raises:
        TypeError: the task is no path model.
    """
    if not isinstance(task, AbstractPathTask):
        raise TypeError(f"{name} is a baseline of PathTask and CostPathTask; got {type(task).__name__}.")
    return task.grid
