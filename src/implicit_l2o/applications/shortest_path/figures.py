"""Figures of the shortest-path experiment: paths on the grid, the training, the convergence of the inferences."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.experiment import Outcome
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.losses import regret

# The first colours of Okabe and Ito's palette, which most kinds of colour blindness tell apart.
_MODEL, _TRUTH, _OTHER, _GREY = "#0072b2", "#000000", "#d55e00", "#888888"
_HEAT = colormaps["YlOrBr"]
_VERDICTS = {il2o.Label.PASS: "#2e8b57", il2o.Label.WARN: "#e0a030", il2o.Label.FAIL: "#c0392b"}
_STEPS = 60  # of the residual curves


def draw(outcome: Outcome, folder: Path) -> list[Path]:
    """Write all figures of one seed into `folder` as PNG files and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "shortest_path_paths.png": paths(outcome),
        "shortest_path_training.png": training(outcome),
        "shortest_path_residuals.png": residuals(outcome),
    }
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=150)
    return [folder / name for name in figures]


def paths(outcome: Outcome) -> Figure:
    """Test contexts from an exact decision to a doubtful one: the costs that came true with both paths, and the answer."""
    grid, part = outcome.data.grid, outcome.data.test
    decided = outcome.flow.decide(outcome.network, part.contexts)
    extra = 100 * regret(decided, part.costs, part.paths) / (part.costs * part.paths).sum(1)
    chosen = _examples(extra.numpy(), (outcome.report.worst == il2o.Label.FAIL).numpy())
    figure = _figure(3.1 * len(chosen) + 1.0, 6.9)
    axes = figure.subplots(2, len(chosen), squeeze=False)
    heat = Normalize(0.0, float(part.costs[chosen].max()))
    for column, sample in enumerate(chosen):
        above, below = axes[0, column], axes[1, column]
        verdict = il2o.Label(int(outcome.report.worst[sample]))
        _lattice(above, grid, part.costs[sample].numpy(), np.full(grid.n_arcs, 5.0), heat)
        _route(above, grid, part.paths[sample].numpy(), _TRUTH, 2.4, "-", shift=0.05)
        _route(above, grid, decided[sample].numpy(), _MODEL, 2.4, (0, (2.2, 1.2)), shift=-0.05)
        more = float(extra[sample])
        above.set_title("exact" if more < 1e-3 else f"{more:.0f} % above the best", fontsize=11)
        x = outcome.solution.x[sample].numpy()
        shown = x > 0.02
        _lattice(below, grid, np.zeros(grid.n_arcs), np.full(grid.n_arcs, 1.2), heat, colour="#dddddd")
        _lattice(below, grid, x, np.where(shown, 1.0 + 9.0 * x, 0.0), heat, colour=_MODEL)
        below.set_title(f"certificates: {verdict.name}", fontsize=10, color=_VERDICTS[verdict])
    axes[0, 0].set_ylabel("costs that came true", fontsize=11)
    axes[1, 0].set_ylabel("the layer's answer x(d)", fontsize=11)
    _heading(figure, "From a context alone to a path", left=0.06)
    figure.legend(
        handles=[
            Line2D([], [], color=_TRUTH, linewidth=2.4, label="shortest path"),
            Line2D([], [], color=_MODEL, linewidth=2.4, linestyle=(0, (2.2, 1.2)), label="predicted path"),
            Line2D([], [], color=_MODEL, linewidth=7, label="flow x(d), as wide as it is large"),
        ],
        loc="lower center",
        ncols=3,
        frameon=False,
        fontsize=10,
    )
    figure.subplots_adjust(left=0.06, right=0.9, top=0.87, bottom=0.08, wspace=0.06, hspace=0.14)
    bar = figure.colorbar(ScalarMappable(heat, _HEAT), cax=figure.add_axes((0.925, 0.5, 0.014, 0.36)))
    bar.set_label("cost of an arc")
    bar.outline.set_visible(False)
    return figure


