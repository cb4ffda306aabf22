"""A layer as a folder: it comes back as it was, or it is said what is wrong with it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256

import pytest
import serving_models
import torch

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.served import ServedPaths
from implicit_l2o.serving import InputError, Layer, LayerError, is_layer, load_layer, save_layer
from implicit_l2o.serving.specification import build, describe

pytest.importorskip("safetensors", reason="safetensors is in the extra 'serve'")

ALLOW = ("serving_models",)


@pytest.fixture
def saved(tmp_path):
    return save_layer(serving_models.layer(), tmp_path / "layer", {"size": 3}, allow=ALLOW)


def rewrite(folder, change):
    """Change the description, and make its checksum right again, as somebody would who means harm."""
    path = folder / "layer.json"
    content = json.loads(path.read_text())
    change(content)
    rest = {key: value for key, value in content.items() if key != "checksum"}
    content["checksum"] = sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps(content))


def test_a_layer_comes_back_as_it_was(saved):
    first, loaded = serving_models.layer(), load_layer(saved, allow=ALLOW)
    d = torch.randn(5, 3)
    one, other = first(d), loaded(d)
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.report.labels, other.report.labels)
    assert other.report.names == ("constraint violation", "size")
    assert other.report.limits[1] == (1e3, 1e3)
    assert not loaded.model.training
    assert sorted(path.name for path in saved.iterdir()) == ["example.safetensors", "layer.json", "weights.safetensors"]
    assert is_layer(saved)


def test_loading_leaves_the_random_numbers_alone(saved):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_layer(saved, allow=ALLOW)
    assert torch.equal(torch.rand(2), expected)


_PROBE = """
import json, sys
from implicit_l2o.serving import load_layer
layer = load_layer(sys.argv[1])
layer(layer.example)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_a_layer_loads_without_the_training_stack(tmp_path):
    layer = Layer(ServedPaths(side=3), example=torch.zeros(1, 5))
    folder = save_layer(layer, tmp_path / "paths", {"side": 3})
    run = subprocess.run([sys.executable, "-c", _PROBE, folder], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    loaded = set(json.loads(run.stdout))
    assert "implicit_l2o" in loaded
    assert not loaded & {
        *("lightning", "pytorch_lightning", "lightning_utilities", "jsonargparse", "torchmetrics", "matplotlib"),
        *("pandas", "pyarrow", "sklearn", "tensorboard", "h5py", "fastapi", "uvicorn", "cloudpickle"),
    }


@pytest.mark.parametrize("name", ["weights.safetensors", "example.safetensors", "layer.json"])
def test_every_damaged_byte_is_found(saved, name):
    path = saved / name
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 2):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(LayerError, match=r"layer: .*(damaged|does not describe|version)"):
            load_layer(saved, allow=ALLOW)
    path.write_bytes(whole[:-10])
    with pytest.raises(LayerError, match="damaged"):
        load_layer(saved, allow=ALLOW)
    path.unlink()
    with pytest.raises(LayerError, match="missing"):
        load_layer(saved, allow=ALLOW)


