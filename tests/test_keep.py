"""What the pages show of a run is copied from its folder."""

import json
from pathlib import Path

import keep
import pytest


def test_summary_and_figures_are_kept(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "anything"
    (run / "seed_3" / "figures").mkdir(parents=True)
    summary = {"name": "paths", "seeds": [3, 4], "test": {"model": {"regret": {"values": [0.1, 0.2]}}}}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "seed_3" / "figures" / "grid.svg").write_text('<svg viewBox="0 0 1 1"></svg>')
    written = keep.keep(run, ["grid"], root=tmp_path)
    assert written == [tmp_path / "results" / "paths.json", tmp_path / "docs" / "assets" / "paths_grid.svg"]
    assert json.loads(written[0].read_text()) == summary
    assert written[1].read_text() == '<svg style="color: #1f1f1f; background: #ffffff" viewBox="0 0 1 1"></svg>'


@pytest.mark.parametrize("figures", [[], ["grid"]])
def test_a_missing_file_is_named(tmp_path: Path, figures: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if figures:
        (tmp_path / "summary.json").write_text('{"name": "paths", "seeds": [0]}')
    with pytest.raises(SystemExit, match="2"):
        keep.main([str(tmp_path), "--figures", *figures])
    assert ("grid.svg" if figures else "summary.json") + " is not there" in capsys.readouterr().err
