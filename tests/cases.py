"""Every operator, splitting, solver and backward mode is one line here and inherits the generic tests.

Operators (first part): a line says how to draw the tensors an operator is made of, how to make it, the shape of a sample,
and a slow independent oracle for one sample. Tensors drawn with "B" differ by sample. All are differentiated in the
gradient tests, so what constrains them (a positive radius, ordered bounds) is built into the draw or into `make`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

import implicit_l2o as il2o
import oracles
from drawing import N, OperatorCase, Size, normal, positive
from implicit_l2o.operators.affine_dense import dense_factor
from implicit_l2o.operators.affine_sparse import sparse_factor

IMAGE = (3, 4)

# Matrices of affine sets: full rank; with a duplicate, a scaled and a zero row; the incidence of a path of N + 1 nodes.
FULL = np.array([[1.0, 2.0, 0.0, -1.0, 0.5], [0.0, 1.0, 1.0, 0.0, 3.0]])
DEFICIENT = np.vstack([FULL, FULL[0], 100 * FULL[1], np.zeros(N), FULL.sum(0)])
INCIDENCE = np.eye(N + 1, N) - np.eye(N + 1, N, k=-1)
SPARSE = scipy.sparse.csr_array(
    np.array([[1.0, 0.0, -2.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0, 1.0], [0.5, 0.0, 0.0, 1.0, 0.0]])
)
GROUPS = torch.tensor([0, 1, 0, 2, 1])


def projector(A: np.ndarray) -> Callable[[Tensor], il2o.AbstractAffineFactor]:
    return lambda like: dense_factor(torch.as_tensor(A, dtype=like.dtype), largest_projector=10**9)


def row_basis(A: np.ndarray) -> Callable[[Tensor], il2o.AbstractAffineFactor]:
    # N = 5 columns and one row: the row basis is the cheaper form.
    return lambda like: dense_factor(torch.as_tensor(A[:1], dtype=like.dtype), largest_projector=0)


def sparse_rows(A: np.ndarray) -> Callable[[Tensor], il2o.AbstractAffineFactor]:
    return lambda like: sparse_factor(scipy.sparse.csr_array(A), like.dtype, like.device)


def affine(
    name: str, factor: Callable[[Tensor], il2o.AbstractAffineFactor], A: np.ndarray, *sizes: Size
) -> OperatorCase:
    """An affine set whose right-hand side is `A y` for a drawn `y`, so that it is consistent."""
    return OperatorCase(
        f"affine-{name}",
        lambda y: il2o.AffineSet(factor(y), y @ torch.as_tensor(A, dtype=y.dtype).mT),
        (normal(*sizes),),
        oracle=lambda x, y: oracles.project(x, equal=(A, A @ y)),
    )


# Of a map from 3 entries to 2, in units of one half: the equations `w - K x / 2 = 0` in the five entries of `(x, w)`.
GRAPH = np.hstack([-FULL[:, :3] / 2, np.eye(2)])


def _graph(like: Tensor) -> il2o.Graph:
    return il2o.Graph(il2o.Matrix(torch.as_tensor(FULL[:, :3], dtype=like.dtype)), scale=0.5)


def _sparse_least_squares(b: Tensor) -> il2o.LeastSquares:
    return il2o.LeastSquares(SPARSE.astype(np.float32 if b.dtype == torch.float32 else np.float64), b)


def _first_rows(b: Tensor) -> Tensor:
    return torch.eye(N, dtype=b.dtype)[: b.shape[-1]]


def _sparse_matrix(like: Tensor) -> il2o.Matrix:
    return il2o.Matrix(SPARSE.astype(np.float32 if like.dtype == torch.float32 else np.float64))


SETS = [
    OperatorCase("free", il2o.Free, oracle=lambda x: x),
    OperatorCase("orthant", il2o.NonnegativeOrthant, oracle=lambda x: oracles.project(x, at_least=0.0)),
    OperatorCase(
        "box-numbers", lambda: il2o.Box(lower=-1.0, upper=0.5), oracle=lambda x: oracles.project(x, -1.0, 0.5)
    ),
    OperatorCase(
        "box-below", lambda c: il2o.Box(upper=c), (normal(N),), oracle=lambda x, c: oracles.project(x, at_most=c)
    ),
    OperatorCase(
        "box-shared",
        lambda c, r: il2o.Box(lower=c - r, upper=c + r),
        (normal(N), positive(N)),
        oracle=lambda x, c, r: oracles.project(x, c - r, c + r),
    ),
    OperatorCase(
        "box-per-sample",
        lambda r: il2o.Box(lower=0.0, upper=r),
        (positive("B", N),),
        oracle=lambda x, r: oracles.project(x, 0.0, r),
    ),
    OperatorCase(
        "box-image",
        lambda c, r: il2o.Box(lower=c - r, upper=c + 1),
        (normal(1, *IMAGE), positive("B", *IMAGE)),
        IMAGE,
        oracle=lambda x, c, r: oracles.project(x, c - r, c + 1),
    ),
    OperatorCase(
        "half-space-shared",
        il2o.HalfSpace,
        (normal(N), normal()),
        oracle=lambda x, a, beta: oracles.project(x, below=(a[None], beta[None])),
    ),
    OperatorCase(
        "half-space-per-sample",
        il2o.HalfSpace,
        (normal("B", *IMAGE), normal("B")),
        IMAGE,
        oracle=lambda x, a, beta: oracles.project(x, below=(a[None], beta[None])),
    ),
    OperatorCase("simplex", il2o.Simplex, oracle=lambda x: oracles.simplex(x, 1.0)),
    OperatorCase("simplex-per-sample", il2o.Simplex, (positive("B"),), oracle=oracles.simplex),
    OperatorCase("simplex-image", il2o.Simplex, (positive(),), IMAGE, oracle=oracles.simplex),
    OperatorCase("l1-ball", lambda: il2o.L1Ball(2.0), oracle=lambda x: oracles.l1_ball(x, 2.0, 0.0)),
    OperatorCase("l1-ball-per-sample", il2o.L1Ball, (positive("B"), normal("B", N)), oracle=oracles.l1_ball),
    OperatorCase("l1-ball-image", il2o.L1Ball, (positive(), normal(1, *IMAGE)), IMAGE, oracle=oracles.l1_ball),
    OperatorCase("l2-ball", lambda: il2o.L2Ball(2.0), oracle=lambda x: oracles.l2_ball(x, 2.0, 0.0)),
    OperatorCase("l2-ball-per-sample", il2o.L2Ball, (positive("B"), normal("B", N)), oracle=oracles.l2_ball),
    OperatorCase("l2-ball-image", il2o.L2Ball, (positive("B"), normal(1, *IMAGE)), IMAGE, oracle=oracles.l2_ball),
    OperatorCase("linf-ball", lambda: il2o.LInfBall(1.0), oracle=lambda x: oracles.project(x, -1.0, 1.0)),
    OperatorCase(
        "linf-ball-per-sample",
        il2o.LInfBall,
        (positive("B"), normal(N)),
        oracle=lambda x, r, c: oracles.project(x, c - r, c + r),
    ),
    OperatorCase("second-order-cone", il2o.SecondOrderCone, oracle=oracles.second_order_cone),
    OperatorCase("exponential-cone", il2o.ExponentialCone, shape=(3,), oracle=oracles.exponential_cone),
    OperatorCase("power-cone", lambda: il2o.PowerCone(0.3), shape=(3,), oracle=lambda x: oracles.power_cone(x, 0.3)),
    OperatorCase(
        "power-cone-per-sample",
        lambda a: il2o.PowerCone(a / (1 + a)),
        (positive("B"),),
        shape=(3,),
        oracle=lambda x, a: oracles.power_cone(x, float(a / (1 + a))),
    ),
    OperatorCase("semidefinite-cone", il2o.SemidefiniteCone, shape=(3, 3), oracle=oracles.semidefinite_cone),
    OperatorCase(
        "cone-product",
        lambda: il2o.ConeProduct(
            zero=1, nonnegative=2, second_order=(3, 2, 3), semidefinite=(2,), exponential=1, power=(0.4, 0.7)
        ),
        shape=(23,),
        oracle=oracles.cone_product,
    ),
    affine("projector", projector(FULL), FULL, N),
    affine("projector-per-sample", projector(FULL), FULL, "B", N),
    affine("projector-deficient", projector(DEFICIENT), DEFICIENT, "B", N),
    affine("row-basis", row_basis(FULL), FULL[:1], "B", N),
    affine("sparse", sparse_rows(FULL), FULL, N),
    affine("sparse-deficient", sparse_rows(DEFICIENT), DEFICIENT, "B", N),
    affine("sparse-incidence", sparse_rows(INCIDENCE), INCIDENCE, "B", N),
    OperatorCase(
        "affine-learned-matrix",
        lambda A, b: il2o.AffineSet(A, b),
        (normal(2, N), normal("B", 2)),
        oracle=lambda x, A, b: oracles.project(x, equal=(A, b)),
    ),
    OperatorCase(
        "product",
        lambda r: il2o.ProductSet((il2o.Simplex(), il2o.L2Ball(r)), sizes=(2, (3, 1))),
        (positive("B"),),
        oracle=lambda x, r: np.concatenate([oracles.simplex(x[:2], 1.0), oracles.l2_ball(x[2:], r, 0.0)]),
    ),
    OperatorCase(
        "graph",
        lambda by: il2o.TranslateSet(_graph(by), by),
        (normal("B", N),),
        oracle=lambda x, by: by + oracles.project(x - by, equal=(GRAPH, np.zeros(2))),
    ),
    OperatorCase(
        "translate-set",
        lambda by: il2o.TranslateSet(il2o.SecondOrderCone(), by),
        (normal("B", N),),
        oracle=lambda x, by: by + oracles.second_order_cone(x - by),
    ),
    OperatorCase(
        "scale-set",
        lambda factor: il2o.ScaleSet(il2o.LInfBall(1.0), factor),
        (positive("B"),),
        oracle=lambda x, factor: oracles.project(x, -factor, factor),
    ),
]

FUNCTIONS = [
    OperatorCase("l1-norm", il2o.L1Norm, oracle=lambda x: oracles.prox(x, [[i] for i in range(N)], np.ones(N))),
    OperatorCase(
        "l1-norm-weights",
        il2o.L1Norm,
        (positive("B", N),),
        oracle=lambda x, w: oracles.prox(x, [[i] for i in range(N)], w),
    ),
    OperatorCase("l2-norm", lambda: il2o.L2Norm(0.5), oracle=lambda x: oracles.prox(x, [range(N)], [0.5])),
    OperatorCase(
        "l2-norm-image", il2o.L2Norm, (positive("B"),), IMAGE, oracle=lambda x, w: oracles.prox(x, [range(12)], [w])
    ),
    OperatorCase(
        "group-norm-dim",
        lambda w: il2o.GroupL2Norm(w, dim=0),
        (positive("B", 1, 4),),
        IMAGE,
        oracle=lambda x, w: oracles.prox(x, [[i, i + 4, i + 8] for i in range(4)], w),
    ),
    OperatorCase(
        "group-norm-labels",
        lambda w: il2o.GroupL2Norm(w, groups=GROUPS),
        (positive("B", 3),),
        oracle=lambda x, w: oracles.prox(x, [[0, 2], [1, 4], [3]], w),
    ),
    OperatorCase(
        "translate",
        lambda by: il2o.Translate(il2o.L1Norm(), by),
        (normal("B", N),),
        oracle=lambda x, by: by + oracles.prox(x - by, [[i] for i in range(N)], np.ones(N)),
    ),
    OperatorCase(
        "scale",
        lambda factor: il2o.Scale(il2o.L2Norm(), factor),
        (positive("B"),),
        oracle=lambda x, factor: oracles.prox(x, [range(N)], [factor]),
    ),
    OperatorCase(
        "separable-sum",
        lambda w: il2o.SeparableSum((il2o.L1Norm(w), il2o.L2Norm()), sizes=(2, 3)),
        (positive("B", 2),),
        oracle=lambda x, w: oracles.prox(x, [[0], [1], [2, 3, 4]], [*w, 1.0]),
    ),
]

# Known by their prox alone. By Moreau, the conjugate of a norm is the indicator of the dual norm's ball.
PROXES = [
    OperatorCase(
        "conjugate-l1",
        lambda w: il2o.Conjugate(il2o.L1Norm(w)),
        (positive("B", N),),
        oracle=lambda x, w: oracles.project(x, -w, w),
    ),
    OperatorCase(
        "conjugate-l2",
        lambda w: il2o.Conjugate(il2o.L2Norm(w)),
        (positive("B"),),
        oracle=lambda x, w: oracles.l2_ball(x, w, 0.0),
    ),
    OperatorCase(
        "conjugate-linf-ball",
        lambda r: il2o.Conjugate(il2o.LInfBall(r)),
        (positive("B"),),
        oracle=lambda x, r: oracles.prox(x, [[i] for i in range(N)], np.full(N, r)),
    ),
    OperatorCase(
        "entropic-simplex", lambda: il2o.EntropicSimplex(), oracle=lambda x: oracles.entropic_simplex(x, 1.0, 1.0)
    ),
    OperatorCase(
        "entropic-simplex-per-sample",
        il2o.EntropicSimplex,
        (positive("B"), positive()),
        oracle=oracles.entropic_simplex,
    ),
    OperatorCase(
        "entropic-simplex-cold",
        lambda total: il2o.EntropicSimplex(1e-3, total),
        (positive("B"),),
        IMAGE,
        oracle=lambda x, total: oracles.entropic_simplex(x, 1e-3, total),
    ),
    OperatorCase(
        "separable-sum-with-set",
        lambda r: il2o.SeparableSum((il2o.L1Norm(), il2o.L2Ball(r)), sizes=(2, 3)),
        (positive("B"),),
        oracle=lambda x, r: np.concatenate(
            [oracles.prox(x[:2], [[0], [1]], np.ones(2)), oracles.l2_ball(x[2:], r, 0.0)]
        ),
    ),
]

SMOOTH = [
    OperatorCase("linear-cost", il2o.LinearCost, (normal("B", N),)),
    OperatorCase("linear-cost-image", il2o.LinearCost, (normal(1, *IMAGE),), IMAGE),
    OperatorCase("quadratic-number", lambda w: il2o.QuadraticCost(linear=w, diagonal=0.5), (normal("B", N),)),
    OperatorCase("quadratic-diagonal", lambda d: il2o.QuadraticCost(diagonal=d), (positive(N),)),
    OperatorCase("quadratic-diagonals", lambda w, d: il2o.QuadraticCost(w, d), (normal(N), positive("B", N))),
    OperatorCase(
        "quadratic-matrix",
        lambda w, d, L: il2o.QuadraticCost(w, d, L @ L.mT),
        (normal("B", N), positive(N), normal(N, N)),
    ),
    OperatorCase(
        "quadratic-matrices", lambda w, L: il2o.QuadraticCost(w, matrix=L @ L.mT), (normal("B", N), normal("B", N, N))
    ),
    OperatorCase("quadratic-image", lambda L: il2o.QuadraticCost(matrix=L @ L.mT), (normal(12, 2),), IMAGE),
    OperatorCase("least-squares", il2o.LeastSquares, (normal(3, N), normal("B", 3), positive("B"))),
    OperatorCase("least-squares-sparse", lambda b: _sparse_least_squares(b), (normal(3),)),
    OperatorCase(
        "least-squares-convolution",
        lambda w, b: il2o.LeastSquares(il2o.Convolution2D(w, (2, 4, 5), padding=1), b, 0.5),
        (normal(1, 2, 3, 3), normal("B", 1, 4, 5)),
        (2, 4, 5),
    ),
    OperatorCase("logit", lambda: il2o.Logit(2.0)),
    OperatorCase("logit-per-sample", il2o.Logit, (positive("B"),), IMAGE),
    OperatorCase(
        "smooth-sum",
        lambda w, d, b: il2o.SmoothSum((il2o.QuadraticCost(w, d), il2o.LeastSquares(_first_rows(b), b))),
        (normal("B", N), positive("B", N), normal("B", 3)),
    ),
]


# Monotone and Lipschitz, but the gradient of nothing.
MONOTONE = [
    OperatorCase("bilinear-game", il2o.BilinearGame, (normal(2, 3),)),
    OperatorCase("bilinear-game-per-sample", il2o.BilinearGame, (normal("B", 5, 7), normal("B", *IMAGE)), IMAGE),
    OperatorCase(
        "monotone-sum",
        lambda A, w, d: il2o.MonotoneSum((il2o.BilinearGame(A), il2o.QuadraticCost(w, d))),
        (normal("B", 2, 3), normal(N), positive("B", N)),
    ),
    OperatorCase(
        "monotone-sum-cocoercive",
        lambda w, d: il2o.MonotoneSum((il2o.LinearCost(w), il2o.QuadraticCost(diagonal=d), il2o.Logit(0.5))),
        (normal(N), positive("B", N)),
    ),
]

LINEAR = [
    OperatorCase("identity", lambda: il2o.Identity(IMAGE), (), IMAGE),
    OperatorCase("matrix-tall", il2o.Matrix, (normal(7, N),)),
    OperatorCase("matrix-wide", lambda A: il2o.Matrix(A, sample_shape=IMAGE), (normal(2, 12),), IMAGE),
    OperatorCase("matrix-sparse", lambda like: _sparse_matrix(like), (normal(),)),
    OperatorCase("finite-differences", lambda: il2o.FiniteDifferences2D((4, 5)), (), (4, 5)),
    OperatorCase("finite-differences-row", lambda: il2o.FiniteDifferences2D((1, 5)), (), (1, 5)),
    OperatorCase("finite-differences-channels", lambda: il2o.FiniteDifferences2D((2, 3, 4)), (), (2, 3, 4)),
    OperatorCase("convolution", lambda w: il2o.Convolution2D(w, (2, 5, 6)), (normal(3, 2, 3, 2),), (2, 5, 6)),
    OperatorCase(
        "convolution-padded",
        lambda w: il2o.Convolution2D(w, (1, 4, 5), padding=(2, 1)),
        (normal(2, 1, 3, 3),),
        (1, 4, 5),
    ),
    OperatorCase(
        "convolution-strided",
        lambda w: il2o.Convolution2D(w, (2, 6, 8), padding=1, stride=(2, 3)),
        (normal(2, 2, 3, 3),),
        (2, 6, 8),
    ),
]

OPERATORS = SETS + FUNCTIONS + PROXES + SMOOTH + MONOTONE + LINEAR

# Splittings, solvers and backward modes.

NAN_SAMPLE, INFEASIBLE_SAMPLE = 0, 1  # where `spoil` puts them


@dataclass(frozen=True)
class SplittingCase:
    """A family of problems, any batch and size, whose answer an independent routine knows."""

    make: Callable[[Tensor, Tensor], il2o.AbstractSplitting]  # (w (B, n), total (B,)) -> splitting
    solution: (
        Callable[[Tensor, Tensor], Tensor] | None
    )  # the same arguments -> x; None: not unique, so no derivative either
    feasible: Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, w, total) -> constraint violation (B,)
    constrained: bool  # whether `total < 0` makes the problem infeasible


def _simplex_distance(x: Tensor, w: Tensor, total: Tensor) -> Tensor:
    return (x.sum(-1) - total).abs() + x.clamp(max=0).abs().sum(-1)


def _simplex_solution(w: Tensor, total: Tensor) -> Tensor:
    """min w.x + |x|^2 / 2 over {x >= 0, sum x = total}: bisection on the multiplier."""
    low, high = -w.max(-1).values - total.abs() - 1, total.abs() + 1 + w.abs().max(-1).values
    for _ in range(200):
        middle = (low + high) / 2
        over = (middle[:, None] - w).clamp(min=0).sum(-1) > total
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return (((low + high) / 2)[:, None] - w).clamp(min=0)


def _cost(w: Tensor) -> il2o.QuadraticCost:
    return il2o.QuadraticCost(linear=w, diagonal=1.0)


def _mean(w: Tensor) -> Tensor:
    """The row sum, scaled to norm 1 so that `|K|` does not grow with n."""
    return torch.full((1, w.shape[1]), w.shape[1] ** -0.5, dtype=w.dtype)


def _davis_yin(w: Tensor, total: Tensor) -> il2o.AbstractSplitting:
    row = _mean(w)
    h = il2o.AffineSet(row, (total * row[0, 0])[:, None])
    return il2o.DavisYin(il2o.Problem(F=_cost(w), g=il2o.Box(lower=0.0), h=h))


def _forward_backward(w: Tensor, total: Tensor) -> il2o.AbstractSplitting:
    return il2o.ForwardBackward(il2o.Problem(F=_cost(w), g=il2o.Box(0.0, 1.0)), step=0.7)


def _bounds(w: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds whose sums are 0 and n, so that totals between have a solution and negative ones have none.

    Linear in w: the derivative of anything else at the NaN sample would be NaN before the library is asked.
    """
    lower = 0.5 * (w - w.mean(-1, keepdim=True))
    return lower, lower + 1


