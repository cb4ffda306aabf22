"""What a splitting is: an averaged map `T` and the readout `R`, made from a problem; and what all of them share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import Batched
from implicit_l2o.operators.base import AbstractLinearOperator, AbstractProximable, AbstractSet, Scalar
from implicit_l2o.problem import Problem

Step: TypeAlias = Scalar | Literal["auto"]

_FAR = 1e3  # no common point within this multiple of the iterate's size: called infeasible


class AbstractSplitting(Batched, ABC):
    """An operator `T` whose fixed points `z` give the solutions `x = R(z)` of a problem.

    `z` is the governing sequence, duals included, always one tensor `(B, ...)`; `x` is the answer. The two are never
    confused: the splitting owns both maps.
    """

    problem: Problem

    @property
    @abstractmethod
    def averagedness(self) -> float:
        """An `a` in (0, 1) such that relaxations below `1/a` are safe.

        `T` is `a`-averaged in the splitting's metric; where it is so against its fixed points only, which is all that a
        relaxed iteration needs, the splitting says it.
        """

    @abstractmethod
    def init(self, x0: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *latent"]:
        """The starting `z` for a starting guess `x0`; checks that the problem fits `x0`."""

    @abstractmethod
    def __call__(self, z: Float[Tensor, "B *latent"]) -> Float[Tensor, "B *latent"]:
        """`T(z)`."""

    @abstractmethod
    def readout(self, z: Float[Tensor, "B *latent"]) -> Float[Tensor, "B *shape"]:
        """The answer `x = R(z)`."""

    @abstractmethod
    def infeasible(self, z: Float[Tensor, "B *latent"]) -> Bool[Tensor, " B"]:
        """Samples whose constraint sets provably have no common point anywhere near `z` (see `separated`)."""


def require_absent(splitting: str, problem: Problem, *names: str) -> None:
    """Raise a `ValueError` when the problem has a term that the splitting cannot take."""
    if not isinstance(problem, Problem):
        raise TypeError(f"{splitting} takes a Problem; got {type(problem).__name__}.")
    present = [name for name in names if getattr(problem, name) is not None]
    if present:
        raise ValueError(
            f"{splitting} takes no {' or '.join(present)}: choose a splitting that does, or leave it None."
        )


def cocoercivity(splitting: str, problem: Problem) -> Scalar:
    """`F`'s cocoercivity, infinite for no `F`; a `ValueError` where a forward step on `F` is not safe."""
    if problem.F is None:
        return math.inf
    beta = problem.F.cocoercivity
    if beta is None:
        raise ValueError(
            f"{splitting} takes a forward step on F = {type(problem.F).__name__}, which states no cocoercivity constant "
            "(monotone alone is not enough): give F one."
        )
    return beta.detach() if isinstance(beta, Tensor) else beta


def forward_step(splitting: str, step: Step, beta: Scalar) -> Scalar:
    """The step of a splitting that needs `0 < step < 2 beta`; `"auto"` is `beta` (1 where `F` is constant).

    The answer does not depend on the step, so it carries no gradient.
    """
    if isinstance(step, str):
        if step != "auto":
            raise ValueError(f'{splitting} needs a positive step or "auto"; got step={step!r}.')
        if isinstance(beta, Tensor):
            return torch.where(torch.isfinite(beta), beta, 1.0)
        return beta if math.isfinite(beta) else 1.0
    check_range(splitting, "step", step, 2 * beta, "2/L" if not _is_infinite(beta) else "inf")
    return step.detach() if isinstance(step, Tensor) else step


def lipschitz(splitting: str, problem: Problem) -> Scalar:
    """`F`'s Lipschitz constant, 0 for no `F`; a `ValueError` where it states none."""
    if problem.F is None:
        return 0.0
    constant = problem.F.lipschitz
    if constant is None:
        raise ValueError(
            f"{splitting} takes forward steps on F = {type(problem.F).__name__}, which states no Lipschitz constant: give "
            "F one."
        )
    return constant.detach() if isinstance(constant, Tensor) else constant


