"""Symmetric equations `[[P, A^T], [A, -E]]` of a batch of cone programs: their pattern, which is analysed once, and factors.

E is positive semidefinite: diagonal for zero and nonnegative cones, with a block for each exponential cone.
"""

import warnings
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from jaxtyping import Float, Shaped

from implicit_l2o._numba import has_numba
from implicit_l2o.interop.cvxpy.canonical import Canonical
from implicit_l2o.interop.cvxpy.program import ConePrograms

WIDTH = 8  # samples of a chunk, as the kernels have it
_REGULAR = 1e-9  # what is added to the pivots
_ROOM = 2e9  # bytes

_KNOWN: "weakref.WeakKeyDictionary[Canonical, Pattern | None]" = weakref.WeakKeyDictionary()

Chunks = Float[np.ndarray, "chunks rows 8"]


def to_chunks(rows: Shaped[np.ndarray, "B k"]) -> Shaped[np.ndarray, "chunks k 8"]:
    """Eight samples in the last axis; the last sample again where their number is no multiple of eight."""
    count = -len(rows) % WIDTH
    if count:
        rows = np.concatenate([rows, np.broadcast_to(rows[-1:], (count, rows.shape[1]))])
    return np.ascontiguousarray(rows.reshape(-1, WIDTH, rows.shape[1]).transpose(0, 2, 1))


def from_chunks(chunks: Chunks, batch: int) -> Float[np.ndarray, "B k"]:
    """One row a sample."""
    return np.ascontiguousarray(chunks.transpose(0, 2, 1).reshape(-1, chunks.shape[1])[:batch])


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where the entries of the equations stand, in the order P, A, E, and the pattern of their factor.

    Attributes:
        structure: for the kernels.
        from_P, from_A: which entries of the canonical P and `[-A, b]` they are.
        shift: of the pivots, which makes the equations quasi-definite.
    """

    structure: Any
    from_P: np.ndarray
    from_A: np.ndarray
    shift: Float[np.ndarray, " size"]

    @classmethod
    def of(cls, canonical: Canonical) -> "Pattern":
        """Analyse."""
        # Numba is in an extra.
        from implicit_l2o.interop.cvxpy import interior_kernels as kernels
        from implicit_l2o.interop.cvxpy import ldl_kernels as ldl

        n, m, cones = canonical.n, canonical.m, canonical.cones
        from_P = np.zeros(0, int)
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        if canonical.P is not None:
            from_P = np.flatnonzero(canonical.P.rows <= canonical.P.columns)
            parts.append((canonical.P.rows[from_P], canonical.P.columns[from_P]))
        from_A = np.flatnonzero(canonical.Ab.columns < n)
        parts.append((n + canonical.Ab.rows[from_A], canonical.Ab.columns[from_A]))
        first, linear = cones.zero + cones.nonnegative, len(from_P) + len(from_A)
        parts.append((n + np.arange(first), n + np.arange(first)))
        lower = np.tril_indices(3)
        triples = cones.triples("exponential").numpy()
        parts.append(((n + triples[:, lower[0]]).reshape(-1), (n + triples[:, lower[1]]).reshape(-1)))
        rows, columns = (np.concatenate([part[k] for part in parts]).astype(np.int32) for k in (0, 1))
        order = _order(rows, columns, n + m)
        rank = np.empty(n + m, np.int64)
        rank[order] = np.arange(n + m)
        upper = sp.csc_array(
            (np.ones(len(rows)), (np.minimum(rank[rows], rank[columns]), np.maximum(rank[rows], rank[columns]))),
            shape=(n + m, n + m),
        )
        upper.sort_indices()
        shape = ldl.symbolic(n + m, upper.indptr.astype(np.int64), upper.indices.astype(np.int32))
        places = ldl.places_of(n + m, shape[0], shape[1], rank[rows], rank[columns])
        signs = np.concatenate([np.ones(n), -np.ones(m)])[order]
        structure = kernels.Structure(
            *(n, m, cones.zero, first, len(triples), linear, linear + first, rows, columns, places),
            *(order, signs, shape),
        )
        return cls(structure, from_P, from_A, _REGULAR * signs)

    @property
    def fill(self) -> int:
        """Entries of the factor below the diagonal."""
        return len(self.structure.shape[1])

    def fits(self, batch: int) -> bool:
        """Whether the factors of a batch take less than `_ROOM`."""
        return self.fill * 8 * (batch + -batch % WIDTH) <= _ROOM

    def values(self, programs: ConePrograms) -> Chunks:
        """The entries of P and A, with zeros for E."""
        parts = [] if programs.P is None else [programs.P[:, self.from_P]]
        parts.append(-programs.Ab[:, self.from_A])
        rest = len(self.structure.rows) - self.structure.linear
        return to_chunks(np.concatenate([*parts, np.zeros((len(programs), rest))], 1))


def takes(canonical: Canonical) -> bool:
    """Whether there is none but zero, nonnegative and exponential cones."""
    cones = canonical.cones
    return canonical.n > 0 and not (cones.second_order or cones.semidefinite or cones.power)


def pattern_of(canonical: Canonical) -> Pattern | None:
    """The pattern, made once; None without numba, or where there are cones that it does not take."""
    if canonical not in _KNOWN:
        _KNOWN[canonical] = Pattern.of(canonical) if has_numba() and takes(canonical) else None
    return _KNOWN[canonical]


def _order(rows: np.ndarray, columns: np.ndarray, size: int) -> np.ndarray:
    """An order of elimination with little fill: minimum degree, as SuperLU has it."""
    off = rows != columns
    i, j = np.concatenate([rows[off], columns[off]]), np.concatenate([columns[off], rows[off]])
    matrix = sp.csc_array((np.full(len(i), -1.0), (i, j)), shape=(size, size))
    matrix = (matrix + sp.diags_array(1.0 + np.asarray(abs(matrix).sum(0)))).tocsc()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sp.SparseEfficiencyWarning)
        found = spla.splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return np.argsort(found.perm_c)
