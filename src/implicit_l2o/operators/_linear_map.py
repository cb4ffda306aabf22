"""A linear map that PyTorch cannot or should not differentiate by itself, given together with its transpose."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def linear_map(x: Tensor, matvec: Map, rmatvec: Map) -> Tensor:
    """Apply `matvec` to `x`; the derivative is `rmatvec`, differentiated by the same rule, so every order exists.

    Used where native autograd is slow (sparse CSR products: 25 times) or absent (a factorisation on the host). Both maps
    act on `(B, n)` row by row.

    Args:
        x: `(B, n)`.
        matvec: `(B, n) -> (B, m)`, linear; called without a graph.
        rmatvec: `(B, m) -> (B, n)`, its transpose.
    """
    return cast(Tensor, _LinearMap.apply(x, matvec, rmatvec))


class _LinearMap(torch.autograd.Function):
    # setup_context, jvp and vmap make it usable under torch.func as well.

    @staticmethod
    def forward(x: Tensor, matvec: Map, rmatvec: Map) -> Tensor:
        """`matvec(x)`."""
        return matvec(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Map, Map], output: Tensor) -> None:
        """Keep the two maps; a linear map needs no saved tensor."""
        _, ctx.matvec, ctx.rmatvec = inputs

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, None, None]:
        """`rmatvec` of the cotangent."""
        return linear_map(grad_outputs[0], ctx.rmatvec, ctx.matvec), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """`matvec` of the tangent."""
        return linear_map(tangents[0], ctx.matvec, ctx.rmatvec)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, int]:
        """Fold the mapped dimension into the batch: rows are independent."""
        x, matvec, rmatvec = args
        x = x.movedim(in_dims[0], 0)
        y = linear_map(x.reshape(-1, x.shape[-1]), matvec, rmatvec)
        return y.reshape(*x.shape[:-1], y.shape[-1]), 0
