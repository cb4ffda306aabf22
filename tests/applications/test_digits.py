"""The digits network: its proofs against measurements, its certificates, and a small run from end to end."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

import implicit_l2o as il2o
from implicit_l2o.applications import digits
from implicit_l2o.applications.digits import __main__ as command
from implicit_l2o.applications.digits import experiment as experiments
from implicit_l2o.applications.digits import task as tasks
from implicit_l2o.applications.digits.baselines import constant_accuracy, explicit_twin, logistic_regression_accuracy
from implicit_l2o.applications.digits.certificates import (
    Doubt,
    ErrorOverMargin,
    LatentDistance,
    digit_certificates,
    inference_of,
)
from implicit_l2o.applications.digits.experiment import Outcome, Settings, experiment, step_memory, summary
from implicit_l2o.applications.digits.model import DIGITS, Architecture, ImplicitClassifier
from implicit_l2o.applications.digits.task import (
    ImagesData,
    Recipe,
    Splits,
    accuracy,
    digits_splits,
    predict,
    random_shift,
    train,
)

QUICK = Settings(Architecture(pool=2), Recipe(epochs=6, batch_size=32))  # a quarter of the work
SMALL = Architecture(side=5, channels=4, pool=1, contraction=0.9)  # a latent of 100 numbers: exact Jacobians


@pytest.fixture(scope="module")
def splits() -> Splits:
    """400 training and 100 validation images: seconds, not minutes."""
    whole = digits_splits(0)
    return Splits(
        TensorDataset(*whole.train[:400]), TensorDataset(*whole.validation[:100]), TensorDataset(*whole.test[:200])
    )


@pytest.fixture(scope="module")
def outcome(splits: Splits) -> Outcome:
    return experiment(splits, 0, QUICK, progress=False)


@pytest.fixture(scope="module")
def trained(outcome: Outcome) -> ImplicitClassifier:
    return outcome.trained["jfb"].model


def small(*, scale: float = 1.0, backward: il2o.AbstractBackward | None = None) -> ImplicitClassifier:
    """In float64, solved tightly, its latent weights scaled: the proofs hold for all weights."""
    tight = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-11, rtol=0.0, max_steps=2000))
    model = ImplicitClassifier(SMALL, seed=0, solver=tight, backward=backward).double().eval()
    with torch.no_grad():
        for weight in model.R.parameters():
            weight.mul_(scale).add_(0.3 * scale * torch.randn_like(weight))
    return model


def images(count: int) -> Tensor:
    return torch.rand(count, 1, SMALL.side, SMALL.side, dtype=torch.float64)


# --- the proofs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_contraction_is_proven_for_all_weights(scale: float) -> None:
    model = small(scale=scale)
    latent_map = model.latent_map(images(1))
    shape = latent_map.injection.shape
    for spread in (0.1, 1.0, 10.0):
        point = spread * torch.randn(shape, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(latent_map, point)
        assert isinstance(jacobian, Tensor)
        size = point.numel()
        measured = torch.linalg.matrix_norm(jacobian.reshape(size, size), ord=2)
        assert measured <= SMALL.contraction
    if scale == 30.0:
        assert measured > 0.3 * SMALL.contraction  # the bound is not empty: the layers are scaled to norm 1


def test_equilibrium_does_not_depend_on_the_start() -> None:
    latent_map = small(scale=3.0).latent_map(images(3))
    tight = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-12, rtol=0.0, max_steps=2000))
    starts = [torch.zeros_like(latent_map.injection), 50 * torch.randn_like(latent_map.injection)]
    ends = [il2o.fixed_point(latent_map, start, solver=tight).z for start in starts]
    torch.testing.assert_close(ends[0], ends[1], rtol=0.0, atol=1e-10)


def test_banach_bound_holds_where_the_solve_stops_early(trained: ImplicitClassifier, splits: Splits) -> None:
    inputs = splits.test.tensors[0][:50]
    exact_solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-5, rtol=0.0, max_steps=500))
    with torch.no_grad():
        latent_map = trained.latent_map(inputs)
        start = torch.zeros_like(latent_map.injection)
        exact = il2o.fixed_point(latent_map, start, solver=exact_solver).z
        for tolerance in (1.0, 0.1, 1e-2):
            loose = il2o.KrasnoselskiiMann(il2o.Stopping(atol=tolerance, rtol=0.0, check_every=1))
            point = il2o.fixed_point(latent_map, start, solver=loose)
            bound = il2o.BanachBound(DIGITS.contraction)(il2o.Inference.of(point))
            distance = (point.z - exact).flatten(1).norm(dim=1)
            assert bool((distance <= bound + 1e-4).all())


def test_readout_bound_holds(trained: ImplicitClassifier) -> None:
    bound = trained.readout_lipschitz()
    with torch.no_grad():
        sizes = trained.architecture
        u = torch.randn(64, sizes.channels, sizes.latent_side, sizes.latent_side)
        w = u + 0.01 * torch.randn_like(u)
        change = (trained.readout(u) - trained.readout(w)).norm(dim=1)
    assert bool((change <= bound * (u - w).flatten(1).norm(dim=1)).all())


def test_label_below_the_margin_is_that_of_the_equilibrium(trained: ImplicitClassifier, splits: Splits) -> None:
    inputs = torch.cat([splits.test.tensors[0], torch.rand(200, 1, 8, 8)])
    measure = ErrorOverMargin(DIGITS.contraction, trained.readout_lipschitz())
    exact = predict(with_tolerance(trained, 1e-4), inputs).labels
    proven = changed = 0
    for tolerance in (3.0, 0.3, 0.03):
        rough = predict(with_tolerance(trained, tolerance), inputs)
        certain = measure(inference_of(rough)) < 1
        assert torch.equal(rough.labels[certain], exact[certain])
        proven, changed = proven + int(certain.sum()), changed + int((rough.labels != exact).sum())
    assert proven > 100
    assert changed > 0  # stopping early does change labels, only none that was proven


def with_tolerance(model: ImplicitClassifier, tolerance: float) -> ImplicitClassifier:
    stopping = il2o.Stopping(atol=tolerance, rtol=0.0, max_steps=500, check_every=1)
    other = ImplicitClassifier(model.architecture, seed=0, solver=il2o.KrasnoselskiiMann(stopping))
    other.load_state_dict(model.state_dict())
    return other.eval()


# --- the gradients ---------------------------------------------------------------------------------------------------


def gradient(backward: il2o.AbstractBackward) -> Tensor:
    torch.manual_seed(0)
    model = small(backward=backward)
    inputs, labels = images(6), torch.arange(6)
    F.cross_entropy(model(inputs).logits, labels).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_implicit_is_the_gradient_and_jfb_descends() -> None:
    exact = gradient(il2o.Implicit(il2o.GMRES(rtol=1e-12)))
    torch.testing.assert_close(gradient(il2o.Unrolled(400)), exact, rtol=1e-6, atol=1e-10)
    jfb = gradient(il2o.JFB())
    assert F.cosine_similarity(jfb, exact, dim=0) > 0.5
    assert not torch.allclose(jfb, exact, rtol=1e-2)  # it is not the gradient


# --- inference -------------------------------------------------------------------------------------------------------


def test_batch_mates_change_nothing() -> None:
    model = small()
    inputs = images(5)
    with torch.no_grad():
        together = model(inputs).logits
        alone = torch.cat([model(part).logits for part in inputs.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_an_image_with_nan_fails_alone(trained: ImplicitClassifier, splits: Splits) -> None:
    inputs = splits.test.tensors[0][:4].clone()
    healthy = predict(trained, inputs)
    inputs[2, 0, 3, 3] = math.nan
    with pytest.warns(il2o.ConvergenceWarning, match="NONFINITE"):
        broken = predict(trained, inputs)
    others = [0, 1, 3]
    assert broken.status[2] == il2o.Status.NONFINITE
    torch.testing.assert_close(broken.logits[others], healthy.logits[others])
    certificate = il2o.Certificate(Doubt(), il2o.Threshold(1.0))
    report = il2o.certify([certificate], inference_of(broken))
    assert report.worst[2] == il2o.Label.FAIL
    assert bool(report.trusted[others].all())


def test_explicit_twin_applies_the_latent_map_once() -> None:
    twin = explicit_twin(DIGITS, seed=0).eval()
    inputs = torch.rand(3, 1, 8, 8)
    latent_map = twin.latent_map(inputs)
    expected = twin.readout(latent_map(torch.zeros_like(latent_map.injection)))
    torch.testing.assert_close(twin(inputs).logits, expected)


@pytest.mark.bad_input
def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"side // pool >= 3; got side=8, pool=3"):
        Architecture(side=8, pool=3)
    with pytest.raises(ValueError, match=r"0 < contraction < 1; got contraction=1.0"):
        Architecture(contraction=1.0)


# --- certificates ----------------------------------------------------------------------------------------------------


def test_latent_distance_is_mahalanobis() -> None:
    labels = torch.arange(60) % 10
    latents = torch.randn(60, 2, 3, 3) + labels[:, None, None, None]
    measure = LatentDistance.fit(latents, labels, shrinkage=0.2)
    flat, classes = latents.flatten(1).double().numpy(), labels.numpy()
    means = np.stack([flat[classes == c].mean(0) for c in range(10)])
    covariance = np.cov((flat - means[classes]).T, bias=True)
    covariance = 0.8 * covariance + 0.2 * np.trace(covariance) / 18 * np.eye(18)
    new = torch.randn(5, 2, 3, 3)
    difference = new.flatten(1).double().numpy() - means[[4, 4, 0, 9, 1]]
    expected = np.sqrt(np.einsum("bi,ij,bj->b", difference, np.linalg.inv(covariance), difference))
    found = measure(il2o.Inference(x=torch.eye(10)[[4, 4, 0, 9, 1]], z=new))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


@pytest.mark.bad_input
def test_latent_distance_refuses_what_it_cannot_fit() -> None:
    latents, labels = torch.randn(20, 3), torch.arange(20) % 10
    with pytest.raises(ValueError, match=r"0 < shrinkage <= 1; got shrinkage=0"):
        LatentDistance.fit(latents, labels, shrinkage=0)
    with pytest.raises(ValueError, match=r"images of every class; none of \[7\]"):
        LatentDistance.fit(latents, torch.where(labels == 7, 1, labels))
    with pytest.raises(ValueError, match="needs the latent equilibrium"):
        LatentDistance.fit(latents, labels)(il2o.Inference(x=torch.eye(10)))


def test_doubt_is_accurate_near_zero() -> None:
    logits = torch.tensor([[20.0, 0.0, 0.0]])
    expected = 2 * math.exp(-20) / (1 + 2 * math.exp(-20))
    assert float(Doubt()(il2o.Inference(x=logits))) == pytest.approx(expected, rel=1e-3)


def test_certificates_fail_strangers_and_few_digits(outcome: Outcome, splits: Splits) -> None:
    numbers = summary(outcome)
    for kind in ("noise", "inverted", "shuffled"):
        assert numbers["flagged"][kind] > 0.9
    # 2 % by each of two calibrated properties, from 100 calibration values and 200 test images.
    assert numbers["flagged"]["test"] < 0.12
    model = outcome.trained["jfb"].model
    seen, unseen = predict(model, splits.train.tensors[0]), predict(model, splits.validation.tensors[0])
    certificates = digit_certificates(model, seen, splits.train.tensors[1], unseen)
    counts = il2o.certify(certificates, inference_of(unseen)).counts()
    assert counts["doubt"] == {il2o.Label.PASS: 95, il2o.Label.WARN: 3, il2o.Label.FAIL: 2}
    assert counts["latent distance"] == {il2o.Label.PASS: 95, il2o.Label.WARN: 3, il2o.Label.FAIL: 2}
    assert counts["distance to the fixed point (bound)"][il2o.Label.PASS] == 100


# --- data and training -----------------------------------------------------------------------------------------------


def test_splits_are_disjoint_stratified_and_drawn_by_the_seed() -> None:
    first, again, other = digits_splits(1), digits_splits(1), digits_splits(2)
    parts = [first.train, first.validation, first.test]
    assert sum(len(part) for part in parts) == 1797
    pictures = [{image.numpy().tobytes() for image in part.tensors[0]} for part in parts]
    assert len(set.union(*pictures)) == sum(len(p) for p in pictures)
    assert int(torch.bincount(first.test.tensors[1]).min()) >= 28
    assert torch.equal(first.test.tensors[0], again.test.tensors[0])
    assert not torch.equal(first.test.tensors[0], other.test.tensors[0])


def test_random_shift_moves_and_fills() -> None:
    pictures = torch.rand(200, 1, 6, 6)
    moved = random_shift(pictures, 1, torch.Generator().manual_seed(0))
    padded = F.pad(pictures, (1, 1, 1, 1))
    windows = torch.stack([padded[:, :, i : i + 6, j : j + 6] for i in range(3) for j in range(3)])
    same = (windows == moved).flatten(2).all(-1)
    assert bool((same.sum(0) == 1).all())  # each is one of the nine shifts
    assert bool((same.sum(1) > 5).all())  # and every shift occurs
    assert torch.equal(random_shift(pictures, 0, torch.Generator()), pictures)


def test_training_repeats_and_leaves_the_random_state_alone(splits: Splits) -> None:
    few = Splits(TensorDataset(*splits.train[:128]), splits.validation, splits.test)
    states = []
    for _ in range(2):
        before = torch.get_rng_state()
        model = ImplicitClassifier(seed=3)
        task = train(model, few, Recipe(epochs=2), seed=3)
        assert torch.equal(torch.get_rng_state(), before)
        assert len(task.seconds) == len(task.history) == 2
        assert not model.training
        states.append(model.state_dict())
        torch.rand(5)
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_all_modes_see_the_same_batches(splits: Splits) -> None:
    orders = [torch.cat([labels for _, labels in ImagesData(splits, batch_size=64, seed=5).train_dataloader()])]
    orders.append(torch.cat([labels for _, labels in ImagesData(splits, batch_size=64, seed=5).train_dataloader()]))
    assert torch.equal(*orders)
    assert not torch.equal(orders[0], splits.train.tensors[1])


def test_baselines(splits: Splits) -> None:
    assert logistic_regression_accuracy(splits) > 0.85
    labels = splits.test.tensors[1]
    most_frequent = int(torch.bincount(splits.train.tensors[1]).argmax())
    assert constant_accuracy(splits) == pytest.approx(float((labels == most_frequent).double().mean()))


# --- the whole run ---------------------------------------------------------------------------------------------------


def test_small_experiment_learns(outcome: Outcome, splits: Splits) -> None:
    numbers = summary(outcome)
    for mode in ("jfb", "implicit", "explicit"):
        assert numbers[f"accuracy_{mode}"] > 0.75
        assert numbers[f"accuracy_{mode}"] == accuracy(outcome.trained[mode].model, splits.test)
        assert numbers[f"seconds_per_epoch_{mode}"] > 0
    assert numbers["accuracy_trusted"] >= numbers["accuracy_jfb"]
    assert numbers["parameters"] == sum(p.numel() for p in outcome.trained["implicit"].model.parameters())
    assert sum(numbers["certificates"]["doubt"].values()) == 200


def test_memory_of_jfb_does_not_grow_with_the_steps(splits: Splits) -> None:
    batch = splits.train[:64]

    def memory(backward: il2o.AbstractBackward, steps: int) -> int:
        exactly = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=steps))
        return step_memory(ImplicitClassifier(seed=0, solver=exactly, backward=backward), *batch)

    assert memory(il2o.JFB(), 40) == memory(il2o.JFB(), 10)
    assert memory(il2o.JFB(), 10) < memory(il2o.Implicit(), 10)
    growth = memory(il2o.Unrolled(40), 1) - memory(il2o.Unrolled(10), 1)
    latent = 64 * 8 * 8 * 8 * 4  # bytes
    assert growth >= 30 * 2 * latent


@pytest.fixture
def quick(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch on few images, whatever the seed."""
    few = Splits(TensorDataset(*splits.train[:200]), splits.validation, TensorDataset(*splits.test[:60]))
    brief = Settings(QUICK.architecture, Recipe(epochs=1))
    monkeypatch.setattr(tasks, "digits_splits", lambda seed: few)
    monkeypatch.setattr(command, "digits_splits", lambda seed: few)
    monkeypatch.setattr(experiments, "Settings", lambda: brief)


