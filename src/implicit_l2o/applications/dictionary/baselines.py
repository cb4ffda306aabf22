"""What the implicit dictionary is compared with, besides trained networks: recovery without a learned transform."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.dictionary.data import DictionaryData, World, complete, world
from implicit_l2o.applications.dictionary.model import ImplicitDictionary
from implicit_l2o.training import AbstractBaseline, AbstractData, AbstractTask

_STEPS = 4000  # of a recovery that nobody trains through: converged, so that the rows differ by their transforms alone


@dataclass(eq=False)
class LeastSquares(AbstractBaseline):
    """`x = A^+ d`: of all signals that explain the measurement, the one of least norm."""

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Factorise `A`."""
        self._factor = il2o.affine_factor(_world(data).A)

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The signals."""
        return il2o.Inference(x=self._factor.solve(batch[0]), data=batch[0])


@dataclass(eq=False)
class LinearRegression(AbstractBaseline):
    """The linear map from measurements to signals that is best on the training data.

    Where there are at least as many measurements as atoms this map is exact on every signal of the dictionary: the problem
    is then hard only for who is not told signals.
    """

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Solve the normal equations in float64, by the pseudo-inverse: the measurements may be dependent."""
        d, x = (tensor.double() for tensor in data.splits.train.tensors)
        self._map = (torch.linalg.pinv(d.mT @ d, hermitian=True, rtol=1e-9) @ (d.mT @ x)).to(
            data.splits.train.tensors[1]
        )

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The signals."""
        return il2o.Inference(x=batch[0] @ self._map, data=batch[0])

    def numbers(self) -> Mapping[str, Any]:
        """How many numbers it learned."""
        return {"parameters": self._map.numel()}


@dataclass(eq=False)
class SparseRecovery(AbstractBaseline):
    """The same problem with a transform that is not trained.

    Args:
        transform: `"identity"`, that is `|x|_1` itself; `"whitening"`, the inverse root of the training signals' covariance,
            of condition number 10; or `"true"`, the true dictionary completed by what is orthogonal to its atoms, which
            bounds all others.
    """

    transform: Literal["identity", "whitening", "true"] = "identity"

    def __post_init__(self) -> None:
        if self.transform not in ("identity", "whitening", "true"):
            raise ValueError(
                f"SparseRecovery knows 'identity', 'whitening' and 'true'; got transform={self.transform!r}."
            )

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Take the transform."""
        M, A = _world(data)
        stopping = il2o.Stopping(atol=0.0, rtol=1e-3, max_steps=_STEPS)
        self._model = ImplicitDictionary(A, seed=0, solver=il2o.KrasnoselskiiMann(stopping, relaxation=1.8))
        with torch.no_grad():
            if self.transform == "true":
                self._model.D.copy_(complete(M))
            elif self.transform == "whitening":
                self._model.D.copy_(covariance_root(data.splits.train.tensors[1]))
            else:
                self._model.D.copy_(torch.eye(len(M)))

    @torch.no_grad()
    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The signals."""
        return self._model(batch[0])


def covariance_root(x: Float[Tensor, "N n"], *, condition: float = 10.0) -> Float[Tensor, "n n"]:
    """The symmetric root of `x^T x`, its largest singular value 1 and none below `1 / condition`."""
    values, vectors = torch.linalg.eigh(x.double().mT @ x.double())
    root = (values / values.max()).clamp_min(0.0).sqrt().clamp_min(1.0 / condition)
    return ((vectors * root) @ vectors.mT).to(x.dtype)


def _world(data: AbstractData) -> World:
    if not isinstance(data, DictionaryData):
        raise TypeError(
            f"the baselines of the dictionary take its own data, DictionaryData; got {type(data).__name__}."
        )
    return world(data.sizes, data.run_seed)
