"""The table of the methods pairs them by image and counts what leaves the constraints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import implicit_l2o as il2o
from implicit_l2o.applications.ct import comparison
from implicit_l2o.applications.ct.base import scanner
from implicit_l2o.data.ellipses import ellipse_phantoms

SIZE, ANGLES, TEST = 16, 8, 30


def measured():
    A = scanner(SIZE, ANGLES)
    x = ellipse_phantoms(TEST, size=SIZE, seed=0)
    noise = torch.randn(TEST, *A.out_shape, generator=torch.Generator().manual_seed(0))
    return A, x, A.apply(x) * (1 + 0.01 * noise)


def off_by(x, much):
    """Images in the box with a known error."""
    return (x + much * torch.where(x > 0.5, -1.0, 1.0)).contiguous()


def test_rows_are_what_they_say():
    A, x, d = measured()
    images = {"tv": off_by(x, 0.02), "net": off_by(x, 0.01), "wild": x - 0.5}
    answers = comparison.Answers(images, x, d, {"net": {"ms": 3.0}})
    limit = comparison.noise_quantile(x, d, A)
    rows = comparison.method_table(answers, A, delta=0.012, reference="tv", noise_limit=limit)
    assert rows["tv"]["psnr"]["mean"] == pytest.approx(-20 * np.log10(0.02), abs=1e-3)
    assert rows["net"]["gain"]["mean"] == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert rows["net"]["gain"]["standard_error"] < 1e-3
    assert rows["net"]["wins"] == 1.0
    assert "gain" not in rows["tv"]
    assert rows["net"]["ms"] == 3.0
    assert (rows["net"]["box"], rows["wild"]["box"]) == (0.0, 1.0)
    assert rows["wild"]["fidelity"] == rows["wild"]["noise"] == 1.0
    own = comparison.Answers({"tv": images["tv"], "net": images["net"]}, x, d, {"net": {"delta": 10.0}})
    assert comparison.method_table(own, A, delta=0.0, reference="tv")["net"]["fidelity"] == 0.0
    truth = comparison.method_table(
        comparison.Answers({"tv": off_by(x, 1e-6)}, x, d), A, delta=0.012, reference="tv", noise_limit=limit
    )
    assert truth["tv"]["noise"] == pytest.approx(0.05, abs=0.04)  # what the limit was calibrated for


def write_run(folder: Path, x, d, answer, baselines, seed=5):
    folder.mkdir()
    training = {name: {"parameters": 7, "seconds_per_epoch": 2.0, "epochs": 3} for name in baselines}
    results = {"seed": seed, "extra": {"delta": 0.012}, "parameters": 10, "seconds_per_epoch": 1.0, "epochs": 4}
    (folder / "results.json").write_text(json.dumps(results | {"training": training}))
    status = np.full(TEST, int(il2o.Status.CONVERGED))
    np.savez(folder / "predictions.npz", answer=answer, target=x, inputs=d, status=status, steps=np.arange(TEST))
    np.savez(folder / "baselines.npz", **baselines)


def test_runs_are_joined_into_one_table(tmp_path):
    _, x, d = measured()
    tv = off_by(x, 0.02)
    write_run(tmp_path / "a", x, d, off_by(x, 0.01), {"tv_ball": tv, "unet": x / 2})
    write_run(tmp_path / "b", x, d, off_by(x, 0.005), {"tv_ball": tv})
    out = tmp_path / "table.json"
    assert comparison.main([f"convex={tmp_path / 'a'}", f"free={tmp_path / 'b'}", "--out", str(out)]) == 0
    table = json.loads(out.read_text())
    assert table["setting"] | {"size": SIZE, "angles": ANGLES, "test": TEST, "delta": 0.012} == table["setting"]
    assert set(table["methods"]) == {"convex", "free", "tv_ball", "unet"}
    assert table["methods"]["free"]["gain"]["mean"] > table["methods"]["convex"]["gain"]["mean"] > 0
    assert table["methods"]["unet"]["training_seconds"] == 6.0
    convex = table["methods"]["convex"]
    assert convex["delta"] == 0.012
    assert (convex["training_seconds"], convex["parameters"], convex["converged"], convex["steps_median"]) == (
        4,
        10,
        1,
        14,
    )


def test_runs_of_other_images_are_not_compared(tmp_path):
    _, x, d = measured()
    write_run(tmp_path / "a", x, d, x, {"tv_ball": x})
    write_run(tmp_path / "b", x.flip(0), d, x, {"tv_ball": x})
    with pytest.raises(ValueError, match="other test images"):
        comparison.main([f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}", "--out", str(tmp_path / "t.json")])


def test_an_unknown_reference_lists_the_methods():
    A, x, d = measured()
    with pytest.raises(ValueError, match="methods net; got reference='tv'"):
        comparison.method_table(comparison.Answers({"net": x}, x, d), A, delta=0.01, reference="tv")


def test_a_run_without_a_name_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        comparison.main([str(tmp_path), "--out", str(tmp_path / "t.json")])
    assert "NAME=FOLDER" in capsys.readouterr().err
