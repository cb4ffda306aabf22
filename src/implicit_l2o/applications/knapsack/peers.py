"""The same network trained by other libraries: PyEPO's losses on our exact oracle, and cvxpylayers on the same program."""

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.knapsack.data import items_of_run
from implicit_l2o.applications.knapsack.model import value_network
from implicit_l2o.applications.knapsack.task import AbstractKnapsackTask
from implicit_l2o.data.knapsack import Items
from implicit_l2o.interop.pyepo import AbstractPyEPOLoss, opt_model
from implicit_l2o.training import Optimization


@final
class PyEPOTask(AbstractKnapsackTask):
    """The value network trained by a loss of PyEPO, which solves by the decoder of this package.

    Args:
        criterion: a loss of `implicit_l2o.interop.pyepo`. SPO+ and the differentiable black box see the values that came
            true, the perturbed Fenchel-Young loss the best selections alone.
        items: of the knapsack; None takes the defaults. Their seed plus the run's says which.
        features: length of a context.
        hidden: widths of the value network.
        dropout: see `value_network`.
        level: see `value_network`.
        optimization: AdamW and its schedule.
        seed: of the run; None takes what `seed_everything` has set.

    Raises:
        ModuleNotFoundError: PyEPO is not installed.
    """

    monitor = "val/regret"  # what PyEPO returns as a loss is not always one that can be compared

    def __init__(
        self,
        criterion: AbstractPyEPOLoss,
        *,
        items: Items | None = None,
        features: int = 5,
        hidden: Sequence[int] = (100,),
        dropout: float = 0.0,
        level: float = 0.0,
        optimization: Optimization | None = None,
        seed: int | None = None,
    ) -> None:
        items = items_of_run(items, seed)
        network = value_network(features, items.count, hidden=hidden, dropout=dropout, level=level)
        super().__init__(network, items, optimization=optimization)
        self._criterion = criterion.bind(opt_model(items.program(), self.decoder, maximize=True))

    def values(self, d: Tensor) -> Tensor:
        """The predicted values."""
        return self.model(d)

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The predicted values."""
        return il2o.Inference(x=self.model(d))

    def infer(self, d: Tensor) -> il2o.Inference:
        """The best selections under the predicted values."""
        return il2o.Inference(x=self.decoder(-self.model(d)))

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """PyEPO's loss on a batch of `(contexts, selections, values, ...)`."""
        return self._criterion(inference.x, batch[2], batch[1])


@final
class CvxpyLayersTask(AbstractKnapsackTask):
    """The value network trained through cvxpylayers: the same program, the same `gamma`, the squared solution error.

    The solver is Clarabel, by which it is fastest here; its gradient is that of the solution.

    Args:
        items: of the knapsack; None takes the defaults. Their seed plus the run's says which.
        features: length of a context.
        hidden: widths of the value network.
        dropout: see `value_network`.
        level: see `value_network`.
        gamma: of the quadratic term.
        optimization: AdamW and its schedule.
        seed: of the run; None takes what `seed_everything` has set.

    Raises:
        ModuleNotFoundError: cvxpylayers is not installed.
    """

    def __init__(
        self,
        *,
        items: Items | None = None,
        features: int = 5,
        hidden: Sequence[int] = (100,),
        dropout: float = 0.0,
        level: float = 0.0,
        gamma: float = 1.0,
        optimization: Optimization | None = None,
        seed: int | None = None,
    ) -> None:
        import cvxpy as cp  # pyright: ignore[reportMissingImports]
        from cvxpylayers.torch import CvxpyLayer  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

        items = items_of_run(items, seed)
        super().__init__(
            value_network(features, items.count, hidden=hidden, dropout=dropout, level=level),
            items,
            optimization=optimization,
        )
        v, x = cp.Parameter(items.count), cp.Variable(items.count)
        limits = [items.weights().numpy() @ x <= items.capacities().numpy(), x >= 0, x <= 1]
        problem = cp.Problem(cp.Minimize(-v @ x + gamma / 2 * cp.sum_squares(x)), limits)
        self._theirs = _Shared(CvxpyLayer(problem, [v], [x], solver_args={"solve_method": "Clarabel"}))

    def values(self, d: Tensor) -> Tensor:
        """The predicted values, in units of gamma."""
        return self.model(d)

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The solutions of the relaxation, with their gradient."""
        (x,) = self._theirs.layer(self.model(d))
        return il2o.Inference(x=x.to(d))

    def infer(self, d: Tensor) -> il2o.Inference:
        """The best selections under the predicted values."""
        return il2o.Inference(x=self.decoder(-self.model(d)))

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The squared error, summed over the items."""
        return (inference.x - batch[1]).square().sum(1).mean()


class _Shared:
    """A layer that every copy of the task shares: it has no weights, and the average of the weights makes a copy."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __deepcopy__(self, memo: Any) -> "_Shared":
        return self
