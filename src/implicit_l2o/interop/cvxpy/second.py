"""Second derivatives of linear and quadratic programs: the gradient as operations that autograd can differentiate again.

Where all cones are products of half-lines, the derivative D of the projection is locally constant. The gradient then
depends on the parameters through the solution, which carries its own derivative, and through the equations
`[[P, A^T], [(D - I) A, D]] (a, c) = (of_x, (D - I) of_y)`, whose derivative is another solve with their transpose.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.interop.cvxpy.affine import SparseMap
from implicit_l2o.interop.cvxpy.rules import ExactRule

_REFUSAL = (
    "a CvxpyLayer can be differentiated twice with Implicit(), factored, and zero and nonnegative cones alone (linear and "
    "quadratic programs): curved cones change their derivative with the point, and JFB(), Neumann(k) and Unrolled(k) are "
    "differentiated once."
)


class Refused(torch.autograd.Function):
    """The gradient as it is, which says why it cannot be differentiated again where somebody tries."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *of: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pass it on; it depends on all the others."""
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Never."""
        raise RuntimeError(_REFUSAL)


class Adjoint(torch.autograd.Function):
    """`(a, c)` of the equations above, differentiable in the parameter vector and the cotangents."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, vector: Tensor, of_x: Tensor, of_y: Tensor, rule: ExactRule
    ) -> tuple[Tensor, Tensor]:
        """Solve."""
        a, c, _ = rule.solve(of_x.numpy(), rule.bend(of_y.numpy()), transposed=True)
        ctx.rule, ctx.parts = rule, (a, c)
        ctx.save_for_backward(vector, of_x, of_y)
        return torch.as_tensor(a), torch.as_tensor(c)

    @staticmethod
    def backward(ctx: Any, of_a: Tensor, of_c: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """With `t, u` of the transposed equations: `t` for of_x, `m = (D - I) u` for of_y, `-(c t^T + m a^T)` for A."""
        rule: ExactRule = ctx.rule
        a, c = ctx.parts
        t, u, _ = rule.solve(of_a.detach().numpy(), of_c.detach().numpy(), transposed=False)
        m = rule.bend(u)
        canonical = rule.programs.canonical
        entries = canonical.Ab.moving
        rows, columns = entries.rows, entries.columns
        wide_t, wide_a = (np.concatenate([part, np.zeros((len(part), 1))], 1) for part in (t, a))
        gradient = entries.pull_back(c[:, rows] * wide_t[:, columns] + m[:, rows] * wide_a[:, columns])
        if canonical.P is not None:
            quadratic = canonical.P.moving
            gradient -= quadratic.pull_back(t[:, quadratic.rows] * a[:, quadratic.columns])
        found = tuple(torch.as_tensor(part) for part in (gradient, t, m))
        if torch.is_grad_enabled():  # a third derivative
            found = tuple(Refused.apply(part, *ctx.saved_tensors, of_a, of_c) for part in found)
        return found[0], found[1], found[2], None


def gradient_of_data(
    rule: ExactRule, vector: Tensor, x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor
) -> Float[Tensor, "B p"]:
    """The gradient of the parameter vector, recorded."""
    canonical = rule.programs.canonical
    a, c = Adjoint.apply(vector, of_x, of_y, rule)
    nothing, one = (torch.full((len(x), 1), value, dtype=x.dtype) for value in (0.0, 1.0))
    gradient = SparseMap.apply(torch.cat([-a, nothing], 1), canonical.q.map.T)
    wide_a, wide_x = torch.cat([a, nothing], 1), torch.cat([x, one], 1)
    entries = canonical.Ab.moving
    rows, columns = (torch.as_tensor(part) for part in (entries.rows, entries.columns))
    of_entries = y[:, rows] * wide_a[:, columns] + c[:, rows] * wide_x[:, columns]
    gradient = gradient + SparseMap.apply(of_entries, entries.map.T)
    if canonical.P is not None:
        quadratic = canonical.P.moving
        rows, columns = (torch.as_tensor(part) for part in (quadratic.rows, quadratic.columns))
        gradient = gradient - SparseMap.apply(a[:, rows] * x[:, columns], quadratic.map.T)
    return gradient
