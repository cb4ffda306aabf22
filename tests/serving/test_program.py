"""A layer by `torch.export`: the program says what the layer says after as many iterations."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import serving_models
import torch

from implicit_l2o.applications.shortest_path.bellman import shortest_paths_in_torch
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.serving import LayerError, export_program, load_program, save_layer

# In another process, as the run-time type check of the tests would be traced too.
_PROBE = """
import io, json, sys, warnings
import torch, implicit_l2o as il2o
from implicit_l2o.serving import Layer, export_program, fixed_steps
sys.path.insert(0, sys.argv[1])
import serving_models
from implicit_l2o.applications.digits.served import ServedDigits
from implicit_l2o.applications.shortest_path.served import ServedPaths
warnings.simplefilter("ignore")
torch.manual_seed(0)
makers = {
    "own": lambda: serving_models.layer(),
    "paths": lambda: Layer(
        (model := ServedPaths(side=2)), example=torch.randn(2, 5),
        calibrated=[il2o.Certificate(measure, il2o.Threshold(0.1)) for measure in model.measures()]),
    "digits": lambda: Layer(ServedDigits(), example=torch.rand(2, 1, 8, 8)),
}
layer, steps = makers[sys.argv[2]](), int(sys.argv[3])
program = torch.export.load(io.BytesIO(export_program(layer, steps=steps))).module()
eager, found = fixed_steps(layer, steps), {}
for size in (1, 2, 5):
    d = torch.randn(size, *layer.shape).abs()
    said, wanted = program(d), eager(d)
    pairs = {
        "answer": wanted.answer, "x": wanted.x, "status": wanted.status, "residual": wanted.residual,
        "values": wanted.report.values, "labels": wanted.report.labels,
    }
    found[size] = {name: torch.allclose(said[name], value, rtol=1e-5, atol=1e-6) for name, value in pairs.items()}
print(json.dumps(found))
"""


@pytest.mark.parametrize(("name", "steps"), [("own", 20), ("paths", 8), ("digits", 2)])
def test_a_program_agrees_with_the_layer_for_every_batch(name, steps):
    command = [sys.executable, "-c", _PROBE, str(Path(__file__).parent), name, str(steps)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert set(found) == {"1", "2", "5"}
    assert all(all(same.values()) for same in found.values()), found


@pytest.mark.parametrize("side", [2, 5])
def test_paths_in_torch_are_those_of_the_decoder(side):
    costs = torch.randint(-2, 4, (200, Grid(side).n_arcs)).float()  # many ties
    assert torch.equal(shortest_paths_in_torch(Grid(side), costs), Grid(side).shortest_paths(costs))


def test_steps_are_bounded():
    with pytest.raises(LayerError, match="1 to 10000 steps; got steps=0"):
        export_program(serving_models.layer(), steps=0)


def test_what_cannot_be_traced_is_said_in_a_line(monkeypatch):
    def infer(self, d):
        return self.layer.inference(d * float(d.sum()))

    monkeypatch.setattr(serving_models.Nonnegative, "infer", infer)
    with pytest.raises(LayerError, match=r"Nonnegative cannot be exported by torch\.export, save it without") as error:
        export_program(serving_models.layer(), steps=2)
    assert "\n" not in str(error.value)


def test_a_damaged_program_is_found(tmp_path):
    file = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Identity(), (torch.zeros(2, 3),)), file)
    folder = tmp_path / "layer"
    layer = serving_models.layer()
    save_layer(layer, folder, {"size": 3}, allow=("serving_models",), program=file.getvalue(), steps=2)
    assert torch.equal(load_program(folder)(torch.ones(2, 3)), torch.ones(2, 3))
    content = bytearray((folder / "program.pt2").read_bytes())
    content[50] ^= 1
    (folder / "program.pt2").write_bytes(content)
    with pytest.raises(LayerError, match=r"program\.pt2 is damaged"):
        load_program(folder)
    other = save_layer(layer, tmp_path / "other", {"size": 3}, allow=("serving_models",))
    with pytest.raises(LayerError, match="it has no"):
        load_program(other)
