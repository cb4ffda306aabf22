"""Conjugate gradients for a batch of right-hand sides. Hestenes and Stiefel, J. Res. Nat. Bur. Standards 49 (1952)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

_CHECK_EVERY = 10  # iterations between two looks at the residual: each one waits for an accelerator


def conjugate_gradient(
    apply: Callable[[Tensor], Tensor], b: Float[Tensor, "B m"], *, tolerance: float, max_steps: int
) -> Float[Tensor, "B m"]:
    """`M y = b` for a symmetric positive semidefinite `M`, every sample to `|M y - b| <= tolerance |b|`.

    A singular `M` is fine as long as `b` lies in its range. A sample that is done, or not finite, changes no other.

    Args:
        apply: `y -> M y`, `(B, m)` row by row.
        b: right-hand sides.
        tolerance: relative.
        max_steps: the most products with `M`; what is reached by then is returned.
    """
    y, residual = torch.zeros_like(b), b
    direction, square = b, b.square().sum(1, keepdim=True)
    enough = tolerance**2 * square
    for step in range(max_steps):
        if step % _CHECK_EVERY == 0 and not bool((square > enough).any()):
            break
        image = apply(direction)
        curvature = (direction * image).sum(1, keepdim=True)
        length = torch.where(square > enough, square / curvature, 0.0)
        y = y + length * direction
        residual = residual - length * image
        ahead = residual.square().sum(1, keepdim=True)
        direction = torch.where(square > enough, residual + ahead / square * direction, direction)
        square = torch.where(square > enough, ahead, square)
    return y
