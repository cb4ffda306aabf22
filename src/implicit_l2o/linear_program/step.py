"""The step of Davis-Yin for `min c.x + gamma |x|^2 / 2` over a polyhedron, by `gamma`, the costs and the rank.

With costs of root mean square one it is `0.32 / sqrt(gamma)`, fitted on half of twenty programs and proven on the others
(`benchmarks/lp_steps`, `results/lp_steps.json`); the bound by the rank is for grids of side 50 and more.
"""

import torch
from jaxtyping import Float
from torch import Tensor

RELAXATION = 1.7
_MOST = 0.5  # of step * gamma: keeps a relaxation of 1.7 within what the theorem allows
_BY_GAMMA = 0.32
_BY_RANK = 4.0
_LONGEST = 30.0  # for a gamma near zero
_LINEAR = 10.0  # without a quadratic term


def automatic_step(cost: Float[Tensor, "B n"], gamma: float, rank: int) -> Float[Tensor, " B"]:
    """A step for each sample: `min(0.32 / sqrt(g), 4 / (g sqrt(rank)), 0.5 / g)` in units of the costs, `g` their `gamma`.

    Args:
        cost: the linear costs.
        gamma: of the quadratic term, >= 0.
        rank: of the constraints; its root stands for how far information has to travel.
    """
    scale = torch.linalg.vector_norm(cost.detach(), dim=1) / max(cost.shape[1], 1) ** 0.5
    if gamma == 0:
        return _usable(_LINEAR / scale, 1.0)
    # In units of x over costs, as a step is: `0.32 / sqrt(g) / scale = 0.32 / sqrt(gamma scale)`, and so on.
    longest = min(_MOST, _BY_RANK / max(rank, 1) ** 0.5) / gamma
    step = torch.minimum(_BY_GAMMA / gamma**0.5 * scale.rsqrt(), _LONGEST / scale)
    return _usable(step.clamp_max(longest), longest)


def _usable(step: Tensor, instead: float) -> Tensor:
    """Steps that are positive and finite also where all costs of a sample are zero, or one is not a number."""
    return torch.nan_to_num(step, nan=instead, posinf=instead).clamp_min(torch.finfo(step.dtype).tiny)
