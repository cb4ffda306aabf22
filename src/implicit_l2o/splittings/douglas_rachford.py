"""Douglas-Rachford splitting (Lions and Mercier 1979)."""

import math
from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor

from implicit_l2o._batch import SCALAR
from implicit_l2o.operators.base import Scalar
from implicit_l2o.problem import Problem
from implicit_l2o.splittings.base import AbstractSplitting, check_range, require_absent, separated


@dataclass(frozen=True, eq=False)
class DouglasRachford(AbstractSplitting):
    """`T(z) = z - P1(z) + P2(2 P1(z) - z)`, readout `x = P1(z)`; solves `0 in dg(x) + dh(x)`.

    `P1`, `P2` are the proxes of `step g`, `step h`. The answer lies in the domain of `g` exactly.

    Args:
        problem: `g`, `h`; no `F`, `K`, `l`.
        step: any positive number, or one a sample `(B,)`; the solution does not depend on it, the speed does.

    Raises:
        ValueError: a term is not taken, or the step is not positive.

    Source: Bauschke and Combettes, Convex Analysis and Monotone Operator Theory, 2017, theorem 26.11.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> sets = il2o.Problem(g=il2o.Box(lower=0.0), h=il2o.AffineSet(torch.ones(1, 2), torch.ones(1)))
        >>> il2o.solve(il2o.DouglasRachford(sets), torch.zeros(1, 2)).x.round(decimals=3)
        tensor([[0.5000, 0.5000]])
    """

    problem: Problem
    step: Scalar = field(default=1.0, metadata=SCALAR)

    def __post_init__(self) -> None:
        require_absent("DouglasRachford", self.problem, "F", "K", "l")
        check_range("DouglasRachford", "step", self.step, math.inf, "inf")

    @property
    def averagedness(self) -> float:
        """Firmly nonexpansive: 1/2."""
        return 0.5

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
        return z if self.problem.g is None else self.problem.g.prox(z, self.step)

    def infeasible(self, z: Float[Tensor, "B *shape"]) -> Bool[Tensor, " B"]:
        """Whether a hyperplane separates the two sets."""
        x, y = self._points(z)
        return separated(self.problem.g, self.problem.h, x, y)

    def _points(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = self.readout(z)
        reflected = 2 * x - z
        return x, reflected if self.problem.h is None else self.problem.h.prox(reflected, self.step)
