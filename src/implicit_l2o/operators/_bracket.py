"""Newton's method kept in a bracket, for many increasing scalar functions at once."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

_MOST = 200  # steps; ten are the rule, and each one that Newton's method wastes halves the bracket
_ENOUGH = 4.0  # roundings of the root between two iterates


@torch.no_grad()
def find_root(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    low: Float[Tensor, " B"],
    high: Float[Tensor, " B"],
    start: Float[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """The zero of a function that is negative left of it and positive right of it.

    Args:
        function: gives values and derivatives.
        low: left of the root.
        high: right of the root.
        start: where to begin, in between.
    """
    eps = torch.finfo(low.dtype).eps
    root = start
    before = high - low
    for _ in range(_MOST):
        value, slope = function(root)
        low, high = torch.where(value < 0, root, low), torch.where(value > 0, root, high)
        newton = root - value / slope
        middle = (low + high) / 2
        width = high - low
        # A step that leaves the bracket, is no number, or has not halved the bracket's last step, is replaced.
        useful = (newton > low) & (newton < high) & ((newton - root).abs() <= before / 2)
        following = torch.where(value == 0, root, torch.where(useful, newton, middle))
        before = torch.where(useful, (following - root).abs(), width)
        moved = (following - root).abs()
        root = following
        if not bool((moved > _ENOUGH * eps * root.abs().clamp_min(1e-8)).any()):
            break
    return root
