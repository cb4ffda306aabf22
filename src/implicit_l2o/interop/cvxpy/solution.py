"""What a solve of a CVXPY layer returns beside the values of its variables."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.program import ConePrograms

# In the words of cone programs where they differ from those of iterations.
_WORDS = {
    il2o.Status.CONVERGED: "solved.",
    il2o.Status.MAX_STEPS: "the optimality conditions are not met to the tolerance: the best point found is returned.",
    il2o.Status.NONFINITE: "a parameter is NaN or infinite; zeros are returned, without a gradient.",
    il2o.Status.DIVERGED: "the problem is unbounded; zeros are returned, without a gradient.",
    il2o.Status.INFEASIBLE: "the problem is infeasible; zeros are returned, without a gradient.",
}


class ZeroGradientWarning(UserWarning):
    """The solution does not change with the parameters (to first order): it sits at a vertex, or does not depend on them."""


@dataclass(eq=False)
class GradientReport:
    """How a backward pass went; filled in when `backward()` runs, None before.

    Attributes:
        residual: `(B,)` of the linear equations relative to the cotangent; zero for `JFB`, which solves none.
        solved: `(B,)` whether they were solved; if not, the gradient is that of least squares.
        zero: `(B,)` whether the gradient is zero though the cotangent is not.
    """

    residual: Float[Tensor, " B"] | None = None
    solved: Bool[Tensor, " B"] | None = None
    zero: Bool[Tensor, " B"] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class ConicSolution:
    """The solution of a batch.

    Attributes:
        variables: what the layer returns, with the gradient of its backward mode.
        everything: the values `(B, *shape)` of all variables of the problem by their ids, without one.
        parameters: the values `(B, *shape)` or `(*shape)` that were given, without one.
        status: `(B,)` integers of `Status`; DIVERGED says unbounded.
        residual: `(B,)` of the optimality conditions, Euclidean, relative to the data and the point.
        gap: `(B,)` difference of primal and dual objectives, relative to one plus their size.
        objective: `(B,)` of CVXPY's problem, in its own sense (a maximum is maximised).
        steps: `(B,)` iterations of the forward solver.
        gradient: filled by the backward pass.
    """

    variables: tuple[Tensor, ...]
    everything: dict[int, Tensor]
    parameters: tuple[Tensor, ...]
    status: Int[Tensor, " B"]
    residual: Float[Tensor, " B"]
    gap: Float[Tensor, " B"]
    objective: Float[Tensor, " B"]
    steps: Int[Tensor, " B"]
    gradient: GradientReport = field(default_factory=GradientReport)

    @property
    def converged(self) -> Bool[Tensor, " B"]:
        """Which samples were solved."""
        return self.status == il2o.Status.CONVERGED

    @property
    def failed(self) -> Bool[Tensor, " B"]:
        """Which samples have no answer: no number, infeasible or unbounded."""
        return failed(self.status)

    def message(self, sample: int) -> str:
        """What happened to one sample, in words."""
        status = il2o.Status(int(self.status[sample]))
        numbers = f"residual {float(self.residual[sample]):.1e}, {int(self.steps[sample])} steps."
        return f"sample {sample}: {status.name}: {_WORDS[status]} {numbers}"


def failed(status: Tensor) -> Tensor:
    """Samples without an answer."""
    kinds = (il2o.Status.NONFINITE, il2o.Status.DIVERGED, il2o.Status.INFEASIBLE)
    return torch.isin(status, torch.tensor([int(kind) for kind in kinds]))


def objectives(
    programs: ConePrograms, x: np.ndarray, y: np.ndarray, vector: np.ndarray
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """The relative gap of primal and dual objectives, and the primal one with its constant."""
    curved = (x * programs.curvature(x)).sum(1)
    linear, fixed = (programs.q * x).sum(1), (programs.b * y).sum(1)
    gap = np.abs(curved + linear + fixed) / (1 + np.abs(curved / 2 + linear))
    constant = np.asarray((programs.canonical.q.map @ vector.T).T)[:, -1]
    return torch.as_tensor(gap), torch.as_tensor(curved / 2 + linear + constant)
