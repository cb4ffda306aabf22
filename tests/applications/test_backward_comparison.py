"""The comparison of backward modes on images: what has to be equal is, what is on file stays, and the figures are right."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import implicit_l2o as il2o
from implicit_l2o.applications.images.backward_comparison import __main__ as command
from implicit_l2o.applications.images.backward_comparison import training
from implicit_l2o.applications.images.backward_comparison.modes import (
    EXPLICIT,
    REFERENCE,
    Explicit,
    Watched,
    backward_modes,
)
from implicit_l2o.applications.images.backward_comparison.probe import hypotheses, probe, step_bytes
from implicit_l2o.applications.images.backward_comparison.setting import Setting
from implicit_l2o.applications.images.backward_comparison.summary import summarize
from implicit_l2o.applications.images.backward_comparison.torchdeq_mode import TorchDEQ, missing

needs_torchdeq = pytest.mark.skipif(find_spec("torchdeq") is None, reason="TorchDEQ is not installed")
EXACT = (REFERENCE, "Unrolled")
SMALL = Setting(train=60, validation=40, test=30, epochs=1, batch_size=30, probe=2)


@pytest.fixture
def no_theorem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dense matrices take seconds."""
    monkeypatch.setattr(training, "hypotheses", lambda *_: None)


def run(mode: il2o.AbstractBackward, seed: int = 0) -> dict[str, Any]:
    return training.train(SMALL, mode, seed, SMALL.splits(seed, None))


@pytest.mark.usefixtures("no_theorem")
def test_a_training_depends_on_seed_and_gradient_alone() -> None:
    first, again = run(il2o.JFB()), run(il2o.JFB())
    for name in ("train_loss", "validation_loss", "latent_cosine", "steps", "peak_bytes"):
        assert first["epochs"][0][name] == again["epochs"][0][name]
    # Two ways to the same exact gradient differ by the tolerance of their solves, another gradient by more.
    exact = [
        run(il2o.Implicit(solver(rtol=1e-6)))["epochs"][0]["validation_loss"] for solver in (il2o.GMRES, il2o.NormalCG)
    ]
    assert exact[0] == pytest.approx(exact[1], rel=1e-4)
    assert abs(exact[0] - first["epochs"][0]["validation_loss"]) > 1e-4 * exact[0]
    assert run(il2o.JFB(), seed=1)["epochs"][0]["train_loss"] != first["epochs"][0]["train_loss"]


@pytest.mark.usefixtures("no_theorem")
def test_an_epoch_says_how_its_solves_went() -> None:
    record = run(il2o.Implicit(il2o.GMRES(rtol=1e-4)))["epochs"][0]
    assert record["unsolved"] == record["adjoint_unsolved"] == 0.0
    assert 1 < record["steps"] <= SMALL.max_steps
    assert record["adjoint_steps"] > 1
    assert 0 < record["residual"] <= record["residual_max"] <= SMALL.tolerance
    assert 0 < record["solve_processor"] <= record["forward_processor"]
    assert record["backward_processor"] > 0


def test_the_explicit_twin_has_no_equilibrium_to_look_for() -> None:
    found = run(Explicit())
    record = found["epochs"][0]
    assert (record["steps"], record["unsolved"], record["slope"], record["latent_cosine"]) == (1.0, 0.0, None, None)
    network = SMALL.network(0, Watched(Explicit()))
    images, labels = SMALL.splits(0, None)[1]
    with torch.no_grad():
        once, mapped = network.eval()(images), network.latent_map(images)(network.start(images))
    torch.testing.assert_close(once.z, mapped)
    assert training._evaluate(network, (images, labels), "test")["test_loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(once.x, labels))
    )
    assert isinstance(network.backward, Watched)  # as it was
    rows = summarize({EXPLICIT: {"0": found}, REFERENCE: {"0": run(il2o.JFB())}})
    assert (rows[EXPLICIT]["slope"], rows[EXPLICIT]["minus_implicit"]["seeds"]) == (None, 1)


def test_the_splits_share_no_image_and_change_with_the_seed() -> None:
    seen = []
    for seed in (0, 1):
        parts = [images.flatten(1) for images, _ in Setting().splits(seed, None)]
        assert [len(part) for part in parts] == [1197, 300, 300]
        rows = torch.cat(parts)
        assert len(rows) == 1797
        seen.append(rows)
    assert not torch.equal(*seen)
    assert torch.equal(*(rows.sum(0) for rows in seen))  # the same images in another order


