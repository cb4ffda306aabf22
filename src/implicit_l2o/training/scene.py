"""How `il2o play` draws what an application solves for: as the application says, or by the shape of the values."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o

_LARGEST = 192  # pixels along a side: more cannot be told apart on a page, and a frame is stored for every one of them
_BARS = 4096  # values of a vector that is drawn

Split: TypeAlias = tuple[Tensor, Callable[[Tensor], il2o.Inference]]


class AbstractPicture(ABC):
    """How values are laid out on a page: the same for every iterate, the target and a gradient."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many values an iterate has."""

    @abstractmethod
    def arrange(self, values: Float[Tensor, "F *shape"]) -> Float[np.ndarray, "F shown"]:
        """The numbers that are drawn, in the order of the layout."""

    @abstractmethod
    def layout(self) -> dict[str, Any]:
        """What the page needs to draw them: `"kind"` and its geometry, plain JSON values."""


@final
@dataclass(frozen=True)
class Pixels(AbstractPicture):
    """Values on a grid: one channel in greys (or as a heat map), three as colours, others side by side.

    Large images are averaged over squares of pixels.

    Args:
        height: rows.
        width: columns.
        channels: images in the values.
        low: the value that is black; None takes the least one.
        high: the value that is white; None takes the largest one.
        heat: one channel in shades of one colour, for numbers that are no grey values.

    Example:
        >>> import torch
        >>> from implicit_l2o.training import Pixels
        >>> Pixels(2, 3, channels=4).arrange(torch.zeros(5, 4, 2, 3)).shape  # four images, two by two
        (5, 24)
    """

    height: int
    width: int
    channels: int = field(default=1, kw_only=True)
    low: float | None = field(default=None, kw_only=True)
    high: float | None = field(default=None, kw_only=True)
    heat: bool = field(default=False, kw_only=True)

    @property
    def size(self) -> int:
        """All channels together."""
        return self.channels * self.height * self.width

    def arrange(self, values: Float[Tensor, "F *shape"]) -> Float[np.ndarray, "F shown"]:
        """Row by row, the channels side by side; of colours the channel last."""
        images = values.detach().double().reshape(len(values), self.channels, self.height, self.width)
        factor = self._factor
        if factor > 1:
            images = torch.nn.functional.avg_pool2d(images, factor, ceil_mode=True)
        if self.channels == 3:
            return images.permute(0, 2, 3, 1).flatten(1).numpy()
        across, down = self._tiles
        missing = across * down - self.channels
        images = torch.cat([images, images.new_zeros(len(images), missing, *images.shape[2:])], dim=1)
        rows = images.unflatten(1, (down, across)).permute(0, 1, 3, 2, 4)
        return rows.flatten(1).numpy()

    def layout(self) -> dict[str, Any]:
        """Kind `pixels`, its size, window and colours."""
        across, down = (1, 1) if self.channels == 3 else self._tiles
        height, width = (math.ceil(n / self._factor) for n in (self.height, self.width))
        return {
            "kind": "pixels",
            "height": down * height,
            "width": across * width,
            "colours": self.channels == 3,
            "heat": self.heat,
            "low": self.low,
            "high": self.high,
        }

    @property
    def _factor(self) -> int:
        return math.ceil(max(self.height, self.width) / _LARGEST)

    @property
    def _tiles(self) -> tuple[int, int]:
        across = min(self.channels, math.ceil(math.sqrt(self.channels * self.height / self.width)))
        return across, math.ceil(self.channels / across)


