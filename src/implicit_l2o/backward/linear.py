"""What the linear solvers of the adjoint equation share: how a solve went, and the default tolerances."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

DEFAULT_RTOL = {torch.float64: 1e-8, torch.float32: 1e-5, torch.bfloat16: 1e-2}


class LinearSolve(NamedTuple):
    """The solution of `A(u) = b` per sample, and how it went."""

    u: Float[Tensor, "B n"]
    converged: Bool[Tensor, " B"]
    residual: Float[Tensor, " B"]  # relative to |b|
    steps: Int[Tensor, " B"]  # products with A and with its transpose