def _examples(extra: NDArray[np.floating], failing: NDArray[np.bool_]) -> list[int]:
    """Samples at fixed ranks, so that none is picked by taste: 30, 70, 95 % of the extra cost, 50 % among the failing."""
    order = np.argsort(extra, kind="stable")
    chosen = [int(order[int(q * (len(order) - 1))]) for q in (0.3, 0.7, 0.95)]
    flagged = order[failing[order]]
    return [*chosen, int(flagged[len(flagged) // 2])] if len(flagged) else chosen


def _segments(grid: Grid) -> list[NDArray[np.floating]]:
    """`(2 ends, 2 coordinates)` of each arc, the first node at the top left."""
    row, column = np.divmod(grid.arcs, grid.side)
    return list(np.stack([column, -row], axis=-1).astype(float))


def _lattice(
    ax: Axes, grid: Grid, values: NDArray, widths: NDArray, norm: Normalize, *, colour: str | None = None
) -> None:
    lines = LineCollection(_segments(grid), linewidths=widths, capstyle="round", zorder=1)
    lines.set_color(colour if colour is not None else list(map(tuple, _HEAT(norm(values)))))
    ax.add_collection(lines)
    ends = np.array([[0, 0], [grid.side - 1, 1 - grid.side]])
    ax.scatter(*ends.T, s=70, color="white", edgecolor="black", zorder=4)
    for (x, y), text in zip(ends, "st", strict=True):
        ax.annotate(text, (x, y), ha="center", va="center", fontsize=8, zorder=5)
    ax.set(aspect="equal", xlim=(-0.35, grid.side - 0.65), ylim=(0.65 - grid.side, 0.35), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _route(ax: Axes, grid: Grid, path: NDArray, colour: str, width: float, style: object, *, shift: float) -> None:
    """One path as a line through its nodes, moved a little off the arcs so that two paths can be told apart."""
    nodes = np.concatenate([[0], np.sort(grid.arcs[path > 0.5, 1])])
    row, column = np.divmod(nodes, grid.side)
    ax.plot(column + shift, -row + shift, color=colour, linewidth=width, linestyle=style, zorder=3)  # type: ignore[arg-type]


def training(outcome: Outcome) -> Figure:
    """Regret by epoch with the floor, and the test regret beside the baselines."""
    figure = _figure(10.4, 4.0)
    curve, bars = figure.subplots(1, 2, width_ratios=(3, 2))
    epochs = np.arange(1, len(outcome.history) + 1)
    for name, colour, label in (("training regret", _GREY, "training"), ("regret", _MODEL, "validation")):
        values = np.array([epoch[name] for epoch in outcome.history])
        curve.plot(epochs, values, color=colour, linewidth=1.8, label=label)
        curve.plot(epochs[outcome.best_epoch], values[outcome.best_epoch], "o", color=colour, markersize=6)
    for part, colour in ((outcome.floor_training, _GREY), (outcome.floor_validation, _MODEL)):
        curve.axhline(part, color=colour, linestyle=(0, (4, 3)), linewidth=1.1)
    curve.plot([], [], color="black", linestyle=(0, (4, 3)), linewidth=1.1, label="exact conditional mean cost")
    curve.set(xlabel="epoch", ylabel="normalised regret", title="training (dot: the weights kept)", xlim=(0, None))
    curve.legend(frameon=False)
    rows = (
        ("untrained", outcome.regret_untrained, _GREY),
        ("two-stage: sees the costs", outcome.regret_two_stage, _OTHER),
        ("path model: sees solutions", outcome.regret, _MODEL),
        ("floor", outcome.regret_floor, _TRUTH),
    )
    shown = 2.2 * max(row[1] for row in rows[1:])
    for y, (_, value, colour) in enumerate(rows):
        cut = value > shown
        bars.barh(y, min(value, shown), color=colour, height=0.62)
        bars.text(
            min(value, shown) * (0.98 if cut else 1.0) + (0 if cut else 0.02 * shown),
            y,
            f"{value:.3f}" + ("  →" if cut else ""),
            va="center",
            ha="right" if cut else "left",
            color="white" if cut else "black",
            fontsize=10,
        )
    bars.set_yticks(range(len(rows)), [row[0] for row in rows])
    bars.set(title="test regret", xlim=(0, shown))
    bars.locator_params(axis="x", nbins=5)
    bars.invert_yaxis()
    bars.tick_params(left=False)
    for ax in (curve, bars):
        ax.spines[["top", "right"]].set_visible(False)
    curve.grid(alpha=0.25)
    _heading(figure, "Regret: what the decisions cost above the best, relative to it", left=0.02)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.82, bottom=0.13, wspace=0.55)
    return figure


def residuals(outcome: Outcome) -> Figure:
    """How the residual of the test inferences falls with the iteration: median and spread."""
    part = outcome.data.test
    stopping = il2o.Stopping(atol=0.0, rtol=0.0, max_steps=_STEPS, check_every=1, trace=True)
    with torch.no_grad():
        w = outcome.network(part.contexts)
        solver = il2o.KrasnoselskiiMann(stopping, relaxation=outcome.flow.relaxation)
        trace = il2o.solve(outcome.flow(w), torch.zeros_like(w), solver=solver).trace
    if trace is None:
        raise RuntimeError("the solve kept no trace although it was asked to.")
    values = trace.numpy()
    figure = _figure(6.6, 4.2)
    ax = figure.subplots()
    steps = np.arange(1, len(values) + 1)
    for low, high, shade in ((0.0, 1.0, 0.15), (0.05, 0.95, 0.3)):
        label = "all" if low == 0 else "5 to 95 %"
        ax.fill_between(
            steps, *np.quantile(values, (low, high), axis=1), color=_MODEL, alpha=shade, linewidth=0, label=label
        )
    ax.plot(steps, np.median(values, axis=1), color=_MODEL, linewidth=2, label="median")
    ax.axhline(outcome.flow.tolerance, color=_OTHER, linestyle=(0, (4, 3)), linewidth=1.3, label="tolerance")
    ax.set(yscale="log", xlabel="iteration", ylabel=r"residual $\|T(z) - z\|$", xlim=(1, len(values)))
    ax.grid(alpha=0.25)
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    _heading(figure, f"Davis-Yin on {len(part)} test inferences", left=0.02)
    figure.subplots_adjust(left=0.13, right=0.97, top=0.88, bottom=0.13)
    return figure


def _heading(figure: Figure, text: str, *, left: float) -> None:
    figure.suptitle(text, x=left, ha="left", fontsize=13, fontweight="bold")


def _figure(width: float, height: float) -> Figure:
    """A figure of its own: no window, no state shared with a user's pyplot."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure
