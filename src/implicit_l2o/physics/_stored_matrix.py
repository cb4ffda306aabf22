"""A constant sparse matrix with its transpose, copied to each device on which it is used."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._numba import has_numba
from implicit_l2o.operators._linear_map import linear_map
from implicit_l2o.operators._sparse import SparseMatrix

_WORTH_COMPILING = 2**16  # numbers in a batch: below, numba's import costs more than it will ever save


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """`A` and `A^T`; the products run where their argument is, so that a model moves without its operators being told.

    PyTorch's product takes samples as columns. Where they come so (`batch_last`), the result goes so. Otherwise the two
    transposes around the product are up to a quarter of the time; compiled ones take over for large batches on a CPU, where
    numba is installed.

    Args:
        matrix: a SciPy CSR matrix; kept in `dtype`.
        dtype: of the products.
    """

    matrix: Any
    dtype: torch.dtype
    _copies: dict[torch.device, SparseMatrix] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        # In the dtype of the products, so that their tensor on the CPU shares its memory.
        object.__setattr__(self, "matrix", self.matrix.astype(str(self.dtype).removeprefix("torch.")))

    def apply(self, x: Float[Tensor, "B *in"]) -> Float[Tensor, "B m"]:
        """`A x`, per sample."""
        return linear_map(_batch.flatten(x), self._matvec, self._rmatvec)

    def adjoint(self, y: Float[Tensor, "B *out"]) -> Float[Tensor, "B n"]:
        """`A^T y`, per sample."""
        return linear_map(_batch.flatten(y), self._rmatvec, self._matvec)

    def _matvec(self, x: Tensor) -> Tensor:
        if _batch.exporting():
            return _scattered(x, *self._entries)
        return _product(self._on(x.device).csr, x)

    def _rmatvec(self, y: Tensor) -> Tensor:
        if _batch.exporting():
            rows, columns, values, (m, n) = self._entries
            return _scattered(y, columns, rows, values, (n, m))
        return _product(self._on(y.device).csr_transposed, y)

    @cached_property
    def _entries(self) -> tuple[Tensor, Tensor, Tensor, tuple[int, int]]:
        """Rows, columns and values, for `torch.export`, which knows no sparse tensors."""
        entries = self.matrix.tocoo()
        row, column = (torch.from_numpy(np.asarray(index, dtype=np.int64)) for index in entries.coords)
        return row, column, torch.from_numpy(entries.data), self.matrix.shape

    def _on(self, device: torch.device) -> SparseMatrix:
        if device not in self._copies:
            self._copies[device] = SparseMatrix.of(self.matrix, self.dtype, device)
        return self._copies[device]

    def __getstate__(self) -> dict[str, Any]:
        return {"matrix": self.matrix, "dtype": self.dtype, "_copies": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> "StoredMatrix":
        return self  # immutable


def batch_last(x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
    """The same numbers with the samples next to each other in memory, as sparse products like them; shape and values stay.

    What is computed elementwise keeps this layout, so an iteration that begins in it saves the transposes of every product.

    Example:
        >>> import torch
        >>> from implicit_l2o.physics import batch_last
        >>> batch_last(torch.ones(16, 1, 8, 8)).stride()
        (1, 1024, 128, 16)
    """
    return x.flatten(1).mT.contiguous().mT.unflatten(1, x.shape[1:]) if x.ndim > 2 else x.mT.contiguous().mT


def _scattered(x: Tensor, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """The product by gathering and adding; several times slower than that of a CSR tensor."""
    return x.new_zeros(x.shape[0], shape[0]).index_add(1, rows, x.index_select(1, columns) * values)


def _product(csr: Tensor, x: Tensor) -> Tensor:
    if x.mT.is_contiguous() and not x.is_contiguous():
        return (csr @ x.mT).mT
    return _rows(csr @ _columns(x))


def _columns(x: Tensor) -> Tensor:
    """`(B, n)` as `(n, B)` in one block of memory."""
    if not (_is_compiled(x) and x.is_contiguous()):
        return x.mT.contiguous()
    from implicit_l2o.physics._transpose_kernel import to_columns

    columns = x.new_empty(x.shape[1], x.shape[0])
    to_columns(x.numpy(), columns.numpy())
    return columns


def _rows(columns: Tensor) -> Tensor:
    """`(n, B)` as `(B, n)` in one block of memory."""
    if not _is_compiled(columns):
        return columns.mT.contiguous()
    from implicit_l2o.physics._transpose_kernel import from_columns

    x = columns.new_empty(columns.shape[1], columns.shape[0])
    from_columns(columns.numpy(), x.numpy())
    return x


def _is_compiled(x: Tensor) -> bool:
    # PyTorch's tracers give other kinds of tensors, without numbers.
    return type(x) is Tensor and x.device.type == "cpu" and x.numel() >= _WORTH_COMPILING and has_numba()
