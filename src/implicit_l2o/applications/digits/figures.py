"""Figures of the digits experiment: labelled digits under certificates, what each certificate catches, the trainings."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

import implicit_l2o as il2o
from implicit_l2o.applications.digits.experiment import Examined, Outcome, Trained

COLOURS = {il2o.Label.PASS: "#2e8b57", il2o.Label.WARN: "#e0a030", il2o.Label.FAIL: "#c0392b"}
_MODES = {"jfb": ("JFB", "#1f5fa8"), "implicit": ("Implicit", "#8e44ad"), "explicit": ("explicit twin", "#888888")}
_OTHERS = ("#2a9d8f", "#d2691e", "#444444")
_SHORT = {
    "distance to the fixed point (bound)": "equilibrium",
    "solve error / label margin": "margin",
    "doubt": "doubt",
    "latent distance": "distance",
}
_COLUMNS = 10


def draw(outcome: Outcome, folder: Path) -> list[Path]:
    """Write all figures of one seed into `folder` as PNG files and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "digits_certificates.png": certificate_gallery(outcome),
        "digits_trust.png": label_shares(outcome),
        "digits_training.png": training_curves(outcome),
    }
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=150)
    return [folder / name for name in figures]


def certificate_gallery(outcome: Outcome) -> Figure:
    """Digits with their predicted labels, framed by the worst certificate: typical, doubtful, mistaken, and strangers."""
    test = outcome.examined["test"]
    rows = [
        ("typical\ntest digits", test, _one_a_class(test)),
        ("least certain\ntest digits", test, _least_certain(test)),
        *(
            (f"{name}\n(never seen)", part, np.arange(min(_COLUMNS, len(part.images))))
            for name, part in outcome.examined.items()
            if name != "test"
        ),
    ]
    figure = _figure(10.4, 1.22 * len(rows) + 1.0)
    axes = figure.subplots(len(rows), _COLUMNS, squeeze=False)
    for row, (title, part, index) in enumerate(rows):
        axes[row, 0].set_ylabel(title, rotation=0, ha="right", va="center", labelpad=14, fontsize=10)
        for column in range(_COLUMNS):
            if column < len(index):
                _digit(axes[row, column], part, int(index[column]))
            else:
                axes[row, column].set_axis_off()
    figure.suptitle("Predicted labels, and whether to trust them", x=0.02, ha="left", fontsize=13, fontweight="bold")
    _verdict_legend(figure)
    figure.subplots_adjust(left=0.125, right=0.985, top=1 - 0.8 / figure.get_figheight(), bottom=0.035, hspace=0.5)
    return figure


