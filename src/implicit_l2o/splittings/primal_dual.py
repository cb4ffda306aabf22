"""Condat-Vu primal-dual splitting (Condat 2013, Vu 2013); Chambolle-Pock (2011) without `F`."""

from dataclasses import dataclass, field
from typing import Literal

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
    composed,
    metric_averagedness,
    primal_steps,
    require_absent,
    separated,
)


@dataclass(frozen=True, eq=False)
class CondatVu(AbstractSplitting):
    """Solves `0 in F(x) + dg(x) + K^T dl(K x)` on the pair `z = (x, y)`, `y` the dual of `l`, readout `x`.

    `x+ = prox_{step g}(x - step (F(x) + K^T y))`, `y+ = prox_{dual_step l*}(y + dual_step K (2 x+ - x))`.

    Args:
        problem: `F` cocoercive or None, `g` or None, and `K` with `l`; no `h`.
        step: primal step, `0 < step < 1 / (L/2 + dual_step |K|^2)`; `"auto"` takes 0.99 of the limit.
        dual_step: positive; `"auto"` takes `1 / |K|`.

    Raises:
        ValueError: a term or a step is outside what the theorem allows.

    Source: Condat, A primal-dual splitting method..., 2013, theorem 3.1.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> K = il2o.Matrix(torch.tensor([[1.0, -1.0]]))
        >>> cost = il2o.QuadraticCost(linear=torch.tensor([[-3.0, 0.0]]), diagonal=1.0)
        >>> problem = il2o.Problem(F=cost, K=K, l=il2o.L1Norm())  # 0.5 |x - (3, 0)|^2 + |x1 - x2|
        >>> il2o.solve(il2o.CondatVu(problem), torch.zeros(1, 2)).x.round(decimals=3)
        tensor([[2., 1.]])
    """

    problem: Problem
    step: Step = "auto"
    dual_step: float | Literal["auto"] = "auto"
    step_size: Scalar = field(init=False, metadata=SCALAR)  # the primal step in use
    dual_step_size: float = field(init=False)
    beta: Scalar = field(init=False, metadata=SCALAR)

    def __post_init__(self) -> None:
        require_absent("CondatVu", self.problem, "h")
        K, _ = composed("CondatVu", self.problem)
        beta = cocoercivity("CondatVu", self.problem)
        step, dual_step = primal_steps("CondatVu", self.step, self.dual_step, beta, K.norm_bound)
        object.__setattr__(self, "beta", beta)
        object.__setattr__(self, "step_size", step)
        object.__setattr__(self, "dual_step_size", dual_step)

    @property
    def averagedness(self) -> float:
        """In the metric of the steps; `1 / (2 - (L/2) / (1/step - dual_step |K|^2))`."""
        K, _ = composed("CondatVu", self.problem)
        return metric_averagedness(self.step_size, self.dual_step_size, self.beta, K.norm_bound)

    def init(self, x0: Float[Tensor, "B *shape"]) -> Float[Tensor, "B latent"]:
        """`z0 = (x0, 0)`."""
        self.check_batch(x0, type(self).__name__)
        K, _ = composed("CondatVu", self.problem)
        return _batch.pack(x0, x0.new_zeros(x0.shape[0], *K.out_shape))

    def __call__(self, z: Float[Tensor, "B latent"]) -> Float[Tensor, "B latent"]:
        """One iteration on the full primal-dual state."""
        x, y = self._parts(z)
        x_plus, y_plus, _ = self._advance(x, y)
        return _batch.pack(x_plus, y_plus)

    def readout(self, z: Float[Tensor, "B latent"]) -> Float[Tensor, "B *shape"]:
        """The primal part, in the domain of `g` for an image of `T`."""
        return self._parts(z)[0]

    def infeasible(self, z: Float[Tensor, "B latent"]) -> Bool[Tensor, " B"]:
        """Whether a hyperplane separates `K dom g` from the set `l`."""
        K, l = composed("CondatVu", self.problem)
        x, _, q = self._advance(*self._parts(z))
        return separated(self.problem.g, l, x, q, apply=K.apply, adjoint=K.adjoint, norm_bound=K.norm_bound)

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        K, _ = composed("CondatVu", self.problem)
        x, y = _batch.unpack(z, (K.in_shape, K.out_shape))
        return x, y

    def _advance(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`x+`, `y+`, and the point `q = prox_{l / dual_step}` by which Moreau's identity gives `y+`."""
        K, l = composed("CondatVu", self.problem)
        slope = K.adjoint(y)
        if self.problem.F is not None:
            slope = slope + self.problem.F.apply(x)
        x_plus = x - _batch.expand(self.step_size, x) * slope
        if self.problem.g is not None:
            x_plus = self.problem.g.prox(x_plus, self.step_size)
        dual = self.dual_step_size
        u = y + dual * K.apply(2 * x_plus - x)
        q = l.prox(u / dual, 1.0 / dual)
        return x_plus, u - dual * q, q
