"""Figures: the methods beside each other, and the networks of K steps against the implicit one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

# Okabe and Ito's palette, which most kinds of colour blindness tell apart.
_MODEL, _OTHER, _GREY = "#0072b2", "#d55e00", "#888888"
_METHODS = {
    "convex_implicit": "convex cost, Implicit",
    "convex_jfb": "convex cost, JFB",
    "quadratic": "quadratic cost",
    "linear": "linear cost",
    "black_box": "black box",
    "constant": "constant",
}


def draw_costs(tasks: Mapping[str, Any], folder: Path) -> Path:
    """Decision error and suboptimality of every method, on both tasks; hollow: totals out of the training range."""
    figure = _figure(10.0, 5.6)
    axes = figure.subplots(2, len(tasks), sharey=True, squeeze=False)
    for column, (task, methods) in enumerate(tasks.items()):
        for row, (key, label) in enumerate(
            {"decision_error": "relative decision error", "suboptimality": "suboptimality (constant = 1)"}.items()
        ):
            ax = axes[row, column]
            for y, method in enumerate(_METHODS):
                colour = _MODEL if method.startswith("convex") else _OTHER if method != "constant" else _GREY
                for suffix, face, shift in (("", colour, -0.13), ("_beyond", "white", 0.13)):
                    value = methods[method][key + suffix]
                    ax.errorbar(
                        value["mean"], y + shift, xerr=value["half_width_95"], fmt="o", color=colour,
                        markerfacecolor=face, markersize=6, capsize=3, linewidth=1.4,
                    )  # fmt: skip
            ax.set(xlabel=label, xscale="log")
            ax.xaxis.set_minor_formatter(NullFormatter())
            if key == "decision_error":
                ax.set_xticks([0.1, 0.2, 0.4, 0.8], ["0.1", "0.2", "0.4", "0.8"])
            ax.set_yticks(range(len(_METHODS)), list(_METHODS.values()))
            ax.grid(alpha=0.25, which="both")
            ax.spines[["top", "right"]].set_visible(False)
        axes[0, column].set_title(task, fontsize=12)
    axes[0, 0].invert_yaxis()  # shared by all
    figure.suptitle(
        "Decisions from a learned cost (filled: test totals as in training, hollow: beyond)",
        x=0.02, ha="left", fontsize=13, fontweight="bold",
    )  # fmt: skip
    figure.subplots_adjust(left=0.18, right=0.97, top=0.87, bottom=0.1, hspace=0.35, wspace=0.12)
    return _save(figure, folder / "learned_cost.png")


def draw_depth(steps: Mapping[str, Any], folder: Path) -> Path:
    """Violation, residual and decision error against the number of steps, bars from the smallest to the largest seed."""
    figure = _figure(10.5, 3.9)
    depths = sorted(int(name) for name in steps if name != "implicit")
    panels = {
        "mean_violation": r"constraint violation $\|(Ax - b,\ \min(x, 0))\|$",
        "residual": r"optimality: residual $\|T(z) - z\|$",
        "decision_error": "test loss: relative decision error",
    }
    axes = figure.subplots(1, len(panels))
    for ax, (key, title) in zip(axes, panels.items(), strict=True):
        _curve(ax, [steps[str(K)][key] for K in depths], depths, _OTHER, "o-", "K steps, as trained")
        if key == "decision_error":
            converged = [steps[str(K)]["decision_error_converged"] for K in depths]
            _curve(ax, converged, depths, _GREY, "s--", "its cost, iterated to convergence")
        implicit = steps["implicit"][key]
        ax.axhline(implicit["mean"], color=_MODEL, linewidth=2, label="implicit network")
        ax.set(xscale="log", yscale="linear" if key == "decision_error" else "log", xlabel="unrolled steps K")
        if key == "decision_error":
            ax.set_ylim(bottom=0)
        ax.set_xticks(depths, [str(K) for K in depths])
        ax.minorticks_off()
        ax.set_title(title, fontsize=10)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", ncols=3, frameon=False, fontsize=9)
    figure.suptitle("Why the iteration runs to convergence", x=0.02, ha="left", fontsize=13, fontweight="bold")
    figure.subplots_adjust(left=0.06, right=0.985, top=0.8, bottom=0.14, wspace=0.25)
    return _save(figure, folder / "unrolled_vs_implicit.png")


def _curve(ax: Axes, values: list[Any], depths: list[int], colour: str, form: str, label: str) -> None:
    means = [value["mean"] for value in values]
    # From the smallest to the largest seed: a symmetric interval would leave the logarithmic axes.
    below = [mean - min(value["seeds"]) for mean, value in zip(means, values, strict=True)]
    above = [max(value["seeds"]) - mean for mean, value in zip(means, values, strict=True)]
    ax.errorbar(depths, means, yerr=(below, above), fmt=form, color=colour, capsize=3, linewidth=1.6, label=label)


def _figure(width: float, height: float) -> Figure:
    """A figure of its own: no window, no state shared with a user's pyplot."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
