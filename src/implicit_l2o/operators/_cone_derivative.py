"""The derivatives of projections onto cones as matrices, for those who factor them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_l2o.operators.semidefinite_cone import divided_differences


class ConeBlock(NamedTuple):
    """The derivatives of cones of one kind and size: `matrices[b, c]` for the entries `places[c]` of sample `b`."""

    places: Int[Tensor, "cones d"]
    matrices: Float[Tensor, "B cones d d"]


def second_order(x: Float[Tensor, "B d"]) -> Float[Tensor, "B d d"]:
    """`(I + R) / 2` between the cone and its polar, with `R = [[0, e^T], [e, (t / |u|) (I - e e^T)]]`, `e = u / |u|`."""
    t, u = x[:, :1], x[:, 1:]
    length = torch.linalg.vector_norm(u, dim=1, keepdim=True)
    inside, polar = length <= t, length <= -t
    safe = torch.where(inside | polar, 1.0, length)
    e, ratio = u / safe, (t / safe)[:, :, None]
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
    reflected = torch.zeros_like(eye)
    reflected[:, 0, 1:] = reflected[:, 1:, 0] = e
    reflected[:, 1:, 1:] = ratio * (eye[:, 1:, 1:] - e[:, :, None] * e[:, None, :])
    middle = (eye + reflected) / 2
    return torch.where(inside[:, :, None], eye, torch.where(polar[:, :, None], 0.0, middle))


def semidefinite(
    matrices: Float[Tensor, "B n n"], basis: Float[Tensor, "k n n"], flatten: Callable[[Tensor], Tensor]
) -> Float[Tensor, "B k k"]:
    """The derivative over scaled triangles, by its images of a basis."""
    values, vectors = torch.linalg.eigh(matrices)
    inner = vectors.mT[:, None] @ basis @ vectors[:, None]
    image = vectors[:, None] @ (divided_differences(values)[:, None] * inner) @ vectors.mT[:, None]
    k, n = basis.shape[:2]
    return flatten(image.reshape(-1, n, n)).reshape(-1, k, k)


def by_rows(project: Callable[[Tensor], Tensor], x: Float[Tensor, "B d"]) -> Float[Tensor, "B d d"]:
    """The derivative of a projection of few entries, row after row; it is symmetric."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        sums = project(point).sum(0)
    rows, unit = [], torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    for row in range(x.shape[1]):
        # An image that does not depend on the point, such as the apex of the cone, has no graph.
        (gradient,) = (
            torch.autograd.grad(sums, point, unit[row], retain_graph=True, allow_unused=True)
            if sums.requires_grad
            else (None,)
        )
        rows.append(torch.zeros_like(x) if gradient is None else gradient)
    matrix = torch.stack(rows, 1)
    return (matrix + matrix.mT) / 2
