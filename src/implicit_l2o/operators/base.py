"""What an operator is: proximable functions, sets, monotone and smooth maps, linear operators.

Operators are frozen dataclasses of tensors, built per forward pass; only learned operators are `nn.Module`s. Subclasses
are final: to change one, wrap it.
"""

import math
from abc import ABC, abstractmethod
from typing import TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import Batched

Scalar: TypeAlias = float | Tensor  # a number, a 0-d tensor, or one value a sample (B,)
Array: TypeAlias = float | Tensor  # a number, or a tensor that broadcasts against x (see `_batch.VECTOR`)


class AbstractProximable(Batched, ABC):
    """A function `g` known through its proximal operator."""

    @abstractmethod
    def prox(self, x: Float[Tensor, "B *shape"], step: Scalar) -> Float[Tensor, "B *shape"]:
        """`argmin_y g(y) + |y - x|^2 / (2 step)`, per sample.

        Args:
            x: the points, `(B, *shape)`.
            step: positive; a number or one value a sample `(B,)`.
        """


class AbstractFunction(AbstractProximable):
    """A proximable function whose value can be computed."""

    @abstractmethod
    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`g(x)`, per sample."""


class AbstractSet(AbstractProximable):
    """A closed convex set; its prox is the projection, whatever the step."""

    @abstractmethod
    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`argmin_{y in C} |y - x|`, per sample."""

    @final
    def prox(self, x: Float[Tensor, "B *shape"], step: Scalar) -> Float[Tensor, "B *shape"]:
        """The projection: the prox of the set's indicator function for every step."""
        return self.project(x)

    @final
    def violation(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """Euclidean distance of each sample to the set: 0 (up to rounding) iff it is inside."""
        return _batch.norm(x - self.project(x))


class AbstractMonotone(Batched, ABC):
    """A single-valued monotone map `F`: the gradient of a convex function, or the pseudo-gradient of a game."""

    @property
    @abstractmethod
    def lipschitz(self) -> Scalar | None:
        """A constant `L` with `|F(x) - F(y)| <= L |x - y|`, a number or per sample `(B,)`; None when unknown."""

    @property
    @abstractmethod
    def cocoercivity(self) -> Scalar | None:
        """A `beta` with `<F(x) - F(y), x - y> >= beta |F(x) - F(y)|^2`; None when a forward step is not safe."""

    @abstractmethod
    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`F(x)`, per sample."""


class AbstractSmooth(AbstractMonotone):
    """A convex function `f` with Lipschitz gradient; `apply` is `grad f`."""

    @abstractmethod
    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`f(x)`, per sample."""

    @property
    @final
    def cocoercivity(self) -> Scalar | None:
        """`1 / L` (Baillon and Haddad, 1977); infinite for a linear cost."""
        lipschitz = self.lipschitz
        if isinstance(lipschitz, Tensor):
            return torch.where(lipschitz > 0, 1.0 / lipschitz, math.inf).detach()
        if lipschitz is None:
            return None
        return 1.0 / lipschitz if lipschitz > 0 else math.inf


class AbstractLinearOperator(Batched, ABC):
    """A linear map `K` from samples of shape `in_shape` to samples of shape `out_shape`."""

    @property
    @abstractmethod
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input sample."""

    @property
    @abstractmethod
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output sample."""

    @property
    @abstractmethod
    def norm_bound(self) -> float:
        """An upper bound on the spectral norm `|K|`."""

    @abstractmethod
    def apply(self, x: Float[Tensor, "B *in"]) -> Float[Tensor, "B *out"]:
        """`K x`, per sample."""

    @abstractmethod
    def adjoint(self, y: Float[Tensor, "B *out"]) -> Float[Tensor, "B *in"]:
        """`K^T y`, per sample."""
