"""Images of reconstructions: panels with error and residual, methods side by side, and where certificates fail.

All images of a figure share one grey window, all errors one scale. Texts and axes are in matplotlib's defaults, which the
report sets to its page's colours; the labels are in Okabe and Ito's.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct.certificates import BOX
from implicit_l2o.applications.ct.measures import FIDELITY, REGULARISER
from implicit_l2o.training import Samples

COLOURS = {il2o.Label.PASS: "#009e73", il2o.Label.WARN: "#e69f00", il2o.Label.FAIL: "#d55e00"}
WINDOW = (0.0, 1.0)  # of the grey values, in scaled attenuation
_MARK = "#e69f00"
_ERROR_SCALE = 0.25  # where the colours of the signed error end
_NARROW = 6.5  # inches: below, four panels stand two by two
_ZOOM = 4  # a zoom shows this part of the side
_MAPS = {BOX: "outside [0, 1]", FIDELITY: r"$|A^T(Ax - d)|$", REGULARISER: "size of its force"}


class Verdict(NamedTuple):
    """What the certificates say of one image, for a title: the worst label, and the properties that have it."""

    label: il2o.Label
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: il2o.CertificateReport | Samples, sample: int) -> "Verdict":
        """From a report on a batch, or the examined samples of a test."""
        label = il2o.Label(int(report.worst[sample]))
        if label == il2o.Label.PASS:
            return cls(label)
        names = zip(report.names, report.labels[sample].tolist(), strict=True)
        return cls(label, tuple(name for name, value in names if value == label))

    def __str__(self) -> str:
        if len(self.reasons) > 2:
            return f"{self.label.name}: {len(self.reasons)} certificates"
        return self.label.name + (": " + ", ".join(self.reasons) if self.reasons else "")


def reconstruction(
    figure: Figure,
    x: Float[Tensor, "1 H W"],
    *,
    truth: Float[Tensor, "1 H W"] | None = None,
    misfit: Float[Tensor, "angles bins"] | None = None,
    relative: float | None = None,
    scores: str = "",
    verdict: Verdict | None = None,
) -> None:
    """One answer: the truth, the reconstruction, the signed error between them, and what of the sinogram it leaves.

    Args:
        figure: empty.
        x: the reconstruction.
        truth: where it is known.
        misfit: `A x - d`.
        relative: its norm over that of `d`, for its title.
        scores: such as PSNR and SSIM, for the title.
        verdict: of the certificates, for the title.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from implicit_l2o.applications.ct.figures import reconstruction
        >>> figure = Figure()
        >>> reconstruction(figure, torch.zeros(1, 16, 16), truth=torch.ones(1, 16, 16), misfit=torch.ones(6, 8))
        >>> [ax.get_title() for ax in figure.axes if ax.get_title()]
        ['truth', 'reconstruction', 'error', 'sinogram residual']
    """
    known = ("truth", "reconstruction", "error") if truth is not None else ("reconstruction",)
    panels = known if misfit is None else (*known, "sinogram residual")
    narrow = len(panels) == 4 and bool(figure.get_figwidth() < _NARROW)
    axes = figure.subplots(*((2, 2) if narrow else (1, len(panels))), squeeze=False).flat
    by_name = dict(zip(panels, axes, strict=True))
    region = busiest(x if truth is None else truth)
    bars = None if narrow else figure
    _grey(by_name["reconstruction"], x, region)
    if truth is not None:
        _grey(by_name["truth"], truth, region)
        _error(by_name["error"], x - truth, bars)
    if misfit is not None:
        _residual(by_name["sinogram residual"], misfit, bars, plain=narrow)
    beside = {
        "reconstruction": scores,
        "sinogram residual": "" if relative is None else f"{100 * relative:.2f} % of |d|",
    }
    for name, ax in by_name.items():
        parts = (name, beside.get(name, ""))
        ax.set_title((", " if narrow else "\n").join(filter(None, parts)), fontsize="small" if narrow else "medium")
    if verdict is not None:
        figure.suptitle(str(verdict), fontsize="medium", color=COLOURS[verdict.label])


class Answer(NamedTuple):
    """A method's image for `side_by_side`.

    Attributes:
        x: the image, `(1, H, W)`.
        misfit: `A x - d`, `(angles, bins)`.
        scores: such as PSNR and SSIM, one line.
        verdict: of the certificates.
    """

    x: Tensor
    misfit: Tensor
    scores: str = ""
    verdict: Verdict | None = None


def side_by_side(truth: Float[Tensor, "1 H W"], answers: Mapping[str, Answer]) -> Figure:
    """Several methods on one measurement: images, signed errors and sinogram residuals, each row on one scale.

    Args:
        truth: the true image, drawn first.
        answers: by the method's name.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.figures import Answer, side_by_side
        >>> figure = side_by_side(torch.zeros(1, 16, 16), {"FBP": Answer(torch.zeros(1, 16, 16), torch.zeros(6, 8))})
        >>> figure.axes[1].get_title()
        'FBP'
    """
    columns = len(answers) + 1
    figure = new_figure(1.95 * columns + 0.3, 6.3)
    axes = figure.subplots(3, columns, squeeze=False, height_ratios=(1.0, 1.0, 0.8))
    region = busiest(truth)
    _grey(axes[0, 0], truth, region)
    axes[0, 0].set_title("truth\n", fontsize="medium")
    scale = max(float(answer.misfit.abs().max()) for answer in answers.values())
    scale = min(scale, 4 * float(np.median([float(answer.misfit.abs().max()) for answer in answers.values()])))
    for column, (name, answer) in enumerate(answers.items(), start=1):
        _grey(axes[0, column], answer.x, region)
        axes[0, column].set_title("\n".join(filter(None, (name, answer.scores))), fontsize="medium")
        last = column == columns - 1
        _error(axes[1, column], answer.x - truth, figure if last else None)
        _residual(axes[2, column], answer.misfit, figure if last else None, scale=scale)
        if answer.verdict is not None:
            text = answer.verdict.label.name + "".join(f"\n{reason}" for reason in answer.verdict.reasons[:4])
            axes[2, column].set_xlabel(text, color=COLOURS[answer.verdict.label], fontsize="small")
    for row, name in ((1, "error"), (2, "sinogram residual")):
        axes[row, 0].axis("off")
        axes[row, 0].text(0.95, 0.5, name, ha="right", va="center", transform=axes[row, 0].transAxes)
    return figure


def where_it_fails(
    x: Float[Tensor, "1 H W"],
    maps: Mapping[str, Float[Tensor, "1 H W"]],
    *,
    scales: Mapping[str, float] | None = None,
    verdict: Verdict | None = None,
) -> Figure:
    """An image and, per pixel, each property of `certificate_maps`.

    Args:
        x: the image.
        maps: by the certificate's name.
        scales: where the colours of a map end, such as a high quantile over good answers; None for its largest value.
        verdict: of the certificates, for the title.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.figures import where_it_fails
        >>> figure = where_it_fails(torch.zeros(1, 16, 16), {"box violation": torch.zeros(1, 16, 16)})
        >>> figure.axes[1].get_title()
        'box violation'
    """
    figure = new_figure(2.5 * (len(maps) + 1), 2.7)
    axes = figure.subplots(1, len(maps) + 1, squeeze=False)[0]
    _grey(axes[0], x, None)
    axes[0].set_title("reconstruction", fontsize="medium")
    for ax, (name, values) in zip(axes[1:], maps.items(), strict=True):
        top = (scales or {}).get(name) or float(values.max()) or 1.0
        shown = ax.imshow(values[0].numpy(), cmap="magma", vmin=0.0, vmax=top, interpolation="nearest")
        _bare(ax)
        ax.set_title(name, fontsize="medium")
        ax.set_xlabel(_MAPS.get(name, ""), fontsize="small")
        _bar(figure, shown, ax, beyond="max" if float(values.max()) > top else "neither")
    if verdict is not None:
        figure.suptitle(str(verdict), fontsize="medium", color=COLOURS[verdict.label])
    return figure


def busiest(image: Float[Tensor, "1 H W"]) -> tuple[int, int, int]:
    """The square with the most variation, for a zoom: its first row, first column and side.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.figures import busiest
        >>> image = torch.zeros(1, 16, 16)
        >>> image[0, 9, 13] = 1.0
        >>> row, column, side = busiest(image)
        >>> row <= 9 < row + side and column <= 13 < column + side
        True
    """
    side = max(2, image.shape[-1] // _ZOOM)
    steps = image.diff(dim=1).abs()[:, :, 1:] + image.diff(dim=2).abs()[:, 1:, :]
    sums = torch.nn.functional.avg_pool2d(steps[None], side, stride=1)[0, 0]
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return row, column, side


def _grey(ax: Axes, image: Tensor, region: tuple[int, int, int] | None) -> None:
    """An image in the grey window; a square of it again, larger, in the corner away from it."""
    ax.imshow(image[0].numpy(), cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], interpolation="nearest")
    _bare(ax)
    if region is None:
        return
    row, column, side = region
    height, width = image.shape[1:]
    left, low = float(column + side / 2 < width / 2), float(row + side / 2 < height / 2)
    inset = ax.inset_axes((0.56 * left, 0.56 * (1 - low), 0.44, 0.44))
    part = image[0, row : row + side, column : column + side].numpy()
    inset.imshow(part, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], interpolation="nearest")
    _bare(inset)
    for spine in inset.spines.values():
        spine.set(color=_MARK, linewidth=1.2, visible=True)
    frame = np.array([column, column + side, column + side, column, column]) - 0.5
    ax.plot(frame, np.array([row, row, row + side, row + side, row]) - 0.5, color=_MARK, linewidth=1.0)


def _error(ax: Axes, error: Tensor, figure: Figure | None) -> None:
    shown = ax.imshow(error[0].numpy(), cmap="RdBu_r", vmin=-_ERROR_SCALE, vmax=_ERROR_SCALE, interpolation="nearest")
    _bare(ax)
    if figure is not None:
        _bar(figure, shown, ax, beyond="both" if float(error.abs().max()) > _ERROR_SCALE else "neither")


def _residual(
    ax: Axes, misfit: Tensor, figure: Figure | None, *, scale: float | None = None, plain: bool = False
) -> None:
    top = scale or float(misfit.abs().max()) or 1.0
    shown = ax.imshow(misfit.numpy(), cmap="PuOr_r", vmin=-top, vmax=top, interpolation="nearest", aspect="auto")
    ax.set(xticks=[], yticks=[])
    if not plain:
        ax.set_ylabel("angle", fontsize="small")
        ax.set_xlabel("detector", fontsize="small")
    if figure is not None:
        _bar(figure, shown, ax, beyond="both" if float(misfit.abs().max()) > top else "neither")


def _bar(figure: Figure, shown: object, ax: Axes, *, beyond: str) -> None:
    bar = figure.colorbar(shown, ax=ax, shrink=0.85, pad=0.02, extend=beyond)  # pyright: ignore[reportArgumentType]
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(labelsize="x-small", length=2)
    bar.ax.locator_params(nbins=4)


def _bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own: no window, no state shared with a user's pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
