"""Charts of reconstructions: how the inferences converge, and which answers fail which certificate."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from implicit_l2o.applications.ct.figures import new_figure
from implicit_l2o.applications.ct.findings import ANY, SOLVE, Examined

# Of Okabe and Ito's palette, which most kinds of colour blindness tell apart.
_GROUPS = {"test": "#0072b2", "phantom": "#d55e00", "sinogram": "#cc79a7", "signal": "#888888", "method": "#e69f00"}
_MODEL, _LIMIT = "#0072b2", "#d55e00"


def convergence(trace: Float[Tensor, "checks N"], tolerance: float, *, every: int = 1) -> tuple[Figure, str]:
    """How the relative residual of the test inferences falls with the iteration: median and spread, and its caption.

    Args:
        trace: by iteration and image, past the tolerance.
        tolerance: at which an inference stops.
        every: iterations between two rows of the trace.
    """
    values = trace.clamp_min(torch.finfo(trace.dtype).tiny).numpy()
    figure = new_figure(6.6, 3.6)
    ax = figure.subplots()
    steps = every * np.arange(1, len(values) + 1)
    for low, high, shade, name in ((0.0, 1.0, 0.15, "all"), (0.05, 0.95, 0.3, "5 to 95 %")):
        between = np.quantile(values, (low, high), axis=1)
        ax.fill_between(steps, *between, color=_MODEL, alpha=shade, linewidth=0, label=name)
    ax.plot(steps, np.median(values, axis=1), color=_MODEL, linewidth=2, label="median")
    ax.axhline(tolerance, color=_LIMIT, linestyle="--", linewidth=1.3, label="tolerance")
    below = values <= tolerance
    reached = below.any(axis=0)
    ax.set(yscale="log", xlabel="iteration", ylabel=r"relative residual $|T(z) - z| / |x|$", xlim=(steps[0], steps[-1]))
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    text = (
        f"{int(reached.sum())} of {values.shape[1]} test inferences reach the tolerance within {steps[-1]} iterations"
    )
    if reached.any():
        text += f", the median one after {int(np.median(steps[below[:, reached].argmax(axis=0)]))}"
    return figure, text + "; the curves go on past it."


def fail_shares(examined: Sequence[Examined]) -> tuple[Figure, str]:
    """Which share of each kind of answer fails which certificate, as bars, and the caption.

    A certificate that is not asked of a kind (the residual of a solve, of an answer that none made) has no bar there.

    Args:
        examined: from `findings.demonstrate`.
    """
    shares = [part.fail_shares() for part in examined]
    names = sorted(dict.fromkeys(name for by_name in shares for name in by_name), key=(SOLVE, ANY).__contains__)
    figure = new_figure(1.6 + 1.25 * len(names), 0.3 * len(examined) + 0.9)
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, names, strict=True):
        for row, part in enumerate(examined):
            share = shares[row].get(name)
            if share is None:
                ax.text(2, row, "-", va="center", fontsize="small")
                continue
            ax.barh(row, 100 * share, color=_GROUPS[part.group], height=0.72)
            right = share > 0.6
            place = {"ha": "right", "color": "white"} if right else {"ha": "left"}
            ax.text(
                100 * share + (-3 if right else 3), row, f"{100 * share:.0f}", va="center", fontsize="small", **place
            )
        ax.set(xlim=(0, 100), xticks=[0, 50, 100], yticks=range(len(examined)))
        ax.set_title(name.replace(" (bound)", "\n(bound)").replace(" ", "\n", 1), fontsize="small")
        ax.tick_params(left=False, labelsize="small")
        ax.spines[["top", "right", "left"]].set_visible(False)
    axes[0].set_yticklabels([part.kind for part in examined])
    axes[0].invert_yaxis()
    figure.supxlabel("share that fails, %", fontsize="small")
    return figure, (
        "Which share of the answers fails which certificate. Blue: to test measurements, where the calibrated ones fail at "
        "the chosen level. Vermillion: to phantoms of other kinds; purple: to sinograms that went wrong. Grey: the truth, "
        "and answers to another measurement. Orange: other methods' answers to the test measurements."
    )
