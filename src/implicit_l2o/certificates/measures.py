"""Properties of an answer, one number a sample, small is good.

Source: Heaton and Wu Fung, Explainable AI via Learning to Optimize (Scientific Reports, 2023), table 2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.certificates.base import AbstractMeasure, Inference
from implicit_l2o.operators.base import AbstractLinearOperator, AbstractProximable, AbstractSet


@dataclass(frozen=True, eq=False)
class FixedPointResidual(AbstractMeasure):
    """`|T(z) - z|`, Euclidean, at the returned point: how far the iteration is from rest.

    Args:
        name: shown in the report.

    Raises:
        ValueError: the inference is not from a solve.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import FixedPointResidual, Inference
        >>> FixedPointResidual()(Inference(x=torch.zeros(2, 3), residual=torch.tensor([0.5, 0.0])))
        tensor([0.5000, 0.0000])
    """

    name: str = field(default="fixed-point residual", kw_only=True)

    def __call__(self, inference: Inference) -> Float[Tensor, " B"]:
        """`|T(z) - z|`, per sample."""
        return inference.need_residual(self.name)


@dataclass(frozen=True, eq=False)
class ConstraintViolation(AbstractMeasure):
    """`dist(x, C)`, Euclidean: the largest distance to a set of the problem, or the distance to a given set.

    Args:
        to: a set shared by all samples; None for the sets among the problem's `g`, `h` and (at `K x`) `l`.
        name: shown in the report.

    Raises:
        ValueError: no set is given and the inference carries no problem.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.certificates import ConstraintViolation, Inference
        >>> ConstraintViolation(il2o.Box(lower=0.0))(Inference(x=torch.tensor([[1.0, 2.0], [-3.0, -4.0]])))
        tensor([0., 5.])
    """

    to: AbstractSet | None = None
    name: str = field(default="constraint violation", kw_only=True)

    def __call__(self, inference: Inference) -> Float[Tensor, " B"]:
        """`dist(x, C)`, per sample."""
        if self.to is not None:
            return self.to.violation(inference.x)
        return inference.need_problem(self.name).violation(inference.x)


@dataclass(frozen=True, eq=False)
class RelativeDataFidelity(AbstractMeasure):
    """`|A x - d| / |d|`: does the answer explain the measurement? For `d = 0`: 0 if `A x = 0`, else infinite.

    Args:
        A: the measurement operator.
        measurement: takes `d`, `(B, *out)`, from the inference's data; None when the data are `d`.
        name: shown in the report.

    Raises:
        TypeError: the measurement is not a tensor.
        ValueError: the measurement has not the shape of `A x`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.certificates import Inference, RelativeDataFidelity
        >>> A = il2o.Matrix(torch.tensor([[1.0, 1.0]]))
        >>> RelativeDataFidelity(A)(Inference(x=torch.tensor([[1.0, 2.0]]), data=torch.tensor([[4.0]])))
        tensor([0.2500])
    """

    A: AbstractLinearOperator
    measurement: Callable[[Any], Tensor] | None = field(default=None, kw_only=True)
    name: str = field(default="relative data fidelity", kw_only=True)

    def __call__(self, inference: Inference) -> Float[Tensor, " B"]:
        """`|A x - d| / |d|`, per sample."""
        d = inference.data if self.measurement is None else self.measurement(inference.data)
        if not isinstance(d, Tensor):
            raise TypeError(f"'{self.name}' needs the measurement as a tensor; got data of type {type(d).__name__}.")
        predicted = self.A.apply(inference.x)
        if d.shape != predicted.shape:
            raise ValueError(f"'{self.name}': A x has shape {tuple(predicted.shape)} but d {tuple(d.shape)}.")
        error, scale = _batch.norm(predicted - d), _batch.norm(d)
        return torch.where(scale > 0, error / scale, torch.where(error > 0, math.inf, error))


@dataclass(frozen=True, eq=False)
class Sparsity(AbstractMeasure):
    """`|K x|_0`, the number of entries that are not zero, or `|K x|_1`.

    Args:
        K: a transform in which the answer should be sparse; None for the identity.
        order: 0 counts, 1 sums absolute values.
        tolerance: for order 0, entries up to this size count as zero.
        name: shown in the report.

    Raises:
        ValueError: another order, a negative tolerance, or a tolerance with order 1.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import Inference, Sparsity
        >>> x = Inference(x=torch.tensor([[0.0, -3.0, 1e-6]]))
        >>> Sparsity(tolerance=1e-3)(x), Sparsity(order=1)(x)
        (tensor([1.]), tensor([3.0000]))
    """

    K: AbstractLinearOperator | None = None
    order: Literal[0, 1] = field(default=0, kw_only=True)
    tolerance: float = field(default=0.0, kw_only=True)
    name: str = field(default="sparsity", kw_only=True)

    def __post_init__(self) -> None:
        if self.order not in (0, 1):
            raise ValueError(f"Sparsity needs order 0 (count) or 1 (sum); got order={self.order}.")
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"Sparsity needs 0 <= tolerance < inf; got tolerance={self.tolerance}.")
        if self.order == 1 and self.tolerance != 0:
            raise ValueError(f"Sparsity has a tolerance for order 0 only; got order=1, tolerance={self.tolerance}.")

    def __call__(self, inference: Inference) -> Float[Tensor, " B"]:
        """`|K x|` in the chosen order, per sample."""
        x = inference.x if self.K is None else self.K.apply(inference.x)
        size = _batch.flatten(x).abs()
        return size.sum(-1) if self.order == 1 else (size > self.tolerance).sum(-1).to(x.dtype)


@dataclass(frozen=True, eq=False)
class TotalVariation(AbstractMeasure):
    """Sum of `|grad x|` over the pixels, forward differences, zero across the border; channels are added.

    Args:
        isotropic: Euclidean norm of the gradient in each pixel; else the sum `|dx| + |dy|` (`|grad x|_1`, table 2).
        name: shown in the report.

    Raises:
        ValueError: the answers are not images `(B, H, W)` or `(B, C, H, W)`.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import Inference, TotalVariation
        >>> step = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]])
        >>> TotalVariation()(Inference(x=step))
        tensor([2.])
    """

    isotropic: bool = field(default=False, kw_only=True)
    name: str = field(default="total variation", kw_only=True)

    def __call__(self, inference: Inference) -> Float[Tensor, " B"]:
        """The total variation, per sample."""
        x = inference.x
        if x.ndim not in (3, 4):
            raise ValueError(f"'{self.name}' needs images (B, H, W) or (B, C, H, W); got shape {tuple(x.shape)}.")
        down = torch.zeros_like(x)
        right = torch.zeros_like(x)
        down[..., :-1, :] = x.diff(dim=-2)
        right[..., :-1] = x.diff(dim=-1)
        pixels = torch.hypot(down, right) if self.isotropic else down.abs() + right.abs()
        return _batch.flatten(pixels).sum(-1)


@dataclass(frozen=True, eq=False)
class Objective(AbstractMeasure):
    """`f(x) + g(x) + h(x) + l(K x)` of the problem, sets counted as zero; the one measure that may be negative.

    Args:
        name: shown in the report.

    Raises:
        ValueError: the inference carries no problem.
        TypeError: a term of the problem has no value.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.certificates import Inference, Objective
        >>> problem = il2o.Problem(F=il2o.QuadraticCost(linear=torch.ones(2), diagonal=2.0))
        >>> Objective()(Inference(x=torch.ones(1, 2), problem=problem))
        tensor([4.])
    """

    name: str = field(default="objective", kw_only=True)

    def __call__(self, inference: Inference) -> Float[Tensor, " B"]:
        """The objective's value, per sample."""
        return inference.need_problem(self.name).objective(inference.x)


@dataclass(frozen=True, eq=False)
class ProximalResidual(AbstractMeasure):
    """`|x - prox_{step f}(x)|`: zero iff `x` minimises `f`; for a regulariser, how far `x` is from what it prefers.

    Args:
        term: `f`, shared by all samples.
        step: positive.
        name: shown in the report.

    Raises:
        ValueError: a step that is not positive and finite.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.certificates import Inference, ProximalResidual
        >>> ProximalResidual(il2o.Box(lower=0.0))(Inference(x=torch.tensor([[-2.0, 1.0]])))
        tensor([2.])
    """

    term: AbstractProximable
    step: float = field(default=1.0, kw_only=True)
    name: str = field(default="proximal residual", kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.step < math.inf:
            raise ValueError(f"ProximalResidual needs 0 < step < inf; got step={self.step}.")

    def __call__(self, inference: Inference) -> Float[Tensor, " B"]:
        """`|x - prox(x)|`, per sample."""
        return _batch.norm(inference.x - self.term.prox(inference.x, self.step))
