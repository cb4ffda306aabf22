"""The data classes of a road network: travel times against numerical integrals and derivatives, closed roads, bad input."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from implicit_l2o.games import PolynomialLatency, TrafficNetwork, gaps


def two_roads() -> TrafficNetwork:
    return TrafficNetwork(
        name="two roads",
        nodes=3,
        zones=2,
        first_thru=0,
        tail=np.array([0, 0, 2]),
        head=np.array([1, 2, 1]),
        free_flow_time=np.array([3.0, 1.0, 0.0]),
        capacity=np.array([2.0, 4.0, 1.0]),
        b=np.array([0.15, 1.0, 0.0]),
        power=np.array([4.0, 1.0, 0.0]),
        fixed_cost=np.array([0.5, 0.0, 0.0]),
        trips=np.array([[9.0, 3.0], [0.0, 0.0]]),
    )


@given(seed=st.integers(0, 1000))
def test_integral_and_slope_of_latencies(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (2, 5, 3)
    latency = PolynomialLatency(
        rng.random(shape[:2]),
        rng.random(shape),
        rng.uniform(1, 3, shape[:2]),
        rng.choice([0.0, 1.0, 2.0, 4.0, 5.5], shape),
    )
    flow = rng.uniform(0.1, 6, shape[:2])
    h = 1e-5
    np.testing.assert_allclose(
        latency.slope(flow), (latency.value(flow + h) - latency.value(flow - h)) / (2 * h), rtol=1e-5, atol=1e-8
    )
    nodes, weights = np.polynomial.legendre.leggauss(12)
    inside = [0.5 * flow * (1 + x) for x in nodes]
    quadrature = sum(w * 0.5 * flow * latency.value(v) for w, v in zip(weights, inside, strict=True))
    np.testing.assert_allclose(latency.integral(flow), quadrature, rtol=1e-6)
    np.testing.assert_allclose(latency[1].value(flow[1]), latency.value(flow)[1])
    np.testing.assert_allclose(latency.integral(np.zeros(shape[:2])), 0)


def test_the_times_of_a_network() -> None:
    network = two_roads()
    np.testing.assert_allclose(network.latency().value(np.array([4.0, 2.0, 7.0])), [0.5 + 3 * (1 + 0.15 * 16), 1.5, 0])
    assert network.latency().constant_links.tolist() == [False, False, True]
    batch = network.latency(np.array([[2.0, 4, 1], [1, 8, 1]]))
    assert batch.batch == (2,)
    np.testing.assert_allclose(batch.value(np.array([4.0, 2.0, 7.0]))[1], [0.5 + 3 * (1 + 0.15 * 256), 1.25, 0])
    assert network.demand == 3
    np.testing.assert_array_equal(network.origins, [0])


def test_closed_roads_and_scaled_trips() -> None:
    network = two_roads()
    closed = network.without(1)
    assert (closed.edges, closed.nodes) == (2, 3)
    np.testing.assert_array_equal(closed.tail, [0, 2])
    np.testing.assert_array_equal(closed.capacity, network.capacity[network.kept(1)])
    np.testing.assert_array_equal(network.scaled(1.2).trips, network.trips * 1.2)
    assert network.without(0, 1, 2).edges == 0
    assert network.without(0, 1, 2).fixed_cost.shape == (0,)


def test_gaps_of_flows_that_carry_nothing_or_too_little() -> None:
    network = two_roads()
    flow = np.array([[3.0, 0, 0], [0, 3, 3], [0, 0, 0], [1, 1, 1]])
    times = network.latency().value(flow)
    np.testing.assert_allclose(gaps.total_travel_time(flow, times), [3 * times[0, 0], 3 * 1.75, 0, times[3, 0] + 1.25])
    fastest = gaps.shortest_times(network, times)
    np.testing.assert_allclose(fastest[0, 0], [0, 1, 1])
    gap = gaps.relative_gap(network, flow, times)
    assert gap[0] == pytest.approx(1 - 1 / times[0, 0])
    assert gap[1] == pytest.approx(0)
    assert gap[2] == 0
    np.testing.assert_allclose(gaps.conservation_violation(network, flow), [0, 0, 1, 1 / 3])
    np.testing.assert_allclose(gaps.origin_violation(network, flow[:, None]), [0, 0, 1, 1 / 3])
    assert gaps.beckmann(network.latency(), flow)[1] == pytest.approx(3 + 9 / 8)
    unreachable = gaps.shortest_times(network.without(1, 2), np.array([2.0]))
    assert unreachable.tolist() == [[0, 2, np.inf]]


BAD_LATENCIES = [
    ({"constant": [-1.0]}, r"as constant finite values >= 0; got -1.0 at \(0,\)"),
    ({"constant": [np.nan]}, "as constant finite values >= 0; got nan"),
    ({"coefficient": [[np.inf]]}, r"as coefficient finite values >= 0; got inf at \(0, 0\)"),
    ({"scale": [0.0]}, "as scale finite values > 0; got 0.0"),
    ({"power": [[0.5]]}, "as power powers that are 0 or >= 1"),
    ({"scale": [1.0, 2.0]}, r"takes constant and scale \(..., E\), coefficient and power \(..., E, K\)"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize(("change", "message"), BAD_LATENCIES)
def test_bad_latencies(change: dict[str, list], message: str) -> None:
    good = {"constant": [1.0], "coefficient": [[1.0]], "scale": [1.0], "power": [[1.0]]}
    with pytest.raises(ValueError, match=message):
        PolynomialLatency(**{name: np.array(values) for name, values in {**good, **change}.items()})


def test_bad_flows() -> None:
    latency = two_roads().latency()
    with pytest.raises(ValueError, match="flows >= 0; got -1"):
        latency.value(np.array([1.0, -1, 0]))
    with pytest.raises(ValueError, match=r"flows of 3 links; got shape \(2,\)"):
        latency.value(np.ones(2))
    with pytest.raises(IndexError, match="no batch"):
        latency[0]
    with pytest.raises(ValueError, match=r"two roads has 3 links; got times of shape \(2,\)"):
        gaps.shortest_times(two_roads(), np.ones(2))
    with pytest.raises(ValueError, match="needs times >= 0; got -1"):
        gaps.shortest_times(two_roads(), -np.ones(3))
    with pytest.raises(ValueError, match="has 1 origins; got flows of 2"):
        gaps.origin_violation(two_roads(), np.ones((2, 3)))


BAD_NETWORKS = [
    ({"zones": 4}, "1 <= zones <= nodes = 3; got zones=4"),
    ({"first_thru": 4}, "0 <= first_thru <= nodes = 3; got first_thru=4"),
    ({"tail": np.array([0, 0, 3])}, r"as tail nodes 0 to 2; got 3 at link 2 \(from 0\)"),
    ({"head": np.array([1, -1, 1])}, "as head nodes 0 to 2; got -1 at link 1"),
    ({"capacity": np.array([1.0, 0, 1])}, "as capacity finite values > 0; got 0.0 at link 1"),
    ({"b": np.array([1.0, np.nan, 1])}, "as b finite values >= 0; got nan at link 1"),
    ({"power": np.array([0.5, 1, 1])}, "as power 0 or finite values >= 1; got 0.5 at link 0"),
    ({"trips": np.array([[0.0, -1], [0, 0]])}, r"as trips finite values >= 0; got -1.0 at zones \(0, 1\)"),
    ({"trips": np.zeros((3, 3))}, r"trips of shape \(2, 2\); got \(3, 3\)"),
    ({"b": np.ones(2)}, r"has 3 links by its tails; b is \(2,\)"),
    ({"coordinates": np.ones((2, 2))}, r"coordinates \(3, 2\); got \(2, 2\)"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize(("change", "message"), BAD_NETWORKS)
def test_bad_networks(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(two_roads(), **change)


def test_bad_changes() -> None:
    with pytest.raises(ValueError, match="two roads has links 0 to 2; got 3"):
        two_roads().without(3)
    with pytest.raises(ValueError, match="finite factor >= 0; got -1"):
        two_roads().scaled(-1.0)
    with pytest.raises(ValueError, match=r"has 3 links; got capacities of shape \(2,\)"):
        two_roads().latency(np.ones(2))
