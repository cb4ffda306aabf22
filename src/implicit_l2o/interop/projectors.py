"""Linear operators of other packages as ours, recognised by what they offer and imported by nobody but their owner.

Each is tried on random points when it is wrapped: `AdjointWarning` where its adjoint is off by more than 1e-4.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop._reshaped import Reshaped
from implicit_l2o.interop.geometries import to_astra
from implicit_l2o.physics import Geometry, MatrixFree, adjoint_error

PERMITTED = 1e-4  # error of an adjoint, relative

Shape = tuple[int, ...]
Map = Callable[[Tensor], Tensor]
Parts = tuple[Map, Map, Shape, Shape]  # an operator, its transpose, and the shapes of their samples


class AdjointWarning(UserWarning):
    """A wrapped operator's adjoint is not its transpose."""


def linear_operator(
    operator: Any,
    in_shape: Shape | None = None,
    out_shape: Shape | None = None,
    *,
    norm: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> il2o.AbstractLinearOperator:
    """Any linear operator as one of this library, which differentiates by its adjoint, batched.

    Taken are: a dense or sparse tensor and a SciPy sparse matrix; a SciPy `LinearOperator` and a PyLops operator; a deepinv
    `LinearPhysics`; an ODL `Operator`, without the weights of its spaces; an operator of this library, as it is.

    Args:
        operator: the operator.
        in_shape: of one input sample. Default: what the operator says (PyLops' `dims`, ODL's `domain.shape`, deepinv's
            `img_width` or `img_size`), else `(n,)`.
        out_shape: likewise of one output sample; for deepinv it is found by a trial.
        norm: an upper bound on the spectral norm of an operator without a matrix; default: an estimate.
        dtype: in which a matrix-free operator is tried.
        device: on which it is tried: that of a deepinv physics.

    Raises:
        TypeError: not a linear operator that is known here.
        ValueError: the shapes do not fit; complex numbers; an ODL operator that is not linear or between product spaces;
            deepinv without a shape; a norm of a matrix.

    Warns:
        AdjointWarning: the adjoint is off by more than 1e-4.

    Example:
        >>> import scipy.sparse.linalg, torch
        >>> from implicit_l2o.interop.projectors import linear_operator
        >>> difference = scipy.sparse.linalg.aslinearoperator(scipy.sparse.csr_array([[1.0, -1.0]]))
        >>> linear_operator(difference).apply(torch.tensor([[5.0, 2.0]]))
        tensor([[3.]])
    """
    if isinstance(operator, il2o.AbstractLinearOperator):
        return operator
    if isinstance(operator, Tensor) or type(operator).__module__.startswith("scipy.sparse._"):
        if norm is not None:
            raise ValueError(f"linear_operator: norm is for operators without a matrix; got norm={norm} and a matrix.")
        return _matrix(operator, in_shape, out_shape)
    if callable(getattr(operator, "matvec", None)) and callable(getattr(operator, "rmatvec", None)):
        make = _scipy(operator, in_shape, out_shape)
    elif callable(getattr(operator, "A", None)) and callable(getattr(operator, "A_adjoint", None)):
        make = _deepinv(operator, in_shape, dtype, device)
    elif all(hasattr(operator, name) for name in ("domain", "range", "is_linear", "adjoint")):
        make = _odl(operator, in_shape, out_shape)
    else:
        raise TypeError(
            "linear_operator takes a tensor, a SciPy matrix or LinearOperator, a PyLops, ODL or deepinv linear operator; "
            f"got {type(operator).__name__}."
        )
    wrapped = MatrixFree(*make, norm=norm, dtype=dtype, device=device)
    _try(wrapped, type(operator).__name__)
    return wrapped


def astra_projector(geometry: Geometry, *, kind: str = "linear", norm: float | None = None) -> MatrixFree:
    """ASTRA's line integrals on the CPU without a stored matrix, for geometries beyond `Projector`'s 5e7 entries.

    In the units of the geometry, not scaled to norm one. One image at a time, in float32; ASTRA is licensed under the GPL v3
    and comes with an extra.

    Args:
        geometry: which lines.
        kind: ASTRA's model of a ray: `"linear"` (Joseph's, as `Projector`), `"line"` or `"strip"`.
        norm: an upper bound on the spectral norm; default: an estimate by 40 iterations.

    Raises:
        ModuleNotFoundError: ASTRA is not installed.
        ValueError: another `kind`.
    """
    if kind not in ("linear", "line", "strip"):
        raise ValueError(f"astra_projector has the kinds linear, line, strip; got {kind!r}.")
    from implicit_l2o.interop._astra import AstraLines

    lines = AstraLines(*to_astra(geometry), kind)
    wrapped = MatrixFree(
        lines.forward, lines.transpose, geometry.image_shape, geometry.sinogram_shape, norm=norm, dtype=torch.float32
    )
    _try(wrapped, f"ASTRA's {kind!r} projector")
    return wrapped


def _matrix(matrix: Any, in_shape: Shape | None, out_shape: Shape | None) -> il2o.AbstractLinearOperator:
    operator = il2o.Matrix(matrix, sample_shape=in_shape)
    if out_shape is None:
        return operator
    _fits(out_shape, operator.out_shape[0], "out_shape")
    return Reshaped(operator, tuple(out_shape))


def _scipy(operator: Any, in_shape: Shape | None, out_shape: Shape | None) -> Parts:
    """SciPy's interface, which PyLops shares: columns are samples."""
    dtype = np.dtype(operator.dtype)
    if np.issubdtype(dtype, np.complexfloating):
        raise ValueError(f"linear_operator takes real operators; {type(operator).__name__} is {dtype}.")
    rows, columns = operator.shape
    in_shape = _integers(in_shape or getattr(operator, "dims", None) or (columns,))
    out_shape = _integers(out_shape or getattr(operator, "dimsd", None) or (rows,))
    _fits(in_shape, columns, "in_shape")
    _fits(out_shape, rows, "out_shape")

    def by_columns(product: str, x: Tensor, shape: Shape) -> Tensor:
        # An operator of integers takes real numbers as well, which its dtype would cut off.
        values = _to_numpy(x.flatten(1), dtype if np.issubdtype(dtype, np.floating) else np.float64)
        if not len(values):
            return x.new_zeros(0, *shape)
        result = np.stack([np.asarray(getattr(operator, product)(column)).ravel() for column in values])
        return _to_tensor(result, x).reshape(-1, *shape)

    return (
        lambda x: by_columns("matvec", x, out_shape),
        lambda y: by_columns("rmatvec", y, in_shape),
        in_shape,
        out_shape,
    )


def _deepinv(physics: Any, in_shape: Shape | None, dtype: torch.dtype, device: torch.device | str) -> Parts:
    """deepinv's: batched tensors both ways."""
    width, size = getattr(physics, "img_width", None), getattr(physics, "img_size", None)
    if in_shape is None and width is None and size is None:
        raise ValueError("linear_operator needs in_shape=(C, H, W): this deepinv physics does not say its own.")
    in_shape = _integers(in_shape or size or (1, width, width))
    with torch.no_grad():
        out_shape = tuple(physics.A(torch.zeros(1, *in_shape, dtype=dtype, device=device)).shape[1:])

    def not_empty(product: Any, x: Tensor, shape: Shape) -> Tensor:
        return product(x) if len(x) else x.new_zeros(0, *shape)

    return (
        lambda x: not_empty(physics.A, x, out_shape),
        lambda y: not_empty(physics.A_adjoint, y, in_shape),
        in_shape,
        out_shape,
    )


def _odl(operator: Any, in_shape: Shape | None, out_shape: Shape | None) -> Parts:
    """ODL's: `<K x, y>_Y = <x, K* y>_X` with weights `W`, so that `K^T y = W_X K* (y / W_Y)`."""
    if not operator.is_linear:
        raise ValueError(f"linear_operator takes linear operators; ODL's {type(operator).__name__} is not.")
    domain, range_, adjoint = operator.domain, operator.range, operator.adjoint
    if hasattr(domain, "spaces") or hasattr(range_, "spaces"):
        raise ValueError(
            f"linear_operator takes ODL operators between arrays; {type(operator).__name__} has product spaces."
        )
    in_shape, out_shape = _integers(in_shape or domain.shape), _integers(out_shape or range_.shape)
    _fits(in_shape, math.prod(domain.shape), "in_shape")
    _fits(out_shape, math.prod(range_.shape), "out_shape")
    of_domain, of_range = _odl_weight(domain), _odl_weight(range_)

    def one_by_one(product: Any, space: Any, x: Tensor, shape: Shape, before: Any, after: Any) -> Tensor:
        values = _to_numpy(x, np.dtype(str(space.dtype)))
        results = [after * _odl_array(product((v.reshape(space.shape) * before).astype(v.dtype))) for v in values]
        return _to_tensor(np.stack(results), x).reshape(-1, *shape) if results else x.new_zeros(0, *shape)

    return (
        lambda x: one_by_one(operator, domain, x, out_shape, 1.0, 1.0),
        lambda y: one_by_one(adjoint, range_, y, in_shape, 1 / of_range, of_domain),
        in_shape,
        out_shape,
    )


def _odl_weight(space: Any) -> Any:
    """The weight of the inner product, a number or an array of the shape of the space."""
    weighting = space.weighting
    const = getattr(weighting, "const", None)
    if const is not None:
        return float(const)
    array = getattr(weighting, "array", None)
    if array is None:
        raise ValueError(f"linear_operator knows ODL's constant and array weights; got {type(weighting).__name__}.")
    return np.asarray(array, dtype=np.float64)


def _odl_array(element: Any) -> np.ndarray:
    return np.asarray(element.asarray() if hasattr(element, "asarray") else element)


def _try(wrapped: MatrixFree, name: str) -> None:
    error = adjoint_error(wrapped, dtype=wrapped.dtype, device=wrapped.device)
    if not error <= PERMITTED:
        warnings.warn(
            f"{name}: its adjoint is off by {error:.1e} relative, more than {PERMITTED:.0e}. Implicit gradients and "
            "certificates will be off with it, and splittings need not converge.",
            AdjointWarning,
            stacklevel=3,
        )


def _integers(shape: Any) -> Shape:
    """NumPy's integers are no `int`."""
    return tuple(int(entries) for entries in shape)


def _fits(shape: Shape, entries: int, name: str) -> None:
    if math.prod(shape) != entries:
        raise ValueError(
            f"linear_operator: {name}={tuple(shape)} has {math.prod(shape)} entries; the operator {entries}."
        )


def _to_numpy(x: Tensor, dtype: Any) -> np.ndarray:
    return x.detach().cpu().numpy().astype(dtype, copy=False)


def _to_tensor(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)
