"""What needs no training: filtered back-projection, CGLS, total variation; each tuned on validation images.

Beyond the tuning nothing is spared: clipped to the range of the images, iterated to convergence.
"""

import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

import implicit_l2o as il2o
from implicit_l2o.applications.ct.base import ReconstructionTask, check_sinogram
from implicit_l2o.applications.ct.metrics import psnr
from implicit_l2o.physics import Filter, FilteredBackProjection, Projector
from implicit_l2o.training import AbstractBaseline, AbstractData, AbstractTask

Choice = TypeVar("Choice")

_CHUNK = 50  # images solved at once


class AbstractClassical(AbstractBaseline, ABC):
    """A method with a setting or two, which are chosen by the mean PSNR on validation images."""

    validation: int  # images to choose by
    projector: Projector

    @abstractmethod
    def choices(self) -> Sequence[Any]:
        """The settings to choose from."""

    @abstractmethod
    def reconstruct(self, d: Float[Tensor, "B angles bins"], choice: Any) -> il2o.Inference:
        """The images under one setting; `self.projector` is known."""

    def results(
        self, d: Float[Tensor, "B angles bins"], choices: Sequence[Choice]
    ) -> Iterator[tuple[Choice, Float[Tensor, "B 1 n n"]]]:
        """The images under every setting, where one sweep gives them all; by default one after another."""
        for choice in choices:
            yield choice, self.reconstruct(d, choice).x

    def describe(self, choice: Any) -> Mapping[str, Any]:
        """The setting by name, for the results."""
        return {"setting": choice}

    @final
    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Choose the setting on validation images.

        Raises:
            TypeError: the task reconstructs nothing.
            ValueError: there is nothing to choose from.
        """
        if not isinstance(task, ReconstructionTask):
            raise TypeError(f"{type(self).__name__} is a baseline of reconstructions; got {type(task).__name__}.")
        self.tune(task.projector, *data.splits.validation.tensors[:2], name=name, progress=progress)

    @final
    @torch.no_grad()
    def tune(
        self,
        projector: Projector,
        d: Float[Tensor, "N angles bins"],
        x: Float[Tensor, "N 1 n n"],
        *,
        name: str = "tuning",
        progress: bool = False,
    ) -> None:
        """Choose the setting by the first `validation` of these images."""
        self.projector = projector
        choices = list(self.choices())
        if not choices:
            raise ValueError(f"{type(self).__name__} has no settings to choose from.")
        if self.validation < 1:
            raise ValueError(f"{type(self).__name__} needs validation >= 1 images; got {self.validation}.")
        d, x = d[: self.validation], x[: self.validation]
        self._scores: dict[Any, float] = {}
        if len(choices) > 1:
            found = tqdm(
                self.results(d, choices), name, len(choices), unit="setting", file=sys.stderr, disable=not progress
            )
            with warnings.catch_warnings():
                # A choice may be infeasible; its score says enough. The answers to the test do warn.
                warnings.simplefilter("ignore", il2o.ConvergenceWarning)
                self._scores = {choice: float(psnr(answer, x).mean()) for choice, answer in found}
        self.chosen = max(choices, key=lambda choice: self._scores.get(choice, 0.0))

    @final
    @torch.no_grad()
    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The images under the chosen setting."""
        check_sinogram(batch[0], self.projector)
        return self.reconstruct(batch[0], self.chosen)

    def numbers(self) -> Mapping[str, Any]:
        """What was chosen, and what every choice gave on the validation images."""
        described = self.describe(self.chosen)
        scores = {" ".join(map(str, self.describe(c).values())): score for c, score in self._scores.items()}
        chosen = {"parameters": len(described), **described}
        return {**chosen, "validation_images": self.validation, "validation_psnr": scores}


@final
@dataclass(eq=False)
class FBP(AbstractClassical):
    """Filtered back-projection, clipped to [0, 1]; window and cutoff are chosen.

    Args:
        filters: windows to choose from.
        cutoffs: shares of the detector's highest frequency to choose from.
        validation: images to choose by.

    Raises:
        ValueError: when prepared, an unknown window or a cutoff outside (0, 1].
    """

    filters: Sequence[Filter] = get_args(Filter)
    cutoffs: Sequence[float] = tuple(i / 20 for i in range(8, 21))
    validation: int = 100

    def choices(self) -> Sequence[tuple[Filter, float]]:
        """All pairs."""
        return [(name, cutoff) for name in self.filters for cutoff in self.cutoffs]

    def reconstruct(self, d: Float[Tensor, "B angles bins"], choice: tuple[Filter, float]) -> il2o.Inference:
        """The clipped back-projection."""
        return il2o.Inference(x=FilteredBackProjection(self.projector, *choice)(d).clamp(0, 1), data=d)

    def describe(self, choice: tuple[Filter, float]) -> Mapping[str, Any]:
        """Window and cutoff."""
        return {"filter": choice[0], "cutoff": choice[1]}


@final
@dataclass(eq=False)
class CGLS(AbstractClassical):
    """Conjugate gradients on the least squares, stopped early and clipped to [0, 1]; the number of steps is chosen.

    Args:
        most_steps: steps to choose from are 1 to this.
        validation: images to choose by.

    Source: A. Bjoerck, Numerical Methods for Least Squares Problems (1996), section 7.4.

    Raises:
        ValueError: when prepared, `most_steps` is below 1.
    """

    most_steps: int = 60
    validation: int = 100

    def choices(self) -> Sequence[int]:
        """All numbers of steps."""
        return range(1, self.most_steps + 1)

    def results(
        self, d: Float[Tensor, "B angles bins"], choices: Sequence[Any]
    ) -> Iterator[tuple[Any, Float[Tensor, "B 1 n n"]]]:
        """One run visits every number of steps."""
        return zip(choices, (x.clamp(0, 1) for x in cgls(self.projector, d)), strict=False)

    def reconstruct(self, d: Float[Tensor, "B angles bins"], choice: int) -> il2o.Inference:
        """The clipped iterate."""
        x = next(islice(cgls(self.projector, d), choice - 1, None))
        return il2o.Inference(x=x.clamp(0, 1), data=d)

    def describe(self, choice: int) -> Mapping[str, Any]:
        """The number of steps."""
        return {"steps": choice}


def cgls(projector: Projector, d: Float[Tensor, "B angles bins"]) -> Iterator[Float[Tensor, "B 1 n n"]]:
    """The iterates of conjugate gradients on `A^T A x = A^T d` from zero, without end.

    Example:
        >>> import itertools, torch
        >>> from implicit_l2o.applications.ct.base import scanner
        >>> from implicit_l2o.applications.ct.classical import cgls
        >>> A, x = scanner(8, 12), torch.rand(1, 1, 8, 8)
        >>> *_, last = itertools.islice(cgls(A, A.apply(x)), 200)
        >>> bool((last - x).abs().max() < 0.01)
        True
    """
    residual = d
    slope = projector.adjoint(residual)
    x, direction, size = torch.zeros_like(slope), slope, slope.square().sum((1, 2, 3), keepdim=True)
    tiny = torch.finfo(d.dtype).tiny
    while True:
        image = projector.apply(direction)
        step = size / image.square().sum((1, 2)).reshape(size.shape).clamp_min(tiny)
        x = x + step * direction
        residual = residual - step.reshape(-1, 1, 1) * image
        slope = projector.adjoint(residual)
        new = slope.square().sum((1, 2, 3), keepdim=True)
        direction = slope + new / size.clamp_min(tiny) * direction
        size = new
        yield x
