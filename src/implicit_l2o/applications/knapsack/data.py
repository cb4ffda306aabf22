"""The knapsack data as splits of a training; how they are drawn is in `implicit_l2o.data.knapsack`."""

import dataclasses
import os
from typing import final

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from implicit_l2o.data.knapsack import Items, Sample, generate
from implicit_l2o.training import AbstractData, Splits


def items_of_run(items: Items | None, seed: int | None = None) -> Items:
    """The items of a run: their seed plus the run's, so that every run has a data set of its own.

    Args:
        items: None takes the defaults.
        seed: of the run; None takes what `seed_everything` has set, or else 0.
    """
    items = Items() if items is None else items
    run = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
    return dataclasses.replace(items, seed=items.seed + run)


@final
class KnapsackData(AbstractData):
    """Contexts with best selections, drawn anew for every seed of a run.

    A batch is `(contexts, selections, values, mean_values, published)` (see `Sample`); `published` says which test samples
    are of the published tables' data set. A model that learns from solutions takes the first two.

    Args:
        items: of the knapsack; None takes the defaults. Their seed plus the run's is that of the data: 135 is PyEPO's
            default, so the data set of the published tables is that of run 0.
        degree: of the value polynomial.
        noise: half-width of the multiplicative noise on the values.
        train: training contexts.
        validation: validation contexts.
        test: test contexts of the published data set.
        more: further test contexts of the same items.
        batch_size: contexts of a training batch.
        evaluation_batch: the most contexts that are validated or tested at once.
        seed: of the data and of their order; None takes that of the run.

    Example:
        >>> from implicit_l2o.applications.knapsack import KnapsackData
        >>> from implicit_l2o.data.knapsack import Items
        >>> splits = KnapsackData(items=Items(6), train=8, validation=4, test=4, more=2).splits
        >>> [tuple(field.shape) for field in splits.test.tensors]
        [(6, 5), (6, 6), (6, 6), (6, 6), (6,)]
    """

    def __init__(
        self,
        *,
        items: Items | None = None,
        degree: int = 2,
        noise: float = 0.05,
        train: int = 800,
        validation: int = 100,
        test: int = 100,
        more: int = 1000,
        batch_size: int = 64,
        evaluation_batch: int = 500,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, seed=seed)
        self.items = items_of_run(items, self.run_seed)
        self.degree = degree
        self.noise = noise
        self.sizes = {"train": train, "validation": validation, "test": test, "more": more}

    def load(self) -> Splits:
        """Draw the contexts and find every best selection."""
        samples = generate(self.items, degree=self.degree, noise=self.noise, **self.sizes)
        test = [torch.cat(pair) for pair in zip(_fields(samples.test), _fields(samples.more), strict=True)]
        test[-1][len(samples.test) :] = False
        return Splits(
            train=TensorDataset(*_fields(samples.train)),
            validation=TensorDataset(*_fields(samples.validation)),
            test=TensorDataset(*test),
        )


def _fields(part: Sample) -> tuple[Tensor, ...]:
    published = torch.ones(len(part), dtype=torch.bool)
    return part.contexts, part.selections, part.values, part.mean_values, published
