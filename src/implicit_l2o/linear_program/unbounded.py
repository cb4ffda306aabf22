"""Linear programs without a minimum: a direction along which the cost falls for ever."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._solution import Solution, Status
from implicit_l2o.operators.box import Box
from implicit_l2o.splittings.davis_yin import DavisYin


@torch.no_grad()
def mark_unbounded(solution: Solution, splitting: DavisYin, cost: Float[Tensor, "B n"]) -> Solution:
    """Say DIVERGED of a sample that ran out of steps on its way down a ray of the feasible set.

    Such iterates grow by a constant step, so they never leave the range of numbers while one waits.

    Args:
        solution: over variables and slacks.
        splitting: that was iterated.
        cost: the linear costs over the variables.
    """
    waiting = solution.status == Status.MAX_STEPS
    if not bool(waiting.any()):
        return solution
    falling = waiting & _falls_for_ever(solution.z.detach(), splitting, cost)
    return replace(solution, status=torch.where(falling, int(Status.DIVERGED), solution.status))


def _falls_for_ever(z: Tensor, splitting: DavisYin, cost: Tensor) -> Bool[Tensor, " B"]:
    """Whether the last movement of the answer is a direction of recession with negative cost, up to rounding."""
    ahead = splitting(z)
    ray = splitting.readout(ahead) - splitting.readout(z)
    length = _batch.norm(ray)
    ray = ray / _batch.expand(length.clamp_min(torch.finfo(z.dtype).tiny), ray)
    slope = _batch.dot(cost, ray[:, : cost.shape[1]]) / _batch.norm(cost).clamp_min(torch.finfo(z.dtype).tiny)
    small = torch.finfo(z.dtype).eps ** 0.4  # of a unit vector
    problem = splitting.problem
    outside = torch.zeros_like(length)
    if isinstance(problem.g, Box):
        lower, upper = (torch.as_tensor(b, dtype=z.dtype, device=z.device) for b in (problem.g.lower, problem.g.upper))
        below, above = (-ray).where(lower.isfinite(), 0.0), ray.where(upper.isfinite(), 0.0)
        outside = torch.maximum(below.amax(1), above.amax(1))
    if problem.h is not None:
        origin = torch.zeros_like(ray)
        across = problem.h.prox(ray, 1.0) - problem.h.prox(origin, 1.0) - ray  # what of the ray leaves null(A)
        outside = torch.maximum(outside, _batch.norm(across))
    return (slope < -small) & (outside < small) & (length > 0)
