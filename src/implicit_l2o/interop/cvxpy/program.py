"""The numbers of a batch of cone programs, and how far points are from solving them."""

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.canonical import Canonical, Entries

_DENSE = 4_000_000  # entries of dense matrices that are kept for all samples at once


@dataclass(frozen=True, eq=False)
class ConePrograms:
    """`min x.Px/2 + q.x` subject to `A x + s = b`, `s` in the cones, for every sample; entries as CVXPY orders them.

    Attributes:
        canonical: says which entries they are.
        P: `(B, nnz)` entries of P; None where it is zero.
        q: `(B, n)`.
        Ab: `(B, nnz)` entries of `[-A, b]`.
    """

    canonical: Canonical
    P: Float[np.ndarray, "B p"] | None
    q: Float[np.ndarray, "B n"]
    Ab: Float[np.ndarray, "B a"]

    def __len__(self) -> int:
        return len(self.q)

    @property
    def cones(self) -> il2o.ConeProduct:
        """The product of cones."""
        return self.canonical.cones

    @cached_property
    def shared(self) -> bool:
        """Whether all samples have the same P and A."""
        of_A = self.Ab[:, self._columns < self.canonical.n]
        return bool((of_A == of_A[:1]).all()) and (self.P is None or bool((self.P[:1] == self.P).all()))

    def same_matrices(self, other: "ConePrograms") -> bool:
        """Whether both batches share one P and one A."""
        if not (self.shared and other.shared):
            return False
        inside = self._columns < self.canonical.n
        same_A = np.array_equal(self.Ab[0, inside], other.Ab[0, inside])
        return same_A and (self.P is None or other.P is None or np.array_equal(self.P[0], other.P[0]))

    @property
    def _columns(self) -> np.ndarray:
        return self.canonical.Ab.columns

    @cached_property
    def b(self) -> Float[np.ndarray, "B m"]:
        """Right-hand sides."""
        entries = self.canonical.Ab
        b = np.zeros((len(self), self.canonical.m))
        last = entries.columns == self.canonical.n
        b[:, entries.rows[last]] = self.Ab[:, last]
        return b

    def A(self, sample: int) -> sp.csc_array:
        """The constraint matrix of a sample, sparse."""
        order, template = self._layout
        return _filled(template, -self.Ab[sample, order])

    def quadratic(self, sample: int, *, upper: bool = False) -> sp.csc_array:
        """P of a sample, sparse and symmetric, or its upper triangle."""
        n = self.canonical.n
        if self.P is None:
            return sp.csc_array((n, n))
        order, template = self._upper_layout if upper else self._quadratic_layout
        return _filled(template, self.P[sample, order])

    @cached_property
    def _layout(self) -> tuple[np.ndarray, sp.csc_array]:
        """Which entries are those of A, column by column, and a matrix with their places."""
        inside = self._columns < self.canonical.n
        return _template(self.canonical.Ab, inside, (self.canonical.m, self.canonical.n))

    @cached_property
    def _quadratic_layout(self) -> tuple[np.ndarray, sp.csc_array]:
        assert self.canonical.P is not None
        return _template(self.canonical.P, self.canonical.P.rows >= 0, self.canonical.P.shape)

    @cached_property
    def _upper_layout(self) -> tuple[np.ndarray, sp.csc_array]:
        assert self.canonical.P is not None
        return _template(self.canonical.P, self.canonical.P.rows <= self.canonical.P.columns, self.canonical.P.shape)

    @cached_property
    def sparse(self) -> bool:
        """Whether matrices are better kept sparse."""
        n, m = self.canonical.n, self.canonical.m
        filled = len(self.canonical.Ab.rows) + (0 if self.canonical.P is None else len(self.canonical.P.rows))
        return n + m > 500 and filled < 0.1 * (n * m + n * n)

    @cached_property
    def dense(self) -> tuple[Float[Tensor, "S n n"], Float[Tensor, "S m n"]]:
        """P and A as dense matrices: one for all samples where they are shared, one each otherwise."""
        samples = 1 if self.shared else len(self)
        n, m = self.canonical.n, self.canonical.m
        P, A = np.zeros((samples, n, n)), np.zeros((samples, m, n))
        entries = self.canonical.Ab
        of_A = entries.columns < n
        A[:, entries.rows[of_A], entries.columns[of_A]] = -self.Ab[:samples, of_A]
        if self.P is not None and self.canonical.P is not None:
            P[:, self.canonical.P.rows, self.canonical.P.columns] = self.P[:samples]
        return torch.as_tensor(P), torch.as_tensor(A)

    @property
    def fits(self) -> bool:
        """Whether the dense matrices are small enough to be made."""
        samples = 1 if self.shared else len(self)
        return samples * self.canonical.n * (self.canonical.n + self.canonical.m) <= _DENSE

    def take(self, index: Int[np.ndarray, " k"]) -> "ConePrograms":
        """Some of the samples."""
        part = ConePrograms(self.canonical, None if self.P is None else self.P[index], self.q[index], self.Ab[index])
        # What all samples have in common is not made again.
        common = [
            "_layout",
            "_quadratic_layout",
            "_upper_layout",
            "sparse",
            *(["shared", "dense"] if self.shared else []),
        ]
        vars(part).update({name: vars(self)[name] for name in common if name in vars(self)})
        return part

    def multiply(self, x: Float[np.ndarray, "B n"]) -> Float[np.ndarray, "B m"]:
        """`A x`."""
        entries = self.canonical.Ab
        return _multiply(-self.Ab, entries.rows, entries.columns, x, self.canonical.m, self.canonical.n)

    def multiply_transposed(self, y: Float[np.ndarray, "B m"]) -> Float[np.ndarray, "B n"]:
        """`A^T y`."""
        entries = self.canonical.Ab
        rows = np.where(entries.columns < self.canonical.n, entries.rows, self.canonical.m)
        return _multiply(-self.Ab, entries.columns, rows, y, self.canonical.n, self.canonical.m)

    def curvature(self, x: Float[np.ndarray, "B n"]) -> Float[np.ndarray, "B n"]:
        """`P x`."""
        if self.P is None or self.canonical.P is None:
            return np.zeros_like(x)
        n = self.canonical.n
        return _multiply(self.P, self.canonical.P.rows, self.canonical.P.columns, x, n, n)

    def residuals(
        self, x: Float[np.ndarray, "B n"], w: Float[np.ndarray, "B m"], s: Float[np.ndarray, "B m"]
    ) -> tuple[Float[np.ndarray, "B n"], Float[np.ndarray, "B m"]]:
        """`P x + q + A^T (s - w)` and `A x + s - b`, `s` the projection of `w` onto the cones: zero at solutions."""
        return self.curvature(x) + self.q + self.multiply_transposed(s - w), self.multiply(x) + s - self.b