def _douglas_rachford(w: Tensor, total: Tensor) -> il2o.AbstractSplitting:
    row = _mean(w)
    h = il2o.AffineSet(row, (total * row[0, 0])[:, None])
    return il2o.DouglasRachford(il2o.Problem(g=il2o.Box(*_bounds(w)), h=h))


def _nearest_in_box(w: Tensor, total: Tensor) -> il2o.AbstractSplitting:
    distance = il2o.Translate(il2o.L2Norm(w.shape[1] ** 0.5), w + 0.5)
    return il2o.DouglasRachford(il2o.Problem(g=il2o.Box(0.0, 1.0), h=distance))


def _bounded_distance(x: Tensor, w: Tensor, total: Tensor) -> Tensor:
    return (x.sum(-1) - total).abs() + (x - x.clamp(*_bounds(w))).abs().sum(-1)


def _primal_dual(w: Tensor, total: Tensor) -> il2o.Problem:
    row = _mean(w)
    b = (total * row[0, 0])[:, None]
    return il2o.Problem(F=_cost(w), g=il2o.Box(lower=0.0), K=il2o.Matrix(row), l=il2o.Box(lower=b, upper=b))


@dataclass(frozen=True, eq=False)
class Rotation(il2o.AbstractMonotone):
    """`F(x) = x + w + J x`, `J` turning each pair of entries by a right angle: no gradient, and no cocoercivity stated."""

    w: Tensor = field(metadata=il2o.VECTOR)
    lipschitz: float = 2.0**0.5
    cocoercivity: None = None

    def apply(self, x: Tensor) -> Tensor:
        return x + self.w + turned(x)


