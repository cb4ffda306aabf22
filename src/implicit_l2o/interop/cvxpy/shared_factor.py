"""The factor of a splitting whose matrices all samples have in common: made once, and solved for the whole batch at once.

Where the factor ends in a dense block, that block's inverse is kept, since products of matrices are the fastest solves.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.interop.cvxpy import ldl_kernels as ldl
from implicit_l2o.interop.cvxpy.canonical import Canonical
from implicit_l2o.interop.cvxpy.chunks import WIDTH, aligned, from_chunks, to_chunks
from implicit_l2o.interop.cvxpy.elimination import Elimination
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.splitting_factors import AbstractFactor

_LEAST = 1e-13  # pivot

_KNOWN: "weakref.WeakKeyDictionary[Canonical, Elimination]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class SharedFactor(AbstractFactor):
    """`[[P + S, A^T], [A, -1 / R]]`, factored; it records no gradient.

    Attributes:
        A: sparse.
        elimination: the order and the pattern.
        low, diagonal: the factor up to its dense tail, the same eight times.
        inverse: of the tail.
    """

    A: Any
    elimination: Elimination
    low: np.ndarray
    diagonal: np.ndarray
    inverse: Float[np.ndarray, "d d"]

    @classmethod
    def of(cls, programs: ConePrograms, sigma: Float[Tensor, "1 n"], rho: Float[Tensor, "1 m"]) -> "SharedFactor":
        """Factor."""
        canonical = programs.canonical
        n, m = canonical.n, canonical.m
        elimination = _elimination_of(canonical)
        entries = [sigma[0].numpy(), -1.0 / rho[0].numpy(), -programs.Ab[0, canonical.Ab.columns < n]]
        if canonical.P is not None and programs.P is not None:
            entries.append(programs.P[0, canonical.P.rows <= canonical.P.columns])
        values = np.repeat(np.concatenate(entries)[:, None], WIDTH, 1)
        shape, size = elimination.shape, n + m
        low, diagonal = aligned(len(shape.below), WIDTH), aligned(size, WIDTH)
        signs = np.where(elimination.order < n, 1.0, -1.0)
        work = np.zeros((size, WIDTH))
        ldl.factor(*(shape, elimination.places, values, np.zeros(size), signs, _LEAST, low, diagonal, work, shape.tail))
        start = shape.columns[shape.tail]
        tail = np.diag(diagonal[shape.tail :, 0])
        above = np.triu_indices(size - shape.tail, 1)
        tail[above] = tail.T[above] = low[start:, 0]
        return cls(programs.A(0), elimination, low[:start].copy(), diagonal, np.linalg.inv(tail))

    def solve(self, right: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
        """`H^-1 right`."""
        return self.solve_rows(right, 0)

    def solve_rows(self, right: Float[Tensor, "B k"], first: int) -> Float[Tensor, "B k"]:
        """The unknowns from `first` on of the solution for a right-hand side with `right` there and zeros elsewhere."""
        shape, order = self.elimination.shape, self.elimination.order
        rows = to_chunks(right.detach().numpy())
        v, out = aligned(len(rows), len(order), WIDTH), aligned(*rows.shape)
        ldl.forward_all(shape, self.low, order, rows, first, v)
        if len(self.inverse):
            # One product for all chunks.
            tail = v[:, shape.tail :].transpose(1, 0, 2)
            solved = self.inverse @ tail.reshape(len(tail), -1)
            v[:, shape.tail :] = solved.reshape(tail.shape).transpose(1, 0, 2)
        ldl.backward_all(shape, self.low, self.diagonal, order, v, first, out)
        return torch.as_tensor(from_chunks(out, len(right)))

    def multiply(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        """`A x`."""
        return torch.as_tensor(np.ascontiguousarray((self.A @ x.detach().numpy().T).T))

    def multiply_transposed(self, y: Float[Tensor, "B m"]) -> Float[Tensor, "B n"]:
        """`A^T y`."""
        return torch.as_tensor(np.ascontiguousarray((self.A.T @ y.detach().numpy().T).T))

    def restrict(self, index: Tensor) -> "SharedFactor":
        """Itself, being that of every sample."""
        return self


def _elimination_of(canonical: Canonical) -> Elimination:
    """Analysed once."""
    if canonical not in _KNOWN:
        n, m = canonical.n, canonical.m
        inside = canonical.Ab.columns < n
        rows = [np.arange(n + m), n + canonical.Ab.rows[inside]]
        columns = [np.arange(n + m), canonical.Ab.columns[inside]]
        if canonical.P is not None:
            upper = canonical.P.rows <= canonical.P.columns
            rows.append(canonical.P.columns[upper])
            columns.append(canonical.P.rows[upper])
        _KNOWN[canonical] = Elimination.of(
            np.concatenate(rows).astype(np.int32), np.concatenate(columns).astype(np.int32), n + m
        )
    return _KNOWN[canonical]
