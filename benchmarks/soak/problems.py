"""Random problems whose solutions are known by construction: the optimality conditions are written down first.

For `min x.Q x / 2 + c.x` over a box and `A x = b` choose `x`, the multipliers `nu` of the equations, those of the active
bounds at least 0 and of the others 0; then `c = -(Q x + A^T nu + mu)` makes `x` a solution, exactly. A game adds a skew part
to `Q`. So the oracle costs nothing and is exact, and degenerate cases are a matter of which multipliers are zero.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

KINDS = (
    "strongly convex",
    "linear",
    "rank-deficient",
    "degenerate",
    "ill-scaled",
    "infeasible",
    "unbounded",
    "not a number",
)
SOLVABLE = 5  # the first so many kinds have a solution


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Problems of one size in float64, in random order of their kinds.

    Args:
        kind: `(B,)`, of `KINDS`.
        Q: `(B, n, n)`, symmetric positive semidefinite.
        skew: `(B, n/2, n/2)`, the game's matrix.
        A: `(m, n)`, shared.
        lower: `(B, n)`.
        upper: `(B, n)`.
        x: `(B, n)`, a solution with and without the equations; meaningless where there is none.
        nu: `(B, m)` multipliers of the equations.
        mu: `(B, n)` of the bounds, positive at the upper, negative at the lower one.
        b: `(B, m)`.
        modulus: `(B,)`, of strong convexity.
        slope: `(B,)`, of the descent along which an unbounded problem falls.
        unit: `(B,)`, the length in which the sample is written.
        cost: `(B,)`, its unit of cost.
    """

    kind: Tensor
    Q: Tensor
    skew: Tensor
    A: Tensor
    lower: Tensor
    upper: Tensor
    x: Tensor
    nu: Tensor
    mu: Tensor
    b: Tensor
    modulus: Tensor
    slope: Tensor
    unit: Tensor
    cost: Tensor

    def linear(self, *, equations: bool, game: bool) -> Tensor:
        """`c` of the problem with or without the equations and the skew part."""
        total = (self.Q @ self.x[..., None])[..., 0] + self.mu
        if game:
            total = total + turned(self.skew, self.x)
        if equations:
            total = total + self.nu @ self.A
        unbounded = (self.kind == KINDS.index("unbounded"))[:, None]
        broken = self.kind == KINDS.index("not a number")
        total = torch.where(unbounded, self.nu @ self.A if equations else 0.0, total)
        total[:, -2:] += torch.where(unbounded, self.slope[:, None] / 2**0.5, 0.0)
        total[broken, 0] = torch.nan
        return -total


def turned(skew: Tensor, x: Tensor) -> Tensor:
    """`(M v, -M^T u)` at `x = (u, v)`."""
    half = skew.shape[-1]
    u, v = x[:, :half, None], x[:, half:, None]
    return torch.cat([skew @ v, -skew.mT @ u], dim=1)[..., 0]


def draw(count: int, n: int, m: int, seed: int, *, doubled_row: bool, scaled_rows: bool) -> Batch:
    """`count` problems of `n` variables, an even number, and `m` equations.

    Args:
        count: problems.
        n: variables.
        m: equations, before one is doubled.
        seed: of the generator.
        doubled_row: the first equation stands there twice.
        scaled_rows: the equations are written in units from 1e-3 to 1e3.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, dtype=torch.float64)

    kind = torch.randint(len(KINDS), (count,), generator=random)
    infeasible, unbounded = (kind == KINDS.index(name) for name in ("infeasible", "unbounded"))
    A = normal(m, n)
    A[:, -1] = -A[:, -2]  # the last two variables may grow together
    if scaled_rows:
        A = A * 10 ** (6 * uniform(m, 1) - 3)
    if doubled_row:
        A = torch.cat([A, 2 * A[:1]])

    # Curvature: full rank, none, half rank.
    factor = normal(count, n, n) / n**0.5
    eigenvectors = torch.linalg.qr(factor).Q
    eigenvalues = 0.1 + uniform(count, n)
    eigenvalues[kind == KINDS.index("rank-deficient"), : n // 2] = 0.0
    eigenvalues[(kind == KINDS.index("linear")) | unbounded] = 0.0
    degenerate = kind == KINDS.index("degenerate")
    eigenvalues[degenerate & (uniform(count) < 0.5), 0] = 0.0

    # The solution: at a bound, or inside.
    place = torch.randint(3, (count, n), generator=random)  # lower, inside, upper
    lower, width = -uniform(count, n), 0.5 + uniform(count, n)
    fixed = degenerate[:, None] & (uniform(count, n) < 0.2)
    width = torch.where(fixed, 0.0, width)
    share = torch.where(place == 1, 0.2 + 0.6 * uniform(count, n), place / 2)
    x = lower + share * width
    upper = lower + width
    x = torch.where(place == 2, upper, x)
    force = uniform(count, n)
    force = torch.where(degenerate[:, None] & (uniform(count, n) < 0.7), 0.0, force)  # active, and nothing pushes
    mu = torch.where(place == 1, 0.0, force * (place - 1))

    # Where nothing bounds the last two variables the cost falls for ever.
    grows = unbounded[:, None] & (torch.arange(n) >= n - 2)
    upper = torch.where(grows, torch.inf, upper)

    nu = normal(count, len(A)) / torch.linalg.vector_norm(A, dim=1)
    skew = normal(count, n // 2, n // 2) / n**0.5
    skew[unbounded] = 0.0  # it would bend the way down

    # Units: a sample's lengths, and its costs.
    wild = (kind == KINDS.index("ill-scaled")) | (uniform(count) < 0.2)
    unit = torch.where(wild, 10 ** (12 * uniform(count) - 6), 1.0)
    cost = torch.where(wild, 10 ** (12 * uniform(count) - 6), 1.0)
    lower, upper, x = (part * unit[:, None] for part in (lower, upper, x))
    strength, force = cost / unit**2, cost / unit
    Q = eigenvectors @ torch.diag_embed(eigenvalues * strength[:, None]) @ eigenvectors.mT
    Q = (Q + Q.mT) / 2
    mu, nu = mu * force[:, None], nu * force[:, None]

    # No point of the box meets the equations: they are moved beyond its corner, by half the sample's unit or more.
    direction = nu @ A
    corner = torch.where(direction > 0, upper, lower)
    length = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
    beyond = corner + (0.5 + uniform(count, 1)) * unit[:, None] * direction / length
    b = torch.where(infeasible[:, None], beyond, x) @ A.mT
    return Batch(
        kind=kind,
        Q=Q,
        skew=skew * strength[:, None, None],
        A=A,
        lower=lower,
        upper=upper,
        x=x,
        nu=nu,
        mu=mu,
        b=b,
        modulus=eigenvalues.amin(1) * strength,
        slope=(0.5 + uniform(count)) * force,
        unit=unit,
        cost=cost,
    )
