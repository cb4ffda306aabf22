"""Sinograms with the images they are of, as splits of a training; the training pairs are made anew in every step."""

import sys
from abc import ABC, abstractmethod
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import TensorDataset

from implicit_l2o.applications.ct.measurement import Measurement, Noise
from implicit_l2o.data.ellipses import ellipse_phantoms
from implicit_l2o.data.lodopab import LodopabSlices
from implicit_l2o.physics import PerBeamNoise
from implicit_l2o.training import AbstractData, Splits

Split = Literal["train", "validation", "test"]

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_CHUNK = 256  # images projected at once
_LEVEL = 0.015  # of the noise on each beam in the published experiments


class AbstractTomographyData(AbstractData, ABC):
    """Batches `(d, x)` of noisy sinograms and images; a subclass says where the images come from.

    Validation and test pairs are made once. A training pair is made when it is needed: the image is turned and mirrored at
    random and measured with fresh noise, so that no method can learn a noise by heart. It is drawn from PyTorch's global
    generator, as the training's other random numbers are, so resuming is exact.

    Args:
        size: pixels along one side.
        angles: views.
        noise: on the sinograms; None takes 1.5 % on each beam.
        noiseless: no noise at all.
        avoid_inverse_crime: see `Measurement`.
        fresh_noise: measure the training images anew in every step.
        symmetries: turn and mirror them, one of the eight symmetries of the square an image.
        batch_size: see `AbstractData`, as for the others.
        evaluation_batch: images at once without training.
        seed: of the images, the noise and the order; None takes the run's.

    Raises:
        ValueError: `symmetries` without `fresh_noise`, for the stored sinogram is not that of a turned image; `noise`
            together with `noiseless`.
    """

    def __init__(
        self,
        *,
        size: int,
        angles: int,
        noise: Noise | None,
        noiseless: bool,
        avoid_inverse_crime: bool,
        fresh_noise: bool,
        symmetries: bool,
        batch_size: int,
        evaluation_batch: int,
        seed: int | None,
    ) -> None:
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, seed=seed)
        if symmetries and not fresh_noise:
            raise ValueError("symmetries=True needs fresh_noise=True: a turned image has to be measured anew.")
        if noise is not None and noiseless:
            raise ValueError(f"choose one of noise and noiseless; got noise={noise} and noiseless=True.")
        drawn = None if noiseless else (PerBeamNoise(_LEVEL) if noise is None else noise)
        self.measurement = Measurement(size, angles, drawn, avoid_inverse_crime)
        self.fresh_noise = fresh_noise
        self.symmetries = symmetries

    @abstractmethod
    def images(self, split: Split, size: int) -> Float[Tensor, "N 1 size size"]:
        """The images of a split, in [0, 1], at that size; the same ones whenever it is called."""

    @final
    def load(self) -> Splits:
        """Take the images and measure them, each split under a noise of its own.

        Where the images are measured at a finer size, those are the third tensor, for the training pairs that are made anew.
        """
        parts: dict[str, TensorDataset] = {}
        size, fine_size = self.measurement.size, self.measurement.fine_size
        for number, split in enumerate(_SPLITS):
            x = self.images(split, size)
            fine = x if fine_size == size else self.images(split, fine_size)
            generator = torch.Generator().manual_seed(stream(self.run_seed, len(_SPLITS) + number))
            d = torch.cat([self.measurement(part, generator) for part in fine.split(_CHUNK)])
            parts[split] = TensorDataset(d, x) if fine is x else TensorDataset(d, x, fine)
        return Splits(**parts)

    @final
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make a training pair anew; here, so that every callback sees what the loss sees."""
        if self.trainer is None or not self.trainer.training or not self.fresh_noise:
            return batch
        return self.fresh(*batch[1:])

    @final
    def fresh(self, x: Float[Tensor, "B 1 size size"], fine: Tensor | None = None) -> list[Tensor]:
        """A new pair `[d, x]` of the same images: turned, mirrored, with other noise; from the global generator.

        Args:
            x: the images.
            fine: what is measured, where that is not `x`.
        """
        images = [x] if fine is None else [x, fine]
        if self.symmetries:
            images = random_symmetry(*images)
        return [self.measurement(images[-1], torch.default_generator), *images]


@final
class EllipseData(AbstractTomographyData):
    """Phantoms of random ellipses, generated; training, validation and test phantoms have seeds of their own.

    Args:
        size: pixels along one side.
        angles: views.
        train: training phantoms; they are kept in memory.
        validation: validation phantoms.
        test: test phantoms.
        first_data_seed: phantoms are drawn with this plus the run's seed.
        noise: see `AbstractTomographyData`, as for the others.
        noiseless: no noise at all.
        avoid_inverse_crime: measure on a finer grid.
        fresh_noise: measure the training phantoms anew in every step.
        symmetries: turn and mirror them.
        batch_size: see `AbstractData`.
        evaluation_batch: images at once without training.
        seed: of the phantoms, the noise and the order; None takes the run's.

    Raises:
        ValueError: a split has no phantom; as `AbstractTomographyData`.

    Example:
        >>> from implicit_l2o.applications.ct.data import EllipseData
        >>> splits = EllipseData(size=32, angles=8, train=4, validation=2, test=3).splits
        >>> [tuple(field.shape[1:]) for field in splits.test.tensors][1]
        (1, 32, 32)
    """

    def __init__(
        self,
        *,
        size: int = 64,
        angles: int = 30,
        train: int = 5000,
        validation: int = 100,
        test: int = 200,
        first_data_seed: int = 0,
        noise: Noise | None = None,
        noiseless: bool = False,
        avoid_inverse_crime: bool = False,
        fresh_noise: bool = True,
        symmetries: bool = True,
        batch_size: int = 8,
        evaluation_batch: int = 50,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            size=size,
            angles=angles,
            noise=noise,
            noiseless=noiseless,
            avoid_inverse_crime=avoid_inverse_crime,
            fresh_noise=fresh_noise,
            symmetries=symmetries,
            batch_size=batch_size,
            evaluation_batch=evaluation_batch,
            seed=seed,
        )
        self.counts: dict[Split, int] = {"train": train, "validation": validation, "test": test}
        for name, count in self.counts.items():
            if count < 1:
                raise ValueError(f"EllipseData needs at least one phantom in each split; got {name}={count}.")
        self.first_data_seed = first_data_seed

    def images(self, split: Split, size: int) -> Float[Tensor, "N 1 size size"]:
        """The split's phantoms, with the grey levels that they have at the size of the reconstruction."""
        seed = stream(self.first_data_seed + self.run_seed, _SPLITS.index(split))
        return ellipse_phantoms(self.counts[split], size=size, seed=seed, reference=self.measurement.size)


