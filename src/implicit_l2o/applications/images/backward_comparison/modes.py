"""The backward modes of the comparison by the names of its tables."""

import time
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.images.backward_comparison.torchdeq_mode import TorchDEQ, missing

REFERENCE = "Implicit, GMRES"  # what the others are compared with: the exact gradient
EXPLICIT = "explicit twin"  # no fixed point: the latent map once, in training as in evaluation
_TORCHDEQ = "TorchDEQ, "


def backward_modes(*, rtol: float, unrolled: int) -> dict[str, il2o.AbstractBackward]:
    """Every mode, from the cheapest.

    Args:
        rtol: of the adjoint solves, relative to the cotangent.
        unrolled: applications of `T` that `Unrolled` differentiates.
    """
    return {
        "JFB": il2o.JFB(),
        **{f"Neumann({k})": il2o.Neumann(k) for k in (1, 2, 5, 10, 20)},
        REFERENCE: il2o.Implicit(il2o.GMRES(rtol=rtol)),
        "Implicit, CG": il2o.Implicit(il2o.NormalCG(rtol=rtol)),
        "Unrolled": il2o.Unrolled(unrolled),
        f"{_TORCHDEQ}1-step": TorchDEQ(),
        f"{_TORCHDEQ}phantom(5)": TorchDEQ(steps=5),
        f"{_TORCHDEQ}implicit": TorchDEQ(implicit=True, rtol=rtol),
        EXPLICIT: Explicit(),
    }


def absent(name: str) -> str | None:
    """Why a mode cannot run here, or None if it can."""
    return missing() if name.startswith(_TORCHDEQ) else None


@final
class Explicit(il2o.AbstractBackward):
    """The explicit network of the same weights: `T` applied once to the start, and differentiated."""

    def run(
        self, T: Callable[[Tensor], Tensor], z0: Float[Tensor, "B *shape"], solver: il2o.AbstractFixedPointSolver
    ) -> il2o.FixedPoint:
        """Apply the map once; nothing is solved, so nothing is unsolved."""
        z = T(z0)
        none = z.new_zeros(len(z)).detach()
        status, steps = (torch.full_like(none, value, dtype=torch.long) for value in (int(il2o.Status.CONVERGED), 1))
        return il2o.FixedPoint(z=z, last=z0, status=status, residual=none, steps=steps, tolerance=none)


@final
class Watched(il2o.AbstractBackward):
    """Another mode, whose last fixed point is kept, and whose solves are timed.

    Args:
        mode: does the work.
    """

    def __init__(self, mode: il2o.AbstractBackward) -> None:
        self.mode = mode
        self.point: il2o.FixedPoint | None = None
        self.seconds = 0.0  # processor time of the forward solves

    def run(
        self, T: Callable[[Tensor], Tensor], z0: Float[Tensor, "B *shape"], solver: il2o.AbstractFixedPointSolver
    ) -> il2o.FixedPoint:
        """Run the mode."""
        began = time.process_time()
        self.point = self.mode.run(T, z0, solver)
        self.seconds += time.process_time() - began
        return self.point
