"""Figures of the implicit dictionary: signals and their transforms, properties against limits, the atoms found.

Texts and axes are in matplotlib's defaults, which the report sets to its page's colours; the kinds in Okabe and Ito's.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

COLOURS = {"true": "#999999", "model": "#009e73", "wrong signal": "#0072b2", "least squares": "#d55e00"}
_ORDERED = 100  # coefficients that are shown
_SHOWN = 150  # points of each kind in a scatter plot
_FLOOR = 1e-8  # of fidelity, for the logarithm
_LABELS = {"fidelity": "fidelity |Ax - d| / |d|", "sparsity": "|Kx|₁", "relative sparsity": "|Kx|₁ / |d|"}


def draw_signal(ax: Axes, answer: Float[Tensor, " n"], target: Float[Tensor, " n"] | None) -> None:
    """The recovered signal, on the true one where it is known.

    Args:
        ax: empty.
        answer: the recovered signal.
        target: the true one.
    """
    if target is not None:
        ax.plot(target.numpy(), color=COLOURS["true"], linewidth=3, label="true")
    ax.plot(answer.numpy(), color=COLOURS["model"], linewidth=1, label="recovered")
    ax.set(xlabel="entry", xlim=(0, len(answer) - 1))
    ax.legend(loc="upper right", frameon=False, ncols=2)


def draw_signals(signals: Mapping[str, Float[Tensor, " n"]], K: Float[Tensor, "n n"]) -> Figure:
    """One row a kind: the signal on the true one, and the sizes of its transform in descending order.

    Args:
        signals: by kind, `"true"` among them.
        K: the learned transform.
    """
    others = [kind for kind in signals if kind != "true"]
    figure = _figure(10.4, 1.9 * len(others))
    axes = figure.subplots(len(others), 2, squeeze=False, width_ratios=(2, 1))
    most = max(float(signal.abs().max()) for signal in signals.values()) * 1.1
    truth = (K @ signals["true"]).abs().sort(descending=True).values[:_ORDERED]
    for row, kind in enumerate(others):
        left, right = axes[row]
        left.plot(signals["true"].numpy(), color=COLOURS["true"], linewidth=2.5, label="true")
        left.plot(signals[kind].numpy(), color=COLOURS[kind], linewidth=0.9, label=kind)
        left.set(xlim=(0, len(K) - 1), ylim=(-most, most))
        left.legend(loc="upper right", frameon=False, ncols=2, fontsize=9)
        ordered = (K @ signals[kind]).abs().sort(descending=True).values[:_ORDERED]
        right.plot(truth.numpy(), color=COLOURS["true"], linewidth=2.5)
        right.plot(ordered.numpy(), color=COLOURS[kind], linewidth=1.2)
        right.set(xlim=(0, _ORDERED - 1), ylim=(0, None))
    axes[0, 0].set_title("signal")
    axes[0, 1].set_title("|K signal|, in descending order")
    axes[-1, 0].set_xlabel("entry")
    axes[-1, 1].set_xlabel("rank")
    figure.tight_layout()
    return figure


def draw_properties(
    values: Mapping[str, Float[Tensor, "N P"]], names: Sequence[str], limits: Mapping[str, float]
) -> Figure:
    """Each kind of signal as points: fidelity across, the sparsities upwards, the limits as lines.

    Args:
        values: of the properties, by kind.
        names: of the properties.
        limits: above which a property fails.
    """
    figure = _figure(10.4, 4.2)
    upward = [name for name in names if name != "fidelity"]
    axes = figure.subplots(1, len(upward), squeeze=False)[0]
    for ax, name in zip(axes, upward, strict=True):
        for kind, table in values.items():
            shown = table[:_SHOWN]
            across = shown[:, names.index("fidelity")].clamp_min(_FLOOR)
            ax.scatter(
                across, shown[:, names.index(name)], s=9, color=COLOURS[kind], alpha=0.6, label=kind, linewidths=0
            )
        ax.axvline(limits["fidelity"], color="#777777", linestyle="--", linewidth=1)
        ax.axhline(limits[name], color="#777777", linestyle="--", linewidth=1)
        ax.set(xscale="log", yscale="log", xlabel=_LABELS["fidelity"], ylabel=_LABELS.get(name, name))
        ax.grid(visible=False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(values), frameon=False, markerscale=2)
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    return figure


def draw_atoms(transformed: Float[Tensor, "n atoms"]) -> Figure:
    """`|K M|`, each column scaled to largest entry 1, rows in the order of the atom to which they answer most.

    Args:
        transformed: `K M`.
    """
    size = transformed.abs()
    size = size / size.amax(dim=0).clamp_min(torch.finfo(size.dtype).tiny)
    peak = size.argmax(dim=1).double() - 0.5 * size.amax(dim=1)  # within an atom the strongest row first
    figure = _figure(5.2, 6.4)
    ax = figure.subplots()
    image = ax.imshow(
        size[peak.argsort()].numpy(), aspect="auto", cmap="Greys", vmin=0, vmax=1, interpolation="nearest"
    )
    ax.set(xlabel="true atom", ylabel="row of K")
    figure.colorbar(image, ax=ax, label="share of the largest entry")
    figure.tight_layout()
    return figure


def _figure(width: float, height: float) -> Figure:
    """A figure of its own: no window, no state shared with a user's pyplot."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure
