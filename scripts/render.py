"""Fill the numbers of README.md and docs/ from results/*.json, so that no number is typed by hand.

    python scripts/render.py            # write the pages
    python scripts/render.py --check    # change nothing; exit 1 if a page is out of date

A page marks a region `<!-- results:NAME --> ... <!-- /results -->`; it is filled by the Jinja template
`scripts/tables/NAME.md`, in which `results.demo` is `results/demo.json` and so on. The template's first line is a
comment with the command that writes its results; while there are none, the region says so.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import scipy.stats

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "scripts" / "tables"
RESULTS = ROOT / "results"

_REGION = re.compile(r"(?P<open><!-- results:(?P<name>[\w-]+) -->)(?P<old>.*?)(?P<close><!-- /results -->)", re.DOTALL)
_COMMAND = re.compile(r"\{# *command: *(?P<command>.*?) *-?#\}")


class NotYetRun(Exception):
    """A template reads a result that is not there."""


class Results:
    """`results.demo` is the content of `results/demo.json`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        path = self._folder / f"{name}.json"
        if not path.exists():
            raise NotYetRun(name)
        return json.loads(path.read_text())


def percent(share: float, digits: int = 1) -> str:
    """`0.9728` as `97.3 %`."""
    return f"{100 * share:.{digits}f} %"


def each_seed(values: Sequence[float] | Mapping[str, Any]) -> list[float]:
    """One value a seed: of a list, or of a quantity of a `summary.json`."""
    return list(values["values"] if isinstance(values, Mapping) else values)


def over_seeds(values: float | Sequence[float] | Mapping[str, Any], digits: int = 3) -> str:
    """The mean over seeds with its 95 % interval (Student's t); a single run as it is."""
    if isinstance(values, int | float):
        return f"{values:.{digits}f}"
    values = each_seed(values)
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def median(values: Sequence[float]) -> float:
    """The median, which a passing load on the machine does not move."""
    return statistics.median(values)


def scientific(value: float, digits: int = 1) -> str:
    """`0.00012` as `1.2e-4`."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def mean_scientific(values: Sequence[float], digits: int = 1) -> str:
    """The mean over seeds with its 95 % interval, as `1.2e-4 ± 3e-5`; a single run as it is."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return scientific(mean, digits)
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{scientific(mean, digits)} ± {scientific(half, 0)}"


def least(values: Sequence[float | None]) -> float:
    """The smallest of those that are there, 1 where none is."""
    return min((value for value in values if value is not None), default=1.0)


def worst_violation(cases: Mapping[str, Any]) -> float:
    """The largest violation of any method on any games."""
    return max(max(row["violation"]) for rows in cases.values() for row in rows.values())


def times(values: float | Sequence[float] | Mapping[str, Any], factor: float) -> float | list[float]:
    """A number, or each of several, times a factor."""
    return values * factor if isinstance(values, int | float) else [value * factor for value in each_seed(values)]


def above(values: Sequence[float] | Mapping[str, Any], floor: Sequence[float] | Mapping[str, Any]) -> list[float]:
    """How far the first is above the second, seed by seed."""
    return [value - least for value, least in zip(each_seed(values), each_seed(floor), strict=True)]


def as_table(result: dict[str, Any]) -> str:
    """Every number of a result with its dotted name, for results without a table of their own."""
    lines = ["| quantity | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _entries(result, "")]
    return "\n".join(lines)


def _entries(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _entries(part, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and not all(isinstance(part, int | float) for part in value):
        for i, part in enumerate(value):
            yield from _entries(part, f"{name}[{i}]")
    elif isinstance(value, list):
        yield name, ", ".join(f"{part:.4g}" for part in value)
    else:
        yield name, f"{value:.4g}" if isinstance(value, float) else str(value)


def environment() -> jinja2.Environment:
    """The templates' language: a missing key is an error, never an empty cell."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown, of our own files
    )
    filters = (
        *(percent, scientific, each_seed, median, over_seeds, times, above, as_table),
        *(mean_scientific, least, worst_violation),
    )
    env.filters |= {function.__name__: function for function in filters}
    return env


def fill(name: str, folder: Path = RESULTS) -> str:
    """The text of one region."""
    env = environment()
    try:
        template = env.get_template(f"{name}.md")
    except jinja2.TemplateNotFound as error:
        known = ", ".join(sorted(path.stem for path in TEMPLATES.glob("*.md")))
        raise SystemExit(f"No template scripts/tables/{name}.md; there are: {known}.") from error
    command = _COMMAND.match((TEMPLATES / f"{name}.md").read_text())
    if command is None:
        raise SystemExit(f"scripts/tables/{name}.md must begin with {{# command: ... #}}.")
    try:
        return template.render(results=Results(folder)).strip()
    except NotYetRun:
        return f"*Not yet run: `{command['command']}`.*"


def render(page: str, folder: Path = RESULTS) -> str:
    """The page with every region filled."""

    def replace(match: re.Match[str]) -> str:
        around = "\n" if match["old"].startswith("\n") else ""  # a region on its own lines, or inside a sentence
        return f"{match['open']}{around}{fill(match['name'], folder)}{around}{match['close']}"

    return _REGION.sub(replace, page)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check all pages; the exit status."""
    parser = argparse.ArgumentParser(description="Fill the numbers of README.md and docs/ from results/*.json.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page is out of date")
    check = parser.parse_args(arguments).check
    stale = []
    for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]:
        old = path.read_text()
        new = render(old)
        if new != old:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.write_text(new)
    for path in stale:
        print(f"{path}: {'its numbers are not those of results/; run make format' if check else 'updated'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
