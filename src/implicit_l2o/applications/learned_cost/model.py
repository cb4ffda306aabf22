"""The model: `x(d, b) = argmin_{x in C(b)} f_theta(x; d) + known(x)`, a learned cost beside an expert's.

`f_theta` is an input-convex network, conditioned on the context; `known` and the constraints are given. On a simplex the
problem is solved by projected gradient, `x <- P_C(x - step grad(f_theta + known)(x))`; on a general polytope
`{x >= 0, A x = b}` by Davis-Yin splitting.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.data.decisions import DecisionTask
from implicit_l2o.networks import ICNN, MLP, Softplus

SOLVER = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-6, rtol=0.0, max_steps=5000, check_every=10))


class ConvexCostNet(nn.Module):
    """The learned cost `f_theta(.; d)`: an encoder of the context and an input-convex network.

    Args:
        task: gives the sizes.
        hidden: width of the encoder.
        units: of the input-convex network, one entry a layer.
        sharpness: of its softplus; the decisions are of size one, so a sharp activation is what bends within reach.
    """

    def __init__(
        self, task: DecisionTask, *, hidden: int = 32, units: tuple[int, ...] = (24,), sharpness: float = 8.0
    ) -> None:
        super().__init__()
        self.encoder = MLP((task.n_contexts, hidden, hidden))
        self.icnn = ICNN(task.n, context=task.n_contexts + hidden, widths=units, activation=Softplus(sharpness))
        # The cost starts flat at the origin, for every context. A random slope would push entries of x to zero from the
        # outset, and an entry at zero has no gradient to leave it by.
        with torch.no_grad():
            self.icnn.get_parameter("heads.weight").zero_()
            origin = torch.zeros(1, task.n)
            start = self.icnn.condition(torch.zeros(1, task.n_contexts + hidden))
            self.icnn.theta[-task.n :] -= start.apply(origin)[0]

    def forward(self, contexts: Float[Tensor, "B c"], totals: Float[Tensor, "B m"]) -> il2o.AbstractSmooth:
        """The cost at a batch of contexts; it does not depend on the totals."""
        return self.icnn.condition(torch.cat([contexts, torch.relu(self.encoder(contexts))], dim=1))


class DecisionModel(nn.Module):
    """A learned cost turned into decisions: what the cost says, within the constraints.

    Args:
        task: the constraints and the known cost.
        cost: makes an `AbstractSmooth` from contexts and totals.
        backward: None takes `JFB()`. `Unrolled(K)` makes the model stop after K steps, in training and in use.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.learned_cost.model import ConvexCostNet, DecisionModel
        >>> from implicit_l2o.data.decisions import DecisionTask
        >>> _ = torch.manual_seed(0)
        >>> task = DecisionTask.allocation(projects=4)
        >>> data = task.sample(3, seed=0)
        >>> solution = DecisionModel(task, ConvexCostNet(task).double())(data.contexts, data.totals)
        >>> bool(solution.converged.all()), bool((solution.x >= 0).all())
        (True, True)
    """

    def __init__(
        self,
        task: DecisionTask,
        cost: nn.Module,
        *,
        backward: il2o.AbstractBackward | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.cost = cost
        self.backward = backward

    def splitting(self, contexts: Float[Tensor, "B c"], totals: Float[Tensor, "B m"]) -> il2o.AbstractSplitting:
        """The operator `T_theta(.; d, b)`."""
        cost = self.cost(contexts, totals)
        if not self.task.is_simplex:
            return self.task.splitting(cost, totals)
        F = il2o.SmoothSum((cost, self.task.known))
        return il2o.ForwardBackward(il2o.Problem(F=F, g=il2o.Simplex(totals[:, 0])))

    def forward(
        self,
        contexts: Float[Tensor, "B c"],
        totals: Float[Tensor, "B m"],
        *,
        solver: il2o.AbstractFixedPointSolver = SOLVER,
    ) -> il2o.Solution:
        """The decisions, with status and residual; by default the residual is below 1e-6."""
        start = totals.new_zeros(len(totals), self.task.n)
        return il2o.solve(
            self.splitting(contexts, totals), start, solver=solver, backward=self.backward, on_failure="ignore"
        )
