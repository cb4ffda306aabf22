"""Figures of matrix games: predicted strategies beside the exact ones, and the errors over the number of actions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from implicit_l2o.training import Samples

# Of Okabe and Ito's palette, which most kinds of colour blindness tell apart.
_MODEL, _TRUTH, _GREY = "#0072b2", "#009e73", "#888888"
_STYLES = (
    ("#0072b2", "o", "-"),
    ("#56b4e9", "s", "-"),
    ("#d55e00", "^", "--"),
    ("#e69f00", "v", "--"),
    ("#cc79a7", "D", ":"),
    ("#009e73", "P", "-."),
    ("#888888", "x", ":"),
)


def example(figure: Figure, sample: Mapping[str, Tensor]) -> None:
    """One inference: the probabilities of both players' actions, exact where known.

    Args:
        figure: empty.
        sample: `"answer"` and maybe `"target"`, both strategies joined.
    """
    axes = figure.subplots(1, 2, sharey=True)
    names = ("first player", "second player")
    for player, (ax, name) in enumerate(zip(axes, names, strict=True)):
        answer = sample["answer"].chunk(2)[player].numpy()
        places = np.arange(1, len(answer) + 1)
        ax.bar(places, answer, color=_MODEL, label="predicted")
        if "target" in sample:
            exact = sample["target"].chunk(2)[player].numpy()
            ax.plot(places, exact, linestyle="none", marker="o", markersize=4, color=_TRUTH, label="exact")
        ax.set_title(name, fontsize="medium")
        ax.set_xlabel("action")
    axes[0].set_ylabel("probability")
    axes[0].legend(frameon=False)


def strategies(samples: Samples) -> tuple[Figure, str]:
    """All entries of the test strategies, predicted over exact."""
    figure = Figure(figsize=(4.2, 3.6), layout="constrained")
    ax = figure.subplots()
    exact, answer = samples.batch[1].flatten().numpy(), samples.answer.flatten().numpy()
    shown = np.linspace(0, len(exact) - 1, min(len(exact), 4000)).astype(int)
    least = 1e-8
    ax.loglog(exact[shown].clip(least), answer[shown].clip(least), ".", markersize=2, color=_MODEL, rasterized=True)
    ax.plot([least, 1], [least, 1], color=_GREY, linewidth=0.8)
    ax.set_xlabel("exact probability of an action")
    ax.set_ylabel("predicted")
    return figure, "Each point is an action of a test game."


def errors(methods: Mapping[str, str], sizes: Mapping[str, Mapping[str, Any]], target: float) -> Figure:
    """Test errors and seconds of training over the number of actions, the mean over seeds.

    Args:
        methods: names in the results, with what the legend says.
        sizes: by number of actions, by method: lists `"mse"` and maybe `"seconds"`.
        target: a line across.
    """
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    handles: Sequence[Any] = []
    for (name, label), (colour, marker, line) in zip(methods.items(), _STYLES, strict=False):
        counts = sorted((int(n) for n, rows in sizes.items() if name in rows), key=int)
        if not counts:
            continue
        rows = [sizes[str(n)][name] for n in counts]
        style = {"color": colour, "marker": marker, "linestyle": line, "markersize": 4, "label": label}
        (handle,) = left.plot(counts, [np.mean(row["mse"]) for row in rows], **style)
        handles = [*handles, handle]
        if "seconds" in rows[0]:
            right.plot(counts, [np.mean(row["seconds"]) for row in rows], **style)
    left.axhline(target, color="#333333", linewidth=0.8)
    for ax, label in ((left, "test error (mean square)"), (right, "seconds of training")):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks([5, 10, 25, 50, 100], ["5", "10", "25", "50", "100"])
        ax.minorticks_off()
        ax.set_xlabel("actions")
        ax.set_ylabel(label)
    figure.legend(handles=list(handles), loc="outside lower center", ncols=3, frameon=False)
    return figure
