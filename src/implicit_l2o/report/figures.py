"""The charts of a report: curves over training, and histograms with the limits of a certificate.

They carry no text of the run (titles stand in the page), so no name can need a glyph that a font lacks.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from implicit_l2o.report.svg import FOREGROUND, PALETTE, to_svg

_POINTS = 400  # of a curve: more cannot be seen, and cost bytes
_BINS = 40
_LARGEST = 1e100  # what is larger, or smaller than its inverse, is drawn there: axes overflow beyond
_REGIONS = (("pass", PALETTE["green"]), ("warn", PALETTE["orange"]), ("fail", PALETTE["vermillion"]))
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Series(NamedTuple):
    """One curve.

    Attributes:
        label: what the legend says; plain text of the report, not of the run.
        x: `(n,)`, ascending.
        y: `(n,)`; what is not finite is left out.
        colour: a name of `PALETTE`.
    """

    label: str
    x: NDArray[np.floating]
    y: NDArray[np.floating]
    colour: str = "blue"


def curves(
    series: Sequence[Series], *, key: str, label: str, xlabel: str, log: bool = False, kept: float | None = None
) -> str:
    """Curves over training as an SVG element; a long curve is drawn as the mean of neighbours, with their range behind it.

    Args:
        series: at least one with a finite value.
        key: starts every id of the SVG.
        label: for those who cannot see the figure.
        xlabel: of the axis.
        log: a logarithmic axis, where all values are positive.
        kept: where the weights are from that the run kept.
    """
    figure, ax = _figure(4.7, 2.75)
    positive, logarithmic = [], log
    for one in series:
        finite = np.isfinite(one.x) & np.isfinite(one.y)
        x, y = one.x[finite], np.clip(one.y[finite], -_LARGEST, _LARGEST)
        logarithmic &= bool((y > 0).all())
        y = np.maximum(y, 1 / _LARGEST) if logarithmic else y
        positive.append((one, x, y))
    for order, (one, x, y) in enumerate(positive):
        colour = PALETTE[one.colour]
        middle, mean, low, high = _thinned(x, y)
        if len(middle) < len(x):
            ax.fill_between(middle, low, high, color=colour, alpha=0.2, linewidth=0)
        few = len(middle) <= 30
        style = ("-", (0, (5, 2)), (0, (1, 1.5)))[order % 3]  # told apart without colours as well
        ax.plot(
            *(middle, mean),
            color=colour,
            linewidth=1.8,
            linestyle=style,
            marker="o" if few else None,
            markersize=3,
            label=one.label,
        )
    every = np.concatenate([y for _, _, y in positive])
    _scale(ax, "y", every, log=logarithmic)
    if kept is not None:
        ax.axvline(kept, color=FOREGROUND, linewidth=1.0, linestyle=(0, (2, 2)), alpha=0.7)
        one, x, y = positive[-1]
        nearest = int(np.argmin(np.abs(x - kept)))
        ax.plot([x[nearest]], [y[nearest]], marker="D", color=PALETTE[one.colour], markersize=6, linestyle="none")
    ax.set_xlabel(xlabel)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    ax.margins(x=0.02)
    if len(series) > 1:
        legend = figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9, handlelength=1.8)
        for text in legend.get_texts():
            text.set_color(FOREGROUND)
    return to_svg(figure, label=label, key=key)


def histogram(
    values: Sequence[float | None],
    *,
    key: str,
    label: str,
    xlabel: str,
    log: bool | None = None,
    whole: bool = False,
    limits: tuple[float, float] | None = None,
    reference: Sequence[float | None] = (),
) -> str:
    """How values are spread as an SVG element: bars for the test samples, an outline for the calibration's.

    Zeros on a logarithmic axis get a bar of their own at its left end; values far out are counted in the last bars.

    Args:
        values: of the test samples; None and what is not finite is left out.
        key: starts every id of the SVG.
        label: for those who cannot see the figure.
        xlabel: of the axis.
        log: None for where the positive values span more than two decades.
        whole: the values are whole numbers.
        limits: the largest value that passes, and the largest that does not fail.
        reference: the values that the limits were calibrated on.
    """
    test, known = _finite(values), _finite(reference)
    limit_values = _finite(limits or ())
    every = np.concatenate([test, known])
    figure, ax = _figure(4.7, 2.75)
    shown = np.concatenate([every, limit_values])
    logarithmic = log if log is not None else (not whole and _spans_decades(shown))
    logarithmic = logarithmic and bool((shown >= 0).all()) and bool((shown > 0).any())
    zero = None
    if logarithmic:
        floor = 10.0 ** math.floor(math.log10(float(shown[shown > 0].min())))
        zero = floor / 10 if (shown == 0).any() else None
        low, high = zero or floor, max(10.0 ** math.ceil(math.log10(float(shown.max()))), 10 * floor)
        edges = np.geomspace(low, high, _BINS + 1)
        ax.set_xscale("log")
        _ticks(ax, "x", logarithmic=True, zero=zero)
    else:
        low, high = _range(every, limit_values)
        if whole:
            width = max(1, math.ceil((high - low + 1) / _BINS))
            edges = np.arange(math.floor(low), math.ceil(high) + width + 1, width) - 0.5
        else:
            edges = np.linspace(low, high, _BINS + 1)
        _ticks(ax, "x", logarithmic=False, zero=None)
    ax.set_xlim(edges[0], edges[-1])
    if limits is not None and all(map(math.isfinite, limits)):
        _regions(ax, limits, edges)
    if len(known):
        ax.stairs(_shares(known, edges), edges, color=FOREGROUND, linewidth=1.3, zorder=4, alpha=0.85)
    ax.stairs(_shares(test, edges), edges, fill=True, color=PALETTE["blue"], zorder=3, alpha=0.8)
    ax.set_xlabel(xlabel)
    ax.set_ylabel("share of samples")
    ax.set_ylim(0, ax.get_ylim()[1] * (1.18 if limits else 1.02))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g} %"))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    return to_svg(figure, label=label, key=key)


def _regions(ax: Axes, limits: tuple[float, float], edges: NDArray[np.floating]) -> None:
    """Shade what passes, warns and fails, and say so at the top, where there is room for the word."""
    bounds = [edges[0], *(min(max(limit, edges[0]), edges[-1]) for limit in limits), edges[-1]]
    unit = ax.transAxes.inverted()
    for (name, colour), low, high in zip(_REGIONS, bounds[:-1], bounds[1:], strict=True):
        if not high > low:
            continue
        ax.axvspan(low, high, color=colour, alpha=0.13, linewidth=0, zorder=0)
        left, right = (float(unit.transform(ax.transData.transform((x, 0)))[0]) for x in (low, high))
        if right - left > 0.11:
            ax.text((left + right) / 2, 0.975, name, transform=ax.transAxes, ha="center", va="top", color=FOREGROUND)
    for limit, colour in ((limits[0], PALETTE["green"]), (limits[1], PALETTE["vermillion"])):
        if edges[0] <= limit <= edges[-1]:
            ax.axvline(limit, color=colour, linewidth=1.4, zorder=5, linestyle=(0, (4, 2)))


def _finite(values: Sequence[float | None]) -> NDArray[np.floating]:
    array = np.array([np.nan if value is None else value for value in values], dtype=float)
    array = np.clip(array[np.isfinite(array)], -_LARGEST, _LARGEST)
    return np.where(np.abs(array) < 1 / _LARGEST, 0.0, array)


def _shares(values: NDArray[np.floating], edges: NDArray[np.floating]) -> NDArray[np.floating]:
    """The share of the values in each bin; the outer bins take what lies beyond them."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / max(1, len(values))


