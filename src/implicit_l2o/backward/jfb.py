"""Jacobian-free backpropagation (Wu Fung et al., JFB, AAAI 2022)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from implicit_l2o._solution import FixedPoint
from implicit_l2o.backward.base import AbstractBackward, CotangentRule, attach, refuse_double_backward
from implicit_l2o.solvers.base import AbstractFixedPointSolver, Map, iterate

_REFUSAL = refuse_double_backward("JFB")


def _unchanged(T: Map, z: Tensor, v: Tensor) -> Tensor:
    return v


@dataclass(frozen=True)
class JFB(AbstractBackward):
    """`z = T(stopgrad(z*))`: differentiate one application of `T`, its input held fixed.

    The Jacobian factor `(I - dT/dz)^{-1}` is replaced by the identity. Memory is that of one application, whatever the
    number of iterations; the cost is one vector-Jacobian product. It is a descent direction under the conditions that
    `descent_conditions` evaluates, and it is not the gradient: double backward is refused.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> b = torch.ones(1, 1, requires_grad=True)
        >>> point = il2o.fixed_point(lambda z: 0.5 * z + b, torch.zeros(1, 1), backward=il2o.JFB())
        >>> point.z.sum().backward()
        >>> b.grad  # the exact derivative is 2
        tensor([[1.]])
    """

    def run(self, T: Map, z0: Float[Tensor, "B *shape"], solver: AbstractFixedPointSolver) -> FixedPoint:
        """Iterate without a graph, then attach one step."""
        point = iterate(T, z0, solver)
        z = attach(T, point, lambda part, last, _: CotangentRule.apply(part(last), part, _unchanged, _REFUSAL))
        return point.with_z(z)
