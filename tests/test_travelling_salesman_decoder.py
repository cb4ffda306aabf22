"""Tours are exact: against the dynamic programme of Held and Karp, and HiGHS with subtour constraints where violated."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from implicit_l2o.decoders import TravellingSalesman

pytest.importorskip("numba")

SEEDS = st.integers(0, 2**31 - 1)


def matrix(decoder, cost):
    """The costs `(n, n)`, symmetric."""
    full = np.zeros((decoder.n_cities, decoder.n_cities))
    full[tuple(decoder.edges.T)] = cost
    return full + full.T


def held_karp(cost):
    """The cost of the cheapest tour by the dynamic programme over subsets of the cities 1 to n - 1."""
    n = len(cost) - 1
    best = np.full((1 << n, n), np.inf)
    for j in range(n):
        best[1 << j, j] = cost[0, j + 1]
    for subset in range(1 << n):
        for j, k in itertools.product(range(n), range(n)):
            if subset >> j & 1 and not subset >> k & 1:
                best[subset | 1 << k, k] = min(best[subset | 1 << k, k], best[subset, j] + cost[j + 1, k + 1])
    return float((best[-1] + cost[1:, 0]).min())


def components(decoder, x):
    """In how many pieces the edges of `x` leave the cities, and which city is in which."""
    chosen = decoder.edges[x > 0.5]
    graph = csr_matrix((np.ones(len(chosen)), chosen.T), shape=(decoder.n_cities, decoder.n_cities))
    return connected_components(graph, directed=False)


def by_highs(decoder, cost):
    """The cost of the cheapest tour: an integer program without subtour constraints, then with those it violated."""
    first, second = decoder.edges.T
    at_city = np.zeros((decoder.n_cities, decoder.n))
    at_city[first, np.arange(decoder.n)] = at_city[second, np.arange(decoder.n)] = 1.0
    constraints = [LinearConstraint(at_city, 2, 2)]
    while True:
        found = milp(cost, constraints=constraints, bounds=Bounds(0, 1), integrality=np.ones(decoder.n))
        pieces, label = components(decoder, found.x)
        if pieces == 1:
            return float(found.fun)
        for piece in range(pieces):
            inside = label == piece
            constraints.append(LinearConstraint((inside[first] != inside[second]).astype(float), 2, np.inf))


def assert_tours(decoder, x):
    assert ((x == 0) | (x == 1)).all()
    for tour in x.numpy():
        ends = np.bincount(decoder.edges[tour > 0].ravel(), minlength=decoder.n_cities)
        assert (ends == 2).all()
        assert components(decoder, tour)[0] == 1


def some_costs(kind, decoder, seed, batch=4):
    random = np.random.default_rng(seed)
    shape = (batch, decoder.n)
    if kind == "map":
        places = random.uniform(size=(batch, decoder.n_cities, 2))
        first, second = decoder.edges.T
        return np.linalg.norm(places[:, first] - places[:, second], axis=2)
    return {
        "either sign": lambda: random.normal(size=shape),
        "ties": lambda: random.integers(0, 3, shape).astype(float),
        "large and nearly equal": lambda: 1e6 + random.uniform(size=shape),
        "negative": lambda: -random.uniform(1, 2, shape),
        "all equal": lambda: np.full(shape, -3.0),
    }[kind]()


KINDS = ("map", "either sign", "ties", "large and nearly equal", "negative", "all equal")


@settings(max_examples=40)
@given(SEEDS, st.integers(3, 9), st.sampled_from(KINDS))
def test_tours_are_those_of_the_dynamic_programme(seed, n_cities, kind):
    decoder = TravellingSalesman(n_cities)
    costs = some_costs(kind, decoder, seed, batch=1)
    x = decoder(torch.from_numpy(costs))
    assert_tours(decoder, x)
    best = held_karp(matrix(decoder, costs[0]))
    assert float((x.numpy() * costs).sum()) == pytest.approx(best, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", ["map", "either sign", "ties", "negative"])
def test_tours_through_twenty_cities_are_those_of_highs(kind):
    decoder = TravellingSalesman(20)
    costs = some_costs(kind, decoder, seed=7, batch=3)
    x = decoder(torch.from_numpy(costs))
    assert_tours(decoder, x)
    for cost, tour in zip(costs, x.numpy(), strict=True):
        assert float(cost @ tour) == pytest.approx(by_highs(decoder, cost), rel=1e-6)


def test_tours_through_fifty_cities_are_those_of_highs():
    decoder = TravellingSalesman(50)
    costs = some_costs("either sign", decoder, seed=3, batch=2)
    x = decoder(torch.from_numpy(costs))
    assert_tours(decoder, x)
    for cost, tour in zip(costs, x.numpy(), strict=True):
        assert float(cost @ tour) == pytest.approx(by_highs(decoder, cost), rel=1e-6)


def test_prices_of_cities_and_the_scale_do_not_move_a_tour():
    """A price `p_i` on every edge at city `i` adds `2 sum p` to all tours alike."""
    decoder = TravellingSalesman(12)
    costs = torch.from_numpy(some_costs("either sign", decoder, seed=1, batch=8))
    x = decoder(costs)
    prices = torch.randn(8, 12, dtype=torch.float64) * 10
    first, second = torch.from_numpy(decoder.edges).unbind(1)
    assert torch.equal(decoder(costs + prices[:, first] + prices[:, second]), x)
    for scale in (1e-8, 1e8):
        assert torch.equal(decoder(scale * costs), x)
    largest = costs / costs.abs().amax() * torch.finfo(torch.float64).max
    assert torch.equal(decoder(largest), x)


def test_a_batch_is_a_loop_and_an_empty_one_is_empty():
    decoder = TravellingSalesman(15)
    costs = torch.from_numpy(some_costs("ties", decoder, seed=5, batch=6))
    x = decoder(costs)
    assert torch.equal(x, torch.cat([decoder(cost[None]) for cost in costs]))
    assert decoder(torch.zeros(0, decoder.n)).shape == (0, decoder.n)
    assert decoder(costs.half().requires_grad_()).dtype == torch.float16


def test_edges_are_numbered_as_pyepos():
    assert TravellingSalesman(4).edges.tolist() == list(map(list, itertools.combinations(range(4), 2)))


@pytest.mark.bad_input
def test_what_cannot_be_solved_is_named():
    with pytest.raises(ValueError, match="n_cities >= 3; got n_cities=2"):
        TravellingSalesman(2)
    with pytest.raises(ValueError, match="max_nodes >= 1; got max_nodes=0"):
        TravellingSalesman(5, max_nodes=0)
    hard = TravellingSalesman(30, max_nodes=1)
    with pytest.raises(RuntimeError, match="takes more than max_nodes=1 subproblems"):
        hard(torch.from_numpy(some_costs("map", hard, seed=0, batch=20)))
    with pytest.raises(ValueError, match="finite costs"):
        TravellingSalesman(3)(torch.tensor([[1.0, float("nan"), 0.0]]))
