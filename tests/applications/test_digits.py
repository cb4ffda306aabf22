"""The digits network: its proofs against measurements, its certificates, and a small experiment from end to end."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from torch.utils.data import TensorDataset

import implicit_l2o as il2o
from implicit_l2o.applications.digits import DigitsData, DigitsTask, LogisticRegression, MnistData
from implicit_l2o.applications.digits.certificates import Doubt, ErrorOverMargin, LatentDistance
from implicit_l2o.applications.digits.examined import strangers
from implicit_l2o.applications.digits.metrics import CrossEntropy
from implicit_l2o.applications.digits.model import DIGITS, Architecture, ImplicitClassifier
from implicit_l2o.applications.digits.task import random_shift
from implicit_l2o.experiment import ConfigurationError, ExperimentCLI, Options, run
from implicit_l2o.experiment.evaluate import score
from implicit_l2o.training import AbstractData, Constant, Splits, Trained, fit, step_memory

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
DATA = Path(os.environ.get("IL2O_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mnist"
SMALL = Architecture(side=5, channels=4, pool=1, contraction=0.9)  # a latent of 100 numbers: exact Jacobians


class FewDigits(AbstractData):
    """400 training and 100 validation images: seconds, not minutes."""

    def load(self) -> Splits:
        whole = DigitsData(seed=0).splits
        return Splits(
            TensorDataset(*whole.train[:400]), TensorDataset(*whole.validation[:100]), TensorDataset(*whole.test[:200])
        )


@pytest.fixture(scope="module")
def data() -> FewDigits:
    return FewDigits(batch_size=32)


@pytest.fixture(scope="module")
def splits(data: FewDigits) -> Splits:
    return data.splits


def quick(epochs: int) -> dict[str, Any]:
    """The experiment of the package on few images, with a quarter of the latent."""
    settings = yaml.safe_load((EXPERIMENTS / "digits.yaml").read_text())
    settings["data"] = {"class_path": f"{__name__}.FewDigits", "init_args": {"batch_size": 32}}
    settings["trainer"]["max_epochs"] = epochs
    settings["model"]["init_args"]["architecture"]["pool"] = 2
    for baseline in settings["baselines"].values():
        if "task" in baseline.get("init_args", {}):
            baseline["init_args"]["epochs"] = epochs
            baseline["init_args"]["task"]["init_args"]["architecture"]["pool"] = 2
    return settings


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of a run, and its results."""
    place = tmp_path_factory.mktemp("digits")
    (place / "digits.yaml").write_text(yaml.safe_dump(quick(6)))
    threads = torch.get_num_threads()
    folder, [results] = run(Options(config=[place / "digits.yaml"], folder=place / "run", progress=False))
    yield folder.path, results
    torch.set_num_threads(threads)
    os.environ.pop("PL_GLOBAL_SEED", None)


