"""The page for those who are stuck has a section for every status, warning and error that the package can show."""

import ast
import re

import pytest

import implicit_l2o as il2o
import pages

PACKAGE = pages.ROOT / "src" / "implicit_l2o"
PAGE = pages.ROOT / "docs" / "troubleshooting.md"
HEADINGS = re.findall(r"(?m)^### `(\w+)`$", PAGE.read_text())


def exceptions() -> set[str]:
    """Warnings and errors of the package, read off the source: nothing of an extra is imported."""
    bases: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases.setdefault(node.name, set()).update(ast.unparse(base) for base in node.bases)
    found = {"Warning", "UserWarning", "RuntimeError", "OSError", "ValueError", "TypeError", "Exception"}
    known: set[str] = set()
    while known != found:
        known = set(found)
        found |= {name for name, above in bases.items() if above & known}
    return {name for name in found & set(bases) if name.endswith(("Warning", "Error"))}  # others are caught inside


def test_the_search_finds_exceptions_of_exceptions() -> None:
    assert {"ConvergenceWarning", "ConvergenceError", "FileError", "CheckpointError"} <= exceptions()
    assert "RelativeError" not in exceptions()  # a metric


@pytest.mark.parametrize("name", [*il2o.Status.__members__, "PRECISION", *sorted(exceptions())])
def test_there_is_a_section(name: str) -> None:
    assert name in HEADINGS


def test_the_sections_are_of_things_that_exist() -> None:
    assert sorted(HEADINGS) == sorted({*il2o.Status.__members__, "PRECISION", *exceptions()})
