"""The implicit reconstruction as it is served."""

from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct import properties
from implicit_l2o.applications.ct.model import ImplicitReconstruction
from implicit_l2o.applications.ct.regularisers import AbstractRegulariser
from implicit_l2o.applications.ct.scanning import check_sinogram, scanner
from implicit_l2o.serving import AbstractServable


@final
class ServedReconstruction(AbstractServable):
    """Sinograms `(B, angles, bins)` to images `(B, 1, size, size)` in [0, 1], with the certificates of the training.

    Args:
        regulariser: as for `ImplicitReconstructionTask`, like the others.
        size: pixels along one side.
        angles: views.
        width: of the context network.
        delta: relative radius at first; the learned one is in the weights.
        solver: None takes that of `ImplicitReconstruction`.

    Example:
        >>> from implicit_l2o.applications.ct import ConvexPotential
        >>> from implicit_l2o.applications.ct.served import ServedReconstruction
        >>> len(ServedReconstruction(regulariser=ConvexPotential((16, 16)), size=16, angles=8).certificates())
        5
    """

    def __init__(
        self,
        *,
        regulariser: AbstractRegulariser,
        size: int = 64,
        angles: int = 30,
        width: int = 16,
        delta: float = 0.0098,
        solver: il2o.AbstractFixedPointSolver | None = None,
    ) -> None:
        super().__init__()
        self.projector = scanner(size, angles)
        self.model = ImplicitReconstruction(self.projector, regulariser, width=width, delta=delta, solver=solver)

    def infer(self, d: Float[Tensor, "B angles bins"]) -> il2o.Inference:
        """Solved to the model's tolerance."""
        return self.model(d)

    def certificates(self) -> Sequence[il2o.Certificate]:
        """Those with fixed limits."""
        return properties.certificates_of(self.model)

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """Those that were calibrated."""
        return properties.measures_of(self.model)

    def check(self, d: Tensor) -> None:
        """A sinogram of this scanner."""
        check_sinogram(d, self.projector)