def test_the_probe_finds_the_angle_where_it_is() -> None:
    network = SMALL.network(0)
    images, labels = SMALL.splits(0, None)[1]
    modes = backward_modes(rtol=1e-8, unrolled=400)
    found = {name: probe(network, modes[name], images[:2], labels[:2]) for name in ("JFB", "Neumann(5)", *EXACT)}
    for exact in EXACT:
        assert found[exact]["latent_cosine"] == pytest.approx(1.0, abs=1e-6)
        assert found[exact]["latent_norm_ratio"] == pytest.approx(1.0, abs=1e-4)
    assert found["JFB"]["latent_cosine"] < found["Neumann(5)"]["latent_cosine"] < 1 - 1e-6
    assert found["JFB"]["latent_cosine"] < found["JFB"]["cosine"]  # the readout's gradient is exact in every mode
    assert 0 < found["JFB"]["slope"] <= 0.9  # the proven factor
    assert found["JFB"]["rate"] <= 0.9 + 1e-6
    assert network.training
    assert network.backward is None


def test_peak_memory_is_flat_for_jfb_and_grows_by_unrolling() -> None:
    images, labels = SMALL.splits(0, None)[0]
    sizes = [step_bytes(SMALL.network(0, mode), images[:10], labels[:10]) for mode in
             (il2o.JFB(), il2o.Unrolled(20), il2o.Unrolled(40))]  # fmt: skip
    assert sizes[0] < sizes[1] < sizes[2]
    layer = SMALL.network(0, Watched(il2o.JFB()))
    assert step_bytes(layer, images[:10], labels[:10]) == sizes[0]


def test_the_theorem_is_judged_where_its_matrix_fits() -> None:
    network = Setting(data="mnist").network(0)
    assert hypotheses(network, torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.int64)) is None


def of(accuracy: float, cosine: float | None = 0.5) -> dict[str, Any]:
    """A run of two epochs, the second twice as long."""
    epoch = {
        "peak_bytes": 10,
        "steps": 3.0,
        "adjoint_steps": None,
        "unsolved": 0.0,
        "slope": 0.4,
        "latent_cosine": cosine,
        "validation_accuracy": accuracy,
    }
    clocks = {f"{part}_{clock}": 1.0 for part in ("forward", "backward", "step") for clock in ("wall", "processor")}
    return {"epochs": [epoch | clocks, epoch | dict.fromkeys(clocks, 2.0)], "test_accuracy": accuracy}


def test_differences_are_paired_by_the_seed() -> None:
    runs = {
        "JFB": {"0": of(0.90), "1": of(0.95), "2": of(0.80)},
        REFERENCE: {"0": of(0.89), "1": of(0.93), "7": of(0.1)},
        "Neumann(1)": {"5": of(0.5, None)},
        "Unrolled": {},
    }
    rows = summarize(runs)
    assert list(rows) == ["JFB", REFERENCE, "Neumann(1)"]
    difference = rows["JFB"]["minus_implicit"]
    # Differences .01 and .02: mean .015, and Student's quantile 12.706 at one degree of freedom times .005.
    assert difference["mean"] == pytest.approx(0.015)
    assert difference["half"] == pytest.approx(12.706 * 0.005, rel=1e-4)
    assert difference["seeds"] == 2
    assert difference["contains_zero"]
    assert rows[REFERENCE]["minus_implicit"] is None
    assert rows["Neumann(1)"]["minus_implicit"] is None
    assert rows["Neumann(1)"]["latent_cosine"] is None
    assert rows["JFB"]["seconds"] == pytest.approx(4.5)  # of 3 and 6
    assert rows["JFB"]["test_accuracy"]["mean"] == pytest.approx(0.95 - 0.2 / 3)


