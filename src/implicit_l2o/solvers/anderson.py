"""Safeguarded Anderson acceleration, type II, per sample.

Walker and Ni (2011), difference form; the safeguard and restart follow Zhang, O'Donoghue and Boyd (2020) in spirit.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.solvers.base import AbstractFixedPointSolver, Stopping, check_stopping

_RIDGE = {torch.float64: 1e-10, torch.float32: 1e-6, torch.bfloat16: 1e-3}
_MAX_WEIGHT = 1e4  # mixing weights beyond this extrapolate from noise


class _State(NamedTuple):
    steps: Tensor  # (B, m, n) differences of T(z), in the order in which rows were written round and round
    changes: Tensor  # (B, m, n) differences of the residual vector T(z) - z; finite, also where unused
    gram: Tensor  # (B, m, m) products of `changes`, in double precision; zero for a row that is unused
    row: Tensor  # (B,) where the next difference is written
    image: Tensor  # (B, n) last T(z)
    residual: Tensor  # (B, n) last T(z) - z
    started: Tensor  # (B,) whether `image` and `residual` hold a point
    plain: Tensor  # (B, n) the plain step of the last accepted point: where a rejected acceleration falls back to
    reference: Tensor  # (B,) residual norm of the last accepted point
    accelerated: Tensor  # (B,) whether the current z came from an accelerated step


@dataclass(frozen=True)
class Anderson(AbstractFixedPointSolver):
    """Mix the last `memory` images of `T` so that the linearised residual is least.

    With residuals `f_k = T(z_k) - z_k`, `z <- T(z) - dG w`, `w = argmin |f - dF w|^2 + ridge |w|^2`, the columns of `dF`,
    `dG` being differences of residuals and images. The ridge is relative to the mean square of `dF`, so the method is
    free of scale. An accelerated point is kept only if its residual has not grown; otherwise the sample returns to the
    plain step of its last accepted point and forgets its history. Everything is per sample.

    Args:
        stopping: when to stop.
        memory: differences kept, at least 1.
        ridge: relative ridge; None takes 1e-10 in float64, 1e-6 in float32.
        relaxation: of the plain step, in (0, 2).
        growth: an accelerated point is kept while its residual is at most this factor of the last accepted one's.

    Raises:
        ValueError: an option is outside its range.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> slow = lambda z: 0.99 * z + 1.0
        >>> stopping = il2o.Stopping(atol=1e-6, rtol=0.0, max_steps=100)
        >>> int(il2o.fixed_point(slow, torch.zeros(1, 1).double(), solver=il2o.Anderson(stopping)).steps) <= 10
        True
    """

    stopping: Stopping = field(default_factory=Stopping)
    memory: int = field(default=5, kw_only=True)
    ridge: float | None = field(default=None, kw_only=True)
    relaxation: float = field(default=1.0, kw_only=True)
    growth: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        check_stopping(self.stopping)
        if not isinstance(self.memory, int) or self.memory < 1:
            raise ValueError(f"Anderson needs an integer memory >= 1; got memory={self.memory}.")
        if self.ridge is not None and not self.ridge > 0:
            raise ValueError(f"Anderson needs ridge > 0 (or None); got ridge={self.ridge}.")
        if not 0 < self.relaxation < 2:
            raise ValueError(f"Anderson needs 0 < relaxation < 2; got relaxation={self.relaxation}.")
        if not self.growth >= 1:
            raise ValueError(f"Anderson needs growth >= 1; got growth={self.growth}.")

    def init(self, z0: Float[Tensor, "B *shape"]) -> _State:
        """An empty history."""
        flat = _batch.flatten(z0)
        batch, size = flat.shape
        no = torch.zeros(batch, dtype=torch.bool, device=flat.device)
        zeros = torch.zeros_like(flat)
        return _State(
            steps=flat.new_zeros(batch, self.memory, size),
            changes=flat.new_zeros(batch, self.memory, size),
            gram=torch.zeros(batch, self.memory, self.memory, dtype=torch.float64, device=flat.device),
            row=torch.zeros(batch, dtype=torch.int64, device=flat.device),
            image=zeros,
            residual=zeros,
            started=no,
            plain=flat,
            reference=flat.new_full((batch,), torch.inf),
            accelerated=no,
        )

    def update(
        self, z: Float[Tensor, "B *shape"], Tz: Float[Tensor, "B *shape"], state: _State
    ) -> tuple[Float[Tensor, "B *shape"], _State]:
        """The accelerated step where it is trusted, the plain step elsewhere; the history is written in place."""
        here, image = _batch.flatten(z), _batch.flatten(Tz)
        residual = image - here
        size = _batch.norm(residual)
        rejected = state.accelerated & ~(size <= self.growth * state.reference)
        keep = (state.started & ~rejected)[:, None]

        gram = torch.where(rejected[:, None, None], 0.0, state.gram)
        _write(state.steps, state.row, torch.where(keep, image - state.image, 0.0))
        change = torch.where(keep, residual - state.residual, 0.0)
        _write(state.changes, state.row, change)
        gram = _bordered(gram, state.row, (state.changes @ change[:, :, None]).squeeze(-1).double())
        plain = image if self.relaxation == 1.0 else here + self.relaxation * residual
        mixed, trusted = self._mix(state, gram, image, residual)

        step = torch.where(trusted[:, None], mixed, plain)
        following = torch.where(rejected[:, None], state.plain, step)
        return following.reshape(z.shape), _State(
            steps=state.steps,
            changes=state.changes,
            gram=gram,
            row=(state.row + 1) % self.memory,
            image=image,
            residual=residual,
            started=~rejected,  # after a rejection the next point starts a new history
            plain=torch.where(rejected[:, None], state.plain, plain),
            reference=torch.where(rejected, state.reference, size),
            accelerated=trusted & ~rejected,
        )

    def _mix(self, state: _State, gram: Tensor, image: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed point, and for which samples its weights are fit for use."""
        ridge = _RIDGE[image.dtype] if self.ridge is None else self.ridge
        squares = gram.diagonal(dim1=-2, dim2=-1)
        scale = squares.mean(-1)
        # A unit diagonal for an unused row, and a target of zero, give it weight zero whatever the scale.
        empty = squares == 0
        target = (state.changes @ residual[:, :, None]).double().masked_fill(empty[:, :, None], 0.0)
        gram = gram + torch.diag_embed(ridge * scale[:, None] + empty.double())
        sound = torch.isfinite(gram).all(-1).all(-1) & (scale > 0)
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        factor, info = torch.linalg.cholesky_ex(torch.where(sound[:, None, None], gram, eye))
        weights = torch.cholesky_solve(target, factor)
        mixed = image - (weights.to(image.dtype).mT @ state.steps).squeeze(1)
        trusted = (
            sound & (info == 0) & (weights.abs().amax((-2, -1)) <= _MAX_WEIGHT) & torch.isfinite(_batch.norm(mixed))
        )
        return mixed, trusted


def _write(history: Tensor, row: Tensor, newest: Tensor) -> None:
    """Overwrite one row of each sample."""
    history[torch.arange(len(history), device=history.device), row] = newest


def _bordered(gram: Tensor, row: Tensor, products: Tensor) -> Tensor:
    """The Gram matrix with the products of the newest row; those with rows that are unused count as zero."""
    newest = torch.arange(gram.shape[-1], device=gram.device) == row[:, None]
    used = newest | (gram.diagonal(dim1=-2, dim2=-1) != 0)
    products = torch.where(used, products, 0.0)
    gram = torch.where(newest[:, :, None], products[:, None, :], gram)
    return torch.where(newest[:, None, :], products[:, :, None], gram)
