"""`il2o export` and `il2o serve`: from a run to a folder, and what they say when they cannot."""

import sys

import numpy as np
import pytest
import torch

import implicit_l2o as il2o
from implicit_l2o import cli
from implicit_l2o.applications.digits.served import ServedDigits
from implicit_l2o.applications.shortest_path import PathTask
from implicit_l2o.experiment.export import served_arguments
from implicit_l2o.serving import load_layer

pytest.importorskip("safetensors", reason="safetensors is in the extra 'serve'")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The files of a run that an export reads, and its task without a training."""
    task = PathTask(side=3).eval()
    d = torch.randn(40, 5)
    task.set_inputs(d)
    task.set_calibration(il2o.calibrate(task.measures(), task.infer(d), p_pass=0.9, p_fail=0.1))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(
        "model: {class_path: any, init_args: {side: 3, copies: 8, optimization: null}}\n"
    )
    np.savez(folder / "predictions.npz", inputs=d.numpy())
    monkeypatch.setattr(sys.modules["implicit_l2o.experiment.export"], "load_task", lambda _: task)
    return folder, task


def test_a_run_becomes_a_layer_that_answers_as_its_task(run, tmp_path, capsys):
    folder, task = run
    assert cli.main(["export", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    d = torch.randn(6, 5)
    said, wanted = load_layer(tmp_path / "out")(d), task.examine(d)
    assert torch.equal(said.answer, wanted["answer"])
    assert torch.equal(said.report.labels, wanted["labels"])
    assert said.report.names[-1] == "flow off the path"


def test_what_does_not_answer_as_the_task_is_not_exported(run, tmp_path, capsys, monkeypatch):
    folder, _ = run
    monkeypatch.setattr(PathTask, "certificates", lambda _: ())  # the task has fewer certificates than what serves it
    assert cli.main(["export", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "does not answer as PathTask does" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_task_that_nothing_serves_says_so(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(PathTask, "served_by", None)
    assert cli.main(["export", str(run[0]), "--out", str(tmp_path / "out")]) == 2
    assert "PathTask has nothing to serve it by" in capsys.readouterr().err


def test_arguments_get_the_class_paths_that_their_annotations_imply():
    config = {"architecture": {"side": 8, "channels": 4}, "shift": 1, "solver": None}
    path = "implicit_l2o.applications.digits.model.Architecture"
    wanted = {"architecture": {"class_path": path, "init_args": {"side": 8, "channels": 4}}, "solver": None}
    assert served_arguments(ServedDigits, config) == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "run", "--out", "x", "--steps", "3"], "--torch-export and --steps N go together"),
        (["export", "run", "--out", "x", "--torch-export"], "--torch-export and --steps N go together"),
        (["export", "run"], "required: --out"),
        (["serve"], "required: RUN_OR_EXPORTED"),
    ],
)
def test_wrong_options_say_which_are_right(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_serving_says_what_is_wrong_with_a_folder_or_a_bound(tmp_path, capsys):
    pytest.importorskip("uvicorn", reason="uvicorn is in the extra 'serve'")
    (tmp_path / "layer.json").write_text("{}")
    assert cli.main(["serve", str(tmp_path)]) == 2
    assert "does not describe a layer" in capsys.readouterr().err
    assert cli.main(["serve", str(tmp_path), "--timeout", "0"]) == 2
    assert "seconds > 0; got seconds=0" in capsys.readouterr().err
