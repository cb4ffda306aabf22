"""The properties that an answer must have: it explains the measurement, and it is sparse under the learned transform."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o

FIDELITY = 1e-5  # relative: a hundred roundings of float32; the published model stopped at 1e-2


@dataclass(frozen=True, eq=False)
class RelativeSparsity(il2o.AbstractMeasure):
    """`|K x|_1 / |d|`: sparsity that does not grow with the signal; for `d = 0`: 0 if `K x = 0`, else infinite.

    The published property `|K x|_1` passes whatever is small enough. Divided by the size of the measurement it compares
    signals of every size.

    Args:
        K: the learned transform, `(n, n)`.
        name: shown in the report.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.dictionary.certificates import RelativeSparsity
        >>> answer = il2o.Inference(x=torch.tensor([[3.0, -1.0]]), data=torch.tensor([[2.0]]))
        >>> RelativeSparsity(torch.eye(2))(answer)
        tensor([2.])
    """

    K: Float[Tensor, "n n"]
    name: str = field(default="relative sparsity", kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """`|K x|_1 / |d|`, per sample."""
        size = (inference.x @ self.K.mT).abs().sum(dim=1)
        scale = torch.linalg.vector_norm(inference.data, dim=1)
        return torch.where(scale > 0, size / scale, torch.where(size > 0, torch.inf, size))


def fidelity(A: Float[Tensor, "m n"]) -> il2o.Certificate:
    """`|A x - d| / |d|` up to the rounding of float32."""
    return il2o.Certificate(il2o.RelativeDataFidelity(il2o.Matrix(A), name="fidelity"), il2o.Threshold(FIDELITY))


def sparsities(K: Float[Tensor, "n n"]) -> tuple[il2o.AbstractMeasure, il2o.AbstractMeasure]:
    """The published property `|K x|_1`, and the one that is free of scale; to be calibrated."""
    return il2o.Sparsity(il2o.Matrix(K), order=1, name="sparsity"), RelativeSparsity(K)
