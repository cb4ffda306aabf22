"""Where the variables of a CVXPY problem stand in the solutions of its cone program, and what it keeps of a parameter."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_l2o.interop.cvxpy.extra import cvxpy_module


@dataclass(frozen=True, eq=False)
class Place:
    """Where a variable stands: consecutive entries of the primal or the dual solution, and what becomes of them."""

    dual: bool
    start: int
    size: int
    shape: tuple[int, ...]
    # None for all entries in column-major order; ("primal", n) or ("dual", n) for the triangle of a symmetric matrix,
    # ("diagonal", n) for a diagonal, ("sparse", k) for k entries.
    triangle: tuple[str, int] | None = None
    exponential: bool = False
    entries: np.ndarray | None = None  # which ones, row by row, of a sparse variable


@dataclass(frozen=True, eq=False)
class Kept:
    """Which entries of a parameter CVXPY keeps: those of an upper triangle, a diagonal, or a sparsity pattern.

    Attributes:
        entries: their places, row by row.
        symmetric: whether the others are the same ones again.
    """

    entries: np.ndarray
    symmetric: bool


def kept_of(parameter: Any, ids: dict[int, int]) -> Kept | None:
    """What CVXPY lowered a parameter to, in its order."""
    if parameter.id not in ids or not getattr(parameter, "_has_dim_reducing_attr", False):
        return None
    n = parameter.shape[-1]
    if any(parameter.attributes.get(a) for a in ("symmetric", "hermitian", "PSD", "NSD")):
        rows, columns = np.triu_indices(n)
        return Kept(rows * n + columns, symmetric=True)
    if parameter.attributes.get("diag"):
        return Kept(np.arange(n) * (n + 1), symmetric=False)
    return Kept(_sparse_places(parameter), symmetric=False)


def _sparse_places(leaf: Any) -> np.ndarray:
    """The places of a sparse parameter's or variable's entries, row by row."""
    return np.ravel_multi_index(leaf.sparse_idx, leaf.shape).astype(np.int64)


def primal_place(variable: Any, start: int, gp: bool) -> Place:
    """Where a variable stands, whose first entry is `start`."""
    shape = tuple(variable.shape)
    if len(shape) == 2 and any(variable.attributes.get(a) for a in ("symmetric", "PSD", "NSD")):
        n = shape[0]
        return Place(False, start, n * (n + 1) // 2, shape, ("primal", n), gp)
    if variable.attributes.get("diag"):
        return Place(False, start, shape[0], shape, ("diagonal", shape[0]), gp)
    if variable.attributes.get("sparsity"):
        entries = _sparse_places(variable)
        return Place(False, start, len(entries), shape, ("sparse", len(entries)), gp, entries)
    return Place(False, start, variable.size, shape, None, gp)


def dual_place(variable: Any, constraint: Any, slices: dict[int, slice]) -> Place:
    """Where a dual variable of a constraint stands, whose rows are among `slices`.

    Raises:
        NotImplementedError: the constraint has no rows of its own, or is of many cones.
    """
    cp = cvxpy_module()

    if constraint.id not in slices:
        raise NotImplementedError(f"CvxpyLayer has no dual variable for {constraint}: CVXPY reformulates it.")
    curved = isinstance(constraint, cp.constraints.SOC | cp.constraints.ExpCone | cp.constraints.PowCone3D)
    # CVXPY interleaves the rows of many such cones; one cone is in the order of its dual variables.
    if curved and constraint.num_cones() > 1:
        raise NotImplementedError(f"CvxpyLayer has dual variables of single cones; got {constraint}.")
    start = slices[constraint.id].start
    for dual in constraint.dual_variables:
        if dual.id == variable.id:
            break
        start += dual.size
    shape = tuple(variable.shape)
    if isinstance(constraint, cp.constraints.PSD):
        return Place(True, start, shape[0] * (shape[0] + 1) // 2, shape, ("dual", shape[0]))
    return Place(True, start, variable.size, shape)
