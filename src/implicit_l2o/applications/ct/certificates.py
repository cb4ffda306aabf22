"""What is certified of a reconstruction: the box, the measurement, the learned regulariser, optimality, and where it fails.

The general measures are the library's (`ConstraintViolation`, `RelativeDataFidelity`, `TotalVariation`, `Sparsity`,
`FixedPointResidual`); here are those that know a projector, a radius or a learned regulariser. The inference's data are the
sinogram `d`. Source: Heaton and Wu Fung, Explainable AI via Learning to Optimize (Scientific Reports, 2023), table 2.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct.bounds import least_misfit, suboptimality

BOX = "box violation"
FIDELITY = "fidelity excess"
INCONSISTENCY = "data inconsistency (bound)"
RESIDUAL = "relative residual"
GAP = "suboptimality (bound)"
REGULARISER = "learned regulariser"
POTENTIAL = "learned potential"
VARIATION = "total variation"
SPARSITY = "sparsity"

Map: TypeAlias = Callable[[Tensor], Tensor]  # of images (B, 1, H, W) to images, or to one number each (B,)
Radius: TypeAlias = float | Callable[[Tensor], Tensor]  # the number delta, or delta of each measurement: d to (B,)

UNIT_BOX = il2o.Box(lower=0.0, upper=1.0)


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
        >>> from implicit_l2o.applications.ct.certificates import FidelityExcess
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
        >>> from implicit_l2o.applications.ct.certificates import RelativeResidual
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
        force: `B`, of images `(B, 1, H, W)` to the same shape: `grad f`, or `x - N(x)`.
        name: shown in the report.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.ct.certificates import RegulariserResidual
        >>> toward_half = RegulariserResidual(lambda x: x - 0.5)
        >>> toward_half(il2o.Inference(x=torch.ones(1, 1, 2, 2)))
        tensor([0.5000])
    """

    force: Map
    name: str = field(default=REGULARISER, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The root mean square, per sample."""
        return self.force(inference.x).flatten(1).square().mean(1).sqrt()


@dataclass(frozen=True, eq=False)
class PotentialValue(il2o.AbstractMeasure):
    """`f(x)` of a learned convex potential: how unlikely an image is to it.

    Its gradient, on which `RegulariserResidual` looks, is bounded for the potentials that keep edges: many sharp edges
    raise the value where they hardly raise the gradient.

    Args:
        value: `f`, of images `(B, 1, H, W)` to one number each, `(B,)`.
        name: shown in the report.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.ct.certificates import PotentialValue
        >>> PotentialValue(lambda x: x.flatten(1).abs().sum(1))(il2o.Inference(x=torch.ones(1, 1, 2, 2)))
        tensor([4.])
    """

    value: Map
    name: str = field(default=POTENTIAL, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """`f(x)`, per sample."""
        return self.value(inference.x)


@dataclass(frozen=True, eq=False)
class SuboptimalityBound(il2o.AbstractMeasure):
    """A proven bound on `(f(x) - f*) / f(x)`: how far a convex `f >= 0` is above its least value under the constraints.

    With `f* = min {f(y) : y in [0, 1]^n, |A y - d| <= delta |d|}` it is a primal-dual gap, which `bounds.suboptimality`
    derives. It needs no state of the solver, so it judges any image. It bounds the objective, not the distance to the best
    image. An image outside the constraints may be better than all inside, which gives a negative value: the claim holds
    where this and the constraints' certificates pass. Where no image meets the constraints there is no best one, and the
    value says nothing: see `Inconsistency`.

    Args:
        A: the projector.
        delta: as for `FidelityExcess`.
        value: `f`, of images to one number each.
        gradient: of `f`.
        multiplier: gives the ball's multiplier of an inference, `(B, angles, bins)`, of any positive length: for
            Davis-Yin `z - P(z)` in the coordinates of the ball. None takes `A x - d`, which is its direction where the
            ball is active; where delta is 0 there is no such direction, and a tight bound needs the multiplier.
        name: shown in the report.

    Raises:
        ValueError: delta is negative or not finite.
    """

    A: il2o.AbstractLinearOperator
    delta: Radius
    value: Map
    gradient: Map
    multiplier: Callable[[il2o.Inference], Tensor] | None = field(default=None, kw_only=True)
    name: str = field(default=GAP, kw_only=True)

    def __post_init__(self) -> None:
        _check_radius(self.delta, "SuboptimalityBound")

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The relative bound, per sample."""
        x, d = inference.x, _sinogram(inference, self.name)
        direction = self.A.apply(x) - d if self.multiplier is None else self.multiplier(inference)
        bound = suboptimality(self.A, x, self.gradient(x), d, radius(self.delta, d) * _norm(d), direction)
        return bound / self.value(x).double().clamp_min(torch.finfo(x.dtype).tiny)


def fixed_certificates(
    A: il2o.AbstractLinearOperator, delta: Radius, *, tolerance: float = 1e-4, residual: float | None = None
) -> tuple[il2o.Certificate, ...]:
    """The certificates of the constraints, whose limits are chosen and not calibrated.

    Args:
        A: the projector.
        delta: the relative radius that the answers are promised to keep.
        tolerance: of the fidelity in units of `|d|`, and of the box as a distance per pixel (root mean square).
        residual: the largest relative residual; None leaves it out, for answers that no solver made.

    Raises:
        ValueError: delta is negative or not finite.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.ct.certificates import fixed_certificates
        >>> A = il2o.Matrix(torch.eye(4))
        >>> d, x = torch.ones(2, 4), torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
        >>> report = il2o.certify(fixed_certificates(A, 0.1), il2o.Inference(x=x, data=d))
        >>> report.names, report.trusted
        (('box violation', 'fidelity excess', 'data inconsistency (bound)'), tensor([ True, False]))
    """
    pixels = math.prod(A.in_shape)
    box = il2o.Certificate(il2o.ConstraintViolation(UNIT_BOX, name=BOX), il2o.Threshold(tolerance * pixels**0.5))
    fidelity = il2o.Certificate(FidelityExcess(A, delta), il2o.Threshold(tolerance))
    consistent = il2o.Certificate(Inconsistency(A, delta), il2o.Threshold(tolerance))
    rest = () if residual is None else (il2o.Certificate(RelativeResidual(), il2o.Threshold(residual)),)
    return (box, fidelity, consistent, *rest)


def learned_measures(
    force: Map | None = None, *, value: Map | None = None, K: il2o.AbstractLinearOperator | None = None
) -> tuple[il2o.AbstractMeasure, ...]:
    """The properties to be calibrated on data (`il2o.calibrate`): what images of the training's kind are like.

    Args:
        force: of the learned regulariser, as for `RegulariserResidual`; None where there is none.
        value: of a learned potential, as for `PotentialValue`; None where there is none.
        K: a transform in which the images are sparse; None leaves sparsity out.

    Example:
        >>> from implicit_l2o.applications.ct.certificates import learned_measures
        >>> [measure.name for measure in learned_measures(lambda x: x)]
        ['learned regulariser', 'total variation']
    """
    regulariser = () if force is None else (RegulariserResidual(force),)
    potential = () if value is None else (PotentialValue(value),)
    sparsity = () if K is None else (il2o.Sparsity(K, order=1, name=SPARSITY),)
    return (*regulariser, *potential, il2o.TotalVariation(name=VARIATION), *sparsity)


def without_solve(certificates: Sequence[il2o.Certificate]) -> tuple[il2o.Certificate, ...]:
    """Those that judge an image and its measurement alone, so the answers of any method.

    Example:
        >>> import implicit_l2o as il2o
        >>> from implicit_l2o.applications.ct.certificates import RelativeResidual, without_solve
        >>> without_solve([il2o.Certificate(RelativeResidual(), il2o.Threshold(1e-3))])
        ()
    """
    solve = (RelativeResidual, il2o.FixedPointResidual, il2o.DavisYinDistance, il2o.BanachBound, il2o.BanachEstimate)

    def needs_one(measure: il2o.AbstractMeasure) -> bool:
        tight = isinstance(measure, SuboptimalityBound) and measure.multiplier is not None
        return isinstance(measure, solve) or tight

    return tuple(certificate for certificate in certificates if not needs_one(certificate.measure))


@torch.no_grad()
def certificate_maps(
    x: Float[Tensor, "B 1 H W"],
    d: Float[Tensor, "B *sinogram"],
    A: il2o.AbstractLinearOperator,
    force: Map | None = None,
) -> dict[str, Float[Tensor, "B 1 H W"]]:
    """Where an image fails: for each property that has one, a map over the pixels, nonnegative, small is good.

    Args:
        x: the reconstructions.
        d: the sinograms.
        A: the projector.
        force: of the learned regulariser, as for `RegulariserResidual`.

    Returns:
        By the certificates' names: how far a pixel is outside [0, 1]; the size of the back-projected residual
        `|A^T (A x - d)|`; the size of the regulariser's force.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.ct.certificates import certificate_maps
        >>> from implicit_l2o.physics import Geometry, Projector
        >>> A = Projector(Geometry.uniform(16, angles=8))
        >>> x = torch.full((1, 1, 16, 16), 1.5)
        >>> maps = certificate_maps(x, A.apply(x), A)
        >>> {name: round(float(map.max()), 3) for name, map in maps.items()}
        {'box violation': 0.5, 'fidelity excess': 0.0}
    """
    outside = (x - x.clamp(0, 1)).abs()
    unexplained = A.adjoint(A.apply(x) - d).abs()
    maps = {BOX: outside, FIDELITY: unexplained}
    return maps if force is None else maps | {REGULARISER: force(x).abs()}


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
