"""Forward-backward-forward on the primal-dual space: three operators, `F` monotone and Lipschitz only.

Combettes and Pesquet (2012).
"""

import math
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
    check_range,
    lipschitz,
    quasi_averagedness,
    require_absent,
    separated,
    two_step,
)


@dataclass(frozen=True, eq=False)
class CombettesPesquet(AbstractSplitting):
    """Solves `0 in F(x) + dg(x) + dh(x)` with `F` monotone and `L`-Lipschitz: `DavisYin` without cocoercivity.

    The state is `z = (x, w)`, stacked along dimension 1, with the dual `s w` in `dh(x)`, `s` the dual scale. Tseng's method
    splits `Q(x, w) = (F(x) + s w, -s x)` from the proxes of `g` and of `h*(s .)`. `Q` is `M`-Lipschitz with
    `M = (L + sqrt(L^2 + 4 s^2)) / 2`, the norm of `[[L, s], [s, 0]]`. A step costs two values of `F` and one prox of each:

        p = prox_{step g}(x - step (F(x) + s w)),   r = prox_{h / (step s^2)}(x + w / (step s)),   q = w + step s (x - r)
        x+ = p - step (F(p) - F(x) + s (q - w)),    w+ = q + step s (p - x)

    The readout is `p`: the answer lies in the domain of `g` exactly, in that of `h` at convergence. As in
    `ForwardBackwardForward`, `T` is averaged with `a = (1 + step M) / 2` against its fixed points, and between any two
    points where `F` is affine: relaxations below `2 / (1 + step M)` are safe.

    Args:
        problem: `F` monotone and Lipschitz or None, `g`, `h`; no `K`, `l`.
        step: in `(0, 1/M)`, a number or per sample `(B,)`; `"auto"` takes `1 / (sqrt(2) M)`.
        dual_scale: `s > 0`; `"auto"` takes `L`, or 1 where `L` is 0. The dual variable moves by about `step s^2` times `x`:
            raise it where the two sets are slow to agree.

    Raises:
        ValueError: a term, the step or the scale is outside what the theorem allows; `F` states no Lipschitz constant.

    Source: Combettes and Pesquet, Primal-dual splitting algorithm for solving inclusions with mixtures of composite,
        Lipschitzian, and parallel-sum type monotone operators, 2012, theorem 3.1, with the exact norm for its `beta`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> pennies = il2o.BilinearGame(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        >>> sums = il2o.AffineSet(torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]), torch.ones(2))
        >>> game = il2o.CombettesPesquet(il2o.Problem(F=pennies, g=il2o.NonnegativeOrthant(), h=sums))
        >>> il2o.solve(game, torch.tensor([[0.9, 0.1, 0.3, 0.7]])).x.round(decimals=2)
        tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """

    problem: Problem
    step: Step = "auto"
    dual_scale: Step = "auto"
    step_size: Scalar = field(init=False, metadata=SCALAR)  # the step in use
    scale: Scalar = field(init=False, metadata=SCALAR)  # s
    constant: Scalar = field(init=False, metadata=SCALAR)  # M

    def __post_init__(self) -> None:
        require_absent("CombettesPesquet", self.problem, "K", "l")
        L = lipschitz("CombettesPesquet", self.problem)
        scale = _dual_scale(self.dual_scale, L)
        constant = (L + (L * L + 4 * scale * scale) ** 0.5) / 2
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "constant", constant)
        step = two_step("CombettesPesquet", self.step, constant, "2/(L + sqrt(L^2 + 4 dual_scale^2))")
        object.__setattr__(self, "step_size", step)

    @property
    def averagedness(self) -> float:
        """`(1 + step M) / 2`, against fixed points."""
        return quasi_averagedness(self.step_size, self.constant)

    def init(self, x0: Float[Tensor, "B *shape"]) -> Float[Tensor, "B 2 *shape"]:
        """`z0 = (x0, 0)`."""
        self.check_batch(x0, type(self).__name__)
        return torch.stack([x0, torch.zeros_like(x0)], 1)

    def __call__(self, z: Float[Tensor, "B 2 *shape"]) -> Float[Tensor, "B 2 *shape"]:
        """One iteration on the primal-dual state."""
        x, w = z.unbind(1)
        step, s, F = _batch.expand(self.step_size, x), _batch.expand(self.scale, x), self.problem.F
        slope = s * w if F is None else F.apply(x) + s * w
        p = self._primal(x - step * slope)
        q = w + step * s * (x - self._dual_point(x, w))
        change = s * q - slope if F is None else F.apply(p) + s * q - slope
        return torch.stack([p - step * change, q + step * s * (p - x)], 1)

    def readout(self, z: Float[Tensor, "B 2 *shape"]) -> Float[Tensor, "B *shape"]:
        """`p`, in the domain of `g`."""
        x, w = z.unbind(1)
        slope = _batch.expand(self.scale, x) * w
        if self.problem.F is not None:
            slope = slope + self.problem.F.apply(x)
        return self._primal(x - _batch.expand(self.step_size, x) * slope)

    def infeasible(self, z: Float[Tensor, "B 2 *shape"]) -> Bool[Tensor, " B"]:
        """Whether a hyperplane separates the two sets."""
        x, w = z.unbind(1)
        return separated(self.problem.g, self.problem.h, self.readout(z), self._dual_point(x, w))

    def _primal(self, x: Tensor) -> Tensor:
        return x if self.problem.g is None else self.problem.g.prox(x, self.step_size)

    def _dual_point(self, x: Tensor, w: Tensor) -> Tensor:
        """`r`, by which Moreau's identity gives the dual; without `h` the dual is zero."""
        point = x + w / _batch.expand(self.step_size * self.scale, x)
        if self.problem.h is None:
            return point
        return self.problem.h.prox(point, 1.0 / (self.step_size * self.scale * self.scale))


def _dual_scale(scale: Step, L: Scalar) -> Scalar:
    """`s`, checked; `"auto"` is `L`, 1 where that is 0."""
    if isinstance(scale, str):
        if scale != "auto":
            raise ValueError(f'CombettesPesquet needs a positive dual_scale or "auto"; got dual_scale={scale!r}.')
        if isinstance(L, Tensor):
            return torch.where(L > 0, L, 1.0)
        return L if L > 0 else 1.0
    check_range("CombettesPesquet", "dual_scale", scale, math.inf, "inf")
    return scale.detach() if isinstance(scale, Tensor) else scale
