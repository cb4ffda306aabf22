"""What other packages train on the same network and data: PyEPO's losses on an exact decoder, and cvxpylayers."""

from collections.abc import Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.baselines import AbstractCostTask
from implicit_l2o.applications.shortest_path.model import path_program
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.decoders import GridPaths
from implicit_l2o.interop.pyepo import AbstractPyEPOLoss, Criterion, SPOPlus, opt_model
from implicit_l2o.training import Optimization


@final
class PyEPOTask(AbstractCostTask):
    """One of PyEPO's own losses, over its model class with our exact decoder in place of its solver.

    Args:
        side: nodes along one side of the grid.
        features: length of a context.
        hidden: width of the cost network.
        criterion: `SPOPlus()`, `PFYL()`, `DBB()` or `NID()` of `implicit_l2o.interop.pyepo`; None takes SPO+.
        optimization: AdamW and its schedule.

    Raises:
        ModuleNotFoundError: PyEPO is not installed.
    """

    def __init__(
        self,
        *,
        side: int = 5,
        features: int = 5,
        hidden: int = 50,
        criterion: AbstractPyEPOLoss | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(side=side, features=features, hidden=hidden, optimization=optimization)
        self._criterion = SPOPlus() if criterion is None else criterion
        self._bound: Criterion | None = None

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """PyEPO's loss of the batch."""
        if self._bound is None:  # here, for PyEPO is slow to import and a task may be made only to be described
            self._bound = self._criterion.bind(opt_model(path_program(self.grid), GridPaths(self.grid.side)))
        return self._bound(inference.x, batch[2], batch[1])


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
        self._layer = _CvxpyLayer(self.grid, gamma)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The mean squared error of the solutions; the regret of the decisions chooses nothing."""
        if not torch.is_grad_enabled():  # a solve of the validation data would take as long as a training
            return F.mse_loss(self.grid.shortest_paths(inference.x), batch[1])
        return F.mse_loss(self._layer(inference.x), batch[1])


class _CvxpyLayer:
    """`w -> x(w)`; it holds no weights, and a copy of a task shares it, for what it compiled cannot be copied."""

    def __init__(self, grid: Grid, gamma: float) -> None:
        import cvxpy as cp  # pyright: ignore[reportMissingImports]
        from cvxpylayers.torch import CvxpyLayer  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

        x, cost = cp.Variable(grid.n_arcs), cp.Parameter(grid.n_arcs)
        # One row follows from the others; left in, an interior-point method would factor a singular matrix.
        rows, supply = grid.incidence()[1:], grid.supply().numpy()[1:]
        objective = cp.Minimize(cost @ x + gamma / 2 * cp.sum_squares(x))
        problem = cp.Problem(objective, [rows @ x == supply, x >= 0])
        options = {"solve_method": "Clarabel", "n_jobs_forward": 1, "n_jobs_backward": 1}
        self._layer = CvxpyLayer(problem, parameters=[cost], variables=[x], solver_args=options)

    def __call__(self, w: Tensor) -> Tensor:
        return self._layer(w)[0]

    def __deepcopy__(self, memo: Any) -> "_CvxpyLayer":
        return self
