"""Every splitting, solver and backward mode is one line here and inherits the generic tests."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import implicit_l2o as il2o

NAN_SAMPLE, INFEASIBLE_SAMPLE = 0, 1  # where `spoil` puts them


@dataclass(frozen=True)
class SplittingCase:
    """A family of problems, any batch and size, whose answer an independent routine knows."""

    make: Callable[[Tensor, Tensor], il2o.AbstractSplitting]  # (w (B, n), total (B,)) -> splitting
    solution: Callable[[Tensor, Tensor], Tensor] | None  # the same arguments -> x, None where it is not unique
    feasible: Callable[[Tensor, Tensor], Tensor]  # (x, total) -> constraint violation (B,)
    constrained: bool  # whether `total < 0` makes the problem infeasible


def _simplex_distance(x: Tensor, total: Tensor) -> Tensor:
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


def _douglas_rachford(w: Tensor, total: Tensor) -> il2o.AbstractSplitting:
    row = _mean(w)
    h = il2o.AffineSet(row, (total * row[0, 0])[:, None])
    # A point of two sets; w shapes the box, whose upper bounds sum to four times the total.
    upper = 4 * total[:, None].abs() * w.abs() / w.abs().sum(-1, keepdim=True)
    return il2o.DouglasRachford(il2o.Problem(g=il2o.Box(lower=0.0, upper=upper), h=h))


def _primal_dual(w: Tensor, total: Tensor) -> il2o.Problem:
    row = _mean(w)
    b = (total * row[0, 0])[:, None]
    return il2o.Problem(F=_cost(w), g=il2o.Box(lower=0.0), K=il2o.Matrix(row), l=il2o.Box(lower=b, upper=b))


SPLITTINGS: dict[str, SplittingCase] = {
    "davis_yin": SplittingCase(_davis_yin, _simplex_solution, _simplex_distance, True),
    "forward_backward": SplittingCase(
        _forward_backward,
        lambda w, total: (-w).clamp(0, 1),
        lambda x, total: (x - x.clamp(0, 1)).abs().sum(-1),
        False,
    ),
    "douglas_rachford": SplittingCase(_douglas_rachford, None, _simplex_distance, True),
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
