"""Errors against a reference, the rung of a ladder that is accurate enough, and times in alternating order."""

import gc
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.lp_layers.peers import Method, Peer, Skip, Solve
from benchmarks.lp_layers.problems import Row
from benchmarks.lp_layers.reference import Reference

Array = NDArray[np.float64]
TARGET = 1e-5  # of the x error
REPEATS = 5
SLOWEST = 30.0  # seconds of one call beyond which a ladder is not climbed further


@dataclass(frozen=True)
class Errors:
    """Of the answers of a whole batch.

    Attributes:
        x: the largest `|x - reference|` of any entry.
        equality: the largest `|A_eq x - b_eq|`.
        inequality: the largest excess of `A_ub x` over `b_ub`.
        bounds: the largest violation of a bound.
        min_x: the least entry.
        gradient: median over the samples of `|g - exact| / |exact|`, of those with a gradient.
        gradient_worst: the largest of them.
        cosine: the mean cosine between `g` and the exact gradient.
    """

    x: float
    equality: float
    inequality: float
    bounds: float
    min_x: float
    gradient: float
    gradient_worst: float
    cosine: float


@dataclass(frozen=True)
class Call:
    """One forward and backward pass: seconds of processor time of each, of the wall for both, and what came out.

    A call that is shorter than a turn of the scheduler meets no other process where a longer one does, so that on a busy
    machine the wall favours the fast; in one thread, processor time doesn't.
    """

    forward: float
    backward: float
    wall: float
    x: Array
    gradient: Array

    @property
    def total(self) -> float:
        """Both."""
        return self.forward + self.backward


def errors(row: Row, reference: Reference, x: Array, gradient: Array) -> Errors:
    """Compare answers and gradients with the reference; NaN counts as infinitely wrong."""
    if not (np.isfinite(x).all() and np.isfinite(gradient).all()):
        return Errors(*[np.inf] * 7, 0.0)
    equality = 0.0 if row.A_eq is None else float(np.abs(row.A_eq @ x.T - np.c_[row.b_eq]).max())
    inequality = 0.0 if row.A_ub is None else max(0.0, float((row.A_ub @ x.T - np.c_[row.b_ub]).max()))
    size = np.linalg.norm(reference.gradient, axis=1)
    some = size > 1e-9
    exact, given, size = reference.gradient[some], gradient[some], size[some]
    relative = np.linalg.norm(given - exact, axis=1) / size
    cosine = (given * exact).sum(1) / (size * np.maximum(np.linalg.norm(given, axis=1), 1e-300))
    return Errors(
        x=float(np.abs(x - reference.x).max()),
        equality=equality,
        inequality=inequality,
        bounds=max(0.0, float((row.lower - x).max()), float((x - row.upper).max())),
        min_x=float(x.min()),
        gradient=float(np.median(relative)) if some.any() else 0.0,
        gradient_worst=float(relative.max()) if some.any() else 0.0,
        cosine=float(cosine.mean()) if some.any() else 1.0,
    )


def call(solve: Solve, cost: Tensor, cotangent: Tensor | None) -> Call:
    """Time a forward and a backward pass; without a cotangent the forward pass alone, the gradient then zero."""
    leaf = cost.clone().requires_grad_()
    gradient = torch.zeros_like(cost)
    gc.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence is judged by the errors
        started, begun = time.perf_counter(), time.process_time()
        x = solve(leaf)
        between = time.process_time()
        if cotangent is not None:
            (gradient,) = torch.autograd.grad(x, leaf, cotangent)
        ended, wall = time.process_time(), time.perf_counter() - started
    gc.enable()
    return Call(between - begun, ended - between, wall, x.detach().double().numpy(), gradient.double().numpy())


@dataclass(frozen=True, eq=False)
class Chosen:
    """A peer on the rung that is timed."""

    peer: Peer
    method: Method
    tolerance: float
    solve: Solve
    setup: float  # seconds to build
    first: float  # seconds of the first forward and backward pass
    errors: Errors
    climbed: Sequence[Mapping[str, Any]]

    @property
    def accurate(self) -> bool:
        """Whether the x error is what is asked for."""
        return self.errors.x <= TARGET


