"""One seed of the experiment: the same network under several backward modes, its baselines, its certificates."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.digits.baselines import constant_accuracy, explicit_twin, logistic_regression_accuracy
from implicit_l2o.applications.digits.certificates import digit_certificates, inference_of
from implicit_l2o.applications.digits.model import DIGITS, Architecture, ImplicitClassifier, Prediction
from implicit_l2o.applications.digits.task import Recipe, Splits, accuracy, predict, train
from implicit_l2o.training import peak_memory

MODES: Mapping[str, il2o.AbstractBackward] = {"jfb": il2o.JFB(), "implicit": il2o.Implicit()}
_REFERENCES = 10_000  # training images that the latent distance is fitted to, at most
_STRANGERS = 300  # images of each kind that the training never saw


@dataclass(frozen=True)
class Settings:
    """The network's sizes and how it is trained.

    Args:
        architecture: of the network and its explicit twin.
        recipe: the same for all modes.
    """

    architecture: Architecture = DIGITS
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True, eq=False)
class Trained:
    """One trained network.

    Attributes:
        model: with the weights of its best epoch.
        history: one dictionary an epoch: `loss` (training), `cross-entropy` and `accuracy` (validation).
        best_epoch: index into `history`.
        seconds: wall time of each epoch's training.
        test_accuracy: share of correct test labels.
        peak_memory: of one training step, bytes of tensors beyond the weights and the batch (see `peak_memory`).
        steps: mean iterations of a test image's solve.
    """

    model: ImplicitClassifier
    history: list[dict[str, float]]
    best_epoch: int
    seconds: list[float]
    test_accuracy: float
    peak_memory: int
    steps: float

    @property
    def seconds_per_epoch(self) -> float:
        """The median, which a passing load on the machine does not move."""
        return float(torch.tensor(self.seconds, dtype=torch.float64).median())


@dataclass(frozen=True, eq=False)
class Examined:
    """A set of images under the certificates of the first mode's network.

    Attributes:
        images: intensities in [0, 1].
        labels: their classes; None for images that are no digits.
        prediction: what the network says.
        report: its certificates.
    """

    images: Float[Tensor, "N 1 side side"]
    labels: Tensor | None
    prediction: Prediction
    report: il2o.CertificateReport


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one seed gave.

    Attributes:
        trained: by mode, and the explicit twin as `"explicit"`.
        logistic_regression: its test accuracy on the pixels.
        constant: test accuracy of the most frequent class.
        examined: the test images as `"test"`, and images that the training never saw, by kind.
    """

    trained: Mapping[str, Trained]
    logistic_regression: float
    constant: float
    examined: Mapping[str, Examined]

    @property
    def parameters(self) -> int:
        """Of every one of the networks."""
        return sum(parameter.numel() for parameter in next(iter(self.trained.values())).model.parameters())


def experiment(
    splits: Splits,
    seed: int,
    settings: Settings | None = None,
    *,
    modes: Mapping[str, il2o.AbstractBackward] = MODES,
    progress: bool = True,
) -> Outcome:
    """Train the same network, from the same weights on the same batches, under each mode, and its explicit twin.

    Args:
        splits: the test part is touched once for each trained network.
        seed: of weights, batches, shifts and dropout.
        settings: None takes `Settings()`, those of the small digits.
        modes: by name; the first one's network is examined under certificates.
        progress: show a bar for each training.
    """
    settings = Settings() if settings is None else settings
    networks = {
        name: ImplicitClassifier(settings.architecture, seed=seed, backward=mode) for name, mode in modes.items()
    }
    networks["explicit"] = explicit_twin(settings.architecture, seed=seed)
    trained = {
        name: _train(network, splits, settings.recipe, seed, f"digits, {name:<8}" if progress else None)
        for name, network in networks.items()
    }
    return Outcome(
        trained=trained,
        logistic_regression=logistic_regression_accuracy(splits),
        constant=constant_accuracy(splits),
        examined=examine(next(iter(trained.values())).model, splits, seed),
    )


