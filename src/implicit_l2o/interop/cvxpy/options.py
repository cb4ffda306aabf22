"""The options of a CVXPY layer, checked."""

import math
from typing import Any, Literal

import implicit_l2o as il2o
from implicit_l2o._numba import require_numba
from implicit_l2o.interop.cvxpy.solve import Forward, ForwardSolver

OnFailure = Literal["warn", "raise", "ignore"]

_SOLVERS = ("auto", "batched", "splitting", "clarabel")
_OF_CVXPYLAYERS = ("DIFFCP", "SCS", "ECOS", "MOREAU")


def check_options_of_layer(
    backward: il2o.AbstractBackward, on_failure: OnFailure, tolerance: float, step: float, polish: int
) -> None:
    """Raise what is wrong with them."""
    if not isinstance(backward, il2o.Implicit | il2o.JFB | il2o.Neumann | il2o.Unrolled):
        raise TypeError(f"CvxpyLayer takes Implicit(), JFB(), Neumann(k) or Unrolled(k) as backward; got {backward!r}.")
    if isinstance(backward, il2o.Implicit) and isinstance(backward.solver, il2o.NormalCG):
        raise TypeError("CvxpyLayer takes Implicit() with GMRES or a fixed-point solver; got NormalCG.")
    if on_failure not in ("warn", "raise", "ignore"):
        raise ValueError(f'on_failure must be "warn", "raise" or "ignore"; got {on_failure!r}.')
    for name, value in (("tolerance", tolerance), ("step", step)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"CvxpyLayer needs a finite {name} > 0; got {name}={value}.")
    if not isinstance(polish, int) or polish < 0:
        raise ValueError(f"CvxpyLayer needs an integer polish >= 0; got polish={polish!r}.")


def solver_named(name: Any) -> ForwardSolver:
    """The solver of a name, those of cvxpylayers included."""
    name = "auto" if name is None or name in _OF_CVXPYLAYERS else name
    if not isinstance(name, str) or name.lower() not in _SOLVERS:
        raise ValueError(f"CvxpyLayer has the solvers {', '.join(_SOLVERS)}; got solver={name!r}.")
    return name.lower()  # pyright: ignore[reportReturnType]


def check_solver(forward: Forward, backward: il2o.AbstractBackward) -> None:
    """Raise where the solver is not installed, or does not go with the backward mode."""
    if isinstance(backward, il2o.Unrolled) and forward.solver not in ("auto", "splitting"):
        raise ValueError(
            f'CvxpyLayer: Unrolled(k) differentiates the splitting, so solver must be "auto" or "splitting"; got '
            f"solver={forward.solver!r}."
        )
    if forward.solver == "batched":
        require_numba('CvxpyLayer(solver="batched")')