def two_step(splitting: str, step: Step, constant: Scalar, formula: str) -> Scalar:
    """The step of a splitting of Tseng's kind, `0 < step < 1/constant`; `"auto"` is `1 / (sqrt(2) constant)`.

    A rotation by the step `t = step constant` shrinks by `sqrt(1 - t^2 + t^4)` a time, least at `t = 1/sqrt(2)`. Where the
    constant is zero `"auto"` takes 1.
    """
    if isinstance(step, str):
        if step != "auto":
            raise ValueError(f'{splitting} needs a positive step or "auto"; got step={step!r}.')
        if isinstance(constant, Tensor):
            return torch.where(constant == 0, 1.0, math.sqrt(0.5) / constant)
        return math.sqrt(0.5) / constant if constant > 0 else 1.0
    limit = 1.0 / constant if isinstance(constant, Tensor) or constant > 0 else math.inf
    check_range(splitting, "step", step, limit, formula)
    return step.detach() if isinstance(step, Tensor) else step


def quasi_averagedness(step: Scalar, constant: Scalar) -> float:
    """`(1 + step constant) / 2`, of Tseng's method against its fixed points (see `ForwardBackwardForward`)."""
    return (1.0 + _largest(torch.as_tensor(step * constant, dtype=torch.float64))) / 2


def check_range(splitting: str, name: str, value: Scalar, limit: Scalar, formula: str) -> None:
    """Raise a `ValueError` that states the range unless `0 < value < limit` for every sample."""
    if not isinstance(value, int | float | Tensor):
        raise TypeError(f"{splitting} needs {name} as a number or a tensor (B,); got {name}={value!r}.")
    if isinstance(value, Tensor) and value.ndim > 1:
        raise ValueError(f"{splitting} needs {name} as a number or one a sample, (B,); got shape {tuple(value.shape)}.")
    if _batch.exporting():
        return  # the numbers come later
    shown, bound = torch.as_tensor(value).detach().double(), torch.as_tensor(limit).detach().double()
    fits = (shown > 0) & (shown < bound.to(shown.device))
    # A NaN limit comes from a NaN parameter of some sample, which the solver will report as that sample's own failure.
    fits = fits | torch.isnan(bound).to(fits.device)
    if bool(fits.all()):
        return
    worst = int((~fits).reshape(-1).nonzero()[0])
    shown, bound = (t.expand(fits.shape).reshape(-1)[worst].item() for t in (shown, bound.to(shown.device)))
    sample = f" (sample {worst})" if fits.ndim else ""
    stated = f"{formula} = {bound:.6g}" if math.isfinite(bound) else "inf"
    raise ValueError(f"{splitting} needs 0 < {name} < {stated}; got {name}={shown:.6g}{sample}.")


def forward_averagedness(step: Scalar, beta: Scalar) -> float:
    """`1 / (2 - step / (2 beta))`, of forward-backward and Davis-Yin (Davis and Yin 2017, proposition 2.1)."""
    ratio = torch.as_tensor(step, dtype=torch.float64) / (2 * torch.as_tensor(beta, dtype=torch.float64))
    return 1.0 / (2.0 - _largest(ratio))


def _is_infinite(beta: Scalar) -> bool:
    return not isinstance(beta, Tensor) and math.isinf(beta)


def composed(splitting: str, problem: Problem) -> tuple[AbstractLinearOperator, AbstractProximable]:
    """`K` and `l`; a `ValueError` when the problem has none."""
    if problem.K is None or problem.l is None:
        raise ValueError(f"{splitting} needs K and l: without them choose ForwardBackward or DavisYin.")
    return problem.K, problem.l


