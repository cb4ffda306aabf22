"""The values of parameters, checked as CVXPY checks them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from implicit_l2o.interop.cvxpy.canonical import Canonical

_SIGNS = {
    "nonneg": ("nonnegative", lambda v: v >= 0),
    "pos": ("positive", lambda v: v >= 0),
    "nonpos": ("nonpositive", lambda v: v <= 0),
    "neg": ("negative", lambda v: v <= 0),
}
_SYMMETRY = 1e-6  # relative to the largest entry; float32 products are no more symmetric than that


def dense(values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Sparse tensors as dense ones."""
    return tuple(
        value.to_dense() if isinstance(value, Tensor) and value.layout != torch.strided else value for value in values
    )


def check_values(
    parameters: Sequence[Any], canonical: Canonical, values: tuple[Tensor, ...]
) -> tuple[int | None, tuple[bool, ...]]:
    """The batch size, None where no value has a batch, and which values have one.

    Raises:
        TypeError: a value is no floating-point tensor.
        ValueError: their number, shapes or batch sizes do not fit, or a value breaks an attribute of its parameter.
    """
    if len(values) != len(parameters):
        raise ValueError(
            f"A tensor must be provided for each CVXPY parameter; received {len(values)} tensors, expected "
            f"{len(parameters)}: {', '.join(p.name() for p in parameters)}."
        )
    sizes: list[int | None] = []
    for k, (value, parameter) in enumerate(zip(values, parameters, strict=True)):
        sizes.append(_batch_size(k, value, parameter))
        _check_attributes(k, value, parameter)
        if canonical.logarithms[k] and bool((value <= 0).any()):
            raise ValueError(
                f"{_named(k, parameter)} of a geometric program must be positive; got {float(value.min()):g}."
            )
    counts = {size for size in sizes if size is not None}
    if len(counts) > 1:
        raise ValueError(
            "Inconsistent batch sizes: all batched parameters must have the same one, but got "
            + ", ".join(f"{p.name()}: {size}" for p, size in zip(parameters, sizes, strict=True) if size is not None)
            + "."
        )
    return (counts.pop() if counts else None), tuple(size is not None for size in sizes)


def _named(k: int, parameter: Any) -> str:
    return f"parameter {k} ('{parameter.name()}')"


def _batch_size(k: int, value: Any, parameter: Any) -> int | None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"CvxpyLayer takes floating-point tensors; got {got} for {_named(k, parameter)}.")
    shape = tuple(parameter.shape)
    if tuple(value.shape) == shape:
        return None
    if value.ndim == len(shape) + 1 and tuple(value.shape[1:]) == shape:
        if not len(value):
            raise ValueError(
                f"CvxpyLayer needs at least one sample; got {_named(k, parameter)} of {tuple(value.shape)}."
            )
        return len(value)
    batched = ", ".join(["B", *map(str, shape)])
    what = "shape" if value.ndim in (len(shape), len(shape) + 1) else "dimensionality"
    raise ValueError(
        f"Invalid parameter {what} for {_named(k, parameter)}: expected {shape} or ({batched}); got {tuple(value.shape)}."
    )


def _check_attributes(k: int, value: Tensor, parameter: Any) -> None:
    """As CVXPY does when a value is set; a NaN is another matter."""
    value = value.detach()
    for name, (word, holds) in _SIGNS.items():
        if parameter.attributes.get(name) and bool((~holds(value) & ~value.isnan()).any()):
            worst = value.nan_to_num(0.0).abs().where(~holds(value), 0.0).flatten().argmax()
            raise ValueError(
                f"Parameter value must be {word}: {_named(k, parameter)} has {float(value.flatten()[worst]):g}."
            )
    _check_places(k, value, parameter)
    symmetric = [a for a in ("symmetric", "PSD", "NSD") if parameter.attributes.get(a)]
    if not symmetric or not bool(torch.isfinite(value).all()):
        return
    if bool(((value - value.mT).abs() > _SYMMETRY * value.abs().amax().clamp_min(1.0)).any()):
        raise ValueError(f"Parameter value must be symmetric: {_named(k, parameter)} is not.")
    if symmetric[0] != "symmetric":
        sign = 1.0 if symmetric[0] == "PSD" else -1.0
        least = torch.linalg.eigvalsh(sign * value.double()).amin()
        if float(least) < -_SYMMETRY * max(1.0, float(value.abs().amax())):
            word = "positive" if sign > 0 else "negative"
            raise ValueError(
                f"Parameter value must be {word} semidefinite: {_named(k, parameter)} has the eigenvalue "
                f"{sign * float(least):g}."
            )


def _check_places(k: int, value: Tensor, parameter: Any) -> None:
    """Zeros where a diagonal or sparse parameter has none but them."""
    pattern = parameter.attributes.get("sparsity")
    if not parameter.attributes.get("diag") and not pattern:
        return
    free = torch.zeros(tuple(parameter.shape), dtype=torch.bool)
    if pattern:
        free[tuple(torch.as_tensor(index) for index in parameter.sparse_idx)] = True
    else:
        free.fill_diagonal_(True)
    outside = value.masked_fill(free.to(value.device), 0.0)
    if bool((outside != 0).any()):
        worst = int(outside.abs().nan_to_num(torch.inf).flatten().argmax())
        what = "zero outside of the sparsity pattern" if pattern else "diagonal"
        raise ValueError(
            f"Parameter value must be {what}: {_named(k, parameter)} has {float(value.flatten()[worst]):g}."
        )
