"""Training on contexts and their equilibria: total link flows alone, neither paths nor travel times nor capacities."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import Metric

import implicit_l2o as il2o
from implicit_l2o.applications.traffic import figures
from implicit_l2o.applications.traffic.certificates import CONSERVATION, WARDROP, certificates
from implicit_l2o.applications.traffic.metrics import RelativeError, SquaredError, Trafix
from implicit_l2o.applications.traffic.model import AffineNetwork, FlowNetwork, LatencyNetwork, Road
from implicit_l2o.games import EquilibriumLayer, PolynomialCost
from implicit_l2o.losses import fenchel_young
from implicit_l2o.training import About, AbstractTask, Optimization, Samples, Scene, Splits

# Of the mean flow: the least unit of a link in the squared error. Links that are nearly empty without a context, and fill
# in another one, would else be all that it sees.
_LEAST = 0.3

_ABOUT = About(
    title="Traffic equilibria",
    summary="From a context, such as the weather, to the flows on all links of a road network when nobody has a quicker "
    "path. It is learned from contexts and flows; travel times are never seen.",
    problem=r"\langle F_\theta(v_\theta(d); d), w - v_\theta(d) \rangle \ge 0 \quad \text{for all} \quad w \in "
    r"\Big\{ \sum_k x_k : N x_k = b_k, \; x_k \ge 0 \Big\}",
    guarantees=(
        "Flows are nonnegative, exactly, and no flow passes through a centroid or a closed link.",
        "The distance of every origin's flow to conservation is at most the residual of the solve (Davis-Yin), which is "
        "measured for every answer.",
        "Under the predicted travel times nobody has a path that is quicker by more than the Wardrop gap says, which is "
        "measured too.",
    ),
)


class AbstractTrafficTask(AbstractTask):
    """What all methods share: the network, the metrics, the weights of the squared error.

    Args:
        model: `d -> ...` as the subclass reads it.
        road: the network.
        optimization: AdamW and its schedule.
    """

    monitor = "val/relative_error"

    def __init__(self, model: nn.Module, road: Road, *, optimization: Optimization | None = None) -> None:
        super().__init__(model, optimization=optimization)
        self.road = road
        weight = np.maximum(road.flow, _LEAST * road.flow.mean())
        self.register_buffer("scale", torch.as_tensor(weight), persistent=False)

    def metrics(self) -> Mapping[str, Metric]:
        """Of the flows."""
        return {
            "trafix_5e-3": Trafix(5e-3),
            "trafix_1e-2": Trafix(1e-2),
            "relative_error": RelativeError(),
            "mse": SquaredError(),
        }

    def squared(self, x: Float[Tensor, "B E"], target: Float[Tensor, "B E"]) -> Tensor:
        """The squared error of all links, each in units of its flow without any context, or of .3 of the mean flow."""
        scale = self.scale
        assert isinstance(scale, Tensor)
        return ((x - target) / scale).square().mean()

    def error(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Float[Tensor, " B"] | None:
        """The relative error of the flows."""
        return ((inference.x - batch[1]).norm(dim=1) / batch[1].norm(dim=1)).float() if len(batch) > 1 else None

    def constant(self, training: TensorDataset) -> Float[Tensor, " E"]:
        """The mean flows."""
        return training.tensors[1].mean(0)

    def about(self) -> About:
        """See the base."""
        return _ABOUT

    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """The flows of one sample against the true ones, link by link, or on the map."""
        figures.example(figure, sample, self.road.network)

    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """The network with its flows, predicted flows against true ones, and what a context changes."""
        return figures.of_samples(samples, self.road.network, self.constant(splits.train))


@final
class EquilibriumTask(AbstractTrafficTask):
    """Learned costs, and the equilibrium under them.

    With `loss="fenchel_young"` the observed flow is to be optimal for the learned Beckmann objective, `Phi(v*; d) - min_v
    Phi(v; d)`: convex in costs that are linear in the parameters, and with a gradient that needs one equilibrium and no
    backward mode. With `loss="solution"` the equilibrium is to be the observed flow, `min |v(d) - v*|^2`, link by link in
    units of its flow without any context, through the backward mode.

    Args:
        road: the network.
        form: `"latency"` for travel times that increase with the flow, `"affine"` for an affine operator.
        units: of the small network that every link has, for travel times.
        hidden: widths of the network, for an affine operator.
        powers: of learned travel times.
        loss: what a training minimises. The epoch is chosen by the relative error.
        tolerance: on the residual of the fixed point, relative to the answer.
        gap: relative gap of the compiled solver in an inference. Flows of small links need a small one.
        training_gap: in a training step by the Fenchel-Young loss, whose gradient bears more.
        exact: solve by the compiled solver; or else by Davis-Yin.
        backward: None takes `JFB()`.
        optimization: AdamW and its schedule.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        road: Road,
        form: Literal["latency", "affine"] = "latency",
        units: int = 1,
        hidden: Sequence[int] = (64,),
        powers: Sequence[float] = (4.0,),
        loss: Literal["fenchel_young", "solution"] = "fenchel_young",
        tolerance: float = 1e-3,
        gap: float = 1e-8,
        training_gap: float = 1e-5,
        exact: bool = True,
        backward: il2o.AbstractBackward | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        if form not in ("latency", "affine"):
            raise ValueError(f'form must be "latency" or "affine"; got {form!r}.')
        if loss not in ("fenchel_young", "solution"):
            raise ValueError(f'loss must be "fenchel_young" or "solution"; got {loss!r}.')
        if not tolerance > 0:
            raise ValueError(f"EquilibriumTask needs tolerance > 0; got tolerance={tolerance}.")
        network: nn.Module
        if form == "latency":
            network = LatencyNetwork(road, units=units, powers=powers)
        else:
            network = AffineNetwork(road, hidden=hidden)
        super().__init__(network, road, optimization=optimization)
        if not 0 < training_gap < 1:
            raise ValueError(f"EquilibriumTask needs 0 < training_gap < 1; got training_gap={training_gap}.")
        self._loss = loss
        self._training_gap = training_gap
        stopping = il2o.Stopping(atol=0.0, rtol=tolerance, max_steps=2000)
        self.layer = EquilibriumLayer(
            road.network,
            unit=road.unit,
            solver=il2o.KrasnoselskiiMann(stopping),
            backward=backward,
            exact=exact,
            gap=gap,
            on_failure="ignore",
        )
        self._size = float((road.latency.value(road.flow) * road.flow).sum())

    def infer(self, d: Tensor) -> il2o.Inference:
        """The equilibria; `data` are the costs as predicted. The Fenchel-Young loss wants no gradient of the flows."""
        return self.equilibria(d)

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """What the loss needs: for the Fenchel-Young loss the exact flows alone."""
        cost: PolynomialCost = self.model(d)
        if self._loss == "fenchel_young" and self.layer.exact:
            return self.layer.exact_flows(cost, gap=self._training_gap)
        return self.layer.inference(cost)

    def equilibria(
        self, d: Float[Tensor, "B contexts"], *, trips: Tensor | None = None, closed: Tensor | None = None
    ) -> il2o.Inference:
        """The equilibria for other trips or with closed links."""
        cost: PolynomialCost = self.model(d)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._loss == "solution"):
            return self.layer.inference(cost, trips=trips, closed=closed)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The loss on a batch; it takes the flows alone."""
        target = batch[1]
        if self._loss == "solution":
            return self.squared(inference.x, target)
        return fenchel_young(inference.data, inference.x, target).mean() / self._size

    def scene(self) -> Scene:
        """The flows on the roads, and gradients in the time of every link: what a toll there would do."""
        return Scene(
            picture=figures.picture(self.road.network),
            values_name="link flows v(d)",
            split=self._split,
            parameters_name="travel times of the links",
        )

    def _split(self, d: Tensor) -> tuple[Tensor, Callable[[Tensor], il2o.Inference]]:
        cost: PolynomialCost = self.model(d)
        toll = cost.constant.expand(len(d), -1)
        return toll, lambda constant: self.layer.inference(replace(cost, constant=constant))

    def certificates(self) -> Sequence[il2o.Certificate]:
        """That the answer is an equilibrium of the model."""
        return certificates(self.road.network)

    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """The largest gap under the predicted times and the largest violation, over the test contexts."""
        column = {name: samples.values[:, samples.names.index(name)] for name in (WARDROP, CONSERVATION)}
        return {
            "max_wardrop_gap_predicted_times": float(column[WARDROP].max()),
            "max_conservation_violation": float(column[CONSERVATION].max()),
        }


@final
class FlowTask(AbstractTrafficTask):
    """The black box: a network from the context to the flows, by the squared error.

    Args:
        road: the network.
        hidden: widths of the network.
        optimization: AdamW and its schedule.
    """

    def __init__(
        self,
        *,
        road: Road,
        hidden: Sequence[int] = (64,),
        optimization: Optimization | None = None,
    ) -> None:
        network = FlowNetwork(road, hidden=hidden)
        super().__init__(network, road, optimization=optimization)

    def infer(self, d: Tensor) -> il2o.Inference:
        """The flows."""
        return il2o.Inference(x=self.model(d))

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The squared error, each link in units of its flow without any context."""
        return self.squared(inference.x, batch[1])
