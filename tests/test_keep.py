"""A run is kept as the pages need it: its summary, and figures of its first seed with colours of their own."""

import json
from pathlib import Path

import keep
import pytest

from run_folder import make_run_folder


def test_the_summary_of_one_seed_is_made(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", samples=20)
    [written] = keep.keep(run, root=tmp_path)
    results, summary = json.loads((run / "results.json").read_text()), json.loads(written.read_text())
    assert written == tmp_path / "results" / f"{results['name']}.json"
    assert summary["seeds"] == [results["seed"]]
    for name, value in results["test"]["model"].items():
        assert summary["test"]["model"][name] == {"mean": value, "half_width_95": None, "values": [value]}


def test_a_figure_gets_colours_of_its_own(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", samples=20)
    figure = next((run / "figures").glob("*.svg"))
    *_, written = keep.keep(run, [figure.stem], root=tmp_path)
    assert written.parent == tmp_path / "docs" / "assets"
    assert "background: #ffffff" in written.read_text()


def test_a_folder_without_a_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        keep.main([str(tmp_path)])
    assert "is not there; `il2o run` writes it" in capsys.readouterr().err