def test_run_gives_numbers_and_figures(quick: None, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    result = digits.run(tmp_path / "new" / "folder", 0, False)
    promised = {"accuracy", "seconds_per_epoch", "peak_memory"}
    assert {f"{name}_{mode}" for name in promised for mode in ("jfb", "implicit")} <= set(result)
    assert {"parameters", "certificates", "figures"} <= set(result)
    json.dumps(result, allow_nan=False)
    for path in map(Path, result["figures"]):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.parent == tmp_path / "new" / "folder"
    assert len(result["figures"]) == 3
    assert capfd.readouterr() == ("", "")


def test_command_writes_a_record(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "deep" / "digits.json"
    command.main(["--seeds", "7", "--epochs", "1", "--backward", "jfb", "--quiet", "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["seeds"] == [7]
    assert record["settings"]["recipe"]["epochs"] == 1
    assert record["mean_and_half_width"]["accuracy_jfb"] == [record["accuracy_jfb"][0], None]
    assert "accuracy_implicit" not in record
    assert "test accuracy" in capsys.readouterr().out


def test_interval_over_seeds(outcome: Outcome) -> None:
    numbers = command.over_seeds([outcome, outcome, outcome])
    assert numbers["accuracy_jfb"] == [outcome.trained["jfb"].test_accuracy] * 3
    assert command.intervals({"x": [1.0, 2.0, 3.0]})["x"] == pytest.approx([2.0, 4.303 / 3**0.5], rel=1e-3)


@pytest.mark.parametrize(
    "options", [["--epochs", "0"], ["--epochs", "many"], ["--backward", "adjoint"], ["--sedes", "1"]]
)
def test_command_refuses(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as error:
        command.main([*options, "--out", str(tmp_path / "x.json")])
    assert error.value.code == 2
    assert options[-1] in capsys.readouterr().err
