"""What is certified of a selection: that the layer's answer keeps the limits, and that the model is as sure as usual."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.decoders import Knapsack, decide_finite

VIOLATION = "constraint violation"
MOST_VIOLATION = 0.2  # units of weight, of a capacity of 20

# Of the layer's answer; the decided selection keeps the limits exactly.
CONSTRAINTS = (il2o.Certificate(il2o.ConstraintViolation(name=VIOLATION), il2o.Threshold(MOST_VIOLATION)),)


def decide(decoder: Knapsack, inference: il2o.Inference) -> Float[Tensor, "B items"]:
    """The best selection under the values that were predicted for an inference: what the model does at test time.

    Where nothing was solved the answer is a selection already. NaN for a sample whose predicted costs are not finite.
    """
    return inference.x if inference.problem is None else decide_finite(decoder, inference.data)


@dataclass(frozen=True, eq=False)
class MassOffSelection(il2o.AbstractMeasure):
    """The share of the selected items that the layer's answer does not hold: 0 when it is the selection, towards 1 in doubt.

    The quadratic term spreads the answer over items of nearly equal predicted worth, so it says by itself how close the
    decision was.

    Args:
        decoder: decides.
        name: shown in the report.
    """

    decoder: Knapsack
    name: str = field(default="mass off the selection", kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """`1 - <x, selection> / |selection|`, per sample; 0 where nothing is selected."""
        chosen = decide(self.decoder, inference)
        count = chosen.sum(1)
        return (1 - (inference.x * chosen).sum(1) / count.clamp_min(1.0)).where(count > 0, 0.0)
