"""Power cone in three dimensions. Hien, "Differential properties of Euclidean projection onto power cone" (2015)."""

import math
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import SCALAR
from implicit_l2o.operators._bracket import find_root
from implicit_l2o.operators.base import AbstractSet, Scalar


@final
@dataclass(frozen=True, eq=False)
class PowerCone(AbstractSet):
    """The cone `{(x, y, z) : x^alpha y^(1 - alpha) >= |z|, x >= 0, y >= 0}`; a sample has three entries.

    Outside the cone and its polar the answer has `|z| = r` with `r` the root of a scalar equation, and
    `x = (x_0 + sqrt(x_0^2 + 4 alpha r (|z_0| - r))) / 2`, likewise `y`. A bracketed Newton iteration finds it, and two steps
    that are recorded make first and second derivatives exact.

    Args:
        alpha: in (0, 1); a number or one value a sample `(B,)`.

    Raises:
        ValueError: a constant alpha is not in (0, 1); or, when projecting, a sample does not have three entries.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.PowerCone(0.5).project(torch.tensor([[0.0, 0.0, 1.0]])).round(decimals=4)
        tensor([[0.3333, 0.3333, 0.3333]])
    """

    alpha: Scalar = field(default=0.5, metadata=SCALAR)

    def __post_init__(self) -> None:
        value = torch.as_tensor(self.alpha).detach()
        if not bool(((value > 0) & (value < 1)).all()):
            raise ValueError(f"PowerCone needs 0 < alpha < 1; got alpha={self.alpha}.")

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """The nearest point of the cone."""
        flat = _batch.flatten(x)
        if flat.shape[1] != 3:
            raise ValueError(f"PowerCone acts on samples with 3 entries; got x of shape {tuple(x.shape)}.")
        alpha = torch.as_tensor(self.alpha, dtype=x.dtype, device=x.device).expand(len(x))
        # A cone does not know units, and the derivative does not either; squares of tiny numbers would vanish.
        unit = flat.detach().abs().amax(1, keepdim=True)
        flat = flat / torch.where(unit > 0, unit, 1.0)
        a, b, c = flat[:, 0], flat[:, 1], flat[:, 2]
        inside = (a >= 0) & (b >= 0) & (_mean(a, b, alpha) >= c.abs())
        # The polar cone is minus the dual one, whose entries are divided by the exponents.
        polar = (a <= 0) & (b <= 0) & (_mean(-a / alpha, -b / (1 - alpha), alpha) >= c.abs())
        # What is this small beside the others is no number beside their squares.
        flatly = (c.abs() <= torch.finfo(x.dtype).tiny ** 0.25) & ~inside & ~polar
        general = ~(inside | polar | flatly | ~torch.isfinite(flat).all(1))
        middle = flat
        if bool(general.any()):
            # Where the general case is not used, a point that is in it: no derivative may be NaN.
            stand_in = flat.new_tensor([1.0, 1.0, 2.0])
            middle = _curved(torch.where(general[:, None], flat, stand_in), alpha)
        onto_quadrant = torch.stack([a.clamp_min(0), b.clamp_min(0), torch.zeros_like(c)], 1)
        outcome = torch.where(inside[:, None], flat, torch.where(polar[:, None], 0.0, onto_quadrant))
        return (torch.where(general[:, None], middle, outcome) * unit).reshape(x.shape)


def _mean(x: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
    """`x^alpha y^(1 - alpha)` of nonnegative numbers, 0 for negative ones."""
    return (alpha * x.detach().clamp_min(0).log() + (1 - alpha) * y.detach().clamp_min(0).log()).exp()


def _coordinate(start: Tensor, power: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
    """`(s + sqrt(s^2 + 4 power across)) / 2` without cancellation, and the root."""
    root = (start.square() + 4 * power * across).sqrt()
    negative = 2 * power * across / torch.where(start > 0, 1.0, root - start)
    return torch.where(start > 0, (start + root) / 2, negative), root


def _split(logit: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """`r` and `c - r`, both to full relative precision."""
    return c * torch.sigmoid(logit), c * torch.sigmoid(-logit)


def _gap(logit: Tensor, a: Tensor, b: Tensor, c: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """`log r - alpha log x(r) - (1 - alpha) log y(r)`, negative left of the answer; and its derivative."""
    r, rest = _split(logit, c)
    x, x_root = _coordinate(a, alpha, r * rest)
    y, y_root = _coordinate(b, 1 - alpha, r * rest)
    value = r.log() - alpha * x.log() - (1 - alpha) * y.log()
    slope = 1 / r - (rest - r) * (alpha.square() / (x * x_root) + (1 - alpha).square() / (y * y_root))
    return value, slope * r * rest / c


def _curved(x: Float[Tensor, "B 3"], alpha: Float[Tensor, " B"]) -> Float[Tensor, "B 3"]:
    """The projection of points whose nearest one lies on the curved part of the boundary."""
    a, b, c = x[:, 0], x[:, 1], x[:, 2].abs()
    with torch.no_grad():
        far = torch.full_like(c, -0.4 * math.log(torch.finfo(x.dtype).tiny))
        logit = find_root(lambda at: _gap(at, a, b, c, alpha), -far, far, torch.zeros_like(c))
    for _ in range(2):
        value, slope = _gap(logit, a, b, c, alpha)
        step = value / torch.where(slope > 0, slope, torch.inf)
        logit = logit - torch.where(step.abs() < 1, step, 0.0)
    r, rest = _split(logit, c)
    return torch.stack(
        [_coordinate(a, alpha, r * rest)[0], _coordinate(b, 1 - alpha, r * rest)[0], r * x[:, 2].sign()], 1
    )
