"""Warcraft maps as splits of a training; how they are drawn or read is in `implicit_l2o.data.warcraft`."""

from typing import final

from torch.utils.data import TensorDataset

from implicit_l2o.data.warcraft import Maps, generate, load
from implicit_l2o.training import AbstractData, Splits


@final
class WarcraftData(AbstractData):
    """Maps with their cheapest paths, drawn anew for every seed of a run, or read from the public data set's folder.

    A batch is `(images, paths, costs)`. A model that learns from paths takes the first two; the costs are for the
    metrics and for baselines.

    Args:
        folder: in the layout of the public data set (see `data.warcraft.load`); None draws the maps.
        train: training maps, of a folder the first ones.
        validation: validation maps.
        test: test maps.
        side: cells along one side of maps that are drawn.
        first_data_seed: maps are drawn with this plus the run's seed.
        batch_size: maps of a training batch.
        evaluation_batch: the most maps that are validated or tested at once.
        seed: of the maps and of their order; None takes that of the run.

    Raises:
        ValueError: a folder has fewer maps than are asked for.
        FileNotFoundError: a file of the folder is missing.

    Example:
        >>> from implicit_l2o.applications.warcraft import WarcraftData
        >>> splits = WarcraftData(train=4, validation=2, test=3).splits
        >>> [tuple(field.shape) for field in splits.test.tensors]
        [(3, 96, 96, 3), (3, 12, 12), (3, 12, 12)]
    """

    def __init__(
        self,
        *,
        folder: str | None = None,
        train: int = 10_000,
        validation: int = 500,
        test: int = 1000,
        side: int = 12,
        first_data_seed: int = 0,
        batch_size: int = 70,
        evaluation_batch: int = 250,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, seed=seed)
        self.folder = folder
        self.sizes = {"train": train, "val": validation, "test": test}
        self.side = side
        self.first_data_seed = first_data_seed

    def load(self) -> Splits:
        """Draw the maps, each split by a seed of its own, or read them."""
        if self.folder is None:
            seed = self.first_data_seed + self.run_seed
            parts = [generate(n, seed=(seed, i), side=self.side) for i, n in enumerate(self.sizes.values())]
        else:
            parts = [_first(load(self.folder, split), n, split) for split, n in self.sizes.items()]  # pyright: ignore[reportArgumentType]
        train, validation, test = (TensorDataset(part.images, part.paths, part.costs) for part in parts)
        return Splits(train=train, validation=validation, test=test)


def _first(maps: Maps, count: int, split: str) -> Maps:
    if count > len(maps):
        raise ValueError(f"the folder has {len(maps)} maps of split {split}; got {count} to take.")
    return Maps(maps.images[:count], maps.costs[:count], maps.paths[:count])
