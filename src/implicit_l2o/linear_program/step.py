"""The step of Davis-Yin for `min c.x + gamma |x|^2 / 2` over a polyhedron, by `gamma`, the costs and the rank."""

from jaxtyping import Float
from torch import Tensor

RELAXATION = 1.7
_MOST = 0.5  # of step * gamma: keeps a relaxation of 1.7 within what the theorem allows


def automatic_step(cost: Float[Tensor, "B n"], gamma: float, rank: int) -> Float[Tensor, " B"]:
    """A step for each sample.

    Args:
        cost: the linear costs.
        gamma: of the quadratic term, >= 0.
        rank: of the constraints; its root stands for how far information has to travel.
    """
    scale = cost.detach().square().mean(1).sqrt()
    scale = scale.where((scale > 0) & scale.isfinite(), 1.0)
    relative = gamma / scale
    step = (0.7 / relative.sqrt()).clamp_max(30.0) if gamma > 0 else 10.0 + 0.0 * scale
    if gamma > 0:
        step = step.minimum(2.0 / (relative * max(4.0, rank**0.5))).minimum(_MOST / relative)
    return step / scale
