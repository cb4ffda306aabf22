"""How operators treat a parameter out of its range.

A constant shared by the batch (a number, or a tensor without batch dimension and without gradient) is the author's
mistake: it raises. A learned or per-sample tensor comes out of a network: raising would punish the whole batch for one
sample and force a host synchronisation every forward pass, so the offending entries become NaN, which the solver reports
as `NONFINITE` for exactly the samples they touch.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from implicit_l2o.operators.base import Array


def is_constant(value: Tensor, metadata: Mapping[str, Any]) -> bool:
    """Whether a tensor parameter is shared by the batch and carries no gradient; for `torch.export` none is."""
    return not torch.compiler.is_exporting() and value.ndim <= metadata["event_ndim"] and not value.requires_grad


def nonnegative(value: Array, name: str, metadata: Mapping[str, Any], *, strict: bool = False) -> Array:
    """Return `value`, which must be >= 0 (> 0 if strict): a constant that is not raises, other entries become NaN."""
    permitted = "> 0" if strict else ">= 0"
    if not isinstance(value, Tensor):
        if not (value > 0 if strict else value >= 0):
            raise ValueError(f"{name} must be {permitted}; got {value}.")
        return value
    bad = ~(value > 0 if strict else value >= 0)
    if not is_constant(value, metadata):
        return torch.where(bad, math.nan, value)
    if bad.any():
        index = tuple(bad.nonzero()[0].tolist())
        where = f" at index {index}" if index else ""
        raise ValueError(f"{name} must be {permitted}; got {value[index].item()}{where}.")
    return value


def is_number(value: Array, number: float) -> bool:
    """Whether a parameter is the plain number `number`."""
    return not isinstance(value, Tensor) and value == number


def ordered(lower: Array, upper: Array, name: str, metadata: Mapping[str, Any]) -> tuple[Array, Array]:
    """Return bounds with `lower <= upper`: constants that cross raise, other entries that cross become NaN."""
    tensors = [bound for bound in (lower, upper) if isinstance(bound, Tensor)]
    if is_number(lower, -math.inf) or is_number(upper, math.inf):
        return lower, upper
    if not tensors:
        if not lower <= upper:
            raise ValueError(f"{name} needs lower <= upper; got lower={lower} and upper={upper}.")
        return lower, upper
    crossed = torch.as_tensor(lower > upper)
    if not all(is_constant(bound, metadata) for bound in tensors):
        if isinstance(lower, Tensor):
            return torch.where(crossed, math.nan, lower), upper
        return lower, torch.where(crossed, math.nan, upper)
    if crossed.any():
        index = tuple(crossed.nonzero()[0].tolist())
        low, high = (float(torch.as_tensor(bound).expand(crossed.shape)[index]) for bound in (lower, upper))
        raise ValueError(f"{name} needs lower <= upper; got lower={low} and upper={high} at index {index}.")
    return lower, upper
