"""Davis-Yin over a program in plain matrices, many steps at a time, with a step that stays or that balances itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.lp_layers.problems import Row

ACCURACY = 1e-4
MOST = 2500  # iterations
RELAXATION = 1.7
LARGEST = 0.58  # of step * gamma, which leaves that relaxation within the theorem
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sets:
    """The box and the rows over variables and slacks, the projection onto the rows as a matrix.

    Attributes:
        lower: `(n + slacks,)`; upper likewise.
        null: the projection onto the null space of the rows.
        offset: the point of the rows that is closest to 0.
        n: variables without slacks.
        rank: of the rows.
        condition: the largest singular value of the rows over the least that is not zero.
    """

    lower: Tensor
    upper: Tensor
    null: Tensor
    offset: Tensor
    n: int
    rank: int
    condition: float

    @classmethod
    def of(cls, row: Row) -> "Sets":
        """`[A_eq 0; A_ub D]`, `D` the norms of the rows of `A_ub`, as in the library."""
        slacks = 0 if row.A_ub is None else row.A_ub.shape[0]
        blocks: list[Any] = []
        if row.A_eq is not None:
            blocks.append(sp.hstack([row.A_eq, sp.csr_array((row.A_eq.shape[0], slacks))]))
        if row.A_ub is not None:
            norms = np.sqrt(np.asarray(row.A_ub.multiply(row.A_ub).sum(axis=1)).ravel())
            blocks.append(sp.hstack([row.A_ub, sp.diags_array(norms)]))
        rows = sp.vstack(blocks).toarray()
        b = np.concatenate([side for side in (row.b_eq, row.b_ub) if side is not None])
        singular = np.linalg.svd(rows, compute_uv=False)
        rank = int((singular > 1e-10 * singular[0]).sum())
        inverse = np.linalg.pinv(rows, rcond=1e-10)
        return cls(
            torch.from_numpy(np.r_[row.lower, np.zeros(slacks)]),
            torch.from_numpy(np.r_[row.upper, np.full(slacks, np.inf)]),
            torch.from_numpy(np.eye(rows.shape[1]) - inverse @ rows),
            torch.from_numpy(inverse @ b),
            row.n,
            rank,
            float(singular[0] / singular[rank - 1]),
        )

    def lift(self, x: Array) -> Tensor:
        """Zero on the slacks."""
        return torch.nn.functional.pad(torch.from_numpy(x), (0, len(self.offset) - self.n))


@dataclass(frozen=True)
class Balance:
    """A step that follows how fast the two halves of `z = x + step u` move, `u` the normal of the box.

    At the iterations `at` the step is multiplied by `(weight |dx| / (step |du|))^exponent`, within a factor of 3, `dx` and
    `du` the last changes of each sample; `z` becomes `x + step u` with the new step, so `x` and `u` stay. The rule has no
    unit: it does not change when `x` or the costs are measured in another one.

    Args:
        weight: how much faster `x` may move than `step u`.
        exponent: of the correction.
        at: iterations.
    """

    weight: float = 2.0
    exponent: float = 0.5
    at: tuple[int, ...] = (10, 20, 40, 80, 160, 320, 640)

    def factor(self, dx: Tensor, du: Tensor, step: Tensor) -> Tensor:
        """`(B, 1)`; 1 where a half does not move any more."""
        x, u = dx.norm(dim=1, keepdim=True), du.norm(dim=1, keepdim=True) * step
        still = (x < 1e-11) | (u < 1e-11)
        ratio = (self.weight * x / u.clamp_min(1e-300)).clamp(1e-6, 1e6)
        return torch.where(still, 1.0, (ratio**self.exponent).clamp(1 / 3, 3.0))


def iterations(
    sets: Sets, cost: Tensor, answer: Tensor, gamma: float, step: Tensor, balance: Balance | None = None
) -> tuple[Tensor, Tensor]:
    """Iterations of each sample until `|T(z) - z| <= 1e-4`, and until `x` is within 1e-4; `step` is `(samples,)`.

    The relaxation is 1.7, less where the theorem wants it: below `2 - step gamma / 2`.
    """
    quadratic = sets.lift(np.full(sets.n, gamma))
    step = step[:, None]
    z, samples = torch.zeros_like(cost), torch.arange(len(cost))
    before, normal = z, z
    found = torch.full((2, len(cost)), float(MOST))
    for number in range(1, MOST + 1):
        x = z.clamp(sets.lower, sets.upper)
        u = (z - x) / step
        if balance is not None and number in balance.at:
            step = (step * balance.factor(x - before, u - normal, step)).clamp_max(LARGEST / gamma)
            z = x + step * u
        before, normal = x, u
        relaxation = (0.98 * (2 - step * gamma / 2)).clamp_max(RELAXATION)
        move = (2 * x - z - step * (cost + quadratic * x)) @ sets.null + sets.offset - x
        if number % 5 == 0:
            small = move.norm(dim=1) <= ACCURACY, (x - answer)[:, : sets.n].abs().amax(1) <= ACCURACY
            for which, reached in enumerate(small):
                of = samples[reached]
                found[which, of] = found[which, of].clamp_max(number)
            open_ = (found[:, samples] == MOST).any(0)
            if not open_.any():
                break
            if not open_.all():
                parts = (samples, step, relaxation, cost, answer, z, move, before, normal)
                samples, step, relaxation, cost, answer, z, move, before, normal = (part[open_] for part in parts)
        z = z + relaxation * move
    return found[0], found[1]
