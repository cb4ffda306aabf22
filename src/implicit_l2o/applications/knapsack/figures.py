"""Figures of the knapsack: selections in the plane of weights, what doubt costs, the values that were learned."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.data.knapsack import Items
from implicit_l2o.training import Samples, regret_by_doubt

# Of Okabe and Ito's palette, which most kinds of colour blindness tell apart.
_MODEL, _TRUTH, _GREY = "#0072b2", "#009e73", "#888888"
_VERDICTS = {il2o.Label.PASS: "#009e73", il2o.Label.WARN: "#e69f00", il2o.Label.FAIL: "#d55e00"}
_HEAT = colormaps["YlOrBr"]
_POINTS = 4000  # of the scatter of values


def example(
    figure: Figure,
    items: Items,
    sample: Mapping[str, Tensor],
    *,
    relaxed: Float[Tensor, " items"],
    predicted: Float[Tensor, " items"],
) -> None:
    """One inference: the items by their weights, coloured by predicted value, with the decided and the best selection.

    Args:
        figure: empty.
        items: of the knapsack.
        sample: `"answer"` and maybe `"target"`, selections.
        relaxed: the layer's answer.
        predicted: values.
    """
    ax = figure.subplots()
    heat = Normalize(float(predicted.min()), float(predicted.max()))
    _plane(ax, items, predicted, heat, sample["answer"], sample.get("target"), relaxed)
    _heat_bar(figure, ax, heat, "predicted value, in units of gamma")
    figure.legend(handles=_legend("target" in sample), loc="outside lower center", ncols=2, frameon=False)


def selections(items: Items, samples: Samples, relaxed: Float[Tensor, "N items"]) -> tuple[Figure, str]:
    """Test contexts from an exact decision to a poor one: the values that came true with both selections."""
    _, best, values, *_ = samples.batch
    lost = 100 * (values * (best - samples.answer)).sum(1) / (values * best).sum(1)
    order = np.argsort(lost.numpy(), kind="stable")
    chosen = [int(order[int(q * (len(order) - 1))]) for q in (0.3, 0.7, 0.95)]
    figure = Figure(figsize=(3.1 * len(chosen) + 0.9, 4.2), layout="constrained")
    axes = figure.subplots(1, len(chosen), sharey=True)
    heat = Normalize(float(values[chosen].min()), float(values[chosen].max()))
    for ax, index in zip(axes, chosen, strict=True):
        _plane(ax, items, values[index], heat, samples.answer[index], best[index], relaxed[index])
        percent = float(lost[index])
        title = "as good as the best" if percent < 1e-3 else f"{percent:.0f} % below the best"
        verdict = il2o.Label(int(samples.worst[index]))
        ax.set_title(f"{title}\ncertificates: {verdict.name}", fontsize="medium", color=_VERDICTS[verdict])
    for ax in axes[1:]:
        ax.set_ylabel("")
    _heat_bar(figure, axes, heat, "value that came true")
    figure.legend(handles=_legend(True), loc="outside lower center", ncols=3, frameon=False)
    return figure, (
        "Items by their weight in the two limits, light ones at the lower left, for test contexts at fixed ranks: the "
        "decisions lose more than those of 30, 70 and 95 % of all."
    )


def doubt(samples: Samples, floor: Float[Tensor, "N items"]) -> tuple[Figure, str]:
    """Regret by how much of the answer is off the decided selection, with that of the best possible decisions.

    Args:
        samples: their last property is the doubt.
        floor: the best possible decisions.
    """
    _, best, values, *_ = samples.batch
    decisions = {"implicit network": samples.answer, "exact conditional mean values": floor}
    figure = regret_by_doubt(
        samples,
        {label: ((values * (best - decided)).sum(1), (values * best).sum(1)) for label, decided in decisions.items()},
    )
    return figure, (
        "Regret of test contexts in ten groups of equal size, by how much of the decided selection is not in the "
        "layer's answer. Dashed: the best possible decisions on them, which still pay for what nobody can foresee."
    )


def values(
    items: Items, predicted: Float[Tensor, "N items"], mean_values: Float[Tensor, "N items"]
) -> tuple[Figure, str]:
    """The values learned from selections alone against the mean values, for heavy and for light items."""
    total = items.weights().sum(0).float()
    light = total <= total.quantile(0.25)
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, where, title in zip(axes, (light, ~light), ("the lightest quarter", "all others"), strict=True):
        x, y = mean_values[:, where].flatten(), predicted[:, where].flatten()
        ranks = torch.stack([x.argsort().argsort().double(), y.argsort().argsort().double()])
        step = max(1, len(x) // _POINTS)
        ax.scatter(x[::step], y[::step], s=3, alpha=0.25, color=_MODEL, linewidths=0, rasterized=True)
        ax.set_title(f"{title}: rank correlation {float(torch.corrcoef(ranks)[0, 1]):.2f}", fontsize="medium")
        ax.set_xlabel("mean value")
        _plain(ax)
    axes[0].set_ylabel("predicted value, in units of gamma")
    return figure, (
        "Predicted values of items in test contexts against their conditional mean. The model has seen neither. "
        "Selections tell what light items are worth, which compete for a place; of heavy ones, that they are not worth it."
    )


def _plane(
    ax: Axes,
    items: Items,
    colour: Tensor,
    heat: Normalize,
    answer: Tensor,
    target: Tensor | None,
    relaxed: Tensor,
) -> None:
    """Items in the plane of the first two weights: filled by value, ringed where selected."""
    W: NDArray = items.weights().numpy()
    first, second = W[0], W[min(1, len(W) - 1)]
    ax.scatter(first, second, c=colour.numpy(), cmap=_HEAT, norm=heat, s=14, edgecolors=_GREY, linewidths=0.3)
    rings = (
        [(answer, _MODEL, "o", 130.0)]
        if target is None
        else [(answer, _MODEL, "o", 130.0), (target, _TRUTH, "s", 60.0)]
    )
    for selected, edge, marker, size in rings:
        where = selected.numpy() > 0.5
        ax.scatter(
            first[where], second[where], s=size, marker=marker, facecolors="none", edgecolors=edge, linewidths=1.8
        )
    partly = (relaxed.numpy() > 0.05) & (answer.numpy() < 0.5)
    ax.scatter(first[partly], second[partly], s=40, marker="x", color=_MODEL, linewidths=1.0)
    ax.set(xlabel="weight in the first limit", ylabel="weight in the second", aspect="equal")
    _plain(ax)


def _legend(target: bool) -> list[Line2D]:
    def marker(shape: str, edge: str, size: float, label: str) -> Line2D:
        options = {"markerfacecolor": "none", "markeredgecolor": edge, "markersize": size, "markeredgewidth": 1.8}
        return Line2D([], [], linestyle="none", marker=shape, label=label, **options)

    handles = [marker("o", _MODEL, 10, "decided"), marker("x", _MODEL, 6, "partly in the layer's answer, not decided")]
    return [marker("s", _TRUTH, 7, "best"), *handles] if target else handles


def _heat_bar(figure: Figure, axes: object, heat: Normalize, label: str) -> None:
    bar = figure.colorbar(ScalarMappable(heat, _HEAT), ax=axes, shrink=0.8, pad=0.02)  # type: ignore[arg-type]
    bar.set_label(label)
    bar.outline.set_visible(False)


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
