"""Sets of images under the certificates of a trained network: test images, and images unlike all training images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.training import AbstractTask, Samples

_STRANGERS = 300  # images of each kind that the training never saw, at most
_SEED = 0  # of the strangers: the same noise in every run


@dataclass(frozen=True, eq=False, kw_only=True)
class Examined:
    """A set of images, what the network says of them, and what the certificates say of that.

    Attributes:
        images: intensities in [0, 1].
        target: their classes; None for images that are no digits.
        answer: the predicted classes.
        values: of the certificates' properties.
        labels: integers of `Label`.
        worst: the worst label of each image.
        names: of the properties.
    """

    images: Float[Tensor, "N colours side side"]
    target: Int[Tensor, " N"] | None
    answer: Int[Tensor, " N"]
    values: Float[Tensor, "N P"]
    labels: Int[Tensor, "N P"]
    worst: Int[Tensor, " N"]
    names: tuple[str, ...]

    @classmethod
    def of(cls, samples: Samples, images: Tensor, target: Tensor | None = None) -> Self:
        """From what a task found of the images."""
        return cls(
            images=images,
            target=target,
            answer=samples.answer,
            values=samples.values,
            labels=samples.labels,
            worst=samples.worst,
            names=samples.names,
        )

    def value(self, name: str) -> Float[Tensor, " N"]:
        """Of one property."""
        return self.values[:, self.names.index(name)]

    def label(self, name: str) -> Int[Tensor, " N"]:
        """Of one property."""
        return self.labels[:, self.names.index(name)]

    @staticmethod
    def share(labels: Int[Tensor, " N"], label: il2o.Label) -> float:
        """Which share of the labels is this one."""
        return float((labels == label).double().mean())


def strangers(images: Float[Tensor, "N colours side side"]) -> dict[str, Float[Tensor, "N colours side side"]]:
    """Images of kinds that no training image has, made of the given images (the noise of their intensities' range).

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.digits.examined import strangers
        >>> list(strangers(torch.zeros(2, 1, 8, 8)))
        ['noise', 'inverted', 'rotated', 'shuffled']
    """
    generator = torch.Generator().manual_seed(_SEED)
    order = torch.stack([torch.randperm(images[0].numel(), generator=generator) for _ in images])
    return {
        "noise": torch.rand(images.shape, generator=generator),
        "inverted": 1.0 - images,
        "rotated": images.rot90(1, (2, 3)),
        "shuffled": images.flatten(1).gather(1, order).reshape(images.shape),
    }


@torch.no_grad()
def examine_kinds(
    task: AbstractTask, samples: Samples, images: Float[Tensor, "N colours side side"], labels: Int[Tensor, " N"]
) -> dict[str, Examined]:
    """The test images, and images made of them that are unlike all training images, under the task's certificates.

    Args:
        task: trained and calibrated.
        samples: what it found of the test images.
        images: those, intensities in [0, 1].
        labels: their classes.
    """
    examined = {"test": Examined.of(samples, images, labels)}
    for kind, strange in strangers(images[:_STRANGERS]).items():
        found = task.examine(strange.to(task.device))
        part = Samples(
            answer=found["answer"].cpu(),
            values=found["values"].cpu(),
            labels=found["labels"].cpu(),
            worst=found["worst"].cpu(),
            names=samples.names,
        )
        examined[kind] = Examined.of(part, strange)
    return examined


def shares_by_kind(examined: Mapping[str, Examined]) -> dict[str, Any]:
    """How accurate the trusted answers are, and what the certificates say of test images and of strangers.

    By kind of image, `trusted` is the share that pass every certificate, `flagged` the share that fail at least one,
    `flagged_by_doubt_alone` the share that fail the softmax's own confidence.
    """
    test = examined["test"]
    trusted = test.worst == il2o.Label.PASS
    right = test.answer == test.target
    return {
        "accuracy_trusted": float(right[trusted].double().mean()) if bool(trusted.any()) else None,
        "trusted": {kind: part.share(part.worst, il2o.Label.PASS) for kind, part in examined.items()},
        "flagged": {kind: part.share(part.worst, il2o.Label.FAIL) for kind, part in examined.items()},
        "flagged_by_doubt_alone": {
            kind: part.share(part.label("doubt"), il2o.Label.FAIL) for kind, part in examined.items()
        },
    }
