"""Upper bounds on spectral norms that are proven, not estimated: a power iteration alone gives lower bounds."""

import torch
from jaxtyping import Shaped
from torch import Tensor


def eigenvalue_bound(matrix: Shaped[Tensor, "*batch n n"], squarings: int = 5) -> Tensor:
    """An upper bound on the largest absolute eigenvalue of Hermitian matrices, without a host synchronisation.

    `|lambda| <= |M^(2^p)|_F^(1/2^p) <= n^(1/2^(p+1)) |lambda|` (Gelfand's formula; Horn and Johnson, Matrix Analysis,
    5.6.14): within 6 % at n = 40 and 11 % at n = 1000 for `p = 5`. NaN stays in its matrix. Detached.

    Args:
        matrix: `(*batch, n, n)` symmetric or complex Hermitian.
        squarings: `p`.
    """
    rounding = 1 + 8 * matrix.shape[-1] * torch.finfo(matrix.dtype).eps
    # M^(2^p) = c_p M_p with M_p of size one, so nothing overflows; a zero matrix stays zero to the end.
    largest = matrix.detach().abs().amax((-2, -1))
    scale = torch.where(largest == 0, 1.0, largest)
    power, log_bound = matrix.detach() / scale[..., None, None], scale.log()
    for exponent in range(squarings):
        size = torch.linalg.matrix_norm(power)
        scale = torch.where(size == 0, 1.0, size)
        log_bound = log_bound + scale.log() / 2**exponent
        power = power / scale[..., None, None]
        power = power @ power
    return torch.exp(log_bound + torch.linalg.matrix_norm(power).log() / 2**squarings) * rounding
