"""Frank-Wolfe and its conjugate variants: they reach the equilibrium, faster with more memory, and say how they ended."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import implicit_l2o as il2o
from implicit_l2o.data.tntp import load
from implicit_l2o.data.traffic import toy_network
from implicit_l2o.games import frank_wolfe, gaps, user_equilibrium
from implicit_l2o.games.frank_wolfe import Directions

pytest.importorskip("numba", reason="numba is in the extra 'exact'")

DIRECTIONS: list[Directions] = ["plain", "conjugate", "biconjugate"]


@pytest.mark.parametrize("directions", DIRECTIONS)
def test_it_reaches_the_equilibrium(directions: Directions) -> None:
    network = toy_network()
    exact = user_equilibrium(network, tolerance=1e-13)
    found = frank_wolfe(network, directions=directions, tolerance=1e-5)
    assert found.status == il2o.Status.CONVERGED
    assert found.gap <= 1e-5
    assert gaps.relative_gap(network, found.flow, found.times) == pytest.approx(found.gap, abs=1e-12)
    assert gaps.conservation_violation(network, found.flow) < 1e-12
    # The gap bounds the distance of the objective.
    excess = found.beckmann - exact.beckmann
    assert 0 <= excess <= found.gap * gaps.total_travel_time(found.flow, found.times)
    assert found.trace[-1] == found.gap
    assert len(found.trace) == found.steps + 1


def test_more_memory_takes_fewer_steps(tntp_folder: Path) -> None:
    network = load("SiouxFalls", tntp_folder)
    runs = [frank_wolfe(network, directions=directions, tolerance=1e-4) for directions in DIRECTIONS]
    steps = [run.steps for run in runs]
    assert steps[0] > 3 * steps[1] > 3 * steps[2]
    for run in runs:
        assert run.beckmann == pytest.approx(4_231_335.287, rel=2e-4)


def test_links_without_time_and_centroids(tntp_folder: Path) -> None:
    network = load("Berlin-Friedrichshain", tntp_folder)
    found = frank_wolfe(network, tolerance=1e-4)
    assert gaps.relative_gap(network, found.flow, found.times) == pytest.approx(found.gap, abs=1e-12)
    assert found.beckmann == pytest.approx(user_equilibrium(network, tolerance=1e-10).beckmann, rel=1e-4)


def test_how_it_ends_otherwise() -> None:
    network = toy_network()
    with pytest.warns(il2o.ConvergenceWarning, match=r"frank_wolfe of toy: MAX_STEPS: relative gap .* after 2 steps"):
        assert frank_wolfe(network, max_steps=2, tolerance=1e-12).status == il2o.Status.MAX_STEPS
    assert frank_wolfe(network, max_steps=3, tolerance=0).steps == 3  # asked for: no warning
    trips = np.zeros((4, 4))
    trips[3, 0] = 2.0
    with pytest.raises(il2o.ConvergenceError, match="no path leads from zone 3 to zone 0"):
        frank_wolfe(replace(network, trips=trips), on_failure="raise")
    none = frank_wolfe(replace(network, trips=np.zeros((4, 4))))
    assert none.flow.tolist() == [0] * 5
    assert none.gap == 0
    steep = replace(network, power=np.full(5, 900.0), capacity=np.full(5, 1e-3))
    assert frank_wolfe(steep, on_failure="ignore").status == il2o.Status.NONFINITE


@pytest.mark.bad_input
def test_unknown_directions() -> None:
    with pytest.raises(ValueError, match="directions 'plain', 'conjugate', 'biconjugate'; got 'steepest'"):
        frank_wolfe(toy_network(), directions="steepest")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="tolerance >= 0; got tolerance=-1"):
        frank_wolfe(toy_network(), tolerance=-1)
