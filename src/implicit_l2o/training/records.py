"""What is known of a task, of a solve, and of every sample that was examined."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class About:
    """What a report says of a task in words.

    Args:
        title: a few words.
        summary: one or two sentences.
        problem: the problem that the model solves, in LaTeX.
        guarantees: what holds of every answer, one sentence each.
    """

    title: str
    summary: str = ""
    problem: str = ""
    guarantees: Sequence[str] = ()


class Solve(NamedTuple):
    """How the last forward pass went, detached from the graph; see `Solution`."""

    status: Int[Tensor, " B"]
    residual: Float[Tensor, " B"]
    steps: Int[Tensor, " B"] | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Samples:
    """Everything known of the examined samples, in their order; tensors on the CPU.

    Attributes:
        answer: `(N, *shape)`.
        values: `(N, P)` of the certificates' properties, labels beside them.
        labels: `(N, P)` integers of `Label`.
        worst: `(N,)`.
        names: of the `P` properties.
        status: `(N,)`; None where nothing was solved, so for the next two.
        residual: `(N,)`.
        steps: `(N,)`.
        error: `(N,)` how far off the answer is; None where the task defines none.
        batch: the fields of the data set, `batch[0]` the inputs.
    """

    answer: Tensor
    values: Float[Tensor, "N P"]
    labels: Int[Tensor, "N P"]
    worst: Int[Tensor, " N"]
    names: tuple[str, ...]
    status: Tensor | None = None
    residual: Tensor | None = None
    steps: Tensor | None = None
    error: Tensor | None = None
    batch: tuple[Tensor, ...] = field(default=())
