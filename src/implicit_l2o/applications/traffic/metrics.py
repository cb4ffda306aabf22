"""How near predicted flows are to the equilibria, link by link and as a whole."""

from abc import ABC, abstractmethod
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

_FLOOR = 1e-3  # in the denominator of the published score


def relative_errors(x: Float[Tensor, "B E"], target: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
    """`|x - v| / (|v| + 1e-3)`, link by link."""
    return (x - target).abs() / (target.abs() + _FLOOR)


class _AbstractMean(Metric, ABC):
    """A mean over all samples."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, x: Tensor, target: Tensor) -> None:
        """Add a batch."""
        self.total += self.score(x.double(), target.double()).sum()
        self.count += len(x)

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.count

    @abstractmethod
    def score(self, x: Tensor, target: Tensor) -> Float[Tensor, " B"]:
        """Per sample."""


@final
class Trafix(_AbstractMean):
    """The share of links, over all samples, whose flow is predicted within a relative error (published as TRAFIX), in %.

    Args:
        within: the relative error `|x - v| / (|v| + 1e-3)`.

    Raises:
        ValueError: `within` is not positive.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.traffic.metrics import Trafix
        >>> metric = Trafix(5e-3)
        >>> metric.update(torch.tensor([[1.0, 2.004]]), torch.tensor([[1.1, 2.0]]))
        >>> float(metric.compute())
        50.0
    """

    higher_is_better = True

    def __init__(self, within: float) -> None:
        if not within > 0:
            raise ValueError(f"Trafix needs within > 0; got {within}.")
        super().__init__()
        self.within = within

    def score(self, x: Tensor, target: Tensor) -> Tensor:
        """Per sample."""
        return 100.0 * (relative_errors(x, target) < self.within).double().mean(1)


@final
class RelativeError(_AbstractMean):
    """`|x - v| / |v|` in the Euclidean norm, the mean over the samples.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.traffic.metrics import RelativeError
        >>> metric = RelativeError()
        >>> metric.update(torch.tensor([[3.0, 5.0]]), torch.tensor([[3.0, 4.0]]))
        >>> round(float(metric.compute()), 3)
        0.2
    """

    higher_is_better = False

    def score(self, x: Tensor, target: Tensor) -> Tensor:
        """Per sample."""
        return (x - target).norm(dim=1) / target.norm(dim=1)


@final
class SquaredError(_AbstractMean):
    """The mean squared error of a link's flow.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.traffic.metrics import SquaredError
        >>> metric = SquaredError()
        >>> metric.update(torch.tensor([[3.0, 5.0]]), torch.tensor([[3.0, 3.0]]))
        >>> float(metric.compute())
        2.0
    """

    higher_is_better = False

    def score(self, x: Tensor, target: Tensor) -> Tensor:
        """Per sample."""
        return (x - target).square().mean(1)


def scores(x: Float[Tensor, "B E"], target: Float[Tensor, "B E"]) -> dict[str, float]:
    """All of them, for predictions that are at hand."""
    found: dict[str, Any] = {}
    for name, metric in (
        ("trafix_5e-3", Trafix(5e-3)),
        ("trafix_1e-2", Trafix(1e-2)),
        ("relative_error", RelativeError()),
        ("mse", SquaredError()),
    ):
        metric.update(x, target)
        found[name] = float(metric.compute())
    return found
