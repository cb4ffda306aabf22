"""Networks of constant-function market makers: which pools there are, what they hold, what they charge.

Source: G. Angeris, A. Agrawal, A. Evans, T. Chitra and S. Boyd, Constant function market makers: multi-asset trades via
convex optimization (2022), section 2.

Longer than most files here: what a network of pools is and every check of what is read into one.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Pool:
    """One market maker: it accepts a trade that does not lower a weighted mean of what it holds.

    With reserves `r`, a trader tenders `x >= 0` and receives `y >= 0` where the mean of `r + fee x - y` is at least that of
    `r`: `prod r_i^{w_i}` for a geometric pool, `sum w_i r_i` for an arithmetic one.

    Args:
        kind: of the mean.
        tokens: names of the tokens that it holds, two or more.
        weights: `w`, positive, one a token.
        fee: the share of a tendered amount that counts, in (0, 1]; 1 charges nothing.

    Raises:
        ValueError: a field is outside its range.

    Example:
        >>> from implicit_l2o.data.pools import Pool
        >>> Pool("geometric", ("ETH", "USD"), (0.5, 0.5), 0.997).fee
        0.997
    """

    kind: Literal["geometric", "arithmetic"]
    tokens: tuple[str, ...]
    weights: tuple[float, ...]
    fee: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))
        object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))
        if self.kind not in ("geometric", "arithmetic"):
            raise ValueError(f'a pool is "geometric" or "arithmetic"; got kind={self.kind!r}.')
        if len(self.tokens) < 2 or len(set(self.tokens)) < len(self.tokens):
            raise ValueError(f"a pool needs at least two tokens, each once; got {list(self.tokens)}.")
        if len(self.weights) != len(self.tokens):
            raise ValueError(
                f"a pool needs a weight for each of its {len(self.tokens)} tokens; got {len(self.weights)}."
            )
        if not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"a pool needs weights that are positive and finite; got {list(self.weights)}.")
        if not 0 < self.fee <= 1:
            raise ValueError(
                f"a pool needs a fee in (0, 1], the share of a tendered amount that counts; got fee={self.fee}."
            )


@dataclass(frozen=True)
class PoolNetwork:
    """Pools that share tokens, and what a trader thinks the tokens are worth.

    Reserves of the network are one vector with an entry for each token of each pool, pool by pool: its `L` places.

    Args:
        prices: by token, positive; the order of the tokens is theirs.
        pools: at least one.

    Raises:
        ValueError: a price is not positive, a pool holds a token without a price, a token is in no pool, or the network
            falls into parts that share no token.

    Example:
        >>> from implicit_l2o.data.pools import Pool, PoolNetwork
        >>> pair = Pool("geometric", ("ETH", "USD"), (0.5, 0.5), 0.997)
        >>> network = PoolNetwork({"ETH": 2000.0, "USD": 1.0}, (pair, pair))
        >>> network.places, network.price_vector().tolist()
        ((0, 1, 0, 1), [2000.0, 1.0, 2000.0, 1.0])
    """

    prices: Mapping[str, float]
    pools: tuple[Pool, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "prices", {token: float(price) for token, price in self.prices.items()})
        object.__setattr__(self, "pools", tuple(self.pools))
        if not self.pools:
            raise ValueError("a network needs at least one pool; got none.")
        for token, price in self.prices.items():
            if not 0 < price < math.inf:
                raise ValueError(f"a token needs a price that is positive and finite; got {price} for {token!r}.")
        used = {token for pool in self.pools for token in pool.tokens}
        if unknown := sorted(used - set(self.prices)):
            raise ValueError(f"the tokens {unknown} have no price; prices are given for {sorted(self.prices)}.")
        if idle := sorted(set(self.prices) - used):
            raise ValueError(f"the network is disconnected: the tokens {idle} are in no pool.")
        parts = _parts(self.pools)
        if len(parts) > 1:
            shown = "; ".join(", ".join(sorted(part)) for part in parts)
            raise ValueError(
                f"the network is disconnected: it falls into {len(parts)} parts that share no token ({shown}). Give each "
                "part as a network of its own."
            )

    @property
    def tokens(self) -> tuple[str, ...]:
        """The names of the tokens, in the order of the prices."""
        return tuple(self.prices)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many tokens each pool holds."""
        return tuple(len(pool.tokens) for pool in self.pools)

    @property
    def places(self) -> tuple[int, ...]:
        """The token of each of the `L` places, as an index into `tokens`."""
        index = {token: i for i, token in enumerate(self.prices)}
        return tuple(index[token] for pool in self.pools for token in pool.tokens)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the `L` places: `pool 1: ETH` and so on, pools counted from 1."""
        return tuple(f"pool {j}: {token}" for j, pool in enumerate(self.pools, 1) for token in pool.tokens)

    def price_vector(self) -> Float[Tensor, " L"]:
        """The price of the token of each place, in float64."""
        return torch.tensor([self.prices[token] for pool in self.pools for token in pool.tokens], dtype=torch.float64)

    def weights(self) -> Float[Tensor, " L"]:
        """The weight of each place, in float64."""
        return torch.tensor([weight for pool in self.pools for weight in pool.weights], dtype=torch.float64)

    def fees(self) -> Float[Tensor, " L"]:
        """The share that counts at each place, in float64."""
        return torch.tensor([pool.fee for pool in self.pools for _ in pool.tokens], dtype=torch.float64)

    def membership(self) -> Float[Tensor, "J L"]:
        """1 where a place belongs to a pool, in float64."""
        owner = torch.tensor([j for j, size in enumerate(self.sizes) for _ in range(size)])
        return (owner == torch.arange(len(self.pools))[:, None]).double()

    def geometric(self) -> Tensor:
        """Which pools are geometric, `(J,)` booleans."""
        return torch.tensor([pool.kind == "geometric" for pool in self.pools])

    def check_reserves(self, reserves: Tensor, what: str = "reserves") -> None:
        """Raise a `ValueError` that names the sample, the pool and the token of a reserve that cannot be.

        Args:
            reserves: `(B, L)`.
            what: they are called in the message.
        """
        if reserves.ndim != 2 or reserves.shape[1] != len(self.places):
            raise ValueError(
                f"{what} of this network have shape (B, {len(self.places)}), a number for each token of each pool; got "
                f"{tuple(reserves.shape)}."
            )
        wrong = ~(torch.isfinite(reserves) & (reserves > 0))
        if bool(wrong.any()):
            sample, place = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"{what} must be positive and finite; got {float(reserves[sample, place])} in sample {sample}, "
                f"{self.labels[place]} ({int(wrong.any(1).sum())} of {len(wrong)} samples have such a number)."
            )


def read_network(path: str | Path) -> PoolNetwork:
    r"""The network in a YAML file with the keys `prices` (by token) and `pools` (a list of `kind, tokens, weights, fee`).

    Args:
        path: the file.

    Raises:
        ValueError: a key is missing or unknown, or a value is outside its range; the message names the file and the pool.

    Example:
        >>> import pathlib, tempfile
        >>> from implicit_l2o.data.pools import read_network
        >>> text = "prices: {a: 1, b: 2}\npools: [{kind: geometric, tokens: [a, b], weights: [0.5, 0.5], fee: 1}]"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "network.yaml"
        ...     _ = path.write_text(text)
        ...     read_network(path).tokens
        ('a', 'b')
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {str(error).splitlines()[0]}.") from error
    _check_keys(content, {"prices", "pools"}, str(path))
    pools = []
    for number, entry in enumerate(content["pools"], 1):
        where = f"{path}, pool {number}"
        _check_keys(entry, {"kind", "tokens", "weights", "fee"}, where)
        try:
            pools.append(Pool(entry["kind"], tuple(entry["tokens"]), tuple(entry["weights"]), entry["fee"]))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: {error}") from error
    try:
        return PoolNetwork(content["prices"], tuple(pools))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def network_from_graph(graph: Any) -> PoolNetwork:
    """The network of a NetworkX graph whose nodes are tokens and pools.

    A node with the attribute `kind` is a pool, with a `fee`; its neighbours are its tokens, and the edges to them have a
    `weight`. Every other node is a token with a `price`.

    Args:
        graph: undirected; the order of its nodes is that of the pools and the tokens.

    Raises:
        ValueError: an attribute is missing, two pools or two tokens are neighbours, or as `PoolNetwork`.

    Example:
        >>> import networkx
        >>> from implicit_l2o.data.pools import network_from_graph
        >>> graph = networkx.Graph()
        >>> graph.add_node("a", price=1.0); graph.add_node("b", price=2.0)
        >>> graph.add_node("uni", kind="geometric", fee=0.997)
        >>> graph.add_edge("uni", "a", weight=0.5); graph.add_edge("uni", "b", weight=0.5)
        >>> network_from_graph(graph).pools[0].tokens
        ('a', 'b')
    """
    kinds = {node: attributes.get("kind") for node, attributes in graph.nodes(data=True)}
    for first, second in graph.edges():
        if (kinds[first] is None) == (kinds[second] is None):
            which = "tokens" if kinds[first] is None else "pools"
            raise ValueError(f"an edge joins a token and a pool; {first!r} and {second!r} are both {which}.")
    prices, pools = {}, []
    for node, attributes in graph.nodes(data=True):
        if kinds[node] is None:
            prices[str(node)] = _attribute(attributes, "price", f"the token {node!r}")
            continue
        tokens = list(graph.neighbors(node))
        weights = [_attribute(graph.edges[node, t], "weight", f"the edge {node!r}, {t!r}") for t in tokens]
        fee = _attribute(attributes, "fee", f"the pool {node!r}")
        try:
            pools.append(Pool(kinds[node], tuple(map(str, tokens)), tuple(weights), fee))
        except ValueError as error:
            raise ValueError(f"the pool {node!r}: {error}") from error
    return PoolNetwork(prices, tuple(pools))


