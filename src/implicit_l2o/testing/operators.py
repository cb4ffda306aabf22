"""Contract checks of operators.

Longer than most files here: one law after the other, each a few lines.

Each evaluates the laws that the rest of the package relies on at the points given. Take the points large enough to leave
the set and small enough to enter it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from implicit_l2o import (
    AbstractFunction,
    AbstractLinearOperator,
    AbstractMonotone,
    AbstractProximable,
    AbstractSet,
    AbstractSmooth,
)

_POWER_ITERATIONS = 30


def check_set(set_: AbstractSet, x: Tensor) -> None:
    """Check the projection laws at `x`, and the contract of a batch.

    `P P = P`; `|Px - Py|^2 <= <Px - Py, x - y>` (firmly nonexpansive); `<x - Px, c - Px> <= 0` for `c` in the set (the
    variational inequality, which characterises the projection); `violation(x) = |x - Px|` and 0 at `Px`; `prox = project`.

    Args:
        set_: the set.
        x: points `(B, *shape)`, B >= 2.
    """
    name = type(set_).__name__
    check_batch(set_, x, lambda set_, x: set_.project(x))
    y = _other(x)
    Px, Py = set_.project(x), set_.project(y)
    size = 1 + _norm(x) + _norm(y) + _norm(Px) + _norm(Py)
    _require(_norm(set_.project(Px) - Px), _digits(x) * size, f"{name}: projecting twice must change nothing")
    _require(set_.violation(Px), _digits(x) * size, f"{name}: a projected point must not violate the set")
    _require((set_.violation(x) - _norm(x - Px)).abs(), _digits(x) * size, f"{name}: violation must be |x - Px|")
    _require(_dot(x - Px, Py - Px), _digits(x) * size**2, f"{name}: the variational inequality <x - Px, c - Px> <= 0")
    _check_prox_laws(set_, x, 0.7)
    _require(_norm(set_.prox(x, 0.3) - Px), 0.0, f"{name}: the prox of a set is its projection, whatever the step")


def check_prox(term: AbstractProximable, x: Tensor, step: float = 0.7) -> None:
    """Check that `prox` is a proximal operator at `x`, and the contract of a batch.

    Firmly nonexpansive; one step a sample gives what one step for all gives; if the term has a value,
    `g(q) + |q - x|^2 / 2s >= g(p) + |p - x|^2 / 2s + |q - p|^2 / 2s` for `p = prox(x, s)` and any `q` (optimality, with the
    quadratic growth of a strongly convex function).

    Args:
        term: the proximable term.
        x: points `(B, *shape)`, B >= 2.
        step: positive.
    """
    name = type(term).__name__
    check_batch(term, x, lambda term, x: term.prox(x, step))
    _check_prox_laws(term, x, step)
    if not isinstance(term, AbstractFunction):
        return
    p = term.prox(x, step)

    def objective(q: Tensor) -> Tensor:
        return term.value(q) + _dot(q - x, q - x) / (2 * step)

    for q in (x, _other(x), p + 0.1 * _other(x), p + 1e-2 * _other(x), 0.9 * p):
        lacking = objective(p) + _dot(q - p, q - p) / (2 * step) - objective(q)
        size = 1 + objective(q).abs() + objective(p).abs() + _dot(x, x)
        _require(lacking, _digits(x) * size, f"{name}: prox(x, s) must minimise g + |. - x|^2 / 2s")


def check_function(term: AbstractFunction, x: Tensor, step: float = 0.7) -> None:
    """Check the value of a function, its convexity between points, and all of `check_prox`.

    Args:
        term: the function.
        x: points `(B, *shape)`, B >= 2, in its domain.
        step: positive.
    """
    _check_value(term, x)
    check_prox(term, x, step)


def check_smooth(term: AbstractSmooth, x: Tensor) -> None:
    """Check a smooth convex function at `x`: value, gradient, Lipschitz constant, contract of a batch.

    `apply` is the derivative of `value`; `|F(x) - F(y)| <= L |x - y|` between points; `L` is no smaller than the largest
    eigenvalue that a power iteration on the Hessian at `x` finds; `F` is `1/L`-cocoercive.

    Args:
        term: the function.
        x: points `(B, *shape)`, B >= 2.
    """
    name = type(term).__name__
    _check_value(term, x)
    point = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(term.value(point).sum(), point)
    apply = term.apply(x)
    size = 1 + _norm(apply) + _norm(gradient)
    _require(_norm(apply - gradient), _digits(x) * size, f"{name}: apply must be the gradient of value")
    check_batch(term, x, lambda term, x: term.apply(x))
    lipschitz = term.lipschitz
    if lipschitz is None:
        return
    if isinstance(lipschitz, Tensor) and lipschitz.requires_grad:
        raise AssertionError(f"{name}: lipschitz must be detached: a step size carries no gradient.")
    y = _other(x)
    change, slack = apply - term.apply(y), _digits(x) * (size + _norm(term.apply(y)))
    _require(_norm(change) - lipschitz * _norm(x - y), slack, f"{name}: |F(x) - F(y)| <= lipschitz |x - y|")
    _require(
        _dot(change, change) - lipschitz * _dot(change, x - y), slack**2 + slack * size, f"{name}: 1/L-cocoercivity"
    )
    _require(_hessian_norm(term, x) - lipschitz, slack, f"{name}: lipschitz is below an eigenvalue of the Hessian")


def check_monotone(term: AbstractMonotone, x: Tensor) -> None:
    """Check a monotone map at `x`: monotonicity, its two constants where they are stated, contract of a batch.

    Between points `<F(x) - F(y), x - y> >= 0`, `|F(x) - F(y)| <= L |x - y|`, and
    `<F(x) - F(y), x - y> >= beta |F(x) - F(y)|^2`.

    Args:
        term: the map.
        x: points `(B, *shape)`, B >= 2.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.testing import check_monotone
        >>> check_monotone(il2o.BilinearGame(torch.randn(2, 3)), torch.randn(4, 5))
    """
    name = type(term).__name__
    check_batch(term, x, lambda term, x: term.apply(x))
    y = _other(x)
    Fx, Fy = term.apply(x), term.apply(y)
    if Fx.shape != x.shape:
        raise AssertionError(f"{name}: apply gives shape {tuple(Fx.shape)} at x of shape {tuple(x.shape)}.")
    change, moved = Fx - Fy, x - y
    size = 1 + _norm(x) + _norm(y) + _norm(Fx) + _norm(Fy)
    slack, along = _digits(x) * size**2, _dot(change, moved)
    _require(-along, slack, f"{name}: <F(x) - F(y), x - y> >= 0")
    for stated, constant in (("lipschitz", term.lipschitz), ("cocoercivity", term.cocoercivity)):
        if isinstance(constant, Tensor) and constant.requires_grad:
            raise AssertionError(f"{name}: {stated} must be detached: a step size carries no gradient.")
    lipschitz, beta = term.lipschitz, term.cocoercivity
    if lipschitz is not None:
        excess = _norm(change) - lipschitz * _norm(moved)
        _require(excess, _digits(x) * size, f"{name}: |F(x) - F(y)| <= lipschitz |x - y|")
    if beta is not None:
        _require(beta * _dot(change, change) - along, slack, f"{name}: <F(x) - F(y), x - y> >= beta |F(x) - F(y)|^2")


def check_linear_operator(
    operator: AbstractLinearOperator, *, dtype: torch.dtype = torch.float64, batch: int = 3
) -> None:
    """Check a linear operator on random points: shapes, linearity, adjoint, norm bound, derivatives, contract of a batch.

    `<Kx, y> = <x, K^T y>`; no power iteration finds a norm above `norm_bound`; the derivative of `apply` is `adjoint` and
    the other way round.

    Args:
        operator: the operator.
        dtype: of the points.
        batch: how many points, at least 2.
    """
    name = type(operator).__name__
    generator = torch.Generator().manual_seed(0)
    x, v = (torch.randn(batch, *operator.in_shape, generator=generator, dtype=dtype) for _ in range(2))
    y = torch.randn(batch, *operator.out_shape, generator=generator, dtype=dtype)
    Kx, Kty = operator.apply(x), operator.adjoint(y)
    for result, like, what in ((Kx, y, "apply"), (Kty, x, "adjoint")):
        if result.shape != like.shape:
            raise AssertionError(f"{name}: {what} gives shape {tuple(result.shape)}, declared {tuple(like.shape)}.")
    bound = operator.norm_bound
    size = 1 + bound * (_norm(x) + _norm(v)) * (1 + _norm(y))
    error = _norm(operator.apply(2 * x - 3 * v) - 2 * Kx + 3 * operator.apply(v))
    _require(error, 8 * _digits(x) * size, f"{name}: apply must be linear")
    error = (_dot(Kx, y) - _dot(x, Kty)).abs()
    _require(error, _digits(x) * size, f"{name}: <Kx, y> must equal <x, K^T y>")
    for _ in range(_POWER_ITERATIONS):
        v = operator.adjoint(operator.apply(v / _expand(_norm(v) + 1e-30, v)))
    found = _norm(operator.apply(v / _expand(_norm(v) + 1e-30, v)))
    _require(
        found - bound, _digits(x) * (1 + bound), f"{name}: norm_bound is below the norm that a power iteration found"
    )
    for there, back, at, along in ((operator.apply, operator.adjoint, x, y), (operator.adjoint, operator.apply, y, x)):
        point = at.clone().requires_grad_()
        with torch.enable_grad():
            (derivative,) = torch.autograd.grad((there(point) * along).sum(), point)
        error = _norm(derivative - back(along))
        _require(error, _digits(x) * size, f"{name}: the derivative of a linear map is its transpose")
    check_batch(operator, x, lambda operator, x: operator.apply(x))
    check_batch(operator, y, lambda operator, y: operator.adjoint(y))


def check_batch(operator: Any, x: Tensor, function: Callable[[Any, Tensor], Tensor]) -> None:
    """Check that samples do not see each other.

    Shape, dtype and device are kept; `operator.restrict(index)` on `x[index]` gives `function(operator, x)[index]` for
    each sample alone, for halves and for a permutation, within 1e-12 relative in float64; a NaN stays in its sample; an
    empty batch is legal.

    Args:
        operator: an operator with `restrict`.
        x: points `(B, *shape)`, B >= 2.
        function: `(operator, x) -> (B, ...)`.
    """
    name = type(operator).__name__
    if x.shape[0] < 2:
        raise ValueError(f"check_batch needs at least 2 samples; got {x.shape[0]}.")
    whole = function(operator, x)
    if whole.dtype != x.dtype or whole.device != x.device or whole.shape[0] != x.shape[0]:
        raise AssertionError(
            f"{name}: x is {x.dtype} on {x.device} with B={x.shape[0]}; the result is {whole.dtype} on {whole.device} of "
            f"shape {tuple(whole.shape)}."
        )
    samples = torch.arange(x.shape[0], device=x.device)
    half = x.shape[0] // 2
    for index in (*samples.split(1), samples[:half], samples[half:], samples.flip(0)):
        part = function(operator.restrict(index), x[index])
        if part.shape != whole[index].shape:
            raise AssertionError(
                f"{name}: restricted to samples {index.tolist()} it gives shape {tuple(part.shape)}, not "
                f"{tuple(whole[index].shape)}: does each field that differs by sample say so in its metadata?"
            )
        error = _norm(part - whole[index])
        what = f"{name}: restricted to samples {index.tolist()} it must give what it gives in the batch"
        _require(error, 4096 * torch.finfo(x.dtype).eps * (1 + _norm(whole[index]) + _norm(x[index])), what)
    empty = function(operator.restrict(samples[:0]), x[:0])
    if empty.shape != whole[:0].shape:
        raise AssertionError(f"{name}: an empty batch gives shape {tuple(empty.shape)}, not {tuple(whole[:0].shape)}.")
    poisoned = x.clone()
    poisoned[0] = torch.nan
    result = function(operator, poisoned)
    error = _norm(result[1:] - whole[1:])
    _require(error, _digits(x) * (1 + _norm(whole[1:]) + _norm(x[1:])), f"{name}: a NaN must stay in its sample")


def _check_prox_laws(term: AbstractProximable, x: Tensor, step: float) -> None:
    name = type(term).__name__
    y = _other(x)
    p, q = term.prox(x, step), term.prox(y, step)
    if p.shape != x.shape:
        raise AssertionError(f"{name}: prox gives shape {tuple(p.shape)} at x of shape {tuple(x.shape)}.")
    size = 1 + _norm(x) + _norm(y) + _norm(p) + _norm(q)
    excess = _dot(p - q, p - q) - _dot(p - q, x - y)
    _require(excess, _digits(x) * size**2, f"{name}: |Px - Py|^2 <= <Px - Py, x - y> (firm nonexpansiveness)")
    steps = torch.full((x.shape[0],), step, dtype=x.dtype, device=x.device)
    _require(_norm(term.prox(x, steps) - p), _digits(x) * size, f"{name}: prox must take one step a sample (B,)")
    poisoned = x.clone()
    poisoned[0] = torch.nan
    if not torch.isnan(term.prox(poisoned, step)[0]).any():
        raise AssertionError(
            f"{name}: the prox of a NaN sample must be NaN, or a failed sample would pass for an answer."
        )


def _check_value(term: AbstractFunction | AbstractSmooth, x: Tensor) -> None:
    name = type(term).__name__
    value = term.value(x)
    if value.shape != x.shape[:1]:
        raise AssertionError(f"{name}: value must give one number a sample, ({x.shape[0]},); got {tuple(value.shape)}.")
    y = _other(x)
    other, middle = term.value(y), term.value((x + y) / 2)
    slack = _digits(x) * (1 + value.abs() + other.abs())
    _require(middle - (value + other) / 2, slack, f"{name}: the value must be convex between two points")
    check_batch(term, x, lambda term, x: term.value(x))


def _hessian_norm(term: AbstractSmooth, x: Tensor) -> Tensor:
    """Largest eigenvalue of the Hessian of each sample, from below, by a power iteration."""
    v = _other(x)
    for _ in range(_POWER_ITERATIONS):
        point = x.detach().clone().requires_grad_()
        v = v / _expand(_norm(v) + 1e-30, v)
        with torch.enable_grad():
            at = term.apply(point)
        if not at.requires_grad:  # a constant gradient: no Hessian
            return torch.zeros_like(_norm(x))
        (v,) = torch.autograd.grad(at, point, v, allow_unused=True, materialize_grads=True)
    return _norm(v)


def _other(x: Tensor) -> Tensor:
    """A second point a sample, of the size of the first; the same at every call."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype).to(x.device)
    return noise * (1 + x.detach().abs())


def _digits(x: Tensor) -> float:
    """What rounding may cost a chain of a few operations: 2e-12 in float64, 1e-3 in float32."""
    return 1e4 * torch.finfo(x.dtype).eps


def _require(error: Tensor, permitted: Tensor | float, law: str) -> None:
    error = error.detach()
    excess = ~(error <= permitted)  # a NaN error is a failure too
    if excess.any():
        i = int(excess.nonzero()[0])
        limit = float(permitted[i]) if isinstance(permitted, Tensor) else permitted
        raise AssertionError(f"{law}; sample {i} is off by {float(error[i]):.3g}, permitted {limit:.3g}.")


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).flatten(1).sum(-1) if x.ndim > 1 else x * y


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=-1) if x.ndim > 1 else x.abs()


def _expand(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(-1, *([1] * (like.ndim - 1)))
