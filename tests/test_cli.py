"""The command as a newcomer drives it."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from implicit_l2o import cli
from implicit_l2o.applications import demo as demo_module


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", "import sys; from implicit_l2o.cli import main; sys.exit(main())", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


RESULTS = {
    "shortest_path": {
        "test": {
            "model": {"regret": 0.073},
            "two_stage": {"regret": 0.075},
            "untrained": {"regret": 0.67},
            "floor": {"regret": 0.07},
        },
        "extra": {"max_constraint_violation": 8e-5},
        "certificates": {"flow": {"PASS": 9, "WARN": 1, "FAIL": 0}},
    },
    "digits": {
        "test": {"model": {"accuracy": 0.98}, "implicit_gradient": {"accuracy": 0.985}},
        "seconds_per_epoch": 0.5,
        "training": {"implicit_gradient": {"seconds_per_epoch": 0.9}},
    },
}


@pytest.fixture
def quick(monkeypatch):
    """The two runs replaced by their results: what is tested here is around them."""
    calls = []

    def run(options):
        calls.append((options.config[0].stem, options.seeds, options.overwrite, options.progress))
        options.folder.mkdir(parents=True)
        return SimpleNamespace(path=options.folder), [RESULTS[options.folder.name]]

    monkeypatch.setattr(demo_module, "run", run)
    return calls


def test_help_and_version_at_once():
    start = time.perf_counter()
    help_text = run("--help")
    assert help_text.returncode == 0
    assert "demo" in help_text.stdout
    shown = run("--version")
    assert shown.stdout.startswith("il2o 0.")
    assert "--out DIR" in run("demo", "--help").stdout
    assert time.perf_counter() - start < 60
    loaded = run_python("import sys, implicit_l2o.cli; print('lightning' in sys.modules, 'matplotlib' in sys.modules)")
    assert loaded.strip() == "False False"


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["dmeo"], "invalid choice: 'dmeo' (choose from"),
        (["demo"], "the following arguments are required: --out"),
        (
            ["demo", "--out", "x", "--sede", "1"],
            "unknown: --sede 1; usage: il2o demo [-h] --out DIR [--seed N] [--quiet]",
        ),
        (["demo", "--out", "x", "--seed", "one"], "argument --seed: a whole number is needed; got 'one'"),
        (["demo", "--out", "x", "--seed", "-1"], "argument --seed: 0 <= N < 2**31 is needed; got -1"),
    ],
)
def test_wrong_options_say_which_are_right(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 2


def test_demo_prints_a_table_and_writes_the_summary(quick, tmp_path, capsys):
    out = tmp_path / "a" / "b"
    assert cli.main(["demo", "--out", str(out), "--seed", "3", "--quiet"]) == 0
    assert quick == [("shortest_path_5x5", [3], True, False), ("digits", [3], True, False)]
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) == {"shortest_path", "digits", "seconds"}
    assert set(summary["shortest_path"]) == {
        "regret",
        "regret_two_stage",
        "regret_untrained",
        "regret_floor",
        "max_constraint_violation",
        "certificates",
    }
    assert set(summary["digits"]) == {
        "accuracy_jfb",
        "accuracy_implicit",
        "seconds_per_epoch_jfb",
        "seconds_per_epoch_implicit",
    }
    printed = capsys.readouterr().out
    for text in (
        "0.0730",
        "+0.0030",
        "0.6700",
        "9 / 1 / 0",
        "98.0 %",
        "98.5 %",
        str(out / "summary.json"),
        str(out / "digits" / "report.html"),
    ):
        assert text in printed


def test_a_summary_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "summary.json"
    demo_module.write_json(path, {"regret": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        demo_module.write_json(path, {"regret": float("nan")})
    assert json.loads(path.read_text()) == {"regret": 1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--out", str(tmp_path / "file")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"il2o demo: cannot use {tmp_path / 'file' / 'shortest_path'}: Not a directory.\n"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_line(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert cli.main(["demo", "--out", str(tmp_path / "new")]) == 1
    assert capsys.readouterr().err.endswith("Permission denied.\n")


def test_a_full_or_virtual_file_system_is_one_line(capsys):
    assert cli.main(["demo", "--out", "/proc/nothing"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("il2o demo: cannot use /proc/nothing: ")
    assert len(captured.err.splitlines()) == 1


def test_a_missing_extra_is_named(monkeypatch, tmp_path, capsys):
    def missing(*_, **__):
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning")

    monkeypatch.setattr(demo_module, "demo", missing)
    assert cli.main(["demo", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "il2o demo needs lightning: pip install 'implicit_l2o[train]'.\n"


def test_an_interrupt_ends_it_without_a_traceback(tmp_path):
    pytest.importorskip("implicit_l2o.applications.digits")
    pytest.importorskip("lightning")
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from implicit_l2o.cli import main; sys.exit(main())",
            "demo",
            "--out",
            tmp_path,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    process.stderr.read(1)  # the first bar: the training has begun
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "il2o: interrupted; go on with: il2o run " in rest.decode()
    assert rest.decode().endswith(f" --folder {tmp_path}/shortest_path --seeds 0 --ckpt_path last\n")
    assert "Traceback" not in rest.decode()
    assert not (tmp_path / "summary.json").exists()
