"""What every training of the comparison shares: the data, the network and the optimizer."""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.images.architecture import (
    CIFAR10,
    CIFAR10_AUGMENTED,
    DIGITS,
    MNIST,
    SVHN,
    AbstractArchitecture,
)
from implicit_l2o.applications.images.estimated import Estimated
from implicit_l2o.applications.images.latent import AbstractContraction
from implicit_l2o.applications.images.model import ImageClassifier
from implicit_l2o.applications.images.proven import Proven
from implicit_l2o.data.augmentation import AbstractAugmentation, HorizontalFlip, RandomCrop, RandomErasing
from implicit_l2o.data.images import LabelledImages, load_cifar10, load_digits, load_mnist, load_svhn
from implicit_l2o.training import Optimization

Labelled: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Source:
    """A data set with the network of its size.

    Args:
        architecture: of the network.
        gamma: its published contraction factor.
        held_out: training images that validate.
        load: the images of a split, from a folder or downloaded; None for the digits, which are one set.
        augmentation: of the training images.
    """

    architecture: AbstractArchitecture
    gamma: float
    held_out: int
    load: Callable[..., LabelledImages] | None = None
    augmentation: tuple[AbstractAugmentation, ...] = ()


_PHOTOGRAPH = (0.485, 0.456, 0.406)  # the mean colour, which erased rectangles get

SOURCES = {
    "digits": Source(DIGITS, 0.9, 300),
    "mnist": Source(MNIST, 0.5, 5000, load_mnist),
    "svhn": Source(SVHN, 0.9, 5000, load_svhn),
    "cifar10": Source(CIFAR10, 0.9, 5000, load_cifar10),
    "cifar10_augmented": Source(
        CIFAR10_AUGMENTED,
        0.5,
        5000,
        load_cifar10,
        # As published, in training alone.
        (
            HorizontalFlip(),
            RandomCrop(2, fill=0.449),
            RandomErasing(0.95, area=(0.1, 0.25), ratio=(0.2, 5.0), value=_PHOTOGRAPH),
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One comparison; whatever is here is the same for every mode.

    Args:
        data: `"digits"` (scikit-learn's, no download), `"mnist"`, `"svhn"`, `"cifar10"` or `"cifar10_augmented"`, each with
            the published network.
        train: images to train on at most, the first of the split; None takes all.
        validation: to choose the epoch by, likewise.
        test: to report, likewise.
        epochs: of every training.
        batch_size: images a step.
        learning_rate: of AdamW, with cosine decay.
        weight_decay: of AdamW.
        gamma: contraction factor of the latent map; None takes the published one, or 0.9 for the digits.
        estimated: keep the factor by an estimate in training, not by construction.
        tolerance: of the forward solve, absolute, on `|T(z) - z|`.
        max_steps: of the forward solve.
        check_every: steps of the forward solve between two looks at its residual.
        rtol: of the adjoint solves, relative to the cotangent.
        unrolled: applications of `T` that `Unrolled` differentiates.
        probe: validation images on which the gradients are compared.

    Raises:
        ValueError: unknown data, or a count below 1.
    """

    data: str = "digits"
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    epochs: int = 10
    batch_size: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    gamma: float | None = None
    estimated: bool = False
    tolerance: float = 1e-2
    max_steps: int = 200
    check_every: int = 5
    rtol: float = 1e-6
    unrolled: int = 30
    probe: int = 16

    def __post_init__(self) -> None:
        if self.data not in SOURCES:
            raise ValueError(f"data must be one of {sorted(SOURCES)}; got {self.data!r}.")
        for name in ("train", "validation", "test", "epochs", "batch_size", "max_steps", "unrolled", "probe"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Setting needs {name} >= 1; got {name}={value}.")

    @property
    def architecture(self) -> AbstractArchitecture:
        """The sizes of the network."""
        return SOURCES[self.data].architecture

    @property
    def augmentation(self) -> tuple[AbstractAugmentation, ...]:
        """What is done to training images."""
        return SOURCES[self.data].augmentation

    @property
    def contraction(self) -> AbstractContraction:
        """How the latent map contracts."""
        gamma = SOURCES[self.data].gamma if self.gamma is None else self.gamma
        return Estimated(gamma) if self.estimated else Proven(gamma)

    def network(self, seed: int, backward: il2o.AbstractBackward | None = None) -> ImageClassifier:
        """The untrained network, the same for every mode."""
        return ImageClassifier(
            self.architecture, contraction=self.contraction, seed=seed, solver=self.solver(), backward=backward
        )

    def solver(self) -> il2o.KrasnoselskiiMann:
        """Picard iteration to the tolerance."""
        stopping = il2o.Stopping(atol=self.tolerance, rtol=0.0, max_steps=self.max_steps, check_every=self.check_every)
        return il2o.KrasnoselskiiMann(stopping)

    def optimization(self) -> Optimization:
        """AdamW and its schedule."""
        return Optimization(learning_rate=self.learning_rate, weight_decay=self.weight_decay)

    def splits(self, seed: int, folder: Path | None) -> tuple[Labelled, Labelled, Labelled]:
        """Training, validation and test data: intensities in [0, 1] and classes.

        Args:
            seed: of the split between training and validation data (and the digits' test data); the test data of the
                others are their own.
            folder: of the data set's files; None downloads them.
        """
        held_out = SOURCES[self.data].held_out
        images, test = _load(self.data, folder)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).numpy()
        if test is None:
            order, tested = order[:-held_out], images.tensors(order[-held_out:][: self.test])
        else:
            tested = test.tensors(slice(self.test))
        train, validation = order[:-held_out][: self.train], order[-held_out:][: self.validation]
        return images.tensors(train), images.tensors(validation), tested

    def record(self) -> dict[str, Any]:
        """For the results file; a training on file is taken for done where this agrees."""
        network = self.network(0)
        return {
            **dataclasses.asdict(self),
            "gamma": network.R.factor,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "latent": self.architecture.channels * self.architecture.latent_side**2,
        }


def _load(data: str, folder: Path | None) -> tuple[LabelledImages, LabelledImages | None]:
    """Images to train on and, where they are given apart, to test on."""
    load = SOURCES[data].load
    if load is None:
        return load_digits(), None
    progress = sys.stderr.isatty()
    return load(folder, split="train", progress=progress), load(folder, split="test", progress=progress)
