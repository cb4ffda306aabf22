"""Figures of the maps: image, predicted costs, both paths and the layer's flow; and what doubt says."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.warcraft.metrics import SAME
from implicit_l2o.data.warcraft import path_costs
from implicit_l2o.training import Samples

# Of Okabe and Ito's palette, which most kinds of colour blindness tell apart; light, for they lie on dark images.
_MODEL, _TRUTH = "#f0e442", "#ffffff"
_LINE, _GROUND = "#0072b2", "#555555"
_VERDICTS = {il2o.Label.PASS: "#009e73", il2o.Label.WARN: "#e69f00", il2o.Label.FAIL: "#d55e00"}
_DASHED = (0, (2.2, 1.2))
_BINS = 10


def example(
    figure: Figure, sample: Mapping[str, Tensor], *, costs: Float[Tensor, "side side"], flow: Float[Tensor, "side side"]
) -> None:
    """One inference: the map with the decided path and, where it is known, the right one; predicted costs; flow.

    Args:
        figure: empty.
        sample: `"inputs"`, `"answer"` and maybe `"target"`.
        costs: as predicted.
        flow: that enters every cell.
    """
    axes = figure.subplots(1, 3)
    _row(axes, sample["inputs"], sample["answer"], sample.get("target"), costs, flow)
    _legend(figure, 2 if "target" in sample else 1)


def examples(samples: Samples) -> list[int]:
    """Test maps at fixed ranks of the doubt, 30, 70 and 95 %, and the middle one of the paths that are not exact."""
    order = np.argsort(samples.values[:, -1].nan_to_num(nan=np.inf).numpy(), kind="stable")
    chosen = [int(order[int(q * (len(order) - 1))]) for q in (0.3, 0.7, 0.95)]
    missed = order[(_extra(samples) > SAME)[order]]
    return [*chosen, int(missed[len(missed) // 2])] if len(missed) else chosen


def paths(
    samples: Samples,
    chosen: Sequence[int],
    *,
    costs: Float[Tensor, "M side side"],
    flow: Float[Tensor, "M side side"],
) -> tuple[Figure, str]:
    """The chosen maps with both paths, the predicted costs, and the flow that enters every cell.

    Args:
        samples: of the test.
        chosen: which of them.
        costs: as predicted for those.
        flow: that enters every cell of those.
    """
    images, best, _ = samples.batch
    extra = _extra(samples)
    figure = Figure(figsize=(2.3 * len(chosen), 7.2), layout="constrained")
    axes = figure.subplots(3, len(chosen), squeeze=False)
    for column, index in enumerate(chosen):
        _row(axes[:, column], images[index], samples.answer[index], best[index], costs[column], flow[column])
        more = 100 * float(extra[index])
        axes[0, column].set_title("exact" if more < 100 * SAME else f"{more:.1f} % above the best", fontsize="medium")
        verdict = il2o.Label(int(samples.worst[index]))
        axes[2, column].set_title(f"certificates: {verdict.name}", fontsize="medium", color=_VERDICTS[verdict])
    for axis, text in zip(axes[:, 0], ("map", "predicted costs", "flow x(d)"), strict=True):
        axis.set_ylabel(text)
    _legend(figure, 2)
    last = "; the last one is in the middle of those whose path is not exact" if len(chosen) > 3 else ""
    return figure, (
        "Test maps at fixed ranks, so that none is picked by taste: the doubt is above that of 30, 70 and 95 % of all"
        f"{last}. Dark cells are cheap in the second row and without flow in the third."
    )


def doubt(samples: Samples) -> tuple[Figure, str]:
    """The share of exact paths by how much of the decided path the flow does not pass."""
    value = samples.values[:, -1].nan_to_num(nan=float("inf"))
    groups = [group for group in value.argsort(stable=True).tensor_split(_BINS) if len(group)]
    exact = _extra(samples) <= SAME
    figure = Figure(figsize=(6.6, 3.6), layout="constrained")
    ax = figure.subplots()
    shares = [100 * float(exact[group.numpy()].mean()) for group in groups]
    ax.plot([float(value[group].mean()) for group in groups], shares, "o-", color=_LINE)
    ax.set(xlabel=samples.names[-1], ylabel="exact paths, %", ylim=(None, 101))
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    return figure, "Exact paths among test maps in ten groups of equal size, by the model's own doubt."


def _extra(samples: Samples) -> NDArray[np.float64]:
    """What every path costs above the cheapest one, relative to it."""
    _, best, costs = samples.batch
    return (path_costs(samples.answer, costs) / path_costs(best, costs) - 1).numpy()


def _row(
    axes: Sequence[Axes] | NDArray, image: Tensor, answer: Tensor, best: Tensor | None, costs: Tensor, flow: Tensor
) -> None:
    """Map, costs and flow on three axes, the paths on the first two."""
    side = len(costs)
    box = (-0.5, side - 0.5, side - 0.5, -0.5)
    axes[0].imshow(image.cpu().numpy(), extent=box, interpolation="nearest")
    axes[1].imshow(costs.numpy(), extent=box, cmap="cividis", vmin=0.0)
    axes[2].imshow(flow.numpy(), extent=box, cmap="magma", vmin=0.0, vmax=1.0)
    for ax in axes[:2]:
        if best is not None:
            _route(ax, best, _TRUTH, "-", shift=0.12)
        _route(ax, answer, _MODEL, _DASHED, shift=-0.12)
    for ax in axes:
        ax.set(xticks=[], yticks=[])


def _route(ax: Axes, path: Tensor, colour: str, style: object, *, shift: float) -> None:
    """A path as a line through its cells, moved a little so that two paths can be told apart."""
    nodes = np.array(_in_order(path.cpu().numpy() > 0.5))
    ax.plot(nodes[:, 1] + shift, nodes[:, 0] + shift, color="black", linewidth=3.4, alpha=0.6)
    ax.plot(nodes[:, 1] + shift, nodes[:, 0] + shift, color=colour, linewidth=2.0, linestyle=style)  # type: ignore[arg-type]


def _in_order(path: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The cells of a path from the first on: each time the nearest one that is left."""
    left = [(int(i), int(j)) for i, j in np.argwhere(path)]
    ordered = [left.pop(0)]
    while left:
        here = ordered[-1]
        ordered.append(left.pop(min(range(len(left)), key=lambda k: max(abs(left[k][i] - here[i]) for i in (0, 1)))))
    return ordered


def _legend(figure: Figure, count: int) -> None:
    """The first of both lines, or both, on a ground on which they can be seen."""
    lines = (
        Line2D([], [], color=_MODEL, linewidth=2.0, linestyle=_DASHED, label="predicted path"),
        Line2D([], [], color=_TRUTH, linewidth=2.0, label="cheapest path"),
    )
    legend = figure.legend(handles=lines[:count], loc="outside lower center", ncols=2, facecolor=_GROUND)
    for text in legend.get_texts():
        text.set_color("white")
