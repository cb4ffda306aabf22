"""All methods on one network, on contexts like those of the training, with more trips, and with a closed road."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import games
from implicit_l2o.applications.traffic.data import TrafficData
from implicit_l2o.applications.traffic.metrics import scores
from implicit_l2o.applications.traffic.model import Road, true_latency
from implicit_l2o.applications.traffic.task import AbstractTrafficTask, EquilibriumTask, FlowTask
from implicit_l2o.data.traffic import TrafficContexts
from implicit_l2o.games import PolynomialLatency, TrafficNetwork, user_equilibria
from implicit_l2o.training import Convergence, Optimization, TimeLimit, count_parameters, fit
from implicit_l2o.training.fit import one_thread, quiet

MORE_TRIPS = 1.2
_CHUNK = 100
_FEW = 100  # links of a network on which JFB bears the larger rate


@dataclass(frozen=True)
class Method:
    """A model and how it is trained.

    Args:
        make: the task, its weights initialised by PyTorch's global generator.
        batch: contexts of a training step.
    """

    make: Callable[[Road], AbstractTrafficTask]
    batch: int = 4


def _rate(rate: float, decay: float = 0.0, second_moment: float = 0.999, decay_power: float = 0.0) -> Optimization:
    # The rate is annealed by the clock.
    return Optimization(
        learning_rate=rate,
        weight_decay=decay,
        schedule="constant",
        second_moment=second_moment,
        decay_power=decay_power,
    )


# The settings were chosen on validation contexts of Sioux Falls, those by JFB also of Eastern Massachusetts, those of the
# learned travel times also of Eastern Massachusetts and Anaheim, those of the toy network on its own; see the page.
def _latency(road: Road, loss: Literal["fenchel_young", "solution"], *, decay_power: float = 0.0) -> EquilibriumTask:
    toy = road.name == "toy"  # its contexts are clamped, which takes several units to follow
    optimization = _rate(3e-2, 0.0 if toy else 0.1, 0.95, decay_power)
    return EquilibriumTask(road=road, units=8 if toy else 4, loss=loss, optimization=optimization)


METHODS: Mapping[str, Method] = {
    "latency": Method(lambda road: _latency(road, "fenchel_young"), batch=4),
    "latency_falling": Method(lambda road: _latency(road, "fenchel_young", decay_power=1.0), batch=4),
    "latency_jfb": Method(lambda road: _latency(road, "solution"), batch=4),
    "affine_jfb": Method(
        lambda road: EquilibriumTask(
            road=road,
            form="affine",
            loss="solution",
            hidden=(64,),
            optimization=_rate(5e-3 if road.network.edges <= _FEW else 3e-4),
        ),
        batch=10,
    ),
    "black_box": Method(lambda road: FlowTask(road=road, hidden=(64,), optimization=_rate(3e-3)), batch=20),
}


@dataclass(frozen=True, eq=False)
class Scenario:
    """Test contexts on a network that may differ from the one of the training.

    Args:
        contexts: how they act.
        network: with its trips and its links.
        d, capacity: contexts, and the capacities of the links that there are.
        flow: the true equilibria; NaN on links that there are not.
        factor: of all trips.
        closed: number of the closed link; None where none is.
    """

    contexts: TrafficContexts
    network: TrafficNetwork
    d: Float[Tensor, "B contexts"]
    capacity: Float[np.ndarray, "B E"]
    flow: Float[np.ndarray, "B E"]
    factor: float = 1.0
    closed: int | None = None

    @property
    def kept(self) -> np.ndarray:
        """The links that there are, among those of the training."""
        links = np.arange(self.capacity.shape[1])
        return links if self.closed is None else links[links != self.closed]

    def latency(self) -> PolynomialLatency:
        """The true travel times of the links that there are."""
        whole = true_latency(self.contexts, self.capacity)
        kept = self.kept
        return PolynomialLatency(
            whole.constant[:, kept], whole.coefficient[:, kept], whole.scale[:, kept], whole.power[:, kept]
        )

    def measure(self, x: Float[np.ndarray, "B E"]) -> dict[str, Any]:
        """Scores, Wardrop gap under the true times and violation of conservation of predicted flows."""
        kept = self.kept
        x, true = x[:, kept], self.flow[:, kept]
        gap = games.gaps.relative_gap(self.network, x, self.latency().value(x))
        violation = games.gaps.conservation_violation(self.network, x)
        return {
            **scores(torch.as_tensor(x), torch.as_tensor(true)),
            "wardrop_gap": float(gap.mean()),
            "wardrop_gap_median": float(np.median(gap)),
            "wardrop_gap_max": float(gap.max()),
            "conservation": float(violation.max()),
            "negative": float(max(0.0, -x.min())),
        }


def scenarios(road: Road, data: TrafficData, *, gap: float = 1e-8) -> dict[str, Scenario]:
    """As in training, 20 % more trips, and without the busiest road that all trips can do without."""
    d, flow, capacity = data.splits.test.tensors
    network = road.network
    test = Scenario(road.contexts, network, d, capacity.numpy(), flow.numpy())
    more = replace(test, network=network.scaled(MORE_TRIPS), factor=MORE_TRIPS)
    closed = busiest(network, data.splits.train.tensors[1].mean(0).numpy())
    without = replace(test, network=network.without(closed), closed=closed)
    found = {"test": test}
    for name, case in (("demand", more), ("closed", without)):
        solved = user_equilibria(case.network, case.latency(), tolerance=gap, progress=False)
        whole = np.zeros_like(test.flow)
        whole[:, case.kept] = solved.flow
        found[name] = replace(case, flow=whole)
    return found


def busiest(network: TrafficNetwork, flow: Float[np.ndarray, " E"]) -> int:
    """The link with most flow, among those whose time depends on it, that all trips can do without."""
    for link in np.argsort(-flow, kind="stable"):
        if network.b[link] * network.free_flow_time[link] == 0:
            continue
        rest = network.without(int(link))
        times = games.gaps.shortest_times(rest, rest.free_flow_time)
        if np.isfinite(times[:, : network.zones][network.between[network.origins] > 0]).all():
            return int(link)
    raise ValueError(f"{network.name} has no link that all trips can do without.")


@torch.no_grad()
def predict(task: AbstractTrafficTask, case: Scenario) -> Float[np.ndarray, "B E"]:
    """The flows of a trained model. The black box knows nothing of trips and roads: its flows are scaled, and cut off."""
    if not isinstance(task, EquilibriumTask):
        x = task.infer(case.d).x.numpy() * case.factor
        return _cut(x, case.closed)
    shut = None
    if case.closed is not None:
        shut = torch.zeros(case.flow.shape[1], dtype=torch.bool)
        shut[case.closed] = True
    trips = torch.as_tensor(task.road.network.trips * case.factor)
    parts = [task.equilibria(part, trips=trips, closed=shut).x for part in case.d.split(_CHUNK)]
    return torch.cat(parts).numpy()


def _cut(x: np.ndarray, closed: int | None) -> np.ndarray:
    x = x.copy()
    if closed is not None:
        x[:, closed] = 0.0
    return x


def run(
    method: str,
    road: Road,
    data: TrafficData,
    cases: Mapping[str, Scenario],
    folder: Path,
    *,
    seconds: float,
    epochs: int = 1000,
    progress: bool = True,
) -> None:
    """Train one method for so many processor seconds and keep its predictions; nothing is done where they are on file.

    Args:
        method: a name in `METHODS`.
        road: the network.
        data: of the run's seed.
        cases: that are predicted.
        folder: of the run's seed.
        seconds: of the processor, for the training's steps.
        epochs: at most so many.
        progress: show a bar.
    """
    target = folder / f"{method}.npz"
    if target.exists():
        return
    torch.manual_seed(data.run_seed)
    task = METHODS[method].make(road)
    data.batch_size = METHODS[method].batch
    convergence, limit = Convergence(), TimeLimit(seconds, anneal=True, processor=True)
    began = time.process_time()
    with quiet(), one_thread():
        training = fit(task, data, epochs=epochs, callbacks=[convergence, limit], progress=progress, label=method)
    record: dict[str, Any] = {
        "epochs": limit.steps * data.batch_size / len(data.splits.train),
        "cpu_seconds": time.process_time() - began,
        "seconds_per_epoch": seconds_per_epoch(limit, data),
        "parameters": count_parameters(task),
        "batch": data.batch_size,
        "best_epoch": training.best_epoch,
        "validation": min(epoch["val/relative_error"] for epoch in training.history),
    }
    if convergence.shares:
        record |= {"converged": min(convergence.shares), "residual": convergence.residual}
    predictions = {name: predict(task, case) for name, case in cases.items()}
    torch.save(task.state_dict(), folder / f"{method}.pt")
    _save(target, predictions, record)  # last: what has predictions is not trained again


def seconds_per_epoch(limit: TimeLimit, data: TrafficData) -> float:
    """Processor seconds of the training steps over all training contexts."""
    return (limit.seconds - limit.left) / limit.steps * len(data.splits.train) / data.batch_size


def constant(data: TrafficData, cases: Mapping[str, Scenario], folder: Path) -> None:
    """The mean training flow for every context."""
    mean = data.splits.train.tensors[1].mean(0).numpy()
    predictions = {
        name: _cut(np.tile(mean * case.factor, (len(case.d), 1)), case.closed) for name, case in cases.items()
    }
    _save(folder / "constant.npz", predictions, {"parameters": 0})


def write_truth(cases: Mapping[str, Scenario], network: TrafficNetwork, folder: Path) -> None:
    """Keep the network, the capacities and the true flows beside the predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        f"network_{part.name}": np.asarray(getattr(network, part.name))
        for part in fields(network)
        if getattr(network, part.name) is not None
    }
    latency = cases["test"].latency()
    for name in ("constant", "coefficient", "scale", "power"):
        arrays[f"latency_{name}"] = getattr(latency, name)
    arrays["capacity"] = cases["test"].capacity
    for name, case in cases.items():
        arrays[name] = case.flow
    arrays["factor"] = np.array(MORE_TRIPS)
    arrays["closed_link"] = np.array(cases["closed"].closed)
    np.savez_compressed(folder / "truth.npz", **arrays)


def collect(folder: Path, seeds: Sequence[int], cases: Mapping[int, Mapping[str, Scenario]]) -> dict[str, Any]:
    """The scores of everything that is on file for all seeds, one value a seed."""
    methods: dict[str, Any] = {}
    for name in (*METHODS, "constant"):
        targets = [folder / f"seed_{seed}" / f"{name}.npz" for seed in seeds]
        if not all(target.exists() for target in targets):
            continue
        rows = []
        for seed, target in zip(seeds, targets, strict=True):
            with np.load(target) as kept:
                row = json.loads(str(kept["record"]))
                for case, scenario in cases[seed].items():
                    row |= {f"{case}/{key}": value for key, value in scenario.measure(kept[case]).items()}
            rows.append(row)
        methods[name] = {key: [row[key] for row in rows] for key in rows[0]}
    return methods


def _save(target: Path, predictions: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"record": np.array(json.dumps(record)), **predictions}
    np.savez_compressed(target, **arrays)