def turned(x: Tensor) -> Tensor:
    """`J x`: `(x_2, -x_1)` for each pair; an entry without a partner does not turn."""
    half = x.shape[-1] // 2
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([second, -first, torch.zeros_like(rest)], -1)


def rotation_solution(w: Tensor) -> Tensor:
    """`x >= 0`, `F(x) >= 0`, `<x, F(x)> = 0`, pair by pair: the one of four supports that fits."""
    half = w.shape[-1] // 2
    a, b, rest = -w[..., :half], -w[..., half : 2 * half], -w[..., 2 * half :]
    both = torch.stack([(a - b) / 2, (a + b) / 2])  # u + v = a, v - u = b
    fits = (both > 0).all(0)
    # Alone, u = a leaves the slope -b - a of v; v = b leaves the slope -a + b of u.
    only_first = ~fits & (a > 0) & (a + b <= 0)
    only_second = ~fits & (b > 0) & (a <= b)
    u = torch.where(fits, both[0], torch.where(only_first, a, 0.0))
    v = torch.where(fits, both[1], torch.where(only_second, b, 0.0))
    return torch.cat([u, v, rest.clamp(min=0)], -1)


def _rotation_sum_solution(w: Tensor, total: Tensor) -> Tensor:
    """The same with `sum x = total`: bisection on the multiplier, in which the sum falls, for `F` is monotone."""
    low, high = -w.abs().amax(-1) - 2 * total.abs() - 1, w.abs().amax(-1) + 1
    for _ in range(200):
        middle = (low + high) / 2
        over = rotation_solution(w + middle[:, None]).sum(-1) > total
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return rotation_solution(w + ((low + high) / 2)[:, None])


