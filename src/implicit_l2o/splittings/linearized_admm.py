"""Linearized ADMM on the full primal-dual state (Heaton and Wu Fung, Explainable AI via Learning to Optimize, 2023)."""

from dataclasses import dataclass, field
from typing import Literal

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
    composed,
    metric_averagedness,
    primal_steps,
    require_absent,
    separated,
)


@dataclass(frozen=True, eq=False)
class LinearizedADMM(AbstractSplitting):
    """Solves `0 in F(x) + dg(x) + K^T dl(K x)` by splitting `p = K x`; `z = (p, v, x)`, `v` the multiplier, readout `x`.

    `p+ = prox_{inner_step l}(p + inner_step (v + dual_step (K x - p)))`, `v+ = v + dual_step (K x - p+)`,
    `x+ = prox_{step g}(x - step (F(x) + K^T (2 v+ - v)))`. The whole state is iterated, so a fixed point solves the
    problem. Several constraints `M_i x` are one stacked `K` with a product of terms `l`.

    `T` is a forward-backward step on the optimality system of `(p, v, x)` in the metric
    `[[1/inner_step - dual_step, 0, 0], [0, 1/dual_step, K], [0, K^T, 1/step]]`, which gives the ranges below.

    Args:
        problem: `F` cocoercive or None, `g` or None, and `K` with `l`; no `h`.
        step: of `x`, `0 < step < 1 / (L/2 + dual_step |K|^2)`; `"auto"` takes 0.99 of the limit.
        dual_step: positive; `"auto"` takes `1 / |K|`.
        inner_step: of `p`, `0 < inner_step <= 1 / dual_step`; `"auto"` takes the limit, an exact minimisation over `p`.

    Raises:
        ValueError: a term or a step is outside what the theorem allows.

    Source: the iteration: Heaton and Wu Fung 2023; the metric: Condat 2013, theorem 3.1, applied to it.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> K = il2o.Matrix(torch.tensor([[1.0, -1.0]]))
        >>> cost = il2o.QuadraticCost(linear=torch.tensor([[-3.0, 0.0]]), diagonal=1.0)
        >>> problem = il2o.Problem(F=cost, K=K, l=il2o.L1Norm())  # 0.5 |x - (3, 0)|^2 + |x1 - x2|
        >>> il2o.solve(il2o.LinearizedADMM(problem), torch.zeros(1, 2)).x.round(decimals=3)
        tensor([[2., 1.]])
    """

    problem: Problem
    step: Step = "auto"
    dual_step: float | Literal["auto"] = "auto"
    inner_step: float | Literal["auto"] = "auto"
    step_size: Scalar = field(init=False, metadata=SCALAR)  # the primal step in use
    dual_step_size: float = field(init=False)
    inner_step_size: float = field(init=False)
    beta: Scalar = field(init=False, metadata=SCALAR)

    def __post_init__(self) -> None:
        require_absent("LinearizedADMM", self.problem, "h")
        K, _ = composed("LinearizedADMM", self.problem)
        beta = cocoercivity("LinearizedADMM", self.problem)
        step, dual_step = primal_steps("LinearizedADMM", self.step, self.dual_step, beta, K.norm_bound)
        object.__setattr__(self, "beta", beta)
        object.__setattr__(self, "step_size", step)
        object.__setattr__(self, "dual_step_size", dual_step)
        object.__setattr__(self, "inner_step_size", _inner_step(self.inner_step, dual_step))

    @property
    def averagedness(self) -> float:
        """In the metric of the steps; `1 / (2 - (L/2) / (1/step - dual_step |K|^2))`."""
        K, _ = composed("LinearizedADMM", self.problem)
        return metric_averagedness(self.step_size, self.dual_step_size, self.beta, K.norm_bound)

    def init(self, x0: Float[Tensor, "B *shape"]) -> Float[Tensor, "B latent"]:
        """`z0 = (K x0, 0, x0)`."""
        self.check_batch(x0, type(self).__name__)
        K, _ = composed("LinearizedADMM", self.problem)
        p = K.apply(x0)
        return _batch.pack(p, torch.zeros_like(p), x0)

    def __call__(self, z: Float[Tensor, "B latent"]) -> Float[Tensor, "B latent"]:
        """One iteration on the full primal-dual state."""
        return _batch.pack(*self._advance(*self._parts(z)))

    def readout(self, z: Float[Tensor, "B latent"]) -> Float[Tensor, "B *shape"]:
        """The primal part `x`, in the domain of `g` for an image of `T`."""
        return self._parts(z)[2]

    def infeasible(self, z: Float[Tensor, "B latent"]) -> Bool[Tensor, " B"]:
        """Whether a hyperplane separates `K dom g` from the set `l`."""
        K, l = composed("LinearizedADMM", self.problem)
        p, _, x = self._advance(*self._parts(z))
        return separated(self.problem.g, l, x, p, apply=K.apply, adjoint=K.adjoint, norm_bound=K.norm_bound)

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        K, _ = composed("LinearizedADMM", self.problem)
        p, v, x = _batch.unpack(z, (K.out_shape, K.out_shape, K.in_shape))
        return p, v, x

    def _advance(self, p: Tensor, v: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        K, l = composed("LinearizedADMM", self.problem)
        inner, dual = self.inner_step_size, self.dual_step_size
        image = K.apply(x)
        p_plus = l.prox(p + inner * (v + dual * (image - p)), inner)
        v_plus = v + dual * (image - p_plus)
        slope = K.adjoint(2 * v_plus - v)
        if self.problem.F is not None:
            slope = slope + self.problem.F.apply(x)
        x_plus = x - _batch.expand(self.step_size, x) * slope
        if self.problem.g is not None:
            x_plus = self.problem.g.prox(x_plus, self.step_size)
        return p_plus, v_plus, x_plus


def _inner_step(inner_step: float | Literal["auto"], dual_step: float) -> float:
    limit = 1.0 / dual_step
    if isinstance(inner_step, str):
        if inner_step != "auto":
            raise ValueError(f'LinearizedADMM needs a positive inner_step or "auto"; got inner_step={inner_step!r}.')
        return limit
    if not 0 < inner_step <= limit:
        raise ValueError(
            f"LinearizedADMM needs 0 < inner_step <= 1/dual_step = {limit:.6g}; got inner_step={inner_step:.6g}."
        )
    return inner_step
