"""Lightning's own words: `fit`, `validate`, `test`, `predict`, and what the YAML can add."""

import csv

import numpy as np
import pytest
from test_run import results

from implicit_l2o.training import read_checkpoint


def test_fit_then_the_others(il2o, project):
    fitted = il2o("fit", "--config", "tiny.yaml", "--trainer.max_epochs", "2")
    assert (fitted.code, fitted.err) == (0, "")
    assert fitted.out == "written: runs/tiny/model.ckpt\n"
    run = project / "runs" / "tiny"
    metrics = (run / "metrics.csv").read_bytes()
    for name in ("best", "runs/tiny/checkpoints/last.ckpt"):
        tested = il2o("test", "--config", "tiny.yaml", "--ckpt_path", name)
        assert tested.code == 0
        assert "test/squared error" in tested.out
    assert "val/loss" in il2o("validate", "--config", "runs/tiny/config.yaml").out
    predicted = il2o("predict", "--config", "tiny.yaml")
    assert predicted.out.endswith("written: runs/tiny/predict\n")
    with np.load(run / "predict" / "predictions.npz") as arrays:
        assert arrays["answer"].shape == (20, 3)
        predictions = arrays["answer"]
    assert (run / "metrics.csv").read_bytes() == metrics  # of the training alone
    assert il2o("fit", "--config", "tiny.yaml", "--ckpt_path", "last").code == 0
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["epoch"] == 2
    again = il2o("run", "runs/tiny/config.yaml", "--folder", "run", "--trainer.max_epochs", "2")
    assert again.code == 0
    with np.load(project / "run" / "predictions.npz") as arrays:
        assert np.allclose(arrays["answer"], predictions, atol=1e-6)


def test_ctrl_c_in_fit(il2o, project, monkeypatch):
    monkeypatch.setenv("TINY", "interrupt:4")
    ended = il2o("fit", "--config", "tiny.yaml")
    assert ended.code == 130
    assert ended.err.endswith("\nil2o: interrupted; go on with --ckpt_path last.\n")
    assert read_checkpoint(project / "runs" / "tiny" / "checkpoints" / "last.ckpt")["global_step"] == 5


@pytest.mark.parametrize(
    "options",
    [
        "--optimizer SGD --optimizer.lr 0.1",
        "--optimizer SGD --optimizer.lr 0.1 --lr_scheduler StepLR --lr_scheduler.step_size 1",
        "--trainer.precision bf16-mixed",
        "--model.backward Neumann --model.backward.k 3",
        "--model.backward implicit_l2o.Implicit --gradient_cosine_every 2",
        "--weight_average 0.9",
    ],
)
def test_what_is_chosen_in_the_yaml(options, il2o, project):
    done = il2o("run", "tiny.yaml", *options.split())
    assert (done.code, done.err) == (0, "")
    found = results(project / "runs" / "tiny")
    assert found["status"] == "complete"
    with (project / "runs" / "tiny" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    if "StepLR" in options:
        assert [float(row["lr"]) for row in rows if row["lr"]] == pytest.approx([0.1, 0.01, 0.001])
    if "cosine" in options:
        assert all(float(row["solver/gradient_cosine"]) > 0.99 for row in rows if row["solver/gradient_cosine"])


def test_early_stop_and_a_logger_of_ones_own(il2o, project):
    text = (project / "tiny.yaml").read_text()
    text += """  callbacks:
    - class_path: EarlyStopping
      init_args: {monitor: val/loss, patience: 1, min_delta: 100.0}
  logger:
    class_path: tiny.Lines
    init_args: {file: lines.txt}
"""
    (project / "tiny.yaml").write_text(text.replace("max_epochs: 3", "max_epochs: 30"))
    done = il2o("run", "tiny.yaml")
    assert (done.code, done.err) == (0, "")
    found = results(project / "runs" / "tiny")
    assert (found["status"], found["epochs"]) == ("complete", 2)
    lines = (project / "lines.txt").read_text()
    assert "val/loss" in lines
    assert "test/squared" in lines
    assert (project / "runs" / "tiny" / "metrics.csv").is_file()
    assert not list((project / "runs" / "tiny").glob("*tfevents*"))


def test_help_is_there(il2o, project):
    for words in (["fit", "--help"], ["run", "--help"], ["list"], ["certify", "--help"]):
        shown = il2o(*words)
        assert (shown.code, shown.err) == (0, "")
    assert "--print_config" in il2o("run", "--help").out
    listed = il2o("list").out
    assert "shortest_path" in listed
    assert "digits" in listed
