"""The Markdown pages of the project: their Python blocks, run as they stand, and their links."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

_BLOCK = re.compile(r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^ *```.*?^ *```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def python_blocks(page: Path) -> Iterator[tuple[int, str]]:
    """The line on which each Python block of a page begins, and its code."""
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        yield text.count("\n", 0, match.start("code")), textwrap.dedent(match["code"])


def run(page: Path) -> dict[str, Any]:
    """Run the Python blocks of a page in order, as one script; the names it leaves behind."""
    names: dict[str, Any] = {"__name__": page.stem}
    for line, code in python_blocks(page):
        # Empty lines in front make a traceback point into the page.
        exec(compile("\n" * line + code, str(page), "exec"), names)
    return names


def broken_links(page: Path) -> list[str]:
    """The links of a page to files of the repository that are not there."""
    targets = [match["target"] for match in _LINK.finditer(_FENCED.sub("", page.read_text()))]
    files = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:", target)]
    return [file for file in files if file and not (page.parent / file).exists()]
