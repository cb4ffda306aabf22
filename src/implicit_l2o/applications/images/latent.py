"""The latent map `R` of an image classifier, after Wu Fung et al., JFB (AAAI 2022), and the interface of its contractions.

    R(u; v) = gamma A_k(... A_1(u + v)),    A_i(x) = (x + N_i(x)) / 2

with `v = Q(d)` the encoded image and `N_i` two 3x3 convolutions. While `|N_i(x) - N_i(y)| <= |x - y|`, every `A_i` is
nonexpansive and `R` a contraction in `u` with the factor `gamma`. The paper's augmented network has `gamma` on `u` and not
on the output: with `w = gamma u` in place of `u` that is this one, its readout's first weights divided by `gamma`. Its batch
normalisation inside `R` would couple the samples of a solve, and is left out.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit_l2o.applications.images.blocks import AbstractBlock


@runtime_checkable
class RestrictableMap(Protocol):
    """`T` of a batch, which a solver can narrow to the samples that are not done."""

    def __call__(self, z: Tensor, /) -> Tensor:
        """`T(z)`, per sample."""
        ...

    def restrict(self, index: Tensor) -> "RestrictableMap":
        """The map of the samples `index` alone."""
        ...


class AbstractLatent(nn.Module, ABC):
    """The weights of a latent map; `condition` makes the map of a batch, which a solver then calls many times."""

    @abstractmethod
    def condition(self, injection: Float[Tensor, "B channels side side"]) -> RestrictableMap:
        """`T(.; v)` for the injection `v`, its weights normalised once."""

    @abstractmethod
    def regulate(self, injection: Float[Tensor, "B channels side side"]) -> None:
        """What a training batch may teach the map about its own contraction; evaluation never calls it."""

    @abstractmethod
    def proven_factor(self) -> float | None:
        """A proven `gamma < 1` with `|T(u) - T(w)| <= gamma |u - w|` at the present weights; None where none is proven."""

    @property
    @abstractmethod
    def factor(self) -> float:
        """The contraction factor that the map is built for: proven, or wanted."""

    @abstractmethod
    def words(self) -> tuple[str, tuple[str, ...]]:
        """The latent equation in LaTeX, and what is guaranteed of it, in sentences."""


class AbstractContraction(ABC):
    """How the solution of the latent equation is made unique: the choice that stands in an experiment's file."""

    @abstractmethod
    def build(self, channels: int, side: int, blocks: int) -> AbstractLatent:
        """The latent map for images `(channels, side, side)`; `blocks` residual blocks, where it has such."""


@dataclass(frozen=True, eq=False)
class LatentMap:
    """`R(u; v) = gamma A_k(... A_1(u + v))`; the last block has `gamma` in its weights.

    Args:
        blocks: the `A_i`, shared by the batch.
        injection: `v`, `(B, channels, side, side)`.
    """

    blocks: tuple[AbstractBlock, ...]
    injection: Float[Tensor, "B channels side side"]

    def __call__(self, u: Float[Tensor, "B channels side side"]) -> Float[Tensor, "B channels side side"]:
        """`R(u; v)`, per sample."""
        x = u + self.injection
        for block in self.blocks:
            x = block(x)
        return x

    def restrict(self, index: Int[Tensor, " k"]) -> "LatentMap":
        """The map of the samples `index` alone: lets the solver drop finished samples."""
        return replace(self, injection=self.injection[index])


def check_factor(name: str, gamma: float) -> None:
    """Raise a `ValueError` unless `0 < gamma < 1`."""
    if not 0 < gamma < 1:
        raise ValueError(f"{name} needs 0 < gamma < 1; got gamma={gamma}.")


def keeps(blocks: int, gamma: float) -> list[float]:
    """What each block keeps of its input: a half, and in the last one a half of `gamma`."""
    return [0.5] * (blocks - 1) + [0.5 * gamma]


def equation(gamma: float) -> str:
    """`R` in LaTeX."""
    return rf"u^\star = R(u^\star; Q(d)), \quad R(u; v) = {gamma} \cdot \frac{{(u + v) + N(u + v)}}{{2}}"