def _template(entries: Entries, kept: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, sp.csc_array]:
    inside = np.flatnonzero(kept)
    order = inside[np.lexsort((entries.rows[inside], entries.columns[inside]))]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(entries.columns[order], minlength=shape[1]))])
    rows = entries.rows[order].astype(np.int32)
    return order, sp.csc_array((np.ones(len(order)), rows, indptr.astype(np.int32)), shape=shape)


def _filled(template: sp.csc_array, data: np.ndarray) -> sp.csc_array:
    """Another matrix with the same places, without SciPy's checks, which take longer than small problems do."""
    matrix = copy.copy(template)
    matrix.data = np.ascontiguousarray(data)
    return matrix


def _multiply(
    values: np.ndarray, rows: np.ndarray, columns: np.ndarray, x: np.ndarray, height: int, width: int
) -> np.ndarray:
    """A product with the sparse matrix of each sample; entries of rows or columns outside are left out."""
    out = np.empty((len(x), height))
    kept = (rows < height) & (columns < width)
    rows, columns, values = rows[kept], columns[kept], values[:, kept]
    for sample in range(len(x)):
        out[sample] = np.bincount(rows, values[sample] * x[sample, columns], minlength=height)
    return out


def host(x: Any) -> np.ndarray:
    """A tensor as an array of float64."""
    return x.detach().to("cpu", torch.float64).numpy()
