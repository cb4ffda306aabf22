"""However a run ends, it can be gone on with, and what it reached is there."""

import json
import os
import resource
import signal
import subprocess
import sys

import pytest
import torch
from test_run import results, same_weights, untimed

from implicit_l2o.training import read_checkpoint


def test_ctrl_c_in_the_training(il2o, project, monkeypatch):
    assert il2o("run", "tiny.yaml", "--folder", "whole").code == 0
    monkeypatch.setenv("TINY", "interrupt:4")  # in the middle of the second epoch
    ended = il2o("run", "tiny.yaml")
    assert ended.code == 130
    assert ended.err.endswith("\nil2o: interrupted; go on with: il2o run tiny.yaml --ckpt_path last\n")
    run = project / "runs" / "tiny"
    assert results(run)["status"] == "interrupted"
    assert (run / "report.html").is_file()
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 5
    monkeypatch.delenv("TINY")
    assert il2o("run", "tiny.yaml", "--ckpt_path", "last").code == 0
    assert same_weights(run, project / "whole")
    assert untimed(run, "name") == untimed(project / "whole", "name") | {"command": results(run)["command"]}


def test_ctrl_c_in_one_of_several_seeds(il2o, project, monkeypatch):
    options = ["tiny.yaml", "--seeds", "0,1", "--trainer.max_epochs", "2"]
    assert il2o("run", *options, "--folder", "whole").code == 0
    monkeypatch.setenv("TINY", "interrupt:0")
    ended = il2o("run", *options)
    assert ended.code == 130
    assert "go on with: il2o run tiny.yaml --seeds 0,1 --trainer.max_epochs=2 --ckpt_path last" in ended.err
    assert not (project / "runs" / "tiny" / "seed_1").exists()
    monkeypatch.delenv("TINY")
    assert il2o("run", *options, "--ckpt_path", "last").code == 0
    for seed in ("seed_0", "seed_1"):
        assert same_weights(project / "runs" / "tiny" / seed, project / "whole" / seed)


def test_ctrl_c_after_the_training(il2o, project):
    with (project / "tiny.yaml").open("a") as file:
        file.write("baselines:\n  late: {class_path: tiny.Interrupted, init_args: {unless: go}}\n")
    ended = il2o("run", "tiny.yaml")
    assert ended.code == 130
    run = project / "runs" / "tiny"
    found = results(run)
    assert found["status"] == "interrupted"
    assert found["test"]["model"]["squared error"] > 0
    assert found["certificates"]["constraint violation"]["PASS"] == 20
    before = read_checkpoint(run / "model.ckpt")
    (project / "go").touch()
    assert il2o("run", "tiny.yaml", "--ckpt_path", "last").code == 0
    assert results(run)["status"] == "complete"
    assert list(results(run)["test"]) == ["model", "constant", "late"]
    assert results(run)["test"]["model"] == found["test"]["model"]
    after = read_checkpoint(run / "model.ckpt")
    assert all(torch.equal(before["state_dict"][name], value) for name, value in after["state_dict"].items())
    assert before["certificates"] == after["certificates"]


def test_a_loss_that_is_no_number(il2o, project, monkeypatch):
    monkeypatch.setenv("TINY", "nan:4")
    ended = il2o("run", "tiny.yaml")
    assert ended.code == 1
    assert ended.err.startswith("il2o run: the training loss is not finite in epoch 1, step 4: lower")
    assert len(ended.err.splitlines()) == 1
    run = project / "runs" / "tiny"
    assert results(run)["status"] == "failed"
    assert results(run)["failure"].startswith("the training loss is not finite")
    assert (run / "report.html").is_file()
    assert read_checkpoint(run / "checkpoints" / "best.ckpt")["global_step"] == 3


def command(project, *arguments, **options):
    environment = {**os.environ, **options.pop("environment", {}), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "implicit_l2o.cli", *arguments]
    return subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, timeout=300, **options)


def test_kill_then_go_on(il2o, project):
    assert il2o("run", "tiny.yaml", "--seeds", "3", "--folder", "whole").code == 0
    killed = command(project, "run", "tiny.yaml", "--seeds", "3", environment={"TINY": "kill:7"})
    assert killed.returncode == -signal.SIGKILL
    assert il2o("run", "tiny.yaml", "--seeds", "3", "--ckpt_path", "last").code == 0
    assert same_weights(project / "runs" / "tiny", project / "whole")


def test_a_run_that_was_killed_at_once_can_be_replaced(il2o, project):
    shown = il2o("run", "tiny.yaml", "--print_config")
    folder = project / "runs" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(shown.out)
    assert "runs/tiny has no checkpoint yet" in il2o("run", "tiny.yaml", "--ckpt_path", "last").err
    assert "holds an earlier run" in il2o("run", "tiny.yaml").err
    assert il2o("run", "tiny.yaml", "--overwrite", "--trainer.max_epochs", "1").code == 0


def test_a_folder_that_cannot_be_written(il2o, project):
    refused = il2o("run", "tiny.yaml", "--folder", "/proc/nothing")
    assert refused.code == 1
    assert refused.err == "il2o run: cannot use /proc/nothing: No such file or directory.\n"


def test_two_runs_in_one_folder(il2o, project):
    import fcntl

    folder = project / "runs" / "tiny"
    folder.mkdir(parents=True)
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    refused = il2o("run", "tiny.yaml", "--overwrite")
    assert refused.code == 2
    assert refused.err.startswith("il2o run: another process is writing into runs/tiny;")
    os.close(other)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("size", [3_000, 12_000])
def test_a_full_disk(size, il2o, project):
    """No file may be larger: the checkpoints do not fit, or the figures."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        ended = il2o("run", "tiny.yaml", "--trainer.logger", "false")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert ended.code == 1
    assert ended.err.startswith("il2o run: ")
    assert "File too large" in ended.err
    assert len(ended.err.splitlines()) == 1
    again = il2o("run", "tiny.yaml", "--overwrite")
    assert (again.code, results(project / "runs" / "tiny")["status"]) == (0, "complete")


def test_a_drawing_that_fails_loses_nothing(il2o, project, monkeypatch):
    from implicit_l2o.experiment import figures

    def full(*_):
        raise OSError(28, "No space left on device", "figures/example_best.svg")

    monkeypatch.setattr(figures, "draw_examples", full)
    ended = il2o("run", "tiny.yaml")
    assert ended.code == 1
    assert ended.err == "il2o run: cannot use figures/example_best.svg: No space left on device.\n"
    found = results(project / "runs" / "tiny")
    assert found["status"] == "failed"
    assert "constant" in found["test"]
    assert json.loads((project / "runs" / "tiny" / "certificates.json").read_text())["samples"]["worst"]


def test_no_warning_and_two_processes(il2o, project):
    """The whole command under `-W error`; then on two processes, which give the same to rounding."""
    alone = command(project, "run", "tiny.yaml", "--model.dropout", "0", environment={"PYTHONWARNINGS": "error"})
    assert (alone.returncode, alone.stderr) == (0, "")
    two = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--folder=two"]
    both = command(project, "run", "tiny.yaml", "--model.dropout", "0", *two)
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("report: two/report.html") == 1
    first, second = results(project / "runs" / "tiny"), results(project / "two")
    for method in ("model", "constant"):
        assert second["test"][method] == pytest.approx(first["test"][method], rel=1e-5)
    assert second["certificates"] == first["certificates"]
    assert second["epochs"] == first["epochs"]
