"""The certificates and the calibrated properties of an implicit reconstruction, from its model alone."""

import math

from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct.certificates import Learned, fixed_certificates, learned_measures
from implicit_l2o.applications.ct.measures import SuboptimalityBound
from implicit_l2o.applications.ct.model import SCALE, ImplicitReconstruction
from implicit_l2o.applications.ct.regularisers import ConvexPotential

_GAP = 0.02  # of the suboptimality, relative to the objective's slope over the box
_RESIDUAL = 1.1  # times the tolerance that the solves stop at


def certificates_of(network: ImplicitReconstruction, *, tolerance: float = 1e-4) -> tuple[il2o.Certificate, ...]:
    """Those with fixed limits: box, fidelity, consistency, residual and, of a convex potential, the suboptimality.

    Args:
        network: the model, with the radius that it has learned.
        tolerance: see `fixed_certificates`.

    Example:
        >>> from implicit_l2o.applications.ct.properties import certificates_of
        >>> from implicit_l2o.applications.ct.model import ImplicitReconstruction
        >>> from implicit_l2o.applications.ct.regularisers import ConvexPotential
        >>> from implicit_l2o.physics import Geometry, Projector
        >>> network = ImplicitReconstruction(Projector(Geometry.uniform(16, angles=8)), ConvexPotential((16, 16)))
        >>> [certificate.name for certificate in certificates_of(network)][-2:]
        ['relative residual', 'suboptimality (bound)']
    """
    projector, delta = network.scanner.projector, float(network.delta.detach())
    rtol = network.solver.stopping.rtol
    # The solve stops relative to the pair (x, SCALE A x), which is longer than x by up to this.
    residual = None if rtol is None else _RESIDUAL * rtol * math.hypot(1, SCALE)
    fixed = fixed_certificates(projector, delta, tolerance=tolerance, residual=residual)
    if not isinstance(network.regulariser, ConvexPotential):
        return fixed

    def multiplier(inference: il2o.Inference) -> Tensor:
        """`z - P(z)` for the ball, up to its length: both lie on a ray from its centre."""
        assert inference.z is not None
        _, w = network.scanner.graph.split(inference.z)
        return w - SCALE * inference.data

    bound = SuboptimalityBound(projector, delta, Learned(network).force, multiplier=multiplier)
    return (*fixed, il2o.Certificate(bound, il2o.Threshold(_GAP)))


def measures_of(network: ImplicitReconstruction) -> tuple[il2o.AbstractMeasure, ...]:
    """Those to be calibrated on data: the learned regulariser's force and value, total variation."""
    learned = Learned(network)
    return learned_measures(learned.force, value=learned.value)