def _combettes_pesquet(w: Tensor, total: Tensor) -> il2o.AbstractSplitting:
    row = _mean(w)
    h = il2o.AffineSet(row, (total * row[0, 0])[:, None])
    return il2o.CombettesPesquet(il2o.Problem(F=Rotation(w), g=il2o.NonnegativeOrthant(), h=h))


SPLITTINGS: dict[str, SplittingCase] = {
    "davis_yin": SplittingCase(_davis_yin, _simplex_solution, _simplex_distance, True),
    "forward_backward": SplittingCase(
        _forward_backward,
        lambda w, total: (-w).clamp(0, 1),
        lambda x, w, total: (x - x.clamp(0, 1)).abs().sum(-1),
        False,
    ),
    "forward_backward_forward": SplittingCase(
        lambda w, total: il2o.ForwardBackwardForward(il2o.Problem(F=Rotation(w), g=il2o.NonnegativeOrthant())),
        lambda w, total: rotation_solution(w),
        lambda x, w, total: x.clamp(max=0).abs().sum(-1),
        False,
    ),
    "combettes_pesquet": SplittingCase(_combettes_pesquet, _rotation_sum_solution, _simplex_distance, True),
    "douglas_rachford": SplittingCase(
        _nearest_in_box,
        lambda w, total: (w + 0.5).clamp(0, 1),
        lambda x, w, total: (x - x.clamp(0, 1)).abs().sum(-1),
        False,
    ),
    "douglas_rachford_feasibility": SplittingCase(_douglas_rachford, None, _bounded_distance, True),
    "condat_vu": SplittingCase(
        lambda w, total: il2o.CondatVu(_primal_dual(w, total)), _simplex_solution, _simplex_distance, True
    ),
    "linearized_admm": SplittingCase(
        lambda w, total: il2o.LinearizedADMM(_primal_dual(w, total)), _simplex_solution, _simplex_distance, True
    ),
}

