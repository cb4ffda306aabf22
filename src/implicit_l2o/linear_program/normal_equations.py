"""How `R W R^T` of a sparse `R` is assembled and eliminated: patterns, and an order with little fill; once a program."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from implicit_l2o.linear_program._ldl import Rows

# From so many rows on, and with so full a factor, whole rows are subtracted faster than single entries (measured, CPU).
_DENSE_ROWS = 16
_DENSE_SHARE = 0.3


def normal_equations(matrix: Any, m_eq: int) -> "tuple[Rows, np.ndarray]":
    """The compiled solver's form of a matrix, and the norms that its rows were divided by.

    Args:
        matrix: SciPy sparse `(m, n)`; the first `m_eq` rows are equations, the others inequalities.
        m_eq: number of equations.
    """
    import scipy.sparse as sp

    from implicit_l2o.linear_program._ldl import Rows

    R = sp.csr_array(matrix)
    norms = np.sqrt(np.asarray(R.multiply(R).sum(axis=1)).ravel())
    norms[norms == 0] = 1.0
    R = sp.csc_array(R.multiply(1 / norms[:, None]))
    R.eliminate_zeros()
    R.sort_indices()
    m, n = R.shape
    place_of, pairs, upper, counts = min(
        (_eliminated(R, place_of) for place_of in _orders(R, m_eq)), key=lambda found: np.square(found[3]).sum()
    )
    pair_start, places, product = pairs
    upper_start, upper_row = upper
    dense = bool(m >= _DENSE_ROWS and counts.sum() > _DENSE_SHARE * m * (m - 1) / 2)
    if dense:
        place_of = np.arange(m)
        pair_start, row, column, product = _pairs(R, place_of)
        places = np.concatenate([row, place_of]) * m + np.concatenate([column, place_of])
    rows = Rows(
        m=m,
        n=n,
        m_eq=m_eq,
        start=R.indptr.astype(np.int64),
        row=R.indices.astype(np.int64),
        value=R.data,
        pair_start=pair_start,
        pair_place=places.astype(np.int64),
        pair_product=product,
        upper_start=upper_start.astype(np.int64),
        upper_row=upper_row.astype(np.int64),
        lower_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        order=np.argsort(place_of),
        dense=dense,
    )
    return rows, norms


def _orders(R: Any, m_eq: int) -> Iterator[np.ndarray]:
    """The place of each row in an elimination: minimum degree (by SuperLU), and inequalities first where there are both.

    The inequalities of a relaxation often share no variable, so that eliminating them first fills in nothing among them.
    """
    import scipy.sparse as sp
    from scipy.sparse.linalg import splu

    m, n = R.shape
    pattern = R.copy()
    pattern.data = np.ones_like(pattern.data)
    dominant = (pattern @ pattern.T + 1e3 * n * sp.identity(m)).tocsc()  # so that nothing is pivoted
    lu = splu(
        dominant, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True, "Equil": False}
    )
    yield lu.perm_c.astype(np.int64)
    if 0 < m_eq < m:
        yield np.concatenate([np.arange(m - m_eq, m), np.arange(m - m_eq)])


def _eliminated(R: Any, place_of: np.ndarray) -> tuple[np.ndarray, Any, Any, np.ndarray]:
    """How an order assembles and fills: the pairs with their places, the upper triangle's pattern, the factor's columns."""
    m = R.shape[0]
    start, row, column, product = _pairs(R, place_of)
    keys = np.concatenate([column, place_of]) * m + np.concatenate([row, place_of])
    entries, places = np.unique(keys, return_inverse=True)
    upper = np.searchsorted(entries, np.arange(m + 1) * m), entries % m
    return place_of, (start, places, product), upper, _column_counts(*upper)


def _pairs(R: Any, place_of: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of entries in a column: where those of each column begin, their (smaller, larger) places, the products."""
    counts = np.diff(R.indptr)
    column, low, high, product = [], [], [], []
    for count in np.unique(counts[counts > 0]):
        columns = np.flatnonzero(counts == count)
        entry = R.indptr[columns][:, None] + np.arange(count)
        first, second = np.triu_indices(count)
        place, value = place_of[R.indices[entry]], R.data[entry]
        column.append(np.repeat(columns, len(first)))
        low.append(np.minimum(place[:, first], place[:, second]).ravel())
        high.append(np.maximum(place[:, first], place[:, second]).ravel())
        product.append((value[:, first] * value[:, second]).ravel())
    if not column:
        nothing = np.zeros(0, np.int64)
        return np.zeros(R.shape[1] + 1, np.int64), nothing, nothing, np.zeros(0)
    of = np.concatenate(column)
    by_column = np.argsort(of, kind="stable")
    low, high, product = (np.concatenate(part)[by_column] for part in (low, high, product))
    start = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=R.shape[1]))])
    return start.astype(np.int64), low, high, product


def _column_counts(upper_start: np.ndarray, upper_row: np.ndarray) -> np.ndarray:
    """Entries of each column of the factor below its diagonal, by the elimination tree (Davis 2006, section 4.1)."""
    m = len(upper_start) - 1
    parent, flag, counts = np.full(m, -1), np.full(m, -1), np.zeros(m, np.int64)
    for k in range(m):
        flag[k] = k
        for i in upper_row[upper_start[k] : upper_start[k + 1]]:
            while flag[i] != k:
                if parent[i] == -1:
                    parent[i] = k
                counts[i] += 1
                flag[i] = k
                i = parent[i]
    return counts
