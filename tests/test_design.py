"""The page on the design lists what is there: every package, every module at the top, every application."""

import re

import pytest

import pages

PACKAGE = pages.ROOT / "src" / "implicit_l2o"
LAYOUT = pages.ROOT.joinpath("docs", "design.md").read_text().split("## Layout")[1].split("## Who may import whom")[0]
LISTED = set(re.findall(r"`([\w.]+)/?`", LAYOUT))


def names(folder: str = ".") -> list[str]:
    found = [path for path in (PACKAGE / folder).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return sorted(path.name for path in found if path.name != "__init__.py")


@pytest.mark.parametrize("name", names())
def test_the_layout_lists_it(name: str) -> None:
    assert name in LISTED


@pytest.mark.parametrize("name", [name for name in names("applications") if not name.startswith("_")])
def test_the_layout_lists_the_application(name: str) -> None:
    assert name in LISTED
