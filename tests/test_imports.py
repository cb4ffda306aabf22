"""The import table of docs/design.md, and what `import implicit_l2o` costs.

The table is read off the syntax tree of every module, so imports inside functions count as well. A module without a row
fails: a new module first gets its place in the design.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "implicit_l2o"
ROOT = Path(__file__).parents[1] / "src" / PACKAGE

# Names below are relative to the package; "" is the package itself (its public names), `a.*` every module in `a`,
# `a._*` its private modules.
LEAVES = ("_batch", "_deprecation", "_numba", "_solution", "_version")
STAGES = ("operators", "splittings", "solvers", "backward", "certificates")
CORE = (*LEAVES, "problem", *STAGES, *(f"{stage}.*" for stage in STAGES), "layer")
BUILT_ON_CORE = ("networks", "losses", "diagnostics", "linear_program", "decoders", "physics", "games")
PUBLIC = ("", *BUILT_ON_CORE)
SERVING = ("serving", "serving.*")
TOOLS = ("training", "training.*", "report", "report.*", "data", "data.*")

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "": (*CORE, *BUILT_ON_CORE),
    "_batch": (),
    "_deprecation": (),
    "_numba": (),
    "_solution": (),
    "_version": (),
    "operators": ("operators.*",),
    "operators.base": ("_batch",),
    "operators.*": ("_batch", "operators.base", "operators._*"),
    # One operator that is made of another one:
    "operators.affine": (
        "_batch",
        "operators.base",
        "operators._*",
        "operators.affine_dense",
        "operators.affine_grid",
        "operators.affine_sparse",
    ),
    "operators.l1_ball": ("_batch", "operators.base", "operators._*", "operators.simplex"),  # its threshold
    "operators.least_squares": ("_batch", "operators.base", "operators._*", "operators.matrix"),
    "operators._cone_kernel": ("_numba",),
    "operators.exponential_cone": ("_batch", "_numba", "operators.base", "operators._*"),
    "operators._cone_derivative": ("operators.semidefinite_cone",),  # its divided differences
    "operators.cone_product": (
        "_batch",
        "operators._*",
        "operators.base",
        "operators.exponential_cone",
        "operators.power_cone",
        "operators.second_order_cone",
        "operators.semidefinite_cone",
    ),
    "problem": ("_batch", "operators.base"),
    "splittings": ("splittings.*",),
    "splittings.*": ("_batch", "problem", "operators.base", "splittings.base"),
    "solvers": ("solvers.*",),
    "solvers.*": ("_batch", "_solution", "solvers.base"),
    "backward": ("backward.*",),
    "backward.*": ("_batch", "_solution", "solvers.base", "backward.base"),
    "backward.linear": (),
    "backward.gmres": ("_batch", "backward.linear"),
    "backward.normal_cg": ("_batch", "backward.linear"),
    "backward.implicit": (
        *("_batch", "_solution", "solvers.base"),
        *("backward.base", "backward.linear", "backward.gmres", "backward.normal_cg"),
    ),
    "certificates": ("certificates.*",),
    "certificates.*": ("_batch", "_solution", "problem", "operators.base", "certificates.base"),
    # Rules are read back by one reader, and post-conditions put the stage together.
    "certificates.calibration": ("certificates.base", "certificates.conformal"),
    "certificates.ensure": ("_batch", "_solution", "certificates.*"),
    "layer": (
        *LEAVES,
        "problem",
        *(f"{stage}.base" for stage in STAGES),
        "solvers.krasnoselskii_mann",  # the default solver
        "backward.jfb",  # the default backward mode
    ),
    "networks": ("networks.*",),
    "networks.*": (*CORE, "networks.*"),
    "losses": CORE,
    "diagnostics": ("diagnostics.*",),
    "diagnostics.*": (*CORE, "diagnostics.*"),
    "linear_program": ("linear_program.*",),
    "linear_program.*": (*CORE, "linear_program.*"),
    "decoders": ("decoders.*", "_numba"),
    "decoders.*": (*CORE, "linear_program", "decoders.*"),
    "physics": ("physics.*",),
    "physics.*": (*CORE, "physics.*"),
    "games": ("games.*",),
    "games.*": (*CORE, "games.*"),
    "doctor": ("doctor.*",),
    "doctor.*": ("", "doctor.*"),
    "doctor.__main__": ("doctor",),
    "testing": ("testing.*",),
    "testing.*": (*PUBLIC, "testing.*"),
    "interop": ("interop.*",),
    "interop.*": (*PUBLIC, "_numba", "interop.*"),
    "data": ("data.*",),
    "data.*": (*PUBLIC, "data.*"),
    "report": ("report.*",),
    "report.*": (*PUBLIC, "report.*"),
    "training": ("training.*",),
    "training.*": (*PUBLIC, "serving", "training.*"),  # a task names what serves it
    "serving": ("serving.*",),
    "serving.*": (*PUBLIC, "serving.*"),
    "experiment": ("experiment.*",),
    "experiment.*": (*PUBLIC, *TOOLS, *SERVING, "experiment.*"),
    "applications": ("applications.*",),
    # An application sees its own package (added in `allowed`), never another application.
    "applications.*": (*PUBLIC, "testing", "interop.*", *TOOLS, "serving", "applications._lazy"),
    # The demonstration runs all of them.
    "applications.demo": (*PUBLIC, "report", "experiment", "experiment.*"),
    "cli": (*PUBLIC, "applications", "applications.*", "doctor", "experiment", "experiment.*", *TOOLS, *SERVING),
}

# What the colour images read of the digits: they have the same certificates, metrics and figures.
SHARED = {
    "images": tuple(
        f"applications.digits.{module}" for module in ("certificates", "classification", "data", "examined", "figures")
    )
}

# At module level the core and what is built on it import these alone; everything else is imported where it is used.
LIGHT = {"torch", "numpy", "jaxtyping", "typing_extensions"}


def matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def row(name: str) -> tuple[str, ...] | None:
    """The allowed imports of a module: its own row, else the row of its package's modules."""
    if name in MAY_IMPORT:
        return MAY_IMPORT[name]
    package = name.split(".")[0]
    allowed = MAY_IMPORT.get(f"{package}.*") if "." in name else None
    if allowed is not None and package == "applications":
        task = name.split(".")[1]
        allowed = (*allowed, f"applications.{task}", f"applications.{task}.*", *SHARED.get(task, ()))
    return allowed


