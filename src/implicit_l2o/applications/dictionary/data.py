"""Signals with a sparse representation in an unknown dictionary, and their measurements.

Source: Heaton and Wu Fung, Explainable AI via Learning to Optimize (Scientific Reports, 2023), implicit dictionary model.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import TensorDataset

from implicit_l2o.training import AbstractData, Splits


@dataclass(frozen=True)
class Sizes:
    """How large the problem is; the defaults are the published ones.

    Args:
        signal: entries of a signal `x`.
        atoms: columns of the true dictionary `M`.
        measurements: rows of the measurement matrix `A`.
        density: the probability that a coefficient is not zero.

    Raises:
        ValueError: a size below 1, more atoms or measurements than entries of a signal, or a density outside (0, 1].
    """

    signal: int = 250
    atoms: int = 50
    measurements: int = 100
    density: float = 0.1

    def __post_init__(self) -> None:
        for name, value in (("atoms", self.atoms), ("measurements", self.measurements)):
            if not 1 <= value <= self.signal:
                raise ValueError(f"Sizes needs 1 <= {name} <= signal = {self.signal}; got {name}={value}.")
        if not 0 < self.density <= 1:
            raise ValueError(f"Sizes needs 0 < density <= 1; got density={self.density}.")


class World(NamedTuple):
    """What all signals of a seed share: the true dictionary `M` (signal x atoms) and the measurements `A`."""

    M: Float[Tensor, "signal atoms"]
    A: Float[Tensor, "measurements signal"]


def world(sizes: Sizes, seed: int) -> World:
    """`M` with standard normal entries, `A` likewise with its columns scaled to norm one.

    Args:
        sizes: of the problem.
        seed: at least 0; the numbers do not depend on PyTorch's global generator.

    Example:
        >>> from implicit_l2o.applications.dictionary.data import Sizes, world
        >>> M, A = world(Sizes(), seed=0)
        >>> M.shape, A.shape, bool(((A.norm(dim=0) - 1).abs() < 1e-6).all())
        (torch.Size([250, 50]), torch.Size([100, 250]), True)
    """
    generator = torch.Generator().manual_seed(seed)
    M = torch.randn(sizes.signal, sizes.atoms, generator=generator)
    A = torch.randn(sizes.measurements, sizes.signal, generator=generator)
    return World(M, A / A.norm(dim=0))


def signals(sizes: Sizes, count: int, *, seed: int, stream: int) -> Float[Tensor, "count signal"]:
    """`x = M s` with `s` Bernoulli(density) times a standard normal, independently by entry.

    Args:
        sizes: of the problem.
        count: how many.
        seed: of the world.
        stream: at least 0; signals of different streams are independent.
    """
    generator = torch.Generator().manual_seed(_mixed(seed, stream))
    present = torch.rand(count, sizes.atoms, generator=generator) < sizes.density
    s = present * torch.randn(count, sizes.atoms, generator=generator)
    return s @ world(sizes, seed).M.mT


def _mixed(seed: int, stream: int) -> int:
    # Streams of a seed and those of its neighbours must not meet.
    return (seed * 1_000_003 + stream + 1) * 2_654_435_761 % 2**63


@final
class DictionaryData(AbstractData):
    """Measurements `d = A x` and signals `x`, drawn by the run's seed, which draws the dictionary and `A` as well.

    Args:
        sizes: None takes the published ones.
        train: signals to learn from.
        validation: signals to choose by.
        test: signals to judge by.
        batch_size: see `AbstractData`, as for the others.
        evaluation_batch: signals at once without training.
        workers: processes that fetch batches.
        seed: of everything; None takes the run's.

    Raises:
        ValueError: a split has no signal.

    Example:
        >>> from implicit_l2o.applications.dictionary.data import DictionaryData
        >>> splits = DictionaryData(train=20, validation=10, test=10, seed=0).splits
        >>> [tuple(tensor.shape) for tensor in splits.train.tensors]
        [(20, 100), (20, 250)]
    """

    def __init__(
        self,
        *,
        sizes: Sizes | None = None,
        train: int = 10_000,
        validation: int = 1_000,
        test: int = 1_000,
        batch_size: int = 100,
        evaluation_batch: int = 500,
        workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, workers=workers, seed=seed)
        counts = (train, validation, test)
        if min(counts) < 1:
            raise ValueError(f"DictionaryData needs at least one signal in each split; got {counts}.")
        self.sizes = Sizes() if sizes is None else sizes
        self.counts = counts

    def load(self) -> Splits:
        """`(d, x)` of each split."""
        A = world(self.sizes, self.run_seed).A
        parts = []
        for stream, count in enumerate(self.counts):
            x = signals(self.sizes, count, seed=self.run_seed, stream=stream)
            parts.append(TensorDataset(x @ A.mT, x))
        return Splits(*parts)


def complete(M: Float[Tensor, "signal atoms"]) -> Float[Tensor, "signal signal"]:
    """The atoms, then a basis of what is orthogonal to them, scaled to their mean norm: an invertible dictionary."""
    basis = torch.linalg.qr(M.double(), mode="complete").Q[:, M.shape[1] :]
    scale = math.sqrt(float(M.double().square().sum()) / M.shape[1])
    return torch.cat([M, (scale * basis).to(M)], dim=1)
