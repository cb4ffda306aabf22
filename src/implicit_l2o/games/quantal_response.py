"""The exact quantal response equilibrium of zero-sum matrix games, by a safeguarded Newton method, in batches.

McKelvey and Palfrey, Quantal response equilibria for normal form games (1995); Ling, Fang and Kolter (2018) solve the
same equations in both players at once. Here one player is eliminated, which makes the problem convex.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

_HALVINGS = 40
_DECREASE = 1e-4  # Armijo's constant


@final
@dataclass(frozen=True, eq=False)
class QuantalResponse:
    """An equilibrium and how exact it is.

    Args:
        u: strategy of the player who pays, `(B, m)`.
        v: strategy of the one who earns, `(B, n)`.
        residual: Euclidean distance of `(u, v)` to the players' responses to each other, `(B,)`.
        steps: Newton steps of each sample.
    """

    u: Float[Tensor, "B m"]
    v: Float[Tensor, "B n"]
    residual: Float[Tensor, " B"]
    steps: Int[Tensor, " B"]

    @property
    def x(self) -> Float[Tensor, "B m_plus_n"]:
        """Both strategies joined, as `BilinearGame` takes them."""
        return torch.cat([self.u, self.v], -1)


@torch.no_grad()
def quantal_response_equilibrium(
    payoff: Float[Tensor, "B m n"],
    *,
    temperature: float = 1.0,
    tolerance: float = 1e-10,
    max_steps: int = 100,
    start: Float[Tensor, "B m"] | None = None,
) -> QuantalResponse:
    """The `(u, v)` with `u = softmax(-A v / t)`, `v = softmax(A^T u / t)`: the one equilibrium of the game with entropy.

    `v` is eliminated: `u` minimises `p(u) = t log sum_j exp((A^T u)_j / t) + t sum_i u_i log u_i` on the simplex, strongly
    convex. With logits `y`, `u = softmax(y)`, and `r = -A v / t - y`, Newton's step is
    `(I + A D_v A^T D_u / t^2)^{-1} r`, `D_p = diag(p) - p p^T`. It is a direction of descent, since the derivative of `p`
    along it is `-t r^T (D_u - D_u A D_v A^T D_u / t^2 + ...) r < 0`, and the step is halved until `p` falls enough. Near the
    solution, where rounding hides what `p` does, full steps are taken.

    Args:
        payoff: `A`, what the first player pays the second, `(B, m, n)`, float64 for the default tolerance.
        temperature: `t > 0`; equilibria become those of the game without entropy as it falls.
        tolerance: on the residual.
        max_steps: of a sample.
        start: logits of `u`; None starts at the uniform strategy.

    Raises:
        ValueError: the payoff is not `(B, m, n)`, or an option is out of its range.

    Example:
        >>> import torch
        >>> from implicit_l2o.games import quantal_response_equilibrium
        >>> rock_paper_scissors = torch.tensor([[[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]]]).double()
        >>> answer = quantal_response_equilibrium(rock_paper_scissors)
        >>> answer.u.round(decimals=4), bool(answer.residual < 1e-10)
        (tensor([[0.3333, 0.3333, 0.3333]], dtype=torch.float64), True)
    """
    if payoff.ndim != 3 or 0 in payoff.shape[1:]:
        raise ValueError(f"payoff must be (B, m, n) with m, n >= 1; got {tuple(payoff.shape)}.")
    for name, value in (("temperature", temperature), ("tolerance", tolerance)):
        if not 0 < value < math.inf:
            raise ValueError(f"quantal_response_equilibrium needs 0 < {name} < inf; got {name}={value}.")
    if max_steps < 1:
        raise ValueError(f"quantal_response_equilibrium needs max_steps >= 1; got max_steps={max_steps}.")
    m, n = payoff.shape[1:]
    if m > n and start is None:  # eliminate the player with more actions: the equations are those of the other
        swapped = quantal_response_equilibrium(
            -payoff.mT, temperature=temperature, tolerance=tolerance, max_steps=max_steps
        )
        return QuantalResponse(swapped.v, swapped.u, swapped.residual, swapped.steps)
    A = payoff / temperature
    y = payoff.new_zeros(len(payoff), m) if start is None else start - start.mean(-1, keepdim=True)
    residual = payoff.new_full((len(payoff),), math.inf)
    steps = torch.zeros(len(payoff), dtype=torch.int64, device=payoff.device)
    index = torch.arange(len(payoff), device=payoff.device)  # samples still iterating
    for step in range(max_steps + 1):
        here = y[index]
        u, v, lacking = _state(A[index], here)
        found = (u - (here + lacking).softmax(-1)).norm(dim=-1)
        residual[index] = found
        left = ~(found <= tolerance) & torch.isfinite(found)
        if step == max_steps or not bool(left.any()):
            break
        index = index[left]
        y[index] = _step(A[index], here[left], u[left], v[left], lacking[left])
        steps[index] += 1
    u, v, _ = _state(A, y)
    return QuantalResponse(u, v, residual, steps)


def _state(A: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`u`, the answer `v` to it, and what the logits of `u` lack to be the answer to that."""
    u = y.softmax(-1)
    v = (u[:, None] @ A)[:, 0].softmax(-1)
    response = -(A @ v[..., None])[..., 0]
    lacking = response - y
    return u, v, lacking - (u * lacking).sum(-1, keepdim=True)


def _potential(A: Tensor, y: Tensor) -> Tensor:
    """`p(u) / t`."""
    log_u = y.log_softmax(-1)
    u = log_u.exp()
    return torch.logsumexp((u[:, None] @ A)[:, 0], -1) + (u * log_u).sum(-1)


def _step(A: Tensor, y: Tensor, u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    """The logits after one Newton step, halved until the potential falls by Armijo's rule or no longer can."""
    left = A * v[:, None] - (A @ v[..., None]) * v[:, None]  # A D_v
    inner = left @ A.mT
    matrix = inner * u[:, None] - (inner @ u[..., None]) * u[:, None]  # A D_v A^T D_u
    matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
    direction = torch.linalg.solve(matrix, r)
    direction = direction - direction.mean(-1, keepdim=True)
    slope = -(u * r * (direction - (u * direction).sum(-1, keepdim=True))).sum(-1)
    before = _potential(A, y)
    noise = 64 * torch.finfo(y.dtype).eps * (1 + before.abs())
    length = torch.ones_like(before)
    for _ in range(_HALVINGS):
        moved = y + length[:, None] * direction
        enough = _potential(A, moved) <= before + _DECREASE * length * slope + noise
        if bool(enough.all()):
            break
        length = torch.where(enough, length, length / 2)
    return y + length[:, None] * direction