def inputs(row: Row, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Costs and cotangent as a peer takes them."""
    return torch.from_numpy(row.cost).to(dtype), torch.from_numpy(row.cotangent).to(dtype)


def climb(row: Row, reference: Reference, peer: Peer, gamma: float) -> Chosen:
    """The loosest rung of each method that is accurate, and of these the fastest; else the one of least error.

    Raises:
        Skip: no method of the peer takes the row.
    """
    found: list[tuple[float, Chosen]] = []
    climbed: list[dict[str, Any]] = []
    reasons: list[str] = []
    for method in peer.methods:
        try:
            found.append(_climb_one(row, reference, peer, method, gamma, climbed))
        except Skip as reason:
            reasons.append(str(reason))
    if not found:
        raise Skip("; ".join(dict.fromkeys(reasons)))
    right = [pair for pair in found if pair[1].accurate]
    return min(right, key=lambda pair: pair[0])[1] if right else min(found, key=lambda pair: pair[1].errors.x)[1]


def _climb_one(
    row: Row, reference: Reference, peer: Peer, method: Method, gamma: float, climbed: list[dict[str, Any]]
) -> tuple[float, Chosen]:
    """Forward passes up the ladder until one is accurate, then seconds, errors and gradient on that rung."""
    cost, cotangent = inputs(row, peer.dtype)
    best: tuple[float, float, Solve, float, float] | None = None
    failure = "no rung"
    for tolerance in method.ladder:
        rung: dict[str, Any] = {"method": method.name, "tolerance": tolerance}
        climbed.append(rung)
        try:
            begun = time.perf_counter()
            solve = method.make(row, gamma, tolerance)
            setup = time.perf_counter() - begun
            first = call(solve, cost, None)
        except (Skip, ImportError) as error:
            raise Skip(str(error)) from error
        except Exception as error:  # a peer may fail in any way; the reason is kept
            failure = f"{method.name} at {tolerance:.0e}: {type(error).__name__}: {error}".split("\n")[0][:200]
            rung["failed"] = failure
            continue
        error_x = errors(row, reference, first.x, first.gradient).x
        rung |= {"x_error": finite(error_x), "first_forward": first.forward}
        if best is None or error_x < best[0]:
            best = error_x, tolerance, solve, setup, first.forward
        if error_x <= TARGET or first.forward > SLOWEST:
            break
    if best is None:
        raise Skip(failure)
    _, tolerance, solve, setup, first_forward = best
    try:
        once, again = call(solve, cost, cotangent), call(solve, cost, cotangent)
    except Exception as error:
        raise Skip(f"{method.name}: {type(error).__name__}: {error}".split("\n")[0][:200]) from error
    found = errors(row, reference, again.x, again.gradient)
    return again.total, Chosen(peer, method, tolerance, solve, setup, first_forward + once.backward, found, climbed)


def alternate(row: Row, reference: Reference, chosen: Sequence[Chosen], repeats: int = REPEATS) -> dict[str, Any]:
    """Every peer once a round, in turns from the first to the last and back; medians over the rounds.

    A round has its samples in an order of its own, so that nothing that a peer may keep of the former round fits this one.
    The errors are those of the last round.
    """
    gc.collect()
    calls: dict[str, list[Call]] = {one.peer.name: [] for one in chosen}
    for number in range(repeats):
        for one in chosen if number % 2 == 0 else reversed(chosen):
            moved = (part.roll(number, 0) for part in inputs(row, one.peer.dtype))
            calls[one.peer.name].append(call(one.solve, *moved))
    return {one.peer.name: record(row, reference, one, calls[one.peer.name]) for one in chosen}


def record(row: Row, reference: Reference, one: Chosen, calls: Sequence[Call]) -> dict[str, Any]:
    """What is kept of a peer on a row."""
    x, gradient = (np.roll(part, 1 - len(calls), 0) for part in (calls[-1].x, calls[-1].gradient))
    found = errors(row, reference, x, gradient)
    return {
        "name": one.peer.name,
        "ours": one.peer.ours,
        "method": one.method.name,
        "tolerance": one.tolerance,
        "accurate": found.x <= TARGET,
        "exact": one.peer.exact,
        "dtype": str(one.peer.dtype).removeprefix("torch."),
        "seconds": statistics.median(each.total for each in calls),
        "forward": statistics.median(each.forward for each in calls),
        "backward": statistics.median(each.backward for each in calls),
        "all_seconds": [each.total for each in calls],
        "wall": statistics.median(each.wall for each in calls),
        "all_wall": [each.wall for each in calls],
        "setup": one.setup,
        "first_call": one.first,
        "errors": {name: finite(value) for name, value in asdict(found).items()},
        "ladder": list(one.climbed),
    }


def finite(value: float) -> float | None:
    """JSON knows no infinity: None."""
    return float(value) if np.isfinite(value) else None
