"""Orders of elimination with little fill, and the patterns of the factors that they give."""

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from jaxtyping import Int

from implicit_l2o.interop.cvxpy import ldl_kernels as ldl


@dataclass(frozen=True, eq=False)
class Elimination:
    """Of symmetric matrices whose entries stand in the same places.

    Attributes:
        order: the unknowns, as they are eliminated.
        shape: the pattern of the factor.
        places: where the entries stand in the factor.
    """

    order: Int[np.ndarray, " size"]
    shape: ldl.Shape
    places: Int[np.ndarray, " entries"]

    @classmethod
    def of(
        cls, rows: Int[np.ndarray, " entries"], columns: Int[np.ndarray, " entries"], size: int, last: int = 0
    ) -> "Elimination":
        """Analyse.

        Args:
            rows, columns: of the entries of one triangle, diagonal included.
            size: unknowns ...
            last: ... and how many more follow, which are eliminated after them in the order that they have.
        """
        inner = np.maximum(rows, columns) < size
        order = np.concatenate([_order(rows[inner], columns[inner], size), np.arange(size, size + last)])
        rank = np.empty(size + last, np.int64)
        rank[order] = np.arange(size + last)
        ends = np.minimum(rank[rows], rank[columns]), np.maximum(rank[rows], rank[columns])
        upper = sp.csc_array((np.ones(len(rows)), ends), shape=(size + last, size + last))
        upper.sort_indices()
        shape = ldl.symbolic(size + last, upper.indptr.astype(np.int64), upper.indices.astype(np.int32))
        places = ldl.places_of(size + last, shape.columns, shape.below, rank[rows], rank[columns])
        return cls(order, shape, places)


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
