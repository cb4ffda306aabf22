"""Forward-backward splitting: projected and proximal gradient (Lions and Mercier 1979; the seed's example)."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import SCALAR
from implicit_l2o.operators.base import Scalar
from implicit_l2o.problem import Problem
from implicit_l2o.splittings.base import (
    AbstractSplitting,
    Step,
    cocoercivity,
    forward_averagedness,
    forward_step,
    require_absent,
)


@dataclass(frozen=True, eq=False)
class ForwardBackward(AbstractSplitting):
    """`T(z) = prox_{step g}(z - step F(z))`, readout `x = z`; solves `0 in F(x) + dg(x)`. Projected gradient for a set `g`.

    Args:
        problem: `F` cocoercive, and `g`; no `h`, `K`, `l`.
        step: in `(0, 2 beta)`, `beta` the cocoercivity of `F` (`1/L` for a gradient), a number or per sample `(B,)`;
            `"auto"` takes `beta`.

    Raises:
        ValueError: a term or the step is outside what the theorem allows.

    Source: Bauschke and Combettes, Convex Analysis and Monotone Operator Theory, 2017, theorem 26.14.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> cost = il2o.QuadraticCost(linear=torch.tensor([[1.0, -2.0]]), diagonal=1.0)
        >>> il2o.solve(il2o.ForwardBackward(il2o.Problem(F=cost, g=il2o.Box(lower=0.0))), torch.zeros(1, 2)).x
        tensor([[0., 2.]])
    """

    problem: Problem
    step: Step = "auto"
    step_size: Scalar = field(init=False, metadata=SCALAR)  # the step in use
    beta: Scalar = field(init=False, metadata=SCALAR)

    def __post_init__(self) -> None:
        require_absent("ForwardBackward", self.problem, "h", "K", "l")
        beta = cocoercivity("ForwardBackward", self.problem)
        object.__setattr__(self, "beta", beta)
        object.__setattr__(self, "step_size", forward_step("ForwardBackward", self.step, beta))

    @property
    def averagedness(self) -> float:
        """`2 beta / (4 beta - step)`."""
        return forward_averagedness(self.step_size, self.beta)

    def init(self, x0: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`z0 = x0`."""
        self.check_batch(x0, type(self).__name__)
        return x0

    def __call__(self, z: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """One proximal gradient step."""
        if self.problem.F is not None:
            z = z - _batch.expand(self.step_size, z) * self.problem.F.apply(z)
        return z if self.problem.g is None else self.problem.g.prox(z, self.step_size)

    def readout(self, z: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`x = z`: an image of `T` lies in the domain of `g`."""
        return z

    def infeasible(self, z: Float[Tensor, "B *shape"]) -> Bool[Tensor, " B"]:
        """Never: one set alone is not empty."""
        return torch.zeros(z.shape[0], dtype=torch.bool, device=z.device)
