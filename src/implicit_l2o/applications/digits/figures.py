"""Figures of the digits: images with their labels and certificates, and what each certificate catches.

Texts and axes are in matplotlib's defaults, which the report sets to its page's colours; the labels in Okabe and Ito's.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.digits.examined import Examined

COLOURS = {il2o.Label.PASS: "#009e73", il2o.Label.WARN: "#e69f00", il2o.Label.FAIL: "#d55e00"}
_SHORT = {
    "distance to the fixed point (bound)": "equilibrium",
    "distance to the fixed point (estimate)": "equilibrium",
    "solve error / label margin": "margin",
    "doubt": "doubt",
    "latent distance": "distance",
}
_COLUMNS = 10


def draw_digit(figure: Figure, image: Tensor, answer: int | str, target: int | str | None) -> None:
    """One image with its predicted label, and the true one where it is known.

    Args:
        figure: empty.
        image: `(1 or 3, side, side)`, intensities in [0, 1].
        answer: the predicted class.
        target: the true class.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from implicit_l2o.applications.digits.figures import draw_digit
        >>> figure = Figure()
        >>> draw_digit(figure, torch.zeros(1, 8, 8), 3, 5)
        >>> figure.axes[0].get_title()
        'read as 3, is 5'
    """
    ax = figure.subplots()
    _show(ax, image)
    known = "" if target is None else f", is {target}"
    ax.set_title(f"read as {answer}{known}")


def certificate_gallery(
    examined: Mapping[str, Examined], *, noun: str = "digits", classes: Sequence[str] = tuple("0123456789")
) -> Figure:
    """Images with their predicted labels, framed by the worst certificate: typical, doubtful, strangers.

    Args:
        examined: the test images as `"test"`, and other kinds.
        noun: what the images are.
        classes: the names of the labels.
    """
    test = examined["test"]
    rows = [
        (f"typical\ntest {noun}", test, _one_a_class(test)),
        (f"least certain\ntest {noun}", test, _least_certain(test)),
    ]
    for kind, part in examined.items():
        if kind != "test":
            rows.append((f"{kind}\n(never seen)", part, np.arange(min(_COLUMNS, len(part.images)))))
    figure = _figure(10.4, 1.22 * len(rows) + 0.6)
    axes = figure.subplots(len(rows), _COLUMNS, squeeze=False)
    for row, (title, part, index) in enumerate(rows):
        axes[row, 0].set_ylabel(title, rotation=0, ha="right", va="center", labelpad=14, fontsize=10)
        for column in range(_COLUMNS):
            if column < len(index):
                _certified(axes[row, column], part, int(index[column]), classes)
            else:
                axes[row, column].set_axis_off()
    _verdict_legend(figure)
    figure.subplots_adjust(left=0.125, right=0.985, top=1 - 0.55 / figure.get_figheight(), bottom=0.045, hspace=0.55)
    return figure


def label_shares(examined: Mapping[str, Examined], *, noun: str = "digits") -> Figure:
    """Shares of PASS, WARN and FAIL by kind of image: the softmax's own confidence beside all certificates.

    Args:
        examined: by kind.
        noun: what the images are.
    """
    figure = _figure(10.4, 0.52 * len(examined) + 1.5)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, title in zip(axes, ("softmax confidence alone", "all certificates"), strict=True):
        for row, part in enumerate(examined.values()):
            labels = part.worst if ax is axes[1] else part.label("doubt")
            left = 0.0
            for label, colour in COLOURS.items():
                share = 100 * part.share(labels, label)
                ax.barh(row, share, left=left, color=colour, height=0.68)
                if share >= 5:
                    ax.text(left + share / 2, row, f"{share:.0f}", ha="center", va="center", color="white", fontsize=9)
                left += share
        ax.set(title=title, xlim=(0, 100), xlabel="share of images, %", yticks=range(len(examined)))
        ax.set_yticklabels([f"{kind} {noun}" if kind == "test" else kind for kind in examined])
        ax.tick_params(left=False)
        ax.spines[["top", "right", "left"]].set_visible(False)
    axes[0].invert_yaxis()
    _verdict_legend(figure)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.11, right=0.98, top=1 - 0.75 / height, bottom=0.55 / height, wspace=0.06)
    return figure


def _show(ax: Axes, image: Tensor) -> None:
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    ax.imshow(pixels.numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])


def _certified(ax: Axes, part: Examined, sample: int, classes: Sequence[str]) -> None:
    """One image; above it the predicted label, below it the certificates that do not pass."""
    verdict = il2o.Label(int(part.worst[sample]))
    _show(ax, part.images[sample])
    for spine in ax.spines.values():
        spine.set(color=COLOURS[verdict], linewidth=3.5)
    predicted = int(part.answer[sample])
    ax.set_title(classes[predicted], fontsize=10, pad=4)
    if part.target is not None and predicted != int(part.target[sample]):
        title = f"{classes[predicted]} (is {classes[int(part.target[sample])]})"
        ax.set_title(title, fontsize=10, pad=4, color=COLOURS[il2o.Label.FAIL])
    reasons = [
        _SHORT[name]
        for name, label in zip(part.names, part.labels[sample].tolist(), strict=True)
        if label == verdict and verdict != il2o.Label.PASS
    ]
    text = ", ".join(reasons[:2]) + (
        ",\n" + ", ".join(reasons[2:]) if reasons[2:] else ""
    )  # three are wider than an image
    ax.set_xlabel(text, fontsize=7.5, labelpad=3, color=COLOURS[verdict])


def _one_a_class(part: Examined) -> np.ndarray:
    """The image of median doubt of each class: neither picked for being easy nor for being hard."""
    doubt = part.value("doubt").numpy()
    target = part.answer if part.target is None else part.target
    members = [torch.nonzero(target == digit).flatten().numpy() for digit in range(_COLUMNS)]
    return np.array([of[np.argsort(doubt[of])[len(of) // 2]] for of in members if len(of)], dtype=int)


def _least_certain(part: Examined) -> np.ndarray:
    return np.argsort(-part.value("doubt").numpy())[:_COLUMNS]


def _figure(width: float, height: float) -> Figure:
    """A figure of its own: no window, no state shared with a user's pyplot."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _verdict_legend(figure: Figure) -> None:
    patches = [Patch(color=colour, label=label.name) for label, colour in COLOURS.items()]
    figure.legend(handles=patches, loc="upper right", ncols=3, frameon=False, fontsize=10)
