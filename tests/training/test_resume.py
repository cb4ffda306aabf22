"""A run that was killed or interrupted at any moment and resumed ends as if nothing had happened, bit by bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from implicit_l2o.training import read_checkpoint

SCRIPT = Path(__file__).with_name("lossless_runs.py")
SOURCE = Path(__file__).parents[2] / "src"

# The resumed run: the uninterrupted one it must equal.
EQUAL = {
    "killed in the first step": "whole",
    "killed in a step": "whole",
    "killed twice while writing": "whole",
    "killed after the best, before the last": "whole",
    "killed after the checkpoint, before the log": "whole",
    "killed between epochs": "whole",
    "interrupted in a step, loader without position": "whole",
    "interrupted in validation": "whole",
    "resumable, interrupted": "resumable",
    "resumable, interrupted at once": "resumable",
    "resumable, terminated twice": "resumable",
    "resumable, killed": "resumable",
    "steps, killed": "steps",
    "steps, resumable, interrupted": "steps, resumable",
    "accumulated, interrupted": "accumulated",
    "validated inside, interrupted": "validated inside",
    "application, killed": "application",
    "application, interrupted": "application",
    "two processes, killed": "two processes",
    "two processes, interrupted": "two processes",
    "stopped early, killed": "stopped early",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all the runs left, in a folder each."""
    root = tmp_path_factory.mktemp("runs")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(SCRIPT), str(root)], env=environment, check=True, timeout=300)
    return root


def ends(runs: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((runs / "ends.json").read_text())[name]


def output(runs: Path, name: str) -> str:
    return (runs / name / "output.txt").read_text()


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """Where two nested contents differ in a bit; paths and times are left out."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [name]
    if isinstance(a, dict) and isinstance(b, dict):
        if len(a) == len(b) == 1 and name.endswith("best_k_models"):  # its only key is a path
            return differences(list(a.values()), list(b.values()), name)
        keys = [key for key in a | b if not str(key).endswith(("path", "dirpath")) and key != "EpochTimer"]
        return [d for key in keys for d in differences(a.get(key), b.get(key), f"{name}.{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [d for i, pair in enumerate(zip(a, b, strict=True)) for d in differences(*pair, f"{name}[{i}]")]
    return [] if type(a) is type(b) and a == b else [f"{name}: {a!r} and {b!r}"]


@pytest.mark.parametrize("name", EQUAL)
def test_a_resumed_run_ends_as_the_uninterrupted_one(runs: Path, name: str) -> None:
    """The weights, the optimizer, the schedule, all random states and counters, and every row of the metrics."""
    *_, end = ends(runs, name)
    assert end["code"] == 0, output(runs, name)
    assert end["files"] == ["best.ckpt", "last.ckpt"]  # no partial file is left
    for file in ("final.pt", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        a, b = (read_checkpoint(runs / run / file) for run in (EQUAL[name], name))
        assert differences(a, b) == [], file
    assert (runs / name / "metrics.csv").read_text() == (runs / EQUAL[name] / "metrics.csv").read_text()


@pytest.mark.parametrize("name", ["killed in a step", "resumable, interrupted", "two processes, killed"])
def test_tensorboard_shows_what_the_uninterrupted_run_shows(runs: Path, name: str) -> None:
    a, b = (events(runs / run) for run in (EQUAL[name], name))
    assert set(a) == {"epoch", "lr-AdamW", "train/step_loss", "train/loss", "val/loss"}
    assert a == b


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by name, as TensorBoard reads them."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    names = accumulator.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in accumulator.Scalars(name)] for name in names}


@pytest.mark.parametrize("name", [name for name in EQUAL if "killed" in name])
def test_the_kill_was_one(runs: Path, name: str) -> None:
    if name.startswith("two processes"):
        assert "the other process ended with -9" in output(runs, name)
    else:
        assert {end["code"] for end in ends(runs, name)[:-1]} == {-9}


def test_a_kill_while_writing_left_a_part(runs: Path) -> None:
    for end in ends(runs, "killed twice while writing")[:-1]:
        assert any(file.endswith(".partial") for file in end["files"])


@pytest.mark.parametrize("name", [name for name in EQUAL if "interrupted" in name or "terminated" in name])
def test_an_interrupt_leaves_a_checkpoint(runs: Path, name: str) -> None:
    for end in ends(runs, name)[:-1]:
        assert end["code"] == 0, output(runs, name)  # the script checks that the run left by SystemExit
        assert "last.ckpt" in end["files"]
    assert "interrupted, exit code" in output(runs, name)


def test_the_runs_differ_where_they_should(runs: Path) -> None:
    """The comparison sees a difference: other data, the same everything else."""
    a, b = (read_checkpoint(runs / run / "final.pt") for run in ("whole", "resumable"))
    assert differences(a, b)
    rows = (runs / "whole" / "metrics.csv").read_text().splitlines()
    assert rows[0] == "step,epoch,lr-AdamW,train/step_loss,val/loss,train/loss"
    assert [int(row.split(",")[0]) for row in rows[1:]] == [s for s in range(30) if s % 2 or s % 5 == 4]
