"""The test: the model's samples, and the baselines by the same metrics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

import implicit_l2o as il2o
from implicit_l2o.training import AbstractBaseline, AbstractData, AbstractTask, Constant, Samples


def samples(task: AbstractTask, found: Mapping[str, Tensor], data: AbstractData) -> Samples:
    """What the test found, with the data set's own fields."""
    known = {name: found.get(name) for name in ("status", "residual", "steps", "error")}
    return Samples(
        answer=found["answer"],
        values=found["values"],
        labels=found["labels"],
        worst=found["worst"],
        names=tuple(certificate.name for certificate in task.all_certificates()),
        batch=tuple(field[found["index"]] for field in data.splits.test.tensors),  # a trial looks at some of them
        **known,
    )


@torch.no_grad()
def score(
    task: AbstractTask, infer: Callable[[Sequence[Tensor]], il2o.Inference], part: TensorDataset, *, batch_size: int
) -> dict[str, float]:
    """The task's metrics of other answers to the same data.

    Args:
        task: says the metrics.
        infer: answers a batch.
        part: the data.
        batch_size: samples at once.
    """
    metrics = task.fresh_metrics()
    for metric in metrics.values():
        metric.sync_on_compute = False  # one process alone compares
    for start in range(0, len(part), batch_size):
        batch = part[start : start + batch_size]
        task.update(metrics, infer(batch), batch)
    return {name: float(value) for name, value in metrics.compute().items()}


def compare(
    task: AbstractTask,
    data: AbstractData,
    baselines: Mapping[str, AbstractBaseline],
    *,
    progress: bool,
    keep: Callable[[str, Tensor], None] | None = None,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Any]]]:
    """Prepare every baseline, the constant predictor first, and touch the test data once for each.

    Args:
        task: the trained model, and the metrics.
        data: set up.
        baselines: by name.
        progress: show bars.
        keep: is given the answers of each baseline to the test, by its name.

    Returns:
        Test metrics and costs (parameters, seconds, memory) by the baseline's name.
    """
    scores, costs = {}, {}
    for name, baseline in {"constant": Constant(), **baselines}.items():
        baseline.prepare(task, data, name=name, progress=progress)
        answers: list[Tensor] = []

        def infer(
            batch: Sequence[Tensor], baseline: AbstractBaseline = baseline, answers: list[Tensor] = answers
        ) -> il2o.Inference:
            inference = baseline.infer(batch)
            answers.append(task.answer(inference).cpu())
            return inference

        scores[name] = score(task, infer, data.splits.test, batch_size=data.evaluation_batch)
        if keep is not None:
            keep(name, torch.cat(answers))
        costs[name] = dict(baseline.numbers())
    return scores, {name: numbers for name, numbers in costs.items() if numbers}
