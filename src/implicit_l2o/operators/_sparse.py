"""Constant sparse matrices: a CSR tensor stored together with its transpose."""

import contextlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators._linear_map import linear_map


def is_sparse(A: Any) -> bool:
    """Whether `A` is a sparse tensor or a SciPy sparse matrix."""
    if isinstance(A, Tensor):
        return A.layout != torch.strided
    # Not isinstance: SciPy is imported only where one of its matrices has arrived.
    return type(A).__module__.startswith("scipy.sparse")


def to_scipy(A: Any, name: str) -> Any:
    """A SciPy CSR matrix in float64 with sorted indices, from a tensor or a SciPy sparse matrix; it must be finite."""
    import scipy.sparse

    if isinstance(A, Tensor):
        if A.requires_grad:
            raise ValueError(
                f"{name} takes a sparse matrix as a constant, but it requires grad: detach it or make it dense."
            )
        with _quiet():
            coo = A.detach().cpu().to_sparse_coo().coalesce()
        row, column = coo.indices().numpy()
        A = scipy.sparse.coo_array((coo.values().double().numpy(), (row, column)), shape=tuple(A.shape))
    matrix = scipy.sparse.csr_array(A, dtype=np.float64)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    if not np.isfinite(matrix.data).all():
        raise ValueError(f"{name}: the sparse matrix has entries that are NaN or infinite.")
    return matrix


def torch_dtype(A: Any) -> torch.dtype:
    """The dtype in which a matrix computes: its own if floating point, else PyTorch's default."""
    if isinstance(A, Tensor):
        return A.dtype if A.is_floating_point() else torch.get_default_dtype()
    return {"float32": torch.float32, "float64": torch.float64}.get(str(A.dtype), torch.get_default_dtype())


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """A constant sparse matrix `A` and `A^T`, both CSR: `A.t()` of a CSR tensor is CSC, whose product is 70 times slower."""

    csr: Tensor
    csr_transposed: Tensor

    @classmethod
    def of(cls, matrix: Any, dtype: torch.dtype, device: torch.device | str) -> "SparseMatrix":
        """From a SciPy CSR matrix."""
        return cls(_csr(matrix, dtype, device), _csr(matrix.T.tocsr(), dtype, device))

    def __deepcopy__(self, memo: dict[int, Any]) -> "SparseMatrix":
        return self  # immutable, and PyTorch cannot copy CSR tensors

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.csr.shape[0], self.csr.shape[1]

    def apply(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        """`A x`, per sample."""
        return linear_map(x, self.matvec, self.rmatvec)

    def adjoint(self, y: Float[Tensor, "B m"]) -> Float[Tensor, "B n"]:
        """`A^T y`, per sample."""
        return linear_map(y, self.rmatvec, self.matvec)

    def matvec(self, x: Tensor) -> Tensor:
        """`A x` without a graph."""
        return (self.csr @ x.mT).mT.contiguous()

    def rmatvec(self, y: Tensor) -> Tensor:
        """`A^T y` without a graph."""
        return (self.csr_transposed @ y.mT).mT.contiguous()


def _csr(matrix: Any, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    # int32 indices: products are 1.5 times faster than with int64 (measured on CPU).
    small = max(matrix.nnz, *matrix.shape) < 2**31
    index = torch.int32 if small else torch.int64
    with _quiet():
        return torch.sparse_csr_tensor(
            torch.as_tensor(matrix.indptr, dtype=index, device=device),
            torch.as_tensor(matrix.indices, dtype=index, device=device),
            torch.as_tensor(matrix.data, dtype=dtype, device=device),
            size=matrix.shape,
            check_invariants=True,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's notes that its sparse tensors are young; those operations used here are tested."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        yield


def sparse_norm_bound(matrix: Any, iterations: int = 30) -> float:
    """A proven upper bound on the spectral norm of a SciPy sparse matrix.

    For `B = |A|^T |A|` and any positive `v`, `|A|_2^2 <= rho(B) <= max_i (B v)_i / v_i` (Collatz and Wielandt; Horn and
    Johnson, Matrix Analysis, 8.1.26). Iterating `v <- B v` sharpens the bound to the norm of `|A|`: exact in the limit for
    matrices of one sign, such as projectors. The Frobenius norm is the other bound; the smaller one is returned.
    """
    absolute = abs(matrix).tocsr()
    transposed = absolute.T.tocsr()
    bound = float((matrix.data**2).sum())
    v = np.ones(matrix.shape[1])
    for _ in range(iterations):
        Bv = transposed @ (absolute @ v)
        largest = Bv.max(initial=0.0)
        if largest == 0:
            return 0.0
        bound = min(bound, float((Bv / v).max()))
        # Kept positive, as the bound asks: a block of small norm must not vanish.
        v = np.maximum(Bv / largest, 1e-12)
    return math.sqrt(bound) * (1 + 1e-12 * sum(matrix.shape))
