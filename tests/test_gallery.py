"""The gallery: each script by `--quick` says something true; short, on public names, with a figure and a recorded time."""

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import implicit_l2o as il2o
import pages
from implicit_l2o.decoders import has_numba

GALLERY = pages.ROOT / "gallery"
SCRIPTS = sorted(GALLERY.glob("[a-z]*.py"))
FAIL, INFEASIBLE = int(il2o.Label.FAIL), int(il2o.Status.INFEASIBLE)
NEEDS_NUMBA = {"knapsack", "traffic", "travelling_salesman", "warcraft"}
Facts = dict[str, float]

# What has to hold of the numbers that a script returns: trained beats untrained, and the broken input fails.
CLAIMS: dict[str, Callable[[Facts], bool]] = {
    "arbitrage": lambda r: (
        r["implicit, trained"] > 10 * r["no margin"]
        and r["hindsight"] >= r["implicit, trained"]
        and r["no margin fails"] > 0.9
    ),
    "computed_tomography": lambda r: (
        r["implicit, trained"] > r["filtered back-projection"] and r["broken fail"] == 1 and r["trusted"] == 1
    ),
    "cvxpy_layer": lambda r: (
        r["implicit, trained"] < 0.7 * r["untrained"] and r["infeasible"] == INFEASIBLE and r["worst"] == FAIL
    ),
    "digits": lambda r: r["implicit, trained"] > 80 > r["untrained"] and min(r["noise"], r["shuffled"]) > 80,
    "images": lambda r: 0.5 < r["cosine JFB"] < r["cosine Implicit"] + 1e-9 and r["early fails"] == 1,
    "knapsack": lambda r: (
        r["learned from bags"] < 0.5 * r["untrained"] and r["infeasible"] == INFEASIBLE and r["impossible"] == FAIL
    ),
    "learned_cost": lambda r: (
        r["learned cost"] < 0.6 * r["untrained"] and r["black box fails"] > 0.9 and r["trusted"] == 1
    ),
    "linear_program": lambda r: (
        r["implicit, trained"] < r["black box"] and r["infeasible"] == INFEASIBLE and r["greedy"] == FAIL
    ),
    "matrix_games": lambda r: (
        r["implicit, trained"] < 0.5 * r["black box"] and r["early fail"] == 1 and r["early violation"] < 1e-6
    ),
    "shortest_path": lambda r: (
        r["floor: exact mean costs"] < r["learned from paths"] < 0.5 * r["untrained"] and r["nan"] == FAIL
    ),
    "sparse_recovery": lambda r: r["implicit, trained"] < 0.8 * r["untrained"] and r["strangers fail"] > 0.2,
    "traffic": lambda r: (
        r["implicit, trained"] < 0.5 * r["untrained"] and r["bridge"] == 0 and r["black box fails"] > 0.9
    ),
    "travelling_salesman": lambda r: (
        r["learned from tours"] < 0.3 * r["untrained"] and r["nan"] == FAIL and r["unmoved"] < 1e-5
    ),
    "warcraft": lambda r: r["learned from paths"] < 0.7 * r["untrained"] and r["snow fails"] > 0.9,
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_something_true(script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if script.stem in NEEDS_NUMBA and not has_numba():
        pytest.skip(f"{script.stem} needs numba, of the extra 'exact'")
    if script.stem == "cvxpy_layer":
        pytest.importorskip("cvxpy", reason="cvxpy is in the extra 'cvxpy'")
    spec = importlib.util.spec_from_file_location(f"gallery_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    facts = module.main(quick=True, out=tmp_path)
    assert CLAIMS[script.stem](facts), facts
    assert (tmp_path / f"{script.stem}.png").stat().st_size > 10_000
    assert "FAIL" in capsys.readouterr().out


def test_every_script_has_a_claim() -> None:
    assert {script.stem for script in SCRIPTS} == set(CLAIMS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_on_public_names(script: Path) -> None:
    text = script.read_text()
    assert len(text.splitlines()) <= 150
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            names.append(node.attr)
    assert [name for name in names if any(part.startswith("_") for part in name.split("."))] == []


def test_the_page_shows_every_script_with_its_figure_and_its_time() -> None:
    page = (pages.ROOT / "docs" / "gallery.md").read_text()
    recorded = json.loads((pages.ROOT / "results" / "gallery.json").read_text())["scripts"]
    for script in SCRIPTS:
        figure = pages.ROOT / "docs" / "assets" / "gallery" / f"{script.stem}.png"
        assert figure.stat().st_size < 150_000
        assert f"assets/gallery/{script.stem}.png" in page
        assert f'--8<-- "gallery/{script.stem}.py"' in page
        assert recorded[script.stem]["seconds"] < 240  # two minutes of a free core; the machine did other work as well


def test_the_command_refuses_what_it_does_not_know() -> None:
    command = [sys.executable, "-m", "gallery", "nothing"]
    run = subprocess.run(command, cwd=pages.ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert "no script nothing; there are arbitrage, " in run.stderr
