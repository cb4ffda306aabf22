"""The script that puts a trained tomography model under its certificates, on a stand-in for the model."""

import json
from pathlib import Path

import ct_certificates as script
import numpy as np
import pytest
import torch
from torch import nn

import implicit_l2o as il2o
from implicit_l2o.applications.ct.base import ReconstructionTask
from implicit_l2o.applications.ct.certificates import fixed_certificates, learned_measures
from implicit_l2o.applications.ct.measurement import Measurement
from implicit_l2o.data.ellipses import ellipse_phantoms
from implicit_l2o.physics import FilteredBackProjection, PerBeamNoise

SIZE, ANGLES, TEST = 16, 8, 40


class Filtered(ReconstructionTask):
    """Filtered back-projection as if it were solved: its force is the blur that is left."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), size=SIZE, angles=ANGLES)
        self.back = FilteredBackProjection(self.projector)

    def infer(self, d):
        converged = torch.full((len(d),), int(il2o.Status.CONVERGED))
        return il2o.Inference(x=self.back(d).clamp(0, 1), status=converged, residual=torch.zeros(len(d)), data=d)

    def certificates(self):
        return fixed_certificates(self.projector, 0.01, residual=1e-3)

    def measures(self):
        return learned_measures(lambda x, d: x - nn.functional.avg_pool2d(x, 3, 1, 1))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    task = Filtered().eval()
    images = ellipse_phantoms(TEST, size=SIZE, seed=0)
    d = Measurement(SIZE, ANGLES, PerBeamNoise(0.015))(images, torch.Generator().manual_seed(0))
    task.set_calibration(il2o.calibrate(task.measures(), task.infer(d)))
    monkeypatch.setattr(script, "load_task", lambda folder: task)
    folder = tmp_path / "run"
    folder.mkdir()
    np.savez(folder / "predictions.npz", answer=task.infer(d).x, target=images, inputs=d)
    np.savez(folder / "baselines.npz", constant=images * 0, half_of_it=images / 2)
    return folder


def test_the_record_and_the_figures_are_written(run, tmp_path, capsys):
    assert script.main([str(run), "--count", "30", "--root", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "results" / "ct_certificates.json").read_text())
    assert found["setting"]["count"] == 30
    assert found["certificates"]["total variation"]["calibrated"]
    assert not found["certificates"]["fidelity excess"]["calibrated"]
    assert found["kinds"]["half of it"]["fails"]["fidelity excess"] == 1.0
    assert "constant" not in found["kinds"]
    assert found == json.loads(json.dumps(found))
    assert json.loads(capsys.readouterr().out) == found["kinds"]
    assets = sorted(path.name for path in (tmp_path / "docs" / "assets").iterdir())
    names = ("fails", "map_test", "map_text", "methods")
    assert assets == [f"ct_certificates_{name}.svg" for name in names]
    assert all("<svg style" in (tmp_path / "docs" / "assets" / name).read_text() for name in assets)


def test_the_page_shows_the_record(run, tmp_path):
    import render

    script.main([str(run), "--count", "10", "--root", str(tmp_path), "--methods"])
    table = render.fill("ct_certificates", tmp_path / "results")
    assert "| text |" in table
    assert "learned regulariser *" in table
    assert "half of it" not in table


def test_another_run_has_to_be_of_the_same_images(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with np.load(run / "predictions.npz") as file:
        kept = dict(file)
    np.savez(other / "baselines.npz", unet=kept["target"])
    np.savez(other / "predictions.npz", **kept)
    arguments = [str(run), "--count", "10", "--root", str(tmp_path), "--beside", str(other)]
    script.main(arguments)
    found = json.loads((tmp_path / "results" / "ct_certificates.json").read_text())
    assert "unet" in found["kinds"]
    assert "half of it" not in found["kinds"]
    np.savez(other / "predictions.npz", **(kept | {"inputs": kept["inputs"] + 1}))
    with pytest.raises(SystemExit, match="other test images"):
        script.main(arguments)
