"""Exponential cone. Friberg, "Projection onto the exponential cone: a univariate root-finding problem" (2023)."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._numba import has_numba
from implicit_l2o.operators._bracket import find_root
from implicit_l2o.operators._cone_derivative import by_rows
from implicit_l2o.operators.base import AbstractSet

_LARGEST = 300.0  # of |ratio|: beyond it the point lies on the face y = 0 to rounding


@final
@dataclass(frozen=True, eq=False)
class ExponentialCone(AbstractSet):
    """The cone `cl {(x, y, z) : y > 0, y exp(x / y) <= z}`; a sample has three entries, in this order.

    A point that is in the cone stays, one in the polar cone goes to zero, one with `x <= 0, y <= 0` goes to
    `(x, 0, max(z, 0))`. Any other goes to `a(r) (r, 1, exp(r))`, `a(r) = ((r - 1) x + y) / (r^2 - r + 1)`, for the root `r`
    of an increasing scalar function; a bracketed Newton iteration finds it, and two steps that are recorded make first
    and second derivatives exact.

    Raises:
        ValueError: when projecting, a sample does not have three entries.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> y = il2o.ExponentialCone().project(torch.tensor([[1.0, 1.0, 1.0]]))
        >>> bool((y[0, 1] * (y[0, 0] / y[0, 1]).exp() - y[0, 2]).abs() < 1e-6)
        True
    """

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """The nearest point of the cone."""
        flat = _batch.flatten(x)
        if flat.shape[1] != 3:
            raise ValueError(f"ExponentialCone acts on samples with 3 entries; got x of shape {tuple(x.shape)}.")
        if not (torch.is_grad_enabled() and x.requires_grad) and _compiles(flat):
            from implicit_l2o.operators._cone_kernel import exponential_projections

            out = torch.empty_like(flat, memory_format=torch.contiguous_format)
            exponential_projections(flat.detach().contiguous().numpy(), out.numpy())
            return out.reshape(x.shape)
        # A cone does not know units, and the derivative does not either; squares of tiny numbers would vanish.
        unit = flat.detach().abs().amax(1, keepdim=True)
        flat = flat / torch.where(unit > 0, unit, 1.0)
        r, s, t = flat.unbind(1)
        # In logarithms, for exp(r / s) overflows where the answer is simply no.
        inside = ((s > 0) & (t > 0) & (s.clamp_min(0).log() + r / _nonzero(s) <= t.clamp_min(0).log())) | (
            (s == 0) & (r <= 0) & (t >= 0)
        )
        polar = ((r > 0) & (t < 0) & (r.clamp_min(0).log() + s / _nonzero(r) <= 1 + (-t).clamp_min(0).log())) | (
            (r == 0) & (s <= 0) & (t <= 0)
        )
        face = (r <= 0) & (s <= 0)
        general = ~(inside | polar | face | ~torch.isfinite(flat).all(1))
        if not bool(general.any()):
            middle = flat
        else:
            # Where the general case is not used, a point that is in it: no derivative may be NaN.
            stand_in = flat.new_tensor([1.0, 1.0, 1.0])
            middle = _curved(torch.where(general[:, None], flat, stand_in))
        on_face = torch.stack([r, torch.zeros_like(s), t.clamp_min(0)], 1)
        outcome = torch.where(inside[:, None], flat, torch.where(polar[:, None], 0.0, on_face))
        return (torch.where(general[:, None], middle, outcome) * unit).reshape(x.shape)


@torch.no_grad()
def derivative(x: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3 3"]:
    """The derivative of the projection; compiled where that is possible, but for points far along the cone's rays."""
    project = ExponentialCone().project
    if not _compiles(x):
        return by_rows(project, x)
    from implicit_l2o.operators._cone_kernel import exponential_derivatives

    out = x.new_empty(len(x), 3, 3)
    exponential_derivatives(x.detach().contiguous().numpy(), out.numpy())
    missing = out.isnan().any(2).any(1)
    if bool(missing.any()):
        out[missing] = by_rows(project, x[missing])
    return out


def _compiles(x: Tensor) -> bool:
    if x.dtype != torch.float64 or x.device.type != "cpu" or not has_numba():
        return False
    try:
        x.data_ptr()
    except RuntimeError:  # a transform of torch.func wraps tensors, which then have no memory
        return False
    return True


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1.0, x)


def _weights(ratio: Tensor, r: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The lengths of the point in the cone and of the one in the polar cone, along their rays at `ratio`."""
    size = ratio * (ratio - 1) + 1
    return ((ratio - 1) * r + s) / size, (r - ratio * s) / size


def _gap(ratio: Tensor, r: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """What the third entries lack to add up to `t`, and its derivative in the ratio; increasing where it matters."""
    size, slope = ratio * (ratio - 1) + 1, 2 * ratio - 1
    primal, dual = _weights(ratio, r, s)
    up, down = ratio.exp(), (-ratio).exp()
    derivative = up * (primal + (r - slope * primal) / size) + down * (dual + (s + slope * dual) / size)
    return up * primal - down * dual - t, derivative


def _ratios(r: Tensor, s: Tensor, t: Tensor, low: Tensor, high: Tensor, start: Tensor) -> Tensor:
    """The roots: compiled where that is possible."""
    if not _compiles(r):
        return find_root(lambda at: _gap(at, r, s, t), low, high, start)
    from implicit_l2o.operators._cone_kernel import exponential_ratios

    out = torch.empty_like(r)
    exponential_ratios(*(part.detach().contiguous().numpy() for part in (r, s, t, low, high, start)), out.numpy())
    return out


def _curved(x: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3"]:
    """The projection of points whose nearest one lies on the curved part of the boundary."""
    r, s, t = x.unbind(1)
    with torch.no_grad():
        # Both weights are positive between these ends; the gap changes its sign there.
        low, high = torch.full_like(r, -_LARGEST), torch.full_like(r, _LARGEST)
        primal_end, dual_end = 1 - s / _nonzero(r), r / _nonzero(s)
        low = torch.where(r > 0, torch.maximum(low, primal_end), low)
        high = torch.where(r < 0, torch.minimum(high, primal_end), high)
        high = torch.where(s > 0, torch.minimum(high, dual_end), high)
        low = torch.where(s < 0, torch.maximum(low, dual_end), low)
        low, high = low.clamp(-_LARGEST, _LARGEST), high.clamp(-_LARGEST, _LARGEST)
        # A wide end is far in the tail of an exponential, where Newton's method crawls: start at the inner one.
        start = torch.where(low.abs() < high.abs(), low, high)
        start = torch.where((low > -_LARGEST) & (high < _LARGEST), (low + high) / 2, start)
        ratio = _ratios(r, s, t, low, high, start)
    for _ in range(2):
        value, derivative = _gap(ratio, r, s, t)
        step = value / torch.where(derivative > 0, derivative, torch.inf)
        ratio = ratio - torch.where(step.abs() < 1, step, 0.0)
    primal, dual = _weights(ratio, r, s)
    # At large ratios exp(r) would magnify the rounding of the weight: there the third entry comes first.
    height = torch.where(ratio > 0, t + (-ratio.abs()).exp() * dual, primal * ratio.clamp(max=0).exp())
    primal = torch.where(ratio > 0, height * (-ratio.abs()).exp(), primal)
    return torch.stack([primal * ratio, primal, height], 1)