def _digit(ax: Axes, part: Examined, sample: int) -> None:
    """One image; above it the predicted label, below it the certificates that do not pass."""
    verdict = il2o.Label(int(part.report.worst[sample]))
    ax.imshow(part.images[sample, 0].numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(color=COLOURS[verdict], linewidth=3.5)
    predicted = int(part.prediction.labels[sample])
    text, mistaken = str(predicted), False
    if part.labels is not None:
        mistaken = predicted != int(part.labels[sample])
        text += f" (is {int(part.labels[sample])})" if mistaken else ""
    ax.set_title(text, fontsize=10, pad=4, color=COLOURS[il2o.Label.FAIL] if mistaken else "black")
    reasons = [
        _SHORT[name]
        for name, label in zip(part.report.names, part.report.labels[sample].tolist(), strict=True)
        if label == verdict and verdict != il2o.Label.PASS
    ]
    ax.set_xlabel(", ".join(reasons), fontsize=7.5, labelpad=3, color=COLOURS[verdict])


def _one_a_class(part: Examined) -> np.ndarray:
    """The image of median doubt of each class: neither picked for being easy nor for being hard."""
    doubt = _doubt(part)
    chosen = []
    for digit in range(_COLUMNS):
        members = np.flatnonzero(part.labels.numpy() == digit) if part.labels is not None else np.array([], int)
        if len(members):
            chosen.append(members[np.argsort(doubt[members])[len(members) // 2]])
    return np.array(chosen, dtype=int)


def _least_certain(part: Examined) -> np.ndarray:
    return np.argsort(-_doubt(part))[:_COLUMNS]


def _doubt(part: Examined) -> np.ndarray:
    return part.report.values[:, part.report.names.index("doubt")].numpy()


def label_shares(outcome: Outcome) -> Figure:
    """Shares of PASS, WARN and FAIL by kind of image: the softmax's own confidence beside all certificates."""
    kinds = list(outcome.examined)
    figure = _figure(10.4, 0.52 * len(kinds) + 1.7)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, title in zip(axes, ("softmax confidence alone", "all certificates"), strict=True):
        for row, kind in enumerate(kinds):
            report = outcome.examined[kind].report
            labels = report.worst if ax is axes[1] else report.labels[:, report.names.index("doubt")]
            left = 0.0
            for label, colour in COLOURS.items():
                share = 100 * float((labels == label).double().mean())
                ax.barh(row, share, left=left, color=colour, height=0.68)
                if share >= 5:
                    ax.text(left + share / 2, row, f"{share:.0f}", ha="center", va="center", color="white", fontsize=9)
                left += share
        ax.set(title=title, xlim=(0, 100), xlabel="share of images, %", yticks=range(len(kinds)))
        ax.set_yticklabels([f"{kind} digits" if kind == "test" else kind for kind in kinds])
        ax.tick_params(left=False)
        ax.spines[["top", "right", "left"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.suptitle("What the certificates catch", x=0.02, ha="left", fontsize=13, fontweight="bold")
    _verdict_legend(figure)
    figure.subplots_adjust(
        left=0.11, right=0.98, top=1 - 0.95 / figure.get_figheight(), bottom=0.55 / figure.get_figheight(), wspace=0.06
    )
    return figure


def training_curves(outcome: Outcome) -> Figure:
    """Validation accuracy by epoch and by time, and the cost of each mode."""
    figure = _figure(10.4, 3.9)
    by_epoch, by_time, cost = figure.subplots(1, 3, width_ratios=(3, 3, 2.7))
    for (name, trained), fallback in zip(outcome.trained.items(), _cycle(len(outcome.trained)), strict=True):
        title, colour = _MODES.get(name, (name, fallback))
        accuracy = 100 * np.array([epoch["accuracy"] for epoch in trained.history])
        epochs = np.arange(1, len(accuracy) + 1)
        for ax, at in ((by_epoch, epochs), (by_time, np.cumsum(trained.seconds))):
            ax.plot(at, accuracy, color=colour, label=title, linewidth=1.8)
            ax.plot(at[trained.best_epoch], accuracy[trained.best_epoch], "o", color=colour, markersize=6)
    by_epoch.set(xlabel="epoch", ylabel="validation accuracy, %", title="by epoch (dot: weights kept)")
    by_epoch.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_time.set(xlabel="seconds of training", title="by time")
    by_epoch.legend(frameon=False, loc="lower right")
    best = max(epoch["accuracy"] for trained in outcome.trained.values() for epoch in trained.history)
    for ax in (by_epoch, by_time):
        ax.set_ylim(90, max(100 * best + 0.5, 95))
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    _cost_table(cost, outcome)
    figure.suptitle(
        "The same first weights and batches, different gradients", x=0.02, ha="left", fontsize=13, fontweight="bold"
    )
    figure.subplots_adjust(left=0.07, right=0.985, top=0.8, bottom=0.14, wspace=0.24)
    return figure


def _cost_table(ax: Axes, outcome: Outcome) -> None:
    ax.set_axis_off()
    rows = [_cost_row(name, trained) for name, trained in outcome.trained.items()]
    rows.append(["logistic regression", f"{100 * outcome.logistic_regression:.1f}", "", ""])
    rows.append(["constant answer", f"{100 * outcome.constant:.1f}", "", ""])
    table = ax.table(
        rows,
        colLabels=["", "test\n%", "s per\nepoch", "peak\nMB"],
        colWidths=[0.58, 0.17, 0.19, 0.17],
        cellLoc="right",
        bbox=Bbox.from_bounds(-0.06, 0.2, 1.08, 0.8),
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    for (_, column), cell in table.get_celld().items():
        cell.set_linewidth(0.4)
        if column == 0:
            cell.get_text().set_horizontalalignment("left")


def _cost_row(name: str, trained: Trained) -> list[str]:
    title = _MODES.get(name, (name, ""))[0]
    numbers = (100 * trained.test_accuracy, trained.seconds_per_epoch, trained.peak_memory / 1e6)
    return [title, *(f"{number:.{digits}f}" for number, digits in zip(numbers, (1, 2, 1), strict=True))]


def _cycle(count: int) -> list[str]:
    return [_OTHERS[i % len(_OTHERS)] for i in range(count)]


def _figure(width: float, height: float) -> Figure:
    """A figure of its own: no window, no state shared with a user's pyplot."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _verdict_legend(figure: Figure) -> None:
    patches = [Patch(color=colour, label=label.name) for label, colour in COLOURS.items()]
    figure.legend(handles=patches, loc="upper right", ncols=3, frameon=False, fontsize=10)
