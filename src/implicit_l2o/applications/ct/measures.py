"""Properties of a reconstruction that know a projector, a radius or a regulariser; one number an image, small is good.

The general ones are the library's: `ConstraintViolation`, `RelativeDataFidelity`, `TotalVariation`, `Sparsity`,
`FixedPointResidual`. The inference's data are the sinogram `d`. Source: Heaton and Wu Fung, Explainable AI via Learning to
Optimize (Scientific Reports, 2023), table 2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct.bounds import least_misfit, suboptimality

FIDELITY = "fidelity excess"
INCONSISTENCY = "data inconsistency (bound)"
RESIDUAL = "relative residual"
GAP = "suboptimality (bound)"
REGULARISER = "learned regulariser"
POTENTIAL = "learned potential"

# Of images (B, 1, H, W) and the sinograms that they answer, to images, or to one number each (B,): what is learned may
# depend on the measurement.
Map: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Radius: TypeAlias = float | Callable[[Tensor], Tensor]  # the number delta, or delta of each measurement: d to (B,)


@dataclass(frozen=True, eq=False)
class FidelityExcess(il2o.AbstractMeasure):
    """`max(0, |A x - d| / |d| - delta)`: by how much the answer leaves the measurement's ball, in units of `|d|`.

    Beside it `RelativeDataFidelity` says how far the answer is from the measurement at all.

    Args:
        A: the projector.
        delta: the relative radius, at least 0; a number, or a function that gives one for each measurement.
        name: shown in the report.

    Raises:
        ValueError: delta is negative or not finite.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.ct.measures import FidelityExcess
        >>> fidelity = FidelityExcess(il2o.Matrix(torch.eye(1)), 0.25)
        >>> fidelity(il2o.Inference(x=torch.tensor([[1.0], [2.0]]), data=torch.tensor([[1.0], [4.0]])))
        tensor([0.0000, 0.2500])
    """

    A: il2o.AbstractLinearOperator
    delta: Radius
    name: str = field(default=FIDELITY, kw_only=True)

    def __post_init__(self) -> None:
        _check_radius(self.delta, "FidelityExcess")

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The excess, per sample."""
        fidelity = il2o.RelativeDataFidelity(self.A, name=self.name)(inference)
        return (fidelity - radius(self.delta, inference.data)).clamp_min(0)


@dataclass(frozen=True, eq=False)
class Inconsistency(il2o.AbstractMeasure):
    """`max(0, b - delta)` for a proven `b <= min {|A y - d| / |d| : y in [0, 1]^n}`: above 0 no image can explain `d`.

    It tells a measurement that no reconstruction could satisfy (a dead detector, a wrong geometry, a delta too small) from
    an answer that merely is not good. At 0 nothing is proven; see `bounds.least_misfit`.

    Args:
        A: the projector.
        delta: as for `FidelityExcess`.
        steps: of the search for a good bound, two projections each.
        name: shown in the report.

    Raises:
        ValueError: delta is negative or not finite.
    """

    A: il2o.AbstractLinearOperator
    delta: Radius
    steps: int = field(default=100, kw_only=True)
    name: str = field(default=INCONSISTENCY, kw_only=True)

    def __post_init__(self) -> None:
        _check_radius(self.delta, "Inconsistency")

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The excess of the bound, per sample."""
        d = _sinogram(inference, self.name)
        scale = _norm(d).clamp_min(torch.finfo(d.dtype).tiny)
        bound = least_misfit(self.A, inference.x, d, steps=self.steps) / scale
        return (bound - radius(self.delta, d)).clamp_min(0)


@dataclass(frozen=True, eq=False)
class RelativeResidual(il2o.AbstractMeasure):
    """`|T(z) - z| / |x|`: how far the iteration is from rest, whatever the size of the image.

    Args:
        name: shown in the report.

    Raises:
        ValueError: the inference is not from a solve.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.ct.measures import RelativeResidual
        >>> RelativeResidual()(il2o.Inference(x=torch.tensor([[3.0, 4.0]]), residual=torch.tensor([0.5])))
        tensor([0.1000])
    """

    name: str = field(default=RESIDUAL, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The relative residual, per sample."""
        return inference.need_residual(self.name) / _norm(inference.x).clamp_min(torch.finfo(inference.x.dtype).tiny)


