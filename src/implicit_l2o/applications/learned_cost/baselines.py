"""What the learned convex cost is compared with: a constant, a black box, and simpler learned costs."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.data.decisions import DecisionTask
from implicit_l2o.networks import MLP


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def widest(inputs: int, outputs: int, budget: int) -> int:
    """The width `h` for which an MLP `(inputs, h, h, outputs)` has at most `budget` parameters.

    Example:
        >>> from implicit_l2o.applications.learned_cost.baselines import widest
        >>> h = widest(5, 20, budget=5000)
        >>> (5 + 1) * h + (h + 1) * h + (h + 1) * 20 <= 5000
        True
    """
    linear = inputs + outputs + 2
    return int((-linear + math.sqrt(linear**2 + 4 * (budget - outputs))) / 2)


def _flat(net: MLP) -> MLP:
    """The network with outputs that start at zero, as the learned convex cost starts; see `ConvexCostNet`."""
    last = net.layers[-1]
    nn.init.zeros_(last.get_parameter("weight"))
    nn.init.zeros_(last.get_parameter("bias"))
    return net


class MeanDecision(nn.Module):
    """The constant predictor: the mean decision of the training data."""

    def __init__(self, decisions: Float[Tensor, "N n"]) -> None:
        super().__init__()
        self.register_buffer("mean", decisions.mean(0))

    def forward(self, contexts: Float[Tensor, "B c"], totals: Float[Tensor, "B m"]) -> Float[Tensor, "B n"]:
        """The mean, whatever the data."""
        return self.get_buffer("mean").expand(len(contexts), -1)


class BlackBox(nn.Module):
    """A multilayer perceptron from context and totals to the decision; nothing keeps it in the constraints."""

    def __init__(self, task: DecisionTask, *, budget: int) -> None:
        super().__init__()
        inputs = task.n_contexts + len(task.constraints)
        width = widest(inputs, task.n, budget)
        self.net = MLP((inputs, width, width, task.n))

    def forward(self, contexts: Float[Tensor, "B c"], totals: Float[Tensor, "B m"]) -> Float[Tensor, "B n"]:
        """A decision, maybe infeasible."""
        return self.net(torch.cat([contexts, totals], dim=1))


class LinearCostNet(nn.Module):
    """The learned cost `q(d).x`: the usual predict-then-optimize model."""

    def __init__(self, task: DecisionTask, *, budget: int) -> None:
        super().__init__()
        width = widest(task.n_contexts, task.n, budget)
        self.net = _flat(MLP((task.n_contexts, width, width, task.n)))

    def forward(self, contexts: Float[Tensor, "B c"], totals: Float[Tensor, "B m"]) -> il2o.AbstractSmooth:
        """The cost at a batch of contexts."""
        return il2o.QuadraticCost(linear=self.net(contexts))


class QuadraticCostNet(nn.Module):
    """The learned cost `q(d, b).x + x.(a(d, b) * x) / 2`, `a >= 0`, which may depend on the totals as well.

    For every decision rule there are `q, a` that produce it, so with enough data this model lacks nothing; but it does
    not know that the cost is the same whatever the totals.
    """

    def __init__(self, task: DecisionTask, *, budget: int) -> None:
        super().__init__()
        inputs = task.n_contexts + len(task.constraints)
        width = widest(inputs, 2 * task.n, budget)
        self.net = _flat(MLP((inputs, width, width, 2 * task.n)))

    def forward(self, contexts: Float[Tensor, "B c"], totals: Float[Tensor, "B m"]) -> il2o.AbstractSmooth:
        """The cost at a batch of contexts and totals."""
        linear, curvature = self.net(torch.cat([contexts, totals], dim=1)).chunk(2, dim=1)
        return il2o.QuadraticCost(linear=linear, diagonal=F.softplus(curvature))
