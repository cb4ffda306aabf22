"""What a factorisation of the rows of `A` offers to the projection onto `{x : A x = b}`, for any `b`."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor


class AbstractAffineFactor(ABC):
    """The rows of `A`, factorised: what the projection onto `{x : A x = b}` needs for any `b`."""

    shape: tuple[int, int]
    rank: int

    @property
    @abstractmethod
    def like(self) -> Tensor:
        """A tensor with the dtype and device in which the factor computes."""

    @abstractmethod
    def project(self, x: Float[Tensor, "B n"], point: Float[Tensor, "*B n"]) -> Float[Tensor, "B n"]:
        """`(I - A^+ A) x + point`: the projection onto `{x : A x = b}` for `point = solve(b)`."""

    @abstractmethod
    def solve(self, b: Float[Tensor, "*B m"]) -> Float[Tensor, "*B n"]:
        """`A^+ b`: the solution of least norm."""

    @abstractmethod
    def multipliers(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        """`(A^+)^T x`: of all `y` with `A^T y` nearest to `x`, that of least norm."""

    @abstractmethod
    def gap(self, b: Float[Tensor, "*B m"]) -> Float[Tensor, "*B"]:
        """At least this large is `|A x - b| / |b|` for every `x`, the rows of `A` scaled to norm one; 0 iff one solves."""
