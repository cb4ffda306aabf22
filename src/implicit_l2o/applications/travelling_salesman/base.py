"""What all methods share: the exact decision, its regret, and the tour that ignores the context."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import Metric, MetricCollection

import implicit_l2o as il2o
from implicit_l2o.applications.travelling_salesman.certificates import decide
from implicit_l2o.applications.travelling_salesman.metrics import NormalizedRegret
from implicit_l2o.decoders import TravellingSalesman
from implicit_l2o.losses import regret
from implicit_l2o.training import AbstractTask, Optimization


class AbstractTourTask(AbstractTask):
    """Predicted costs, and the exact tour under them.

    Args:
        model: `d -> ...` as the subclass reads it.
        decoder: of the tours.
        optimization: AdamW and its schedule.
    """

    def __init__(
        self, model: nn.Module, decoder: TravellingSalesman, *, optimization: Optimization | None = None
    ) -> None:
        super().__init__(model, optimization=optimization)
        self.decoder = decoder

    @abstractmethod
    def costs(self, d: Float[Tensor, "B features"]) -> Float[Tensor, "B edges"]:
        """The predicted costs."""

    @final
    def metrics(self) -> Mapping[str, Metric]:
        """The regret of the tours."""
        return {"regret": NormalizedRegret()}

    @final
    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """Price the tours by the costs that came true."""
        _, tours, costs, *_ = batch
        metrics.update(self.answer(inference), costs, tours)

    @final
    def answer(self, inference: il2o.Inference) -> Float[Tensor, "B edges"]:
        """The decision: the cheapest tour under the predicted costs."""
        return decide(self.decoder, inference)

    @final
    def error(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Float[Tensor, " B"] | None:
        """What the tour costs above the best one, relative to it."""
        if len(batch) < 3:
            return None
        _, tours, costs, *_ = batch
        return regret(self.answer(inference), costs, tours) / (costs * tours).sum(1)

    @final
    def constant(self, training: TensorDataset) -> Float[Tensor, " edges"]:
        """The tour that shares the most edges with those that were best."""
        return self.decoder(-training.tensors[1].mean(0, keepdim=True)).squeeze(0)
