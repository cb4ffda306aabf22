"""The data side of a training: an application loads three splits, and the batches are made here."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from implicit_l2o.training.sampler import AbstractBatchSampler, BatchLoader, EvaluationSampler, TrainingSampler


@final
@dataclass(frozen=True, eq=False)
class Splits:
    """The data in three parts that share no sample: to learn from, to choose by, and to judge by.

    Args:
        train: what the gradients see.
        validation: what chooses the epoch and the hyperparameters, and calibrates the certificates.
        test: what nothing is chosen by.

    Raises:
        TypeError: a split is no `TensorDataset`.
        ValueError: a split is empty, or they differ in the number of their tensors.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from implicit_l2o.training.data import Splits
        >>> d = torch.arange(10.0).unsqueeze(1)
        >>> splits = Splits(*(TensorDataset(part, 2 * part) for part in d.split([6, 2, 2])))
        >>> len(splits.train), len(splits.validation), len(splits.test)
        (6, 2, 2)
    """

    train: TensorDataset
    validation: TensorDataset
    test: TensorDataset

    def __post_init__(self) -> None:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        for name, part in parts.items():
            if not isinstance(part, TensorDataset):
                raise TypeError(f"Splits needs a TensorDataset as {name}; got {type(part).__name__}.")
            if not part.tensors or not len(part):
                raise ValueError(f"Splits needs at least one sample in each split; {name} has none.")
        counts = {name: len(part.tensors) for name, part in parts.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ValueError(f"The splits need the same number of tensors, input, target and so on; got {listed}.")


class Indexed(NamedTuple):
    """A batch that knows its samples: `batch` is the list of its tensors, `index` (B,) their places in the data set."""

    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    batch: list[Tensor] | tuple[Tensor, ...]


class AbstractData(pl.LightningDataModule, ABC):
    """Loads the data and makes its batches, on one process or many. A subclass says how it is loaded, and nothing else.

    Args:
        batch_size: samples of a training batch, over all processes together, so that the same number gives the same
            training on one process and on several; it must be a multiple of their number. See `TrainingSampler`.
        evaluation_batch: the most samples that one process validates, tests or predicts at once; no result depends on it.
        workers: processes that fetch batches in advance. For tensors in memory 0 is the fastest.
        seed: of the order of the samples. None takes that of the run, which `seed_everything` has set, or else 0.

    Raises:
        ValueError: `batch_size` or `evaluation_batch` is below 1, or `workers` or `seed` below 0.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from implicit_l2o.training.data import AbstractData, Splits
        >>> class Doubling(AbstractData):
        ...     def load(self) -> Splits:
        ...         d = torch.arange(10.0).unsqueeze(1)
        ...         return Splits(*(TensorDataset(part, 2 * part) for part in d.split([6, 2, 2])))
        >>> [len(d) for d, target in Doubling(batch_size=4).train_dataloader()]
        [4, 2]
    """

    def __init__(
        self, *, batch_size: int = 64, evaluation_batch: int = 500, workers: int = 0, seed: int | None = None
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("evaluation_batch", evaluation_batch, 1),
            ("workers", workers, 0),
            ("seed", seed, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}.")
        self.batch_size = batch_size
        self.evaluation_batch = evaluation_batch
        self.workers = workers
        self.seed = seed
        self._splits: Splits | None = None

    @abstractmethod
    def load(self) -> Splits:
        """The three splits; `batch[0]` of a batch is the input and `batch[1]` the target.

        Called once on every process, and has to give the same on each: draw only from a generator of `run_seed`, or from
        PyTorch's global one, which is seeded with it meanwhile. What only one process may do, such as a download,
        belongs into Lightning's `prepare_data`.
        """

    @property
    def splits(self) -> Splits:
        """What `load` gave."""
        if self._splits is None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(self.run_seed)
                self._splits = self.load()
        return self._splits

    @property
    def run_seed(self) -> int:
        """The seed of the data: the given one, else the run's, else 0."""
        return int(os.environ.get("PL_GLOBAL_SEED", "0")) if self.seed is None else self.seed

    def setup(self, stage: str) -> None:
        """Load, once."""
        _ = self.splits

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches; its state is the position within the epoch."""
        size, (processes, rank) = len(self.splits.train), _place(self.trainer)
        sampler = TrainingSampler(size, self.batch_size, processes=processes, rank=rank, seed=self.run_seed)
        overfit = getattr(self.trainer, "overfit_batches", 0)
        if overfit:  # Lightning wants the same batches in every epoch
            sampler = EvaluationSampler(size, self.batch_size // processes, processes=processes, rank=rank)
        loader = self._loader(self.splits.train, sampler)
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> BatchLoader:
        """The validation samples in order, each once over all processes."""
        return self._loader(self.splits.validation, self._in_order(self.splits.validation))

    def test_dataloader(self) -> BatchLoader:
        """The test samples in order as `Indexed` batches, each once over all processes."""
        return self.samples("test")

    def predict_dataloader(self) -> BatchLoader:
        """As for the test."""
        return self.samples("test")

    def samples(self, split: Literal["train", "validation", "test"]) -> BatchLoader:
        """A split in order as `Indexed` batches, each sample once over all processes."""
        part: TensorDataset = getattr(self.splits, split)
        return self._loader(_WithIndex(part), self._in_order(part))

    def _in_order(self, dataset: TensorDataset) -> EvaluationSampler:
        processes, rank = _place(self.trainer)
        return EvaluationSampler(len(dataset), self.evaluation_batch, processes=processes, rank=rank)

    def _loader(self, dataset: Dataset, sampler: AbstractBatchSampler) -> BatchLoader:
        return BatchLoader.of(dataset, sampler, workers=self.workers, pin_memory=_pins(self.trainer))


@final
class Inputs(pl.LightningDataModule):
    """New inputs to predict for, without targets: `trainer.predict(task, datamodule=Inputs(d))`.

    Args:
        d: the inputs (n, ...), and more tensors of as many samples where the model wants them.
        evaluation_batch: the most samples that one process predicts at once.

    Raises:
        ValueError: there is no tensor, they differ in length or are empty, or `evaluation_batch` is below 1.

    Example:
        >>> import torch
        >>> from implicit_l2o.training.data import Inputs
        >>> [index.tolist() for index, (d,) in Inputs(torch.zeros(5, 3), evaluation_batch=3).predict_dataloader()]
        [[0, 1, 2], [3, 4]]
    """

    def __init__(self, *d: Tensor, evaluation_batch: int = 500) -> None:
        super().__init__()
        sizes = [len(tensor) for tensor in d]
        if not sizes or len(set(sizes)) > 1 or not sizes[0]:
            raise ValueError(f"Inputs needs tensors of the same number of samples, at least 1; got lengths {sizes}.")
        if evaluation_batch < 1:
            raise ValueError(f"evaluation_batch must be at least 1; got {evaluation_batch}.")
        self.inputs = TensorDataset(*d)
        self.evaluation_batch = evaluation_batch

    def predict_dataloader(self) -> BatchLoader:
        """The inputs as `Indexed` batches, each once over all processes."""
        processes, rank = _place(self.trainer)
        sampler = EvaluationSampler(len(self.inputs), self.evaluation_batch, processes=processes, rank=rank)
        return BatchLoader.of(_WithIndex(self.inputs), sampler, pin_memory=_pins(self.trainer))


class _WithIndex(Dataset[Indexed]):
    """The samples with their places; PyTorch's class asks for one sample at a time, and here it is a batch."""

    def __init__(self, dataset: TensorDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Tensor) -> Indexed:
        return Indexed(index, self._dataset[index])


def _place(trainer: pl.Trainer | None) -> tuple[int, int]:
    """Over how many processes the samples are spread, and which one this is."""
    place = None if trainer is None else trainer.distributed_sampler_kwargs
    return (1, 0) if place is None else (place["num_replicas"], place["rank"])


def _pins(trainer: pl.Trainer | None) -> bool:
    """Whether the batches go to a GPU."""
    return trainer is not None and trainer.strategy.root_device.type == "cuda"
