"""Which samples make a batch: the order of an epoch, its share on each process, and where a checkpoint stopped in it.

The samplers yield whole batches, as tensors of indices, so that a batch is one indexing of the data set's tensors. They
derive from PyTorch's `DistributedSampler`, which Lightning takes as they are.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Self, final

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler


class AbstractBatchSampler(DistributedSampler[Any]):
    """Yields the indices of one batch after another, a tensor each; every process has the same number of them.

    Args:
        size: number of samples, on all processes together.
        batch_size: at least 1; what it counts is said by the subclass.
        processes: over which the samples are spread.
        rank: of this process, from 0.
        seed: of the order, at least 0.

    Raises:
        ValueError: an argument is out of its range, or there are fewer samples than processes.

    Attributes:
        first: the batch at which the next pass begins; a checkpoint sets it, and a pass or another epoch takes it back.
    """

    def __init__(self, size: int, batch_size: int, *, processes: int = 1, rank: int = 0, seed: int = 0) -> None:
        if batch_size < 1:
            raise ValueError(f"A batch needs at least 1 sample; got {batch_size}.")
        if seed < 0:
            raise ValueError(f"seed must be at least 0; got {seed}.")
        if not 0 <= rank < processes:
            raise ValueError(f"rank must be in [0, {processes}), the number of processes; got {rank}.")
        if size < processes:
            raise ValueError(f"Each of {processes} process(es) needs at least 1 sample; the data set has {size}.")
        super().__init__(range(size), num_replicas=processes, rank=rank, seed=seed)  # pyright: ignore[reportArgumentType]
        self.size = size
        self.batch_size = batch_size
        self.first = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next pass belongs to, from 0."""
        if epoch != self.epoch:
            self.first = 0
        super().set_epoch(epoch)

    def _begin(self) -> int:
        first, self.first = self.first, 0
        return first


@final
class TrainingSampler(AbstractBatchSampler):
    """Shuffled global batches, each cut into equal shards, one a process.

    The order is a function of the seed and the epoch alone. One process and several therefore see the same global batches,
    and the mean of the processes' mean gradients is the gradient of the global batch. The shards of a batch have to be
    equal for that, so an epoch's last batch, where it is shorter, loses up to `processes - 1` samples, others in every
    epoch.

    Args:
        size: number of samples, at least one a process.
        batch_size: samples of a global batch, over all processes together; a multiple of `processes`.
        processes: over which each batch is spread.
        rank: of this process, from 0.
        seed: of the order.

    Raises:
        ValueError: an argument is out of its range, or `processes` does not divide `batch_size`.

    Example:
        >>> from implicit_l2o.training.sampler import TrainingSampler
        >>> [len(batch) for batch in TrainingSampler(10, 4)]
        [4, 4, 2]
        >>> first, second = (next(iter(TrainingSampler(10, 4, processes=2, rank=rank))) for rank in range(2))
        >>> next(iter(TrainingSampler(10, 4))).tolist() == [*first.tolist(), *second.tolist()]
        True
    """

    def __init__(self, size: int, batch_size: int, *, processes: int = 1, rank: int = 0, seed: int = 0) -> None:
        super().__init__(size, batch_size, processes=processes, rank=rank, seed=seed)
        if batch_size % processes:
            raise ValueError(
                "batch_size counts the samples of all processes together and must be a multiple of their number, "
                f"{processes}; got batch_size={batch_size}."
            )

    def __len__(self) -> int:
        full, rest = divmod(self.size, self.batch_size)
        return full + (rest >= self.num_replicas)

    def __iter__(self) -> Iterator[Tensor]:
        # Mixed, not added: seed 0 in epoch 1 is another order than seed 1 in epoch 0.
        mixed = int(np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)[0])
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(mixed))
        for k in range(self._begin(), len(self)):
            batch = order[k * self.batch_size : (k + 1) * self.batch_size]
            shard = len(batch) // self.num_replicas
            yield batch[self.rank * shard : (self.rank + 1) * shard]


