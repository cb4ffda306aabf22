"""Halpern iteration, anchored and restarted (Halpern 1967; rate: Lieder 2021; restarts as in Applegate et al. 2023)."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.solvers.base import AbstractFixedPointSolver, Stopping, check_stopping


class _State(NamedTuple):
    anchor: Tensor  # (B, *shape) the point the iterates are pulled back to
    age: Tensor  # (B,) steps since the anchor was set
    residual: Tensor  # (B,) residual at the anchor


@dataclass(frozen=True)
class Halpern(AbstractFixedPointSolver):
    """`z <- anchor / (k + 2) + (1 - 1 / (k + 2)) T(z)`, `k` counted from the last restart.

    For nonexpansive `T` the residual falls like `O(1/k)` without a restart (Lieder 2021). With `restart=c` a sample's
    anchor moves to its current iterate whenever its residual has fallen by the factor `c`, which makes the convergence
    linear where the problem is sharp (linear and quadratic programs).

    Args:
        stopping: when to stop.
        restart: factor `c` in (0, 1), or None for the plain iteration.

    Raises:
        ValueError: the restart factor is outside (0, 1).

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> rotation = torch.tensor([[0.0, -1.0], [1.0, 0.0]])  # nonexpansive, so Picard would circle for ever
        >>> point = il2o.fixed_point(lambda z: z @ rotation, torch.ones(1, 2), solver=il2o.Halpern())
        >>> bool(point.converged)
        True
    """

    stopping: Stopping = field(default_factory=Stopping)
    restart: float | None = field(default=0.4, kw_only=True)
    relaxation: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        check_stopping(self.stopping)
        if self.restart is not None and not 0 < self.restart < 1:
            raise ValueError(f"Halpern needs 0 < restart < 1 (or None); got restart={self.restart}.")

    def init(self, z0: Float[Tensor, "B *shape"]) -> _State:
        """Anchor at the start."""
        zeros = z0.new_zeros(z0.shape[0])
        return _State(z0, zeros, zeros + torch.inf)

    def update(
        self, z: Float[Tensor, "B *shape"], Tz: Float[Tensor, "B *shape"], state: _State
    ) -> tuple[Float[Tensor, "B *shape"], _State]:
        """The anchored step; samples whose residual has fallen enough take `z` as their anchor first."""
        anchor, age, reference = state
        residual = _batch.norm(Tz - z)
        fresh = age == 0
        if self.restart is not None:
            fresh = fresh | (residual <= self.restart * reference)
        anchor = torch.where(_batch.expand(fresh, z), z, anchor)
        age = torch.where(fresh, 0.0, age)
        reference = torch.where(fresh, residual, reference)
        weight = _batch.expand(1.0 / (age + 2.0), z)
        return weight * anchor + (1.0 - weight) * Tz, _State(anchor, age + 1.0, reference)
