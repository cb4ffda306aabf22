"""User equilibria against independent minimisers, Wardrop's conditions path by path, and the published objectives."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import implicit_l2o as il2o
from implicit_l2o.data.tntp import load
from implicit_l2o.data.traffic import public_contexts
from implicit_l2o.games import PolynomialLatency, TrafficNetwork, gaps, user_equilibria, user_equilibrium

pytest.importorskip("numba", reason="numba is in the extra 'exact'")


def random_network(seed: int, *, nodes: int = 6, zones: int = 3, extra: int = 8, first_thru: int = 0) -> TrafficNetwork:
    """A ring, so that every node is reached, with random links, parallel ones and loops among them."""
    rng = np.random.default_rng(seed)
    ring = np.arange(first_thru, nodes)
    tail = np.concatenate(
        [ring, rng.integers(nodes, size=extra), np.arange(first_thru), np.full(first_thru, first_thru)]
    )
    head = np.concatenate(
        [np.roll(ring, -1), rng.integers(nodes, size=extra), np.full(first_thru, nodes - 1), np.arange(first_thru)]
    )
    edges = len(tail)
    return TrafficNetwork(
        name=f"random {seed}",
        nodes=nodes,
        zones=zones,
        first_thru=first_thru,
        tail=tail,
        head=head,
        free_flow_time=rng.uniform(0.5, 2.0, edges) * (rng.random(edges) > 0.1),
        capacity=rng.uniform(1.0, 4.0, edges),
        b=rng.uniform(0.1, 2.0, edges),
        power=rng.choice([1.0, 2.0, 3.5, 4.0], edges),
        trips=rng.uniform(0.0, 4.0, (zones, zones)) * (rng.random((zones, zones)) > 0.3),
    )


def all_paths(network: TrafficNetwork, origin: int, destination: int) -> Iterator[list[int]]:
    """Every simple path, as links, without passing through a centroid."""
    stack: list[tuple[int, list[int], set[int]]] = [(origin, [], {origin})]
    while stack:
        node, links, seen = stack.pop()
        if node == destination:
            yield links
            continue
        if node < network.first_thru and node != origin:
            continue
        for edge in np.flatnonzero(network.tail == node).tolist():
            head = int(network.head[edge])
            if head not in seen:
                stack.append((head, [*links, edge], seen | {head}))


def by_enumeration(network: TrafficNetwork, latency: PolynomialLatency) -> float:
    """The minimum of Beckmann's objective over the flows of all simple paths, by SciPy."""
    from scipy.optimize import LinearConstraint, minimize

    columns, owner, demand = [], [], []
    for pair, (o, d) in enumerate(zip(*np.nonzero(network.between), strict=True)):
        demand.append(network.between[o, d])
        for links in all_paths(network, int(o), int(d)):
            columns.append(np.isin(np.arange(network.edges), links).astype(float))
            owner.append(pair)
    through = np.array(columns).T
    belongs = (np.array(owner) == np.arange(len(demand))[:, None]).astype(float)
    amount: Any = np.array(demand)  # SciPy's annotations know numbers alone
    start = belongs.T @ (amount / belongs.sum(1))
    found = minimize(
        lambda f: latency.integral(np.maximum(through @ f, 0)).sum(),
        start,
        jac=lambda f: through.T @ latency.value(np.maximum(through @ f, 0)),
        bounds=[(0, None)] * len(start),
        constraints=[LinearConstraint(belongs, amount, amount)],
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    return float(found.fun)


@pytest.mark.parametrize("seed", range(12))
def test_the_minimum_of_beckmann_against_all_paths(seed: int) -> None:
    network = random_network(seed, nodes=5, zones=3, extra=5, first_thru=seed % 2 * 3)
    found = user_equilibrium(network, tolerance=1e-12)
    assert found.status == il2o.Status.CONVERGED
    assert found.beckmann == pytest.approx(by_enumeration(network, network.latency()), rel=1e-7)


def test_several_terms_and_a_fixed_cost_against_all_paths() -> None:
    network = random_network(3, nodes=5, extra=5)
    rng = np.random.default_rng(0)
    shape = (network.edges, 3)
    latency = PolynomialLatency(
        network.free_flow_time + 0.3,
        rng.uniform(0, 1, shape),
        network.capacity,
        rng.choice([0.0, 1.0, 2.5, 6.0], shape),
    )
    found = user_equilibrium(network, latency, tolerance=1e-12)
    assert found.beckmann == pytest.approx(by_enumeration(network, latency), rel=1e-7)


@given(seed=st.integers(0, 10_000), first_thru=st.sampled_from([0, 4]))
def test_wardrop_on_random_networks(seed: int, first_thru: int) -> None:
    network = random_network(seed, nodes=12, zones=4, extra=25, first_thru=first_thru)
    found = user_equilibrium(network, tolerance=1e-11)
    assert found.status == il2o.Status.CONVERGED
    np.testing.assert_allclose(found.times, network.latency().value(found.flow))
    # Potentials by another algorithm, and the gap from them.
    np.testing.assert_allclose(found.potentials, gaps.shortest_times(network, found.times), rtol=1e-12)
    if network.demand:
        assert abs(gaps.relative_gap(network, found.flow, found.times)) < 1e-10
    # Every path joins its pair, without a centroid inside; each is a fastest one, but for crumbs of flow.
    paths, carried = found.paths, np.zeros((4, 4))
    for pair, (o, d) in enumerate(zip(paths.origin, paths.destination, strict=True)):
        for k in range(paths.first[pair], paths.first[pair + 1]):
            links = paths.path(k)
            assert network.tail[links[0]] == o
            assert network.head[links[-1]] == d
            np.testing.assert_array_equal(network.head[links[:-1]], network.tail[links[1:]])
            assert (network.head[links[:-1]] >= first_thru).all()
            carried[o, d] += paths.flow[k]
            excess = found.times[links].sum() - found.potentials[np.searchsorted(network.origins, o), d]
            assert paths.flow[k] * excess <= 1e-9 * (1 + gaps.total_travel_time(found.flow, found.times))
    np.testing.assert_allclose(carried, network.between, rtol=1e-9)
    assert gaps.origin_violation(network, found.origin_flow) < 1e-12
    np.testing.assert_allclose(found.origin_flow.sum(0), found.flow, atol=1e-10)


@given(seed=st.integers(0, 10_000))
def test_a_warm_start_does_not_change_the_equilibrium(seed: int) -> None:
    network = random_network(seed, nodes=10, zones=4, extra=20)
    network = replace(network, free_flow_time=network.free_flow_time + 0.1, power=np.ones(network.edges))
    other = network.scaled(1.7)
    cold = user_equilibrium(other, tolerance=1e-12)
    warm = user_equilibrium(other, tolerance=1e-12, start=user_equilibrium(network).paths)
    np.testing.assert_allclose(warm.flow, cold.flow, atol=1e-5)
    again = user_equilibrium(other, tolerance=1e-10, start=cold.paths)
    assert again.steps == 0
    fewer = replace(network, trips=np.where(np.arange(4) == 1, network.trips, 0.0))
    matched = user_equilibrium(network, trips=fewer.trips, tolerance=1e-12, start=cold.paths)
    np.testing.assert_allclose(
        matched.flow, user_equilibrium(network, trips=fewer.trips, tolerance=1e-12).flow, atol=1e-5
    )
    grown = user_equilibrium(network, tolerance=1e-12, start=matched.paths)
    np.testing.assert_allclose(grown.flow, user_equilibrium(network, tolerance=1e-12).flow, atol=1e-5)


def braess() -> TrafficNetwork:
    return TrafficNetwork(
        name="Braess",
        nodes=4,
        zones=2,
        first_thru=0,
        tail=np.array([0, 0, 2, 2, 3]),
        head=np.array([2, 3, 1, 3, 1]),
        free_flow_time=np.array([1e-8, 50, 50, 10, 1e-8]),
        capacity=np.ones(5),
        b=np.array([1e9, 0.02, 0.02, 0.1, 1e9]),
        power=np.ones(5),
        trips=np.array([[0.0, 6.0], [0.0, 0.0]]),
    )


def test_the_paradox_of_braess() -> None:
    found = user_equilibrium(braess(), tolerance=1e-13)
    np.testing.assert_allclose(found.flow, [4, 2, 2, 2, 4], rtol=1e-9)
    assert found.potentials[0, 1] == pytest.approx(92, rel=1e-9)
    assert found.beckmann == pytest.approx(386, rel=1e-9)
    without = user_equilibrium(braess().without(3), tolerance=1e-13)
    np.testing.assert_allclose(without.flow, [3, 3, 3, 3], rtol=1e-9)
    assert without.potentials[0, 1] == pytest.approx(83, rel=1e-9)


@pytest.mark.parametrize(("name", "beckmann"), [("SiouxFalls", 4_231_335.28710744), ("Anaheim", 1_286_032.171096)])
@pytest.mark.parametrize("tolerance", [1e-6, 1e-10])
def test_the_published_objectives(name: str, beckmann: float, tolerance: float, tntp_folder: Path) -> None:
    network = load(name, tntp_folder)
    found = user_equilibrium(network, tolerance=tolerance)
    assert found.gap <= tolerance
    assert found.beckmann == pytest.approx(beckmann, rel=max(tolerance, 1e-12))
    assert gaps.relative_gap(network, found.flow, found.times) == pytest.approx(found.gap, abs=1e-13)
    assert gaps.conservation_violation(network, found.flow) < 1e-13


def test_pairs_that_compete_for_the_same_links(tntp_folder: Path) -> None:
    """Contexts of Anaheim at which shifts within pairs alone, or Newton steps without a change of basis, come to a halt."""
    model = public_contexts("Anaheim", tntp_folder)
    latency = model.latency(model.draw(1000, seed=(0, 1))[[20, 248, 292, 906]])
    found = user_equilibria(model.network, latency, tolerance=1e-13, max_steps=25)
    assert found.converged.all()
    assert np.abs(gaps.relative_gap(model.network, found.flow, found.times)).max() < 1e-12


@pytest.mark.parametrize("name", ["Berlin-Friedrichshain", "Berlin-Tiergarten", "Eastern-Massachusetts"])
def test_links_without_time_and_centroids_of_the_public_networks(name: str, tntp_folder: Path) -> None:
    network = load(name, tntp_folder)
    found = user_equilibrium(network, tolerance=1e-11)
    assert found.status == il2o.Status.CONVERGED
    assert abs(gaps.relative_gap(network, found.flow, found.times)) < 2e-11
    assert gaps.origin_violation(network, found.origin_flow) < 1e-13


def test_a_batch_is_a_loop_and_threads_change_nothing() -> None:
    network = random_network(1, nodes=10, zones=4, extra=20)
    capacity = network.capacity * np.random.default_rng(0).uniform(0.5, 2, (37, network.edges))
    latency = network.latency(capacity)
    start = user_equilibrium(network).paths
    one = user_equilibria(network, latency, start=start, by_origin=True)
    two = user_equilibria(network, latency, start=start, workers=2, progress=False)
    np.testing.assert_array_equal(one.flow, two.flow)
    assert two.origin_flow is None
    for i in (0, 36):
        single = user_equilibrium(network, latency[i], start=start)
        np.testing.assert_array_equal(one.flow[i], single.flow)
        assert one.origin_flow is not None
        np.testing.assert_array_equal(one.origin_flow[i], single.origin_flow)
        assert one.potentials is not None
        np.testing.assert_array_equal(one.potentials[i], single.potentials)
    assert one.converged.all()
    assert (gaps.relative_gap(network, one.flow, one.times) < 1.1e-6).all()
    trips = network.trips * np.linspace(0.5, 1.5, 37)[:, None, None]
    many = user_equilibria(network, latency, trips)
    assert gaps.relative_gap(network, many.flow[30], many.times[30], trips[30]) < 1.1e-6
    assert gaps.conservation_violation(network, many.flow[30], trips[30]) < 1e-12


def test_no_trips_and_trips_within_a_zone() -> None:
    network = random_network(0)
    for trips in (np.zeros((3, 3)), np.diag([1.0, 2.0, 3.0])):
        found = user_equilibrium(replace(network, trips=trips))
        assert found.status == il2o.Status.CONVERGED
        assert (found.flow == 0).all()
        assert found.gap == 0
    alone = user_equilibrium(network)
    within = user_equilibrium(replace(network, trips=network.between + 5 * np.eye(3)))
    np.testing.assert_array_equal(alone.flow, within.flow)


def test_a_pair_without_a_path_is_infeasible() -> None:
    network = replace(braess(), trips=np.array([[0.0, 6.0], [2.5, 0.0]]))
    with pytest.raises(
        il2o.ConvergenceError, match=r"Braess: INFEASIBLE: no path leads from zone 1 to zone 0 .* 2.5 trips"
    ):
        user_equilibrium(network, on_failure="raise")
    with pytest.warns(il2o.ConvergenceWarning, match="INFEASIBLE"):
        found = user_equilibrium(network)
    assert found.status == il2o.Status.INFEASIBLE
    assert np.isnan(found.flow).all()
    # A centroid closes the only way.
    closed = replace(
        braess(),
        first_thru=4,
        tail=np.array([0, 2]),
        head=np.array([2, 1]),
        trips=np.array([[0.0, 1.0], [0.0, 0.0]]),
        **{name: np.ones(2) for name in ("free_flow_time", "capacity", "b", "power", "fixed_cost")},
    )
    assert user_equilibrium(closed, on_failure="ignore").status == il2o.Status.INFEASIBLE
    assert user_equilibrium(replace(closed, first_thru=2)).flow.tolist() == [1, 1]


def test_too_few_steps_and_times_beyond_all_numbers(tntp_folder: Path) -> None:
    network = load("SiouxFalls", tntp_folder)
    with pytest.warns(
        il2o.ConvergenceWarning, match=r"MAX_STEPS: relative gap .* after 1 steps, tolerance 1.0e-06. Raise"
    ):
        found = user_equilibrium(network, max_steps=1)
    assert found.status == il2o.Status.MAX_STEPS
    assert found.trace[-1] == found.gap < found.trace[0]
    assert user_equilibrium(network, max_steps=0, tolerance=0).status == il2o.Status.MAX_STEPS  # asked for: no warning
    steep = replace(network, power=np.full(network.edges, 900.0))
    with pytest.raises(il2o.ConvergenceError, match="NONFINITE: travel times grew beyond all numbers"):
        user_equilibrium(steep, on_failure="raise")
    latency = network.latency(np.stack([network.capacity, network.capacity]))
    with pytest.raises(il2o.ConvergenceError, match=r"2 of 2 failed; member 0: MAX_STEPS"):
        user_equilibria(network, latency, max_steps=0, on_failure="raise")


def test_bad_options() -> None:
    network, other = braess(), random_network(0)
    latency = network.latency()
    with pytest.raises(ValueError, match="tolerance >= 0; got tolerance=-1"):
        user_equilibrium(network, tolerance=-1)
    with pytest.raises(ValueError, match="max_steps >= 0; got max_steps=-1"):
        user_equilibrium(network, max_steps=-1)
    with pytest.raises(ValueError, match="Braess has 5 links; got latencies of 14"):
        user_equilibrium(network, other.latency())
    with pytest.raises(ValueError, match="the start is of a network of 14 links; this one has 5"):
        user_equilibrium(network, start=user_equilibrium(other).paths)
    with pytest.raises(ValueError, match=r"Braess needs trips of shape \(2, 2\); got \(3, 3\)"):
        user_equilibrium(network, trips=other.trips)
    with pytest.raises(ValueError, match="trips are finite and >= 0; got -1"):
        user_equilibrium(network, trips=-np.ones((2, 2)))
    with pytest.raises(ValueError, match="trips leave zone 1 "):
        user_equilibrium(network, trips=np.ones((2, 2)))
    with pytest.raises(ValueError, match="got a batch of"):
        user_equilibrium(network, network.latency(np.ones((3, 5))))
    with pytest.raises(ValueError, match=r"shape \(B, E\); got the batch shape \(\)"):
        user_equilibria(network, latency)
    with pytest.raises(ValueError, match="workers >= 1; got workers=0"):
        user_equilibria(network, network.latency(np.ones((3, 5))), workers=0)
    with pytest.raises(ValueError, match="3 latencies and 2 matrices"):
        user_equilibria(network, network.latency(np.ones((3, 5))), np.ones((2, 2, 2)))


@pytest.mark.bad_input
def test_an_unknown_answer_to_failure() -> None:
    with pytest.raises(ValueError, match='on_failure must be "warn", "raise" or "ignore"; got \'sigh\''):
        user_equilibrium(braess(), on_failure="sigh")  # pyright: ignore[reportArgumentType]
