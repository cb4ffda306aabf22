"""The shortest-path data as splits of a training; how they are drawn is in `implicit_l2o.data.shortest_path`."""

from typing import final

from torch.utils.data import TensorDataset

from implicit_l2o.data.shortest_path import Sample, generate, generate_linear
from implicit_l2o.training import AbstractData, Splits


@final
class PathData(AbstractData):
    """Contexts with shortest paths on a grid, drawn anew for every seed of a run.

    A batch is `(contexts, paths, costs, mean_costs)` (see `Sample`). A model that learns from solutions takes the first two;
    the costs are for the regret and for baselines.

    Args:
        side: nodes along one side of the grid.
        degree: of the polynomial that makes costs of contexts.
        noise: half-width of the multiplicative noise on the costs.
        features: length of a context.
        train: training contexts.
        validation: validation contexts.
        test: test contexts.
        first_data_seed: the data are drawn with this plus the run's seed. 135 is PyEPO's default: the data set of the
            published tables is that of run 0.
        batch_size: contexts of a training batch.
        evaluation_batch: the most contexts that are validated or tested at once.
        seed: of the data and of their order; None takes that of the run.

    Example:
        >>> from implicit_l2o.applications.shortest_path import PathData
        >>> splits = PathData(side=3, train=8, validation=4, test=4).splits
        >>> [tuple(field.shape) for field in splits.test.tensors]
        [(4, 5), (4, 12), (4, 12), (4, 12)]
    """

    def __init__(
        self,
        *,
        side: int = 5,
        degree: int = 4,
        noise: float = 0.5,
        features: int = 5,
        train: int = 1000,
        validation: int = 200,
        test: int = 1000,
        first_data_seed: int = 135,
        batch_size: int = 64,
        evaluation_batch: int = 500,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, seed=seed)
        self.side = side
        self.degree = degree
        self.noise = noise
        self.features = features
        self.sizes = {"train": train, "validation": validation, "test": test}
        self.first_data_seed = first_data_seed

    def load(self) -> Splits:
        """Draw the contexts and solve every path exactly."""
        data = generate(
            side=self.side,
            degree=self.degree,
            noise=self.noise,
            features=self.features,
            seed=self.first_data_seed + self.run_seed,
            **self.sizes,
        )
        return Splits(train=_split(data.train), validation=_split(data.validation), test=_split(data.test))


@final
class LinearPathData(AbstractData):
    """Contexts with shortest paths under costs `W d`, without noise, for the large grids (see `generate_linear`).

    Args:
        side: nodes along one side of the grid.
        train: training contexts.
        validation: validation contexts.
        test: test contexts.
        first_data_seed: the data are drawn with this plus the run's seed.
        batch_size: contexts of a training batch.
        evaluation_batch: the most contexts that are validated or tested at once.
        seed: of the data and of their order; None takes that of the run.

    Example:
        >>> from implicit_l2o.applications.shortest_path import LinearPathData
        >>> len(LinearPathData(side=3, train=8, validation=4, test=4).splits.train)
        8
    """

    def __init__(
        self,
        *,
        side: int = 50,
        train: int = 200,
        validation: int = 50,
        test: int = 200,
        first_data_seed: int = 0,
        batch_size: int = 50,
        evaluation_batch: int = 50,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, seed=seed)
        self.side = side
        self.sizes = {"train": train, "validation": validation, "test": test}
        self.first_data_seed = first_data_seed

    def load(self) -> Splits:
        """Draw the contexts and solve every path exactly."""
        data = generate_linear(side=self.side, seed=self.first_data_seed + self.run_seed, **self.sizes)
        return Splits(train=_split(data.train), validation=_split(data.validation), test=_split(data.test))


def _split(part: Sample) -> TensorDataset:
    return TensorDataset(part.contexts, part.paths, part.costs, part.mean_costs)
