"""Total variation by Douglas-Rachford on the graph of projector and gradient: tens of iterations, not thousands.

Rudin, Osher and Fatemi (1992); Sidky and Pan, Image reconstruction in circular cone-beam computed tomography by constrained,
total-variation minimization (2008). The splitting: Parikh and Boyd, Block splitting for distributed optimization (2014).
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.physics import Projector

_CHUNK = 256
_DATA_SCALE, _GRADIENT_SCALE = (
    10.0,
    0.5,
)  # units of w and p, chosen with the step on validation phantoms for speed alone
_STEP = 0.03
_RELAXATION = 1.8


@final
@dataclass(frozen=True, eq=False)
class TotalVariationGraph(il2o.AbstractSet):
    """The subspace `{(x, w, p) : w = a A x, p = b D x}` with the projector `A` and the gradient `D`.

    Without `A` the projection of `(x0, p0)` is `y = M^-1 (x0 + b D^T p0)` with `M = I + b^2 D^T D`, diagonal in the cosine
    basis. With it, `x = y + a M^-1 A^T q` and `w = w0 - q`, where `(I + a^2 A M^-1 A^T) q = w0 - a A y`: a dense matrix of
    the size of a sinogram, inverted once in float64.

    Args:
        projector: `A`, in float32 or float64.
        data_scale: `a`.
        gradient_scale: `b`.

    Raises:
        ValueError: a scale is not positive and finite.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.base import scanner
        >>> from implicit_l2o.applications.ct.total_variation import TotalVariationGraph
        >>> graph = TotalVariationGraph(scanner(8, 4), data_scale=2.0, gradient_scale=1.0)
        >>> x = torch.rand(1, 1, 8, 8)
        >>> bool((graph.violation(graph.lift(x)) < 1e-5).all())
        True
    """

    projector: Projector = field(metadata={"own_domain": True})
    data_scale: float = _DATA_SCALE
    gradient_scale: float = _GRADIENT_SCALE
    gradient: il2o.FiniteDifferences2D = field(init=False, metadata={"own_domain": True})
    _cosine: Tensor = field(init=False, repr=False)
    _inverse: Tensor = field(init=False, repr=False)  # of M, in the cosine basis
    _inner: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("data_scale", "gradient_scale"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"TotalVariationGraph needs a positive, finite {name}; got {value}.")
        size, dtype = self.projector.geometry.size, self.projector.dtype
        cosine = _cosine_basis(size)
        inverse = 1 / (1 + self.gradient_scale**2 * _laplacian_eigenvalues(size))
        inner = _inner_inverse(self.projector, cosine, inverse, self.data_scale)
        object.__setattr__(self, "gradient", il2o.FiniteDifferences2D((1, size, size)))
        for name, value in (("_cosine", cosine), ("_inverse", inverse), ("_inner", inner)):
            object.__setattr__(self, name, value.to(dtype))

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of `x`, `w` and `p`."""
        return (self.projector.in_shape, self.projector.out_shape, self.gradient.out_shape)

    def lift(self, x: Float[Tensor, "B 1 n n"]) -> Float[Tensor, "B total"]:
        """The point `(x, a A x, b D x)`."""
        return self._join(x, self.data_scale * self.projector.apply(x))

    def image(self, z: Float[Tensor, "B total"]) -> Float[Tensor, "B 1 n n"]:
        """The part `x` of `(x, w, p)`."""
        shape = self.projector.in_shape
        return z[:, : math.prod(shape)].reshape(-1, *shape)

    def project(self, x: Float[Tensor, "B total"]) -> Float[Tensor, "B total"]:
        """The nearest point of the graph."""
        a, b, A = self.data_scale, self.gradient_scale, self.projector
        parts = x.split([math.prod(size) for size in self.sizes], dim=1)
        image, w, p = (part.reshape(-1, *size) for part, size in zip(parts, self.sizes, strict=True))
        y = self._solve(image + b * self.gradient.adjoint(p))
        # By the misfit, which is small near a solution, so that rounding is relative to it and not to the data.
        q = ((w - a * A.apply(y)).flatten(1) @ self._inner).reshape(w.shape)
        return self._join(y + a * self._solve(A.adjoint(q)), w - q)

    def _join(self, x: Tensor, w: Tensor) -> Tensor:
        return torch.cat([x.flatten(1), w.flatten(1), self.gradient_scale * self.gradient.apply(x).flatten(1)], 1)

    def _solve(self, y: Tensor) -> Tensor:
        """`M^-1 y`."""
        return _filtered(y, self._cosine, self._inverse)


