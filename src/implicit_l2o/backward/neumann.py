"""Truncated Neumann series for the implicit gradient (phantom gradients: Geng et al. 2021)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from implicit_l2o._solution import FixedPoint
from implicit_l2o.backward.base import AbstractBackward, CotangentRule, attach, pullback, refuse_double_backward
from implicit_l2o.solvers.base import AbstractFixedPointSolver, Map, iterate

_REFUSAL = refuse_double_backward("Neumann")


@dataclass(frozen=True)
class Neumann(AbstractBackward):
    """The cotangent `v` becomes `v (I + J + ... + J^k)`, `J = dT/dz`: a dial from JFB (`k = 0`) to exact (`k -> inf`).

    Costs `k` vector-Jacobian products more than JFB; the error decays like `gamma^(k+1)` for a `gamma`-contraction.
    Double backward is refused.

    Args:
        k: terms after the first, at least 0.

    Raises:
        ValueError: `k` is negative.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> b = torch.ones(1, 1, requires_grad=True)
        >>> point = il2o.fixed_point(lambda z: 0.5 * z + b, torch.zeros(1, 1), backward=il2o.Neumann(2))
        >>> point.z.sum().backward()
        >>> b.grad  # 1 + 1/2 + 1/4; the exact derivative is 2
        tensor([[1.7500]])
    """

    k: int

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 0:
            raise ValueError(f"Neumann needs an integer k >= 0; got k={self.k}.")

    def run(self, T: Map, z0: Float[Tensor, "B *shape"], solver: AbstractFixedPointSolver) -> FixedPoint:
        """Iterate without a graph, then attach one step under the truncated series."""
        point = iterate(T, z0, solver)
        z = attach(T, point, lambda part, last, _: CotangentRule.apply(part(last), part, self._series, _REFUSAL))
        return point.with_z(z)

    def _series(self, T: Map, z: Tensor, v: Tensor) -> Tensor:
        if self.k == 0:
            return v
        vjp = pullback(T, z)
        total = term = v
        for _ in range(self.k):
            term = vjp(term)
            total = total + term
        return total
