"""A linear operator that is known through two functions, and the test that they are each other's transposes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.operators._linear_map import linear_map
from implicit_l2o.operators.base import AbstractLinearOperator

_POWER_ITERATIONS = 40
_MARGIN = 1.01


@final
@dataclass(frozen=True, eq=False)
class MatrixFree(AbstractLinearOperator):
    """The linear operator `K` of two functions, whose derivatives are each other: also where they cannot be differentiated.

    Args:
        forward: `(B, *shape_in) -> (B, *shape_out)`, linear; called without a graph.
        transpose: `(B, *shape_out) -> (B, *shape_in)`, its transpose; called without a graph.
        shape_in: of one input sample.
        shape_out: of one output sample.
        norm: an upper bound on the spectral norm. Default: an estimate, 1 % above what 40 power iterations find.
        dtype: of the points at which the estimate is made.
        device: likewise.

    Raises:
        ValueError: `norm` is negative or not finite; a point has another shape.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import MatrixFree
        >>> double = MatrixFree(lambda x: 2 * x, lambda y: 2 * y, (3,), (3,))
        >>> double.apply(torch.ones(1, 3)), round(double.norm_bound, 2)
        (tensor([[2., 2., 2.]]), 2.02)
    """

    forward: Callable[[Tensor], Tensor] = field(repr=False)
    transpose: Callable[[Tensor], Tensor] = field(repr=False)
    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]
    norm: float | None = field(default=None, kw_only=True)
    dtype: torch.dtype = field(default=torch.float32, kw_only=True)
    device: torch.device | str = field(default="cpu", kw_only=True)

    def __post_init__(self) -> None:
        if self.norm is not None and not (math.isfinite(self.norm) and self.norm >= 0):
            raise ValueError(f"MatrixFree needs a finite norm >= 0; got norm={self.norm}.")

    @property
    def in_shape(self) -> tuple[int, ...]:
        """`shape_in`."""
        return tuple(self.shape_in)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """`shape_out`."""
        return tuple(self.shape_out)

    @property
    def norm_bound(self) -> float:
        """`norm`, or the estimate."""
        return self._estimate if self.norm is None else self.norm

    @cached_property
    def _estimate(self) -> float:
        x = torch.randn(1, *self.in_shape, generator=torch.Generator().manual_seed(0), dtype=self.dtype).to(self.device)
        size = 0.0
        with torch.no_grad():
            for _ in range(_POWER_ITERATIONS):
                x = x / _batch.norm(x).clamp_min(torch.finfo(x.dtype).tiny).item()
                y = self.forward(x)
                size = max(size, _batch.norm(y).item())
                x = self.transpose(y)
        return _MARGIN * size

    def apply(self, x: Float[Tensor, "B *in"]) -> Float[Tensor, "B *out"]:
        """`K x`."""
        _check(x, self.in_shape)
        return self._map(x, self.forward, self.transpose, self.in_shape, self.out_shape)

    def adjoint(self, y: Float[Tensor, "B *out"]) -> Float[Tensor, "B *in"]:
        """`K^T y`."""
        _check(y, self.out_shape)
        return self._map(y, self.transpose, self.forward, self.out_shape, self.in_shape)

    @staticmethod
    def _map(
        x: Tensor,
        there: Callable[[Tensor], Tensor],
        back: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
        result: tuple[int, ...],
    ) -> Tensor:
        y = linear_map(
            _batch.flatten(x),
            lambda flat: _batch.flatten(there(flat.reshape(-1, *shape))),
            lambda flat: _batch.flatten(back(flat.reshape(-1, *result))),
        )
        return y.reshape(x.shape[0], *result)


def adjoint_error(
    operator: AbstractLinearOperator,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> float:
    """The largest `|<K x, y> - <x, K^T y>| / (|K x| |y|)` over random pairs, both signed and positive: 0 up to rounding.

    A projector whose adjoint is off gives wrong implicit gradients and wrong certificates, and splittings that need not
    converge.

    Args:
        operator: the operator.
        dtype: of the points.
        device: of the points.
        seed: of the points.

    Example:
        >>> from implicit_l2o.physics import Geometry, Projector, adjoint_error
        >>> adjoint_error(Projector(Geometry.uniform(64, angles=15))) < 1e-6
        True
    """
    generator = torch.Generator().manual_seed(seed)
    error = 0.0
    with torch.no_grad():
        for draw in (torch.rand, torch.randn):
            x = draw(1, *operator.in_shape, generator=generator, dtype=dtype).to(device)
            y = draw(1, *operator.out_shape, generator=generator, dtype=dtype).to(device)
            Kx, Kty = operator.apply(x).double(), operator.adjoint(y).double()
            size = _batch.norm(Kx) * _batch.norm(y.double())
            difference = _batch.dot(Kx, y.double()) - _batch.dot(x.double(), Kty)
            error = max(error, (difference.abs() / size.clamp_min(torch.finfo(torch.float64).tiny)).item())
    return error


def _check(x: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(f"MatrixFree: this side has samples of shape {tuple(shape)}; got a batch {tuple(x.shape)}.")
