"""What the implicit network is compared with besides other networks: logistic regression on the pixels."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression
from torch import Tensor
from torch.utils.data import TensorDataset
from tqdm import tqdm

import implicit_l2o as il2o
from implicit_l2o.training import AbstractBaseline, AbstractData, AbstractTask


@final
class LogisticRegression(AbstractBaseline):
    """Multinomial logistic regression on the pixels, its regularisation chosen by the accuracy on validation data.

    Args:
        C: inverses of the regularisation's strength to choose from.
        max_iter: of its optimizer.

    Raises:
        ValueError: `C` is empty or not positive, or `max_iter` is below 1.
    """

    def __init__(self, *, C: Sequence[float] = (0.1, 1.0, 10.0), max_iter: int = 2000) -> None:
        if not C or min(C) <= 0:
            raise ValueError(f"LogisticRegression needs positive C to choose from; got C={list(C)}.")
        if max_iter < 1:
            raise ValueError(f"LogisticRegression needs max_iter >= 1; got max_iter={max_iter}.")
        self.C = tuple(C)
        self.max_iter = max_iter

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Fit it for every `C`, and keep the best on the validation data."""
        images, labels = _flat(data.splits.train)
        seen, seen_labels = _flat(data.splits.validation)
        models = [
            SklearnLogisticRegression(C=C, max_iter=self.max_iter).fit(images, labels)
            for C in tqdm(self.C, name, unit="fit", file=sys.stderr, disable=not progress)
        ]
        self._model = max(models, key=lambda model: model.score(seen, seen_labels))

    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The logits."""
        logits = self._model.decision_function(batch[0].flatten(1).cpu().numpy())
        return il2o.Inference(x=torch.from_numpy(np.asarray(logits)).to(batch[0].device, batch[0].dtype))

    def numbers(self) -> Mapping[str, Any]:
        """How many numbers it learned, and the chosen regularisation."""
        return {"parameters": self._model.coef_.size + self._model.intercept_.size, "C": self._model.C}


def _flat(data: TensorDataset) -> tuple[np.ndarray, np.ndarray]:
    images, labels = data.tensors
    return images.flatten(1).numpy(), labels.numpy()
