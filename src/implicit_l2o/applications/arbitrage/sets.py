"""The lifted feasible sets of a trade, and their projections: batched, differentiable, without a factorisation.

A trade is lifted to `xi = (v, x, y, z)`, each with an entry for every place of the network, in units of the reserves seen
there: `x` is tendered, `y` received, `v = fee x - y` what counts, and `z <= ln(1 + v)` the logarithm of what a geometric
pool then holds. The constraints of all pools are the intersection of two sets whose projections are elementwise or per pool.

Source: H. Heaton and S. Wu Fung, Explainable AI via Learning to Optimize (Scientific Reports, 2023), appendix on
cryptoasset trading. There the unit is a token, so that `v` and `z` differ in size by the reserves, and the splitting is
slow.
"""

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import implicit_l2o as il2o

_NEWTON_STEPS = 60  # a handful is usual; far outside, each step takes a factor e off


def project_log(
    q: Float[Tensor, "*shape"], z: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """The nearest point of `{(q, z): z <= ln q}`, elementwise.

    Outside the set the nearest point is `(e^s, s)` with `G(s) = e^s (e^s - q) + s - z = 0`. Right of the root `G` is
    increasing and convex, so Newton's method from an upper bound descends to it monotonically: that is the safeguard. The
    bound is the smaller of `z` and, for a root above 0, `ln((q + sqrt(q^2 + 4 z)) / 2)`.

    Derivatives are those of two more Newton steps, which have the exact first and second ones.

    Args:
        q: what the logarithm is taken of (`v + d`); may be negative.
        z: at most the logarithm.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.arbitrage.sets import project_log
        >>> q, z = project_log(torch.tensor([-1.0, 2.0]).double(), torch.tensor([0.0, 0.0]).double())
        >>> q.log() - z, q[1]
        (tensor([0.0000, 0.6931], dtype=torch.float64), tensor(2., dtype=torch.float64))
    """
    with torch.no_grad():
        inside = (q > 0) & (z <= q.clamp_min(torch.finfo(q.dtype).tiny).log())
        positive = z.clamp_min(0)
        above = (q + (q.square() + 4 * positive).sqrt()) / 2
        s = torch.minimum(z, above.clamp_min(1.0).log())
        s = torch.where(inside, 0.0, s)
        for _ in range(_NEWTON_STEPS):
            step = torch.where(inside, 0.0, _newton_step(s, q, z))
            s = s - step
            # Convergence is quadratic: after a step of this size the error is below rounding.
            if not bool((step.abs() > torch.finfo(q.dtype).eps ** 0.5 * (1 + s.abs())).any()):
                break
    if torch.is_grad_enabled() and (q.requires_grad or z.requires_grad):
        # Inside, harmless numbers: a `where` passes the gradient of what it leaves out, times zero.
        q_out, z_out = torch.where(inside, 1.0, q), torch.where(inside, 0.0, z)
        for _ in range(2):
            s = s - _newton_step(s, q_out, z_out)
    return torch.where(inside, q, s.exp()), torch.where(inside, z, s)


def _newton_step(s: Tensor, q: Tensor, z: Tensor) -> Tensor:
    e = s.exp()
    return (e * (e - q) + s - z) / (e * (2 * e - q) + 1)


@final
@dataclass(frozen=True, eq=False)
class Structure:
    """What of a network the sets need, in the dtype and on the device of the iterates; made once.

    Args:
        membership: `(J, L)` 1 where a place belongs to a pool.
        geometric: `(J,)` which pools are geometric.
        weights: `(L,)` of the means.
        fees: `(L,)` the share of a tendered amount that counts.
    """

    membership: Float[Tensor, "J L"]
    geometric: Bool[Tensor, " J"]
    weights: Float[Tensor, " L"]
    fees: Float[Tensor, " L"]

    @property
    def at_geometric(self) -> Bool[Tensor, " L"]:
        """Which places are in a geometric pool."""
        return (self.membership.mT @ self.geometric.to(self.membership.dtype)) > 0.5

    def by_pool(self, value: Float[Tensor, "*B L"]) -> Float[Tensor, "*B J"]:
        """Sums over the places of each pool."""
        return value @ self.membership.mT

    def by_place(self, value: Float[Tensor, "*B J"]) -> Float[Tensor, "*B L"]:
        """Each place gets the value of its pool."""
        return value @ self.membership


@final
@dataclass(frozen=True, eq=False)
class PoolLimits(il2o.AbstractSet):
    """`{xi: x >= 0, 0 <= y <= 1 - slack, z <= ln(1 + v) at geometric pools, <w d, v> >= slack <w, d> at arithmetic ones}`.

    What is received is bounded because a pool cannot pay out more than it holds; the published sets bound it by the
    logarithm alone.

    Args:
        structure: of the network.
        reserves: `d`, `(B, L)` as observed.
        slack: `(J,)` or `(B, J)`, at least 0: by how much a mean has to rise, and the share of the reserves that is left.
    """

    structure: Structure
    reserves: Float[Tensor, "B L"] = field(metadata=il2o.DATA)
    slack: Float[Tensor, "*B J"] = field(metadata=il2o.DATA)

    def project(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
        """The nearest point."""
        v, tendered, received, z = x.chunk(4, dim=1)
        s = self.structure
        most = 1.0 - s.by_place(self.slack)
        # The half-spaces of the arithmetic pools.
        normal = s.weights * self.reserves
        normal = normal / s.by_place(s.by_pool(normal.square()).sqrt())
        short = s.by_place((self.slack * s.by_pool(normal) - s.by_pool(normal * v)).clamp_min(0)) * normal
        geometric = s.at_geometric
        q, under = project_log(torch.where(geometric, 1.0 + v, 1.0), torch.where(geometric, z, 0.0))
        v = torch.where(geometric, q - 1.0, v + short)
        z = torch.where(geometric, under, z)
        return torch.cat([v, tendered.clamp_min(0), torch.minimum(received.clamp_min(0), most), z], dim=1)


@final
@dataclass(frozen=True, eq=False)
class TradeBalance(il2o.AbstractSet):
    """`{xi: v = fee x - y, <w, z> = sum(w) ln(1 + slack) at geometric pools}`: a subspace and hyperplanes.

    The subspace is elementwise, so its factorisation is a division by `2 + fee^2`.

    Args:
        structure: of the network.
        slack: `(J,)` or `(B, J)`.
    """

    structure: Structure
    slack: Float[Tensor, "*B J"] = field(metadata=il2o.DATA)

    def project(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
        """The nearest point."""
        v, tendered, received, z = x.chunk(4, dim=1)
        s = self.structure
        off = (v - s.fees * tendered + received) / (2.0 + s.fees.square())
        level = s.by_pool(s.weights) * torch.log1p(self.slack)
        gap = (level - s.by_pool(s.weights * z)) / s.by_pool(s.weights.square()) * s.geometric
        z = z + s.by_place(gap) * s.weights
        return torch.cat([v - off, tendered + s.fees * off, received - off, z], dim=1)


@final
@dataclass(frozen=True, eq=False)
class LostUtility(il2o.AbstractSmooth):
    """`(<p d, x - y> + |W (d (x - y))|^2 / 2) / unit`: what a trade costs net of what it brings, with the learned risk.

    Args:
        prices: `p`, `(L,)` by place.
        reserves: `d`, `(B, L)`.
        W: `(L, L)` shared or `(B, L, L)`.
        unit: `(B,)` the value that the utility is measured in; it changes the scale of the iteration alone.
    """

    prices: Float[Tensor, " L"]
    reserves: Float[Tensor, "B L"] = field(metadata=il2o.DATA)
    W: Float[Tensor, "*B L L"] = field(metadata=il2o.MATRIX)
    unit: Float[Tensor, " B"] = field(metadata=il2o.SCALAR)

    @property
    def lipschitz(self) -> Float[Tensor, " B"]:
        """`2 |W diag(d)|^2 / unit`, exactly; the 2 is that of `x - y`."""
        scaled = self.W.detach() * self.reserves[:, None, :]
        return 2.0 * torch.linalg.matrix_norm(scaled, ord=2).square() / self.unit

    def apply(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
        """The gradient."""
        v, tendered, received, z = x.chunk(4, dim=1)
        paid = self.reserves * (tendered - received)
        risk = _times(self.W, paid)
        slope = self.reserves * (self.prices + _times(self.W.mT, risk)) / self.unit[:, None]
        return torch.cat([torch.zeros_like(v), slope, -slope, torch.zeros_like(z)], dim=1)

    def value(self, x: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
        """The loss of utility, in units."""
        _, tendered, received, _ = x.chunk(4, dim=1)
        paid = self.reserves * (tendered - received)
        return ((self.prices * paid).sum(1) + 0.5 * _times(self.W, paid).square().sum(1)) / self.unit


def _times(matrix: Float[Tensor, "*B L L"], x: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    return x @ matrix.mT if matrix.ndim == 2 else (matrix @ x[:, :, None])[:, :, 0]
