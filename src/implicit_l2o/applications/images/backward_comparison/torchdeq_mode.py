"""TorchDEQ's forward and backward passes behind this library's interface, so that they train the same cell.

Source: Geng and Kolter, TorchDEQ: A Library for Deep Equilibrium Models (2023), release 0.1.0.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o


def missing() -> str | None:
    """Why TorchDEQ cannot be used here, or None if it can."""
    return None if find_spec("torchdeq") else "TorchDEQ is not installed: pip install --no-deps torchdeq==0.1.0"


@final
@dataclass(frozen=True, kw_only=True)
class TorchDEQ(il2o.AbstractBackward):
    """A fixed point solved and differentiated by TorchDEQ.

    Its solver stops when the largest residual of the batch is below the absolute tolerance of the solver that it stands
    for. The residual reported is the one that TorchDEQ saw, one application of `T` before the returned point.

    Args:
        steps: applications of `T` that carry the gradient: 1 is its "1-step gradient", more its "phantom gradient".
        implicit: solve the adjoint equation by TorchDEQ's solver instead.
        rtol: of the adjoint solve, relative to its solution; TorchDEQ's own default is absolute, 1e-6, and would depend
            on the scale of the loss.
        solver: TorchDEQ's name of the solver of both equations.

    Raises:
        ImportError: when run without TorchDEQ.
    """

    steps: int = 1
    implicit: bool = False
    rtol: float = 1e-6
    solver: Literal["fixed_point_iter", "anderson", "broyden"] = "fixed_point_iter"

    def run(
        self, T: Callable[[Tensor], Tensor], z0: Float[Tensor, "B *shape"], solver: il2o.AbstractFixedPointSolver
    ) -> il2o.FixedPoint:
        """Solve and attach by TorchDEQ."""
        atol, _ = solver.stopping.tolerances(z0.dtype)
        deq = _deq(self, atol, solver.stopping.max_steps)
        deq.train(torch.is_grad_enabled())  # it takes its gradients for a matter of training
        (z,), info = deq(T, z0)
        residual = info["abs_lowest"].detach().to(z.dtype).reshape(-1)
        met = residual <= atol
        return il2o.FixedPoint(
            z=z,
            last=z.detach(),
            status=torch.where(met, int(il2o.Status.CONVERGED), int(il2o.Status.MAX_STEPS)),
            residual=residual,
            steps=info["nstep"].detach().reshape(-1).long(),
            tolerance=torch.full_like(residual, atol),
        )


@functools.lru_cache(maxsize=32)
def _deq(mode: TorchDEQ, atol: float, max_steps: int) -> Any:
    from torchdeq import get_deq  # pyright: ignore[reportMissingImports]

    return get_deq(
        core="indexing",
        ift=mode.implicit,
        grad=mode.steps,
        f_solver=mode.solver,
        b_solver=mode.solver,
        f_tol=atol,
        f_max_iter=max_steps,
        b_tol=mode.rtol,
        b_stop_mode="rel",
        b_max_iter=max_steps,
    )
