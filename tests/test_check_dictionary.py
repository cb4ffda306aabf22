"""The independent check of the dictionary's table finds what is wrong with it."""

import json
from pathlib import Path

import check_dictionary as check
import numpy as np
import pytest
import torch

import implicit_l2o as il2o
from implicit_l2o.applications.dictionary import ImplicitDictionary, Sizes
from implicit_l2o.applications.dictionary.data import complete, signals, world

SEED, COUNT = 1, 6


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run's folder as `il2o run` leaves it, of a model that knows the dictionary, and its results."""
    sizes = Sizes()
    M, A = world(sizes, SEED)
    x = signals(sizes, COUNT, seed=SEED, stream=2)
    model = ImplicitDictionary(A, seed=0)
    with torch.no_grad():
        model.D.copy_(complete(M))
        found = model(x @ A.mT)
    least = il2o.affine_factor(A).solve(x @ A.mT)
    assert found.steps is not None
    assert found.status is not None
    folder = tmp_path / "runs" / f"seed_{SEED}"
    folder.mkdir(parents=True)
    arrays = {"answer": found.x, "target": x, "inputs": x @ A.mT, "steps": found.steps, "status": found.status}
    np.savez(folder / "predictions.npz", **{name: value.numpy() for name, value in arrays.items()})
    np.savez(folder / "baselines.npz", least_squares=least.numpy())
    torch.save({"state_dict": {"model.D": model.D.detach()}}, folder / "model.ckpt")
    answers = {"model": found.x, "least_squares": least}
    test = {
        name: {
            "mse": {"values": [float((answer - x).square().mean())]},
            "infidelity": {"values": [check.infidelity(*(part.double().numpy() for part in (answer, x @ A.mT, A)))]},
        }
        for name, answer in answers.items()
    }
    (tmp_path / "results.json").write_text(json.dumps({"seeds": [SEED], "test": test}))
    return tmp_path


def complains(place: Path) -> bool:
    return check.main([str(place / "runs"), "--results", str(place / "results.json")]) == 1


def change(place: Path, **arrays: np.ndarray) -> None:
    path = place / "runs" / f"seed_{SEED}" / "predictions.npz"
    with np.load(path) as file:
        kept = dict(file)
    np.savez(path, **(kept | arrays))


def kept(place: Path, name: str) -> np.ndarray:
    with np.load(place / "runs" / f"seed_{SEED}" / "predictions.npz") as file:
        return file[name]


def test_what_is_right_passes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not complains(place), capsys.readouterr().out
    assert "1 seeds checked, 0 complaints" in capsys.readouterr().out


def test_wrong_numbers_are_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((place / "results.json").read_text())
    results["test"]["least_squares"]["mse"]["values"] = [1.0]
    results["test"]["model"]["infidelity"]["values"] = [1e-3]
    (place / "results.json").write_text(json.dumps(results))
    assert complains(place)
    out = capsys.readouterr().out
    assert "least_squares: mse is" in out
    assert "model: infidelity is" in out


def test_wrong_answers_are_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = kept(place, "answer")
    change(place, answer=np.roll(answer, 1, axis=0), steps=kept(place, "steps") + 1000)
    assert complains(place)
    out = capsys.readouterr().out
    for part in ("model: mse is", "above 0.002", "misses the fidelity", "steps"):
        assert part in out
    change(place, target=kept(place, "target") + 1)
    assert complains(place)
    assert "not those of the seed" in capsys.readouterr().out


def test_answers_that_are_not_sparsest_are_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "runs" / f"seed_{SEED}"
    torch.save({"state_dict": {"model.D": torch.linalg.qr(torch.randn(250, 250)).Q}}, folder / "model.ckpt")
    assert complains(place)
    assert "HiGHS finds" in capsys.readouterr().out