@final
class EvaluationSampler(AbstractBatchSampler, SequentialSampler):  # Lightning asks the second one whether it shuffles
    """Every sample exactly once, in order: a contiguous range a process, none of them padded.

    All processes have the same number of batches, because each forward pass may wait for the others; the sizes of the
    batches differ by at most one. Joined in the order of the processes, the samples are in the order of the data set.

    Args:
        size: number of samples, at least one a process.
        batch_size: the most samples that one process sees at once. Only 1 can be exceeded, by one, where the processes'
            ranges differ in length.
        processes: over which the samples are spread.
        rank: of this process, from 0.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> from implicit_l2o.training.sampler import EvaluationSampler
        >>> [batch.tolist() for batch in EvaluationSampler(7, 2, processes=2, rank=0)]
        [[0, 1], [2, 3]]
        >>> [batch.tolist() for batch in EvaluationSampler(7, 2, processes=2, rank=1)]
        [[4, 5], [6]]
    """

    def __init__(self, size: int, batch_size: int, *, processes: int = 1, rank: int = 0) -> None:
        super().__init__(size, batch_size, processes=processes, rank=rank)

    def __len__(self) -> int:
        longest = -(-self.size // self.num_replicas)
        return min(-(-longest // self.batch_size), self.size // self.num_replicas)  # no batch is empty

    def __iter__(self) -> Iterator[Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        bounds = _even(self.size, self.num_replicas)
        start, end = bounds[self.rank : self.rank + 2]
        bounds = [start + cut for cut in _even(end - start, len(self))]
        for k in range(self._begin(), len(self)):
            yield torch.arange(bounds[k], bounds[k + 1])


def _even(size: int, parts: int) -> list[int]:
    """Bounds of `parts` ranges that cover `0..size`; the longer ones, by one, come first."""
    length, longer = divmod(size, parts)
    return [k * length + min(k, longer) for k in range(parts + 1)]


class BatchLoader(DataLoader):
    """Loads the batches of one of the samplers above, and knows how far a pass has come.

    Its state is the position within the epoch, which Lightning saves in every checkpoint: a run that stopped in the middle
    of an epoch goes on with the batches that were left. What the loader has fetched in advance does not count.

    Make it by `BatchLoader.of`.
    """

    trainer: pl.Trainer | None = None  # of the fit it feeds
    _pass: tuple[int, int] | None = None  # the epoch of the last pass begun, and how many of its batches were given out

    @classmethod
    def of(cls, dataset: Dataset, sampler: AbstractBatchSampler, *, workers: int = 0, pin_memory: bool = False) -> Self:
        """The loader.

        Args:
            dataset: is indexed with a tensor of indices, and gives the batch.
            sampler: says which samples make a batch.
            workers: processes that fetch in advance. For tensors in memory 0 is the fastest.
            pin_memory: put the batches where a GPU copies them from quickly.

        Raises:
            ValueError: `workers` is negative.
        """
        if workers < 0:
            raise ValueError(f"workers must be at least 0; got {workers}.")
        return cls(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # each pass draws a number: not from the global state
        )

    # A generator, so that nothing happens before the first batch is asked for: Lightning makes the iterator first and sets
    # the epoch afterwards, and processes of the loader would have begun with the wrong one.
    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The batches of the sampler's epoch, from the first one, or from where the loaded state stopped."""
        sampler = self._batches()
        epoch, position = sampler.epoch, sampler.first
        self._pass = epoch, position
        for batch in super().__iter__():
            position += 1
            self._pass = epoch, position
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the training stands: the epoch, the number of its batches that are done, and what the order depends on."""
        sampler = self._batches()
        epoch, position = (sampler.epoch, sampler.first) if self._pass is None else self._pass
        if self._pass is not None and self.trainer is not None and self.trainer.training:
            # An interrupted step does not count: its batch was given out and is still to be learned from.
            progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
            position = min(position, progress.processed)
        return {
            "epoch": epoch + position // len(sampler),
            "position": position % len(sampler),
            "size": sampler.size,
            "batch_size": sampler.batch_size,
            "seed": sampler.seed,
        }

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Go on from there.

        Raises:
            ValueError: the state is from the middle of an epoch, and of other data, another batch size or another seed, so
                that the rest of the epoch is not defined.
        """
        sampler = self._batches()
        own = {"size": sampler.size, "batch_size": sampler.batch_size, "seed": sampler.seed}
        other = [f"{name}={state_dict[name]}, not {value}" for name, value in own.items() if state_dict[name] != value]
        if other and state_dict["position"]:
            raise ValueError(
                f"The checkpoint stopped after {state_dict['position']} batches of epoch {state_dict['epoch']}, and can "
                f"only be continued with the same order of the samples; it has {', '.join(other)}."
            )
        sampler.set_epoch(state_dict["epoch"])
        sampler.first = state_dict["position"]
        self._pass = None

    def _batches(self) -> AbstractBatchSampler:
        if not isinstance(self.sampler, AbstractBatchSampler):
            raise TypeError(f"BatchLoader needs a sampler of batches; got a {type(self.sampler).__name__}.")
        return self.sampler