def _spans_decades(values: NDArray[np.floating]) -> bool:
    positive = values[values > 0]
    return len(positive) > 0 and bool((values >= 0).all()) and bool(positive.max() > 100 * positive.min())


def _range(values: NDArray[np.floating], limits: NDArray[np.floating]) -> tuple[float, float]:
    """The middle 99 % of the values and the limits; a range that is no longer than a point is widened."""
    ends = np.quantile(values, (0.005, 0.995), method="nearest") if len(values) else np.array([])
    both = np.concatenate([ends, limits])
    if not len(both):
        return 0.0, 1.0
    low, high = float(both.min()), float(both.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(low) or 1.0
        return low - 0.5 * room, low + 0.5 * room
    beyond = 0.06 * (high - low) if len(limits) else 0.0
    return low if low == 0 or not len(limits) else low - beyond, high + beyond


def _thinned(x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[NDArray[np.floating], ...]:
    """At most `_POINTS` points: mean x, mean, least and largest y of neighbours."""
    if len(x) <= _POINTS:
        return x, y, y, y
    groups = np.array_split(np.arange(len(x)), _POINTS)
    return (
        np.array([x[group].mean() for group in groups]),
        np.array([y[group].mean() for group in groups]),
        np.array([y[group].min() for group in groups]),
        np.array([y[group].max() for group in groups]),
    )


def _scale(ax: Axes, which: str, values: NDArray[np.floating], *, log: bool) -> None:
    if log and len(values):
        ax.set_yscale("log")
        ax.set_ylim(
            10.0 ** math.floor(math.log10(float(values.min())) - 0.05),
            10.0 ** math.ceil(math.log10(float(values.max())) + 0.05),
        )
    _ticks(ax, which, logarithmic=log, zero=None)


def _ticks(ax: Axes, which: str, *, logarithmic: bool, zero: float | None) -> None:
    axis = ax.xaxis if which == "x" else ax.yaxis
    if logarithmic:
        axis.set_major_locator(LogLocator(10, numticks=6))
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda v, _: "0" if zero and v <= 1.01 * zero else _power(v)))
    else:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.4g}".replace("e+0", "e").replace("e-0", "e-")))


def _power(value: float) -> str:
    """A tick of a logarithmic axis, without the mathematical fonts that a page does not have."""
    return f"10{str(round(math.log10(value))).translate(_SUPERSCRIPT)}" if value > 0 else ""


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of its own, no state shared with a user's pyplot; its texts and axes in the page's colour."""
    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.add_subplot()
    ax.tick_params(which="both", color=FOREGROUND, labelcolor=FOREGROUND, labelsize=9, length=3)
    ax.tick_params(which="minor", length=1.5)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(color=FOREGROUND, fontsize=9.5)
    ax.spines[["top", "right"]].set_visible(False)
    for spine in ax.spines.values():
        spine.set(color=FOREGROUND, alpha=0.6)
    ax.grid(axis="y", color=FOREGROUND, alpha=0.13, linewidth=0.8)
    ax.set_axisbelow(True)
    return figure, ax