def modules() -> dict[str, Path]:
    """Every module of the package by its name relative to the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(tree: ast.AST, name: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a module imports, `from a import b` as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = [PACKAGE, *filter(None, name.split("."))]
                here = here[: len(here) - node.level + is_package]
                base = ".".join([*here, *filter(None, [node.module])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def target(imported: str) -> str | None:
    """The module of this package that an import reaches, relative to the package; None for other packages."""
    if imported != PACKAGE and not imported.startswith(PACKAGE + "."):
        return None
    relative = imported[len(PACKAGE) + 1 :]
    while relative and relative not in MODULES:
        relative = relative.rpartition(".")[0]  # `a.b.Name` is a name in the module `a.b`
    return relative


def forbidden(source: str, name: str, is_package: bool = False) -> list[str]:
    """The imports of a module that its row of the table does not allow."""
    allowed = row(name)
    if allowed is None:
        return [f"{name} has no row in the import table: give it a place in docs/design.md and a row here"]
    return [
        f"{name or PACKAGE}, line {line}: imports {imported}; allowed: {', '.join(a or PACKAGE for a in allowed)}"
        for line, imported in imports(ast.parse(source), name, is_package)
        if (reached := target(imported)) is not None and not any(matches(reached, pattern) for pattern in allowed)
    ]


@pytest.mark.parametrize("name", MODULES, ids=lambda name: name or PACKAGE)
def test_imports_follow_the_table(name: str) -> None:
    path = MODULES[name]
    assert forbidden(path.read_text(), name, path.name == "__init__.py") == []


def at_import_time(tree: ast.Module) -> ast.Module:
    """The tree without the bodies of functions and of `if TYPE_CHECKING:`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ):
            node.body = []
    return tree