@pytest.fixture(scope="module")
def task(data: FewDigits) -> DigitsTask:
    """Trained, its measures fitted."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task = DigitsTask()
        fit(task, data, epochs=6, progress=False)
    task.fit_measures(data.splits)
    return task


@pytest.fixture(scope="module")
def trained(task: DigitsTask) -> ImplicitClassifier:
    return task.network


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


@torch.no_grad()
def infer(model: ImplicitClassifier, inputs: Tensor) -> il2o.Inference:
    return model(inputs)


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
    exact = infer(with_tolerance(trained, 1e-4), inputs).x.argmax(1)
    proven = changed = 0
    for tolerance in (3.0, 0.3, 0.03):
        rough = infer(with_tolerance(trained, tolerance), inputs)
        labels = rough.x.argmax(1)
        certain = measure(rough) < 1
        assert torch.equal(labels[certain], exact[certain])
        proven, changed = proven + int(certain.sum()), changed + int((labels != exact).sum())
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
    F.cross_entropy(model(inputs).x, labels).backward()
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
        together = model(inputs).x
        alone = torch.cat([model(part).x for part in inputs.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_an_image_with_nan_fails_alone(trained: ImplicitClassifier, splits: Splits) -> None:
    inputs = splits.test.tensors[0][:4].clone()
    healthy = infer(trained, inputs)
    inputs[2, 0, 3, 3] = math.nan
    with pytest.warns(il2o.ConvergenceWarning, match="NONFINITE"):
        broken = infer(trained, inputs)
    others = [0, 1, 3]
    assert broken.status is not None
    assert broken.status[2] == il2o.Status.NONFINITE
    torch.testing.assert_close(broken.x[others], healthy.x[others])
    certificate = il2o.Certificate(Doubt(), il2o.Threshold(1.0))
    report = il2o.certify([certificate], broken)
    assert report.worst[2] == il2o.Label.FAIL
    assert bool(report.trusted[others].all())


@pytest.mark.bad_input
def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"side // pool >= 3; got side=8, pool=3"):
        Architecture(side=8, pool=3)
    with pytest.raises(ValueError, match=r"0 < contraction < 1; got contraction=1.0"):
        Architecture(contraction=1.0)
    with pytest.raises(ValueError, match=r"shift >= 0; got shift=-1"):
        DigitsTask(shift=-1)


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


def test_certificates_fail_strangers_and_few_digits(outcome: tuple[Path, dict[str, Any]]) -> None:
    folder, results = outcome
    extra = results["extra"]
    for kind in ("noise", "inverted", "shuffled"):
        assert extra["flagged"][kind] > 0.9
    # 2 % by each of two calibrated properties, from 100 calibration values and 200 test images.
    assert extra["flagged"]["test"] < 0.12
    rules = json.loads((folder / "certificates.json").read_text())["rules"]
    for name in ("doubt", "latent distance"):
        assert len(rules[name]["values"]) == 100  # the validation images
        assert [rules[name][p] for p in ("p_pass", "p_warn", "p_fail")] == [0.95, 0.03, 0.02]
    assert rules["distance to the fixed point (bound)"]["limit"] == pytest.approx(1e-2 / (1 - DIGITS.contraction))
    assert rules["solve error / label margin"]["limit"] == 1.0
    assert results["certificates"]["distance to the fixed point (bound)"]["PASS"] == 200


def test_calibrated_shares_on_the_calibration_images(task: DigitsTask, splits: Splits) -> None:
    with torch.no_grad():
        unseen = task.infer(splits.validation.tensors[0])
    certificates = il2o.calibrate(task.measures(), unseen, p_pass=0.95, p_warn=0.03, p_fail=0.02)
    for counts in il2o.certify(certificates, unseen).counts().values():
        assert counts == {il2o.Label.PASS: 95, il2o.Label.WARN: 3, il2o.Label.FAIL: 2}


def test_fitted_measures_travel_with_the_weights(task: DigitsTask, splits: Splits) -> None:
    other = DigitsTask().eval()
    other.load_state_dict(task.state_dict())
    inputs = splits.test.tensors[0][:20]
    with torch.no_grad():
        for one, again in zip(task.measures(), other.measures(), strict=True):
            assert torch.equal(one(task.infer(inputs)), again(other.infer(inputs)))


def test_strangers_are_made_of_the_digits(splits: Splits) -> None:
    digits = splits.test.tensors[0][:5]
    made = strangers(digits)
    for name in ("rotated", "shuffled"):
        torch.testing.assert_close(made[name].flatten(1).sort().values, digits.flatten(1).sort().values)
        assert not torch.equal(made[name], digits)
    assert torch.equal(made["inverted"] + digits, torch.ones_like(digits))
    assert all(float(part.min()) >= 0 and float(part.max()) <= 1 for part in made.values())
    assert torch.equal(made["noise"], strangers(digits)["noise"])


# --- data and training -----------------------------------------------------------------------------------------------


def test_splits_are_disjoint_stratified_and_drawn_by_the_seed() -> None:
    first, again, other = (DigitsData(seed=seed).splits for seed in (1, 1, 2))
    parts = [first.train, first.validation, first.test]
    assert sum(len(part) for part in parts) == 1797
    pictures = [{image.numpy().tobytes() for image in part.tensors[0]} for part in parts]
    assert len(set.union(*pictures)) == sum(len(p) for p in pictures)
    assert int(torch.bincount(first.test.tensors[1]).min()) >= 28
    assert torch.equal(first.test.tensors[0], again.test.tensors[0])
    assert not torch.equal(first.test.tensors[0], other.test.tensors[0])


def test_a_folder_without_mnist_is_refused_before_any_training(tmp_path: Path) -> None:
    config = [f"--config={EXPERIMENTS / 'mnist.yaml'}", f"--data.init_args.folder={tmp_path}"]
    with pytest.raises(ConfigurationError, match=r"data\.init_args\.folder: .*train-00000-of-00001\.parquet"):
        ExperimentCLI([*config, f"--folder={tmp_path / 'run'}"]).check_data()


def test_a_broken_mnist_file_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(OSError, match="not a readable parquet file") as error:
        MnistData(folder=str(tmp_path)).prepare_data()
    assert error.value.filename == str(tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no MNIST in {DATA} (IL2O_DATA names another folder)")
def test_mnist_has_its_splits_and_the_papers_size() -> None:
    data = MnistData(folder=str(DATA), seed=0)
    splits = data.splits
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [55_000, 5_000, 10_000]
    assert splits.train.tensors[0].shape[1:] == (1, 28, 28)
    assert int(torch.bincount(splits.validation.tensors[1]).min()) > 400  # stratified
    experiment = ExperimentCLI([f"--config={EXPERIMENTS / 'mnist.yaml'}", f"--data.init_args.folder={DATA}"])
    task = experiment.model
    assert isinstance(task, DigitsTask)
    assert sum(parameter.numel() for parameter in task.parameters()) == 35_856
    with torch.no_grad():
        assert task.eval().infer(splits.test.tensors[0][:3]).x.shape == (3, 10)


def test_random_shift_moves_and_fills() -> None:
    pictures = torch.rand(200, 1, 6, 6)
    moved = random_shift(pictures, 1)
    padded = F.pad(pictures, (1, 1, 1, 1))
    windows = torch.stack([padded[:, :, i : i + 6, j : j + 6] for i in range(3) for j in range(3)])
    same = (windows == moved).flatten(2).all(-1)
    assert bool((same.sum(0) == 1).all())  # each is one of the nine shifts
    assert bool((same.sum(1) > 5).all())  # and every shift occurs
    assert torch.equal(random_shift(pictures, 0), pictures)


def test_only_training_images_are_moved() -> None:
    task = DigitsTask(shift=2)
    batch = [torch.rand(50, 1, 8, 8), torch.zeros(50, dtype=torch.int64)]
    moved, labels = task.train().on_after_batch_transfer(batch, 0)
    assert not torch.equal(moved, batch[0])
    assert labels is batch[1]
    assert task.eval().on_after_batch_transfer(batch, 0)[0] is batch[0]


def test_training_repeats() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        task = DigitsTask()
        training = fit(task, FewDigits(batch_size=64, seed=3), epochs=2, progress=False)
        assert len(training.seconds) == len(training.history) == 2
        assert not task.training
        states.append(task.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_variants_begin_with_the_same_weights_of_the_runs_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_rng_state()
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    jfb, exact = DigitsTask(), DigitsTask(backward=il2o.Implicit())
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    other = DigitsTask()
    assert torch.equal(torch.get_rng_state(), before)
    for one, again in zip(jfb.parameters(), exact.parameters(), strict=True):
        assert torch.equal(one, again)
    assert not torch.equal(jfb.network.S_linear.weight, other.network.S_linear.weight)


def test_all_modes_see_the_same_batches(splits: Splits) -> None:
    orders = [
        torch.cat([labels for _, labels in FewDigits(batch_size=64, seed=seed).train_dataloader()])
        for seed in (5, 5, 6)
    ]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], splits.train.tensors[1])


def test_logistic_regression_and_the_constant(task: DigitsTask, data: FewDigits) -> None:
    scores = {}
    for name, baseline in {"logistic": LogisticRegression(C=[0.1, 1.0]), "constant": Constant()}.items():
        baseline.prepare(task, data, name=name, progress=False)
        scores[name] = score(task, baseline.infer, data.splits.test, batch_size=64)
    assert scores["logistic"]["accuracy"] > 0.85
    labels = data.splits.test.tensors[1]
    frequency = torch.bincount(data.splits.train.tensors[1]).double() / 400
    share = float((labels == frequency.argmax()).double().mean())
    assert scores["constant"]["accuracy"] == pytest.approx(share)
    assert scores["constant"]["cross-entropy"] == pytest.approx(-float(frequency[labels].log().mean()), rel=1e-5)


@pytest.mark.bad_input
def test_logistic_regression_refuses() -> None:
    with pytest.raises(ValueError, match=r"positive C to choose from; got C=\[1.0, -1.0\]"):
        LogisticRegression(C=[1.0, -1.0])
    with pytest.raises(ValueError, match=r"max_iter >= 1; got max_iter=0"):
        LogisticRegression(max_iter=0)


def test_cross_entropy_is_a_mean_over_samples() -> None:
    metric, logits, labels = CrossEntropy(), torch.randn(7, 10), torch.arange(7)
    metric.update(logits[:5], labels[:5])
    metric.update(logits[5:], labels[5:])
    torch.testing.assert_close(metric.compute(), F.cross_entropy(logits, labels))


# --- the experiment --------------------------------------------------------------------------------------------------


def test_the_explicit_baseline_applies_the_latent_map_once() -> None:
    experiment = ExperimentCLI([f"--config={EXPERIMENTS / 'digits.yaml'}"])
    explicit = experiment.baselines["explicit"]
    assert isinstance(explicit, Trained)
    task = explicit.task.eval()
    assert isinstance(task, DigitsTask)
    inputs = torch.rand(3, 1, 8, 8)
    latent_map = task.network.latent_map(inputs)
    expected = task.network.readout(latent_map(torch.zeros_like(latent_map.injection)))
    inference = task.infer(inputs)
    torch.testing.assert_close(inference.x, expected)
    assert inference.steps is not None
    assert inference.steps.tolist() == [1, 1, 1]


def test_small_experiment_learns(outcome: tuple[Path, dict[str, Any]]) -> None:
    folder, results = outcome
    assert results["status"] == "complete"
    test = results["test"]
    assert set(test) == {"model", "constant", "implicit_gradient", "explicit", "logistic_regression"}
    for name in ("model", "implicit_gradient", "explicit", "logistic_regression"):
        assert test[name]["accuracy"] > 0.75
    arrays = np.load(folder / "predictions.npz")
    assert test["model"]["accuracy"] == pytest.approx(float((arrays["answer"] == arrays["target"]).mean()))
    assert test["model"]["cross-entropy"] == pytest.approx(float(arrays["error"].mean()), rel=1e-5)
    assert results["extra"]["accuracy_trusted"] >= test["model"]["accuracy"]
    parameters = sum(p.numel() for p in ImplicitClassifier(Architecture(pool=2), seed=0).parameters())
    for numbers in (results, results["training"]["implicit_gradient"], results["training"]["explicit"]):
        assert numbers["parameters"] == parameters
        assert numbers["seconds_per_epoch"] > 0
        assert numbers["peak_memory"] > 0
    assert sum(results["certificates"]["doubt"].values()) == 200
    json.dumps(results, allow_nan=False)


def test_the_experiment_draws(outcome: tuple[Path, dict[str, Any]]) -> None:
    folder, results = outcome
    assert [figure["title"] for figure in results["figures"]] == [
        "Images and certificates",
        "What the certificates catch",
    ]
    assert [example["kind"] for example in results["examples"]] == ["best", "median", "worst"]
    for entry in (*results["figures"], *({"file": example["figure"]} for example in results["examples"])):
        assert "<svg" in (folder / entry["file"]).read_text()


def test_a_baseline_of_the_same_configuration_trains_to_the_same_weights(tmp_path: Path) -> None:
    """So the baselines differ from the model by what their configuration says: weights, batches and noise are the same."""
    settings = quick(2)
    settings["baselines"] = {
        "again": {"class_path": "implicit_l2o.training.Trained", "init_args": {"epochs": 2, "task": settings["model"]}}
    }
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(settings))
    threads = torch.get_num_threads()
    _, [results] = run(Options(config=[tmp_path / "digits.yaml"], seeds=[3], folder=tmp_path / "run", progress=False))
    torch.set_num_threads(threads)
    os.environ.pop("PL_GLOBAL_SEED", None)
    assert results["test"]["again"] == pytest.approx(results["test"]["model"], rel=1e-6)


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(ConfigurationError, match="shfit"):
        ExperimentCLI([f"--config={EXPERIMENTS / 'digits.yaml'}", "--model.init_args.shfit=2"])


def test_memory_of_jfb_does_not_grow_with_the_steps(splits: Splits) -> None:
    data = FewDigits(batch_size=64)

    def memory(backward: il2o.AbstractBackward, steps: int) -> int:
        exactly = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=steps))
        return step_memory(DigitsTask(solver=exactly, backward=backward), data)

    assert memory(il2o.JFB(), 40) == memory(il2o.JFB(), 10)
    assert memory(il2o.JFB(), 10) < memory(il2o.Implicit(), 10)
    growth = memory(il2o.Unrolled(40), 1) - memory(il2o.Unrolled(10), 1)
    latent = 64 * 8 * 8 * 8 * 4  # bytes
    assert growth >= 30 * 2 * latent