class TestTheCommand:
    """What is on file is not trained again, and a file of another setting is left alone."""

    def options(self, out: Path, *more: str) -> list[str]:
        return ["--train", "40", "--validation", "20", "--test", "20", "--epochs", "1", "--probe", "1", "--seeds", "0",
                "--out", str(out), *more]  # fmt: skip

    @pytest.fixture
    def trained(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
        """The trainings asked for; they are not done."""
        asked: list[tuple[str, int]] = []

        def train(setting: Setting, mode: il2o.AbstractBackward, seed: int, splits: Any) -> dict[str, Any]:
            asked.append((type(mode).__name__, seed))
            return of(0.5)

        monkeypatch.setattr(command, "train", train)
        return asked

    def test_it_completes_what_is_missing(self, tmp_path: Path, trained: list[tuple[str, int]]) -> None:
        assert command.main(self.options(tmp_path, "--modes", "JFB")) == 0
        assert trained == [("JFB", 0)]
        assert command.main([*self.options(tmp_path), "--seeds", "0", "1", "--modes", "JFB", "Neumann(1)"]) == 0
        assert trained == [("JFB", 0), ("Neumann", 0), ("JFB", 1), ("Neumann", 1)]
        record = json.loads((tmp_path / "jfb_digits.json").read_text())
        assert list(record["runs"]) == ["JFB", "Neumann(1)"]
        assert record["setting"]["gamma"] == 0.9
        assert record["sizes"] == [40, 20, 20]

    def test_another_setting_is_refused(self, tmp_path: Path, trained: list[tuple[str, int]], capsys: Any) -> None:
        assert command.main(self.options(tmp_path, "--modes", "JFB")) == 0
        before = (tmp_path / "jfb_digits.json").read_bytes()
        assert command.main(self.options(tmp_path, "--modes", "JFB", "--gamma", "0.5")) == 2
        assert "gamma: 0.9 on file, 0.5 asked for" in capsys.readouterr().err
        assert (tmp_path / "jfb_digits.json").read_bytes() == before

    def test_an_unknown_mode_is_named(self, tmp_path: Path, capsys: Any) -> None:
        assert command.main(self.options(tmp_path, "--modes", "BPTT")) == 2
        assert "got ['BPTT']" in capsys.readouterr().err

    def test_torchdeq_is_absent_with_its_reason(
        self, tmp_path: Path, trained: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(command, "absent", lambda name: "not here" if "TorchDEQ" in name else None)
        assert command.main(self.options(tmp_path, "--modes", "JFB", "TorchDEQ, implicit")) == 0
        record = json.loads((tmp_path / "jfb_digits.json").read_text())
        assert record["absent"] == {"TorchDEQ, implicit": "not here"}
        assert trained == [("JFB", 0)]

    def test_no_folder_of_anybody_stands_in_the_record(self, tmp_path: Path, trained: list[tuple[str, int]]) -> None:
        assert command.main([*self.options(tmp_path), "--folder", "/home/me/data", "--modes", "JFB"]) == 0
        kept = json.loads((tmp_path / "jfb_digits.json").read_text())["command"]
        assert "/home/me" not in kept
        assert kept.endswith("--modes JFB")

    def test_the_figures_are_drawn(self, tmp_path: Path, trained: list[tuple[str, int]]) -> None:
        assert command.main(self.options(tmp_path, "--modes", "JFB", "--figures", str(tmp_path))) == 0
        for name in ("accuracy", "gradient"):
            assert (tmp_path / f"jfb_digits_{name}.svg").read_text().startswith("<?xml")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [({"data": "imagenet"}, "data must be one of .*got 'imagenet'"), ({"epochs": 0}, "epochs >= 1; got epochs=0")],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Setting(**options)


@needs_torchdeq
class TestTorchDEQ:
    """The peer's modes are the library's by another hand."""

    def gradient(self, backward: il2o.AbstractBackward) -> torch.Tensor:
        W = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        W = 0.6 * W / torch.linalg.matrix_norm(W, 2)
        b = torch.ones(2, 5, dtype=torch.float64, requires_grad=True)
        solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-12, 0.0, 500))
        point = il2o.fixed_point(lambda z: z @ W + b, torch.zeros_like(b), solver=solver, backward=backward)
        assert point.converged.all()
        assert (point.residual <= 1e-12).all()
        (point.z * torch.linspace(-1, 1, 5, dtype=torch.float64)).sum().backward()
        assert b.grad is not None
        return b.grad

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            (TorchDEQ(), il2o.JFB()),
            (TorchDEQ(steps=4), il2o.Neumann(3)),
            (TorchDEQ(implicit=True, rtol=1e-12), il2o.Implicit(il2o.GMRES(rtol=1e-12))),
        ],
    )
    def test_same_gradient(self, theirs: TorchDEQ, ours: il2o.AbstractBackward) -> None:
        torch.testing.assert_close(self.gradient(theirs), self.gradient(ours), rtol=1e-8, atol=1e-10)


def test_the_reason_of_an_absent_torchdeq_says_how_to_get_it() -> None:
    reason = missing()
    assert (reason is None) == (find_spec("torchdeq") is not None)
    assert reason is None or "pip install" in reason
