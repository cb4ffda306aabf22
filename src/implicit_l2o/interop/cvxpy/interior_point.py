"""Clarabel on a batch of cone programs, one thread a sample."""

import importlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.program import ConePrograms

_LARGE = 1e3  # of entries of q and b, above which they are scaled

_STATUS = {
    "Solved": il2o.Status.CONVERGED,
    "AlmostSolved": il2o.Status.MAX_STEPS,
    "PrimalInfeasible": il2o.Status.INFEASIBLE,
    "AlmostPrimalInfeasible": il2o.Status.INFEASIBLE,
    "DualInfeasible": il2o.Status.DIVERGED,
    "AlmostDualInfeasible": il2o.Status.DIVERGED,
}


@dataclass(frozen=True, eq=False)
class Points:
    """Primal and dual points of a batch, `w = s - y` of slacks and multipliers, and how they came about."""

    x: Float[np.ndarray, "B n"]
    w: Float[np.ndarray, "B m"]
    status: np.ndarray
    steps: np.ndarray

    def take(self, index: np.ndarray) -> "Points":
        """Some of the samples, with zeros where a number is missing."""
        x, w = (np.where(np.isfinite(part[index]), part[index], 0.0) for part in (self.x, self.w))
        return Points(x, w, self.status[index], self.steps[index])


def solve_by_clarabel(programs: ConePrograms, options: dict[str, Any], workers: int | None) -> Points:
    """The solutions by an interior-point method.

    Args:
        programs: all finite.
        options: settings of Clarabel by their names.
        workers: threads; None takes as many as PyTorch uses.

    Raises:
        TypeError: Clarabel has no such setting, or not of this type.
    """
    settings = _settings(options)
    cones = _cones(programs.cones)

    def one(sample: int) -> tuple[np.ndarray, np.ndarray, int, int]:
        P, A, q, b = programs.quadratic(sample, upper=True), programs.A(sample), programs.q[sample], programs.b[sample]
        # Solutions grow with q and b. Where these are large, Clarabel's tests call feasible problems infeasible.
        size = max(np.abs(q).max(initial=0.0), np.abs(b).max(initial=0.0))
        unit = size if size > _LARGE else 1.0
        solution = _clarabel().DefaultSolver(P, q / unit, A, b / unit, cones, settings).solve()
        status = _STATUS.get(str(solution.status), il2o.Status.MAX_STEPS)
        x, w = unit * np.array(solution.x), unit * (np.array(solution.s) - np.array(solution.z))
        return x, w, int(status), int(solution.iterations)

    workers = torch.get_num_threads() if workers is None else workers
    if workers > 1 and len(programs) > 1:
        with ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(one, range(len(programs))))
    else:
        found = [one(sample) for sample in range(len(programs))]
    n, m = programs.canonical.n, programs.canonical.m
    x = np.stack([part[0] for part in found]) if found else np.zeros((0, n))
    w = np.stack([part[1] for part in found]) if found else np.zeros((0, m))
    return Points(x, w, np.array([p[2] for p in found], dtype=int), np.array([p[3] for p in found], dtype=int))


def _clarabel() -> Any:
    """Clarabel, which is in an extra: type checkers do not know it."""
    return importlib.import_module("clarabel")


# Names of SCS, ECOS, Moreau and diffcp in code for cvxpylayers: tolerances and a limit mean the same in Clarabel ...
_TOLERANCES = ("tol", "eps", "eps_abs", "eps_rel", "abstol", "reltol", "feastol")
_LIMITS = ("max_iters",)
# ... and these choose how those solvers go about it, which cannot be told from a polished answer.
_OTHERS = {
    *("solve_method", "mode", "acceleration_lookback", "acceleration_interval", "use_indirect", "normalize", "alpha"),
    *(
        "auto_tune",
        "eps_infeas",
        "raise_on_error",
        "scale",
        "rho_x",
        "adaptive_scale",
        "warm_starts",
        "n_jobs_forward",
        "n_jobs_backward",
        "time_limit_secs",
    ),
    *("derivative_mode", "lsqr_iterations"),
}


def _translated(options: dict[str, Any]) -> dict[str, Any]:
    """Clarabel's settings from those that code for cvxpylayers has for its solvers."""
    out: dict[str, Any] = {}
    for name, value in options.items():
        if name in _TOLERANCES:
            # Looser than Clarabel's own would only leave more to the polish.
            for own in ("tol_gap_abs", "tol_gap_rel", "tol_feas"):
                out[own] = min(out.get(own, 1e-8), float(value))
        elif name in _LIMITS:
            out["max_iter"] = max(int(value), 200)  # a limit of first-order steps, of which one does less
        elif name not in _OTHERS:
            out[name] = value
    return out


def check_options(options: dict[str, Any]) -> None:
    """Raise what Clarabel's settings would, where it may not be asked."""
    if options:
        _settings(options)


def _settings(options: dict[str, Any]) -> Any:
    settings = _clarabel().DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    options = _translated(options)
    known = [name for name in dir(settings) if not name.startswith("_") and name != "default"]
    for name, value in options.items():
        if name not in known:
            raise TypeError(f"Clarabel: unrecognized solver setting '{name}'; it has {', '.join(known)}.")
        try:
            setattr(settings, name, value)
        except TypeError as error:
            raise TypeError(f"Clarabel: incorrect type for setting '{name}': {value!r}.") from error
    return settings


def _cones(product: il2o.ConeProduct) -> list[Any]:
    clarabel = _clarabel()
    cones: list[Any] = []
    if product.zero:
        cones.append(clarabel.ZeroConeT(product.zero))
    if product.nonnegative:
        cones.append(clarabel.NonnegativeConeT(product.nonnegative))
    cones += [clarabel.SecondOrderConeT(size) for size in product.second_order]
    cones += [clarabel.PSDTriangleConeT(size) for size in product.semidefinite]
    cones += [clarabel.ExponentialConeT() for _ in range(product.exponential)]
    cones += [clarabel.PowerConeT(alpha) for alpha in product.power]
    return cones
