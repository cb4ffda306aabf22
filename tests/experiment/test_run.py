"""`il2o run`: what it writes, and that it can be repeated."""

import csv
import json
import math

import numpy as np
import pytest
import scipy.stats
import torch

from implicit_l2o.training import read_checkpoint

TIMES = ("seconds", "seconds_per_epoch", "machine")


def weights(run):
    return read_checkpoint(run / "model.ckpt")["state_dict"]


def same_weights(run, other):
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(run).items())


def results(run):
    return json.loads((run / "results.json").read_text())


def untimed(run, *without):
    return {key: value for key, value in results(run).items() if key not in (*TIMES, *without)}


def test_a_run_writes_every_file(il2o, project, pages):
    done = il2o("run", "tiny.yaml")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0].split() == ["test", "squared", "error", "absolute", "error"]
    assert done.out.endswith("report: runs/tiny/report.html\n")
    run = project / "runs" / "tiny"
    names = {path.name for path in run.iterdir() if "tfevents" not in path.name}
    wanted = ["config.yaml", "metrics.csv", "checkpoints", "model.ckpt", "results.json", "certificates.json"]
    assert names == {*wanted, "predictions.npz", "baselines.npz", "figures", "report.html"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert any("tfevents" in path.name for path in run.iterdir())

    found = results(run)
    assert (found["name"], found["title"], found["summary"]) == ("tiny", "Tiny", "Nonnegative points.")
    assert (found["status"], found["seed"], found["epochs"]) == ("complete", 0, 3)
    assert found["command"] == "il2o run tiny.yaml --seeds 0"
    assert list(found["test"]) == list(found["labels"]) == ["model", "constant"]
    assert list(found["metrics"]) == ["squared error", "absolute error"]
    assert set(found["test"]["constant"]) == set(found["test"]["model"]) == set(found["metrics"])
    assert all(metric["better"] == "lower" for metric in found["metrics"].values())
    assert found["parameters"] == 12
    assert found["best_epoch"] in range(3)
    assert found["peak_memory"] > 0
    assert 0 < found["seconds_per_epoch"] < found["seconds"]
    assert found["solver"]["converged"] == 1.0
    assert found["certificates"]["constraint violation"] == {"PASS": 20, "WARN": 0, "FAIL": 0}
    assert sum(found["certificates"]["size"].values()) == 20
    assert "torch" in found["versions"]

    judged = json.loads((run / "certificates.json").read_text())
    assert judged["rules"]["constraint violation"] == {"limit": 1e-3, "above": None}
    assert len(judged["rules"]["size"]["values"]) == 40  # the validation samples
    assert all(len(judged["samples"][name]) == 20 for name in ("status", "residual", "steps", "error", "worst"))
    assert found["trusted"] == judged["samples"]["worst"].count("PASS")

    with np.load(run / "predictions.npz") as arrays:
        predictions = dict(arrays)
    assert predictions["answer"].shape == predictions["target"].shape == (20, 3)
    error = np.square(predictions["answer"] - predictions["target"]).mean()
    assert found["test"]["model"]["squared error"] == pytest.approx(error, rel=1e-5)
    by_distance = np.linalg.norm(predictions["answer"] - predictions["target"], axis=1)
    worst = next(example for example in found["examples"] if example["kind"] == "worst")
    assert worst["index"] == by_distance.argmax()
    assert (run / worst["figure"]).read_text().startswith("<")

    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"step", "epoch", "train/loss", "val/loss", "val/squared error", "lr"} <= set(rows[0])
    assert [int(row["epoch"]) for row in rows if row["val/loss"]] == [0, 1, 2]


def test_the_written_configuration_repeats_the_run(il2o, project):
    assert il2o("run", "tiny.yaml", "--seeds", "3", "--folder", "first").code == 0
    assert il2o("run", "first/config.yaml", "--folder", "second").code == 0
    assert same_weights(project / "first", project / "second")
    assert untimed(project / "first", "command") == untimed(project / "second", "command")
    first, second = ((project / name / "config.yaml").read_text() for name in ("first", "second"))
    assert first.replace("folder: first", "") == second.replace("folder: second", "")
    assert il2o("run", "tiny.yaml", "--seeds", "4", "--folder", "third").code == 0
    assert not same_weights(project / "first", project / "third")


def test_the_printed_configuration_is_one(il2o, project):
    shown = il2o("run", "tiny.yaml", "--trainer.max_epochs", "1", "--print_config")
    assert (shown.code, shown.err) == (0, "")
    assert sorted(path.name for path in project.iterdir()) == ["tiny.py", "tiny.yaml"]
    (project / "whole.yaml").write_text(shown.out)
    assert il2o("run", "whole.yaml").code == 0
    assert results(project / "runs" / "whole")["epochs"] == 1


def test_several_seeds_and_their_summary(il2o, project):
    done = il2o("run", "tiny.yaml", "--seeds", "0,5", "--trainer.max_epochs=1")
    assert done.code == 0
    assert "±" in done.out
    run = project / "runs" / "tiny"
    values = [results(run / f"seed_{seed}")["test"]["model"]["squared error"] for seed in (0, 5)]
    assert values[0] != values[1]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["seeds"] == [0, 5]
    spread = summary["test"]["model"]["squared error"]
    assert spread["values"] == values
    assert spread["mean"] == pytest.approx(np.mean(values))
    half = scipy.stats.t.ppf(0.975, 1) * np.std(values, ddof=1) / math.sqrt(2)
    assert spread["half_width_95"] == pytest.approx(half)
    assert (run / "report.html").is_file()
    assert done.out.endswith("report: runs/tiny/report.html\n")
    assert results(run / "seed_5")["command"] == "il2o run tiny.yaml --seeds 5 --trainer.max_epochs=1"

    # Nothing is done again where all is done; a seed that was removed is.
    before = (run / "seed_0" / "results.json").stat().st_mtime_ns
    (run / "seed_5" / "results.json").unlink()
    assert il2o("run", "tiny.yaml", "--seeds", "0,5", "--trainer.max_epochs=1", "--ckpt_path", "last").code == 0
    assert (run / "seed_0" / "results.json").stat().st_mtime_ns == before
    assert json.loads((run / "summary.json").read_text())["test"] == summary["test"]

    # Nor where the folder was moved, or a bar is wanted now.
    moved = run.rename(project / "moved")
    options = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=true", "--folder", "moved"]
    assert il2o("run", "tiny.yaml", "--seeds", "0,5", *options, "--ckpt_path", "last").code == 0
    assert (moved / "seed_0" / "results.json").stat().st_mtime_ns == before


