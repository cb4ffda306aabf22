"""The numbers of the pages come from results/*.json, and a page that is out of date is found."""

import json
from pathlib import Path

import jinja2
import pytest
import render


@pytest.fixture(autouse=True)
def _template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One template, which needs `score` in `results/run.json`."""
    monkeypatch.setattr(render, "TEMPLATES", tmp_path)
    (tmp_path / "table.md").write_text("{# command: il2o run #}\n| score | {{ results.run.score | percent }} |\n")


def test_a_region_is_filled_and_filled_again(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"score": 0.9728}))
    page = "Before.\n<!-- results:table -->\nold\n<!-- /results -->\nAfter, <!-- results:table -->old<!-- /results -->."
    filled = render.render(page, tmp_path)
    assert "\n<!-- results:table -->\n| score | 97.3 % |\n<!-- /results -->\nAfter" in filled
    assert filled.endswith("After, <!-- results:table -->| score | 97.3 % |<!-- /results -->.")
    assert render.render(filled, tmp_path) == filled


def test_a_result_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    assert render.fill("table", tmp_path) == "*Not yet run: `il2o run`.*"


def test_a_missing_key_is_an_error_and_no_empty_cell(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(jinja2.UndefinedError, match="score"):
        render.fill("table", tmp_path)


def test_an_unknown_region_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there are: table"):
        render.fill("tabel", tmp_path)


def test_numbers_over_seeds() -> None:
    assert render.over_seeds(0.5) == "0.500"
    assert render.over_seeds([0.1, 0.2, 0.3], 2) == "0.20 ± 0.25"  # t(0.975, 2) = 4.303, times 0.1 / sqrt(3)
    assert render.scientific(0.00012) == "1.2e-4"


def test_quantities_of_a_summary() -> None:
    """They are lists with their mean; what is said of them is computed from the values."""
    regret, floor = {"mean": 0.2, "values": [0.1, 0.2, 0.3]}, {"mean": 0.1, "values": [0.1, 0.1, 0.1]}
    assert render.over_seeds(regret, 2) == "0.20 ± 0.25"
    assert render.above(regret, floor) == pytest.approx([0.0, 0.1, 0.2])
    assert render.times(regret, 100) == pytest.approx([10.0, 20.0, 30.0])
    assert render.each_seed([1.0]) == [1.0]


def test_a_result_without_a_table_of_its_own() -> None:
    text = render.as_table({"jfb": {"bytes": [1, 2]}, "rows": [{"seconds": 0.12345}], "machine": "cpu"})
    assert text.splitlines()[2:] == ["| jfb.bytes | 1, 2 |", "| rows[0].seconds | 0.1235 |", "| machine | cpu |"]
