"""What is certified of a reconstruction, with which limits, and where in the image a property fails.

The constraints have limits that are chosen; those of the learned properties are calibrated on data (`il2o.calibrate`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct.measures import (
    FIDELITY,
    REGULARISER,
    FidelityExcess,
    Inconsistency,
    Map,
    PotentialValue,
    Radius,
    RegulariserResidual,
    RelativeResidual,
)

BOX = "box violation"
VARIATION = "total variation"
SPARSITY = "sparsity"

UNIT_BOX = il2o.Box(lower=0.0, upper=1.0)

_NODES = 4  # of the quadrature of a work: exact for a force that is a polynomial of degree 7 along the way


@runtime_checkable
class Conditional(Protocol):
    """A model whose regulariser depends on the measurement."""

    def first(self, d: Tensor) -> tuple[Tensor, Tensor]:
        """A first image `(B, 1, H, W)`, and where the solve starts."""
        ...

    def condition(self, d: Tensor, x: Tensor) -> il2o.AbstractMonotone:
        """The regulariser's `F` for these measurements, given a first image."""
        ...


@dataclass(frozen=True, eq=False)
class Learned:
    """What a model has learned, as the measures ask for it: of images and the sinograms that they answer.

    Args:
        model: with the weights that will be used.
    """

    model: Conditional

    def force(self, x: Float[Tensor, "B 1 H W"], d: Float[Tensor, "B *sinogram"]) -> Float[Tensor, "B 1 H W"]:
        """`F(x; d)`: the potential's gradient, or what the network would change."""
        return self._regulariser(d).apply(x)

    def value(self, x: Float[Tensor, "B 1 H W"], d: Float[Tensor, "B *sinogram"]) -> Float[Tensor, " B"]:
        """`f(x; d)`; for a network without a potential the work `int_0^1 <F(t x; d), x> dt` from the empty image to `x`.

        Of a gradient that integral is `f(x; d) - f(0; d)`, so it is the closest thing to a value that a network has.
        """
        regulariser = self._regulariser(d)
        if isinstance(regulariser, il2o.AbstractSmooth):
            return regulariser.value(x)
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        work = [
            w / 2 * (regulariser.apply((t + 1) / 2 * x) * x).flatten(1).sum(1)
            for t, w in zip(nodes, weights, strict=True)
        ]
        return torch.stack(work).sum(0)

    def _regulariser(self, d: Tensor) -> il2o.AbstractMonotone:
        image, _ = self.model.first(d)
        return self.model.condition(d, image)


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
        >>> [measure.name for measure in learned_measures(lambda x, d: x)]
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
        >>> from implicit_l2o.applications.ct.certificates import without_solve
        >>> from implicit_l2o.applications.ct.measures import RelativeResidual
        >>> without_solve([il2o.Certificate(RelativeResidual(), il2o.Threshold(1e-3))])
        ()
    """
    solve = (RelativeResidual, il2o.FixedPointResidual, il2o.DavisYinDistance, il2o.BanachBound, il2o.BanachEstimate)

    return tuple(certificate for certificate in certificates if not isinstance(certificate.measure, solve))


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
    return maps if force is None else maps | {REGULARISER: force(x, d).abs()}
