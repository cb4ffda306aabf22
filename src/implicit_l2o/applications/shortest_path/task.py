"""Training the path model from solutions alone: the costs that came true never enter, not even to choose the epoch."""

from collections.abc import Sequence
from typing import Literal, final

from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.base import AbstractPathTask
from implicit_l2o.applications.shortest_path.model import Perturbation, path_layer
from implicit_l2o.losses import fenchel_young, solution_mse
from implicit_l2o.training import About, Optimization

_ABOUT = About(
    title="Shortest paths from contexts",
    summary="From a context alone, without the costs of the arcs, to the path that will be the shortest. It is learned from "
    "contexts and paths that were taken; the costs that came true are never seen.",
    problem=r"x_\theta(d) = \operatorname*{argmin}_{x} \; \langle w_\theta(d), x \rangle + \frac{\gamma}{2} \| x \|^2 "
    r"\quad \text{subject to} \quad A x = b, \; x \ge 0",
    guarantees=(
        "The flow x is nonnegative, exactly.",
        "Its distance to flow conservation, A x = b, is at most the residual of the solve (Davis-Yin), which is "
        "measured for every answer.",
        "The decision is an exact shortest path under the predicted costs, so it is always a path.",
    ),
)


@final
class PathTask(AbstractPathTask):
    """Shortest paths learned from solutions: a network predicts costs, and the layer answers with a flow under them.

    In training the predicted costs are perturbed (`Perturbation`), which smooths the decision. With `loss="solution"` the
    mean solution is to be the path that was taken, `min |E x(w(d) + e) - x*|^2`, through the backward mode. With
    `loss="fenchel_young"` that path is to be optimal, `min E [f(x*; w(d) + e) - min_x f(x; w(d) + e)]`, which is convex in
    the costs and needs no backward mode.

    Args:
        side: nodes along one side of the grid.
        features: length of a context.
        gamma: of the quadratic term that makes the answer differentiable; with costs of order 1 a value near 1 trains best.
        hidden: width of the cost network.
        loss: what a training minimises, on the validation data too.
        perturbation: standard deviation of the noise on the predicted costs in training; 0 for none.
        copies: perturbed solutions for each context.
        tolerance: of an inference, in units of flow.
        training_tolerance: of a solve in training. 3e-3 takes several times the iterations and gives the same regret.
        backward: None takes `JFB()`.
        optimization: AdamW and its schedule.

    Raises:
        ValueError: an option is out of its range.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path import PathTask
        >>> task = PathTask(side=3, copies=2)
        >>> path = task.answer(task.infer(torch.zeros(1, 5)))  # a path on this grid has four arcs
        >>> path.sum(), task.training_inference(torch.zeros(1, 5)).x.shape
        (tensor(4.), torch.Size([2, 12]))
    """

    def __init__(
        self,
        *,
        side: int = 5,
        features: int = 5,
        gamma: float = 1.0,
        hidden: int = 50,
        loss: Literal["solution", "fenchel_young"] = "solution",
        perturbation: float = 1.5,
        copies: int = 8,
        tolerance: float = 1e-4,
        training_tolerance: float = 0.1,
        backward: il2o.AbstractBackward | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        if loss not in ("solution", "fenchel_young"):
            raise ValueError(f'loss must be "solution" or "fenchel_young"; got {loss!r}.')
        if not training_tolerance > 0:
            raise ValueError(f"PathTask needs training_tolerance > 0; got {training_tolerance}.")
        super().__init__(
            side=side, features=features, hidden=hidden, gamma=gamma, tolerance=tolerance, optimization=optimization
        )
        self._loss = loss
        self._perturb = Perturbation(perturbation, copies=copies)
        self._solve = path_layer(self.program, gamma=gamma, tolerance=training_tolerance, backward=backward)

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The solutions under perturbed costs, `copies` for each context, one copy of the batch after another."""
        return self._solve.inference(self._perturb(self.network(d)))

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The loss on a batch; it takes the contexts and the paths, and no costs."""
        paths = batch[1]
        copies = len(inference.x) // len(paths)
        if self._loss == "fenchel_young":
            cost = inference.need_problem("fenchel_young").F
            assert isinstance(cost, il2o.QuadraticCost)
            return fenchel_young(cost, inference.x, paths.repeat(copies, 1)).mean()
        return solution_mse(inference.x.unflatten(0, (copies, -1)).mean(0), paths).mean()

    def about(self) -> About:
        """See the base."""
        return _ABOUT
