"""Symmetric equations `[[P, A^T], [A, -E]]` of a batch of cone programs: their pattern, which is analysed once, and factors.

E is positive semidefinite: diagonal for zero and nonnegative cones, with a block for each other one. That of a large
second-order cone is a diagonal and two more unknowns, `E = D + u u^T - v v^T`, which keeps the equations sparse.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

import implicit_l2o as il2o
from implicit_l2o._numba import has_numba
from implicit_l2o.interop.cvxpy.bends import SLIM
from implicit_l2o.interop.cvxpy.canonical import Canonical
from implicit_l2o.interop.cvxpy.chunks import WIDTH, Chunks, aligned, to_chunks
from implicit_l2o.interop.cvxpy.program import ConePrograms

_REGULAR = 1e-9  # what is added to the pivots
_ROOM = 2e9  # bytes

_KNOWN: "weakref.WeakKeyDictionary[Canonical, Pattern | None]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where the entries of the equations stand, in the order P, A, E, and the pattern of their factor.

    Attributes:
        structure: for the kernels.
        from_P, from_A: which entries of the canonical P and `[-A, b]` they are.
        shift: of the pivots, which makes the equations quasi-definite.
        first_entries: `(m,)` where the entries of a cone's block start, in its first row.
    """

    structure: Any
    from_P: np.ndarray
    from_A: np.ndarray
    shift: Float[np.ndarray, " size"]
    first_entries: np.ndarray

    @classmethod
    def of(cls, canonical: Canonical) -> "Pattern":
        """Analyse."""
        # Numba is in an extra.
        from implicit_l2o.interop.cvxpy import equation_kernels as equations
        from implicit_l2o.interop.cvxpy.elimination import Elimination

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
        corner = _Corner.of(cones, n, linear + first)
        parts += corner.parts
        rows, columns = (np.concatenate([part[k] for part in parts]).astype(np.int32) for k in (0, 1))
        # The unknowns of large cones are eliminated last, when their pivots are far from zero.
        size = n + m + corner.more
        elimination = Elimination.of(rows, columns, n + m, corner.more)
        order = elimination.order
        signs = np.concatenate([np.ones(n), -np.ones(m), np.tile([1.0, -1.0], corner.more // 2)])[order]
        degree = cones.nonnegative + len(cones.second_order) + sum(cones.semidefinite) + 3 * len(corner.triples)
        alphas = np.concatenate([np.zeros(cones.exponential), cones.power])
        diagonal = np.flatnonzero(rows == columns)
        diagonal = diagonal[(diagonal < linear) | (diagonal >= linear + first)]
        structure = equations.Structure(
            *(n, m, size, cones.zero, first, max(1, degree), linear, linear + first),
            *(corner.seconds, corner.matrices, corner.triples, alphas),
            *(rows, columns, diagonal, elimination.places, order, signs, elimination.shape),
        )
        first_entries = np.zeros(m, int)
        first_entries[corner.seconds[:, 0]] = corner.seconds[:, 2]
        first_entries[corner.matrices[:, 0]] = corner.matrices[:, 2]
        first_entries[corner.triples[:, 0]] = corner.triples[:, 1]
        return cls(structure, from_P, from_A, _REGULAR * signs, first_entries)

    @property
    def fill(self) -> int:
        """Entries of the factor below the diagonal."""
        return len(self.structure.shape.below)

    @property
    def multiplications(self) -> float:
        """Of a factorisation."""
        return float(np.square(np.diff(self.structure.shape.columns).astype(float)).sum()) / 2

    def parts(self, batch: int) -> list[slice]:
        """Of a batch, so that the factors of each take less than `_ROOM`; none where those of one chunk take more."""
        most = int(_ROOM / (8 * max(self.fill, 1))) // WIDTH * WIDTH
        return [slice(first, min(first + most, batch)) for first in range(0, batch, most)] if most else []

    def values(self, programs: ConePrograms) -> Chunks:
        """The entries of P and A, with zeros for E."""
        parts = [] if programs.P is None else [programs.P[:, self.from_P]]
        parts.append(-programs.Ab[:, self.from_A])
        linear = to_chunks(np.concatenate(parts, 1))
        values = aligned(len(linear), len(self.structure.rows), WIDTH)
        values[:, : self.structure.linear] = linear
        values[:, self.structure.linear :] = 0.0
        return values


@dataclass(frozen=True, eq=False)
class _Corner:
    """Where the entries of E stand, but for zero and nonnegative cones.

    Attributes:
        parts: their rows and columns, in the equations.
        more: unknowns beside those of the program.
        seconds, matrices, triples: for the kernels.
    """

    parts: list[tuple[np.ndarray, np.ndarray]]
    more: int
    seconds: np.ndarray
    matrices: np.ndarray
    triples: np.ndarray

    @classmethod
    def of(cls, cones: il2o.ConeProduct, n: int, entry: int) -> "_Corner":
        """Go through the cones."""
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        seconds, matrices, triples, more, row = [], [], [], 0, cones.zero + cones.nonnegative
        start, square = n + cones.size, 0
        for size in cones.second_order:
            own = n + row + np.arange(size)
            if size > SLIM:
                u, v = start + more, start + more + 1
                parts += [(own, own), (np.full(size, u), own), (np.full(size, v), own), (np.array([u, v]),) * 2]
                seconds.append((row, size, entry, u))
                more, entry = more + 2, entry + 3 * size + 2
            else:
                parts.append(_triangle(own))
                seconds.append((row, size, entry, -1))
                entry += size * (size + 1) // 2
            row += size
        for order in cones.semidefinite:
            size = order * (order + 1) // 2
            parts.append(_triangle(n + row + np.arange(size)))
            matrices.append((row, order, entry, square))
            row, entry, square = row + size, entry + size * (size + 1) // 2, square + order * order
        for _ in range(cones.exponential + len(cones.power)):
            parts.append(_triangle(n + row + np.arange(3)))
            triples.append((row, entry))
            row, entry = row + 3, entry + 6
        tables = ((seconds, 4), (matrices, 4), (triples, 2))
        return cls(parts, more, *(np.array(table, int).reshape(-1, width) for table, width in tables))


def _triangle(own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    i, j = np.tril_indices(len(own))
    return own[i], own[j]


def pattern_of(canonical: Canonical) -> Pattern | None:
    """The pattern, made once; None without numba or unknowns."""
    if canonical not in _KNOWN:
        _KNOWN[canonical] = Pattern.of(canonical) if has_numba() and canonical.n else None
    return _KNOWN[canonical]
