"""Negative entropy on the simplex. Its prox solves one scalar equation a sample; the entries are Wright's omega function.

Corless and Jeffrey, "The Wright omega function" (2002), for `y + a log y = c`; the dual is a scalar Newton iteration.
"""

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import SCALAR
from implicit_l2o.operators._parameters import nonnegative
from implicit_l2o.operators.base import AbstractFunction, Scalar

_INNER = 7  # Newton steps for the logarithm of an entry, quadratic from the right of its root
_WARM = 3  # from where the last shift left them
_ENOUGH = 1e-2  # of the square root of the rounding
_OUTER = 60  # most Newton steps for the shift; a handful is the rule


@final
@dataclass(frozen=True, eq=False)
class EntropicSimplex(AbstractFunction):
    """The function `g(x) = temperature sum_i x_i log x_i` on `{x : x >= 0, sum_i x_i = total}`, infinite elsewhere.

    The regulariser of quantal responses: `argmin <c, x> + g(x)` is the logit choice `softmax(-c / temperature)` for
    `total = 1`. With `a = step temperature`, `y = prox(x, step)` solves `y_i + a log y_i = x_i - shift` with the shift that
    makes the sum right, so every entry is positive. The shift is found by Newton's method, which is monotone here because
    the sum is convex and falling in it, and is kept in a bracket. Two further Newton steps on the whole system are
    recorded, which makes first, second and third derivatives exact.

    Args:
        temperature: > 0; a number or one value a sample `(B,)`.
        total: the sum, > 0; the same forms.

    Raises:
        ValueError: a constant temperature or total is not positive. A learned or per-sample one that is not gives NaN in its
            sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> y = il2o.EntropicSimplex(0.5).prox(torch.tensor([[1.0, 0.0]]), 2.0)
        >>> (y + y.log() - torch.tensor([[1.0, 0.0]])).diff().abs() < 1e-6, y.sum().round(decimals=5)
        (tensor([[True]]), tensor(1.))
    """

    temperature: Scalar = field(default=1.0, metadata=SCALAR)
    total: Scalar = field(default=1.0, metadata=SCALAR)

    def __post_init__(self) -> None:
        for name in ("temperature", "total"):
            value = nonnegative(getattr(self, name), f"EntropicSimplex.{name}", SCALAR, strict=True)
            object.__setattr__(self, name, value)

    def prox(self, x: Float[Tensor, "B *shape"], step: Scalar) -> Float[Tensor, "B *shape"]:
        """The `y` with `y + step temperature log y + shift = x` and the sum `total`."""
        flat = _batch.flatten(x)
        weight = _column(self.temperature, flat) * _column(step, flat)
        total = _column(self.total, flat)
        with torch.no_grad():
            shift, log_y = _solve(flat, weight, total)
        for _ in range(2):
            shift, log_y = _newton(flat, weight, total, shift, log_y)
        return log_y.exp().reshape(x.shape)

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`temperature sum_i x_i log x_i`, infinite for a negative entry; the sum is not looked at, as sets count zero."""
        return -_column(self.temperature, x)[:, 0] * torch.special.entr(_batch.flatten(x)).sum(-1)


def _column(value: Scalar, like: Tensor) -> Float[Tensor, "B 1"]:
    """A number or one value a sample as a column."""
    column = torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1, 1)
    return column.expand(like.shape[0], 1)


def _log_entries(
    c: Float[Tensor, "B n"], weight: Float[Tensor, "B 1"], start: Float[Tensor, "B n"] | None = None
) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B n"]]:
    """`log y` and `y` with `y + weight log y = c`.

    With `y = weight w` this is `log w + w = u`, convex and increasing in `log w`: Newton's method from the right of the
    root falls onto it, and is kept from going further right than that. In logarithms nothing overflows, and an entry too
    small for a number is zero.
    """
    u = c / weight - weight.log()
    right = torch.where(u > 1, u.clamp(min=1).log(), u)
    log_w = right if start is None else torch.minimum(start - weight.log(), right)
    for _ in range(_INNER if start is None else _WARM):
        w = log_w.exp()
        log_w = torch.minimum(log_w - (log_w + w - u) / (1 + w), right)
    log_y = log_w + weight.log()
    return log_y, log_y.exp()


def _solve(
    x: Float[Tensor, "B n"], weight: Float[Tensor, "B 1"], total: Float[Tensor, "B 1"]
) -> tuple[Float[Tensor, "B 1"], Float[Tensor, "B n"]]:
    """The shift and the logarithms of the entries, to about the rounding of the sum."""
    largest = x.amax(-1, keepdim=True)
    # Where the largest entry alone is the total the sum is too large; where it is the mean, too small.
    low = largest - total - weight * total.log()
    mean = total / x.shape[-1]
    high = largest - mean - weight * mean.log()
    shift = low
    log_y, y = _log_entries(x - shift, weight)
    for _ in range(_OUTER):
        excess = y.sum(-1, keepdim=True) - total
        low, high = torch.where(excess > 0, shift, low), torch.where(excess > 0, high, shift)
        following = shift + excess / (y / (y + weight)).sum(-1, keepdim=True)
        inside = (following >= low) & (following <= high)
        following = torch.where(inside, following, (low + high) / 2)
        change = following - shift
        shift = following
        log_y, y = _log_entries(x - shift, weight, log_y - change / (y + weight))
        # A NaN does not move; what is left is squared by the two steps that are recorded.
        if not bool((change.abs() > _ENOUGH * torch.finfo(x.dtype).eps ** 0.5 * (shift.abs() + total)).any()):
            break
    return shift, log_y


def _newton(
    x: Float[Tensor, "B n"],
    weight: Float[Tensor, "B 1"],
    total: Float[Tensor, "B 1"],
    shift: Float[Tensor, "B 1"],
    log_y: Float[Tensor, "B n"],
) -> tuple[Float[Tensor, "B 1"], Float[Tensor, "B n"]]:
    """A Newton step for `y + weight log y + shift = x`, `sum y = total` in the unknowns `(shift, log y)`."""
    y = log_y.exp()
    lacking = x - shift - y - weight * log_y
    share = y / (y + weight)
    change = ((share * lacking + y).sum(-1, keepdim=True) - total) / share.sum(-1, keepdim=True)
    return shift + change, log_y + (lacking - change) / (y + weight)
