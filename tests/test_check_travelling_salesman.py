"""The independent check of the travelling-salesman tables finds what is wrong with them."""

import json
from pathlib import Path

import check_travelling_salesman as check
import numpy as np
import pytest
import torch
import yaml

from implicit_l2o.decoders import TravellingSalesman

pytest.importorskip("numba")
tsp = pytest.importorskip("pyepo.data.tsp")

N, TEST = 6, 5
FIRST, SECOND = np.triu_indices(N, 1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as a run leaves it: of a model that is always right, and the floor."""
    contexts, costs = tsp.genData(4 + 4 + TEST, 5, N, deg=4, noise_width=0.5, seed=140)
    mean = tsp.genData(4 + 4 + TEST, 5, N, deg=4, noise_width=0.0, seed=140)[1]
    best, floor = (TravellingSalesman(N)(torch.from_numpy(c[-TEST:])).numpy() for c in (costs, mean))
    regret = (costs[-TEST:] * (floor - best)).sum() / (costs[-TEST:] * best).sum()
    options = {
        "n_cities": N,
        "degree": 4,
        "noise": 0.5,
        "train": 4,
        "validation": 4,
        "test": TEST,
        "first_data_seed": 135,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": options}}))
    scores = {"model": {"regret": 0.0}, "floor": {"regret": float(regret)}}
    (tmp_path / "results.json").write_text(json.dumps({"seed": 5, "test": scores}))
    np.savez(tmp_path / "predictions.npz", answer=best, target=best, inputs=contexts[-TEST:])
    np.savez(tmp_path / "baselines.npz", floor=floor)
    return tmp_path


def change(path: Path, **arrays: np.ndarray) -> None:
    with np.load(path) as file:
        kept = dict(file)
    np.savez(path, **(kept | arrays))


def tour(*cities: int) -> np.ndarray:
    """The closed tour as 0/1 over the edges."""
    ends = {frozenset(pair) for pair in zip(cities, (*cities[1:], cities[0]), strict=True)}
    return np.array([float(frozenset(pair) in ends) for pair in zip(FIRST.tolist(), SECOND.tolist(), strict=True)])


def test_a_tour_is_one_closed_circuit():
    assert check.is_tour(tour(0, 2, 4, 1, 3, 5), FIRST, SECOND, N)
    assert not check.is_tour(tour(0, 1, 2) + tour(3, 4, 5), FIRST, SECOND, N)
    assert not check.is_tour(0.5 * (tour(0, 1, 2, 3, 4, 5) + tour(0, 2, 4, 1, 3, 5)), FIRST, SECOND, N)
    assert not check.is_tour(np.zeros(len(FIRST)), FIRST, SECOND, N)


def test_what_is_right_is_left_alone(run):
    assert list(check.complaints(run)) == []
    assert check.main([str(run)]) == 0


def test_what_is_wrong_is_found(run):
    with np.load(run / "predictions.npz") as file:
        best = file["target"]
    change(run / "predictions.npz", answer=np.tile(tour(0, 1, 2) + tour(3, 4, 5), (TEST, 1)))
    assert any("model: 5 answers are no closed tours" in text for text in check.complaints(run))
    worse = best[::-1].copy()
    change(run / "predictions.npz", answer=worse)
    assert any("model: the regret is" in text for text in check.complaints(run))
    change(run / "predictions.npz", answer=best, target=worse)
    assert any("HiGHS finds a better tour" in text for text in check.complaints(run))
    change(run / "predictions.npz", target=best)
    change(run / "baselines.npz", floor=worse)
    found = list(check.complaints(run))
    assert any("the floor does not take the best tour" in text for text in found)
    assert check.main([str(run)]) == 1
