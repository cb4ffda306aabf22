"""Figures of the tours: on the map, and what doubt costs."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from implicit_l2o.decoders import TravellingSalesman
from implicit_l2o.losses import regret
from implicit_l2o.training import Samples

# Of Okabe and Ito's palette, which most kinds of colour blindness tell apart.
_MODEL, _TRUTH, _GREY = "#0072b2", "#009e73", "#888888"
_BINS = 10


def circle(n: int) -> Float[Tensor, "n 2"]:
    """Places of `n` cities on the unit circle."""
    angle = 2 * torch.pi * torch.arange(n) / n
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def example(
    figure: Figure, decoder: TravellingSalesman, sample: Mapping[str, Tensor], *, relaxed: Float[Tensor, " edges"]
) -> None:
    """One inference: the decided tour and, where it is known, the best one; beside them the relaxed tour.

    Args:
        figure: empty.
        decoder: knows the edges.
        sample: `"answer"` and maybe `"target"`, tours.
        relaxed: the layer's answer.
    """
    places = circle(decoder.n_cities)
    left, right = figure.subplots(1, 2)
    if "target" in sample:
        _edges(left, places, decoder, sample["target"], _TRUTH, widest=5.0)
    _edges(left, places, decoder, sample["answer"], _MODEL, widest=1.8)
    _edges(right, places, decoder, relaxed, _MODEL, widest=4.0)
    left.set_title("decided tour", fontsize="medium")
    right.set_title("relaxed tour x(d)", fontsize="medium")
    handles = _legend() if "target" in sample else _legend()[1:]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)


def tours(
    places: Float[Tensor, "n 2"], decoder: TravellingSalesman, samples: Samples, relaxed: Float[Tensor, "N edges"]
) -> tuple[Figure, str]:
    """Test contexts from an exact decision to a doubtful one: both tours, and the layer's answer below."""
    _, best, costs, *_ = samples.batch
    extra = 100 * regret(samples.answer, costs, best) / (costs * best).sum(1)
    order = extra.argsort(stable=True)
    chosen = [int(order[int(q * (len(order) - 1))]) for q in (0.1, 0.5, 0.95)]
    figure = Figure(figsize=(2.6 * len(chosen) + 0.4, 5.6), layout="constrained")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    for column, index in enumerate(chosen):
        above, below = axes[0, column], axes[1, column]
        _edges(above, places, decoder, best[index], _TRUTH, widest=5.0)
        _edges(above, places, decoder, samples.answer[index], _MODEL, widest=1.6)
        more = float(extra[index])
        above.set_title("exact" if more < 1e-3 else f"{more:.1f} % above the best", fontsize="medium")
        _edges(below, places, decoder, relaxed[index], _MODEL, widest=4.0)
    axes[0, 0].set_ylabel("best and decided tour")
    axes[1, 0].set_ylabel("the layer's answer x(d)")
    figure.legend(handles=_legend(), loc="outside lower center", ncols=2, frameon=False)
    return figure, (
        "Test contexts at fixed ranks, so that none is picked by taste: the extra cost of their tours is above that of 10, "
        "50 and 95 % of all. The context moves the costs far more than the distances on the map do, so good tours need not "
        "look short. Below, edges are as wide as the layer takes them."
    )


def doubt(samples: Samples, floor: Float[Tensor, "N edges"]) -> tuple[Figure, str]:
    """Regret by how much of the relaxed tour is not on the decided one, with that of the best possible decisions.

    Args:
        samples: their last property is the doubt.
        floor: the best possible decisions.
    """
    _, best, costs, *_ = samples.batch
    value = samples.values[:, -1].nan_to_num(nan=float("inf"))
    groups = [group for group in value.argsort(stable=True).tensor_split(_BINS) if len(group)]
    figure = Figure(figsize=(6.6, 3.6), layout="constrained")
    ax = figure.subplots()
    for decided, colour, marker, label in (
        (samples.answer, _MODEL, "o-", "implicit network"),
        (floor, _GREY, "s--", "exact conditional mean cost"),
    ):
        extra, optimal = regret(decided, costs, best), (costs * best).sum(1)
        heights = [float(extra[group].sum() / optimal[group].sum()) for group in groups]
        ax.plot([float(value[group].mean()) for group in groups], heights, marker, color=colour, label=label)
    ax.set(xlabel=samples.names[-1], ylabel="normalised regret", ylim=(0, None))
    ax.grid(alpha=0.25)
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure, (
        "Regret of test contexts in ten groups of equal size, by how much of the relaxed tour is not on the decided one. "
        "Dashed: the best possible decisions on the same contexts, which still pay for the noise that nobody can foresee."
    )


def _legend() -> Sequence[Line2D]:
    return (
        Line2D([], [], color=_TRUTH, linewidth=5.0, label="best tour"),
        Line2D([], [], color=_MODEL, linewidth=1.6, label="decided tour, relaxed tour"),
    )


def _edges(ax: Axes, places: Tensor, decoder: TravellingSalesman, x: Tensor, colour: str, *, widest: float) -> None:
    """The edges as wide as they are taken, and the cities."""
    where = places.numpy()
    taken = np.clip(x.numpy(), 0.0, 1.0)
    shown = taken > 0.03
    ax.add_collection(
        LineCollection(
            list(where[decoder.edges[shown]]),
            linewidths=widest * taken[shown],
            colors=colour,
            capstyle="round",
            zorder=1,
        )
    )
    ax.plot(where[:, 0], where[:, 1], "o", color=_GREY, markersize=3.5, zorder=3)
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.margins(0.08)
    ax.spines[:].set_visible(False)
