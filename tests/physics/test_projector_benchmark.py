"""The benchmark of projectors: it runs, and a wrong adjoint shows."""

import json
from pathlib import Path

import pytest
from benchmarks.projectors import run
from benchmarks.projectors.peers import PEERS, Pair, ours

from implicit_l2o.physics import Geometry


@pytest.mark.parametrize(
    "name", ["ours", "ours, batch last", "SciPy CSR", "PyTorch CSR, own autograd", "PyTorch dense"]
)
def test_a_row(name: str) -> None:
    row = run.measure(PEERS[name](Geometry.uniform(16, angles=5), 3), 3, seconds=0)
    assert row["adjoint_error"] < 1e-6
    assert min(row["apply"], row["adjoint"], row["in_turn"]) > 0
    assert (row["gradient"] is None) == (name == "SciPy CSR")


def test_a_wrong_adjoint_shows() -> None:
    pair = ours(Geometry.uniform(16, angles=5), 2)
    wrong = Pair(pair.forward, lambda y: 1.01 * pair.adjoint(y), pair.x, pair.y)
    assert run.mismatch(wrong) > 1e-3


def test_the_file_keeps_former_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SIZES", {"128": Geometry.uniform(8, angles=3)})
    out = tmp_path / "projectors.json"
    for row in ("ours", "SciPy CSR"):
        run.main(None, ["--sizes", "128", "--rows", row, "--seconds", "0", "--batch", "2", "--out", str(out)])
    assert list(json.loads(out.read_text())["sizes"]["128"]["rows"]) == ["ours", "SciPy CSR"]
