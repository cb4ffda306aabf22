"""How decisions under predicted costs are judged: what they cost above the best ones, and where the model was in doubt."""

from typing import final

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric

from implicit_l2o.losses import regret
from implicit_l2o.training.records import Samples

_MODEL, _FLOOR = "#0072b2", "#888888"  # of Okabe and Ito's palette, which most kinds of colour blindness tell apart
_BINS = 10


class _ShareOfOptimalCost(Metric):
    """What was paid in excess, over what the best decisions cost; a subclass says what it adds."""

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    extra: Tensor
    optimal: Tensor

    def __init__(self) -> None:
        super().__init__()
        # In double precision, so that the sum does not depend on how the samples were batched.
        self.add_state("extra", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("optimal", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def compute(self) -> Float[Tensor, ""]:
        """The share so far; NaN before the first sample."""
        return (self.extra / self.optimal).float()


@final
class NormalizedRegret(_ShareOfOptimalCost):
    """`losses.normalized_regret` over all batches and processes: the sum of the regrets over that of the optimal costs.

    Example:
        >>> import torch
        >>> from implicit_l2o.training import NormalizedRegret
        >>> metric = NormalizedRegret()
        >>> metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 5.0]]), torch.tensor([[1.0, 0.0]]))
        >>> metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([[5.0, 2.0]]), torch.tensor([[0.0, 1.0]]))
        >>> metric.compute()
        tensor(0.7500)
    """

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "B n"], costs: Float[Tensor, "B n"], best: Float[Tensor, "B n"]
    ) -> None:
        """Add a batch of decisions `x`, with the costs that came true and the best decisions under them."""
        self.extra += regret(x.double(), costs.double(), best.double()).sum()
        self.optimal += (costs.double() * best.double()).sum(1).abs().sum()


@final
class ExpectedExcess(_ShareOfOptimalCost):
    """What the decisions cost on average over the noise above the best decisions that can be made from the contexts.

    It is `sum <m, x - x*(m)> / sum <c, x*(c)>` with `m` the conditional mean of the costs `c`: the regret above the floor,
    without the noise of the costs that came true, and so never negative.

    Example:
        >>> import torch
        >>> from implicit_l2o.training import ExpectedExcess
        >>> metric = ExpectedExcess()
        >>> x, best = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
        >>> costs, mean_costs = torch.tensor([[2.0, 5.0]]), torch.tensor([[3.0, 4.0]])
        >>> metric.update(x, costs, best, mean_costs, best_expected=best)
        >>> metric.compute()
        tensor(0.5000)
    """

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Float[Tensor, "B n"],
        costs: Float[Tensor, "B n"],
        best: Float[Tensor, "B n"],
        mean_costs: Float[Tensor, "B n"],
        best_expected: Float[Tensor, "B n"],
    ) -> None:
        """Add a batch of decisions `x`, with the best ones under the costs that came true and under their means."""
        self.extra += regret(x.double(), mean_costs.double(), best_expected.double()).sum()
        self.optimal += (costs.double() * best.double()).sum(1).abs().sum()


def regret_by_doubt(samples: Samples, answers: dict[str, tuple[Float[Tensor, " N"], Float[Tensor, " N"]]]) -> Figure:
    """The regret in ten groups of equal size, by how much in doubt the model was: its last property.

    Args:
        samples: examined; their last property is the doubt.
        answers: by their label, what the decisions of the model and then those of the best possible predictor lose, and
            what the best ones cost, per sample.
    """
    doubt = samples.values[:, -1].nan_to_num(nan=float("inf"))
    groups = [group for group in doubt.argsort(stable=True).tensor_split(_BINS) if len(group)]
    figure = Figure(figsize=(6.6, 3.6), layout="constrained")
    ax = figure.subplots()
    for (label, (extra, optimal)), colour, marker in zip(answers.items(), (_MODEL, _FLOOR), ("o-", "s--"), strict=True):
        heights = [float(extra[group].sum() / optimal[group].sum()) for group in groups]
        ax.plot([float(doubt[group].mean()) for group in groups], heights, marker, color=colour, label=label)
    ax.set(xlabel=samples.names[-1], ylabel="normalised regret", ylim=(0, None))
    ax.grid(alpha=0.25)
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure
