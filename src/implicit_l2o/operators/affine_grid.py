"""The projection onto flows on a grid by fast cosine transforms: `A A^T` is the grid's Laplacian, which they diagonalise.

Strang, The Discrete Cosine Transform, SIAM Review 41 (1999): the DCT-II vectors are the eigenvectors of a path's Laplacian.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators._factor import AbstractAffineFactor
from implicit_l2o.operators._linear_map import linear_map


@dataclass(frozen=True, eq=False)
class GridShape:
    """A grid graph of `height x width` nodes, numbered row by row, each of its edges being one arc.

    Attributes:
        height: nodes along a column.
        width: nodes along a row.
        order: `(arcs,)` the arc of each edge: those to the east row by row, then those to the south row by row.
        sign: `(arcs,)` in the same order: 1 where the arc leads east or south, -1 where it leads west or north.
        strided: whether the arcs are numbered row by row, the eastward arcs of a row before its southward ones, all in
            the positive direction: then both groups are views of a flow, and nothing has to be gathered.
    """

    height: int
    width: int
    order: np.ndarray
    sign: np.ndarray
    strided: bool

    @classmethod
    def of(cls, matrix: Any) -> "GridShape | None":
        """Recognise the incidence matrix of a grid (SciPy CSR): -1 at the tail of an arc, 1 at its head, or the reverse."""
        m, n = matrix.shape
        columns = matrix.tocsc()
        if columns.nnz != 2 * n or not (np.diff(columns.indptr) == 2).all() or not (np.abs(columns.data) == 1).all():
            return None
        columns.sort_indices()
        first, second = columns.indices[::2], columns.indices[1::2]
        value, other = columns.data[::2], columns.data[1::2]
        width = int((second - first).max())
        if width < 2 or m % width or m // width < 2 or not (value == -other).all():
            return None
        height = m // width
        east = second - first == 1
        south = second - first == width
        across = first // width == second // width
        counts = int(east.sum()), int(south.sum())
        if counts != (height * (width - 1), (height - 1) * width) or not (east | south).all() or not across[east].all():
            return None
        order = np.lexsort((first, south))  # east before south, each by its first node
        nodes = np.arange(m).reshape(height, width)
        expected = np.concatenate([nodes[:, :-1].ravel(), nodes[:-1].ravel()])
        if not np.array_equal(first[order], expected):
            return None  # an edge twice, and another missing
        sign = other[order]
        rows = np.concatenate([first // width * 2 + south, [2 * height]])
        strided = bool((sign == 1).all() and (np.diff(rows) >= 0).all() and np.array_equal(order, _row_by_row(rows)))
        return cls(height, width, order, sign, strided)


def _row_by_row(rows: np.ndarray) -> np.ndarray:
    """The order that an arc numbering row by row has: even keys (east) first, then odd ones (south), as they come."""
    arcs = np.arange(len(rows) - 1)
    return np.concatenate([arcs[rows[:-1] % 2 == 0], arcs[rows[:-1] % 2 == 1]])


@final
@dataclass(frozen=True, eq=False)
class GridFlows(AbstractAffineFactor):
    """`x - A^T (A A^T)^+ A x` for the incidence matrix `A` of a grid, by two cosine transforms each way.

    It costs four products with matrices of the size of a side, `O(B side^3)`, on any device; there is nothing to factorise.
    """

    shape: tuple[int, int]
    rank: int
    grid: GridShape
    down: Float[Tensor, "h h"]  # columns: the cosine vectors of a path of h nodes
    along: Float[Tensor, "w w"]
    inverse: Float[Tensor, "h w"]  # 1 / (eigenvalues of the Laplacian), 0 for the constant
    scale: Float[Tensor, " m"]  # row norms of A
    order: Tensor  # as in GridShape, on the device
    places: Tensor  # the inverse permutation
    sign: Float[Tensor, " n"]

    @classmethod
    def of(cls, grid: GridShape, dtype: torch.dtype, device: torch.device | str) -> "GridFlows":
        """The transforms for a grid."""
        down, rises = _cosines(grid.height)
        along, runs = _cosines(grid.width)
        eigenvalues = rises[:, None] + runs[None]
        eigenvalues[0, 0] = math.inf
        degree = torch.full((grid.height, grid.width), 4.0)
        for edge in (degree[0], degree[-1], degree[:, 0], degree[:, -1]):
            edge -= 1
        to = {"dtype": dtype, "device": device}
        order = torch.as_tensor(grid.order, device=device)
        return cls(
            shape=(grid.height * grid.width, len(grid.order)),
            rank=grid.height * grid.width - 1,
            grid=grid,
            down=down.to(**to),
            along=along.to(**to),
            inverse=(1 / eigenvalues).to(**to),
            scale=degree.flatten().sqrt().to(**to),
            order=order,
            places=torch.argsort(order),
            sign=torch.as_tensor(grid.sign).to(**to),
        )

    @property
    def like(self) -> Tensor:
        """The cosine vectors."""
        return self.down

    def project(self, x: Float[Tensor, "B n"], point: Float[Tensor, "*B n"]) -> Float[Tensor, "B n"]:
        """`N x + point`; `N` is symmetric, so cotangents are projected onto null(A) too."""
        if torch.is_grad_enabled():
            return linear_map(x, self._null, self._null) + point
        return self._null(x).add_(point)  # within the fixed-point loop

    def solve(self, b: Float[Tensor, "*B m"]) -> Float[Tensor, "*B n"]:
        """`A^T (A A^T)^+ b`."""
        if b.ndim == 1:
            return self.solve(b[None])[0]
        return linear_map(b, self._pinv, self._pinv_transposed)

    def multipliers(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        """`(A A^T)^+ A x`."""
        return linear_map(x, self._pinv_transposed, self._pinv)

    def gap(self, b: Float[Tensor, "*B m"]) -> Float[Tensor, "*B"]:
        """What comes in has to go out: the sum of `b` vanishes."""
        size = torch.linalg.vector_norm(b / self.scale, dim=-1) * torch.linalg.vector_norm(self.scale)
        return b.sum(-1).abs() / torch.where(size == 0, 1.0, size)

    def _null(self, x: Tensor) -> Tensor:
        y = self._laplace_solve(self._divergence(x))
        result = x.clone(memory_format=torch.contiguous_format) if self.grid.strided else x[:, self.order] * self.sign
        east, south = self._edges(result)
        east += y[:, :, :-1]
        east -= y[:, :, 1:]
        south += y[:, :-1]
        south -= y[:, 1:]
        return result if self.grid.strided else (result * self.sign)[:, self.places]

    def _pinv(self, b: Tensor) -> Tensor:
        y = self._laplace_solve(b.reshape(-1, self.grid.height, self.grid.width))
        result = y.new_empty(len(y), self.shape[1])
        east, south = self._edges(result)
        torch.sub(y[:, :, 1:], y[:, :, :-1], out=east)
        torch.sub(y[:, 1:], y[:, :-1], out=south)
        return result if self.grid.strided else (result * self.sign)[:, self.places]

    def _pinv_transposed(self, x: Tensor) -> Tensor:
        return self._laplace_solve(self._divergence(x)).flatten(1)

    def _divergence(self, x: Tensor) -> Tensor:
        """`A x` on the grid `(B, h, w)`: what arrives at a node less what leaves it."""
        x = x.contiguous() if self.grid.strided else x[:, self.order] * self.sign
        east, south = self._edges(x)
        excess = x.new_zeros(len(x), self.grid.height, self.grid.width)
        excess[:, :, 1:] += east
        excess[:, :, :-1] -= east
        excess[:, 1:] += south
        excess[:, :-1] -= south
        return excess

    def _edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Views of a contiguous `(B, n)`: the arcs to the east `(B, h, w - 1)`, and those to the south `(B, h - 1, w)`."""
        h, w = self.grid.height, self.grid.width
        if not self.grid.strided:
            east, south = x[:, : h * (w - 1)], x[:, h * (w - 1) :]
            return east.unflatten(1, (h, w - 1)), south.unflatten(1, (h - 1, w))
        n, start = x.shape[1], x.storage_offset()
        east = x.as_strided((len(x), h, w - 1), (n, 2 * w - 1, 1), start)
        return east, x.as_strided((len(x), h - 1, w), (n, 2 * w - 1, 1), start + w - 1)

    def _laplace_solve(self, excess: Tensor) -> Tensor:
        """`(A A^T)^+` of each sample `(h, w)`: transform, divide by the eigenvalues, transform back."""
        h, w = self.grid.height, self.grid.width
        spectrum = self.down.mT @ (excess.reshape(-1, w) @ self.along).view(-1, h, w)
        spectrum *= self.inverse
        return ((self.down @ spectrum).view(-1, w) @ self.along.mT).view(-1, h, w)


def _cosines(nodes: int) -> tuple[Tensor, Tensor]:
    """Eigenvectors (columns) and eigenvalues of the Laplacian of a path, in float64."""
    i = torch.arange(nodes, dtype=torch.float64)
    vectors = torch.cos(math.pi * (i[:, None] + 0.5) * i / nodes) * math.sqrt(2 / nodes)
    vectors[:, 0] /= math.sqrt(2)
    return vectors, 2 - 2 * torch.cos(math.pi * i / nodes)
