"""The versions and the way out of the public API, as docs/versions.md promises them."""

import ast
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import implicit_l2o as il2o
from implicit_l2o._deprecation import Deprecation, deprecated, deprecated_names, release

ROOT = Path(__file__).parents[1]
GONE = Deprecation(since="0.2", removal="0.4", instead="il2o.solve")


def test_the_version_is_that_of_the_installed_package() -> None:
    assert il2o.__version__ == metadata.version("implicit_l2o")


def test_the_version_is_semantic_and_the_citation_names_it() -> None:
    assert len([int(part) for part in il2o.__version__.split(".")]) == 3
    assert f"\nversion: {il2o.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize(
    ("since", "removal"),
    [("0.2", "0.4"), ("0.2", "0.10"), ("1.9", "2.0"), ("1.3", "1.5")],
)
def test_two_minor_releases_or_a_major_one_is_enough_notice(since: str, removal: str) -> None:
    assert Deprecation(since=since, removal=removal, instead="x").removal == removal


@pytest.mark.parametrize(
    ("since", "removal", "message"),
    [
        ("0.2", "0.3", r"deprecated in 0\.2 stays until 0\.4 at least; got removal='0\.3'"),
        ("0.9", "0.10", r"stays until 0\.11 at least"),
        ("1.2", "0.9", r"stays until 1\.4 at least"),
        ("0.2.1", "0.4", r"such as '0\.2'; got '0\.2\.1'"),
        ("0.2", "never", r"such as '0\.2'; got 'never'"),
    ],
)
def test_a_name_does_not_go_without_notice(since: str, removal: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Deprecation(since=since, removal=removal, instead="x")


def test_a_deprecated_function_works_and_warns() -> None:
    @deprecated(GONE)
    def run(x: int, *, twice: bool = False) -> int:
        """Doc."""
        return x * (2 if twice else 1)

    expected = r"run\(\) is deprecated since 0\.2 and will be removed in 0\.4; use il2o\.solve instead\."
    with pytest.warns(DeprecationWarning, match=expected):
        assert run(3, twice=True) == 6
    assert run.__doc__ == "Doc."


def test_a_class_is_renamed_and_not_decorated() -> None:
    with pytest.raises(TypeError, match="keep the old name of Old by deprecated_names"):
        deprecated(GONE)(type("Old", (), {}))


def test_a_renamed_name_is_the_new_one_and_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    """By attribute and by `from ... import`; isinstance still means the same."""
    module = types.ModuleType("old_module")
    module.__dict__["__getattr__"] = deprecated_names("old_module", {"Jacobian": (il2o.JFB, GONE)})
    monkeypatch.setitem(sys.modules, "old_module", module)
    with pytest.warns(DeprecationWarning, match=r"old_module\.Jacobian is deprecated"):
        assert isinstance(il2o.JFB(), module.Jacobian)
    with pytest.warns(DeprecationWarning, match=r"old_module\.Jacobian is deprecated"):
        exec("from old_module import Jacobian", {})
    with pytest.raises(AttributeError, match="'old_module' has no attribute 'Jakobian'"):
        _ = module.Jakobian


_SCRIPT = """
from implicit_l2o._deprecation import Deprecation, deprecated, deprecated_names
gone = Deprecation(since="0.2", removal="0.4", instead="x")
@deprecated(gone)
def run(): pass
run()
find = deprecated_names("module", {"old": (1, gone)})
find("old")
"""


def test_the_warning_is_shown_at_the_line_that_uses_the_name(tmp_path: Path) -> None:
    """In a process of its own: the run-time type check of these tests puts frames in between."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    places = [line.partition(": DeprecationWarning")[0] for line in done.stderr.splitlines() if "script.py:" in line]
    assert places == [f"{script}:6", f"{script}:8"]


def removals(folder: Path) -> Iterator[tuple[str, str]]:
    """Where a `Deprecation(..., removal=...)` stands under the folder, and its removal."""
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text()
        if "Deprecation(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Deprecation"):
                words = {word.arg: word.value for word in node.keywords}
                yield f"{path.relative_to(folder)}:{node.lineno}", ast.literal_eval(words["removal"])


def outlived(folder: Path, version: str) -> list[str]:
    """The deprecated names that this version should not have any more."""
    current = release(version.rpartition(".")[0])
    return [f"{where}: was to go in {removal}" for where, removal in removals(folder) if release(removal) <= current]


def test_no_name_outlives_its_removal() -> None:
    assert outlived(ROOT / "src" / "implicit_l2o", il2o.__version__) == []


def test_a_name_that_outlived_its_removal_is_found(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("X = Deprecation(since='0.2', removal='0.4', instead='y')\n")
    assert outlived(tmp_path, "0.3.9") == []
    assert outlived(tmp_path, "0.4.0") == ["old.py:1: was to go in 0.4"]