def test_an_earlier_run_is_not_lost_by_accident(il2o, project):
    assert il2o("run", "tiny.yaml", "--trainer.max_epochs", "1").code == 0
    run = project / "runs" / "tiny"
    (run / "notes.txt").write_text("mine")
    before = (run / "results.json").read_bytes()
    for words in (["run", "tiny.yaml"], ["fit", "--config", "tiny.yaml"], ["run", "tiny.yaml", "--seeds", "0,1"]):
        refused = il2o(*words)
        assert refused.code == 2
        assert "runs/tiny holds an earlier run: go on with it (--ckpt_path last)" in refused.err
        assert len(refused.err.splitlines()) == 1
    assert (run / "results.json").read_bytes() == before
    again = il2o("run", "tiny.yaml", "--overwrite", "--trainer.max_epochs", "2")
    assert again.code == 0
    assert results(run)["epochs"] == 2
    assert (run / "notes.txt").read_text() == "mine"
    longer = il2o("run", "tiny.yaml", "--ckpt_path", "last")  # three epochs: it goes on
    assert longer.code == 0
    assert results(run)["epochs"] == 3


def test_what_is_no_run_is_not_overwritten(il2o, project):
    (project / "config.yaml").write_text((project / "tiny.yaml").read_text())
    refused = il2o("run", "config.yaml", "--folder", ".", "--overwrite")
    assert refused.code == 2
    assert refused.err == (
        "il2o run: . holds config.yaml, which a run would replace; name another folder with --folder DIR.\n"
    )
    assert (project / "config.yaml").read_text().startswith("# nonnegative points")


def test_a_report_is_built_again(il2o, project, pages):
    assert il2o("run", "tiny.yaml", "--trainer.max_epochs", "1").code == 0
    page = project / "runs" / "tiny" / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert il2o("report", "runs/tiny").out == "runs/tiny/report.html\n"
    assert page.read_bytes() == before


def test_a_task_without_solve_error_or_certificates(il2o, project, pages):
    options = ["--model", "tiny.Signs", "--data", "tiny.Labelled", "--folder", "plain"]
    assert il2o("run", "tiny.yaml", *options).code == 0
    found = results(project / "plain")
    assert found["solver"] is None
    assert found["certificates"] == {}
    assert found["examples"] == []
    assert found["metrics"]["accuracy"]["better"] == "higher"
    assert (project / "plain" / "report.html").is_file()


def test_odd_places_and_sizes(il2o, project):
    """A folder with a space and letters of all kinds, classes beside a configuration elsewhere, one sample to test."""
    elsewhere = project / "two words é"
    elsewhere.mkdir()
    module = (project / "tiny.py").read_text()
    (elsewhere / "tiny_elsewhere.py").write_text(module)
    text = (project / "tiny.yaml").read_text().replace("tiny.", "tiny_elsewhere.")
    (elsewhere / "naïve run.yaml").write_text(text)
    (elsewhere / "naïve run.yaml").chmod(0o400)
    done = il2o("run", elsewhere / "naïve run.yaml", "--data.test", "1", "--data.batch_size", "7")
    assert done.code == 0, done.err
    found = results(project / "runs" / "naïve run")
    assert found["solver"]["converged"] == 1.0
    assert f"'{elsewhere}/naïve run.yaml'" in found["command"]


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.fast_dev_run=true"],
        ["--trainer.limit_test_batches=2", "--data.evaluation_batch=5"],
        ["--trainer.limit_val_batches=0", "--trainer.max_epochs=-1", "--trainer.max_steps=4"],
    ],
)
def test_less_than_all(options, il2o, project):
    assert il2o("run", "tiny.yaml", *options).code == 0
    with np.load(project / "runs" / "tiny" / "predictions.npz") as arrays:
        assert len(arrays["answer"]) == len(arrays["inputs"]) == (10 if len(options) == 2 else 20)


def test_a_data_file_and_a_missing_one(il2o, project):
    d = torch.randn(120, 3)
    np.savez(project / "points.npz", d=d.numpy())
    assert il2o("run", "tiny.yaml", "--data.file", "points.npz", "--trainer.max_epochs", "1").code == 0
    missing = il2o("run", "tiny.yaml", "--data.file", "absent.npz", "--folder", "new")
    assert missing.code == 2
    assert missing.err.startswith("il2o run: data.init_args.file: cannot read absent.npz: No such file or directory.")
    empty = il2o("run", "tiny.yaml", "--data.test", "0", "--folder", "new")
    assert empty.code == 2
    assert empty.err == "il2o run: data: Splits needs at least one sample in each split; test has none.\n"
    few = il2o("run", "tiny.yaml", "--calibration.p_fail", "0.001", "--calibration.p_pass", "0.999", "--folder", "new")
    assert few.code == 2
    assert few.err.startswith("il2o run: calibration: a share of 0.001 above a limit needs at least 1000")
    assert not (project / "new").exists()
