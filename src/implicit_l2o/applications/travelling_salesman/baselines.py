"""What the tour model is compared with: methods that see the costs that came true, and one that knows the generator."""

from collections.abc import Sequence
from typing import Literal, final

import torch.nn.functional as F
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.travelling_salesman.base import AbstractTourTask
from implicit_l2o.applications.travelling_salesman.model import cost_network, tour_program
from implicit_l2o.decoders import TravellingSalesman
from implicit_l2o.interop.pyepo import AbstractPyEPOLoss, opt_model
from implicit_l2o.losses import spo_plus
from implicit_l2o.training import AbstractBaseline, AbstractData, AbstractTask, Optimization

CostLoss = Literal["least_squares", "spo_plus", "spo_plus_relaxed"]
_LOSSES = ("least_squares", "spo_plus", "spo_plus_relaxed")


class AbstractCostTask(AbstractTourTask):
    """The same affine map without a layer: it decides by the exact tour under the costs that it predicts."""

    monitor = "val/regret"  # the losses of these methods are not all comparable between epochs

    def costs(self, d: Tensor) -> Tensor:
        """The predicted costs."""
        return self.model(d)

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The predicted costs."""
        return il2o.Inference(x=self.model(d))

    def infer(self, d: Tensor) -> il2o.Inference:
        """The cheapest tours under the predicted costs."""
        return il2o.Inference(x=self.decoder(self.model(d)))


@final
class CostTourTask(AbstractCostTask):
    """The affine map trained with the costs that came true.

    The losses, with `w` predicted, `c` the true costs and `x*` the best tour under them:

    - `"least_squares"`: `|w - c|^2`, the two-stage model;
    - `"spo_plus"`: the convex bound on the regret (`losses.spo_plus`) over tours, each exactly solved;
    - `"spo_plus_relaxed"`: the same over the relaxation without cuts, with the layer's quadratic term.

    Args:
        loss: see above.
        n_cities: how many cities.
        features: length of a context.
        level: see `cost_network`.
        gamma: of the layer's quadratic term.
        training_tolerance: of its solves.
        optimization: AdamW and its schedule.

    Raises:
        ValueError: the loss is none of these.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.travelling_salesman import CostTourTask
        >>> CostTourTask(n_cities=6).infer(torch.zeros(2, 5)).x.sum(1)
        tensor([6., 6.])
    """

    def __init__(
        self,
        *,
        loss: CostLoss = "least_squares",
        n_cities: int = 20,
        features: int = 5,
        level: float = 3.0,
        gamma: float = 1.0,
        training_tolerance: float = 0.1,
        optimization: Optimization | None = None,
    ) -> None:
        if loss not in _LOSSES:
            raise ValueError(f"loss must be one of {', '.join(_LOSSES)}; got {loss!r}.")
        decoder = TravellingSalesman(n_cities)
        super().__init__(cost_network(features, decoder.n, level=level), decoder, optimization=optimization)
        self._loss = loss
        self._layer = il2o.LPLayer(
            tour_program(decoder), gamma=gamma, tolerance=training_tolerance, max_steps=500, on_failure="ignore"
        )

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The loss on a batch of `(contexts, tours, costs, ...)`."""
        predicted, best, costs = inference.x, batch[1], batch[2]
        if self._loss == "least_squares":
            return F.mse_loss(predicted, costs)
        oracle = self.decoder if self._loss == "spo_plus" else self._relaxed
        return spo_plus(oracle, predicted, costs, best).mean()

    def _relaxed(self, costs: Tensor) -> Tensor:
        return self._layer(costs).x


@final
class PyEPOTourTask(AbstractCostTask):
    """The affine map trained by a loss of PyEPO, which solves by the exact decoder of this package.

    Args:
        criterion: a loss of `implicit_l2o.interop.pyepo`. SPO+ sees the costs that came true, the perturbed Fenchel-Young
            loss the best tours alone.
        n_cities: how many cities.
        features: length of a context.
        level: see `cost_network`.
        optimization: AdamW and its schedule.

    Raises:
        ModuleNotFoundError: PyEPO is not installed.
    """

    def __init__(
        self,
        criterion: AbstractPyEPOLoss,
        *,
        n_cities: int = 20,
        features: int = 5,
        level: float = 3.0,
        optimization: Optimization | None = None,
    ) -> None:
        decoder = TravellingSalesman(n_cities)
        super().__init__(cost_network(features, decoder.n, level=level), decoder, optimization=optimization)
        self._criterion = criterion.bind(opt_model(tour_program(decoder), decoder))

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """PyEPO's loss on a batch of `(contexts, tours, costs, ...)`."""
        return self._criterion(inference.x, batch[2], batch[1])


@final
class Floor(AbstractBaseline):
    """The best possible predictor: it decides by the exact conditional mean of the costs, which only the generator knows.

    The tour that minimises the expected cost given the context is the cheapest one under the expected costs, so no model
    can be expected to fall below. Its regret is not zero because the noise on the costs cannot be foreseen.
    """

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Take the decoder from the task; nothing is fitted."""
        if not isinstance(task, AbstractTourTask):
            raise TypeError(f"Floor is a baseline of a tour task; got {type(task).__name__}.")
        self._decoder = task.decoder

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The cheapest tours under the mean costs."""
        return il2o.Inference(x=self._decoder(batch[3]))