@final
@dataclass(frozen=True, eq=False)
class Edges(AbstractPicture):
    """Values on the edges of a graph, as wide as they are large: a path, the flow on roads.

    Args:
        lines: both ends of every edge in the plane, `(E, 2, 2)`, the second coordinate upwards.
        marks: places with a letter or two.

    Raises:
        ValueError: the lines have another shape or are not finite.

    Example:
        >>> import numpy as np
        >>> from implicit_l2o.training import Edges
        >>> Edges(np.array([[[0.0, 0.0], [4.0, 2.0]]]), marks={"s": (0.0, 0.0)}).layout()["lines"]
        [[0.0, 0.5, 1.0, 0.0]]
    """

    lines: Float[np.ndarray, "E 2 2"]
    marks: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.lines.ndim != 3 or self.lines.shape[1:] != (2, 2) or not np.isfinite(self.lines).all():
            raise ValueError(f"Edges needs finite lines of shape (E, 2, 2); got shape {self.lines.shape}.")

    @property
    def size(self) -> int:
        """One value an edge."""
        return len(self.lines)

    def arrange(self, values: Float[Tensor, "F *shape"]) -> Float[np.ndarray, "F shown"]:
        """As they are."""
        return values.detach().double().flatten(1).numpy()

    def layout(self) -> dict[str, Any]:
        """Kind `edges`, with the places in a box whose longer side is 1, downwards."""
        ends = self.lines.reshape(-1, 2)
        low, high = ends.min(0), ends.max(0)
        scale = float((high - low).max()) or 1.0

        def place(point: Any) -> list[float]:
            return [
                round(float((point[0] - low[0]) / scale), 4) + 0.0,
                round(float((high[1] - point[1]) / scale), 4) + 0.0,
            ]

        box = [round(float(side), 4) for side in (high - low) / scale]
        return {
            "kind": "edges",
            "box": box,
            "lines": [[*place(line[0]), *place(line[1])] for line in self.lines],
            "marks": [[name, *place(point)] for name, point in self.marks.items()],
        }


@final
@dataclass(frozen=True)
class Bars(AbstractPicture):
    """A vector: bars while they can be told apart, else a line.

    Args:
        length: of the vector.
        names: of its components; none for their numbers.
        low: where the axis begins; None takes the least value.
        high: where it ends; None takes the largest one.

    Raises:
        ValueError: there are names, but not one for each component.

    Example:
        >>> from implicit_l2o.training import Bars
        >>> Bars(2, names=("no", "yes"), low=0.0, high=1.0).layout()["names"]
        ['no', 'yes']
    """

    length: int
    names: Sequence[str] = field(default=(), kw_only=True)
    low: float | None = field(default=None, kw_only=True)
    high: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.names and len(self.names) != self.length:
            raise ValueError(f"Bars needs a name for each of {self.length} components; got {len(self.names)}.")

    @property
    def size(self) -> int:
        """One value a component."""
        return self.length

    def arrange(self, values: Float[Tensor, "F *shape"]) -> Float[np.ndarray, "F shown"]:
        """As they are; of very long vectors the first components."""
        return values.detach().double().flatten(1)[:, :_BARS].numpy()

    def layout(self) -> dict[str, Any]:
        """Kind `bars`, with the names and the ends of the axis."""
        return {"kind": "bars", "names": list(self.names), "low": self.low, "high": self.high}


@final
@dataclass(frozen=True, kw_only=True)
class Scene:
    """What `il2o play` shows of a task's solves; without any argument it goes by the shapes.

    Args:
        picture: how the values of an iterate are laid out; None for `picture_of` their shape.
        values: what is drawn of an inference, `(B, *shape)`; None takes `x`.
        values_name: what that is, in words.
        target: the right values from a batch, shaped alike; None takes `batch[1]` where it has the shape of `x`.
        inputs: how an input is laid out, where it should be seen; None shows pictures alone.
        split: from inputs `d` to the parameters of the problem and what makes an inference of them, `(p, solve)` with
            `solve(p)` what `infer(d)` gives: the gradients that are compared are those in `p`. None takes `d` itself.
        parameters_name: what the parameters are, in words.

    Example:
        >>> import torch
        >>> from implicit_l2o.training import Bars, Scene
        >>> scene = Scene(picture=Bars(2, names=("no", "yes")), values=lambda inference: inference.x.softmax(1))
        >>> scene.values_name
        'answer x'
    """

    picture: AbstractPicture | None = None
    values: Callable[[il2o.Inference], Tensor] | None = None
    values_name: str = "answer x"
    target: Callable[[Sequence[Tensor]], Tensor | None] | None = None
    inputs: AbstractPicture | None = None
    split: Callable[[Tensor], Split] | None = None
    parameters_name: str = "input d"


def picture_of(shape: Sequence[int]) -> AbstractPicture:
    """The layout that a sample's shape suggests: an image, several, a matrix as a heat map, or a vector.

    Args:
        shape: of one sample, without the batch.

    Example:
        >>> from implicit_l2o.training import picture_of
        >>> picture_of((1, 28, 28)).layout()["kind"], picture_of((10,)).layout()["kind"]
        ('pixels', 'bars')
    """
    sides = [int(n) for n in shape]
    if len(sides) == 3:
        return Pixels(sides[1], sides[2], channels=sides[0])
    if len(sides) == 2 and min(sides) > 1:
        return Pixels(sides[0], sides[1], heat=True)
    return Bars(math.prod(sides))
