"""Training the path model by the decision's cost: the costs that came true are seen in training, never in inference."""

from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.base import AbstractPathTask
from implicit_l2o.applications.shortest_path.model import path_layer
from implicit_l2o.losses import regret
from implicit_l2o.training import About, Optimization

_ABOUT = About(
    title="Shortest paths from contexts, by their cost",
    summary="From a context alone to the path that will be the shortest. In training the costs that came true are seen, and "
    "the loss is what the decision costs under them.",
    problem=r"x_\theta(d) = \operatorname*{argmin}_{x} \; \langle w_\theta(d), x \rangle + \frac{\gamma}{2} \| x \|^2 "
    r"\quad \text{subject to} \quad A x = b, \; x \ge 0",
    guarantees=(
        "The flow x is nonnegative, exactly.",
        "Its distance to flow conservation, A x = b, is at most the residual of the solve (Davis-Yin).",
        "The decision is an exact shortest path under the predicted costs, so it is always a path.",
    ),
)


@final
class CostPathTask(AbstractPathTask):
    """Shortest paths learned from costs: a decision loss through the layer, beside a regression of the costs.

    `loss="regret"` is the cost of the layer's own flow, `<c, x(w)>`, differentiated by the backward mode.
    `loss="spo_plus"` is SPO+ with the layer for its oracle, `max_x {<c - 2 w, x> - gamma |x|^2 / 2} + <2 w - c, x*>` up to a
    constant: the Fenchel-Young loss of the costs `2 w - c` towards the best path `x*`. It is convex in `w`, needs no
    backward mode, and is SPO+ itself as gamma goes to 0.

    The regression keeps the scale of the costs, which a decision does not see. `regression` is the weight of
    `sum (w - c)^2 / (2 v^2)` over the arcs, `v = max(w, least)` held fixed: the quasi-likelihood of costs whose standard
    deviation is proportional to their mean.

    Args:
        side: nodes along one side of the grid.
        features: length of a context.
        gamma: of the quadratic term.
        hidden: width of the cost network.
        loss: of the decisions.
        decision: its weight; 0 leaves the regression alone.
        regression: weight of the regression.
        least: predicted costs below it count as it in the regression's weights.
        tolerance: of an inference, in units of flow.
        training_tolerance: of a solve in training.
        backward: None takes `JFB()`; for the regret, whose JFB is far from its gradient, `Neumann(20)` is better.
        optimization: AdamW and its schedule.

    Raises:
        ValueError: an option is out of its range.

    Source: A. N. Elmachtoub and P. Grigas, Smart "Predict, then Optimize", Management Science 68 (2022); for the regression
        P. McCullagh and J. A. Nelder, Generalized Linear Models (1989), chapter 9.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path import CostPathTask
        >>> CostPathTask(side=3).training_inference(torch.zeros(2, 5)).x.shape
        torch.Size([2, 12])
    """

    def __init__(
        self,
        *,
        side: int = 5,
        features: int = 5,
        gamma: float = 1.0,
        hidden: int = 50,
        loss: Literal["regret", "spo_plus"] = "spo_plus",
        decision: float = 1.0,
        regression: float = 1.0,
        least: float = 0.5,
        tolerance: float = 1e-4,
        training_tolerance: float = 0.1,
        backward: il2o.AbstractBackward | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        if loss not in ("regret", "spo_plus"):
            raise ValueError(f'loss must be "regret" or "spo_plus"; got {loss!r}.')
        for name, value, positive in (
            ("decision", decision, False),
            ("regression", regression, False),
            ("least", least, True),
        ):
            if value < 0 or (positive and value == 0):
                raise ValueError(f"CostPathTask needs {name} {'>' if positive else '>='} 0; got {name}={value}.")
        super().__init__(
            side=side, features=features, hidden=hidden, gamma=gamma, tolerance=tolerance, optimization=optimization
        )
        self._loss = loss
        self._decision, self._regression, self._least = decision, regression, least
        self._solve = path_layer(self.program, gamma=gamma, tolerance=training_tolerance, backward=backward)

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The predicted costs; what is solved follows from the loss."""
        return il2o.Inference(x=self.network(d), data=d)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The decision loss and the regression, both in units of the mean cost of a path's arcs."""
        w, (_, paths, costs, *_) = inference.x, batch
        loss = w.new_zeros(())
        if self._decision:
            loss = self._decision * self._decided(w, costs, paths).mean()
        if self._regression:
            loss = loss + self._regression * relative_error(w, costs, self._least).mean()
        return loss

    def about(self) -> About:
        """See the base."""
        return _ABOUT

    def _decided(self, w: Tensor, costs: Tensor, paths: Tensor) -> Float[Tensor, " B"]:
        if self._loss == "regret":
            return regret(self._solve(w).x, costs, paths)
        spread = 2 * w - costs
        with torch.no_grad():
            x = self._solve(spread).x
        gamma = self._solve.gamma
        return ((paths - x) * spread).sum(1) + gamma / 2 * (paths.square() - x.square()).sum(1)


def relative_error(
    predicted: Float[Tensor, "B arcs"], costs: Float[Tensor, "B arcs"], least: float
) -> Float[Tensor, " B"]:
    """`sum (w - c)^2 / (2 v^2)` with `v = max(w, least)` held fixed, per sample.

    Args:
        predicted: the costs `w`.
        costs: the costs `c` that came true.
        least: bounds the weights where a predicted cost is small or negative.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path.costs import relative_error
        >>> relative_error(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.1]]), 0.1)
        tensor([0.6250])
    """
    scale = predicted.detach().clamp_min(least)
    return ((predicted - costs) / scale).square().sum(1) / 2
