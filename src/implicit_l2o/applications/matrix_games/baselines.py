"""Payoff-Net: predict the payoffs, solve both players' conditions by Newton's method, differentiate them implicitly.

Ling, Fang and Kolter, "What game are we playing? End-to-end learning in normal and extensive form games" (IJCAI 2018),
equations 8 to 12, in batches. Our own `PayoffModel` eliminates one player; this keeps the system of both, as published.
"""

from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.matrix_games.model import payoff_network
from implicit_l2o.applications.matrix_games.task import AbstractGameTask
from implicit_l2o.data.matrix_games import antisymmetric
from implicit_l2o.training import Optimization

_MAX_STEPS = 100
_HALVINGS = 30
_BOUNDARY = 0.95  # of the way to the boundary of the positive orthant


@final
class PayoffNetTask(AbstractGameTask):
    """Payoffs through the optimality conditions of both players at once, with their exact derivative.

    Args:
        actions: of each player.
        hidden: of the payoff network; 0 for a linear one, the same as ours.
        loss: `"squared"`, as in the published comparison, or `"likelihood"`, as its authors train.
        tolerance: of Newton's method, on the Euclidean residual of the conditions.
        optimization: AdamW and its schedule.
    """

    def __init__(
        self,
        *,
        actions: int = 5,
        hidden: int = 0,
        loss: Literal["squared", "likelihood"] = "likelihood",
        tolerance: float = 1e-6,
        optimization: Optimization | None = None,
    ) -> None:
        model = _PayoffNet(payoff_network(actions, hidden), actions, tolerance)
        super().__init__(model, actions=actions, loss=loss, optimization=optimization)


class _PayoffNet(nn.Module):
    def __init__(self, network: nn.Module, actions: int, tolerance: float) -> None:
        super().__init__()
        self.network, self.actions, self.tolerance = network, actions, tolerance

    def forward(self, d: Float[Tensor, "B 3"]) -> il2o.Inference:
        """The equilibria of the predicted payoffs, with the residual of their conditions."""
        payoff = antisymmetric(self.network(d), self.actions)
        x, residual = _Equilibrium.apply(payoff, self.tolerance)  # pyright: ignore[reportGeneralTypeIssues]
        met = residual <= self.tolerance
        status = torch.where(met, int(il2o.Status.CONVERGED), int(il2o.Status.MAX_STEPS))
        return il2o.Inference(x=x, data=d, residual=residual, status=status)


class _Equilibrium(torch.autograd.Function):
    """`A -> (u, v)` with `log u + A v + mu = 0`, `A^T u - log v + nu = 0` and both sums 1."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Newton's method, the step cut at the boundary and halved until the residual falls."""
        n = A.shape[1]
        point = torch.cat([A.new_full((len(A), 2 * n), 1 / n), A.new_zeros(len(A), 2)], 1)
        residual = _conditions(A, point)
        for _ in range(_MAX_STEPS):
            size = residual.norm(dim=1)
            if bool((size <= tolerance).all()):
                break
            step = torch.linalg.solve(_matrix(A, point), -residual)
            shrink = (-step[:, : 2 * n] / point[:, : 2 * n]).amax(1)
            length = (_BOUNDARY / shrink.clamp_min(_BOUNDARY))[:, None]
            for _ in range(_HALVINGS):
                moved = point + length * step
                residual = _conditions(A, moved)
                worse = ~(residual.norm(dim=1) <= (1 - 1e-4 * length[:, 0]) * size) & (size > tolerance)
                if not bool(worse.any()):
                    break
                length = torch.where(worse[:, None], length / 2, length)
            point = point + length * step
            residual = _conditions(A, point)
        ctx.save_for_backward(A, point)
        size = residual.norm(dim=1)
        ctx.mark_non_differentiable(size)
        return point[:, : 2 * n], size

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One solve with the same matrix, which is symmetric: `dA = -(w_u v^T + u w_v^T)`."""
        A, point = ctx.saved_tensors
        n = A.shape[1]
        right = torch.cat([gradient, gradient.new_zeros(len(A), 2)], 1)
        w = -torch.linalg.solve(_matrix(A, point), right)
        u, v = point[:, :n], point[:, n : 2 * n]
        return w[:, :n, None] * v[:, None] + u[:, :, None] * w[:, None, n : 2 * n], None


def _conditions(A: Tensor, point: Tensor) -> Tensor:
    n = A.shape[1]
    u, v, shifts = point.split((n, n, 2), 1)
    pays, earns = (A @ v[..., None])[..., 0], (u[:, None] @ A)[:, 0]
    sums = torch.stack([u.sum(1) - 1, v.sum(1) - 1], 1)
    return torch.cat([u.log() + pays + shifts[:, :1], earns - v.log() + shifts[:, 1:], sums], 1)


def _matrix(A: Tensor, point: Tensor) -> Tensor:
    """The Jacobian of the conditions."""
    n = A.shape[1]
    u, v = point[:, :n], point[:, n : 2 * n]
    M = A.new_zeros(len(A), 2 * n + 2, 2 * n + 2)
    M[:, :n, n : 2 * n] = A
    M[:, n : 2 * n, :n] = A.mT
    M.diagonal(dim1=1, dim2=2)[:, : 2 * n] = torch.cat([1 / u, -1 / v], 1)
    for player in range(2):
        block = slice(player * n, (player + 1) * n)
        M[:, block, 2 * n + player] = 1
        M[:, 2 * n + player, block] = 1
    return M
