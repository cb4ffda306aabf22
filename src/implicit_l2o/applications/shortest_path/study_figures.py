"""The figure of the study of backward modes: what each variation does to either gradient, and the arcs that get none."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from implicit_l2o.report import interval

_COLOURS = {"JFB": "#0072b2", "exact": "#d55e00"}  # of Okabe and Ito's palette
_STYLES = {"base": "-", "normalised costs": "--"}


def draw_study(record: Mapping[str, Any], file: Path) -> None:
    """Two panels, as an SVG.

    Args:
        record: what the study wrote.
        file: to write.
    """
    trainings = record["trainings"]
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    _excesses(left, trainings)
    _missed(right, trainings)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, facecolor="white", metadata={"Date": None})


def _excesses(ax: Axes, trainings: Sequence[Mapping[str, Any]]) -> None:
    """The expected excess of every variation, by both gradients, with its interval over the seeds."""
    names = list(dict.fromkeys(t["varied"] for t in trainings))
    for offset, (mode, colour) in zip((-0.14, 0.14), _COLOURS.items(), strict=True):
        for row, name in enumerate(names):
            found = [t for t in trainings if t["varied"] == name and t["mode"] == mode]
            for training in found:
                mean, half = interval(training["numbers"]["excess_expected"])
                label = mode if row == 0 else None
                ax.errorbar(mean, row + offset, xerr=half, fmt="o", color=colour, capsize=2.5, label=label)
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="expected regret above the floor", xlim=(0, None))
    ax.invert_yaxis()
    ax.grid(alpha=0.25, axis="x")
    ax.legend(frameon=False, loc="upper right")
    ax.spines[["top", "right"]].set_visible(False)


def _missed(ax: Axes, trainings: Sequence[Mapping[str, Any]]) -> None:
    """The share of the right arcs without any flow, epoch by epoch."""
    for training in trainings:
        mode, varied = training["mode"], training["varied"]
        if mode in _COLOURS and varied in _STYLES:
            missed = training["course"]["missed"]
            label = f"{mode}, {'costs as predicted' if varied == 'base' else varied}"
            ax.plot(np.arange(len(missed)), missed, _STYLES[varied], color=_COLOURS[mode], label=label)
    ax.set(xlabel="epoch", ylabel="right arcs off the support", ylim=(0, None), xlim=(0, None))
    ax.grid(alpha=0.25)
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
