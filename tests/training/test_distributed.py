"""Two processes do what one does: the gradients, the metrics, the certificates, the predictions, and where a run stopped.

The processes are started once for all tests (two_processes.py), and the reference is the same code on this one.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import two_processes
from filelock import FileLock

from implicit_l2o.training.prediction import gather_samples

SCRIPT = Path(two_processes.__file__)
RUNS = ["single", "jfb", "implicit"]  # the first in float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the two processes wrote; started by the first of pytest's own processes that comes here."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / "two_processes"
    with FileLock(root / "two_processes.lock"):
        if not folder.exists():
            folder.mkdir()
            command = [sys.executable, str(SCRIPT), str(folder)]
            own = {name: value for name, value in os.environ.items() if name != "PL_GLOBAL_SEED"}  # other tests' seed
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=own, check=False)
            assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("one_process")


@pytest.fixture(scope="module")
def one(one_folder: Path) -> dict[str, Any]:
    return two_processes.everything(1, one_folder)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("run", RUNS)
def test_the_gradient_is_that_of_the_global_batch(run: str, one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    expected = one[run]["gradients"]
    for rank in two:
        assert rank[run]["gradients"].shape == expected.shape
        assert relative(rank[run]["gradients"][0], expected[0]) < 1e-6
    assert torch.equal(two[0][run]["gradients"], two[1][run]["gradients"])


@pytest.mark.parametrize("run", ["jfb", "implicit"])
def test_two_epochs_end_with_the_same_weights(run: str, one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    # In double precision: the optimizer magnifies the rounding of small gradients.
    assert relative(two[0][run]["gradients"], one[run]["gradients"]) < 1e-9
    assert relative(two[0][run]["weights"], one[run]["weights"]) < 1e-9
    assert torch.equal(two[0][run]["weights"], two[1][run]["weights"])


@pytest.mark.parametrize("run", ["jfb", "implicit"])
def test_metrics_are_those_of_all_samples(run: str, one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    assert [rank[run]["rows"] for rank in two] == [51, 50]
    logged = {"train/loss", "val/loss", "val/error", "val/hits"}
    solver = {f"solver/{name}" for name in ("steps", "steps_max", "residual", "converged", "contraction")}
    solver |= {f"solver/gradient_{name}" for name in ("cosine", "norm_ratio")}
    assert set(one[run]["epochs"][1]) >= logged | solver
    assert set(one[run]["test"]) == {"test/error", "test/hits"}
    assert 0 < one[run]["test"]["test/hits"] < 1
    for rank in two:
        every = zip([*rank[run]["epochs"], rank[run]["test"]], [*one[run]["epochs"], one[run]["test"]], strict=True)
        for found, expected in every:
            assert set(found) == set(expected)
            for name, value in expected.items():
                # Counts are exact; sums are made in single precision; the contraction is read off the last small residuals.
                rel = 0 if "hits" in name else 1e-3 if "contraction" in name else 1e-6
                assert found[name] == pytest.approx(value, rel=rel, abs=0), name


@pytest.mark.parametrize("run", ["jfb", "implicit"])
def test_certificates_and_their_limits_are_those_of_all_samples(
    run: str, one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    expected = one[run]["found"]
    assert torch.equal(expected["index"], torch.arange(101))
    for rank in two:
        assert np.allclose(rank[run]["limits"], one[run]["limits"], rtol=1e-6, atol=0)
        assert torch.equal(rank[run]["found"]["labels"], expected["labels"])
        for name in ("answer", "values", "residual", "error"):
            assert torch.allclose(rank[run]["found"][name], expected[name], rtol=1e-6, atol=1e-10)
    assert two[0][run]["limits"] == two[1][run]["limits"]
    assert all(0 < int((column == 0).sum()) < 101 for column in expected["labels"].T)  # some pass, some do not


@pytest.mark.parametrize("run", RUNS)
def test_every_sample_is_predicted_once_and_in_order(
    run: str, one: dict[str, Any], two: list[dict[str, Any]], folder: Path, one_folder: Path
) -> None:
    assert [file.name for file in (folder / run).iterdir()] == ["predictions.npz"]
    with np.load(folder / run / "predictions.npz") as found, np.load(one_folder / run / "predictions.npz") as expected:
        assert "index" not in expected
        assert set(found) == set(expected) > {"answer", "values", "labels", "status"}
        for name in found:
            assert found[name].shape == expected[name].shape
        assert np.array_equal(found["answer"], two[0][run]["found"]["answer"].numpy())
        if run != "single":
            assert np.allclose(found["answer"], expected["answer"], rtol=1e-6, atol=1e-10)


def test_a_process_without_a_gradient_takes_part(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    found, expected = two[0]["fail"]["gradients"], one["fail"]["gradients"]
    assert found.shape == expected.shape
    assert float(expected[0].norm()) > 0
    assert relative(found[0], expected[0]) < 1e-6
    assert not found[:, -8:].any()  # of what no loss depends on


def test_a_rest_is_cut_to_equal_shards(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    assert one["rest"]["sizes"] == [8, 8, 8, 8, 8, 3]
    assert [rank["rest"]["sizes"] for rank in two] == [[4, 4, 4, 4, 4, 1]] * 2


def test_each_process_draws_numbers_of_its_own(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    assert two[0]["rest"]["draw"] == one["rest"]["draw"] != two[1]["rest"]["draw"]


def test_a_run_of_two_processes_goes_on_with_one(two: list[dict[str, Any]], folder: Path, tmp_path: Path) -> None:
    whole = two_processes.go_on(tmp_path, None)
    with pytest.warns(UserWarning, match="random states of 2 processes, this run has 1: they are not restored"):
        second = two_processes.go_on(tmp_path, folder / "stopped.ckpt")
    first = [torch.cat(shards) for shards in zip(*(rank["stop"]["samples"] for rank in two), strict=True)]
    seen = [*first, *second["samples"]]
    assert len(first) == 8
    assert len(seen) == len(whole["samples"]) == 10
    assert all(torch.equal(a, b) for a, b in zip(seen, whole["samples"], strict=True))
    assert relative(second["weights"], whole["weights"]) < 1e-9


def test_an_experiment_of_two_processes_is_that_of_one(
    one: dict[str, Any], two: list[dict[str, Any]], folder: Path, one_folder: Path
) -> None:
    found, expected = two[0]["experiment"], one["experiment"]
    assert two[1]["experiment"] == {}  # only the first compares and writes
    assert set(found["test"]) == {"model", "constant", "other"}
    for name, scores in expected["test"].items():
        assert found["test"][name] == pytest.approx(scores, rel=1e-4)
    assert {file.name for file in (folder / "experiment").iterdir() if file.name[:6] != "events"} == {
        file.name for file in (one_folder / "experiment").iterdir() if file.name[:6] != "events"
    }
    with np.load(folder / "experiment" / "predictions.npz") as predictions:
        assert predictions["answer"].shape == (101, 5)


def test_samples_are_gathered_from_unequal_parts(two: list[dict[str, Any]]) -> None:
    for rank in two:
        assert rank["unequal"]["index"].tolist() == list(range(8))
        assert rank["unequal"]["value"].tolist() == list(range(7, -1, -1))
        assert rank["unequal"]["ranks"].tolist() == list(range(8))


@pytest.mark.bad_input
def test_samples_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same length; got {'a': 2, 'b': 3}"):
        gather_samples({"a": torch.zeros(2), "b": torch.zeros(3)})
