"""Knapsacks with several limits whose item values depend on a context: the benchmark of PyEPO.

Source: B. Tang and E. B. Khalil, PyEPO: a PyTorch-based end-to-end predict-then-optimize library, Math. Prog. Comp. 16
(2024), whose random numbers are reproduced here draw by draw; two limits of 20 as in D. McKenzie, S. Wu Fung and H. Heaton,
Differentiating Through Integer Linear Programs with Quadratic Regularization and Davis-Yin Splitting, TMLR (2024).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.decoders import Knapsack


@dataclass(frozen=True)
class Items:
    """The items of one data set and the limits on a selection: what does not depend on the context.

    Weights are uniform on 3.00, 3.01, ..., 7.99; they are the first numbers that PyEPO's generator draws.

    Args:
        count: number of items.
        limits: number of constraints.
        capacity: of each, whatever the number of items; 20 in the published tables.
        seed: of the data set; PyEPO's default is 135.

    Raises:
        ValueError: a count is below 1, or the capacity is not positive.

    Example:
        >>> from implicit_l2o.data.knapsack import Items
        >>> Items(3, limits=1).weights().tolist()
        [[4.59, 4.87, 5.19]]
    """

    count: int = 50
    limits: int = 2
    capacity: float = 20.0
    seed: int = 135

    def __post_init__(self) -> None:
        for name in ("count", "limits"):
            if getattr(self, name) < 1:
                raise ValueError(f"Items needs {name} >= 1; got {name}={getattr(self, name)}.")
        if not self.capacity > 0:
            raise ValueError(f"Items needs capacity > 0; got capacity={self.capacity}.")

    def weights(self) -> Float[Tensor, "limits items"]:
        """`W`, the weight of each item in each limit, in float64: a selection may fill a limit to the last digit."""
        return torch.from_numpy(_weights(np.random.RandomState(self.seed), self))

    def capacities(self) -> Float[Tensor, " limits"]:
        """The capacity of each limit."""
        return torch.full((self.limits,), self.capacity, dtype=torch.float64)

    def program(self) -> il2o.LinearProgram:
        """The relaxation `{x : W x <= capacity, 0 <= x <= 1}`; the bounds are clamps, and each limit has one slack."""
        return il2o.LinearProgram(A_ub=self.weights(), b_ub=self.capacities(), lower=0.0, upper=1.0)

    def decoder(self) -> Knapsack:
        """The selection of least cost, exactly; costs are minus the values."""
        return Knapsack(self.weights(), self.capacities())


def _weights(random: np.random.RandomState, items: Items) -> NDArray[np.float64]:
    return random.choice(range(300, 800), size=(items.limits, items.count)) / 100


@dataclass(frozen=True, eq=False)
class Sample:
    """Contexts with what they imply.

    Attributes:
        contexts: `(B, features)` what the model sees.
        values: `(B, items)` the values that came true, whole numbers; a model that learns from solutions alone may not read
            them in training.
        mean_values: `(B, items)` their conditional mean given the context (see `expected_ceiling`).
        selections: `(B, items)` the best selection under `values`, 0/1.
    """

    contexts: Float[Tensor, "B features"]
    values: Float[Tensor, "B items"]
    mean_values: Float[Tensor, "B items"]
    selections: Float[Tensor, "B items"]

    def __len__(self) -> int:
        return self.contexts.shape[0]


@dataclass(frozen=True, eq=False)
class SampleSet:
    """Training, validation and test samples of the same items, then more test samples.

    The first three are one data set of PyEPO; `more` goes on from there.
    """

    train: Sample
    validation: Sample
    test: Sample
    more: Sample


def draw(
    items: Items, n_samples: int, *, features: int = 5, degree: int = 2, noise: float = 0.05, more: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Contexts, values and conditional mean values, with the random numbers of PyEPO's `knapsack.genData`.

    With `B` in `{0, 1}^(items x features)` drawn once by fair coins and every context `d ~ N(0, I)`, item `j` is worth
    `ceil(m_j e_j)` with `m_j = 5 (((B d)_j / sqrt(features) + 3)^degree + 1) / 3.5^degree` and `e_j` uniform on
    `[1 - noise, 1 + noise]`.

    Args:
        items: of the knapsack; they bring the seed.
        n_samples: how many contexts are PyEPO's; their noise depends on it, since all contexts are drawn first.
        features: length of a context.
        degree: of the polynomial.
        noise: half-width of the multiplicative noise, in [0, 1].
        more: contexts that are drawn after those, with the same `B`; they change nothing before them.

    Raises:
        ValueError: a count or the degree is below 1, `more` is below 0, or the noise is outside [0, 1].

    Example:
        >>> from implicit_l2o.data.knapsack import Items, draw
        >>> contexts, values, mean_values = draw(Items(4), 2)
        >>> values[0].tolist()
        [8.0, 7.0, 8.0, 7.0]
    """
    for name, value in (("n_samples", n_samples), ("features", features), ("degree", degree)):
        if value < 1:
            raise ValueError(f"draw needs {name} >= 1; got {name}={value}.")
    if more < 0:
        raise ValueError(f"draw needs more >= 0; got more={more}.")
    if not 0.0 <= noise <= 1.0:
        raise ValueError(f"draw needs 0 <= noise <= 1; got noise={noise}.")
    random = np.random.RandomState(items.seed)  # the legacy generator is what PyEPO's data are made of
    _weights(random, items)
    B = random.binomial(1, 0.5, (items.count, features))
    parts = []
    for count in (n_samples, more):
        contexts = random.normal(0, 1, (count, features))
        mean = (contexts @ B.T / np.sqrt(features) + 3) ** degree + 1
        mean *= 5
        mean /= 3.5**degree  # in PyEPO's order: a value next to a whole number is rounded up from the same bits
        values = np.ceil(mean * random.uniform(1 - noise, 1 + noise, (count, items.count)))
        parts.append((contexts, values, expected_ceiling(mean, noise)))
    contexts, values, mean_values = (np.concatenate(pair) for pair in zip(*parts, strict=True))
    return contexts, values, mean_values


