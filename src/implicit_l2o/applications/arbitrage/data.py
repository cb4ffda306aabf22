"""The arbitrage data as splits of a training; how they are drawn is in `implicit_l2o.data.arbitrage`."""

from pathlib import Path
from typing import final

import torch
from torch.utils.data import TensorDataset

from implicit_l2o.data.arbitrage import Snapshots, draw, published_network
from implicit_l2o.data.pools import PoolNetwork, read_network
from implicit_l2o.training import AbstractData, Splits


def network_of(path: str | None) -> PoolNetwork:
    """The network of a YAML file; the published one for None."""
    return published_network() if path is None else read_network(Path(path))


@final
class ArbitrageData(AbstractData):
    """Observed reserves and what the pools hold, drawn by the published recipe; a data set for every seed of a run.

    A batch is `(inputs, reserves)`: the inputs are the `L` observed reserves and, last, the volatility of the observation,
    which only a conditioned model reads. Run 0 has the published data set, with its 500 test samples; run `k` draws the same
    recipe from seed `2022 + k`.

    Args:
        network: a YAML file (see `read_network`); None for the published network.
        train: samples to learn from; the published split has 5,000 with those that choose.
        validation: samples that choose the epoch and calibrate.
        test: samples.
        batch_size: samples of a training batch.
        evaluation_batch: the most samples that are validated or tested at once.
        seed: of the data and of their order; None takes that of the run.

    Example:
        >>> from implicit_l2o.applications.arbitrage import ArbitrageData
        >>> splits = ArbitrageData(train=6, validation=3, test=3).splits
        >>> [tuple(field.shape) for field in splits.test.tensors]
        [(3, 12), (3, 11)]
    """

    def __init__(
        self,
        *,
        network: str | None = None,
        train: int = 3500,
        validation: int = 1500,
        test: int = 500,
        batch_size: int = 175,
        evaluation_batch: int = 500,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, seed=seed)
        self.network = network_of(network)
        self.sizes = (train, validation, test)

    def load(self) -> Splits:
        """Draw the samples; the test samples are the last ones, as in the published split."""
        drawn = draw(sum(self.sizes), network=self.network, seed=2022 + self.run_seed)
        train, validation, test = self.sizes
        return Splits(
            train=_tensors(drawn.part(0, train)),
            validation=_tensors(drawn.part(train, train + validation)),
            test=_tensors(drawn.part(train + validation, train + validation + test)),
        )


def _tensors(part: Snapshots) -> TensorDataset:
    return TensorDataset(torch.cat([part.observed, part.volatility], dim=1), part.reserves)
