"""Contexts and their equilibria: the model, exactness, independence of starts and batches, the cache."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from implicit_l2o.data import equilibria
from implicit_l2o.data.equilibria import TOLERANCE, equilibrium_data
from implicit_l2o.data.tntp import load
from implicit_l2o.data.traffic import STRENGTHS, TrafficContexts, contexts, public_contexts, toy_contexts, toy_network
from implicit_l2o.games import (
    Assignments,
    PolynomialLatency,
    TrafficNetwork,
    gaps,
    user_equilibria,
    user_equilibrium,
)

pytest.importorskip("numba", reason="numba is in the extra 'exact'")


def test_the_toy_network_is_the_published_one() -> None:
    network = toy_network()
    incidence = np.zeros((4, 5))
    incidence[network.tail, np.arange(5)] = -1
    incidence[network.head, np.arange(5)] = 1
    # Columns 1-3, 3-4, 1-2, 2-3, 2-4, as published.
    np.testing.assert_array_equal(incidence, [[-1, 0, -1, 0, 0], [0, 0, 1, -1, -1], [1, -1, 0, 1, 0], [0, 1, 0, 0, 1]])
    found = user_equilibrium(network, tolerance=1e-13)
    # Three paths; each is used, so all take the same time.
    paths = [[0, 1], [2, 4], [2, 3, 1]]
    times = [found.times[path].sum() for path in paths]
    np.testing.assert_allclose(times, times[0], rtol=1e-9)
    np.testing.assert_allclose(found.flow[[0, 1]].sum() + found.flow[4], 1 + found.flow[0], rtol=1e-12)


def test_the_clamped_capacities() -> None:
    model = toy_contexts(seed=3)
    d = model.draw(200, seed=0)
    assert d.min() >= 0
    assert d.max() <= 0.25
    assert (model.weights[:, 0] < 0).all()
    assert (model.weights[:, 1:] > 0).all()
    share = model.capacities(d) / model.network.capacity
    np.testing.assert_allclose(share, 1 + np.clip(d @ model.weights.T, -0.4, 0.4))
    assert 0.6 <= share.min() < share.max() <= 1.4


def test_the_smooth_capacities() -> None:
    model = contexts(toy_network(), strength=0.5, seed=1)
    np.testing.assert_allclose(np.linalg.norm(model.weights, axis=1), np.sqrt(3))
    d = model.draw(4000, seed=0)
    raised = d @ model.weights.T
    np.testing.assert_allclose(raised.var(0), 1, rtol=0.1)
    logs = np.log(model.capacities(d) / model.network.capacity)
    np.testing.assert_allclose(logs, 0.5 * np.tanh(raised))
    np.testing.assert_array_equal(model.draw(10, seed=0), d[:10])
    assert not np.array_equal(model.draw(10, seed=1), d[:10])
    assert contexts(toy_network()).strength == 0.5
    assert contexts(replace(toy_network(), name="Anaheim")).strength == STRENGTHS["Anaheim"]


def test_links_that_take_the_same_time_at_every_flow_get_a_slope() -> None:
    network = replace(
        toy_network(),
        free_flow_time=np.array([1.0, 2.0, 0.0, 3.0, 0.0]),
        b=np.array([1.0, 0, 1, 1, 0]),
        fixed_cost=np.ones(5),
    )
    model = contexts(network, strength=0.3)
    assert model.connectors.tolist() == [False, True, True, False, True]
    latency = model.latency(model.draw(3, seed=0))
    assert not latency.constant_links.any()
    flow = np.full(5, 2.0)
    # m: the mean time of links 0 and 3; n: one trip in four zones.
    added = 0.01 * 2.0 * 2.0 / 0.25
    np.testing.assert_allclose(latency.value(flow)[:, [1, 2, 4]], np.tile([3 + added, 1 + added, 1 + added], (3, 1)))
    plain = network.latency(model.capacities(model.draw(3, seed=0))).value(flow)
    np.testing.assert_allclose(latency.value(flow)[:, [0, 3]], plain[:, [0, 3]])


def test_the_data_are_equilibria_and_the_splits_differ(tmp_path: Path) -> None:
    model = toy_contexts()
    data = equilibrium_data(model, train=50, validation=10, test=10, cache=tmp_path)
    for split, count in ((data.train, 50), (data.validation, 10), (data.test, 10)):
        assert len(split) == count
        assert split.gap.max() <= TOLERANCE
        times = model.latency(split.d).value(split.flow)
        assert np.abs(gaps.relative_gap(model.network, split.flow, times)).max() < 1e-12
        assert gaps.conservation_violation(model.network, split.flow).max() < 1e-14
    assert len(np.unique(np.concatenate([data.train.d, data.validation.d, data.test.d]), axis=0)) == 70


def test_the_cache_is_used_extended_and_keyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_contexts()
    counts = {"validation": 0, "test": 0, "cache": tmp_path}
    whole = equilibrium_data(model, train=20, **counts).train
    files = sorted(tmp_path.iterdir())
    other = tmp_path / "other"
    short = equilibrium_data(model, train=8, validation=0, test=0, cache=other).train
    np.testing.assert_array_equal(short.flow, whole.flow[:8])
    longer = equilibrium_data(model, train=20, validation=0, test=0, cache=other).train
    np.testing.assert_array_equal(longer.flow, whole.flow)
    with monkeypatch.context() as patch:
        patch.setattr(equilibria, "user_equilibria", None)  # nothing is solved again
        np.testing.assert_array_equal(equilibrium_data(model, train=5, **counts).train.flow, whole.flow[:5])
    assert sorted(tmp_path.iterdir()) == sorted([*files, other])
    for changed in (
        toy_contexts(seed=1),
        replace(model, network=model.network.scaled(1.1)),
        replace(model, strength=0.3),
    ):
        assert not np.array_equal(equilibrium_data(changed, train=3, **counts).train.flow, whole.flow[:3])
    again = equilibrium_data(model, train=3, seed=1, **counts).train
    assert not np.array_equal(again.d, whole.d[:3])


def test_a_run_that_was_broken_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_contexts()
    whole = equilibrium_data(model, train=10, validation=0, test=0, cache=tmp_path / "whole").train
    monkeypatch.setattr(equilibria, "_SAVED", 4)
    solve, sizes = equilibria.user_equilibria, []

    def breaks(network: TrafficNetwork, latency: PolynomialLatency, **options: Any) -> Assignments:
        sizes.append(latency.batch[0])
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return solve(network, latency, **options)

    monkeypatch.setattr(equilibria, "user_equilibria", breaks)
    for _ in range(2):
        try:
            found = equilibrium_data(model, train=10, validation=0, test=0, cache=tmp_path).train
        except KeyboardInterrupt:
            continue
        np.testing.assert_array_equal(found.flow, whole.flow)
    assert sizes == [4, 4, 2, 2]


def test_a_sample_that_stalls_is_solved_from_another_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_contexts()
    whole = equilibrium_data(model, train=6, validation=0, test=0, cache=tmp_path / "whole").train
    solve = equilibria.user_equilibria

    def stalls(network: TrafficNetwork, latency: PolynomialLatency, **options: Any) -> Assignments:
        found = solve(network, latency, **options)
        found.status[[1, 4]] = 2
        found.flow[[1, 4]] += 0.1
        return found

    monkeypatch.setattr(equilibria, "user_equilibria", stalls)
    found = equilibrium_data(model, train=6, validation=0, test=0, cache=tmp_path).train
    np.testing.assert_allclose(found.flow, whole.flow, rtol=1e-6)
    assert found.gap.max() <= TOLERANCE


def test_a_damaged_cache_says_so(tmp_path: Path) -> None:
    model = toy_contexts()
    equilibrium_data(model, train=5, validation=0, test=0, cache=tmp_path)
    (path,) = tmp_path.glob("toy-train-*.npz")
    content = path.read_bytes()
    path.write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"is damaged .*; delete it, and it is computed again"):
        equilibrium_data(model, train=5, validation=0, test=0, cache=tmp_path)
    np.savez(path, d=np.ones((5, 5)), flow=np.ones((4, 5)), gap=np.ones(5))
    with pytest.raises(ValueError, match="holds something else than 5 equilibria"):
        equilibrium_data(model, train=5, validation=0, test=0, cache=tmp_path)


@pytest.mark.parametrize("name", STRENGTHS)
def test_two_starts_agree_on_the_public_networks(name: str, tntp_folder: Path) -> None:
    model = public_contexts(name, tntp_folder)
    latency = model.latency(model.draw(6, seed=5))
    options = {"tolerance": TOLERANCE, "on_failure": "raise", "progress": False}
    one = user_equilibria(model.network, latency, **options)
    far = user_equilibrium(model.network.scaled(0.5)).paths
    two = user_equilibria(model.network, latency, start=far, **options)
    np.testing.assert_allclose(one.flow, two.flow, rtol=1e-4, atol=1e-6)
    assert np.abs(gaps.relative_gap(model.network, one.flow, one.times)).max() < 1e-12
    # The context moves the equilibrium.
    spread = np.sqrt(((one.flow - one.flow.mean(0)) ** 2).sum() / (one.flow**2).sum())
    assert 0.05 < spread < 0.25


def test_the_slope_of_connectors_makes_flows_unique(tntp_folder: Path) -> None:
    network = load("Berlin-Friedrichshain", tntp_folder)
    assert int(contexts(network).connectors.sum()) == 184
    assert not contexts(network).latency(np.zeros((1, 10))).constant_links.any()


BAD = [
    ({"strength": 0.0}, "0 < strength < inf; got strength=0.0"),
    ({"strength": 1.0, "response": "clamped"}, "0 < strength < 1.0; got strength=1.0"),
    ({"low": 1.0}, "low < high; got low=1.0, high=1.0"),
    ({"connector_slope": 0.0}, "connector_slope > 0; got 0.0"),
    ({"weights": np.ones((4, 2))}, r"weights \(5, dimension\); got \(4, 2\)"),
    ({"response": "rude"}, r"responses \('smooth', 'clamped'\); got 'rude'"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_contexts(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrafficContexts(**{"network": toy_network(), "weights": np.ones((5, 2)), "strength": 0.5, **change})


def test_bad_counts(tmp_path: Path) -> None:
    model = toy_contexts()
    with pytest.raises(ValueError, match="train >= 0; got train=-1"):
        equilibrium_data(model, train=-1, cache=tmp_path)
    with pytest.raises(ValueError, match="count >= 0; got count=-1"):
        model.draw(-1, seed=0)
    with pytest.raises(ValueError, match=r"shape \(B, 5\); got \(2, 4\)"):
        model.capacities(np.ones((2, 4)))
    with pytest.raises(ValueError, match="dimension >= 1; got dimension=0"):
        contexts(toy_network(), dimension=0)