@final
@dataclass(frozen=True, eq=False)
class SquaredDistance(il2o.AbstractFunction):
    """`weight |x - center|^2 / 2`; `prox(x, s) = (x + s weight center) / (1 + s weight)`.

    Args:
        center: `(1 or B, *shape)`.
        weight: positive.
    """

    center: Tensor = field(metadata=il2o.VECTOR)
    weight: float

    def prox(self, x: Float[Tensor, "B *shape"], step: float | Tensor) -> Float[Tensor, "B *shape"]:
        """A weighted mean of `x` and the centre."""
        weight = step * self.weight
        if isinstance(weight, Tensor) and weight.ndim == 1:
            weight = weight.reshape(-1, *[1] * (x.ndim - 1))
        return (x + weight * self.center) / (1 + weight)

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`weight |x - center|^2 / 2`."""
        return 0.5 * self.weight * (x - self.center).square().flatten(1).sum(1)


def ball_problem(
    graph: TotalVariationGraph, d: Float[Tensor, "B angles bins"], radius: float | Float[Tensor, " B"]
) -> il2o.Problem:
    """`min TV(x)` subject to `0 <= x <= 1` and `|A x - d| <= radius`, on `(x, w, p)`.

    Args:
        graph: says `A` and the units.
        d: sinograms.
        radius: of each sinogram; 0 asks for `A x = d`.
    """
    a = graph.data_scale
    return _problem(graph, il2o.L2Ball(a * radius, center=a * d))


def penalised_problem(graph: TotalVariationGraph, d: Float[Tensor, "B angles bins"], weight: float) -> il2o.Problem:
    """`min |A x - d|^2 / 2 + weight TV(x)` subject to `0 <= x <= 1`, on `(x, w, p)`.

    Args:
        graph: says `A` and the units.
        d: sinograms.
        weight: of the total variation.
    """
    a = graph.data_scale
    # Divided by the weight, so that the total variation is of weight 1 and one step suits all weights.
    return _problem(graph, SquaredDistance(a * d, 1 / (weight * a**2)))


def solve_total_variation(
    problem: il2o.Problem,
    graph: TotalVariationGraph,
    x0: Float[Tensor, "B 1 n n"],
    *,
    rtol: float = 2e-5,
    max_steps: int = 2000,
    step: float = _STEP,
    on_failure: Literal["warn", "raise", "ignore"] = "warn",
) -> il2o.Solution:
    """Solve one of the problems above; `Solution.x` is `(x, w, p)`, of which `graph.image` takes the image.

    Args:
        problem: made for the same graph.
        graph: the coupling of `x`, `w` and `p`.
        x0: starting images.
        rtol: relative tolerance of the residual on `(x, w, p)`.
        max_steps: the most iterations.
        step: of Douglas-Rachford, in units in which the total variation has weight 1; any positive number converges.
        on_failure: see `solve`.
    """
    stopping = il2o.Stopping(atol=0.0, rtol=rtol, max_steps=max_steps)
    solver = il2o.KrasnoselskiiMann(stopping, relaxation=_RELAXATION)
    with torch.no_grad():
        return il2o.solve(
            il2o.DouglasRachford(problem, step=step), graph.lift(x0), solver=solver, on_failure=on_failure
        )


@lru_cache(maxsize=2)
def total_variation_graph(projector: Projector) -> TotalVariationGraph:
    """The graph in the units that converge fastest; one for all that ask for the same projector."""
    return TotalVariationGraph(projector)


def _problem(graph: TotalVariationGraph, fidelity: il2o.AbstractProximable) -> il2o.Problem:
    terms = (il2o.Box(0.0, 1.0), fidelity, il2o.GroupL2Norm(1 / graph.gradient_scale, dim=0))
    return il2o.Problem(g=il2o.SeparableSum(terms, sizes=graph.sizes), h=graph)


def _cosine_basis(size: int) -> Float[Tensor, "n n"]:
    """The orthonormal discrete cosine transform (II), in which `D^T D` is diagonal."""
    k = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi * (k + 0.5) * k[:, None] / size) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def _laplacian_eigenvalues(size: int) -> Float[Tensor, "n n"]:
    one = 4 * torch.sin(math.pi * torch.arange(size, dtype=torch.float64) / (2 * size)).square()
    return one[:, None] + one


def _filtered(y: Tensor, cosine: Tensor, response: Tensor) -> Tensor:
    return cosine.mT @ (response * (cosine @ y @ cosine.mT)) @ cosine


@torch.no_grad()
def _inner_inverse(projector: Projector, cosine: Tensor, inverse: Tensor, a: float) -> Float[Tensor, "m m"]:
    """`(I + a^2 A M^-1 A^T)^-1`, in float64."""
    exact = Projector(projector.geometry, dtype=torch.float64)
    rows = math.prod(exact.out_shape)
    matrix = torch.eye(rows, dtype=torch.float64)
    for start in range(0, rows, _CHUNK):
        units = torch.zeros(min(_CHUNK, rows - start), rows, dtype=torch.float64)
        units.diagonal(start).fill_(1.0)
        units = units.reshape(-1, *exact.out_shape)
        image = exact.apply(_filtered(exact.adjoint(units), cosine, inverse)).flatten(1)
        matrix[start : start + _CHUNK] += a**2 * image
    return torch.cholesky_inverse(torch.linalg.cholesky((matrix + matrix.mT) / 2))
