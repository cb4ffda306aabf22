"""Krasnoselskii-Mann iteration: `z <- (1 - r) z + r T(z)` (Krasnoselskii 1955, Mann 1953)."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.solvers.base import AbstractFixedPointSolver, State, Stopping, check_stopping


@dataclass(frozen=True)
class KrasnoselskiiMann(AbstractFixedPointSolver):
    """`z <- (1 - r) z + r T(z)` with relaxation `r`; Picard iteration at `r = 1`.

    Converges for `0 < r < 1/a` when `T` is `a`-averaged (Bauschke and Combettes 2017, proposition 5.16); `solve` checks
    that range for a splitting.

    Args:
        stopping: when to stop.
        relaxation: `r`, in (0, 2).

    Raises:
        ValueError: the relaxation is outside (0, 2).

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.fixed_point(lambda z: 0.5 * z + 1.0, torch.zeros(1, 2), solver=il2o.KrasnoselskiiMann()).z.round()
        tensor([[2., 2.]])
    """

    stopping: Stopping = field(default_factory=Stopping)
    relaxation: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        check_stopping(self.stopping)
        if not 0 < self.relaxation < 2:
            raise ValueError(f"KrasnoselskiiMann needs 0 < relaxation < 2; got relaxation={self.relaxation}.")

    def init(self, z0: Float[Tensor, "B *shape"]) -> State:
        """No state."""
        return ()

    def update(
        self, z: Float[Tensor, "B *shape"], Tz: Float[Tensor, "B *shape"], state: State
    ) -> tuple[Float[Tensor, "B *shape"], State]:
        """The relaxed step."""
        return (Tz if self.relaxation == 1.0 else torch.lerp(z, Tz, self.relaxation)), state
