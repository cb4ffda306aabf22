"""The figures of the comparison: accuracy against time and epochs, the gradient's angle in the course of training."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from implicit_l2o.applications.images.backward_comparison.training import seconds

# Okabe and Ito's palette; relatives share a colour and differ by the line.
_COLOURS = {
    "JFB": "#0072b2",
    "Neumann": "#56b4e9",
    "Implicit, GMRES": "#d55e00",
    "Implicit, CG": "#e69f00",
    "Unrolled": "#009e73",
    "TorchDEQ": "#666666",
    "explicit twin": "#cc79a7",
}
_STYLES = ("-", "--", ":", "-.", (0, (1, 1)))


def draw_comparison(record: Mapping[str, Any], folder: Path) -> list[Path]:
    """The figures as SVG files; their paths.

    Args:
        record: the results file.
        folder: to write into.
    """
    name = record["name"]
    accuracy = Figure(figsize=(9.6, 4.0), layout="constrained")
    left, right = accuracy.subplots(1, 2, sharey=True)
    _courses(left, record, "validation_accuracy", against_time=True)
    left.set(xlabel="processor time of training, s", ylabel="validation accuracy, %")
    _courses(right, record, "validation_accuracy", against_time=False)
    right.set(xlabel="epoch")
    right.legend(frameon=False, fontsize="small", loc="lower right")

    angle = Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = angle.subplots(1, 2)
    _courses(left, record, "latent_cosine", against_time=False, scale=1.0)
    left.set(xlabel="epoch", ylabel="cosine with the exact gradient")
    _courses(right, record, "slope", against_time=False, scale=1.0)
    right.set(xlabel="epoch", ylabel="measured |dT/dz|, largest of the probe", ylim=(0, 1))
    right.legend(frameon=False, fontsize="small", loc="lower left")  # slopes of interest are near 1

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}_accuracy.svg", folder / f"{name}_gradient.svg"]
    for figure, file in zip((accuracy, angle), files, strict=True):
        for ax in figure.axes:
            ax.grid(alpha=0.25)
            if ax.get_xlabel() == "epoch":
                ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, facecolor="white", metadata={"Date": None})
    return files


def _courses(ax: Axes, record: Mapping[str, Any], quantity: str, *, against_time: bool, scale: float = 100.0) -> None:
    """A line for every mode: the mean over its seeds."""
    used: dict[str, int] = {}
    for mode, by_seed in record["runs"].items():
        family = next((name for name in _COLOURS if mode.startswith(name)), mode)
        used[family] = used.get(family, -1) + 1
        runs = list(by_seed.values())
        values = scale * _mean(runs, lambda epoch: np.nan if epoch[quantity] is None else epoch[quantity])
        passed = np.cumsum(_mean(runs, seconds)) if against_time else np.arange(1, len(values) + 1)
        style = _STYLES[used[family] % len(_STYLES)]
        ax.plot(passed, values, marker=".", linestyle=style, color=_COLOURS.get(family, "black"), label=mode)


def _mean(runs: Sequence[Mapping[str, Any]], value: Callable[[Any], float]) -> np.ndarray:
    return np.mean([[value(epoch) for epoch in run["epochs"]] for run in runs], axis=0)
