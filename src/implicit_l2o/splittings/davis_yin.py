"""Davis-Yin three-operator splitting (Davis and Yin 2017; the seed's equation 7)."""

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
    separated,
)


@dataclass(frozen=True, eq=False)
class DavisYin(AbstractSplitting):
    """`T(z) = z - P1(z) + P2(2 P1(z) - z - step F(P1(z)))`, readout `x = P1(z)`; solves `0 in F(x) + dg(x) + dh(x)`.

    `P1`, `P2` are the proxes of `step g`, `step h`. The answer lies in the domain of `g` exactly, and in that of `h` at
    convergence: put the box or the cone in `g`. For indicator functions `dist(x, C2) <= |T(z) - z|`.

    Args:
        problem: `F` cocoercive, `g`, `h`; no `K`, `l`.
        step: in `(0, 2 beta)`, `beta` the cocoercivity of `F` (`1/L` for a gradient), a number or per sample `(B,)`;
            `"auto"` takes `beta`.

    Raises:
        ValueError: a term or the step is outside what the theorem allows.

    Source: Davis and Yin, A three-operator splitting scheme and its optimization applications, 2017, theorem 2.1.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> cost = il2o.QuadraticCost(linear=torch.tensor([[1.0, 2.0]]), diagonal=1.0)
        >>> simplex = il2o.Problem(F=cost, g=il2o.Box(lower=0.0), h=il2o.AffineSet(torch.ones(1, 2), torch.ones(1)))
        >>> il2o.solve(il2o.DavisYin(simplex), torch.zeros(1, 2)).x.round(decimals=2).abs()
        tensor([[1., 0.]])
    """

    problem: Problem
    step: Step = "auto"
    step_size: Scalar = field(init=False, metadata=SCALAR)  # the step in use
    beta: Scalar = field(init=False, metadata=SCALAR)

    def __post_init__(self) -> None:
        require_absent("DavisYin", self.problem, "K", "l")
        beta = cocoercivity("DavisYin", self.problem)
        object.__setattr__(self, "beta", beta)
        object.__setattr__(self, "step_size", forward_step("DavisYin", self.step, beta))

    @property
    def averagedness(self) -> float:
        """`2 beta / (4 beta - step)`."""
        return forward_averagedness(self.step_size, self.beta)

    def init(self, x0: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`z0 = x0`."""
        self.check_batch(x0, type(self).__name__)
        return x0

    def __call__(self, z: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """One iteration."""
        x, y = self._points(z)
        return z - x + y

    def readout(self, z: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`x = P1(z)`."""
        return z if self.problem.g is None else self.problem.g.prox(z, self.step_size)

    def infeasible(self, z: Float[Tensor, "B *shape"]) -> Bool[Tensor, " B"]:
        """Whether a hyperplane separates the two sets."""
        x, y = self._points(z)
        return separated(self.problem.g, self.problem.h, x, y)

    def _points(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = self.readout(z)
        reflected = torch.lerp(z, x, 2.0)  # 2 x - z, in one pass over memory
        if self.problem.F is not None:
            step, slope = self.step_size, self.problem.F.apply(x)
            if isinstance(step, Tensor):
                reflected = torch.addcmul(reflected, _batch.expand(step, z), slope, value=-1)
            else:
                reflected = torch.sub(reflected, slope, alpha=step)
        y = reflected if self.problem.h is None else self.problem.h.prox(reflected, self.step_size)
        return x, y
