"""A warning for trainings whose solutions are all vertices, where the solution has no gradient."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch

from implicit_l2o._solution import Solution
from implicit_l2o.linear_program.standard_form import StandardForm

_ROUNDING = 1e-6  # of the largest variable: the bounds' projection puts a variable that is at its bound exactly there


class VertexWarning(UserWarning):
    """Every solution of a batch is a vertex: there the solution does not change with the costs, its gradient is zero."""


@dataclass(eq=False)
class VertexWatch:
    """Looks at the solutions of the 1st, 2nd, 4th, 8th ... batch, and warns when all of one are vertices.

    A point of a polyhedron is a vertex iff the columns of its free variables (off their bounds) are independent.
    """

    calls: int = 0

    @torch.no_grad()
    def __call__(self, solution: Solution, form: StandardForm, gamma: float) -> None:
        """Count a batch, and look at it if its turn has come."""
        self.calls += 1
        if self.calls & (self.calls - 1) or not bool(solution.converged.any()):
            return
        x = form.box.project(solution.z.detach())  # with the slacks
        x = x[solution.converged]
        lower, upper = (torch.as_tensor(b, dtype=x.dtype, device=x.device) for b in (form.box.lower, form.box.upper))
        if any(b.ndim > 1 for b in (lower, upper)):
            lower, upper = (b[solution.converged] if b.ndim > 1 and len(b) > 1 else b for b in (lower, upper))
        margin = _ROUNDING * float(x.abs().max().clamp_min(1.0))
        free = ((x - lower > margin) & (upper - x > margin)).cpu().numpy()
        if all(_independent(form.rows.matrix, sample) for sample in free):
            cause = (
                "gamma = 0 solves the linear program" if gamma == 0 else f"gamma = {gamma:g} is small for these costs"
            )
            warnings.warn(
                f"every solution of this batch of {len(x)} is a vertex, where the exact gradient is zero and that of JFB no "
                f"derivative: {cause}. Raise gamma, perturb the costs, or use the Fenchel-Young loss.",
                VertexWarning,
                stacklevel=5,
            )


def _independent(matrix: object, free: np.ndarray) -> bool:
    """Whether the columns of the free variables are linearly independent."""
    count = int(free.sum())
    if count == 0:
        return True
    if matrix is None:
        return False
    columns = matrix.tocsc()[:, free]  # pyright: ignore[reportAttributeAccessIssue]
    columns = columns[np.unique(columns.indices)].toarray()
    return count <= len(columns) and int(np.linalg.matrix_rank(columns)) == count
