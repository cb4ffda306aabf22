"""What a solve returns: a status per sample that explains itself, and the point with its residual.

A leaf of the import graph: it imports torch alone.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Status(IntEnum):
    """How the solve of one sample ended; each value carries a help message.

    Example:
        >>> from implicit_l2o import Status
        >>> Status.CONVERGED.message
        'the residual at the returned point meets the tolerance.'
    """

    message: str

    def __new__(cls, value: int, message: str) -> "Status":
        """Attach the message to the integer."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.message = message
        return member

    ACTIVE = 0, "the sample is still iterating; a finished solve never returns this."
    CONVERGED = 1, "the residual at the returned point meets the tolerance."
    MAX_STEPS = (
        2,
        "max_steps ran out before the residual met the tolerance: raise max_steps or the tolerance, choose a better "
        "step, or accelerate (Anderson).",
    )
    NONFINITE = (
        3,
        "T produced NaN or inf: look for them in the sample's parameters. The last finite iterate is returned and the "
        "sample gives no gradient.",
    )
    DIVERGED = (
        4,
        "the iterates grow without bound: T is not averaged (step too large?) or the problem is unbounded. The last "
        "accepted iterate is returned and the sample gives no gradient.",
    )
    INFEASIBLE = (
        5,
        "the constraint sets have no common point: a hyperplane separates them (within any reasonable distance of the "
        "iterate). The sample gives no gradient.",
    )

    @property
    def failed(self) -> bool:
        """Whether the returned point is meaningless (then the sample contributes no gradient)."""
        return self in (Status.NONFINITE, Status.DIVERGED, Status.INFEASIBLE)


PRECISION = (
    "PRECISION: the residual {residual:.1e} is at the rounding floor of {dtype}, so the tolerance {tolerance:.1e} cannot be "
    "met; use a larger tolerance or a wider dtype."
)


class ConvergenceWarning(UserWarning):
    """A solve, forward or adjoint, ended short of its tolerance for some samples; the status says which and why."""


def failed(status: Int[Tensor, " B"]) -> Bool[Tensor, " B"]:
    """Samples whose point is meaningless: `Status.failed` on a tensor."""
    return (status == Status.NONFINITE) | (status == Status.DIVERGED) | (status == Status.INFEASIBLE)


@dataclass(eq=False)
class AdjointReport:
    """How the linear solve of an `Implicit` backward went; filled in when `backward()` runs, None entries before.

    Attributes:
        status: `(B,)` integers of `Status`: MAX_STEPS fell back to the JFB gradient; ACTIVE took no part, its forward solve
            having failed.
        residual: `(B,)` residual of the adjoint equation relative to the cotangent's norm.
        steps: `(B,)` products with the Jacobian, and with its transpose, spent.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> b = torch.ones(2, 1, requires_grad=True)
        >>> point = il2o.fixed_point(lambda z: 0.5 * z + b, torch.zeros(2, 1), backward=il2o.Implicit())
        >>> point.z.sum().backward()
        >>> point.adjoint.steps
        tensor([1, 1])
    """

    status: Int[Tensor, " B"] | None = None
    residual: Float[Tensor, " B"] | None = None
    steps: Int[Tensor, " B"] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class _Outcome:
    """What `FixedPoint` and `Solution` share, per sample."""

    z: Float[Tensor, "B *latent"]
    status: Int[Tensor, " B"]
    residual: Float[Tensor, " B"]
    steps: Int[Tensor, " B"]
    tolerance: Float[Tensor, " B"]
    trace: Float[Tensor, "checks B"] | None = None
    adjoint: AdjointReport | None = None

    @property
    def converged(self) -> Bool[Tensor, " B"]:
        """Which samples met the tolerance."""
        return self.status == Status.CONVERGED

    @property
    def precision(self) -> Bool[Tensor, " B"]:
        """Which samples stopped at the rounding floor of their dtype, above a tolerance that lies below it."""
        z = self.z.detach()
        floor = 50 * torch.finfo(z.dtype).eps * torch.linalg.vector_norm(z.reshape(z.shape[0], -1), dim=-1)
        return (self.status == Status.MAX_STEPS) & (self.residual <= floor) & (self.tolerance < floor)

    def message(self, sample: int) -> str:
        """What happened to one sample, in words."""
        status = Status(int(self.status[sample]))
        residual, tolerance = float(self.residual[sample]), float(self.tolerance[sample])
        detail = f"residual {residual:.1e}, tolerance {tolerance:.1e}, {int(self.steps[sample])} steps."
        if bool(self.precision[sample]):
            dtype = str(self.z.dtype).removeprefix("torch.")
            detail = PRECISION.format(residual=residual, dtype=dtype, tolerance=tolerance)
        return f"sample {sample}: {status.name}: {status.message} {detail}"


@dataclass(frozen=True, eq=False, kw_only=True)
class FixedPoint(_Outcome):
    """A fixed point of `T`, per sample.

    Attributes:
        z: `(B, *shape)`: `T` applied once to the solver's last iterate; it carries the gradient of the backward mode.
        last: `(B, *shape)` that last iterate, without a graph; a warm start for the next solve.
        status: `(B,)` integers of `Status`.
        residual: `(B,)` Euclidean `|T(z) - z|` at the returned `z`, unrelaxed and unscaled.
        steps: `(B,)` iterations of the solver.
        tolerance: `(B,)` what the residual was compared with, `atol + rtol |x|`, `x` the readout of `z` (or `z` itself).
        trace: `(checks, B)` residuals seen by the loop when `Stopping(trace=True)`, NaN after a sample finished.
        adjoint: filled by the backward pass of `Implicit`, else None.
    """

    last: Float[Tensor, "B *latent"]

    def with_z(self, z: Float[Tensor, "B *latent"], *, adjoint: AdjointReport | None = None) -> "FixedPoint":
        """The same outcome, its `z` carrying a gradient."""
        return replace(self, z=z, adjoint=adjoint)


@dataclass(frozen=True, eq=False, kw_only=True)
class Solution(_Outcome):
    """The answer of `solve`: `x = R(z)` and everything `FixedPoint` says about `z`.

    Attributes:
        x: `(B, *shape)` the solution, differentiable by the backward mode.
    """

    x: Float[Tensor, "B *shape"]
