"""A folder with the tiny application and its configuration, and the command in this process."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from implicit_l2o import cli

CONFIG = """# nonnegative points
model:
  class_path: tiny.Tiny
data:
  class_path: tiny.Points
trainer:
  max_epochs: 3
  enable_progress_bar: false
"""


@pytest.fixture(scope="session", autouse=True)
def _importable() -> Iterator[None]:
    """For the processes of all tests `tiny` is one module."""
    here = str(Path(__file__).parent)
    sys.path.insert(0, here)
    yield
    sys.path.remove(here)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user, with `tiny.yaml`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINY", raising=False)
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    shutil.copy(Path(__file__).parent / "tiny.py", tmp_path)
    return tmp_path


@pytest.fixture
def pages() -> None:
    """For a test that looks at reports and figures: they are drawn, which takes most of a tiny run's time."""


@pytest.fixture(autouse=True)
def _no_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "pages" in request.fixturenames:
        return
    from implicit_l2o.experiment import figures

    run = sys.modules["implicit_l2o.experiment.run"]  # the package has the function under this name

    def page(folder: Path) -> Path:
        (folder / "report.html").write_text("a page")
        return folder / "report.html"

    monkeypatch.setattr(run, "build_report", page)
    monkeypatch.setattr(run, "build_summary", page)
    monkeypatch.setattr(figures, "draw_examples", lambda *_: [])


@pytest.fixture
def il2o(project: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """The command: exit status, standard output and standard error."""

    def call(*arguments: object) -> SimpleNamespace:
        capfd.readouterr()
        try:
            code: object = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return call
