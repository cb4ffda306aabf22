"""The same network trained in other ways: on the costs themselves, and by losses of PyEPO through the exact search."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.warcraft.model import LEAST, AbstractNetworkSpec, PatchNetwork
from implicit_l2o.applications.warcraft.task import AbstractMapTask
from implicit_l2o.data.warcraft import CellGrid
from implicit_l2o.interop.pyepo import AbstractPyEPOLoss, opt_model
from implicit_l2o.training import Optimization


class _CostTask(AbstractMapTask):
    """A network whose costs are handed to the exact search, with no layer."""

    def __init__(
        self,
        side: int,
        network: AbstractNetworkSpec | None,
        optimization: Optimization | None,
        level: float | None = None,
    ) -> None:
        network = PatchNetwork() if network is None else network
        super().__init__(network.build(side, level=level), CellGrid(side), optimization=optimization)

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The predicted costs."""
        return il2o.Inference(x=self.costs(d))

    def infer(self, d: Tensor) -> il2o.Inference:
        """The cells of the cheapest paths under the predicted costs."""
        return il2o.Inference(x=self.grid.shortest_paths(self.costs(d)))


@final
class TwoStageTask(_CostTask):
    """Regression of the costs by least squares, then the cheapest path; it is shown the costs of the cells.

    Args:
        side: cells along one side.
        network: from a map to costs; None takes `PatchNetwork()`.
        optimization: AdamW and its schedule.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.warcraft import TwoStageTask
        >>> TwoStageTask(side=3).infer(torch.zeros(1, 24, 24, 3, dtype=torch.uint8)).x[0].diagonal()
        tensor([1., 1., 1.])
    """

    def __init__(
        self,
        *,
        side: int = 12,
        network: AbstractNetworkSpec | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(side, network, optimization)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The mean squared error of the costs, which chooses the epoch too."""
        return F.mse_loss(inference.x, batch[2])


@final
class PyEPOTask(_CostTask):
    """The network trained by a loss of PyEPO on the costs of the cells, through our exact search.

    Noise or interpolation may make a cost negative, which the search does not take: it is clamped before.

    Args:
        criterion: a loss of `implicit_l2o.interop.pyepo`. The perturbed Fenchel-Young loss, and the differentiable black box
            with `regret=False`, see the paths alone.
        side: cells along one side.
        network: from a map to costs; None takes `PatchNetwork()`.
        level: see `model.CostNetwork`.
        optimization: AdamW and its schedule.

    Raises:
        ModuleNotFoundError: PyEPO is not installed.
    """

    monitor = "val/regret"  # what PyEPO returns as a loss is not always one that can be compared between epochs

    def __init__(
        self,
        criterion: AbstractPyEPOLoss,
        *,
        side: int = 12,
        network: AbstractNetworkSpec | None = None,
        level: float | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(side, network, optimization, level)
        cells = il2o.LinearProgram(upper=torch.ones(side**2))  # says how many variables there are; the decoder solves
        self._criterion = criterion.bind(opt_model(cells, self._cells))

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """PyEPO's loss on a batch of `(images, paths, costs)`."""
        return self._criterion(inference.x.flatten(1), batch[2].flatten(1), batch[1].flatten(1))

    def _cells(self, costs: Tensor) -> Tensor:
        side = self.grid.side
        return self.grid.shortest_paths(costs.clamp_min(LEAST).unflatten(1, (side, side))).flatten(1)
