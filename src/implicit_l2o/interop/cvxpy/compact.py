"""Douglas-Rachford on the slacks of inequalities and cones alone, for batches with one P and one A.

The map of `splitting` iterates the unknowns and the rows of the equations as well, which makes its state several times as
long: what CVXPY adds to a problem are mostly unknowns and the equations that define them.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.kept import AbstractSplitting
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.shared_factor import SharedFactor
from implicit_l2o.interop.cvxpy.splitting import weights

# What is left of the weights of x, and of the inverse ones of the equations, which both would be none.
_FREE, _FIRM = 1e-3, 1e-6
_SMALL = 512  # rows up to which a dense matrix of their size is the faster way


@dataclass(frozen=True, eq=False)
class CompactSplitting(AbstractSplitting):
    """`T(v) = s - u / R` with `s = Pi(v)` and `[[P, F^T, G^T], [F, 0, 0], [G, 0, -1/R]] (x, y, u) = (-q, f, g + v - 2 s)`.

    `F x = f` are the equations, `G x + s = g` the other rows. At a fixed point `x` is a solution, `y` are the multipliers of
    the equations and `u = R (s - v)` those of the rest.

    Attributes:
        cones: of the other rows.
        factor: of that matrix, a little regularised.
        right: `(B, n + m)`, `(-q, f, g)`.
        rho: `(1, k)`, the diagonal of R.
        response: how `u` answers to `g`, where a product with it takes less than a solve.
    """

    cones: il2o.ConeProduct
    factor: SharedFactor
    right: Float[Tensor, "B size"]
    rho: Float[Tensor, "1 k"]
    response: Float[Tensor, "k k"] | None

    @classmethod
    def of(cls, programs: ConePrograms, *, step: float) -> "CompactSplitting":
        """With weights `step` times those of equilibration."""
        sigma, rho = weights(programs, step)
        zero = programs.cones.zero
        rho[:, :zero] /= _FIRM
        factor = SharedFactor.of(programs, _FREE * sigma, rho)
        cones, right = replace(programs.cones, zero=0), _right(programs)
        response = torch.eye(cones.size, dtype=rho.dtype) if cones.size <= _SMALL else None
        if response is not None and cones.size:
            response = factor.solve_rows(response, right.shape[1] - cones.size)
        return cls(cones, factor, right, rho[:, zero:], response)

    def with_data(self, programs: ConePrograms) -> "CompactSplitting":
        """The same matrices with other costs and right-hand sides."""
        return replace(self, right=_right(programs))

    @property
    def first(self) -> int:
        """The first of the other rows in the equations."""
        return self.right.shape[1] - self.cones.size

    @cached_property
    def _base(self) -> Float[Tensor, "B k"]:
        return self.factor.solve_rows(self.right, 0)[:, self.first :]

    def __call__(self, v: Float[Tensor, "B k"]) -> Float[Tensor, "B k"]:
        """`T(v)`."""
        s = self.cones.project(v)
        return s - (self._base + self.respond(v - 2 * s)) / self.rho

    def respond(self, g: Float[Tensor, "B k"]) -> Float[Tensor, "B k"]:
        """How `u` answers to `g`, a product with a symmetric matrix."""
        return g @ self.response if self.response is not None else self.factor.solve_rows(g, self.first)

    def lift(self, w: Float[Tensor, "B m"]) -> Float[Tensor, "B k"]:
        """The fixed point of a solution with `w = s - y`."""
        w = w[:, w.shape[1] - self.cones.size :]
        s = self.cones.project(w)
        return s + (w - s) / self.rho

    def point(self, v: Float[Tensor, "B k"]) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B m"]]:
        """`x` and `w = s - y`."""
        s = self.cones.project(v)
        x, y = self.answer(self.right, v - 2 * s)
        return x, torch.cat([-y[:, : y.shape[1] - s.shape[1]], self.slacks(v, s)], 1)

    def slacks(self, v: Float[Tensor, "B k"], s: Float[Tensor, "B k"]) -> Float[Tensor, "B k"]:
        """`w` of the other rows."""
        return s + self.rho * (v - s)

    def answer(
        self, right: Float[Tensor, "B size"], more: Float[Tensor, "B k"]
    ) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B m"]]:
        """`x` and `(y, u)` of a right-hand side with `more` beside `g`."""
        right = right.clone()
        right[:, self.first :] += more
        found = self.factor.solve_rows(right, 0)
        n = self.factor.A.shape[1]
        return found[:, :n], found[:, n:]


def _right(programs: ConePrograms) -> Float[Tensor, "B size"]:
    return torch.as_tensor(np.concatenate([-programs.q, programs.b], 1))
