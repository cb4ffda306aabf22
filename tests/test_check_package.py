"""The check of wheel and sdist: what it would find, on archives that are made up here."""

import json
import tarfile
import zipfile
from pathlib import Path

import check_package
import package_contents as contents
import pytest

METADATA = """\
Metadata-Version: 2.4
Name: implicit_l2o
Version: 0.1.0
Summary: what it is
Keywords: one,two
License-Expression: MIT
Requires-Python: >=3.11
Description-Content-Type: text/markdown
Requires-Dist: torch>=2.6
Provides-Extra: train
Requires-Dist: jsonargparse[signatures]>=4.35; extra == 'train'
Provides-Extra: exact
Requires-Dist: numba>=0.60; extra == 'exact'

# README
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout of three files and an experiment."""
    for name in (
        "src/implicit_l2o/__init__.py",
        "src/implicit_l2o/py.typed",
        "src/implicit_l2o/report/templates/page.html",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "src/implicit_l2o/__pycache__").mkdir()
    (tmp_path / "src/implicit_l2o/__pycache__/__init__.cpython-311.pyc").write_text("")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/digits.yaml").write_text("# digits\n")
    return tmp_path


def wheel(root: Path, *, name: str = "a.whl", leave_out: str = "", **more: str) -> Path:
    """The wheel of that checkout, without one file and with more."""
    files = {f"implicit_l2o/{part}": "x" for part in ("__init__.py", "py.typed", "report/templates/page.html")}
    files["implicit_l2o/_experiments/digits.yaml"] = "x"
    files |= {f"implicit_l2o-0.1.0.dist-info/{part}": "x" for part in ("WHEEL", "RECORD", "entry_points.txt")}
    files |= {"implicit_l2o-0.1.0.dist-info/licenses/LICENSE": "x", "implicit_l2o-0.1.0.dist-info/METADATA": METADATA}
    files |= more
    path = root / name
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            if file != leave_out:
                archive.writestr(file, text)
    return path


def test_a_wheel_of_the_checkout_passes(root: Path) -> None:
    good = wheel(root)
    contents.check_wheel(good, root)
    assert contents.count(good) == {"experiments": 1, "html": 1, "py": 1, "typed": 1}
    assert contents.extras(good) == {"train": ["jsonargparse[signatures]>=4.35"], "exact": ["numba>=0.60"]}
    assert contents.extras(good, base=True)[""] == ["torch>=2.6"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leave_out": "implicit_l2o/py.typed"}, r"missing: \['implicit_l2o/py\.typed'\]"),
        ({"leave_out": "implicit_l2o/_experiments/digits.yaml"}, "missing: .*digits.yaml"),
        ({"tests/test_x.py": ""}, r"too much: \['tests/test_x\.py'\]"),
        ({"implicit_l2o/notes.ipynb": ""}, "too much: .*notes.ipynb"),
        ({"implicit_l2o-0.1.0.dist-info/METADATA": METADATA.replace("Summary: what it is\n", "")}, "lack Summary"),
    ],
)
def test_a_wheel_with_a_fault_is_found(root: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        contents.check_wheel(wheel(root, **change), root)


def test_a_notebook_in_the_sources_does_not_pass(root: Path) -> None:
    """It is in the checkout and in the wheel, and belongs into neither."""
    (root / "src/implicit_l2o/notes.ipynb").write_text("")
    with pytest.raises(RuntimeError, match=r"of an unknown kind: .*notes\.ipynb"):
        contents.check_wheel(wheel(root, **{"implicit_l2o/notes.ipynb": ""}), root)


def test_wheels_that_differ(root: Path) -> None:
    one = wheel(root)
    contents.check_same(one, wheel(root, name="b.whl"))
    with pytest.raises(RuntimeError, match=r"differs in implicit_l2o/__init__\.py"):
        contents.check_same(one, wheel(root, name="c.whl", **{"implicit_l2o/__init__.py": "other"}))


def test_an_sdist_without_a_file_or_with_leftovers(tmp_path: Path) -> None:
    def sdist(*names: str) -> Path:
        path = tmp_path / "x.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(f"implicit_l2o-0.1.0/{name}"))
        return path

    whole = ("pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "src/implicit_l2o/py.typed")
    contents.check_sdist(sdist(*whole, "Makefile"))
    with pytest.raises(RuntimeError, match=r"missing: \['Makefile'\]; left over: \['runs/digits/results.json'\]"):
        contents.check_sdist(sdist(*whole, "runs/digits/results.json"))


def test_a_failing_check_is_counted_with_what_it_said(tmp_path: Path) -> None:
    def fails() -> None:
        check_package.run([check_package.sys.executable, "-c", "import sys; sys.exit('no such thing')"], cwd=tmp_path)

    found = check_package.check("it", fails)
    assert not found.ok
    assert found.message == "exit status 1: no such thing"
    assert check_package.check("it", lambda: None).ok


def test_interpreters_by_version(tmp_path: Path) -> None:
    here = Path(check_package.sys.executable)
    found = check_package.interpreters([here, tmp_path / "none"])
    assert list(found.values()) == [here]
    assert check_package.interpreters([tmp_path / "none"]) == {}


def test_an_import_that_is_too_slow(tmp_path: Path) -> None:
    check_package._quick({"added": [0.1, 0.2, 9.0]})
    with pytest.raises(RuntimeError, match=r"adds 0\.35 s to torch; less than 0\.3 s is wanted"):
        check_package._quick({"added": [0.1, 0.35, 9.0]})


def test_other_interpreters_stay_for_the_same_wheel_alone(tmp_path: Path) -> None:
    out = tmp_path / "package.json"
    assert check_package.kept(out, "abc") == {}
    out.write_text(json.dumps({"wheel_sha256": "abc", "pythons": [{"python": "3.12.1", "checks": {}}]}))
    assert check_package.kept(out, "abc") == {"3.12": {"python": "3.12.1", "checks": {}}}
    assert check_package.kept(out, "other") == {}