@final
class LodopabData(AbstractTomographyData):
    """Human chests from LoDoPaB-CT's ground truth, the published parts; the sinograms are simulated, as in the experiments.

    Args:
        folder: of the HDF5 files, see `data.lodopab.LodopabSlices`.
        size: pixels along one side, at most 362, and 181 with `avoid_inverse_crime`.
        angles: views.
        train: training slices, the first ones; they are kept in memory.
        validation: validation slices.
        test: test slices.
        noise: see `AbstractTomographyData`, as for the others.
        noiseless: no noise at all.
        avoid_inverse_crime: measure on a finer grid.
        fresh_noise: measure the training slices anew in every step.
        symmetries: turn and mirror them.
        batch_size: see `AbstractData`.
        evaluation_batch: images at once without training.
        seed: of the noise and the order; None takes the run's.

    Raises:
        FileNotFoundError: a file that holds some of the slices is missing.
        ValueError: a file is damaged; a count or the size is out of range; as `AbstractTomographyData`.
    """

    def __init__(
        self,
        *,
        folder: str,
        size: int = 128,
        angles: int = 30,
        train: int = 20_000,
        validation: int = 500,
        test: int = 2000,
        noise: Noise | None = None,
        noiseless: bool = False,
        avoid_inverse_crime: bool = False,
        fresh_noise: bool = True,
        symmetries: bool = True,
        batch_size: int = 15,
        evaluation_batch: int = 50,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            size=size,
            angles=angles,
            noise=noise,
            noiseless=noiseless,
            avoid_inverse_crime=avoid_inverse_crime,
            fresh_noise=fresh_noise,
            symmetries=symmetries,
            batch_size=batch_size,
            evaluation_batch=evaluation_batch,
            seed=seed,
        )
        self.folder = folder
        self.counts: dict[Split, int] = {"train": train, "validation": validation, "test": test}

    def images(self, split: Split, size: int) -> Float[Tensor, "N 1 size size"]:
        """The part's first slices, averaged over the pixels of the size."""
        count = self.counts[split]
        progress = sys.stderr.isatty()
        return LodopabSlices(self.folder, part=split, size=size, count=count).read(range(count), progress=progress)


def stream(seed: int, number: int) -> int:
    """A seed for the given stream of random numbers of a run, so that no two streams are the same.

    Example:
        >>> from implicit_l2o.applications.ct.data import stream
        >>> len({stream(seed, number) for seed in range(50) for number in range(6)})
        300
    """
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def random_symmetry(*images: Float[Tensor, "B 1 _ _"]) -> list[Tensor]:
    """Turn and mirror each image by one of the square's eight symmetries, drawn from the global generator.

    Args:
        images: several batches of the same images, at different sizes: they are turned alike.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.data import random_symmetry
        >>> (turned,) = random_symmetry(torch.arange(4.0).reshape(1, 1, 2, 2))
        >>> turned.flatten().sort().values
        tensor([0., 1., 2., 3.])
    """
    drawn = torch.randint(0, 2, (3, len(images[0]), 1, 1, 1)).bool()  # on the CPU: one generator to restore
    transpose, down, across = drawn.to(images[0].device)
    turned = []
    for x in images:
        x = torch.where(transpose, x.mT, x)
        x = torch.where(down, x.flip(-2), x)
        turned.append(torch.where(across, x.flip(-1), x))
    return turned
