"""The independent check of the tomography runs agrees with the package, and finds what is wrong."""

import json
from pathlib import Path

import check_ct as check
import numpy as np
import pytest
import torch

import implicit_l2o as il2o
from implicit_l2o.applications.ct.certificates import fixed_certificates
from implicit_l2o.applications.ct.metrics import psnr, ssim
from implicit_l2o.data.ellipses import ellipse_phantoms
from implicit_l2o.physics import Geometry, Projector

SIZE, TEST, DELTA = 16, 6, 0.02
SCANNER = Projector(Geometry.uniform(SIZE, angles=8))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as a run leaves it: of a model that returns the truth, and a baseline that returns half of it."""
    x = ellipse_phantoms(TEST, size=SIZE, seed=0)
    d = SCANNER.apply(x) * (1 + 0.005 * torch.randn(TEST, *SCANNER.out_shape))
    answers = {"model": (0.9 * x + 0.1 * x.mean((2, 3), keepdim=True)).lerp(x, 0.95), "half": x / 2}
    report = il2o.certify(fixed_certificates(SCANNER, DELTA), il2o.Inference(x=answers["model"], data=d))
    scores = {name: {"PSNR": float(psnr(y, x).mean()), "SSIM": float(ssim(y, x).mean())} for name, y in answers.items()}
    record = {
        "limits": dict(zip(report.names, report.limits, strict=True)),
        "samples": {
            "values": dict(zip(report.names, report.values.T.tolist(), strict=True)),
            "labels": {
                name: [il2o.Label(label).name for label in column]
                for name, column in zip(report.names, report.labels.T.tolist(), strict=True)
            },
        },
    }
    (tmp_path / "results.json").write_text(json.dumps({"extra": {"delta": DELTA}, "test": scores}))
    (tmp_path / "certificates.json").write_text(json.dumps(record))
    np.savez(tmp_path / "predictions.npz", answer=answers["model"], target=x, inputs=d)
    np.savez(tmp_path / "baselines.npz", half=answers["half"])
    return tmp_path


def change(path: Path, **arrays: np.ndarray) -> None:
    with np.load(path) as file:
        kept = dict(file)
    np.savez(path, **(kept | arrays))


def kept(path: Path, name: str) -> np.ndarray:
    with np.load(path) as file:
        return file[name]


@pytest.mark.parametrize(("size", "angles"), [(12, 5), (17, 8)])
def test_the_rays_are_those_of_the_projector(size, angles):
    projector = Projector(Geometry.uniform(size, angles=angles), dtype=torch.float64)
    scanner = check.Scanner(size, *projector.out_shape)
    x = torch.rand(2, 1, size, size, dtype=torch.float64)
    assert scanner.scale == pytest.approx(projector.scale, rel=1e-6)
    np.testing.assert_allclose(scanner.project(x[:, 0].numpy()), projector.apply(x).numpy(), rtol=0, atol=1e-7)


def test_rays_through_a_disc_are_its_chords():
    """What no implementation of the same interpolation could have wrong in the same way: lengths known in closed form."""
    size, radius = 128, 40.0
    scanner = check.Scanner(size, 4, 2 * size)
    at = np.arange(size) - (size - 1) / 2
    disc = (at[:, None] ** 2 + at**2 <= radius**2).astype(float)
    offset = (np.arange(2 * size) - (2 * size - 1) / 2) * (np.sqrt(2) * size / (2 * size))
    chords = 2 * np.sqrt(np.maximum(radius**2 - offset**2, 0.0))
    lengths = scanner.project(disc[None])[0] * scanner.scale
    assert np.abs(lengths - chords).mean() < 0.5  # pixels


def test_what_is_right_is_left_alone(run, capsys):
    assert list(check.complaints(run)) == []
    assert check.main([str(run)]) == 0
    assert "half: 0.0 % leave the box, 100.0 % the ball" in capsys.readouterr().out


def found(run: Path, text: str) -> bool:
    return any(text in complaint for complaint in check.complaints(run))


def test_what_is_wrong_is_found(run):
    file = run / "predictions.npz"
    answer, target, inputs = (kept(file, name) for name in ("answer", "target", "inputs"))
    change(file, answer=answer + 0.2)
    assert found(run, "model: PSNR is")
    assert found(run, "model: 'box violation' of image")
    assert found(run, "answers leave the ball")
    change(file, answer=answer, inputs=inputs[::-1])
    assert found(run, "sinograms are not those of the true images")
    change(file, inputs=inputs, target=target * 2 - 0.5)
    assert found(run, "a true image leaves [0, 1]")
    change(file, target=target)
    change(run / "baselines.npz", half=np.zeros_like(target))
    assert found(run, "half: SSIM is")


def test_labels_that_hide_a_failure_are_found(run):
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {"extra": {"delta": 1e-4}}))
    assert found(run, "model: 'fidelity excess' of")
    assert found(run, "beyond its limit, and does not fail")


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        check.main([str(tmp_path)])
    assert "il2o run writes them" in capsys.readouterr().err


def test_a_model_without_a_promise_is_held_to_none(run, capsys):
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {"extra": {}}))
    (run / "certificates.json").unlink()
    assert check.main([str(run)]) == 0
    assert "half: 0.0 % leave the box, 0.0 % the ball" in capsys.readouterr().out
    assert check.main([str(run), "--delta", "0.02"]) == 0
    assert "half: 0.0 % leave the box, 100.0 % the ball" in capsys.readouterr().out
