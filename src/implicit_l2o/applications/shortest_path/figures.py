"""Figures of the shortest paths: on the grid, what doubt costs, the convergence of the inferences."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.losses import regret
from implicit_l2o.training import Edges, Samples, regret_by_doubt

STEPS = 60  # of the residual curves

# Of Okabe and Ito's palette, which most kinds of colour blindness tell apart.
_MODEL, _TRUTH, _LIMIT, _GREY = "#0072b2", "#009e73", "#d55e00", "#888888"
_VERDICTS = {il2o.Label.PASS: "#009e73", il2o.Label.WARN: "#e69f00", il2o.Label.FAIL: "#d55e00"}
_HEAT = colormaps["YlOrBr"]
_DASHED = (0, (2.2, 1.2))


def example(
    figure: Figure,
    grid: Grid,
    sample: Mapping[str, Tensor],
    *,
    costs: Float[Tensor, " arcs"],
    flow: Float[Tensor, " arcs"],
) -> None:
    """One inference: the costs with the decided path and, where it is known, the right one; beside them the flow.

    Args:
        figure: empty.
        grid: the graph.
        sample: `"answer"` and maybe `"target"`, paths.
        costs: as predicted.
        flow: the layer's answer.
    """
    left, right = figure.subplots(1, 2)
    _costs(left, grid, costs, Normalize(float(costs.min()), float(costs.max())))
    if "target" in sample:
        _route(left, grid, sample["target"], _TRUTH, "-", shift=0.05)
    _route(left, grid, sample["answer"], _MODEL, _DASHED, shift=-0.05)
    left.set_title("predicted costs, decision", fontsize="medium")
    _flow(right, grid, flow)
    right.set_title("flow x(d)", fontsize="medium")
    figure.legend(
        handles=_legend()[:2] if "target" in sample else _legend()[1:2],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )


def paths(grid: Grid, samples: Samples, flow: Float[Tensor, "N arcs"]) -> tuple[Figure, str]:
    """Test contexts from an exact decision to a doubtful one: the costs that came true with both paths, and the flow."""
    _, best, costs, *_ = samples.batch
    extra = 100 * regret(samples.answer, costs, best) / (costs * best).sum(1)
    chosen = _examples(extra.numpy(), (samples.worst == il2o.Label.FAIL).numpy())
    figure = Figure(figsize=(2.3 * len(chosen) + 0.8, 5.4), layout="constrained")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    heat = Normalize(0.0, float(costs[chosen].max()))
    for column, index in enumerate(chosen):
        above, below = axes[0, column], axes[1, column]
        verdict = il2o.Label(int(samples.worst[index]))
        _costs(above, grid, costs[index], heat)
        _route(above, grid, best[index], _TRUTH, "-", shift=0.05)
        _route(above, grid, samples.answer[index], _MODEL, _DASHED, shift=-0.05)
        more = float(extra[index])
        above.set_title("exact" if more < 1e-3 else f"{more:.0f} % above the best", fontsize="medium")
        _flow(below, grid, flow[index])
        below.set_title(f"certificates: {verdict.name}", fontsize="medium", color=_VERDICTS[verdict])
    axes[0, 0].set_ylabel("costs that came true")
    axes[1, 0].set_ylabel("the layer's answer x(d)")
    bar = figure.colorbar(ScalarMappable(heat, _HEAT), ax=axes[0], shrink=0.8, pad=0.02)
    bar.set_label("cost of an arc")
    bar.outline.set_visible(False)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=3, frameon=False)
    ranks = "the extra cost of the decisions is above that of 30, 70 and 95 % of all"
    last = "; the last one is in the middle of those that fail" if len(chosen) > 3 else ""
    return figure, f"Test contexts at fixed ranks, so that none is picked by taste: {ranks}{last}."


def doubt(samples: Samples, floor: Float[Tensor, "N arcs"]) -> tuple[Figure, str]:
    """Regret by how much of the flow leaves the decided path, with that of the best possible decisions.

    Args:
        samples: their last property is the doubt.
        floor: the best possible decisions.
    """
    _, best, costs, *_ = samples.batch
    decisions = {"implicit network": samples.answer, "exact conditional mean cost": floor}
    figure = regret_by_doubt(
        samples, {label: (regret(decided, costs, best), (costs * best).sum(1)) for label, decided in decisions.items()}
    )
    return figure, (
        "Regret of test contexts in ten groups of equal size, by how much of the flow leaves the decided path. Dashed: the "
        "best possible decisions on the same contexts, which still pay for the noise that nobody can foresee."
    )


def residuals(trace: Float[Tensor, "steps N"], tolerance: float) -> tuple[Figure, str]:
    """How the residual of the inferences falls with the iteration: median and spread."""
    values = trace.numpy()
    figure = Figure(figsize=(6.6, 3.6), layout="constrained")
    ax = figure.subplots()
    steps = np.arange(1, len(values) + 1)
    for low, high, shade in ((0.0, 1.0, 0.15), (0.05, 0.95, 0.3)):
        between = np.quantile(values, (low, high), axis=1)
        label = "all" if low == 0 else "5 to 95 %"
        ax.fill_between(steps, *between, color=_MODEL, alpha=shade, linewidth=0, label=label)
    ax.plot(steps, np.median(values, axis=1), color=_MODEL, linewidth=2, label="median")
    ax.axhline(tolerance, color=_LIMIT, linestyle="--", linewidth=1.3, label="tolerance")
    ax.set(yscale="log", xlabel="iteration", ylabel=r"residual $|T(z) - z|$", xlim=(1, len(values)))
    _plain(ax)
    return figure, f"Davis-Yin on {values.shape[1]} test inferences, past the tolerance at which they stop."


def picture(grid: Grid) -> Edges:
    """The arcs in the plane, start and target marked."""
    end = grid.side - 1.0
    return Edges(_segments(grid), marks={"s": (0.0, 0.0), "t": (end, -end)})


def _plain(ax: Axes) -> None:
    ax.grid(alpha=0.25)
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)


def _legend() -> Sequence[Line2D]:
    return (
        Line2D([], [], color=_TRUTH, linewidth=2.4, label="shortest path"),
        Line2D([], [], color=_MODEL, linewidth=2.4, linestyle=_DASHED, label="predicted path"),
        Line2D([], [], color=_MODEL, linewidth=7, label="flow x(d), as wide as it is large"),
    )


def _examples(extra: NDArray[np.floating], failing: NDArray[np.bool_]) -> list[int]:
    """Samples at fixed ranks: 30, 70, 95 % of the extra cost, 50 % among the failing."""
    order = np.argsort(extra, kind="stable")
    chosen = [int(order[int(q * (len(order) - 1))]) for q in (0.3, 0.7, 0.95)]
    flagged = order[failing[order]]
    return [*chosen, int(flagged[len(flagged) // 2])] if len(flagged) else chosen


def _costs(ax: Axes, grid: Grid, costs: Tensor, norm: Normalize) -> None:
    """The arcs in the colours of their costs."""
    _arcs(ax, grid, np.full(grid.n_arcs, 5.0), list(map(tuple, _HEAT(norm(costs.numpy())))))
    _ends(ax, grid)


def _flow(ax: Axes, grid: Grid, flow: Tensor) -> None:
    """The arcs as wide as the flow on them, over a thin grid."""
    x = flow.numpy()
    _arcs(ax, grid, np.full(grid.n_arcs, 0.6), _GREY)
    _arcs(ax, grid, np.where(x > 0.02, 1.0 + 9.0 * x, 0.0), _MODEL)
    _ends(ax, grid)


def _segments(grid: Grid) -> NDArray[np.floating]:
    """Both ends of every arc, the first node at the top left."""
    row, column = np.divmod(grid.arcs, grid.side)
    return np.stack([column, -row], axis=-1).astype(float)


def _arcs(ax: Axes, grid: Grid, widths: NDArray, colours: str | list[tuple[float, ...]]) -> None:
    ax.add_collection(
        LineCollection(list(_segments(grid)), linewidths=widths, colors=colours, capstyle="round", zorder=1)
    )


def _ends(ax: Axes, grid: Grid) -> None:
    """Start `s` and target `t`, and the frame."""
    for corner, text in ((0.0, "s"), (grid.side - 1.0, "t")):
        ax.plot(corner, -corner, "o", color=_GREY, markersize=9, zorder=4)
        ax.annotate(text, (corner, -corner), ha="center", va="center_baseline", color="white", fontsize=7, zorder=5)
    ax.set(aspect="equal", xlim=(-0.35, grid.side - 0.65), ylim=(0.65 - grid.side, 0.35), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _route(ax: Axes, grid: Grid, path: Tensor, colour: str, style: object, *, shift: float) -> None:
    """One path as a line through its nodes, moved a little off the arcs so that two paths can be told apart."""
    nodes = np.concatenate([[0], np.sort(grid.arcs[path.numpy() > 0.5, 1])])
    row, column = np.divmod(nodes, grid.side)
    ax.plot(column + shift, -row + shift, color=colour, linewidth=2.4, linestyle=style, zorder=3)  # type: ignore[arg-type]
