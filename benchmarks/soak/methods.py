"""The splittings of the soak: how each takes a batch, and what its residual promises.

A residual `r = |T(z) - z|` says: within `gap r` of the answer `x` there are points of the sets, and elements of the
terms there that add up to a vector no longer than `force r`. Each pair of constants is read off the splitting's inclusions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

import implicit_l2o as il2o
from benchmarks.soak.problems import Batch


class Promise(NamedTuple):
    """What `|T(z) - z| <= r` says about the answer, per sample.

    Args:
        force: the optimality conditions hold up to a vector of length `force r`.
        moved: they hold at a point within `moved r` of `x`.
        gap: `x` (or `A x`) is within `gap r` of the equations.
        dual: the length of the element of the equations' normal cone (of their multiplier).
    """

    force: Tensor
    moved: Tensor
    gap: Tensor
    dual: Tensor


@dataclass(frozen=True)
class Method:
    """A splitting under test.

    Args:
        name: its class.
        build: the splitting of a batch in a dtype.
        promise: from the splitting, the fixed point `z` and the answer `x`, in float64.
        equations: whether it takes them.
        game: whether it takes a skew part.
        through_operator: whether the equations are a term of `A x` rather than of `x`.
    """

    name: str
    build: Callable[[Batch, torch.dtype], il2o.AbstractSplitting]
    promise: Callable[[Any, Tensor, Tensor], Promise]
    equations: bool = True
    game: bool = False
    through_operator: bool = False


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1)


def _per_sample(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).expand(like.shape[0])


def _cost(batch: Batch, dtype: torch.dtype, *, equations: bool, game: bool = False) -> Any:
    linear = batch.linear(equations=equations, game=game).to(dtype)
    cost = il2o.QuadraticCost(linear=linear, matrix=batch.Q.to(dtype))
    return il2o.MonotoneSum((cost, il2o.BilinearGame(batch.skew.to(dtype)))) if game else cost


def _box(batch: Batch, dtype: torch.dtype) -> il2o.Box:
    return il2o.Box(batch.lower.to(dtype), batch.upper.to(dtype))


def _equations(batch: Batch, dtype: torch.dtype) -> il2o.AffineSet:
    A = batch.A.to(dtype)
    b = batch.b.to(dtype)
    if len(A) > 1 and bool((A[-1] == 2 * A[0]).all()):
        b[:, -1] = 2 * b[:, 0]  # the doubled equation says the same, to the last bit
    return il2o.AffineSet(A, b)


def _composed(batch: Batch, dtype: torch.dtype) -> il2o.Problem:
    b = batch.b.to(dtype)
    return il2o.Problem(
        F=_cost(batch, dtype, equations=True),
        g=_box(batch, dtype),
        K=il2o.Matrix(batch.A.to(dtype)),
        l=il2o.Box(b, b),
    )


def _forward_backward(batch: Batch, dtype: torch.dtype) -> il2o.AbstractSplitting:
    return il2o.ForwardBackward(il2o.Problem(F=_cost(batch, dtype, equations=False), g=_box(batch, dtype)))


def _forward_backward_promise(T: Any, z: Tensor, x: Tensor) -> Promise:
    # p = T(z): (z - p)/s - F(z) + F(p) is the sum, and the answer is z.
    step = _per_sample(T.step_size, x)
    L = 1.0 / _per_sample(T.beta, x)
    one = torch.ones_like(step)
    return Promise(1 / step + L, one, one, 0 * one)


def _tseng(batch: Batch, dtype: torch.dtype) -> il2o.AbstractSplitting:
    return il2o.ForwardBackwardForward(
        il2o.Problem(F=_cost(batch, dtype, equations=False, game=True), g=_box(batch, dtype))
    )


def _tseng_promise(T: Any, z: Tensor, x: Tensor) -> Promise:
    # (z - y)/s + F(y) - F(z) = (z - T(z))/s lies in F(y) + dg(y), and y is the answer.
    step = _per_sample(T.step_size, x)
    return Promise(1 / step, 0 * step, 0 * step, 0 * step)


def _douglas_rachford(batch: Batch, dtype: torch.dtype) -> il2o.AbstractSplitting:
    return il2o.DouglasRachford(il2o.Problem(g=_box(batch, dtype), h=_equations(batch, dtype)))


def _two_sets_promise(T: Any, z: Tensor, x: Tensor) -> Promise:
    # (z - x)/s in dg(x), (2x - z - s F(x) - y)/s in dh(y), |x - y| = r: they add up to (x - y)/s - F(x).
    step = _per_sample(getattr(T, "step_size", T.step), x)
    F = T.problem.F
    slope = 0 * x if F is None else F.apply(x.to(z.dtype)).double()
    return Promise(1 / step, 0 * step, 0 * step + 1, _norm((x - z.double()) / step[:, None] - slope))


def _davis_yin(batch: Batch, dtype: torch.dtype) -> il2o.AbstractSplitting:
    problem = il2o.Problem(F=_cost(batch, dtype, equations=True), g=_box(batch, dtype), h=_equations(batch, dtype))
    return il2o.DavisYin(problem)


def _condat_vu_promise(T: Any, z: Tensor, x: Tensor) -> Promise:
    # In dg(x+): (x - x+)/s - F(x) - K^T y. In dl*(y+): (y - y+)/t + K (2x+ - x).
    K, dual = T.problem.K.norm_bound, T.dual_step_size
    step, L = _per_sample(T.step_size, x), 1.0 / _per_sample(T.beta, x)
    one = torch.ones_like(step)
    y = z.double()[:, x.shape[1] :]
    return Promise(1 / step + L + K, one, (1 / dual + 2 * K) * one, _norm(y))


def _linearized_admm_promise(T: Any, z: Tensor, x: Tensor) -> Promise:
    # K x - p+ = (v+ - v)/t; (p - p+)/i + v + t (K x - p) in dl(p+); (x - x+)/s - F(x) - K^T (2v+ - v) in dg(x+).
    K, dual, inner = T.problem.K.norm_bound, T.dual_step_size, T.inner_step_size
    step, L = _per_sample(T.step_size, x), 1.0 / _per_sample(T.beta, x)
    one = torch.ones_like(step)
    rows = T.problem.K.out_shape[0]
    v = z.double()[:, rows : 2 * rows]
    return Promise(1 / step + L + K * (1 + 1 / inner + dual), one, (1 / dual) * one, _norm(v))


def _combettes_pesquet(batch: Batch, dtype: torch.dtype) -> il2o.AbstractSplitting:
    problem = il2o.Problem(
        F=_cost(batch, dtype, equations=True, game=True), g=_box(batch, dtype), h=_equations(batch, dtype)
    )
    return il2o.CombettesPesquet(problem)


def _combettes_pesquet_promise(T: Any, z: Tensor, x: Tensor) -> Promise:
    # Tseng's inclusion on the pair (p, q): both parts are at most r/step, the second one is `scale` times the gap.
    step, scale = _per_sample(T.step_size, x), _per_sample(T.scale, x)
    w = z.double()[:, 1]
    return Promise(1 / step, 0 * step, 1 / (step * scale), scale * _norm(w))


METHODS = (
    Method("ForwardBackward", _forward_backward, _forward_backward_promise, equations=False),
    Method("DouglasRachford", _douglas_rachford, _two_sets_promise),
    Method("DavisYin", _davis_yin, _two_sets_promise),
    Method("CondatVu", lambda *a: il2o.CondatVu(_composed(*a)), _condat_vu_promise, through_operator=True),
    Method(
        "LinearizedADMM", lambda *a: il2o.LinearizedADMM(_composed(*a)), _linearized_admm_promise, through_operator=True
    ),
    Method("CombettesPesquet", _combettes_pesquet, _combettes_pesquet_promise, game=True),
    Method("ForwardBackwardForward", _tseng, _tseng_promise, equations=False, game=True),
)
