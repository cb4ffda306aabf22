"""What the path model is compared with: predict the costs first, do not train at all, or know the generator."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from implicit_l2o.applications.shortest_path.model import FlowModel
from implicit_l2o.applications.shortest_path.task import Recipe
from implicit_l2o.data.shortest_path import Sample
from implicit_l2o.losses import normalized_regret
from implicit_l2o.training import AbstractTask

# Of 190 settings (learning rate, epochs, batch size, weight decay, weight average, metric that chooses the epoch), about as
# many as were tried for `Recipe` and on the same data seeds, the quickest within 2 % of the lowest expected excess.
TWO_STAGE = Recipe(
    epochs=60, batch_size=64, learning_rate=2e-2, weight_decay=0.3, weight_average=0.99, perturbation=0.0, copies=1
)


class TwoStageTask(AbstractTask):
    """Regression of the costs by least squares; the same network, but it is shown the costs that came true.

    Args:
        network: `d -> w`, trained in place.
        flow: decodes for the curve of the validation regret.
        recipe: the optimizer's settings.
    """

    def __init__(self, network: nn.Module, flow: FlowModel, recipe: Recipe = TWO_STAGE) -> None:
        super().__init__(
            network,
            monitor="cost error",
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            weight_average=recipe.weight_average,
        )
        self._flow = flow

    def loss(self, batch: list[Tensor]) -> Tensor:
        """The mean squared error of the costs on a batch."""
        contexts, costs = batch
        return F.mse_loss(self.model(contexts), costs)

    def metrics(self, batch: list[Tensor]) -> Mapping[str, float]:
        """The error of the costs, which chooses the epoch, and the regret of the decisions."""
        contexts, paths, costs = batch
        return {
            "cost error": float(F.mse_loss(self.model(contexts), costs)),
            "regret": float(normalized_regret(self._flow.decide(self.model, contexts), costs, paths)),
        }


def floor(flow: FlowModel, part: Sample) -> float:
    """The regret of the best possible predictor: decide by the exact conditional mean of the costs.

    The decision that minimises the expected cost given the context is the shortest path under the expected costs, so no
    model can be expected to fall below. It is not zero because the noise on the costs cannot be foreseen.
    """
    return float(normalized_regret(flow.grid.shortest_paths(part.mean_costs), part.costs, part.paths))
