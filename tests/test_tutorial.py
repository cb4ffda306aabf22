"""docs/train-your-own.md as its reader follows it: the files as they stand, then the commands."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import pages
from implicit_l2o import cli

PAGE = pages.ROOT / "docs" / "train-your-own.md"
_FILE = re.compile(r'^```(?:python|yaml) title="(?P<name>[^"]+)"\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    return {match["name"]: match["text"] for match in _FILE.finditer(PAGE.read_text())}


def commands() -> list[list[str]]:
    lines = [line.strip() for line in PAGE.read_text().splitlines() if line.startswith("    il2o ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder with the page's files."""
    folder = tmp_path_factory.mktemp("desk")
    for name, text in files().items():
        (folder / name).write_text(text)
    return folder


def test_the_application_has_40_lines() -> None:
    code = [line for line in files()["portfolio.py"].splitlines() if line.strip()]
    assert len(code) <= 40


def test_the_commands_do_what_the_page_says(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setattr(sys, "path", [*sys.path])
    exec(files()["make_data.py"], {})
    first, exact, seeds, certify = commands()

    assert cli.main([*first, "--quiet"]) == 0
    results = json.loads((desk / "runs/portfolio/results.json").read_text())
    errors = {name: scores["mean squared error"] for name, scores in results["test"].items()}
    assert errors["model"] < 0.1 * errors["constant"]
    assert results["certificates"]["constraint violation"] == {"PASS": 200, "WARN": 0, "FAIL": 0}
    assert "Portfolio" in (desk / "runs/portfolio/report.html").read_text()

    short = ["--quiet", "--trainer.max_epochs=1"]
    assert cli.main([*exact, *short]) == 0
    assert "implicit_l2o.Implicit" in (desk / "runs/exact/config.yaml").read_text()
    assert cli.main([*seeds, *short]) == 0
    summary = json.loads((desk / "runs/seeds/summary.json").read_text())
    assert len(summary["test"]["model"]["mean squared error"]["values"]) == 5

    assert cli.main([*certify, "--quiet"]) == 0
    with np.load(desk / "runs/portfolio/certified/tomorrow/predictions.npz") as arrays:
        assert arrays["answer"].shape == (100, 5)
        np.testing.assert_allclose(arrays["answer"].sum(axis=1), 1.0, atol=2e-3)
        assert arrays["answer"].min() >= 0
        assert arrays["answer"].max() <= 0.4 + 1e-6
