"""Travelling salesmen whose edge costs depend on a context: distances between cities plus a part that the features move.

Source: B. Tang and E. B. Khalil, PyEPO: a PyTorch-based end-to-end predict-then-optimize library for linear and integer
programming, Math. Prog. Comp. 16 (2024), section 5.3, whose random numbers are reproduced here draw by draw.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from implicit_l2o.decoders import TravellingSalesman


@dataclass(frozen=True, eq=False)
class Drawn:
    """What the generator drew, in float64.

    Attributes:
        cities: `(n, 2)` places on the map.
        contexts: `(N, features)`.
        costs: `(N, edges)` that came true, rounded to four decimals as PyEPO's are.
        mean_costs: `(N, edges)` their conditional mean given the context, but for the rounding.
    """

    cities: NDArray[np.float64]
    contexts: NDArray[np.float64]
    costs: NDArray[np.float64]
    mean_costs: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """Contexts with what they imply.

    Attributes:
        contexts: `(B, features)` what the model sees.
        costs: `(B, edges)` the costs that came true; no model that learns from solutions alone may read them in training.
        mean_costs: `(B, edges)` their conditional mean given the context.
        tours: `(B, edges)` the cheapest tour under `costs`, 0/1.
    """

    contexts: Float[Tensor, "B features"]
    costs: Float[Tensor, "B edges"]
    mean_costs: Float[Tensor, "B edges"]
    tours: Float[Tensor, "B edges"]

    def __len__(self) -> int:
        return self.contexts.shape[0]


@dataclass(frozen=True, eq=False)
class TravellingSalesmanData:
    """The cities and the training, validation and test samples, drawn in this order from one generator."""

    cities: Float[Tensor, "n 2"]
    train: Sample
    validation: Sample
    test: Sample


def draw(
    n_samples: int, *, n_cities: int, features: int = 5, degree: int = 4, noise: float = 0.5, seed: int = 135
) -> Drawn:
    """Cities, contexts, costs and conditional mean costs, with the random numbers of PyEPO's `tsp.genData`.

    Half of the cities are uniform on `[-2, 2]^2`, the others `N(0, I)`. With `B` drawn once, each entry 0 or uniform on
    `[-2, 2]` by a fair coin, and every context `d ~ N(0, I)`, edge `j` has the mean cost
    `distance_j + ((B d)_j / sqrt(features) + 3)^degree / 3^(degree - 1)`; a factor uniform on `[1 - noise, 1 + noise]`
    multiplies the second part. Edges are numbered as in `TravellingSalesman`.

    Args:
        n_samples: how many contexts; the noise depends on it (all contexts are drawn first), as in PyEPO.
        n_cities: at least 3.
        features: length of a context.
        degree: of the polynomial; the larger, the less a linear model can explain.
        noise: half-width of the multiplicative noise, in [0, 1].
        seed: of `numpy.random.RandomState`.

    Raises:
        ValueError: a count or the degree is below its least, or the noise is outside [0, 1].

    Example:
        >>> from implicit_l2o.data.travelling_salesman import draw
        >>> drawn = draw(2, n_cities=5)
        >>> drawn.costs.shape, drawn.contexts[0].round(3).tolist()
        ((2, 10), [0.841, 0.254, -0.783, -0.133, -0.095])
    """
    counts = (("n_samples", n_samples, 1), ("n_cities", n_cities, 3), ("features", features, 1), ("degree", degree, 1))
    for name, value, least in counts:
        if value < least:
            raise ValueError(f"draw needs {name} >= {least}; got {name}={value}.")
    if not 0.0 <= noise <= 1.0:
        raise ValueError(f"draw needs 0 <= noise <= 1; got noise={noise}.")
    random = np.random.RandomState(seed)  # the legacy generator is what PyEPO's data are made of
    half, edges = n_cities // 2, n_cities * (n_cities - 1) // 2
    cities = np.concatenate([random.uniform(-2, 2, (half, 2)), random.normal(0, 1, (n_cities - half, 2))])
    B = random.binomial(1, 0.5, (edges, features)) * random.uniform(-2, 2, (edges, features))
    contexts = random.normal(0, 1, (n_samples, features))
    moved = (contexts @ B.T / np.sqrt(features) + 3) ** degree / 3 ** (degree - 1)
    first, second = np.triu_indices(n_cities, 1)
    distances = np.linalg.norm(cities[first] - cities[second], axis=1)
    factor = random.uniform(1 - noise, 1 + noise, (n_samples, edges))
    return Drawn(cities, contexts, np.around(distances + moved * factor, decimals=4), distances + moved)


def generate(
    *,
    n_cities: int = 20,
    train: int = 1000,
    validation: int = 200,
    test: int = 1000,
    features: int = 5,
    degree: int = 4,
    noise: float = 0.5,
    seed: int = 135,
) -> TravellingSalesmanData:
    """The three splits, in float32, solved exactly.

    Args:
        n_cities: how many cities.
        train: training samples.
        validation: validation samples.
        test: test samples.
        features: length of a context.
        degree: of the cost polynomial.
        noise: half-width of the multiplicative noise.
        seed: of the data; PyEPO's default is 135.

    Raises:
        ValueError: as `draw`, or a split is empty.

    Example:
        >>> from implicit_l2o.data.travelling_salesman import generate
        >>> data = generate(n_cities=5, train=8, validation=4, test=4)
        >>> data.test.tours.sum(1)  # as many edges as cities
        tensor([5., 5., 5., 5.])
    """
    sizes = [train, validation, test]
    for name, value in zip(("train", "validation", "test"), sizes, strict=True):
        if value < 1:
            raise ValueError(f"generate needs {name} >= 1; got {name}={value}.")
    drawn = draw(sum(sizes), n_cities=n_cities, features=features, degree=degree, noise=noise, seed=seed)
    contexts, costs, mean_costs = (
        torch.from_numpy(array).to(torch.float32) for array in (drawn.contexts, drawn.costs, drawn.mean_costs)
    )
    tours = TravellingSalesman(n_cities)(costs)
    splits = [
        Sample(*parts)
        for parts in zip(*(field.split(sizes) for field in (contexts, costs, mean_costs, tours)), strict=True)
    ]
    return TravellingSalesmanData(torch.from_numpy(drawn.cities).to(torch.float32), *splits)
