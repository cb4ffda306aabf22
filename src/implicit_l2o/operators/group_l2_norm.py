"""Group norm `sum_g w_g |x_g|`. Yuan and Lin (2006), the group lasso; of a gradient it is isotropic total variation."""

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import DATA
from implicit_l2o.operators._parameters import nonnegative
from implicit_l2o.operators.base import AbstractFunction, Array, Scalar


@final
@dataclass(frozen=True, eq=False)
class GroupL2Norm(AbstractFunction):
    """The function `g(x) = sum_g weight_g |x_g|_2` over disjoint groups of entries.

    `prox(x, s)_g = max(1 - s weight_g / |x_g|, 0) x_g`. Exactly one of `dim` and `groups` says what a group is.

    Args:
        weight: >= 0. A number; with `dim`, a tensor `(1 or B, *shape)` whose size along `dim` is 1; with `groups`, one
            value a group, `(G,)` or `(B, G)`.
        dim: a dimension of the sample: the entries along it form a group. For `FiniteDifferences2D`, whose samples are
            `(2, H, W)`, `dim=0` makes isotropic total variation.
        groups: `(n,)` integers `0..G-1`: the group of each entry of the flattened sample.

    Raises:
        ValueError: not exactly one of `dim` and `groups`; bad labels; a constant weight is negative (a learned or
            per-sample negative weight gives NaN in its group).

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> x = torch.tensor([[3.0, 4.0, 1.0]])
        >>> il2o.GroupL2Norm(2.5, groups=torch.tensor([0, 0, 1])).prox(x, 1.0)
        tensor([[1.5000, 2.0000, 0.0000]])
    """

    weight: Array = field(default=1.0, metadata=DATA)
    dim: int | None = field(default=None, kw_only=True)
    groups: Tensor | None = field(default=None, kw_only=True)
    _count: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", nonnegative(self.weight, "GroupL2Norm.weight", DATA))
        if (self.dim is None) == (self.groups is None):
            raise ValueError(
                f"GroupL2Norm needs exactly one of dim and groups; got dim={self.dim}, groups={self.groups}."
            )
        if self.groups is None:
            return
        if self.groups.ndim != 1 or self.groups.is_floating_point() or self.groups.numel() == 0:
            raise ValueError(
                f"GroupL2Norm.groups must be integers (n,); got {self.groups.dtype} of shape {tuple(self.groups.shape)}."
            )
        if int(self.groups.min()) < 0:
            raise ValueError(f"GroupL2Norm.groups must be >= 0; got {int(self.groups.min())}.")
        object.__setattr__(self, "_count", int(self.groups.max()) + 1)
        if isinstance(self.weight, Tensor) and self.weight.ndim > 0 and self.weight.shape[-1] != self._count:
            raise ValueError(
                f"GroupL2Norm.weight has shape {tuple(self.weight.shape)} but there are {self._count} groups."
            )

    def prox(self, x: Float[Tensor, "B *shape"], step: Scalar) -> Float[Tensor, "B *shape"]:
        """`max(1 - step weight_g / |x_g|, 0) x_g`, group by group."""
        squared = self._squared(x)
        threshold = _batch.expand(step, squared) * self.weight
        below = squared.detach().sqrt() <= threshold
        # Below the threshold the unused branch gets ones: the square root has no derivative at zero.
        shrink = torch.where(below, 0.0, 1 - threshold / torch.where(below, 1.0, squared).sqrt())
        return x * self._spread(shrink, x)

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`sum_g weight_g |x_g|`; at a zero group the derivative is taken as 0, a subgradient."""
        squared = self._squared(x)
        zero = squared == 0
        norms = torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())
        return _batch.flatten(norms * self.weight).sum(-1)

    def _squared(self, x: Tensor) -> Tensor:
        """Squared norm of each group: `x` with size 1 along `dim`, or `(B, G)`."""
        if self.dim is not None:
            return x.square().sum(self.dim + 1 if self.dim >= 0 else self.dim, keepdim=True)
        assert self.groups is not None
        flat = _batch.flatten(x)
        if flat.shape[-1] != self.groups.shape[0]:
            raise ValueError(f"GroupL2Norm labels {self.groups.shape[0]} entries; got samples of {flat.shape[-1]}.")
        return flat.new_zeros(flat.shape[0], self._count).index_add(1, self.groups, flat.square())

    def _spread(self, per_group: Tensor, x: Tensor) -> Tensor:
        return per_group if self.groups is None else per_group[:, self.groups].reshape(x.shape)
