"""Backpropagation through a fixed number of iterations (the seed's equation 2)."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from implicit_l2o import _batch
from implicit_l2o._solution import FixedPoint, Status, failed
from implicit_l2o.backward.base import AbstractBackward
from implicit_l2o.solvers.base import GROWTH, AbstractFixedPointSolver, Map, check_image, check_start


@dataclass(frozen=True)
class Unrolled(AbstractBackward):
    """Differentiate exactly `steps` applications of `T` from `z0`, whatever the solver's stopping rule says.

    Memory grows with the number of steps; `checkpoint=c` stores every `c`-th iterate only and recomputes the rest. The
    solver's tolerance decides the status alone. `z0` is differentiated too.

    Args:
        steps: applications of `T`, at least 1.
        checkpoint: segment length, or None to store every step.

    Raises:
        ValueError: a count is below 1.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> b = torch.ones(1, 1, requires_grad=True)
        >>> quiet = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1.0))
        >>> il2o.fixed_point(lambda z: 0.5 * z + b, torch.zeros(1, 1), solver=quiet, backward=il2o.Unrolled(2)).z.detach()
        tensor([[1.5000]])
    """

    steps: int
    checkpoint: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1) and not (name == "checkpoint" and value is None):
                raise ValueError(f"Unrolled needs an integer {name} >= 1; got {name}={value}.")

    def run(self, T: Map, z0: Float[Tensor, "B *shape"], solver: AbstractFixedPointSolver) -> FixedPoint:
        """Apply `T` `steps` times under autograd, then judge the result."""
        check_start(z0)
        last, z = self._unroll(T, z0)
        broken = ~_batch.finite(z.detach())
        if bool(broken.any()):
            z = self._without_broken(T, z0, broken)
        point = self._judge(T, z0, last, z, broken, solver)
        bad = failed(point.status)
        return point.with_z(torch.where(_batch.expand(bad, z), z.detach(), z)) if bool(bad.any()) else point

    def _unroll(self, T: Map, z0: Tensor) -> tuple[Tensor, Tensor]:
        """The iterates `z_{steps-1}` (detached) and `z_steps`."""
        if self.checkpoint is None or not torch.is_grad_enabled():
            return self._segment(T, z0, self.steps)
        last, z, left = z0, z0, self.steps
        while left > 0:
            length = min(self.checkpoint, left)
            last, z = checkpoint(self._segment, T, z, length, use_reentrant=False)  # pyright: ignore[reportGeneralTypeIssues]
            left -= length
        return last, z

    @staticmethod
    def _segment(T: Map, z: Tensor, length: int) -> tuple[Tensor, Tensor]:
        last = z
        for _ in range(length):
            last, z = z, T(z)
            check_image(last, z)
        return last.detach(), z

    def _without_broken(self, T: Map, z0: Tensor, broken: Tensor) -> Tensor:
        """The samples that stayed finite, recorded without the others; these return to where they started."""
        start = torch.where(_batch.expand(_batch.finite(z0), z0), z0, 0.0).detach()
        restrict = getattr(T, "restrict", None)
        if restrict is None:
            rows = _batch.expand(broken, z0)
            # Held at every step: a zero cotangent does not survive the derivative of a NaN further down.
            return self._unroll(lambda z: torch.where(rows, start, T(z)), torch.where(rows, start, z0))[1]
        good = (~broken).nonzero().squeeze(-1)
        if len(good) == 0:
            return start
        return start.index_copy(0, good, self._unroll(restrict(good), z0[good])[1])

    def _judge(
        self, T: Map, z0: Tensor, last: Tensor, z: Tensor, broken: Tensor, solver: AbstractFixedPointSolver
    ) -> FixedPoint:
        with torch.no_grad():
            point = z.detach()
            residual = torch.where(broken, torch.inf, _batch.norm(T(point) - point))
            tolerance = solver.stopping.permitted(T, point)
            status = torch.where(solver.stopping.met(T, point, residual), int(Status.CONVERGED), int(Status.MAX_STEPS))
            infeasible = getattr(T, "infeasible", None)
            if infeasible is not None and bool((status == Status.MAX_STEPS).any()):
                hopeless = (status == Status.MAX_STEPS) & ~broken & infeasible(point)
                status = torch.where(hopeless, int(Status.INFEASIBLE), status)
            diverged = _batch.norm(point) > GROWTH * _batch.norm(z0).clamp(min=1.0)
            status = torch.where(diverged, int(Status.DIVERGED), status)
            status = torch.where(broken | ~torch.isfinite(residual), int(Status.NONFINITE), status)
        return FixedPoint(
            z=z,
            last=torch.where(_batch.expand(broken, point), point, last),
            status=status,
            residual=residual,
            steps=torch.full_like(status, self.steps),
            tolerance=tolerance,
        )
