"""Contract checks of splittings and backward modes."""

from collections.abc import Callable

import torch
from torch import Tensor

from implicit_l2o import AbstractBackward, AbstractSplitting, KrasnoselskiiMann, Status, Stopping, fixed_point

_NO_CHANGE = 1e-12  # relative, in float64: what batch mates may change


def check_splitting(
    splitting: AbstractSplitting,
    x0: Tensor,
    *,
    metric: Callable[[Tensor], Tensor] | None = None,
    fixed_point: Tensor | None = None,
) -> None:
    """Check that `T` is averaged as stated, keeps shape and dtype, and treats every sample by itself.

    For pairs of points around the start, `|Tu - Tv|^2 + (1 - a)/a |(I - T)u - (I - T)v|^2 <= |u - v|^2` with `a` the stated
    averagedness, in the metric given; `restrict(index)` equals indexing; permuting or splitting the batch changes nothing.

    Args:
        splitting: made for the batch of `x0`.
        x0: starting points `(B, *shape)`, float64, B >= 2.
        metric: maps differences of `z` to their squared norms `(B,)`; None takes the Euclidean one.
        fixed_point: of `T`; given, it is the `v` of all pairs, for a `T` that is averaged against its fixed points only.

    Raises:
        AssertionError: names the law and the figures.
    """
    name = type(splitting).__name__
    square = _squared_norm if metric is None else metric
    z = splitting.init(x0)
    image = splitting(z)
    _require(image.shape == z.shape and image.dtype == z.dtype, f"{name}: T must keep shape and dtype")
    _require(splitting.readout(z).shape == x0.shape, f"{name}: the readout must have the shape of x0")
    a = splitting.averagedness
    _require(0 < a < 1, f"{name}: averagedness must be in (0, 1); got {a}")
    for scale in (0.1, 1.0, 10.0):
        u = z + scale * torch.randn_like(z)
        v = z + scale * torch.randn_like(z) if fixed_point is None else fixed_point
        Tu, Tv = splitting(u), splitting(v)
        left = square(Tu - Tv) + (1 - a) / a * square((u - Tu) - (v - Tv))
        right = square(u - v)
        _require(
            bool((left <= right * (1 + 1e-9) + 1e-12).all()), f"{name}: T is not {a:.3f}-averaged: {left} > {right}"
        )
    index = torch.randperm(len(x0))
    for part in (index, index[:1], index[: len(index) // 2]):
        mine = splitting.restrict(part)
        _close(mine(z[part]), image[part], f"{name}: restrict(index) must equal indexing")
        _close(mine.readout(z[part]), splitting.readout(z)[part], f"{name}: the readout of restrict(index)")


def check_backward(backward: AbstractBackward, *, exact: bool) -> None:
    """Check what every backward mode promises, on a linear contraction whose answer is known.

    The returned point is a fixed point of `T`, with its residual; without gradients there is no graph; a failed sample
    gets a zero gradient; `exact` modes give `v (I - J)^{-1}`.

    Args:
        backward: the mode.
        exact: whether its gradient is the derivative of the fixed point.

    Raises:
        AssertionError: names what is broken.
    """
    name = type(backward).__name__
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    W = 0.5 * W / torch.linalg.matrix_norm(W, 2)
    v = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    solver = KrasnoselskiiMann(Stopping(atol=1e-12, rtol=0.0, max_steps=500))
    eye = torch.eye(4, dtype=torch.float64)

    b = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    point = fixed_point(lambda z: z @ W + b, torch.zeros_like(v), solver=solver, backward=backward)
    _close(point.z.detach(), torch.linalg.solve((eye - W).T, b.detach().T).T, f"{name}: not the fixed point", 1e-9)
    _require(bool((point.status == Status.CONVERGED).all()), f"{name}: a contraction must converge")
    (point.z * v).sum().backward()
    _require(b.grad is not None and bool(torch.isfinite(b.grad).all()), f"{name}: the gradient must be finite")
    if exact and b.grad is not None:
        _close(b.grad, torch.linalg.solve(eye - W, v.T).T, f"{name}: not the exact gradient", 1e-6)
    with torch.no_grad():
        point = fixed_point(lambda z: z @ W + b, torch.zeros_like(v), solver=solver, backward=backward)
        _require(not point.z.requires_grad, f"{name}: no graph without gradients")

    b = torch.ones(3, 4, dtype=torch.float64)
    b[1] = torch.nan
    b.requires_grad_()
    point = fixed_point(lambda z: z @ W + b, torch.zeros_like(v), solver=solver, backward=backward, on_failure="ignore")
    _require(point.status.tolist() == [1, 3, 1], f"{name}: the NaN sample alone must be NONFINITE; got {point.status}")
    _require(bool(torch.isfinite(point.z).all()), f"{name}: the returned point must be finite")
    point.z.sum().backward()
    _require(b.grad is not None and bool((b.grad[1] == 0).all()), f"{name}: a failed sample must get a zero gradient")


def _squared_norm(z: Tensor) -> Tensor:
    return z.flatten(1).square().sum(-1)


def _close(actual: Tensor, expected: Tensor, law: str, tolerance: float = _NO_CHANGE) -> None:
    error = (actual - expected).abs().max() if actual.numel() else torch.tensor(0.0)
    size = 1 + (expected.abs().max() if expected.numel() else torch.tensor(0.0))
    _require(bool(error <= tolerance * size), f"{law}: error {float(error):.1e}")


def _require(holds: bool, law: str) -> None:
    if not holds:
        raise AssertionError(law)
