"""The map from papers to code names files and symbols that exist."""

import ast
import re

import pytest

import pages

PACKAGE = pages.ROOT / "src" / "implicit_l2o"
NAMED = sorted(set(re.findall(r"`([\w/]+\.py):(\w+)`", (pages.ROOT / "docs" / "papers.md").read_text())))


def test_the_page_names_code() -> None:
    assert len(NAMED) > 80


@pytest.mark.parametrize(("file", "symbol"), NAMED)
def test_what_the_page_names_exists(file: str, symbol: str) -> None:
    tree = ast.parse((PACKAGE / file).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    assert symbol in defined