def primal_steps(
    splitting: str, step: Step, dual_step: float | Literal["auto"], beta: Scalar, norm: float
) -> tuple[Scalar, float]:
    """Steps with `0 < step < 1 / (1/(2 beta) + dual_step |K|^2)`; `"auto"` is `dual_step = 1/|K|` and 0.99 of the limit."""
    if isinstance(dual_step, str):
        if dual_step != "auto":
            raise ValueError(f'{splitting} needs a positive dual_step or "auto"; got dual_step={dual_step!r}.')
        dual_step = 1.0 / norm if norm > 0 else 1.0
    check_range(splitting, "dual_step", dual_step, math.inf, "inf")
    curvature = 0.5 / beta + dual_step * norm**2
    limit = 1.0 / curvature if isinstance(curvature, Tensor) or curvature > 0 else math.inf
    if isinstance(step, str):
        if step != "auto":
            raise ValueError(f'{splitting} needs a positive step or "auto"; got step={step!r}.')
        if isinstance(limit, Tensor):
            return torch.where(torch.isinf(limit), 1.0, 0.99 * limit), dual_step
        return (0.99 * limit if math.isfinite(limit) else 1.0), dual_step
    check_range(splitting, "step", step, limit, "1/(L/2 + dual_step |K|^2)")
    return (step.detach() if isinstance(step, Tensor) else step), dual_step


def metric_averagedness(step: Scalar, dual_step: float, beta: Scalar, norm: float) -> float:
    """`1 / (2 - (L/2) / (1/step - dual_step |K|^2))`, in the metric of the steps (Condat 2013, theorem 3.1)."""
    half = 0.5 / torch.as_tensor(beta, dtype=torch.float64)
    margin = 1.0 / torch.as_tensor(step, dtype=torch.float64) - dual_step * norm**2
    return 1.0 / (2.0 - _largest(half / margin))


def _largest(ratio: Tensor) -> float:
    """The largest of the samples' ratios, 0 for an empty batch; a NaN is its own sample's failure."""
    return float(ratio.nan_to_num(0.0).max()) if ratio.numel() else 0.0


def _project(term: object, x: Tensor) -> Tensor:
    return term.project(x) if isinstance(term, AbstractSet) else x


def separated(
    first: object,
    second: object,
    x: Float[Tensor, "B *shape"],
    y: Float[Tensor, "B *out"],
    *,
    apply: Callable[[Tensor], Tensor] = lambda x: x,
    adjoint: Callable[[Tensor], Tensor] = lambda y: y,
    norm_bound: float = 1.0,
) -> Bool[Tensor, " B"]:
    """Samples for which a hyperplane separates `{K x: x in first}` from `second`, as far as it matters.

    With `e = K x - y` (at a splitting's iterates `x` in the first set, `y` in the second) and any `t > 0`, project
    `x - t K^T e` and `y + t e`. The two variational inequalities give, for every common point `x*`,
    `|x* - x| >= (t <e, K p1 - p2> - e1^2 - e2 (|e| + e2)) / (e1 + |K| e2)`, with `e1 = |p1 - x|`, `e2 = |p2 - y|`: a
    proof that no common point lies within that radius. It is called infeasible when the radius exceeds a thousand times the
    iterate's size, which a merely slow problem does not reach. A term that is not a set counts as the whole space, which
    keeps the proof: separating more separates less.
    """
    image = apply(x)
    gap = image - y
    size = torch.maximum(torch.maximum(_batch.norm(x), _batch.norm(y)), _batch.norm(gap))
    far = size / _batch.norm(gap).clamp(min=torch.finfo(x.dtype).tiny)  # so that t e is as long as the iterate
    scaled = gap * _batch.expand(far, gap)
    p1 = _project(first, x - adjoint(scaled))
    p2 = _project(second, y + scaled)
    e1, e2 = _batch.norm(p1 - x), _batch.norm(p2 - y)
    gain = _batch.dot(scaled, apply(p1) - p2) - e1.square() - e2 * (_batch.norm(gap) + e2)
    return (gain > _FAR * size * (e1 + norm_bound * e2)) & (gain > 0)
