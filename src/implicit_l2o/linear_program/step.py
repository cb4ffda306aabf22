"""The step of Davis-Yin for `min c.x + gamma |x|^2 / 2` over a polyhedron, by `gamma`, the costs and the rank.

With costs of root mean square one it is `0.32 / sqrt(gamma)`, fitted on half of twenty programs and proven on the others
(`benchmarks/lp_steps`, `results/lp_steps.json`); the bound by the rank is for grids of side 50 and more.
"""

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
    scale = cost.detach().square().mean(1).sqrt()
    scale = scale.where((scale > 0) & scale.isfinite(), 1.0)
    if gamma == 0:
        return _LINEAR / scale
    relative = gamma / scale
    step = (_BY_GAMMA / relative.sqrt()).clamp_max(_LONGEST)
    return step.minimum(min(_MOST, _BY_RANK / max(rank, 1) ** 0.5) / relative) / scale
