"""Training the path model from solutions alone: the costs that came true never enter, not even to choose the epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.model import FlowModel, Perturbation
from implicit_l2o.data.shortest_path import Sample, ShortestPathData
from implicit_l2o.losses import fenchel_young, normalized_regret, solution_mse
from implicit_l2o.training import AbstractTask

_TOLERANCE = 0.1  # of a solve in training; 3e-3 takes several times the iterations and gives the same regret


@dataclass(frozen=True)
class Recipe:
    """How a cost network is trained from solutions; chosen on data seeds 200 to 205 and 300 to 339, which no table reports.

    Args:
        epochs: passes over the training data.
        batch_size: contexts a step.
        learning_rate: at the start of the cosine.
        weight_decay: of AdamW.
        weight_average: decay of the running average of the weights, which is what is validated and kept.
        perturbation: standard deviation of the noise on the predicted costs in training; 0 for none.
        copies: perturbed solutions that are averaged for each context.
    """

    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 5e-3
    weight_decay: float = 0.3
    weight_average: float = 0.99
    perturbation: float = 1.5
    copies: int = 8


class PathData(pl.LightningDataModule):
    """Loaders over the training and validation data.

    Args:
        data: its test part is not touched.
        target: what a training batch pairs the contexts with; with `"paths"` it holds no costs.
        batch_size: of the training loader; the validation data are one batch.
        seed: of the order of the training data.
    """

    def __init__(
        self, data: ShortestPathData, target: Literal["paths", "costs"], *, batch_size: int, seed: int
    ) -> None:
        super().__init__()
        self.data = data
        self.target = target
        self.batch_size = batch_size
        self._order = torch.Generator().manual_seed(seed)

    def train_dataloader(self) -> DataLoader:
        """Shuffled pairs of a context and its target."""
        part = self.data.train
        target = part.paths if self.target == "paths" else part.costs
        return DataLoader(TensorDataset(part.contexts, target), self.batch_size, shuffle=True, generator=self._order)

    def val_dataloader(self) -> DataLoader:
        """All contexts, paths and costs at once; a model that learns from solutions reads the costs for its curve only."""
        part = self.data.validation
        return DataLoader(TensorDataset(part.contexts, part.paths, part.costs), len(part))


class PerturbedSolutions:
    """The mean solution `E x(w(d) + e)`, `e ~ N(0, scale^2 I)`, over a few draws of `e`.

    Args:
        network: `d -> w`.
        flow: the problem.
        recipe: the scale and the number of draws.
        seed: of the draws.
        backward: None takes `JFB()`.
    """

    def __init__(
        self,
        network: nn.Module,
        flow: FlowModel,
        recipe: Recipe,
        *,
        seed: int,
        backward: il2o.AbstractBackward | None = None,
    ) -> None:
        self.copies = recipe.copies
        self.encoder = nn.Sequential(network, Perturbation(recipe.perturbation, seed=seed))
        self.layer = flow.layer(self.encoder, tolerance=_TOLERANCE, backward=backward)

    def __call__(self, contexts: Float[Tensor, "B features"]) -> Float[Tensor, "B arcs"]:
        """The mean over the draws."""
        return self.layer(contexts.repeat(self.copies, 1)).x.unflatten(0, (self.copies, -1)).mean(0)


class PathMetrics:
    """What is measured on validation data after each epoch.

    The solution error, with the same perturbations in every epoch, chooses the epoch; the regrets are for the curve.

    Args:
        network: `d -> w`.
        flow: the problem.
        recipe: the perturbation.
        seed: of the perturbation.
        training: for the curve of the training regret.
    """

    def __init__(self, network: nn.Module, flow: FlowModel, recipe: Recipe, *, seed: int, training: Sample) -> None:
        self.network, self.flow, self.recipe, self.seed, self.training = network, flow, recipe, seed, training

    def __call__(self, batch: list[Tensor]) -> Mapping[str, float]:
        """Solution error and regrets."""
        contexts, paths, costs = batch
        solutions = PerturbedSolutions(self.network, self.flow, self.recipe, seed=self.seed)
        part = self.training
        return {
            "solution error": float(solution_mse(solutions(contexts), paths).mean()),
            "regret": self._regret(contexts, costs, paths),
            "training regret": self._regret(part.contexts, part.costs, part.paths),
        }

    def _regret(self, contexts: Tensor, costs: Tensor, paths: Tensor) -> float:
        return float(normalized_regret(self.flow.decide(self.network, contexts), costs, paths))


class SolutionTask(AbstractTask):
    """`min |E x(w(d) + e) - x*|^2`: the squared error of the perturbed solution, through the backward mode.

    Args:
        network: `d -> w`, trained in place.
        flow: the problem.
        recipe: the perturbation and the optimizer's settings.
        seed: of the perturbation.
        training: for the curve of the training regret.
        backward: None takes `JFB()`.
    """

    def __init__(
        self,
        network: nn.Module,
        flow: FlowModel,
        recipe: Recipe,
        *,
        seed: int,
        training: Sample,
        backward: il2o.AbstractBackward | None = None,
    ) -> None:
        super().__init__(
            network,
            monitor="solution error",
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            weight_average=recipe.weight_average,
        )
        self._solutions = PerturbedSolutions(network, flow, recipe, seed=seed, backward=backward)
        self._measure = PathMetrics(network, flow, recipe, seed=seed, training=training)

    def loss(self, batch: list[Tensor]) -> Tensor:
        """The mean squared error on a batch."""
        contexts, paths = batch
        return solution_mse(self._solutions(contexts), paths).mean()

    def metrics(self, batch: list[Tensor]) -> Mapping[str, float]:
        """See `PathMetrics`."""
        return self._measure(batch)


class FenchelYoungTask(AbstractTask):
    """`min E [f(x*; w(d) + e) - min_x f(x; w(d) + e)]`: convex in the costs, and no backward mode is needed.

    Args:
        network: `d -> w`, trained in place.
        flow: the problem.
        recipe: the perturbation and the optimizer's settings.
        seed: of the perturbation.
        training: for the curve of the training regret.
    """

    def __init__(self, network: nn.Module, flow: FlowModel, recipe: Recipe, *, seed: int, training: Sample) -> None:
        super().__init__(
            network,
            monitor="solution error",
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            weight_average=recipe.weight_average,
        )
        self._solutions = PerturbedSolutions(network, flow, recipe, seed=seed)
        self._flow = flow
        self._measure = PathMetrics(network, flow, recipe, seed=seed, training=training)

    def loss(self, batch: list[Tensor]) -> Tensor:
        """The mean Fenchel-Young loss on a batch."""
        contexts, paths = batch
        copies, layer = self._solutions.copies, self._solutions.layer
        w = self._solutions.encoder(contexts.repeat(copies, 1))
        with torch.no_grad():
            x = il2o.solve(layer.build(w), torch.zeros_like(w), solver=layer.solver).x
        return fenchel_young(self._flow.cost(w), x, paths.repeat(copies, 1)).mean()

    def metrics(self, batch: list[Tensor]) -> Mapping[str, float]:
        """See `PathMetrics`."""
        return self._measure(batch)
