"""What the documentation says runs: docstring examples, the pages' Python blocks; and its links lead somewhere."""

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from types import ModuleType

import pytest

import implicit_l2o as il2o
import pages

PACKAGE = pages.ROOT / "src" / "implicit_l2o"
PAGES = sorted(pages.ROOT.glob("docs/**/*.md"))
TOP = [pages.ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]


def docstrings() -> Iterator[tuple[str, str, int, str]]:
    """Module, object, line and text of every docstring with examples.

    Read off the source: the run-time type check wraps functions, and doctest's own search does not look inside.
    """
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for name, node in _documented(ast.parse(path.read_text()), module):
            text = ast.get_docstring(node)
            if text and ">>>" in text:
                yield module, name, getattr(node, "lineno", 1), text


def _documented(node: ast.AST, name: str) -> Iterator[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        yield name, node
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                yield from _documented(child, f"{name}.{child.name}")


# A package of an extra is not there: in the package's own words, or in Python's.
_NEEDS = re.compile(r"ModuleNotFoundError: (.* needs \w+: pip install|No module named '(?!implicit_l2o))")


def load(module: str) -> ModuleType:
    """Import a module, or skip where a dependency of an extra is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("implicit_l2o"):
            raise
        pytest.skip(f"{module} needs {error.name}, of an extra that is not installed")


@pytest.mark.parametrize(("module", "name", "line", "text"), [pytest.param(*d, id=d[1]) for d in docstrings()])
def test_docstring_example(module: str, name: str, line: int, text: str) -> None:
    names = dict(vars(load(module)))
    example = doctest.DocTestParser().get_doctest(text, names, name, inspect.getsourcefile(load(module)), line)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=report.append)
    if missing := _NEEDS.search("".join(report)):
        pytest.skip(f"{name}: {missing[0]}")
    assert runner.failures == 0, "".join(report)


def public_names() -> list[str]:
    return sorted(name for name, thing in vars(il2o).items() if not name.startswith("_") and callable(thing))


@pytest.mark.parametrize("name", public_names())
def test_public_object_says_what_it_is(name: str) -> None:
    """A docstring of its own; with an example, if it is something that users make or call."""
    thing = getattr(il2o, name)
    text = thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__
    assert text
    # Results stand in the example of the function that returns them; they list their attributes.
    made_by_others = inspect.isclass(thing) and (issubclass(thing, Exception | IntEnum) or "Attributes:" in text)
    assert inspect.isabstract(thing) or made_by_others or ">>>" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page: Path) -> None:
    try:
        pages.run(page)
    except ModuleNotFoundError as error:
        if not _NEEDS.match(f"ModuleNotFoundError: {error}"):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert pages.broken_links(page) == []


def test_the_numbers_of_the_pages_are_those_of_the_results() -> None:
    run = subprocess.run(
        [sys.executable, pages.ROOT / "scripts" / "render.py", "--check"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is in the extra 'docs'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    run = subprocess.run(command, cwd=pages.ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "index.html").exists()
