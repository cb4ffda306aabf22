"""The travelling-salesman data as splits of a training; how they are drawn is in `implicit_l2o.data.travelling_salesman`."""

from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.utils.data import TensorDataset

from implicit_l2o.data.travelling_salesman import Sample, generate
from implicit_l2o.training import AbstractData, Splits


@final
class TourData(AbstractData):
    """Contexts with cheapest tours, drawn anew for every seed of a run.

    A batch is `(contexts, tours, costs, mean_costs)` (see `Sample`). A model that learns from solutions takes the first two;
    the costs are for the regret and for models that are shown them.

    Args:
        n_cities: how many cities.
        degree: of the cost polynomial.
        noise: half-width of the multiplicative noise.
        train: training contexts.
        validation: validation contexts.
        test: test contexts.
        first_data_seed: the data are drawn with this plus the run's seed. 135 is PyEPO's default.
        batch_size: contexts of a training batch.
        evaluation_batch: the most contexts that are validated or tested at once.
        seed: of the data and of their order; None takes that of the run.

    Example:
        >>> from implicit_l2o.applications.travelling_salesman import TourData
        >>> splits = TourData(n_cities=5, train=8, validation=4, test=4).splits
        >>> [tuple(field.shape) for field in splits.test.tensors]
        [(4, 5), (4, 10), (4, 10), (4, 10)]
    """

    def __init__(
        self,
        *,
        n_cities: int = 20,
        degree: int = 4,
        noise: float = 0.5,
        train: int = 1000,
        validation: int = 200,
        test: int = 1000,
        first_data_seed: int = 135,
        batch_size: int = 32,
        evaluation_batch: int = 500,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, seed=seed)
        self.n_cities, self.degree, self.noise = n_cities, degree, noise
        self.sizes = {"train": train, "validation": validation, "test": test}
        self.first_data_seed = first_data_seed
        self._cities: Tensor | None = None

    @property
    def cities(self) -> Float[Tensor, "n 2"]:
        """Their places on the map; a model does not see them."""
        if self._cities is None:
            raise RuntimeError("TourData has no cities before its splits are loaded.")
        return self._cities

    def load(self) -> Splits:
        """Draw the contexts and solve every tour exactly."""
        data = generate(
            n_cities=self.n_cities,
            degree=self.degree,
            noise=self.noise,
            seed=self.first_data_seed + self.run_seed,
            **self.sizes,
        )
        self._cities = data.cities
        return Splits(train=_split(data.train), validation=_split(data.validation), test=_split(data.test))


def _split(part: Sample) -> TensorDataset:
    return TensorDataset(part.contexts, part.tours, part.costs, part.mean_costs)
