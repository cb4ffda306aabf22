"""What is certified of predicted flows: that they carry the trips, and that no traveller of the model has a quicker path."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o import games
from implicit_l2o.games import PolynomialCost, TrafficNetwork

WARDROP = "Wardrop gap under the predicted times"
CONSERVATION = "violation of conservation"
NEGATIVE = "negative flow"
RESIDUAL = "fixed-point residual"


@dataclass(frozen=True, eq=False)
class WardropGap(il2o.AbstractMeasure):
    """`(TSTT - SPTT) / TSTT` under the times that the model predicts: what all travellers could save by quicker paths.

    It measures the solve, not the model: how good the predicted times are is known only where the true ones are.

    Args:
        network: links and trips.
        name: shown in the report.
    """

    network: TrafficNetwork
    name: str = field(default=WARDROP, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The gap, per sample; NaN where no times were predicted."""
        if not isinstance(inference.data, PolynomialCost):
            return torch.full((len(inference.x),), torch.nan)
        flow = inference.x.detach().double()
        times = inference.data.apply(flow).detach().cpu().numpy()
        return torch.as_tensor(games.gaps.relative_gap(self.network, flow.cpu().numpy(), times)).float()


@dataclass(frozen=True, eq=False)
class FlowConservation(il2o.AbstractMeasure):
    """The largest difference, over the nodes, of what arrives and leaves and what should, per trip.

    Args:
        network: links and trips.
        name: shown in the report.
    """

    network: TrafficNetwork
    name: str = field(default=CONSERVATION, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The largest difference, per sample."""
        found = games.gaps.conservation_violation(self.network, inference.x.detach().cpu().double().numpy())
        return torch.as_tensor(found).float()


@dataclass(frozen=True, eq=False)
class NegativeFlow(il2o.AbstractMeasure):
    """The largest negative flow of a link, as a positive number; 0 where there is none.

    Args:
        name: shown in the report.
    """

    name: str = field(default=NEGATIVE, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The largest, per sample."""
        return (-inference.x).amax(1).clamp_min(0.0)


def certificates(network: TrafficNetwork) -> tuple[il2o.Certificate, ...]:
    """Those of every inference of an equilibrium model."""
    return (
        il2o.Certificate(WardropGap(network), il2o.Threshold(1e-4, above=1e-2)),
        il2o.Certificate(FlowConservation(network), il2o.Threshold(1e-4, above=1e-2)),
        il2o.Certificate(NegativeFlow(), il2o.Threshold(0.0)),
    )
