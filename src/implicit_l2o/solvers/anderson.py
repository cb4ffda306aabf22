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
    steps: Tensor  # (B, m, n) differences of T(z), in the order in which rows were written round and round; all finite
    changes: Tensor  # (B, m + 1, n) differences of the residual vector T(z) - z, and in the last row the last of these
    used: Tensor  # (B, m) which rows hold a difference
    row: Tensor  # (B,) where the next difference is written; the same for all samples
    image: Tensor  # (B, n) last T(z)
    started: Tensor  # (B,) whether `image` and the last residual hold a point
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
        flat = _batch.in_order_of(z0, z0)
        batch, size = flat.shape
        no = torch.zeros(batch, dtype=torch.bool, device=flat.device)
        return _State(
            steps=flat.new_zeros(batch, self.memory, size),
            changes=flat.new_zeros(batch, self.memory + 1, size),
            used=no[:, None].repeat(1, self.memory),
            row=torch.zeros(batch, dtype=torch.int64, device=flat.device),
            image=torch.zeros_like(flat),
            started=no,
            plain=flat,
            reference=flat.new_full((batch,), torch.inf),
            accelerated=no,
        )

    def update(
        self, z: Float[Tensor, "B *shape"], Tz: Float[Tensor, "B *shape"], state: _State
    ) -> tuple[Float[Tensor, "B *shape"], _State]:
        """The accelerated step where it is trusted, the plain step elsewhere; the history is written in place."""
        here, image = (_batch.in_order_of(z, part) for part in (z, Tz))
        residual = image - here
        size = _batch.norm(residual)
        rejected = state.accelerated & ~(size <= self.growth * state.reference)
        keep = state.started & ~rejected

        newest = torch.arange(self.memory, device=z.device) == state.row[:, None]
        used = torch.where(newest, keep[:, None], state.used & ~rejected[:, None])
        _write(state.steps, state.row, image, state.image, keep)
        _write(state.changes, state.row, residual, state.changes[:, -1], keep)
        state.changes[:, -1] = residual
        mixed, trusted = self._mix(state.steps, state.changes, used, image)
        plain = image if self.relaxation == 1.0 else here + self.relaxation * residual

        step = _replaced(mixed, ~trusted, plain)
        following = _replaced(step, rejected, state.plain)
        return _batch.shaped_like(z, following), _State(
            steps=state.steps,
            changes=state.changes,
            used=used,
            row=(state.row + 1) % self.memory,
            image=image,
            started=~rejected,  # after a rejection the next point starts a new history
            plain=_replaced(plain, rejected, state.plain),
            reference=torch.where(rejected, state.reference, size),
            accelerated=trusted & ~rejected,
        )

    def _mix(self, steps: Tensor, changes: Tensor, used: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed point, and for which samples its weights are fit for use."""
        ridge = _RIDGE[image.dtype] if self.ridge is None else self.ridge
        # All products at once: that reads the history once, and is no slower than those of the new rows alone.
        products = (changes @ changes.mT).double()
        both = used[:, :, None] & used[:, None, :]
        gram = torch.where(both, products[:, :-1, :-1], 0.0)
        scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
        # A unit diagonal for an unused row, and a target of zero, give it weight zero whatever the scale.
        empty = gram.diagonal(dim1=-2, dim2=-1) == 0
        target = torch.where(empty, 0.0, products[:, :-1, -1])
        gram = gram + torch.diag_embed(ridge * scale[:, None] + empty.double())
        sound = torch.isfinite(gram).all(-1).all(-1) & (scale > 0)
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        factor, info = torch.linalg.cholesky_ex(torch.where(sound[:, None, None], gram, eye))
        weights = torch.cholesky_solve(target[:, :, None], factor).mT
        fit = sound & (info == 0) & (weights.abs().amax((-2, -1)) <= _MAX_WEIGHT)
        weights = torch.where(fit[:, None, None], weights, 0.0).to(image.dtype)
        mixed = image - (weights @ steps).squeeze(1)
        return mixed, fit & torch.isfinite(_batch.norm(mixed))


def _write(history: Tensor, row: Tensor, new: Tensor, old: Tensor, keep: Tensor) -> None:
    """Overwrite one row of each sample by a difference, or by zeros where the old point is not to be used."""
    if _may_ask(row):
        slot = history[:, int(row[0])]
        torch.sub(new, old, out=slot)
        if not bool(keep.all()):
            slot.masked_fill_(~keep[:, None], 0.0)
    else:
        everyone = torch.arange(len(history), device=history.device)
        history[everyone, row] = torch.where(keep[:, None], new - old, 0.0)


def _replaced(usual: Tensor, exceptions: Tensor, other: Tensor) -> Tensor:
    """`other` for the exceptional samples."""
    if _may_ask(exceptions) and not bool(exceptions.any()):
        return usual
    return torch.where(exceptions[:, None], other, usual)


def _may_ask(small: Tensor) -> bool:
    """Whether it costs nothing to look at a number: an accelerator would have to be waited for, and an export forbids it."""
    return small.device.type == "cpu" and len(small) > 0 and not _batch.exporting()
