"""The default drawing of one sample: pictures as pictures, short vectors as bars, long ones as lines."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

_ANSWER, _TARGET = "#0072b2", "#888888"  # Okabe and Ito's blue, and a grey that shows on light and dark
_BARS = 60  # a longer vector is drawn as a line


def draw_vector(figure: Figure, sample: Mapping[str, Tensor]) -> None:
    """Draw the answer beside the target, after the inputs where they are a picture.

    Args:
        figure: empty.
        sample: `"answer"` and, where known, `"inputs"` and `"target"`, without the batch dimension.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from implicit_l2o.training.drawing import draw_vector
        >>> figure = Figure()
        >>> draw_vector(figure, {"answer": torch.tensor([0.2, 0.8]), "target": torch.tensor([0.0, 1.0])})
        >>> len(figure.axes)
        1
    """
    pictures = {
        name: sample[name].squeeze() for name in ("inputs", "answer", "target") if _is_picture(sample.get(name))
    }
    others = {
        name: sample[name].detach().flatten()
        for name in ("answer", "target")
        if name in sample and name not in pictures
    }
    axes = figure.subplots(1, max(1, len(pictures) + bool(others)), squeeze=False)[0]
    for ax, (name, picture) in zip(axes, pictures.items(), strict=False):
        ax.imshow(picture.detach().numpy(), cmap="gray")
        ax.set(title=name, xticks=[], yticks=[])
    if others:
        _vectors(axes[-1], others)


def _is_picture(value: Tensor | None) -> bool:
    return value is not None and value.squeeze().ndim == 2


def _vectors(ax: Axes, vectors: Mapping[str, Tensor]) -> None:
    answer = vectors.get("answer")
    size = max(len(vector) for vector in vectors.values())
    if answer is not None and size == 1:
        ax.axis("off")
        text = "\n".join(f"{name}: {vector.item():.4g}" for name, vector in vectors.items())
        ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=14)
        return
    for shift, (name, vector) in zip((-0.2, 0.2), vectors.items(), strict=False):
        colour = _ANSWER if name == "answer" else _TARGET
        if size <= _BARS:
            ax.bar([i + shift for i in range(len(vector))], vector.tolist(), width=0.4, color=colour, label=name)
        else:
            ax.plot(vector.tolist(), color=colour, linewidth=1.2, label=name)
    ax.set_xlabel("component")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
