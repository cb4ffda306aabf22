"""Backward modes on the solution of a cone program.

Every mode turns the cotangents of `x` and `y` into two vectors `(a, c)`. Those of the data are then
`-a` for q, `c` for b, `-(y a^T + c x^T)` for A and `-a x^T` for P; `differentiated` puts them together.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.bends import bends_at, derivative_product
from implicit_l2o.interop.cvxpy.kkt import KKT, is_polyhedral
from implicit_l2o.interop.cvxpy.pattern import pattern_of
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.splitting import ConicSplitting

if TYPE_CHECKING:  # it compiles, and needs numba
    from implicit_l2o.interop.cvxpy.chunked import Chunked
    from implicit_l2o.interop.cvxpy.compact import CompactSplitting

_ENOUGH = 1e-9  # residual of the batched factors relative to the cotangent, below which they stand


@dataclass(frozen=True, eq=False)
class Term:
    """What one application of a map contributes to the cotangents of the data.

    Attributes:
        a: `(B, n)`.
        c: `(B, m)`.
        x: the point it multiplies; None for the solution.
        y: its multipliers; None for those of the solution.
    """

    a: Float[np.ndarray, "B n"]
    c: Float[np.ndarray, "B m"]
    x: Float[np.ndarray, "B n"] | None = None
    y: Float[np.ndarray, "B m"] | None = None


class AbstractRule(ABC):
    """From cotangents `(B, n)`, `(B, m)` of the solution and the multipliers to terms and a residual `(B,)`."""

    @abstractmethod
    def __call__(
        self, of_x: Float[np.ndarray, "B n"], of_y: Float[np.ndarray, "B m"]
    ) -> tuple[list[Term], Float[np.ndarray, " B"]]:
        """Apply the mode."""

    @property
    def twice(self) -> "ExactRule | None":
        """The rule itself where its gradient can be differentiated again."""
        return None


@dataclass(frozen=True, eq=False)
class ExactRule(AbstractRule):
    """The implicit function theorem on the optimality conditions, by factoring them."""

    programs: ConePrograms
    w: Float[np.ndarray, "B m"]
    kkt: "KKT | Chunked | None"

    def __call__(self, of_x: np.ndarray, of_y: np.ndarray) -> tuple[list[Term], np.ndarray]:
        """Solve the transposed equations."""
        a, c, residual = self.solve(of_x, self.bend(of_y), transposed=True)
        return [Term(a, c)], residual

    @property
    def twice(self) -> "ExactRule | None":
        """Where the derivative of the projection does not change with the point."""
        return self if is_polyhedral(self.programs.cones) else None

    def bend(self, v: Float[np.ndarray, "B m"]) -> Float[np.ndarray, "B m"]:
        """`(D - I) v`."""
        return derivative(self.programs.cones, self.w)(v) - v if v.any() else np.zeros_like(v)

    def solve(
        self, top: Float[np.ndarray, "B n"], bottom: Float[np.ndarray, "B m"], *, transposed: bool
    ) -> tuple[Float[np.ndarray, "B n"], Float[np.ndarray, "B m"], Float[np.ndarray, " B"]]:
        """The equations of `kkt`, and their residuals."""
        if self.kkt is not None:
            return self._by(self.kkt, top, bottom, transposed)
        pattern = pattern_of(self.programs.canonical)
        parts = pattern.parts(len(top)) if pattern is not None and self.programs.canonical.m else []
        if pattern is None or not parts:
            return KKT.at(self.programs, self.w).solve(top, bottom, transposed=transposed)
        from implicit_l2o.interop.cvxpy.chunked import Chunked  # which compiles

        found = []
        for part in parts:
            own = replace(self, programs=self.programs.take(np.arange(part.start, part.stop)), w=self.w[part])
            kkt = Chunked.at(pattern, own.programs, own.w, None)
            found.append(own._by(kkt, top[part], bottom[part], transposed))
        a, c, residual = (np.concatenate(each) for each in zip(*found, strict=True))
        return a, c, residual

    def _by(
        self, kkt: "KKT | Chunked", top: np.ndarray, bottom: np.ndarray, transposed: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if isinstance(kkt, KKT):
            return KKT.at(self.programs, self.w, kkt).solve(top, bottom, transposed=transposed)
        a, c, residual = kkt.at(kkt.pattern, self.programs, self.w, kkt).solve(top, bottom, transposed=transposed)
        open_ = np.flatnonzero(~(residual <= _ENOUGH))
        if len(open_):  # at a degenerate vertex, where that takes least squares
            one_by_one = KKT.at(self.programs.take(open_), self.w[open_])
            a[open_], c[open_], residual[open_] = one_by_one.solve(top[open_], bottom[open_], transposed=transposed)
        return a, c, residual


def exact_rule(
    programs: ConePrograms, w: Float[np.ndarray, "B m"], kkt: "KKT | Chunked | CompactSplitting | None", *, whole: bool
) -> AbstractRule:
    """By the factors or the splitting that the solver ended with; `whole` says whether they are those of these samples."""
    if kkt is None or isinstance(kkt, KKT):
        return ExactRule(programs, w, kkt)
    # These compile.
    from implicit_l2o.interop.cvxpy.compact import CompactSplitting
    from implicit_l2o.interop.cvxpy.krylov import KrylovRule

    if isinstance(kkt, CompactSplitting):
        return KrylovRule(programs, kkt.with_data(programs), w)
    return ExactRule(programs, w, kkt if whole else None)


@dataclass(frozen=True, eq=False)
class SplittingRule(AbstractRule):
    """The modes that differentiate the splitting map: JFB, a Neumann series, and an iterative solve of the adjoint."""

    splitting: ConicSplitting
    x: Float[np.ndarray, "B n"]
    w: Float[np.ndarray, "B m"]
    backward: il2o.AbstractBackward

    @torch.no_grad()
    def __call__(self, of_x: np.ndarray, of_y: np.ndarray) -> tuple[list[Term], np.ndarray]:
        """The cotangent of `z = T(z)` under the mode, then one transposed step."""
        s, residual = self.splitting, np.zeros(len(of_x))
        if isinstance(self.backward, il2o.JFB) and not of_y.any():  # no derivative of the projection is asked for
            a = s.factor.solve(torch.as_tensor(of_x))
            return [Term(a.numpy(), (s.rho * s.factor.multiply(a)).numpy())], residual
        z = s.lift(torch.as_tensor(self.x), torch.as_tensor(self.w))
        D = derivative(s.cones, z[:, of_x.shape[1] :].numpy())
        cotangent = of_readout(s, D, of_x, of_y)
        if isinstance(self.backward, il2o.Neumann):
            term = cotangent
            for _ in range(self.backward.k):
                term = pull_back(s, D, term)[0]
                cotangent = cotangent + term
        elif isinstance(self.backward, il2o.Implicit):
            solver = self.backward.solver
            if isinstance(solver, il2o.NormalCG):
                raise TypeError("a CvxpyLayer has no product with dT/dz, which NormalCG needs.")
            if isinstance(solver, il2o.GMRES):
                solve = solver.solve(lambda u: u - pull_back(s, D, u)[0], cotangent)
                cotangent, residual = solve.u, solve.residual.numpy()
            else:
                unit = cotangent.norm(dim=1, keepdim=True).clamp_min(1e-300)
                start = cotangent / unit
                point = il2o.fixed_point(
                    lambda u: start + pull_back(s, D, u)[0], start, solver=solver, on_failure="ignore"
                )
                cotangent, residual = point.z * unit, point.residual.numpy()
        _, a, c = pull_back(s, D, cotangent)
        return [Term(a, c)], residual


Product = Callable[[np.ndarray], np.ndarray]


def of_readout(s: ConicSplitting, D: Product, of_x: np.ndarray, of_y: np.ndarray) -> Float[Tensor, "B latent"]:
    """The cotangent of `z` from those of `x` and of `y = R (Pi(v) - v)`, which is read off its second part."""
    gy = torch.as_tensor(of_y) * s.rho
    return torch.cat([torch.as_tensor(of_x), torch.as_tensor(D(gy.numpy())) - gy], 1)


def pull_back(s: ConicSplitting, D: Product, u: Tensor) -> tuple[Float[Tensor, "B latent"], np.ndarray, np.ndarray]:
    """`u dT/dz`, and the vectors `(a, c)` of what `u` says of the data."""
    n = s.q.shape[1]
    t = s.factor.solve(u[:, :n] - s.factor.multiply_transposed(u[:, n:]))
    ahead = s.rho * s.factor.multiply(t)
    bent = torch.as_tensor(D((u[:, n:] + 2 * ahead).numpy()))
    return torch.cat([s.sigma * t, u[:, n:] + ahead - bent], 1), t.numpy(), (ahead + u[:, n:]).numpy()


def derivative(cones: il2o.ConeProduct, w: np.ndarray) -> Product:
    """The product with the derivative of the projection at `w`, which is symmetric."""
    free = w[:, : cones.zero + cones.nonnegative] > 0
    free[:, : cones.zero] = False
    bends = bends_at(cones, w)
    return lambda v: derivative_product(free, bends, v)