def read_reserves(path: str | Path, network: PoolNetwork) -> Float[Tensor, "N L"]:
    r"""Reserve snapshots from a CSV, in float64.

    The first line names the columns: `pool 1: ETH` and so on, as `network.labels`, in any order. Each further line is a
    snapshot. A column `time`, or any other that is not a label, is an error, so that a misspelt token is not lost.

    Args:
        path: the file.
        network: whose reserves they are.

    Raises:
        ValueError: a column is missing, unknown or double, a cell is no number, or a reserve is not positive; the message
            names the file and the line.

    Example:
        >>> import pathlib, tempfile
        >>> from implicit_l2o.data.pools import Pool, PoolNetwork, read_reserves
        >>> network = PoolNetwork({"a": 1.0, "b": 2.0}, (Pool("geometric", ("a", "b"), (0.5, 0.5), 1.0),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "reserves.csv"
        ...     _ = path.write_text("pool 1: b,pool 1: a\n10,20\n11,19\n")
        ...     read_reserves(path, network).tolist()
        [[20.0, 10.0], [19.0, 11.0]]
    """
    import csv

    with Path(path).open(newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    header = rows[0] if rows else []
    labels = list(network.labels)
    if Counter(header) != Counter(labels):
        missing, extra = sorted(set(labels) - set(header)), sorted((Counter(header) - Counter(labels)).keys())
        raise ValueError(f"{path}, line 1: the columns are {labels}; missing {missing}, unknown or double {extra}.")
    order = [header.index(label) for label in labels]
    values = []
    for line, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {line}: {len(header)} columns are named, but the line has {len(row)} cells."
            )
        try:
            numbers = [float(row[column]) for column in order]
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}.") from error
        snapshot = torch.tensor([numbers], dtype=torch.float64)
        network.check_reserves(snapshot, f"{path}, line {line}: reserves")
        values.append(snapshot)
    if not values:
        raise ValueError(f"{path} holds no snapshot.")
    return torch.cat(values)


def _parts(pools: Sequence[Pool]) -> list[set[str]]:
    """Sets of tokens that no pool joins."""
    parts: list[set[str]] = []
    for pool in pools:
        joined = set(pool.tokens)
        apart = []
        for part in parts:
            if part & joined:
                joined |= part
            else:
                apart.append(part)
        parts = [*apart, joined]
    return parts


def _check_keys(content: Any, keys: set[str], where: str) -> None:
    found = set(content) if isinstance(content, dict) else set()
    if found != keys:
        raise ValueError(f"{where} needs the keys {sorted(keys)}; got {sorted(map(str, found))}.")


def _attribute(attributes: Mapping[str, Any], name: str, owner: str) -> Any:
    if name not in attributes:
        raise ValueError(f"{owner} needs the attribute {name!r}; it has {sorted(attributes)}.")
    return attributes[name]
