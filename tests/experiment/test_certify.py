"""`il2o certify`: new data, a certificate a sample, and what a script can read off the exit status."""

import json

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def run(il2o, project):
    assert (
        il2o("run", "tiny.yaml", "--trainer.max_epochs", "1", "--calibration.p_fail=0", "--calibration.p_pass=1").code
        == 0
    )
    return project / "runs" / "tiny"


def inputs(n=7):
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32) * 0.01


def test_files_of_every_kind(il2o, run, project):
    d = inputs()
    np.savez(project / "new.npz", d=d)
    pd.DataFrame(d, columns=["a", "b", "c"]).to_csv(project / "table.csv", index=False)
    pd.DataFrame({"d": list(d)}).to_parquet(project / "new.parquet")
    done = il2o("certify", "runs/tiny", "--data", "new.npz", "--batch_size", "2", "--quiet")
    assert (done.code, done.err) == (0, "")
    assert "constraint violation" in done.out
    found = dict(np.load(run / "certified" / "new" / "predictions.npz"))
    assert np.array_equal(found["inputs"], d)
    assert len(found["answer"]) == 7
    assert json.loads((run / "certified" / "new" / "certificates.json").read_text())["samples"]["worst"] == ["PASS"] * 7
    for file, options in (("table.csv", ["--array", "a,b,c"]), ("new.parquet", [])):
        assert il2o("certify", "runs/tiny", "--data", file, "--out", "out", "--quiet", *options).code == 0
        assert np.allclose(np.load(project / "out" / "predictions.npz")["answer"], found["answer"])


def test_a_sample_that_fails(il2o, run, project):
    d = inputs()
    d[3] = np.nan
    np.savez(project / "new.npz", d=d)
    done = il2o("certify", "runs/tiny", "--data", "new.npz", "--quiet")
    assert done.code == 1
    worst = json.loads((run / "certified" / "new" / "certificates.json").read_text())["samples"]["worst"]
    assert worst == ["PASS"] * 3 + ["FAIL"] + ["PASS"] * 3


def test_a_classifier_that_solves_nothing(il2o, project):
    """Its answers are whole numbers, one a sample, and it has no certificates: only what is not finite fails."""
    (project / "signs.yaml").write_text("model: tiny.Signs\ndata: tiny.Labelled\ntrainer: {max_epochs: 1}\n")
    assert il2o("run", "signs.yaml").code == 0
    d = inputs()
    np.savez(project / "new.npz", d=d)
    done = il2o("certify", "runs/signs", "--data", "new.npz", "--quiet")
    assert (done.code, done.err) == (0, "")
    assert "7 of 7 samples are trusted." in done.out
    assert np.load(project / "runs/signs/certified/new/predictions.npz")["answer"].shape == (7,)
    d[2] = np.inf
    np.savez(project / "new.npz", d=d)
    done = il2o("certify", "runs/signs", "--data", "new.npz", "--quiet")
    assert done.code == 1
    assert "6 of 7 samples are trusted. 1 did not converge." in done.out


def test_what_cannot_be_certified(il2o, run, project):
    np.savez(project / "wide.npz", d=np.zeros((2, 4)))
    (project / "broken.npz").write_bytes(b"PK\x03\x04 no")
    (project / "data.txt").write_text("1 2 3")
    for file, message in (
        ("absent.npz", "absent.npz: no such file."),
        ("wide.npz", "wide.npz: the array 'd' has the shape (2, 4); needed: (N, 3)"),
        ("broken.npz", "broken.npz: "),
        ("data.txt", "data.txt: the file must be one of "),
    ):
        refused = il2o("certify", "runs/tiny", "--data", file, "--quiet")
        assert refused.code == 2
        assert refused.err.startswith(f"il2o certify: {message}")
        assert len(refused.err.splitlines()) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_a_damaged_model(damage, il2o, run, project):
    model = run / "model.ckpt"
    content = bytearray(model.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content = bytearray(b"no checkpoint")
    model.write_bytes(content)
    np.savez(project / "new.npz", d=inputs())
    for words in (
        ["certify", "runs/tiny", "--data", "new.npz"],
        ["test", "--config", "tiny.yaml", "--ckpt_path", "model"],
    ):
        refused = il2o(*words)
        assert refused.code in (1, 2)
        assert "model.ckpt" in refused.err
        assert len(refused.err.splitlines()) == 1


def test_a_model_of_other_code(il2o, run, project):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("size: 3", "size: 5"))
    np.savez(project / "new.npz", d=inputs())
    refused = il2o("certify", "runs/tiny", "--data", "new.npz")
    assert refused.code == 2
    assert refused.err.startswith("il2o certify: runs/tiny/model.ckpt does not fit the model of runs/tiny/config.yaml")
    assert len(refused.err.splitlines()) == 1
