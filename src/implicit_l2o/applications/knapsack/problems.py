"""The cells of the knapsack table."""

from dataclasses import dataclass

from implicit_l2o.applications.knapsack.data import KnapsackData
from implicit_l2o.data.knapsack import Items

BATCH = 64


@dataclass(frozen=True)
class Problem:
    """One cell of the table: how values are drawn, and for how many items.

    Args:
        degree: of the value polynomial.
        noise: half-width of the noise.
        count: number of items.
        seed: of the data, and of the training.
    """

    degree: int
    noise: float
    count: int
    seed: int

    @property
    def items(self) -> Items:
        """The items of the data set."""
        return Items(self.count, seed=self.seed)

    def data(self) -> KnapsackData:
        """The protocol's splits, and 1000 more test contexts."""
        return KnapsackData(items=self.items, degree=self.degree, noise=self.noise, batch_size=BATCH, seed=0)

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"degree_{self.degree}/{self.count}/{self.seed}"
