"""Parameter tensors to the numbers of a cone program, and solutions back to tensors of the variables' shapes."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.interop.cvxpy.canonical import Canonical
from implicit_l2o.interop.cvxpy.places import Place


class SparseMap(torch.autograd.Function):
    """`p -> M p` for every row `p`, `M` a sparse SciPy matrix: many times faster than PyTorch's sparse products on a CPU."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, matrix: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Multiply."""
        ctx.matrix = matrix
        return torch.as_tensor((matrix @ p.detach().numpy().T).T)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Multiply by the transpose."""
        return SparseMap.apply(v, ctx.matrix.T), None


def parameter_vector(
    canonical: Canonical, values: tuple[Tensor, ...], batch: int, batched: tuple[bool, ...]
) -> Float[Tensor, "B p"]:
    """The parameters of every sample in CVXPY's order, in float64 on the host, with a 1 at the end."""
    order = np.argsort(canonical.columns)
    parts = []
    for k in order:
        value = values[k].to("cpu", torch.float64)
        value = value if batched[k] else value[None]
        if canonical.logarithms[k]:
            value = value.log()
        kept = canonical.kept[k]
        if kept is not None:
            # Both halves of a symmetric matrix share the derivative, as if it had been made symmetric before.
            value = (value + value.mT) / 2 if kept.symmetric else value
            flat = value.flatten(1)[:, torch.as_tensor(kept.entries)]
        else:
            flat = value.movedim(tuple(range(1, value.ndim)), tuple(range(value.ndim - 1, 0, -1))).reshape(
                len(value), -1
            )
        parts.append(flat.expand(batch, -1))
    return torch.cat([*parts, torch.ones(batch, 1, dtype=torch.float64)], 1)


def variable_value(place: Place, x: Float[Tensor, "B n"], y: Float[Tensor, "B m"]) -> Float[Tensor, "B *shape"]:
    """The values of a variable from primal and dual solutions."""
    flat = (y if place.dual else x)[:, place.start : place.start + place.size]
    if place.triangle is not None:
        return _matrix(place, flat)
    if place.exponential:
        flat = flat.exp()
    shape = place.shape
    return flat.reshape(len(flat), *reversed(shape)).movedim(
        tuple(range(1, 1 + len(shape))), tuple(range(len(shape), 0, -1))
    )


def _matrix(place: Place, flat: Tensor) -> Tensor:
    assert place.triangle is not None
    kind, n = place.triangle
    if kind == "diagonal":
        return torch.diag_embed(flat)
    if kind == "sparse":
        assert place.entries is not None
        size = int(np.prod(place.shape))
        return (
            flat.new_zeros(len(flat), size)
            .index_copy(1, torch.as_tensor(place.entries), flat)
            .reshape(-1, *place.shape)
        )
    rows, columns = torch.triu_indices(n, n)
    if kind == "dual":  # scaled, the upper triangle by columns
        columns, rows = torch.tril_indices(n, n)
        flat = flat * torch.where(rows == columns, 1.0, flat.new_tensor(0.5).sqrt())
    position = torch.empty(n, n, dtype=torch.int64)
    position[rows, columns] = position[columns, rows] = torch.arange(len(rows))
    matrix = flat[:, position.reshape(-1)].reshape(-1, n, n)
    return matrix.exp() if place.exponential else matrix
