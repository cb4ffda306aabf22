"""What the path model is compared with: predict the costs first, or know the generator."""

from collections.abc import Mapping, Sequence
from typing import final

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.metrics import NormalizedRegret
from implicit_l2o.applications.shortest_path.model import cost_network
from implicit_l2o.applications.shortest_path.task import PathTask
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.training import AbstractBaseline, AbstractData, AbstractTask, Optimization


@final
class TwoStageTask(AbstractTask):
    """Regression of the costs by least squares, then the shortest path; the same network, shown the costs that came true.

    Args:
        side: nodes along one side of the grid.
        features: length of a context.
        hidden: width of the cost network.
        optimization: AdamW and its schedule.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path import TwoStageTask
        >>> TwoStageTask(side=3).infer(torch.zeros(1, 5)).x.sum()  # a path on this grid has four arcs
        tensor(4.)
    """

    def __init__(
        self, *, side: int = 5, features: int = 5, hidden: int = 50, optimization: Optimization | None = None
    ) -> None:
        grid = Grid(side)
        super().__init__(cost_network(features, grid.n_arcs, hidden=hidden), optimization=optimization)
        self.grid = grid

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The predicted costs."""
        return il2o.Inference(x=self.model(d), data=d)

    def infer(self, d: Tensor) -> il2o.Inference:
        """The shortest path under the predicted costs."""
        return il2o.Inference(x=self.grid.shortest_paths(self.model(d)), data=d)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The mean squared error of the costs, which chooses the epoch too."""
        return F.mse_loss(inference.x, batch[2])

    def metrics(self) -> Mapping[str, Metric]:
        """The regret of the decisions."""
        return {"regret": NormalizedRegret()}

    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """Price the decisions by the costs that came true."""
        metrics.update(inference.x, batch[2], batch[1])


@final
class Floor(AbstractBaseline):
    """The best possible predictor: it decides by the exact conditional mean of the costs, which only the generator knows.

    The decision that minimises the expected cost given the context is the shortest path under the expected costs, so no
    model can be expected to fall below. Its regret is not zero because the noise on the costs cannot be foreseen.
    """

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Take the grid from the task; nothing is fitted."""
        if not isinstance(task, PathTask):
            raise TypeError(f"Floor is a baseline of PathTask; got {type(task).__name__}.")
        self._grid = task.flow.grid

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The shortest paths under the mean costs."""
        return il2o.Inference(x=self._grid.shortest_paths(batch[3]))
