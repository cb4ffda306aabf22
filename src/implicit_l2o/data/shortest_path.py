"""Shortest paths on a directed grid whose arc costs depend on a context: the benchmark of Elmachtoub and Grigas.

Source: A. N. Elmachtoub and P. Grigas, Smart "Predict, then Optimize", Management Science 68 (2022), section 6.1, in the
form of PyEPO (B. Tang and E. B. Khalil, Math. Prog. Comp. 16 (2024)), whose random numbers are reproduced here draw by draw.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from implicit_l2o.decoders import GridPaths, has_numba


@dataclass(frozen=True)
class Grid:
    """A `side x side` grid with arcs to the east and to the south; a path leads from the first node to the last.

    Nodes are numbered row by row. Arcs are numbered row by row too: the eastward arcs of a row, then the southward arcs
    that leave it (PyEPO's order).

    Args:
        side: nodes along one side, at least 2; there are `2 side (side - 1)` arcs.

    Raises:
        ValueError: the side is below 2.

    Example:
        >>> from implicit_l2o.data.shortest_path import Grid
        >>> Grid(2).arcs.tolist()
        [[0, 1], [0, 2], [1, 3], [2, 3]]
    """

    side: int

    def __post_init__(self) -> None:
        if self.side < 2:
            raise ValueError(f"Grid needs side >= 2; got side={self.side}.")

    @property
    def n_arcs(self) -> int:
        """Number of arcs, `2 side (side - 1)`."""
        return 2 * self.side * (self.side - 1)

    @cached_property
    def arcs(self) -> Int[np.ndarray, "arcs 2"]:
        """Tail and head of every arc."""
        node = np.arange(self.side**2).reshape(self.side, self.side)
        rows = []
        for i in range(self.side):
            rows.append(np.stack([node[i, :-1], node[i, 1:]], axis=1))
            if i + 1 < self.side:
                rows.append(np.stack([node[i], node[i + 1]], axis=1))
        return np.concatenate(rows)

    def incidence(self) -> Any:
        """The incidence matrix as SciPy CSR, `(nodes, arcs)`: -1 at an arc's tail and +1 at its head."""
        import scipy.sparse as sp

        column = np.arange(self.n_arcs)
        ones = np.ones(self.n_arcs)
        nodes = np.concatenate([self.arcs[:, 0], self.arcs[:, 1]])
        entries = (np.concatenate([-ones, ones]), (nodes, np.tile(column, 2)))
        return sp.csr_array(entries, shape=(self.side**2, self.n_arcs))

    def supply(self) -> Float[Tensor, " nodes"]:
        """The right-hand side of a unit flow: -1 at the first node, +1 at the last."""
        b = torch.zeros(self.side**2)
        b[0], b[-1] = -1.0, 1.0
        return b

    def flow_constraints(self) -> tuple[Float[Tensor, "rows arcs"], Float[Tensor, " rows"]]:
        """`A` and `b` with `{x >= 0, A x = b}` the unit flows from the first node to the last, one row a node; dense.

        Its rows sum to zero, so the rank of `A` is one less than the number of nodes.
        """
        return torch.from_numpy(self.incidence().toarray()).float(), self.supply()

    def shortest_paths(self, costs: Float[Tensor, "B arcs"]) -> Float[Tensor, "B arcs"]:
        """The cheapest path of every sample as a 0/1 vector over the arcs: `argmin {c.x : A x = b, x >= 0}`.

        The grid has no cycles, so one sweep of Bellman's equation in the order of the nodes is exact, for costs of either
        sign. `decoders.GridPaths` does it where numba is installed, otherwise NumPy, with the same answer. (Every path has
        `2 (side - 1)` arcs; so Dijkstra's algorithm on costs shifted to be non-negative finds the same.)

        Args:
            costs: one cost an arc, `(B, 2 side (side - 1))`, finite.

        Raises:
            ValueError: the costs have another shape, or are not all finite.

        Example:
            >>> import torch
            >>> from implicit_l2o.data.shortest_path import Grid
            >>> Grid(2).shortest_paths(torch.tensor([[1.0, 2.0, 1.0, 2.0]]))
            tensor([[1., 0., 1., 0.]])
        """
        if costs.ndim != 2 or costs.shape[1] != self.n_arcs:
            raise ValueError(
                f"shortest_paths on a grid of side {self.side} takes costs of shape (B, {self.n_arcs}); "
                f"got {tuple(costs.shape)}."
            )
        if has_numba():
            return GridPaths(self.side)(costs)
        if not bool(torch.isfinite(costs).all()):
            raise ValueError("shortest_paths needs finite costs; got NaN or inf.")
        return torch.from_numpy(_bellman(self, costs.detach().cpu().numpy().astype(np.float64))).to(costs)


def _bellman(grid: Grid, cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bellman's equation arc by arc for all samples at once, where numba is not installed."""
    batch, side = cost.shape[0], grid.side
    distance = np.full((batch, side**2), np.inf)
    distance[:, 0] = 0.0
    last_arc = np.full((batch, side**2), -1)
    for arc in np.argsort(grid.arcs[:, 1], kind="stable"):  # by head: every tail is final before it is used
        tail, head = grid.arcs[arc]
        through = distance[:, tail] + cost[:, arc]
        better = through < distance[:, head]
        distance[:, head] = np.where(better, through, distance[:, head])
        last_arc[:, head] = np.where(better, arc, last_arc[:, head])
    paths = np.zeros((batch, grid.n_arcs))
    sample = np.arange(batch)
    node = np.full(batch, side**2 - 1)
    for _ in range(2 * (side - 1)):
        arc = last_arc[sample, node]
        paths[sample, arc] = 1.0
        node = grid.arcs[arc, 0]
    return paths


@dataclass(frozen=True, eq=False)
class Sample:
    """Contexts with what they imply.

    Attributes:
        contexts: `(B, features)` what the model sees.
        costs: `(B, arcs)` the costs that came true; no model that learns from solutions alone may read them in training.
        mean_costs: `(B, arcs)` their conditional mean given the context: the generator without its noise.
        paths: `(B, arcs)` the shortest path under `costs`, 0/1.
    """

    contexts: Float[Tensor, "B features"]
    costs: Float[Tensor, "B arcs"]
    mean_costs: Float[Tensor, "B arcs"]
    paths: Float[Tensor, "B arcs"]

    def __len__(self) -> int:
        return self.contexts.shape[0]


@dataclass(frozen=True, eq=False)
class ShortestPathData:
    """A grid and its training, validation and test samples, drawn in this order from one generator."""

    grid: Grid
    train: Sample
    validation: Sample
    test: Sample


def draw(
    n_samples: int, *, n_arcs: int, features: int = 5, degree: int = 4, noise: float = 0.5, seed: int = 135
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Contexts, costs and conditional mean costs, with the random numbers of PyEPO's `genData`.

    With `B` in `{0, 1}^(arcs x features)` drawn once by fair coins and every context `d ~ N(0, I)`, the mean cost of arc
    `j` is `(((B d)_j / sqrt(features) + 3)^degree + 1) / 3.5^degree`; the cost is the mean times a factor uniform on
    `[1 - noise, 1 + noise]`.

    Args:
        n_samples: how many contexts; the noise depends on it (all contexts are drawn first), as in PyEPO.
        n_arcs: arcs of the graph.
        features: length of a context.
        degree: of the polynomial; the larger, the less a linear model can explain.
        noise: half-width of the multiplicative noise, in [0, 1].
        seed: of `numpy.random.RandomState`.

    Raises:
        ValueError: a count or the degree is below 1, or the noise is outside [0, 1].

    Example:
        >>> from implicit_l2o.data.shortest_path import draw
        >>> contexts, costs, mean_costs = draw(2, n_arcs=40)
        >>> contexts[0].round(4).tolist()
        [0.1898, 0.2813, 0.8041, 0.3436, 0.797]
    """
    for name, value in (("n_samples", n_samples), ("n_arcs", n_arcs), ("features", features), ("degree", degree)):
        if value < 1:
            raise ValueError(f"draw needs {name} >= 1; got {name}={value}.")
    if not 0.0 <= noise <= 1.0:
        raise ValueError(f"draw needs 0 <= noise <= 1; got noise={noise}.")
    random = np.random.RandomState(seed)  # the legacy generator is what PyEPO's data are made of
    B = random.binomial(1, 0.5, (n_arcs, features))
    contexts = random.normal(0, 1, (n_samples, features))
    mean_costs = ((contexts @ B.T / np.sqrt(features) + 3) ** degree + 1) / 3.5**degree
    costs = mean_costs * random.uniform(1 - noise, 1 + noise, (n_samples, n_arcs))
    return contexts, costs, mean_costs


def generate(
    *,
    side: int = 5,
    train: int = 1000,
    validation: int = 200,
    test: int = 1000,
    features: int = 5,
    degree: int = 4,
    noise: float = 0.5,
    seed: int = 135,
) -> ShortestPathData:
    """The three splits on a `side x side` grid, in float32, solved exactly.

    Args:
        side: nodes along one side of the grid.
        train: training samples.
        validation: validation samples.
        test: test samples.
        features: length of a context.
        degree: of the cost polynomial.
        noise: half-width of the multiplicative noise.
        seed: of the data; PyEPO's default is 135.

    Raises:
        ValueError: as `draw` and `Grid`.

    Example:
        >>> from implicit_l2o.data.shortest_path import generate
        >>> data = generate(side=3, train=8, validation=4, test=4)
        >>> data.test.paths.sum(1)
        tensor([4., 4., 4., 4.])
    """
    for name, value in (("train", train), ("validation", validation), ("test", test)):
        if value < 1:
            raise ValueError(f"generate needs {name} >= 1; got {name}={value}.")
    grid = Grid(side)
    drawn = draw(
        train + validation + test, n_arcs=grid.n_arcs, features=features, degree=degree, noise=noise, seed=seed
    )
    contexts, costs, mean_costs = (torch.from_numpy(array).to(torch.float32) for array in drawn)
    fields = (contexts, costs, mean_costs, grid.shortest_paths(costs))
    return _split(grid, fields, [train, validation, test])


def generate_linear(
    *, side: int = 50, train: int = 200, validation: int = 50, test: int = 200, features: int = 5, seed: int = 0
) -> ShortestPathData:
    """Costs that are linear in the context, without noise, on a `side x side` grid: `c = W d`, in float32, solved exactly.

    Every entry of `W` and of the contexts is uniform on [0, 1]. As nothing is random given the context, the floor of the
    regret is zero.

    Args:
        side: nodes along one side of the grid.
        train: training samples.
        validation: validation samples.
        test: test samples.
        features: length of a context.
        seed: of the data.

    Raises:
        ValueError: a count is below 1.

    Source: D. McKenzie, S. Wu Fung and H. Heaton, Faster Predict-and-Optimize with Davis-Yin Splitting, preprint (2023),
        section 5: `w = W d` on grids up to 100x100.

    Example:
        >>> from implicit_l2o.data.shortest_path import generate_linear
        >>> data = generate_linear(side=3, train=8, validation=4, test=4)
        >>> data.train.costs.shape, bool((data.train.costs == data.train.mean_costs).all())
        (torch.Size([8, 12]), True)
    """
    for name, value in (("train", train), ("validation", validation), ("test", test), ("features", features)):
        if value < 1:
            raise ValueError(f"generate_linear needs {name} >= 1; got {name}={value}.")
    grid, random = Grid(side), np.random.default_rng(seed)
    W = random.uniform(size=(grid.n_arcs, features)).astype(np.float32)
    contexts = torch.from_numpy(random.uniform(size=(train + validation + test, features)).astype(np.float32))
    costs = contexts @ torch.from_numpy(W).T
    return _split(grid, (contexts, costs, costs, grid.shortest_paths(costs)), [train, validation, test])


def _split(grid: Grid, fields: tuple[Tensor, ...], sizes: list[int]) -> ShortestPathData:
    """The fields of all samples as the three splits."""
    splits = [Sample(*parts) for parts in zip(*(field.split(sizes) for field in fields), strict=True)]
    return ShortestPathData(grid, *splits)
