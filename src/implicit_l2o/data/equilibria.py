"""Exact equilibria of road networks over contexts, as data to learn from, solved once and kept in a folder.

The relative gap of every sample is `TOLERANCE` at most.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float

from implicit_l2o.data._files import atomic, cache_folder
from implicit_l2o.data.traffic import TrafficContexts
from implicit_l2o.games import user_equilibria, user_equilibrium

TOLERANCE = 1e-13
"""Relative gap of the data. Two solves from different starts then agree in every link flow to 1e-4 of it."""

_MAX_STEPS = 100
_SAVED = 1000  # samples between two writes, so that a run that was broken off goes on there
_LAYOUT = 1  # of the files; another one is computed anew


@final
@dataclass(frozen=True, eq=False)
class EquilibriumSplit:
    """Contexts with their equilibria.

    Args:
        d: `(N, dimension)`.
        flow: `(N, E)`.
        gap: `(N,)` relative gaps that the solver reached.
    """

    d: Float[np.ndarray, "N dimension"]
    flow: Float[np.ndarray, "N E"]
    gap: Float[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.d)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class EquilibriumData:
    """Training, validation and test data of one network."""

    contexts: TrafficContexts
    train: EquilibriumSplit
    validation: EquilibriumSplit
    test: EquilibriumSplit


def equilibrium_data(
    model: TrafficContexts,
    *,
    train: int = 5000,
    validation: int = 500,
    test: int = 500,
    seed: int = 0,
    cache: str | Path | None = None,
    workers: int = 1,
    progress: bool = True,
) -> EquilibriumData:
    """Draw contexts and solve their equilibria, or read them where they were solved before.

    Every split has its own seed; fewer samples of a seed are the first of more. Each sample is solved from the same warm
    start, the equilibrium at the middle of the box, so it does not depend on the others.

    Args:
        model: of the contexts.
        train: how many contexts to train on, at least 0.
        validation: how many to validate on.
        test: how many to test on.
        seed: of the contexts.
        cache: a folder for the solutions, one file a split; None is `implicit_l2o/traffic` in `$XDG_CACHE_HOME` or
            `~/.cache`.
        workers: threads.
        progress: show a bar.

    Raises:
        ValueError: a count is negative, or a file in the cache is damaged.
        ConvergenceError: an equilibrium missed the tolerance.
        ModuleNotFoundError: numba is not installed.

    Example:
        >>> import tempfile
        >>> from implicit_l2o.data.equilibria import equilibrium_data
        >>> from implicit_l2o.data.traffic import toy_contexts
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = equilibrium_data(toy_contexts(), train=20, validation=5, test=5, cache=folder)
        >>> data.train.flow.shape, bool(data.test.gap.max() < 1e-12)
        ((20, 5), True)
    """
    root = cache_folder() / "traffic" if cache is None else Path(cache)
    counts = {"train": train, "validation": validation, "test": test}
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"equilibrium_data needs {name} >= 0; got {name}={count}.")
    parts = {
        name: _split(model, name, count, (seed, 1 + k), root, workers, progress)
        for k, (name, count) in enumerate(counts.items())
    }
    return EquilibriumData(contexts=model, **parts)


def _split(
    model: TrafficContexts, name: str, count: int, seed: tuple[int, ...], root: Path, workers: int, progress: bool
) -> EquilibriumSplit:
    path = root / f"{model.network.name}-{name}-{_key(model, seed)}.npz"
    split = _read(path, model)
    if split is None:
        split = EquilibriumSplit(np.zeros((0, model.dimension)), np.zeros((0, model.network.edges)), np.zeros(0))
    d = model.draw(count, seed=seed)
    if len(split) >= count:
        return EquilibriumSplit(split.d[:count], split.flow[:count], split.gap[:count])
    middle = model.latency(np.full((1, model.dimension), 0.5 * (model.low + model.high)))[0]
    start = user_equilibrium(model.network, middle, tolerance=TOLERANCE, max_steps=_MAX_STEPS, on_failure="raise")
    while len(split) < count:
        new = d[len(split) : len(split) + _SAVED]
        latency = model.latency(new)
        solved = user_equilibria(
            model.network,
            latency,
            tolerance=TOLERANCE,
            max_steps=_MAX_STEPS,
            start=start.paths,
            workers=workers,
            on_failure="ignore",
            progress=progress,
        )
        flow, gap = solved.flow.copy(), solved.gap.copy()
        for i in np.flatnonzero(~solved.converged):  # one in thousands, so close to rounding; another start gets there
            alone = user_equilibrium(
                model.network, latency[int(i)], tolerance=TOLERANCE, max_steps=_MAX_STEPS, on_failure="raise"
            )
            flow[i], gap[i] = alone.flow, alone.gap
        split = EquilibriumSplit(
            np.concatenate([split.d, new]), np.concatenate([split.flow, flow]), np.concatenate([split.gap, gap])
        )
        with atomic(path) as file:
            np.savez(file, d=split.d, flow=split.flow, gap=split.gap)
    return split


def _key(model: TrafficContexts, seed: tuple[int, ...]) -> str:
    """What the solutions depend on, as a few letters."""
    digest = hashlib.sha256()
    network = model.network
    said: list[Any] = [_LAYOUT, TOLERANCE, seed, model.strength, model.low, model.high, model.response]
    digest.update(repr([*said, model.connector_slope, network.nodes, network.zones, network.first_thru]).encode())
    for array in (model.weights, network.tail, network.head, network.free_flow_time, network.capacity, network.b):
        digest.update(np.ascontiguousarray(array).tobytes())
    for array in (network.power, network.fixed_cost, network.trips):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def _read(path: Path, model: TrafficContexts) -> EquilibriumSplit | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            d, flow, gap = file["d"], file["flow"], file["gap"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, and it is computed again.") from error
    n = len(d)
    shapes = [(n, model.dimension), (n, model.network.edges), (n,)]
    if [d.shape, flow.shape, gap.shape] != shapes or not np.isfinite(flow).all():
        raise ValueError(f"{path} holds something else than {n} equilibria; delete it, and it is computed again.")
    return EquilibriumSplit(d, flow, gap)