@pytest.mark.parametrize(
    "name",
    [name for name in MODULES if any(matches(name, p) for p in (*CORE, *PUBLIC))],
    ids=lambda name: name or PACKAGE,
)
def test_heavy_packages_are_imported_where_they_are_used(name: str) -> None:
    tree = at_import_time(ast.parse(MODULES[name].read_text()))
    tops = {imported.partition(".")[0] for _, imported in imports(tree, name, MODULES[name].name == "__init__.py")}
    assert tops - LIGHT - {PACKAGE} <= set(sys.stdlib_module_names)


@pytest.fixture
def layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small package whose modules the examples below import."""
    names = (
        *("_batch", "_solution", "problem", "losses", "operators", "operators.base", "operators.simplex"),
        *("splittings", "splittings.davis_yin", "solvers", "solvers.base", "backward", "backward.neumann"),
        *("applications", "applications.digits.model", "applications.shortest_path"),
    )
    monkeypatch.setattr(sys.modules[__name__], "MODULES", dict.fromkeys(names, ROOT))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("solvers.anderson", "from implicit_l2o.splittings.davis_yin import DavisYin"),
        ("solvers.anderson", "def lazy():\n    from implicit_l2o import problem"),
        ("solvers.anderson", "from ..problem import Problem"),
        ("solvers.anderson", "import implicit_l2o.problem"),
        ("operators.box", "from implicit_l2o.operators import base, simplex"),
        ("backward.jfb", "from . import neumann"),
        ("_batch", "from implicit_l2o import Status"),
        ("training.base", "from implicit_l2o.solvers.base import iterate"),
        ("applications.digits.task", "from implicit_l2o.applications.shortest_path import model"),
        ("surprise", ""),
    ],
)
@pytest.mark.usefixtures("layout")
def test_a_breach_is_found(name: str, source: str) -> None:
    assert len(forbidden(source, name)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("solvers.anderson", "from . import base\nfrom implicit_l2o._batch import norm\nimport math, torch"),
        ("operators.box", "from implicit_l2o import _batch"),
        ("training.base", "import implicit_l2o as il2o\nfrom implicit_l2o import Status, losses"),
        ("applications.digits.task", "from implicit_l2o.applications.digits.model import Digits"),
    ],
)
@pytest.mark.usefixtures("layout")
def test_allowed_imports_pass(name: str, source: str) -> None:
    assert forbidden(source, name) == []


_PROBE = """
import json, sys, time
import torch, numpy, jaxtyping
before = set(sys.modules)
start = time.process_time()
import implicit_l2o
seconds = time.process_time() - start
print(json.dumps({"seconds": seconds, "modules": sorted(set(sys.modules) - before)}))
"""


def probe() -> dict:
    """The modules and the processor time that `import implicit_l2o` adds, in a fresh interpreter."""
    output = subprocess.run([sys.executable, "-c", _PROBE], stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(output)


def test_importing_the_package_loads_torch_numpy_and_jaxtyping_only() -> None:
    tops = {name.partition(".")[0] for name in probe()["modules"]}
    assert tops - set(sys.stdlib_module_names) == {PACKAGE}


def test_importing_the_package_is_quick() -> None:
    """At most 0.3 s on top of torch, the best of five: the first one compiles, and the machine may be busy."""
    limit, seconds = 0.3, []
    while len(seconds) < 5 and min(seconds, default=limit) >= limit:
        seconds.append(probe()["seconds"])
    assert min(seconds) < limit