SOLVERS: dict[str, Callable[[il2o.Stopping], il2o.AbstractFixedPointSolver]] = {
    "picard": il2o.KrasnoselskiiMann,
    "krasnoselskii_mann": lambda stopping: il2o.KrasnoselskiiMann(stopping, relaxation=0.8),
    "anderson": il2o.Anderson,
    "halpern": il2o.Halpern,
}

BACKWARDS: dict[str, il2o.AbstractBackward] = {
    "jfb": il2o.JFB(),
    "neumann": il2o.Neumann(3),
    "implicit": il2o.Implicit(),
    "implicit_normal_cg": il2o.Implicit(il2o.NormalCG()),
    "implicit_anderson": il2o.Implicit(il2o.Anderson(il2o.Stopping(atol=1e-8, rtol=0.0, max_steps=500))),
    "unrolled": il2o.Unrolled(250, checkpoint=25),
}


def draw(batch: int, n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Costs `(B, n)` and totals `(B,)` of order n, in float64."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(batch, n, dtype=torch.float64, generator=generator)
    return w, n * (0.2 + 0.2 * torch.rand(batch, dtype=torch.float64, generator=generator))


def spoil(w: Tensor, total: Tensor, *, infeasible: bool) -> tuple[Tensor, Tensor]:
    """One NaN cost and, where the constraint can fail, one negative total."""
    w, total = w.clone(), total.clone()
    w[NAN_SAMPLE, 0] = torch.nan
    if infeasible:
        total[INFEASIBLE_SAMPLE] *= -1.0
    return w, total
