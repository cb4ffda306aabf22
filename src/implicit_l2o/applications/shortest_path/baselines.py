"""What the path model is compared with: predict the costs first, or know the generator."""

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric, MetricCollection

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.metrics import NormalizedRegret
from implicit_l2o.applications.shortest_path.model import cost_network
from implicit_l2o.applications.shortest_path.costs import relative_error
from implicit_l2o.applications.shortest_path.base import AbstractPathTask
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
        """The regret of the decisions."""
        return {"regret": NormalizedRegret()}

    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """Price the decisions by the costs that came true."""
        metrics.update(inference.x, batch[2], batch[1])


@final
class TwoStageTask(AbstractCostTask):
    """Regression of the costs by least squares, then the shortest path; the same network, shown the costs that came true.

    Args:
        side: nodes along one side of the grid.
        features: length of a context.
        hidden: width of the cost network.
        relative: weigh each error by the inverse square of the predicted cost (`costs.relative_error`), as noise in
            proportion to the costs wants it.
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
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(side=side, features=features, hidden=hidden, optimization=optimization)
        self._relative = relative

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The error of the costs, which chooses the epoch too."""
        if self._relative:
            return relative_error(inference.x, batch[2], 0.1).mean()
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
    """The well-specified model: every monomial of the context up to the generator's degree, fitted to the costs by ridge.

    What the sample size allows to somebody who knows the form of the generator. The columns are standardised, and the weight
    of the ridge is the one with the smallest validation error of the costs.

    Args:
        degree: of the monomials; None takes that of the data.
        ridges: weights to choose from, in units of samples.
    """

    degree: int | None = None
    ridges: Sequence[float] = (0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Solve the normal equations for every weight, in double precision."""
        self._grid = path_grid(task, "Polynomial")
        self._degree = getattr(data, "degree", 4) if self.degree is None else self.degree
        train, validation = (part.tensors for part in (data.splits.train, data.splits.validation))
        columns = monomials(train[0], self._degree)
        self._mean, self._scale = columns.mean(0), columns.std(0)
        X, Y = self._columns(train[0]), train[2].double()
        self._intercept = Y.mean(0)
        gram, right = X.T @ X, X.T @ (Y - self._intercept)
        best = float("inf")
        for ridge in self.ridges:
            weights = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), right)
            predicted = self._columns(validation[0]) @ weights + self._intercept
            error = float((predicted - validation[2]).square().mean())
            if error < best:
                best, self._weights, self._ridge = error, weights, ridge

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The shortest paths under the fitted costs."""
        costs = self._columns(batch[0]) @ self._weights + self._intercept
        return il2o.Inference(x=self._grid.shortest_paths(costs).to(batch[0]))

    def numbers(self) -> Mapping[str, Any]:
        """Its size and the ridge that was chosen."""
        return {"parameters": self._weights.numel() + len(self._intercept), "ridge": self._ridge}

    def _columns(self, d: Tensor) -> Float[Tensor, "B monomials"]:
        return (monomials(d, self._degree) - self._mean) / self._scale


def monomials(d: Float[Tensor, "B features"], degree: int) -> Float[Tensor, "B monomials"]:
    """Every product of 1 to `degree` features, in double precision.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path.baselines import monomials
        >>> monomials(torch.tensor([[2.0, 3.0]]), 2).tolist()
        [[2.0, 3.0, 4.0, 6.0, 9.0]]
    """
    d = d.double()
    powers = [
        d[:, list(chosen)].prod(1)
        for order in range(1, degree + 1)
        for chosen in combinations_with_replacement(range(d.shape[1]), order)
    ]
    return torch.stack(powers, 1)


def path_grid(task: AbstractTask, name: str) -> Grid:
    """The grid of the model that a baseline is compared with.

    Raises:
        TypeError: the task is no path model.
    """
    if not isinstance(task, AbstractPathTask):
        raise TypeError(f"{name} is a baseline of PathTask and CostPathTask; got {type(task).__name__}.")
    return task.grid
