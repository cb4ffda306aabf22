"""What there is to run: the applications of the package and the experiments, one line each."""

import ast
from importlib import resources
from pathlib import Path

from implicit_l2o.experiment.errors import ConfigurationError, alike, nearest

_HERE = Path("experiments")


def shipped() -> Path:
    """The folder of the experiments that come with the package."""
    installed = Path(str(resources.files("implicit_l2o") / "_experiments"))
    return installed if installed.is_dir() else Path(__file__).parents[3] / "experiments"


def experiments() -> dict[str, Path]:
    """Every experiment by name: those of the working directory before those of the package."""
    found = {path.stem: path for path in sorted(shipped().glob("*.yaml"))}
    if _HERE.is_dir():
        found |= {path.stem: path for path in sorted(_HERE.glob("*.yaml"))}
    return dict(sorted(found.items()))


def find_experiment(name: str) -> Path:
    """The configuration of that path or name.

    Raises:
        ConfigurationError: there is none; the message lists the names.
    """
    path = Path(name)
    if path.is_file() or path.is_fifo():
        return path
    if path.is_dir() and path.name not in experiments():
        inside = " Its config.yaml repeats that run." if (path / "config.yaml").is_file() else ""
        raise ConfigurationError(f"{name} is a folder, not a configuration.{inside}")
    known = experiments()
    if path.stem in known and path.parent.name in ("", "experiments"):
        return known[path.stem]
    names = nearest(path.stem, known)
    hint = f" Did you mean {names[0]}?" if names and alike(path.stem, names[0]) else ""
    raise ConfigurationError(f"no configuration {name}.{hint} Experiments: {', '.join(known) or 'none'}.")


def applications() -> dict[str, str]:
    """Every application of the package with the first sentence of its docstring, without importing it."""
    folder = Path(str(resources.files("implicit_l2o") / "applications"))
    found = {}
    for path in sorted(folder.glob("*/__init__.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        found[path.parent.name] = text.split("\n")[0]
    return found


def first_comment(path: Path) -> str:
    """The first line of a YAML file, if it is a comment."""
    with path.open() as file:
        line = file.readline().strip()
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def listing() -> str:
    """Both as text."""
    configurations = {name: first_comment(path) for name, path in experiments().items()}
    width = max(map(len, (*applications(), *configurations)), default=0)
    blocks = []
    for title, entries in (("Applications", applications()), ("Experiments (il2o run NAME)", configurations)):
        rows = [f"  {name:<{width}}  {text}".rstrip() for name, text in entries.items()]
        blocks.append("\n".join([title, *rows]))
    return "\n\n".join(blocks)
