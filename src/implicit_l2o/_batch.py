"""Per-sample arithmetic on tensors `(B, *shape)`, the packing of product spaces, and restriction to some samples.

A leaf of the import graph: it imports torch alone.
"""

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# What a tensor field of an operator means. `event_ndim` is the number of dimensions of ONE sample's parameter: a tensor with
# more dimensions than that carries the batch first (1 or B). So a shared image-shaped bound is written (1, H, W), and
# nothing has to be guessed from sizes that happen to agree.
SCALAR: Mapping[str, Any] = {"event_ndim": 0, "like_x": False}  # () shared, (B,) per sample
VECTOR: Mapping[str, Any] = {
    "event_ndim": 1,
    "like_x": True,
}  # broadcasts against x: (), (n,), (1, *shape), (B, *shape)
DATA: Mapping[str, Any] = {
    "event_ndim": 1,
    "like_x": False,
}  # a vector of its own length: (m,) shared, (B, m) per sample
MATRIX: Mapping[str, Any] = {"event_ndim": 2, "like_x": False}  # (m, n) shared, (B, m, n) per sample


def flatten(x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B n"]:
    """View `(B, *shape)` as `(B, n)`; a batch of scalars `(B,)` becomes `(B, 1)`."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def dot(x: Float[Tensor, "B *shape"], y: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
    """Euclidean inner product of each pair of samples."""
    return (flatten(x) * flatten(y)).sum(-1)


def norm(x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
    """Euclidean norm of each sample."""
    # Over all dimensions at once: flattening would copy what lies in memory in another order, as images do.
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim))) if x.ndim > 1 else x.abs()


def finite(x: Float[Tensor, "B *shape"]) -> Bool[Tensor, " B"]:
    """Whether each sample has finite entries only."""
    if x.ndim == 1 or not x.numel():
        return torch.isfinite(flatten(x)).all(-1)
    # The largest entry is not finite if any is not; finding it is many times faster than asking each of them.
    return torch.isfinite(torch.linalg.vector_norm(x, torch.inf, dim=tuple(range(1, x.ndim))))


def in_order_of(like: Float[Tensor, "B *shape"], x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B n"]:
    """`flatten`, but in the order in which `like` lies in memory: a view of an image whose channels come last as well."""
    return flatten(x.permute(0, 2, 3, 1)) if _channels_last(like) else flatten(x)


def shaped_like(like: Float[Tensor, "B *shape"], flat: Float[Tensor, "B n"]) -> Float[Tensor, "B *shape"]:
    """Undo `in_order_of`; a view."""
    if not _channels_last(like):
        return flat.reshape(like.shape)
    batch, channels, height, width = like.shape
    return flat.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def exporting() -> bool:
    """Whether `torch.export` is tracing: then nothing that is done may depend on the numbers in a tensor."""
    return torch.compiler.is_exporting()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Outside autocast; `torch.export` gets no such region, for it runs what it traces in the dtypes that it saw."""
    return nullcontext() if exporting() else torch.autocast(device.type, enabled=False)


def expand(value: Any, like: Tensor) -> Any:
    """Shape a per-sample scalar `(B,)` so that it broadcasts against `like` `(B, *shape)`; plain numbers pass unchanged."""
    if isinstance(value, Tensor) and value.ndim == 1:
        return value.reshape(-1, *([1] * (like.ndim - 1)))
    return value


def pack(*parts: Tensor) -> Float[Tensor, "B n"]:
    """Join the components of a product space, each `(B, *shape_i)`, into one tensor `(B, n)`."""
    return torch.cat([flatten(part) for part in parts], dim=-1)


def unpack(z: Float[Tensor, "B n"], shapes: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
    """Undo `pack`: cut `(B, n)` into components of the given sample shapes."""
    parts = torch.split(z, [math.prod(shape) for shape in shapes], dim=-1)
    return tuple(part.reshape(z.shape[0], *shape) for part, shape in zip(parts, shapes, strict=True))


class Batched:
    """Mixin of frozen dataclasses whose fields may differ by sample.

    A tensor field that may carry the batch says so in its metadata (`SCALAR`, `VECTOR`, `DATA`, `MATRIX`).
    """

    @final
    def restrict(self, index: Int[Tensor, " k"]) -> Self:
        """The same object for the samples `index` of the batch; shared fields and factorisations are reused."""
        if not dataclasses.is_dataclass(self):
            return self
        changes = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            restricted = _restrict_value(value, field.metadata, index)
            if restricted is not value:
                changes[field.name] = restricted
        if not changes:
            return self
        # Not dataclasses.replace: __post_init__ would validate and factorise again.
        clone = copy.copy(self)
        for name, value in changes.items():
            object.__setattr__(clone, name, value)
        return clone

    @final
    def check_batch(self, x: Tensor, name: str) -> None:
        """Raise a `ValueError` that names the field whose batch size, shape, dtype or device does not fit `x`."""
        if not dataclasses.is_dataclass(self):
            return
        in_shape = getattr(self, "in_shape", None)
        if in_shape is not None and tuple(in_shape) != tuple(x.shape[1:]):
            raise ValueError(f"{name} acts on samples of shape {tuple(in_shape)}; got x of shape {tuple(x.shape)}.")
        for field in dataclasses.fields(self):
            _check_value(getattr(self, field.name), field.metadata, x, f"{name}.{field.name}")


def _restrict_value(value: Any, metadata: Mapping[str, Any], index: Tensor) -> Any:
    if isinstance(value, Batched):
        return value.restrict(index)
    if isinstance(value, tuple) and any(isinstance(item, Batched) for item in value):
        parts = tuple(_restrict_value(item, metadata, index) for item in value)
        return parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
    if is_per_sample(value, metadata):
        return value[index]
    return value


def is_per_sample(value: Any, metadata: Mapping[str, Any]) -> bool:
    """Whether a field's value differs by sample, by the rule of its metadata."""
    return (
        isinstance(value, Tensor)
        and "event_ndim" in metadata
        and value.ndim > metadata["event_ndim"]
        and value.shape[0] != 1
    )


def _check_value(value: Any, metadata: Mapping[str, Any], x: Tensor, name: str) -> None:
    if isinstance(value, Batched) and not metadata.get("own_domain", False):
        value.check_batch(x, name)
        return
    if isinstance(value, tuple) and not metadata.get("own_domain", True):
        for index, item in enumerate(value):
            _check_value(item, {}, x, f"{name}[{index}]")
        return
    if not isinstance(value, Tensor) or "event_ndim" not in metadata:
        return
    if value.is_floating_point() and value.dtype != x.dtype:
        raise ValueError(f"{name} is {value.dtype} but x is {x.dtype}; convert one of them.")
    if value.device != x.device:
        raise ValueError(f"{name} is on {value.device} but x is on {x.device}; move one of them.")
    if is_per_sample(value, metadata) and value.shape[0] != x.shape[0]:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}: its first dimension is the batch and must be 1 or B={x.shape[0]}."
        )
    if metadata["like_x"]:
        _check_like_x(value, x, name)


def _check_like_x(value: Tensor, x: Tensor, name: str) -> None:
    if value.ndim > 1 and value.ndim != x.ndim:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} and x {tuple(x.shape)}: with two or more dimensions a parameter "
            f"carries the batch first; for one shared by the batch write {name.split('.')[-1]}[None]."
        )
    if x.ndim == 1 and value.ndim == 1 and value.shape[0] != 1:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} and x {tuple(x.shape)}, a batch of scalars: a vector could be one "
            "parameter a sample or one shared by all. Give the samples a dimension: x of shape (B, 1), parameters (B, 1)."
        )
    try:
        fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} of shape {tuple(value.shape)} does not broadcast to x of shape {tuple(x.shape)}.")