@pytest.mark.parametrize(
    "path",
    [
        "serving_models.Dangerous",
        "os.system",
        "serving_models.os.system",
        "builtins.eval",
        "implicit_l2o.cli.main",
        "implicit_l2o.serving.folder.shutil.rmtree",
        "implicit_l2o.training.AbstractTask",
        "implicit_l2o_evil.Layer",
        "../../etc/passwd",
        "implicit_l2o",
        "implicit_l2o.nothing.Here",
        7,
        None,
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_no_other_class_is_made(saved, path, nested, monkeypatch):
    monkeypatch.delenv("SERVING_TEST_DANGER", raising=False)

    def change(content):
        foreign = {"class_path": path, "init_args": {}}
        content["layer"] = foreign if not nested else content["layer"] | {"init_args": {"size": foreign}}

    rewrite(saved, change)
    with pytest.raises(LayerError):
        load_layer(saved, allow=ALLOW)
    assert "SERVING_TEST_DANGER" not in os.environ


def test_a_class_of_a_package_that_is_not_allowed_is_not_imported(saved):
    with pytest.raises(LayerError, match=r"is not in implicit_l2o; nothing of it was imported.*allow=.serving_models."):
        load_layer(saved)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/weights.safetensors"])
def test_a_description_names_no_other_files(saved, name):
    rewrite(saved, lambda content: content["files"].update({name: content["files"]["weights.safetensors"]}))
    with pytest.raises(LayerError, match="must list"):
        load_layer(saved, allow=ALLOW)


def test_a_link_out_of_the_folder_is_not_followed(saved, tmp_path):
    (saved / "weights.safetensors").rename(tmp_path / "elsewhere")
    (saved / "weights.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LayerError, match="no plain file"):
        load_layer(saved, allow=ALLOW)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=2), "version 2"),
        (lambda c: c.update(format="something"), "does not describe"),
        (lambda c: c.update(more=1), "unknown more"),
        (lambda c: c["layer"]["init_args"].update(size=4), "the weight layer.encoder.weight is"),
        (lambda c: c["layer"]["init_args"].update(colour=4), "does not take its init_args"),
        (lambda c: c["tensors"].pop("layer.encoder.bias"), "lacks layer.encoder.bias"),
        (lambda c: c.update(certificates={"other": {"limit": 1.0, "above": None}}), "certificates"),
        (lambda c: c["inputs"].update(shape=[4]), "its example"),
        (lambda c: c.update(layer="text"), "class_path"),
    ],
)
def test_what_does_not_fit_is_named(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(LayerError, match=message):
        load_layer(saved, allow=ALLOW)


def test_code_that_changed_since_is_found(saved, monkeypatch):
    load_layer(saved, allow=ALLOW)
    infer = serving_models.Nonnegative.infer
    monkeypatch.setattr(
        serving_models.Nonnegative, "infer", lambda self, d: replace(infer(self, d), x=infer(self, d).x + 1.0)
    )
    with pytest.raises(LayerError, match="answers its example otherwise"):
        load_layer(saved, allow=ALLOW)
    assert load_layer(saved, allow=ALLOW, check_example=False).shape == (3,)


def test_a_foreign_folder_is_said_to_be_one(tmp_path):
    with pytest.raises(LayerError, match="no such folder"):
        load_layer(tmp_path / "nowhere")
    with pytest.raises(LayerError, match=r"layer\.json is missing"):
        load_layer(tmp_path)


def test_saving_is_all_or_nothing(tmp_path, saved):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(LayerError, match="not empty"):
        save_layer(serving_models.layer(), saved, {"size": 3})
    with pytest.raises(LayerError, match="needs"):  # these arguments make another model
        save_layer(serving_models.layer(), tmp_path / "new", {"size": 4})
    with pytest.raises(LayerError, match="is a Linear"):
        save_layer(serving_models.layer(), tmp_path / "new", {"size": torch.nn.Linear(1, 1)})
    with pytest.raises(LayerError, match="nan"):
        save_layer(serving_models.layer(), tmp_path / "new", {"size": float("nan")})
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "empty").mkdir()
    assert is_layer(save_layer(serving_models.layer(), tmp_path / "empty", {"size": 3}))


def test_a_class_inside_a_function_cannot_be_saved(tmp_path):
    class Local(serving_models.Nonnegative):
        pass

    with pytest.raises(LayerError, match="top of a module"):
        save_layer(Layer(Local(), example=torch.zeros(1, 3)), tmp_path / "layer", {})


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("d", "message"),
    [
        (torch.zeros(2, 4), r"shape \(B, 3\) are needed; got \(2, 4\)"),
        (torch.zeros(3), "are needed; got"),
        (torch.zeros(2, 3).double(), "torch.float32 are needed"),
        (torch.tensor([[0.0] * 3, [float("nan")] * 3]), "sample 1 has NaN"),
        (torch.full((1, 3), 101.0), "at most 100"),
    ],
)
def test_a_layer_says_what_it_takes(d, message):
    with pytest.raises(InputError, match=message):
        serving_models.layer()(d)


def test_dataclasses_are_described_and_made_again():
    described = describe({"solver": il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.1))})
    assert described["solver"]["init_args"]["stopping"]["init_args"]["atol"] == 0.1
    path = "implicit_l2o.applications.digits.served.ServedDigits"
    model = build({"class_path": path, "init_args": described})
    assert model.model.solver.stopping.atol == 0.1