def _train(model: ImplicitClassifier, splits: Splits, recipe: Recipe, seed: int, label: str | None) -> Trained:
    task = train(model, splits, recipe, seed=seed, label=label)
    return Trained(
        model=model,
        history=task.history,
        best_epoch=task.best_epoch or 0,
        seconds=task.seconds,
        test_accuracy=accuracy(model, splits.test),
        peak_memory=step_memory(model, *splits.train[: recipe.batch_size]),
        steps=float(predict(model, splits.test.tensors[0]).steps.double().mean()),
    )


def step_memory(model: ImplicitClassifier, images: Tensor, labels: Tensor) -> int:
    """Peak bytes of the tensors of one training step on a batch (forward, loss, backward); the model stays as it was."""
    model = copy.deepcopy(model).train()
    return peak_memory(lambda: F.cross_entropy(model(images).logits, labels).backward(), device=images.device)


def examine(model: ImplicitClassifier, splits: Splits, seed: int) -> Mapping[str, Examined]:
    """Certify the test images and images unlike all training images: noise, inverted, rotated, shuffled pixels."""
    images, labels = splits.train[:_REFERENCES]
    certificates = digit_certificates(
        model, predict(model, images), labels, predict(model, splits.validation.tensors[0])
    )
    test, test_labels = splits.test.tensors
    kinds: dict[str, tuple[Tensor, Tensor | None]] = {"test": (test, test_labels)}
    kinds |= {name: (strange, None) for name, strange in strangers(test[:_STRANGERS], seed).items()}
    examined = {}
    for name, (part, part_labels) in kinds.items():
        prediction = predict(model, part)
        report = il2o.certify(certificates, inference_of(prediction))
        examined[name] = Examined(part, part_labels, prediction, report)
    return examined


def strangers(images: Float[Tensor, "N 1 side side"], seed: int) -> dict[str, Float[Tensor, "N 1 side side"]]:
    """Images of kinds that no training image has, made of the given digits (the noise of their intensities' range).

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.digits.experiment import strangers
        >>> list(strangers(torch.zeros(2, 1, 8, 8), seed=0))
        ['noise', 'inverted', 'rotated', 'shuffled']
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(images[0].numel(), generator=generator) for _ in images])
    return {
        "noise": torch.rand(images.shape, generator=generator),
        "inverted": 1.0 - images,
        "rotated": images.rot90(1, (2, 3)),
        "shuffled": images.flatten(1).gather(1, order).reshape(images.shape),
    }


def summary(outcome: Outcome) -> dict[str, Any]:
    """The outcome's numbers as plain values: the keys of `results/digits.json`.

    Accuracies are shares of the test images, times seconds, memory bytes. `certificates` counts labels by property on the
    test images; `accuracy_trusted` is the accuracy on those that pass every certificate. By kind of image, `trusted` is the
    share that pass every certificate, `flagged` the share that fail at least one, `flagged_by_doubt_alone` the share that
    fail the softmax's own confidence.
    """
    numbers: dict[str, Any] = {}
    for name, trained in outcome.trained.items():
        numbers[f"accuracy_{name}"] = trained.test_accuracy
        numbers[f"seconds_per_epoch_{name}"] = trained.seconds_per_epoch
        numbers[f"peak_memory_{name}"] = trained.peak_memory
        numbers[f"steps_{name}"] = trained.steps
    test = outcome.examined["test"]
    worst = {name: part.report.worst for name, part in outcome.examined.items()}
    correct = (test.prediction.labels == test.labels).double()
    return numbers | {
        "accuracy_logistic_regression": outcome.logistic_regression,
        "accuracy_constant": outcome.constant,
        "accuracy_trusted": float(correct[test.report.trusted].mean()),
        "parameters": outcome.parameters,
        "certificates": {
            name: {label.name: n for label, n in counts.items()} for name, counts in test.report.counts().items()
        },
        "trusted": {name: float((label == il2o.Label.PASS).double().mean()) for name, label in worst.items()},
        "flagged": {name: float((label == il2o.Label.FAIL).double().mean()) for name, label in worst.items()},
        "flagged_by_doubt_alone": {
            name: float((_column(part.report, "doubt") == il2o.Label.FAIL).double().mean())
            for name, part in outcome.examined.items()
        },
    }


def _column(report: il2o.CertificateReport, name: str) -> Tensor:
    return report.labels[:, report.names.index(name)]
