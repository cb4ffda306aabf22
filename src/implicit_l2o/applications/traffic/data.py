"""Contexts and equilibria as splits of a training; how they are drawn and solved is in `implicit_l2o.data.traffic`."""

from typing import Any, final

import torch
from torch.utils.data import TensorDataset

from implicit_l2o.applications.traffic.model import Road
from implicit_l2o.data.equilibria import EquilibriumSplit, equilibrium_data
from implicit_l2o.training import AbstractData, Splits


@final
class TrafficData(AbstractData):
    """Contexts with the equilibria of a network, solved once and kept in a folder.

    A batch is `(contexts, flows, capacities)`. Models learn from the first two; the capacities are for the true travel times
    of a test.

    Args:
        road: the network, and how contexts act on it.
        train: training contexts.
        validation: validation contexts.
        test: test contexts.
        cache: see `data.traffic.equilibrium_data`.
        batch_size: contexts of a training batch.
        evaluation_batch: the most contexts that are validated or tested at once.
        seed: of the contexts and of their order; None takes that of the run.

    Example:
        >>> import tempfile
        >>> from implicit_l2o.applications.traffic import Road, TrafficData
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     splits = TrafficData(road=Road("toy"), train=4, validation=2, test=3, cache=folder, seed=0).splits
        >>> [tuple(field.shape) for field in splits.test.tensors]
        [(3, 5), (3, 5), (3, 5)]
    """

    def __init__(
        self,
        *,
        road: Road,
        train: int = 1000,
        validation: int = 200,
        test: int = 200,
        cache: str | None = None,
        batch_size: int = 8,
        evaluation_batch: int = 100,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, seed=seed)
        self.road = road
        self.sizes: dict[str, Any] = {"train": train, "validation": validation, "test": test}
        self.cache = cache

    def load(self) -> Splits:
        """Solve the equilibria, or read them."""
        found = equilibrium_data(self.road.contexts, **self.sizes, seed=self.run_seed, cache=self.cache, progress=False)
        return Splits(*(self._tensors(part) for part in (found.train, found.validation, found.test)))

    def _tensors(self, part: EquilibriumSplit) -> TensorDataset:
        capacity = self.road.contexts.capacities(part.d)
        return TensorDataset(torch.as_tensor(part.d).float(), torch.as_tensor(part.flow), torch.as_tensor(capacity))
