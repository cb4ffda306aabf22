"""Whether an answer that calls itself converged is what its tolerance promises."""

from typing import NamedTuple

import torch
from torch import Tensor

import implicit_l2o as il2o
from benchmarks.soak.methods import Method
from benchmarks.soak.problems import KINDS, SOLVABLE, Batch, turned

SLACK = 3.0  # beyond the theory's bound
ROUNDING = 4.0  # times the rounding of a sum of so many terms


class Verdict(NamedTuple):
    """Of every sample.

    Args:
        wrong: it converged, and is not what its tolerance promises.
        excess: the largest share of a bound that it takes; above `SLACK` it is wrong, 0 where it did not converge.
    """

    wrong: Tensor
    excess: Tensor


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1)


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x[..., None])[..., 0]


def judge(batch: Batch, method: Method, splitting: il2o.AbstractSplitting, solution: il2o.Solution) -> Verdict:
    """Compare the answers with the known solutions, in float64.

    With `e = force tol` and `d = gap tol` (see `Promise`), for the known solution `s` and the dual `p` of the equations:
    `<F(x), x - s> <= e |x - s| + |p| d`, and `modulus |x - s|^2 <= e |x - s| + (|p| + |p*|) d` where the cost is strongly
    convex, since the terms are monotone. Without a solution `d` alone tells that the equations are not met (infeasible), and
    `e` that the slope along which the cost falls is not small (unbounded). What is not finite may never converge.
    """
    x, z = solution.x.double(), solution.z.double()
    x = torch.nan_to_num(x)
    promise = method.promise(splitting, solution.z, x)
    c = batch.linear(equations=method.equations, game=method.game)
    F = _times(batch.Q, x) + c + (turned(batch.skew, x) if method.game else 0.0)
    if splitting.problem.F is None:
        F, c = 0 * F, 0 * c
    sizes = torch.linalg.matrix_norm(batch.Q, ord=2) + (
        torch.linalg.matrix_norm(batch.skew, ord=2) if method.game else 0
    )
    sizes = sizes if splitting.problem.F is not None else 0 * sizes
    state = _norm(z.reshape(len(z), -1))
    A = batch.A / torch.linalg.vector_norm(batch.A, dim=1, keepdim=True)
    condition = _condition(A) if method.equations else 1.0

    eps = ROUNDING * x.shape[1] * torch.finfo(solution.x.dtype).eps
    rounding = eps * condition * (_norm(x) + _norm(batch.x) + state * (0.0 if method.through_operator else 1.0))
    tolerance = solution.tolerance.double()
    force = promise.force * (tolerance + eps * state) + eps * (
        sizes * (_norm(x) + _norm(batch.x)) + _norm(c) + promise.dual
    )
    gap = promise.gap * (tolerance + eps * state)
    moved = promise.moved * tolerance
    if method.through_operator:
        gap = gap + torch.linalg.matrix_norm(batch.A, ord=2) * (moved + rounding) + eps * _norm(batch.b)
        dual_size, missed = promise.dual, _norm(x @ batch.A.mT - batch.b)
        known = _norm(batch.nu)
    else:
        gap = gap + moved + rounding
        dual_size, missed = promise.dual, _norm(_least(A, x, batch))
        known = _norm(batch.nu @ batch.A)

    kind = batch.kind
    solvable = kind < SOLVABLE
    checks = [(torch.clamp(torch.maximum(batch.lower - x, x - batch.upper), min=0).amax(1), moved + rounding)]
    if method.equations:
        checks.append((missed, gap))
    distance = _norm(x - batch.x)
    near = moved + rounding  # the conditions hold at a point so far from x
    at_point = (_norm(F) + sizes * distance + force) * near
    duality = dual_size * gap if method.equations else 0 * gap
    nothing = torch.full_like(distance, torch.inf)
    if splitting.problem.F is not None:
        inequality = ((x - batch.x) * F).sum(1)
        checks.append((inequality.clamp(min=0), torch.where(solvable, force * distance + duality + at_point, nothing)))
        strongly = solvable & (batch.modulus > 0)
        both = (dual_size + known) * gap if method.equations else 0 * gap
        room = force * distance + both + at_point
        checks.append((batch.modulus * distance**2, torch.where(strongly, room, nothing)))
        falls = kind == KINDS.index("unbounded")
        checks.append((batch.slope, torch.where(falls, force, nothing)))
    excess = torch.stack([(found / bound.clamp(min=1e-300)).nan_to_num(torch.inf) for found, bound in checks]).amax(0)
    if splitting.problem.F is not None:
        excess = torch.where(kind == KINDS.index("not a number"), torch.inf, excess)
    excess = torch.where(solution.converged, excess, 0.0)
    return Verdict(excess > SLACK, excess)


def _condition(A: Tensor) -> float:
    """Of the rows scaled to norm one, over their range."""
    values = torch.linalg.svdvals(A)
    return float(values[0] / values[values > 1e-10 * values[0]].min())


def _least(A: Tensor, x: Tensor, batch: Batch) -> Tensor:
    """The least change of `x` that meets the equations."""
    scaled = batch.b / torch.linalg.vector_norm(batch.A, dim=1)
    return (x @ A.mT - scaled) @ torch.linalg.pinv(A, rtol=1e-10).mT
