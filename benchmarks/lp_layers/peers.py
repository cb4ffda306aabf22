"""The peers: each makes, for a row and a rung of its ladder, a differentiable map from costs to solutions.

A ladder begins with the loosest tolerance; those of the interior-point methods begin where none of them is accurate yet.
Where a peer has several methods, each has a ladder of its own, and the fastest accurate method is what the table shows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch
from torch import Tensor

import implicit_l2o as il2o
from benchmarks.lp_layers.problems import Row

Solve = Callable[[Tensor], Tensor]  # costs `(B, n)` to solutions `(B, n)`, differentiable
Make = Callable[[Row, float, float], Solve]  # of a row, gamma and a tolerance


def decades(first: int, last: int) -> tuple[float, ...]:
    """`10^-first, ..., 10^-last`."""
    return tuple(10.0**-k for k in range(first, last + 1))


class Skip(Exception):
    """This peer does not take part in this row; the message says why."""


@dataclass(frozen=True, eq=False)
class Method:
    """One way to solve, with its ladder of tolerances from the loosest on."""

    name: str
    make: Make
    ladder: Sequence[float] = decades(3, 12)


@dataclass(frozen=True, eq=False)
class Peer:
    """What the table has a column for.

    Attributes:
        name: of the column.
        methods: the ways it has; the fastest accurate one counts.
        exact: whether the backward pass is meant to be the derivative; JFB is not.
        dtype: of the costs it is given.
        ours: whether it is this library.
        large: whether it takes part in the rows of `problems.LARGE`.
    """

    name: str
    methods: Sequence[Method]
    exact: bool = True
    dtype: torch.dtype = torch.float64
    ours: bool = False
    large: bool = False


def layer(max_steps: int, **options: Any) -> Make:
    """`LPLayer` with these options beside `gamma` and `tolerance`."""

    def make(row: Row, gamma: float, tolerance: float) -> Solve:
        solve = il2o.LPLayer(row.program(), gamma=gamma, tolerance=tolerance, max_steps=max_steps, **options)
        return lambda cost: solve(cost).x

    return make


def clarabel_layer(row: Row, gamma: float, tolerance: float) -> Solve:
    """cvxpylayers, which solves a sample at a time by Clarabel and differentiates by diffcp."""
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    x, cost = cp.Variable(row.n), cp.Parameter(row.n)
    limits: list[Any] = [] if row.A_eq is None else [row.A_eq @ x == row.b_eq]
    limits += [] if row.A_ub is None else [row.A_ub @ x <= row.b_ub]
    below, above = np.isfinite(row.lower), np.isfinite(row.upper)
    limits += [x[below] >= row.lower[below]] if below.any() else []
    limits += [x[above] <= row.upper[above]] if above.any() else []
    problem = cp.Problem(cp.Minimize(cost @ x + gamma / 2 * cp.sum_squares(x)), limits)
    options: dict[str, Any] = {f"tol_{kind}": tolerance for kind in ("gap_abs", "gap_rel", "feas")}
    options |= {"solve_method": "Clarabel", "n_jobs_forward": 1, "n_jobs_backward": 1}
    made = CvxpyLayer(problem, parameters=[cost], variables=[x], solver_args=options)
    return lambda costs: made(costs)[0]


def independent(row: Row) -> tuple[Any, Any]:
    """Equations none of which follows from the others, with the same solutions; None for none."""
    if row.A_eq is None or row.b_eq is None:
        return None, None
    _, triangle, order = scipy.linalg.qr(row.A_eq.toarray().T, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(triangle))
    keep = np.sort(order[: int((diagonal > 1e-10 * diagonal[0]).sum())])
    return row.A_eq[keep], row.b_eq[keep]


MOREAU_ACTIVE_SET = 500  # variables, up to which its setting "auto" takes the active-set method


def moreau(kind: str) -> Make:
    """Moreau by its own interface; through cvxpylayers it drops bounds without a word.

    Its active-set method answers wrongly where equations depend on each other, so it is given independent ones; it is tried
    up to 500 variables, as Moreau itself does.
    """

    def make(row: Row, gamma: float, tolerance: float) -> Solve:
        if kind == "active_set" and row.n > MOREAU_ACTIVE_SET:
            raise Skip(f"its active-set method is for {MOREAU_ACTIVE_SET} variables at most")
        import moreau
        from moreau.torch import Solver

        identity = sp.eye_array(row.n, format="csr")
        below, above = np.isfinite(row.lower), np.isfinite(row.upper)
        A_eq, b_eq = (row.A_eq, row.b_eq) if kind == "ipm" else independent(row)
        blocks = [A_eq, row.A_ub, -identity[below], identity[above]]
        sides = [b_eq, row.b_ub, -row.lower[below], row.upper[above]]
        A = sp.vstack([block for block in blocks if block is not None and block.shape[0]]).tocsr()
        b = torch.from_numpy(np.concatenate([side for side in sides if side is not None]))
        equations = 0 if A_eq is None else A_eq.shape[0]
        cones = moreau.Cones(num_zero_cones=equations, num_nonneg_cones=len(b) - equations)
        own: dict[str, Any] = (
            {"ipm_settings": moreau.IPMSettings(tol_gap_abs=tolerance, tol_gap_rel=tolerance, tol_feas=tolerance)}
            if kind == "ipm"
            else {"active_set_settings": moreau.ActiveSetSettings(primal_tol=tolerance)}
        )
        settings = moreau.Settings(solver=kind, device="cpu", batch_size=len(row.cost), enable_grad=True, **own)
        offsets = (torch.from_numpy(index.astype(np.int64)) for index in (A.indptr, A.indices))
        column = torch.arange(row.n + 1)
        solver = Solver(row.n, len(b), column, column[:-1], *offsets, cones, settings)
        P, values, limits = torch.full((row.n,), gamma, dtype=torch.float64), torch.from_numpy(A.data), b
        return lambda costs: solver.solve(P, values, costs, limits.expand(len(costs), -1)).x

    return make


QPTH_LARGEST = 200  # variables, or inequalities with bounds: beyond it a dense solve of the batch takes many seconds


def qpth(row: Row, gamma: float, tolerance: float) -> Solve:
    """qpth, dense; it needs linearly independent equations, so those that follow from the others are left out."""
    below, above = np.isfinite(row.lower), np.isfinite(row.upper)
    count = int(below.sum() + above.sum()) + (0 if row.A_ub is None else row.A_ub.shape[0])
    if max(row.n, count) > QPTH_LARGEST:
        raise Skip(f"dense, and {row.n} variables or {count} inequalities are more than {QPTH_LARGEST}")
    from qpth.qp import QPFunction

    identity = np.eye(row.n)
    none = np.zeros((0, row.n))
    G = np.concatenate([none if row.A_ub is None else row.A_ub.toarray(), -identity[below], identity[above]])
    h = np.concatenate([[] if row.b_ub is None else row.b_ub, -row.lower[below], row.upper[above]])
    A, b = torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    A_eq, b_eq = independent(row)
    if A_eq is not None:
        A, b = torch.from_numpy(A_eq.toarray()), torch.from_numpy(b_eq)
    Q = gamma * torch.eye(row.n, dtype=torch.float64)
    solve = QPFunction(eps=tolerance, verbose=-1, maxIter=50)
    G_, h_ = torch.from_numpy(G), torch.from_numpy(h)
    return lambda costs: solve(Q, costs, G_, h_, A, b)


DOUBLE, SINGLE = decades(3, 9), decades(2, 6)


def ours(name: str, options: Mapping[str, Any], *, exact: bool, single: bool, large: bool) -> list[Peer]:
    """`LPLayer` with these options in float64, and in float32 where that is asked for."""
    peers = [Peer(name, [Method("LPLayer", layer(20_000, **options), DOUBLE)], exact, ours=True, large=large)]
    if single:  # more iterations do not help where rounding stops it
        method = Method("LPLayer", layer(2_000, **options), SINGLE)
        peers.append(Peer(f"{name} f32", [method], exact, torch.float32, ours=True, large=large))
    return peers


_JFB, _EXACT = {"backward": il2o.JFB()}, {"backward": il2o.Implicit()}
_POLISH = {"polish": True}  # needs numba
OURS = [
    *ours("JFB", _JFB, exact=False, single=True, large=True),
    *ours("exact", _EXACT, exact=True, single=False, large=False),
    *ours("JFB, polished", _JFB | _POLISH, exact=False, single=True, large=True),
    *ours("exact, polished", _EXACT | _POLISH, exact=True, single=True, large=True),
]
OTHERS = [
    Peer(
        "Moreau",
        [
            Method("interior point", moreau("ipm"), decades(5, 12)),
            Method("active set", moreau("active_set"), (1e-6, 1e-9)),
        ],
    ),
    Peer("cvxpylayers", [Method("Clarabel", clarabel_layer, decades(7, 12))]),
    Peer("qpth", [Method("interior point", qpth, decades(5, 12))]),
]
PEERS: Mapping[str, Peer] = {peer.name: peer for peer in (*OURS, *OTHERS)}
