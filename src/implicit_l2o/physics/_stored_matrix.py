"""A constant sparse matrix with its transpose, copied to each device on which it is used."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators._sparse import SparseMatrix


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """`A` and `A^T`; the products run where their argument is, so that a model moves without its operators being told.

    Args:
        matrix: a SciPy CSR matrix.
        dtype: of the products.
    """

    matrix: Any
    dtype: torch.dtype
    _copies: dict[torch.device, SparseMatrix] = field(default_factory=dict, init=False, repr=False)

    def apply(self, x: Float[Tensor, "B *in"]) -> Float[Tensor, "B m"]:
        """`A x`, per sample."""
        return self._on(x.device).apply(x.flatten(1))

    def adjoint(self, y: Float[Tensor, "B *out"]) -> Float[Tensor, "B n"]:
        """`A^T y`, per sample."""
        return self._on(y.device).adjoint(y.flatten(1))

    def _on(self, device: torch.device) -> SparseMatrix:
        if device not in self._copies:
            self._copies[device] = SparseMatrix.of(self.matrix, self.dtype, device)
        return self._copies[device]

    def __getstate__(self) -> dict[str, Any]:
        return {"matrix": self.matrix, "dtype": self.dtype, "_copies": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> "StoredMatrix":
        return self  # immutable
