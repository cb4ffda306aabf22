"""One training of the comparison: every epoch its figures, and the test data once at its end."""

import copy
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.images.backward_comparison.modes import Explicit, Watched
from implicit_l2o.applications.images.backward_comparison.probe import hypotheses, probe, step_bytes
from implicit_l2o.applications.images.backward_comparison.setting import Labelled, Setting
from implicit_l2o.applications.images.model import ImageClassifier

_EVALUATION_BATCH = 500


def train(
    setting: Setting, mode: il2o.AbstractBackward, seed: int, splits: tuple[Labelled, Labelled, Labelled]
) -> dict[str, Any]:
    """Train one mode from one seed.

    The weights, the order of the images and the dropout masks depend on the seed alone. The epoch is chosen by its
    validation accuracy; the test data are touched once, after that.

    Args:
        setting: shared by all modes.
        mode: how the equilibrium is differentiated.
        seed: of the weights and of the order.
        splits: training, validation and test data.

    Returns:
        `epochs`, a record each; `best`, the number of the chosen one; its `validation_accuracy`; `test_accuracy`;
        and the `hypotheses` of the theorem at the end of a training by JFB.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training, validation, test = ((images.to(device), labels.to(device)) for images, labels in splits)
    watched = Watched(mode)
    network = setting.network(seed, watched).to(device)
    optimization = setting.optimization()
    optimizer = optimization.optimizer(network)
    schedule = optimization.scheduler(optimizer, setting.epochs * -(-len(training[0]) // setting.batch_size))
    order = torch.Generator().manual_seed(seed)
    examined = (validation[0][: setting.probe], validation[1][: setting.probe])
    torch.manual_seed(seed)
    records, best, chosen = [], -1.0, copy.deepcopy(network.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", il2o.ConvergenceWarning)  # counted below
        for _ in range(setting.epochs):
            record = _epoch(setting, network, watched, training, optimizer, schedule, order)
            record |= _evaluate(network, validation, "validation")
            with torch.random.fork_rng(devices=[]):
                record |= probe(network, mode, *examined)
                batch = training[0][: setting.batch_size], training[1][: setting.batch_size]
                record["peak_bytes"] = step_bytes(network, *batch)
            records.append(record)
            if record["validation_accuracy"] > best:
                best, chosen = record["validation_accuracy"], copy.deepcopy(network.state_dict())
        with torch.random.fork_rng(devices=[]):
            # After the last step; it is about training by JFB, and slow.
            theorem = hypotheses(network, *examined) if isinstance(mode, il2o.JFB) else None
        network.load_state_dict(chosen)
        tested = _evaluate(network, test, "test")
    accuracies = [record["validation_accuracy"] for record in records]
    return {
        "epochs": records,
        "best": accuracies.index(best),
        "validation_accuracy": best,
        **tested,
        "hypotheses": theorem,
    }


def _epoch(
    setting: Setting,
    network: ImageClassifier,
    watched: Watched,
    data: Labelled,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    order: torch.Generator,
) -> dict[str, Any]:
    """Train one epoch; its times, and how the solves went."""
    network.train()
    clocks = {name: [0.0, 0.0] for name in ("forward", "backward", "step")}
    loss_sum = torch.zeros((), device=data[0].device)
    seen = {name: [] for name in ("steps", "residual", "unsolved", "adjoint_steps", "adjoint_unsolved")}
    watched.seconds = 0.0
    for index in torch.randperm(len(data[0]), generator=order).split(setting.batch_size):
        images, labels = data[0][index], data[1][index]
        for change in setting.augmentation:
            images = change(images, order)
        began = _clocks()
        loss = F.cross_entropy(network(images).x, labels)
        began = _add(clocks["forward"], began)
        optimizer.zero_grad()
        loss.backward()
        began = _add(clocks["backward"], began)
        optimizer.step()
        schedule.step()
        _add(clocks["step"], began)
        loss_sum += len(index) * loss.detach()
        _note(seen, watched.point)
    record: dict[str, Any] = {
        "train_loss": float(loss_sum) / len(data[0]),
        **{f"{name}_wall": wall for name, (wall, _) in clocks.items()},
        **{f"{name}_processor": processor for name, (_, processor) in clocks.items()},
        "solve_processor": watched.seconds,
    }
    for name, parts in seen.items():
        record[name] = float(torch.cat(parts).double().mean()) if parts else None
    record["residual_max"] = float(torch.cat(seen["residual"]).max())
    watched.point = None  # its graph cannot be copied with the network
    return record


def _note(seen: dict[str, list[Tensor]], point: il2o.FixedPoint | None) -> None:
    """What is known of a solve and of its adjoint."""
    assert point is not None
    seen["steps"].append(point.steps)
    seen["residual"].append(point.residual)
    seen["unsolved"].append(~point.converged)
    if point.adjoint is not None and point.adjoint.steps is not None and point.adjoint.status is not None:
        seen["adjoint_steps"].append(point.adjoint.steps)
        seen["adjoint_unsolved"].append(point.adjoint.status == il2o.Status.MAX_STEPS)


@torch.no_grad()
def _evaluate(network: ImageClassifier, data: Labelled, name: str) -> dict[str, float]:
    """Accuracy and cross-entropy in evaluation mode, at the equilibrium whatever the mode trains on, unless it has none."""
    backward = network.backward
    if not (isinstance(backward, Watched) and isinstance(backward.mode, Explicit)):
        network.backward = None
    network.eval()
    logits = torch.cat([network(images).x for images in data[0].split(_EVALUATION_BATCH)])
    network.backward = backward
    return {
        f"{name}_accuracy": float((logits.argmax(1) == data[1]).double().mean()),
        f"{name}_loss": float(F.cross_entropy(logits, data[1])),
    }


def _clocks() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # the processor's time then says little; the wall's is the one to read
    return time.perf_counter(), time.process_time()


def _add(total: list[float], began: tuple[float, float]) -> tuple[float, float]:
    """Add what has passed by either clock; now."""
    now = _clocks()
    for i in range(2):
        total[i] += now[i] - began[i]
    return now


def seconds(
    record: dict[str, Any], parts: Sequence[str] = ("forward", "backward", "step"), clock: str = "processor"
) -> float:
    """Seconds of an epoch's training."""
    return sum(record[f"{part}_{clock}"] for part in parts)