@dataclass(frozen=True, eq=False)
class RegulariserResidual(il2o.AbstractMeasure):
    """The root mean square over the pixels of what the learned regulariser would still change of the image.

    For a potential `f` that is its gradient; for a network `N` whose fixed points are the preferred images, `x - N(x)`. In
    a constrained reconstruction it is balanced by the constraints, so it is not zero: it is the force with which the
    measurement holds the image away from what the regulariser has learned. Its usual size is calibrated on training data;
    for strangers it is larger.

    Args:
        force: of images and sinograms to images: `grad f(x; d)`, or `x - N(x; d)`.
        name: shown in the report.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.ct.measures import RegulariserResidual
        >>> toward_half = RegulariserResidual(lambda x, d: x - 0.5)
        >>> toward_half(il2o.Inference(x=torch.ones(1, 1, 2, 2), data=torch.zeros(1, 3, 4)))
        tensor([0.5000])
    """

    force: Map
    name: str = field(default=REGULARISER, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The root mean square, per sample."""
        return self.force(inference.x, _sinogram(inference, self.name)).flatten(1).square().mean(1).sqrt()


@dataclass(frozen=True, eq=False)
class PotentialValue(il2o.AbstractMeasure):
    """`f(x; d)` of a learned potential, or a network's work in its place: how unlikely an image is to it.

    The force, on which `RegulariserResidual` looks, is bounded for the regularisers that keep edges: many sharp edges raise
    the value where they hardly raise the force.

    Args:
        value: of images and sinograms to one number each: `f(x; d)`.
        name: shown in the report.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.ct.measures import PotentialValue
        >>> inference = il2o.Inference(x=torch.ones(1, 1, 2, 2), data=torch.zeros(1, 3, 4))
        >>> PotentialValue(lambda x, d: x.flatten(1).abs().sum(1))(inference)
        tensor([4.])
    """

    value: Map
    name: str = field(default=POTENTIAL, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """`f(x)`, per sample."""
        return self.value(inference.x, _sinogram(inference, self.name))


@dataclass(frozen=True, eq=False)
class SuboptimalityBound(il2o.AbstractMeasure):
    """A proven bound on how far a convex `f(x; d)` is above its least value `f*` under the constraints.

    With `f* = min {f(y) : y in [0, 1]^n, |A y - d| <= delta |d|}` it is a primal-dual gap, which `bounds.suboptimality`
    derives. It needs no state of the solver, so it judges any image. It is relative to `f(x)` where `f >= 0` is given, and
    else to `|grad f(x)|_1`, to first order the most that `f` could fall by within the box if there were no measurement.

    It bounds the objective, not the distance to the best image. An image outside the constraints may be better than all
    inside, which gives a negative value: the claim holds where this and the constraints' certificates pass. Where it is
    proven that no image meets the constraints there is no best one, and the value is infinite: see `Inconsistency`.

    Args:
        A: the projector.
        delta: as for `FidelityExcess`.
        gradient: of `f`, of images and sinograms to images.
        value: `f`, of images and sinograms to one number each, at least 0; None takes the other scale.
        multiplier: gives the ball's multiplier of a solve, `(B, angles, bins)`, of any positive length: for Davis-Yin
            `z - P(z)` in the coordinates of the ball. None, and an answer without a solve, take `A x - d`, which is its
            direction where the ball is active; where delta is 0 there is none, and a tight bound needs the multiplier.
        name: shown in the report.

    Raises:
        ValueError: delta is negative or not finite.
    """

    A: il2o.AbstractLinearOperator
    delta: Radius
    gradient: Map
    value: Map | None = field(default=None, kw_only=True)
    multiplier: Callable[[il2o.Inference], Tensor] | None = field(default=None, kw_only=True)
    name: str = field(default=GAP, kw_only=True)

    def __post_init__(self) -> None:
        _check_radius(self.delta, "SuboptimalityBound")

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The relative bound, per sample."""
        x, d = inference.x, _sinogram(inference, self.name)
        known = None if inference.z is None else self.multiplier
        direction = self.A.apply(x) - d if known is None else known(inference)
        gradient = self.gradient(x, d)
        bound = suboptimality(self.A, x, gradient, d, radius(self.delta, d) * _norm(d), direction)
        scale = gradient.flatten(1).abs().sum(1) if self.value is None else self.value(x, d)
        return bound / scale.double().clamp_min(torch.finfo(x.dtype).tiny)


def radius(delta: Radius, d: Float[Tensor, "B *sinogram"]) -> Float[Tensor, ""] | Float[Tensor, " B"]:
    """The relative radius as a tensor: shared, or one for each measurement."""
    return delta(d) if callable(delta) else d.new_tensor(delta)


def _check_radius(delta: Radius, owner: str) -> None:
    if not callable(delta) and not 0 <= delta < math.inf:
        raise ValueError(f"{owner} needs 0 <= delta < inf; got delta={delta}.")


def _sinogram(inference: il2o.Inference, name: str) -> Tensor:
    if not isinstance(inference.data, Tensor):
        kind = type(inference.data).__name__
        raise TypeError(f"'{name}' needs the sinogram as the inference's data; got {kind}.")
    return inference.data


def _norm(value: Tensor) -> Tensor:
    return value.flatten(1).norm(dim=1)
