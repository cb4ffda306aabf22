"""What the knapsack model is compared with: methods that see the values that came true, and one that knows the generator."""

from collections.abc import Sequence
from typing import Literal, final

import torch.nn.functional as F
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.knapsack.data import items_of_run
from implicit_l2o.applications.knapsack.model import value_network
from implicit_l2o.applications.knapsack.task import AbstractKnapsackTask
from implicit_l2o.data.knapsack import Items
from implicit_l2o.losses import regret, spo_plus
from implicit_l2o.training import AbstractBaseline, AbstractData, AbstractTask, Optimization

ValueLoss = Literal["least_squares", "spo_plus", "spo_plus_relaxed", "regret"]
_LOSSES = ("least_squares", "spo_plus", "spo_plus_relaxed", "regret")


@final
class ValueTask(AbstractKnapsackTask):
    """The same network, trained with the values that came true.

    The losses, with `v` predicted, `c` the true values and `x*` the best selection under them:

    - `"least_squares"`: `|v - c|^2`, the two-stage model;
    - `"spo_plus"`: the convex bound on the regret (`losses.spo_plus`) over selections, exactly solved;
    - `"spo_plus_relaxed"`: the same over the relaxation, with the layer's quadratic term;
    - `"regret"`: `c.(x* - x(v))` of the layer's answer, through its backward mode.

    Args:
        loss: see above.
        items: of the knapsack; None takes the defaults. Their seed plus the run's says which.
        features: length of a context.
        hidden: widths of the value network.
        dropout: see `value_network`.
        level: see `value_network`.
        gamma: of the layer's quadratic term.
        polish: as in `KnapsackTask`.
        training_tolerance: of its solves.
        backward: None takes `JFB()`.
        optimization: AdamW and its schedule.
        seed: of the run; None takes what `seed_everything` has set.

    Raises:
        ValueError: the loss is none of these.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.knapsack import ValueTask
        >>> from implicit_l2o.data.knapsack import Items
        >>> ValueTask(items=Items(6)).infer(torch.zeros(2, 5)).x.shape
        torch.Size([2, 6])
    """

    monitor = "val/regret"  # the losses of these methods are not all comparable between epochs

    def __init__(
        self,
        *,
        loss: ValueLoss = "least_squares",
        items: Items | None = None,
        features: int = 5,
        hidden: Sequence[int] = (100,),
        dropout: float = 0.0,
        level: float = 0.0,
        gamma: float = 1.0,
        polish: bool = True,
        training_tolerance: float = 1e-2,
        backward: il2o.AbstractBackward | None = None,
        optimization: Optimization | None = None,
        seed: int | None = None,
    ) -> None:
        if loss not in _LOSSES:
            raise ValueError(f"loss must be one of {', '.join(_LOSSES)}; got {loss!r}.")
        items = items_of_run(items, seed)
        network = value_network(features, items.count, hidden=hidden, dropout=dropout, level=level)
        super().__init__(network, items, optimization=optimization)
        self._loss = loss
        self._solve = il2o.LPLayer(
            items.program(),
            gamma=gamma,
            tolerance=training_tolerance,
            max_steps=1000,
            polish=polish,
            backward=backward,
            on_failure="ignore",
        )

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
        """The loss on a batch of `(contexts, selections, values, ...)`."""
        predicted, best, values = inference.x, batch[1], batch[2]
        if self._loss == "least_squares":
            return F.mse_loss(predicted, values)
        if self._loss == "regret":
            return regret(self._solve(-predicted).x, -values, best).mean()
        oracle = self.decoder if self._loss == "spo_plus" else self._relaxed
        return spo_plus(oracle, -predicted, -values, best).mean()

    def _relaxed(self, costs: Tensor) -> Tensor:
        return self._solve(costs).x


@final
class Floor(AbstractBaseline):
    """The best possible predictor: it decides by the exact conditional mean of the values, which only the generator knows.

    The selection of largest expected value given the context is the best one under the expected values, so no model can be
    expected to fall below. Its regret is not zero because noise and rounding cannot be foreseen.
    """

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Take the items from the task; nothing is fitted."""
        if not isinstance(task, AbstractKnapsackTask):
            raise TypeError(f"Floor is a baseline of a knapsack task; got {type(task).__name__}.")
        self._decoder = task.decoder

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The best selections under the mean values."""
        return il2o.Inference(x=self._decoder(-batch[3]))
