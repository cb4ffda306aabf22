"""What the gradient diagnostics share: a copy of a layer solved nearly to full precision, its loss, and a comparison."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from implicit_l2o import _batch
from implicit_l2o._solution import Solution
from implicit_l2o.layer import ImplicitLayer
from implicit_l2o.solvers.base import AbstractFixedPointSolver

Loss: TypeAlias = Callable[[Solution], Tensor]  # one value a sample (B,), or a scalar

_TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 1e-2}  # a little above the rounding floor
_STEPS = 20_000


def precise_copy(layer: ImplicitLayer, names: Sequence[str] | None) -> tuple[ImplicitLayer, dict[str, nn.Parameter]]:
    """A copy of the layer that solves nearly to full precision, and its parameters of these names."""
    layer = copy.deepcopy(layer)
    layer.on_failure = "ignore"
    trained = {name: parameter for name, parameter in layer.named_parameters() if parameter.requires_grad}
    unknown = sorted(set(names or ()) - set(trained))
    chosen = trained if names is None else {name: trained[name] for name in names if name in trained}
    if unknown or not chosen:
        wrong = f"got {unknown}" if unknown else "none is chosen"
        raise ValueError(f"the layer's parameters that require a gradient are {sorted(trained)}; {wrong}.")
    layer.solver = _tight(layer.solver, next(iter(chosen.values())).dtype)
    return layer, chosen


def _tight(solver: AbstractFixedPointSolver, dtype: torch.dtype) -> AbstractFixedPointSolver:
    atol, rtol = solver.stopping.tolerances(dtype)
    tight = _TOLERANCE[dtype]
    steps = max(_STEPS, solver.stopping.max_steps)
    stopping = replace(solver.stopping, atol=min(atol, tight), rtol=min(rtol, tight), max_steps=steps, trace=False)
    # Solvers are frozen dataclasses; their base class does not say so.
    return cast(AbstractFixedPointSolver, replace(cast(Any, solver), stopping=stopping))


def loss_value(solution: Solution, loss: Loss | None) -> Tensor:
    """The loss, `(B,)` or a scalar; `|x|^2 / 2` for None."""
    value = 0.5 * _batch.norm(solution.x).square() if loss is None else loss(solution)
    if value.ndim > 1 or (value.ndim == 1 and len(value) != len(solution.x)):
        raise ValueError(
            f"the loss must give one value a sample, shape ({len(solution.x)},), or a scalar; got {tuple(value.shape)}."
        )
    return value


def flat(parts: Sequence[Tensor]) -> Tensor:
    """The entries of all tensors as one vector, float64."""
    return torch.cat([part.detach().reshape(-1).double() for part in parts])


def compare(mine: Tensor, true: Tensor) -> tuple[float, float]:
    """Cosine, and norm ratio of the first to the second vector; NaN where they are not defined."""
    a, b = float(torch.linalg.vector_norm(mine)), float(torch.linalg.vector_norm(true))
    cosine = float(torch.dot(mine, true)) / (a * b) if a * b > 0 else math.nan
    return cosine, a / b if b > 0 else math.nan
