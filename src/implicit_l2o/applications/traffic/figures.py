"""Figures of a network: flows as widths, true against predicted, what a context changes, and what a closed road does."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from torch import Tensor

from implicit_l2o.games import TrafficNetwork
from implicit_l2o.training import Edges, Samples

# Of Okabe and Ito's palette, which most kinds of colour blindness tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
_ROAD, _CLOSED = "#0072b2", "#000000"
_WIDEST = 5.0  # points
_WITHIN = 5e-3

Array = np.ndarray


def places(network: TrafficNetwork) -> Array:
    """Where the nodes are drawn, `(nodes, 2)`: the network's coordinates, or else so far apart as empty roads make them."""
    return _places(network)


@lru_cache(maxsize=8)
def _places(network: TrafficNetwork) -> Array:
    known = network.coordinates
    if known is not None and np.isfinite(known[_used(network)]).all():
        return known
    return _scaled(network)


def _used(network: TrafficNetwork) -> Array:
    return np.unique(np.concatenate([network.tail, network.head]))


def _scaled(network: TrafficNetwork) -> Array:
    """Classical multidimensional scaling of travel times on empty roads. Torgerson, Psychometrika 17 (1952)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import shortest_path

    length = np.sqrt(network.free_flow_time + 0.05 * network.free_flow_time.mean())
    ends = (np.concatenate([network.tail, network.head]), np.concatenate([network.head, network.tail]))
    order = np.argsort(-np.tile(length, 2), kind="stable")  # of parallel links the last, shortest one stays
    dense = np.zeros((network.nodes, network.nodes))
    dense[ends[0][order], ends[1][order]] = np.tile(length, 2)[order]
    apart = shortest_path(coo_array(dense).tocsr(), directed=False)
    apart[~np.isfinite(apart)] = apart[np.isfinite(apart)].max()
    square = apart**2
    centred = -0.5 * (square - square.mean(0) - square.mean(1)[:, None] + square.mean())
    values, vectors = np.linalg.eigh(centred)
    return vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0.0))


def segments(network: TrafficNetwork) -> Array:
    """Every link as a line `(E, 2, 2)`, moved to its right, so that both directions can be seen."""
    at = places(network)
    lines = np.stack([at[network.tail], at[network.head]], 1)
    along = lines[:, 1] - lines[:, 0]
    size = np.linalg.norm(along, axis=1, keepdims=True)
    side = np.stack([along[:, 1], -along[:, 0]], 1) / np.where(size > 0, size, 1.0)
    extent = np.ptp(at[_used(network)], axis=0).max()
    return lines + 0.006 * extent * side[:, None]


def roads(
    ax: Axes,
    network: TrafficNetwork,
    flow: Array,
    *,
    colour: Array | None = None,
    limit: float | None = None,
    closed: int | None = None,
) -> Any:
    """The network, links as wide as their flow; coloured by a change, red where it is more and blue where it is less.

    Args:
        ax: to draw on.
        network: its links.
        flow: that gives the widths.
        colour: a number for every link; None draws all alike.
        limit: of the colours, on both sides.
        closed: a link that is drawn as closed.
    """
    lines = segments(network)
    order = np.argsort(np.abs(flow if colour is None else colour), kind="stable")
    widths = 0.3 + _WIDEST * np.abs(flow) / max(float(np.abs(flow).max()), 1e-12)
    options: dict[str, Any] = {"colors": _ROAD}
    if colour is not None:
        most = float(np.abs(colour).max()) if limit is None else limit
        norm = TwoSlopeNorm(0.0, -max(most, 1e-12), max(most, 1e-12))
        options = {"array": colour[order], "cmap": "coolwarm", "norm": norm}
    drawn = ax.add_collection(LineCollection(list(lines[order]), linewidths=widths[order], capstyle="round", **options))
    if closed is not None:
        middle = lines[closed].mean(0)
        ax.plot(*middle, marker="X", color=_CLOSED, markersize=9, markeredgecolor="white", zorder=5)
    ax.autoscale()
    ax.set_aspect("equal")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return drawn


def picture(network: TrafficNetwork) -> Edges:
    """The links as lines in the plane."""
    return Edges(segments(network))


def example(figure: Figure, sample: Mapping[str, Tensor], network: TrafficNetwork) -> None:
    """One inference: the predicted flows and, where they are known, what they miss.

    Args:
        figure: empty.
        sample: `"answer"` and maybe `"target"`.
        network: its links.
    """
    flow = sample["answer"].double().cpu().numpy()
    target = sample.get("target")
    axes = figure.subplots(1, 1 if target is None else 2, squeeze=False)[0]
    roads(axes[0], network, flow)
    axes[0].set_title("predicted flow", fontsize="medium")
    if target is not None:
        _difference(figure, axes[1], network, flow, target.double().cpu().numpy(), "predicted minus true")


def of_samples(samples: Samples, network: TrafficNetwork, mean: Tensor) -> dict[str, tuple[Figure, str]]:
    """The figures of a test: the map, the scatter, and what a context changes."""
    x, v = samples.answer.double().cpu().numpy(), samples.batch[1].double().cpu().numpy()
    return {
        "Flows": (flows(network, v, {"model": x}), FLOWS),
        "Scatter": (scatter(v, {"model": x}), SCATTER),
        "Context": (context(network, v, {"model": x}, mean.double().cpu().numpy()), CONTEXT),
    }


FLOWS = (
    "The test context whose relative error is the median one. Links are as wide as their flow; on the right they are "
    "coloured by what the prediction misses."
)
SCATTER = (
    "Predicted against true flows, all links of all test contexts, and the share of links within a relative error."
)
CONTEXT = "What a context changes against the mean of the training flows, true and predicted, where it changes most."
CLOSED = "What closing a road changes: true and predicted. The cross is the closed road."


def flows(network: TrafficNetwork, true: Array, predicted: Mapping[str, Array]) -> Figure:
    """True flows, those of the first method, and the difference, for its median context."""
    name, x = next(iter(predicted.items()))
    error = np.linalg.norm(x - true, axis=1) / np.linalg.norm(true, axis=1)
    i = int(np.argsort(error)[len(error) // 2])
    figure = Figure(figsize=(10.5, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, flow, text in ((axes[0], true[i], "true flow"), (axes[1], x[i], f"predicted: {name}")):
        roads(ax, network, flow)
        ax.set_title(text, fontsize="medium")
    _difference(figure, axes[2], network, x[i], true[i], "predicted minus true")
    return figure


def scatter(true: Array, predicted: Mapping[str, Array]) -> Figure:
    """Predicted against true flows, and how many links are within a relative error."""
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    top = float(true.max())
    errors = np.logspace(-5, 0, 120)
    rng = np.random.default_rng(0)
    shown = rng.choice(true.size, min(true.size, 6000), replace=False)
    for (name, x), colour in reversed(list(zip(predicted.items(), COLOURS, strict=False))):
        axes[0].plot(true.ravel()[shown], x.ravel()[shown], ".", color=colour, markersize=2, alpha=0.5, rasterized=True)
        relative = np.sort((np.abs(x - true) / (np.abs(true) + 1e-3)).ravel())
        share = 100 * np.searchsorted(relative, errors) / relative.size
        axes[1].semilogx(errors, share, color=colour, label=name)
    axes[0].plot([0, top], [0, top], color="0.4", linewidth=0.8)
    axes[0].set(xlabel="true flow", ylabel="predicted flow")
    axes[1].axvline(_WITHIN, color="0.6", linewidth=0.8, linestyle=":")
    axes[1].set(xlabel="relative error", ylabel="links within it, %", ylim=(0, 101))
    axes[1].legend(frameon=False, fontsize="small", reverse=True)
    for ax in axes:
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def context(network: TrafficNetwork, true: Array, predicted: Mapping[str, Array], mean: Array) -> Figure:
    """The change against the mean flows in the context that changes most."""
    i = int(np.argmax(np.linalg.norm(true - mean, axis=1)))
    return changes(network, true[i], {name: x[i] for name, x in predicted.items()}, mean)


def changes(
    network: TrafficNetwork, true: Array, predicted: Mapping[str, Array], before: Array, *, closed: int | None = None
) -> Figure:
    """What changes against flows before, true and predicted, in the same colours.

    Args:
        network: its links.
        true: flows after the change.
        predicted: the same by every method.
        before: flows before the change; or those of every method, `(1 + methods, E)`, the true ones first.
        closed: a link that is drawn as closed.
    """
    rows = [("true", true), *predicted.items()]
    start = np.broadcast_to(before, (len(rows), network.edges))
    # All flow leaves a closed link, which would pale all other colours.
    others = np.arange(network.edges) != closed
    limit = float(np.abs(true - start[0])[others].max())
    figure = Figure(figsize=(3.6 * len(rows), 3.8), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(rows), squeeze=False)[0]
    drawn: Any = None
    for ax, (name, flow), old in zip(axes, rows, start, strict=True):
        drawn = roads(ax, network, np.maximum(flow, old), colour=flow - old, limit=limit, closed=closed)
        ax.set_title(name, fontsize="medium")
    figure.colorbar(drawn, ax=list(axes), shrink=0.8, label="change of flow")
    return figure


def _difference(figure: Figure, ax: Axes, network: TrafficNetwork, x: Array, true: Array, text: str) -> None:
    drawn = roads(ax, network, np.maximum(x, true), colour=x - true)
    worst = float(np.abs(x - true).max() / true.max())
    ax.set_title(f"{text}: at most {100 * worst:.2g} % of the largest", fontsize="medium")
    figure.colorbar(drawn, ax=ax, shrink=0.8)
