"""What the implicit network is compared with: its explicit twin, logistic regression, and the most frequent class."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from torch.utils.data import TensorDataset

import implicit_l2o as il2o
from implicit_l2o.applications.digits.model import Architecture, ImplicitClassifier
from implicit_l2o.applications.digits.task import Splits


def explicit_twin(architecture: Architecture, *, seed: int) -> ImplicitClassifier:
    """The same network with `R` applied once, at `u = 0`, and trained by plain backpropagation: `y = S(R(0, Q(d)))`.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.digits.baselines import explicit_twin
        >>> from implicit_l2o.applications.digits.model import Architecture
        >>> explicit_twin(Architecture(), seed=0)(torch.zeros(2, 1, 8, 8)).steps
        tensor([1, 1])
    """
    # A tolerance of zero asks for exactly max_steps, without a warning that the fixed point was not reached.
    once = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=1))
    return ImplicitClassifier(architecture, seed=seed, solver=once, backward=il2o.Unrolled(1))


def logistic_regression_accuracy(splits: Splits) -> float:
    """Test accuracy of multinomial logistic regression on the pixels, its regularisation chosen on validation data."""
    (images, labels), (seen, seen_labels), (new, new_labels) = (
        _flat(part) for part in (splits.train, splits.validation, splits.test)
    )
    models = [LogisticRegression(C=C, max_iter=2000).fit(images, labels) for C in (0.1, 1.0, 10.0)]
    best = max(models, key=lambda model: model.score(seen, seen_labels))
    return float(best.score(new, new_labels))


def constant_accuracy(splits: Splits) -> float:
    """Test accuracy of answering the most frequent training class."""
    answer = np.bincount(_flat(splits.train)[1]).argmax()
    return float((_flat(splits.test)[1] == answer).mean())


def _flat(data: TensorDataset) -> tuple[np.ndarray, np.ndarray]:
    images, labels = data.tensors
    return images.flatten(1).numpy(), labels.numpy()
