"""Log-sum-exp and its gradient, the logit (quantal response) map. McFadden (1974); McKelvey and Palfrey (1995)."""

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import SCALAR
from implicit_l2o.operators._parameters import nonnegative
from implicit_l2o.operators.base import AbstractSmooth, Scalar


@final
@dataclass(frozen=True, eq=False)
class Logit(AbstractSmooth):
    """The logit map `softmax(x / temperature)`, gradient of `f(x) = temperature log sum_i exp(x_i / temperature)`.

    It answers utilities `x` with the choice probabilities of a player who errs: the quantal response. `f` is the conjugate
    of `EntropicSimplex(temperature)`. `lipschitz` is `1 / (2 temperature)`, because the covariance of a distribution on n
    points, `diag(p) - p p^T`, has no eigenvalue above 1/2.

    Args:
        temperature: > 0; a number or one value a sample `(B,)`.

    Raises:
        ValueError: a constant temperature is not positive. A learned or per-sample one that is not gives NaN in its sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.Logit(2.0).apply(torch.tensor([[0.0, 2.0 * torch.log(torch.tensor(3.0))]])).round(decimals=4)
        tensor([[0.2500, 0.7500]])
    """

    temperature: Scalar = field(default=1.0, metadata=SCALAR)

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", nonnegative(self.temperature, "Logit.temperature", SCALAR, strict=True))

    @property
    def lipschitz(self) -> Scalar:
        """`1 / (2 temperature)`; detached."""
        temperature = self.temperature.detach() if isinstance(self.temperature, Tensor) else self.temperature
        return 0.5 / temperature

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """The choice probabilities."""
        return (_batch.flatten(x) / self._column()).softmax(-1).reshape(x.shape)

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`temperature log sum_i exp(x_i / temperature)`."""
        return self.temperature * torch.logsumexp(_batch.flatten(x) / self._column(), -1)

    def _column(self) -> Scalar:
        return self.temperature.reshape(-1, 1) if isinstance(self.temperature, Tensor) else self.temperature