def expected_ceiling(mean: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """`E ceil(mean e)` for `e` uniform on `[1 - noise, 1 + noise]`, exactly.

    With the antiderivative `G(u) = k u - k (k - 1) / 2`, `k = ceil(u)`, of the ceiling it is `(G(b) - G(a)) / (b - a)`
    between the ends `a, b` of the interval. Values are rounded up, so on average it is half above `mean`.

    Args:
        mean: before noise and rounding.
        noise: half-width of the multiplicative noise, in [0, 1].

    Example:
        >>> import numpy as np
        >>> from implicit_l2o.data.knapsack import expected_ceiling
        >>> expected_ceiling(np.array([2.0, 2.5]), 0.1).round(6)  # from 1.8 to 2.2: as often rounded up to 2 as to 3
        array([2.5, 3. ])
    """
    a, b = mean * (1 - noise), mean * (1 + noise)
    flat = np.abs(b - a) < 1e-9  # there the quotient would be rounding
    return np.where(flat, np.ceil(mean), (_area(b) - _area(a)) / np.where(flat, 1.0, b - a))


def _area(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """The integral of the ceiling from 0 to `u`."""
    k = np.ceil(u)
    return k * u - k * (k - 1) / 2


def generate(
    items: Items,
    *,
    train: int = 800,
    validation: int = 100,
    test: int = 100,
    more: int = 1000,
    features: int = 5,
    degree: int = 2,
    noise: float = 0.05,
) -> SampleSet:
    """The splits, in float32, each context with its best selection.

    Args:
        items: of the knapsack; they bring the seed.
        train: training samples.
        validation: validation samples.
        test: test samples; with the two before they are one data set of PyEPO.
        more: further test samples; may be 0.
        features: length of a context.
        degree: of the value polynomial.
        noise: half-width of the multiplicative noise.

    Raises:
        ValueError: as `draw`; or a split is empty.

    Example:
        >>> from implicit_l2o.data.knapsack import Items, generate
        >>> samples = generate(Items(6), train=8, validation=4, test=4, more=2)
        >>> len(samples.train), len(samples.more), samples.test.selections.shape
        (8, 2, torch.Size([4, 6]))
    """
    for name, value in (("train", train), ("validation", validation), ("test", test)):
        if value < 1:
            raise ValueError(f"generate needs {name} >= 1; got {name}={value}.")
    first = train + validation + test
    drawn = draw(items, first, features=features, degree=degree, noise=noise, more=more)
    contexts, values, mean_values = (torch.from_numpy(array).to(torch.float32) for array in drawn)
    fields = (contexts, values, mean_values, items.decoder()(-values))
    parts = zip(*(tensor.split([train, validation, test, more]) for tensor in fields), strict=True)
    return SampleSet(*(Sample(*part) for part in parts))
