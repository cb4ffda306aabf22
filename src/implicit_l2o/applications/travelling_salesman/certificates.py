"""What is certified of a tour: that the layer's answer is in the relaxation, and that the model is as sure as usual."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.decoders import TravellingSalesman, decide_finite

VIOLATION = "constraint violation"
MOST_VIOLATION = 1e-2  # edges; a city has two

# Of the layer's answer; the decided tour is a tour exactly.
CONSTRAINTS = (il2o.Certificate(il2o.ConstraintViolation(name=VIOLATION), il2o.Threshold(MOST_VIOLATION)),)


def decide(decoder: TravellingSalesman, inference: il2o.Inference) -> Float[Tensor, "B edges"]:
    """The cheapest tour under the costs that were predicted for an inference: what the model does at test time.

    Where nothing was solved the answer is a tour already. NaN for a sample whose predicted costs are not finite.
    """
    return inference.x if inference.problem is None else decide_finite(decoder, inference.data)


@dataclass(frozen=True, eq=False)
class EdgesOffTour(il2o.AbstractMeasure):
    """The share of the relaxed tour that is not on the decided one: 0 when it is that tour, towards 1 in doubt.

    Args:
        decoder: decides.
        name: shown in the report.
    """

    decoder: TravellingSalesman
    name: str = field(default="edges off the tour", kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """`1 - <x, tour> / n`, per sample."""
        tour = decide(self.decoder, inference)
        return 1 - (inference.x * tour).sum(1) / tour.sum(1)
