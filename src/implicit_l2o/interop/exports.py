"""Our operators and models as others take them: SciPy's `LinearOperator`, deepinv's physics and `model(y, physics)`."""

from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.interop.projectors import linear_operator


def to_scipy(operator: il2o.AbstractLinearOperator, dtype: torch.dtype = torch.float32) -> Any:
    """A SciPy `LinearOperator` on flattened samples, for its iterative methods (`lsqr`, `svds`) and for PyLops.

    Args:
        operator: any linear operator of this library.
        dtype: in which the operator computes.

    Example:
        >>> from scipy.sparse.linalg import lsqr
        >>> from implicit_l2o.interop.exports import to_scipy
        >>> from implicit_l2o.physics import Geometry, Projector
        >>> A = to_scipy(Projector(Geometry.uniform(16, angles=8)))
        >>> x = lsqr(A, A @ ([1.0] * 256), iter_lim=10)[0]
        >>> A.shape, x.shape
        ((200, 256), (256,))
    """
    from scipy.sparse.linalg import LinearOperator

    def by_columns(product: Callable[[Tensor], Tensor], columns: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        samples = torch.as_tensor(np.ascontiguousarray(columns.T), dtype=dtype).reshape(-1, *shape)
        with torch.no_grad():
            return product(samples).flatten(1).numpy().T

    def forward(x: np.ndarray) -> np.ndarray:
        return by_columns(operator.apply, x.reshape(n, -1), operator.in_shape)

    def transpose(y: np.ndarray) -> np.ndarray:
        return by_columns(operator.adjoint, y.reshape(m, -1), operator.out_shape)

    m, n = int(np.prod(operator.out_shape)), int(np.prod(operator.in_shape))
    kind = np.dtype(str(dtype).removeprefix("torch."))
    # SciPy's stubs do not know its constructor's arguments.
    return LinearOperator((m, n), forward, transpose, forward, kind, transpose)  # pyright: ignore


def to_deepinv(operator: il2o.AbstractLinearOperator) -> Any:
    """A `deepinv.physics.LinearPhysics` with the operator and its adjoint; sinograms stay `(B, angles, bins)`.

    Raises:
        ModuleNotFoundError: deepinv is not installed.
    """
    from deepinv.physics import LinearPhysics  # pyright: ignore[reportMissingImports]

    physics = LinearPhysics(A=operator.apply, A_adjoint=operator.adjoint)
    physics.img_size = operator.in_shape
    return physics


@final
class DeepinvModel(nn.Module):
    """A reconstruction in deepinv's form, `model(y, physics) -> x`, for its trainer, its losses and its metrics.

    Args:
        reconstruct: `(y, operator) -> x`: from measurements as deepinv lays them out, and the physics as an operator of this
            library. A module's weights become those of this one.
        in_shape: of one image, where the physics does not say it.

    Example:
        >>> import types, torch
        >>> from implicit_l2o.interop.exports import DeepinvModel
        >>> physics = types.SimpleNamespace(A=lambda x: 2 * x, A_adjoint=lambda y: 2 * y)
        >>> model = DeepinvModel(lambda y, operator: operator.adjoint(y) / 4, in_shape=(1, 2, 2))
        >>> model(torch.full((1, 1, 2, 2), 6.0), physics)
        tensor([[[[3., 3.],
                  [3., 3.]]]])
    """

    def __init__(
        self,
        reconstruct: Callable[[Tensor, il2o.AbstractLinearOperator], Tensor],
        *,
        in_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.reconstruct = reconstruct
        self.in_shape = in_shape
        self._wrapped: tuple[Any, il2o.AbstractLinearOperator] | None = None

    def forward(self, y: Tensor, physics: Any) -> Tensor:
        """The reconstruction; the physics is wrapped, and its adjoint tried, when it is first seen."""
        if self._wrapped is None or self._wrapped[0] is not physics:
            self._wrapped = (physics, linear_operator(physics, self.in_shape, dtype=y.dtype, device=y.device))
        return self.reconstruct(y, self._wrapped[1])
