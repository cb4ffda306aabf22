"""The image classifiers: sizes, proofs against dense matrices, the estimate, certificates, and a small experiment."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from torch.utils.data import TensorDataset

import implicit_l2o as il2o
from implicit_l2o.applications.digits import DigitsData
from implicit_l2o.applications.digits.certificates import LatentDistance
from implicit_l2o.applications.images import (
    CIFAR10,
    CIFAR10_AUGMENTED,
    DIGITS,
    MNIST,
    SVHN,
    AbstractArchitecture,
    AbstractContraction,
    Cifar10Data,
    DeepNet,
    Estimated,
    ImageClassifier,
    ImageTask,
    Monotone,
    Proven,
    ResidualNet,
    ShallowNet,
)
from implicit_l2o.applications.images.blocks import LeakyBlock
from implicit_l2o.applications.images.certificates import ChannelDistance
from implicit_l2o.applications.images.estimated import EstimatedLatent
from implicit_l2o.applications.images.monotone import MonotoneConvolution, MonotoneLatent
from implicit_l2o.applications.images.proven import ProvenLatent
from implicit_l2o.data.augmentation import RandomCrop
from implicit_l2o.experiment import ConfigurationError, ExperimentCLI, Options, run
from implicit_l2o.training import AbstractData, Splits, Trained

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
DATA = Path(os.environ.get("IL2O_DATA", Path(__file__).parents[3] / "shared" / "data")) / "cifar10"
SMALL = ShallowNet(side=5, width=4)  # a latent of 100 numbers: exact Jacobians
COLOUR = ResidualNet(side=12, widths=(4, 6))
ODD = DeepNet(side=12, width=3, units=2, blocks=2, padding=1)
KINDS = [Proven(0.9), Estimated(0.9), Monotone(1.0)]
TIGHT = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-11, rtol=0.0, max_steps=3000))


def name(value: object) -> str:
    return type(value).__name__


def classifier(
    architecture: AbstractArchitecture = SMALL,
    contraction: AbstractContraction = KINDS[0],
    *,
    scale: float = 1.0,
    backward: il2o.AbstractBackward | None = None,
) -> ImageClassifier:
    """In float64, solved tightly, its latent weights perturbed: the proofs hold for all weights."""
    model = ImageClassifier(architecture, contraction=contraction, seed=0, solver=TIGHT, backward=backward).double()
    with torch.no_grad():
        for weight in model.R.parameters():
            weight.mul_(scale).add_(0.3 * scale * torch.randn_like(weight))
    return model.eval()


def pictures(count: int, architecture: AbstractArchitecture = SMALL) -> Tensor:
    return torch.rand(count, architecture.colours, architecture.side, architecture.side, dtype=torch.float64)


def dense(T: Any, point: Tensor) -> Tensor:
    """The Jacobian of `T` at one sample, as a matrix."""
    jacobian = torch.autograd.functional.jacobian(T, point)
    assert isinstance(jacobian, Tensor)
    return jacobian.reshape(point.numel(), point.numel())


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contraction", [Proven(0.5), Estimated(0.5)], ids=name)
@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [(MNIST, 35_856), (SVHN, 163_744), (CIFAR10, 163_744), (CIFAR10_AUGMENTED, 843_430)],
)
def test_published_sizes(architecture: AbstractArchitecture, parameters: int, contraction: AbstractContraction) -> None:
    model = ImageClassifier(architecture, contraction=contraction, seed=0).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    images = torch.rand(2, architecture.colours, architecture.side, architecture.side)
    with torch.no_grad():
        inference = model(images)
        side = architecture.latent_side
        assert inference.z is not None
        assert inference.z.shape == (2, architecture.channels, side, side) == model.start(images).shape
        assert inference.x.shape == (2, 10)
        assert model.Q(images).shape == inference.z.shape


@pytest.mark.parametrize("contraction", KINDS, ids=name)
@pytest.mark.parametrize("architecture", [DIGITS, COLOUR, ODD], ids=name)
def test_every_parameter_gets_a_gradient(architecture: AbstractArchitecture, contraction: AbstractContraction) -> None:
    """None is dead, unlike 256 of the published 163,744."""
    model = ImageClassifier(architecture, contraction=contraction, seed=0)
    images = torch.rand(4, architecture.colours, architecture.side, architecture.side)
    F.cross_entropy(model(images).x, torch.arange(4)).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert bool((parameter.grad != 0).any()), key


def test_monotone_network_is_of_similar_size() -> None:
    for architecture in (MNIST, CIFAR10):
        sizes = [
            sum(p.numel() for p in ImageClassifier(architecture, contraction=kind, seed=0).parameters())
            for kind in (Proven(), Monotone())
        ]
        assert 0.99 < sizes[1] / sizes[0] <= 1


@pytest.mark.bad_input
def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latent of at least 3x3; got 2 from side=8"):
        ShallowNet(side=8, pool=4)
    with pytest.raises(ValueError, match=r"mean and std of 1 or 3 colours; got \(0.1, 0.2\)"):
        ShallowNet(mean=(0.1, 0.2), std=(1.0, 1.0))
    with pytest.raises(ValueError, match=r"std > 0; got std=\(0.0,\)"):
        ShallowNet(std=(0.0,))
    with pytest.raises(ValueError, match=r"0 <= dropout < 1; got dropout=1.0"):
        ResidualNet(dropout=1.0)
    with pytest.raises(ValueError, match=r"do not fall; got widths=\(8, 4\)"):
        ResidualNet(widths=(8, 4))
    with pytest.raises(ValueError, match=r"even number of units >= 2, .*got units=3"):
        DeepNet(units=3)
    with pytest.raises(ValueError, match=r"blocks >= 1; got blocks=0"):
        DeepNet(blocks=0)
    for kind in (Proven, Estimated):
        with pytest.raises(ValueError, match=rf"{kind.__name__} needs 0 < gamma < 1; got gamma=1.0"):
            kind(1.0)
    with pytest.raises(ValueError, match=r"probes, rounds >= 1; got probes=0, rounds=2"):
        Estimated(probes=0)
    with pytest.raises(ValueError, match=r"0 < decay <= 1; got decay=0"):
        Estimated(decay=0.0)
    with pytest.raises(ValueError, match=r"0 < margin < inf; got margin=0"):
        Monotone(0.0)
    with pytest.raises(ValueError, match=r"0 <= label_smoothing < 1; got label_smoothing=1"):
        ImageTask(label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"subjects digits, photographs; got subject='cats'"):
        ImageTask(subject="cats")


# --- what is proven --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("contraction", [Proven(0.8), Monotone(0.7)], ids=name)
@pytest.mark.parametrize("architecture", [SMALL, ODD], ids=name)
def test_contraction_is_proven_for_all_weights(
    architecture: AbstractArchitecture, contraction: AbstractContraction, scale: float
) -> None:
    model = classifier(architecture, contraction, scale=scale)
    gamma = model.R.proven_factor()
    assert gamma is not None
    T, start = model.latent_map(pictures(1, architecture)), model.start(pictures(1, architecture))
    worst = max(
        float(torch.linalg.matrix_norm(dense(T, spread * torch.randn_like(start)), ord=2)) for spread in (0.1, 1.0, 9.0)
    )
    assert worst <= gamma < 1
    if scale == 30.0:
        assert worst > 0.2 * gamma  # the bound is not empty


@pytest.mark.parametrize("architecture", [SMALL, ODD], ids=name)
def test_folded_blocks_are_the_formula(architecture: AbstractArchitecture) -> None:
    """`gamma`, the average and `GroupSort` are folded into the weights; values and gradients are those of the formula."""
    model = classifier(architecture, Proven(0.8))
    latent = model.R
    assert isinstance(latent, ProvenLatent)
    injection = torch.randn(2, *model.start(pictures(1, architecture)).shape[1:], dtype=torch.float64)
    u = torch.randn_like(injection, requires_grad=True)
    x = u + injection
    for net in latent.nets:
        x = (x + net(x)) / 2
    folded = latent.condition(injection)(u)
    torch.testing.assert_close(folded, 0.8 * x)
    with torch.no_grad():
        before = u.clone()
        torch.testing.assert_close(latent.condition(injection)(u), 0.8 * x)
        assert torch.equal(u, before)
    inputs = [u, *latent.parameters()]
    for one, other in zip(
        torch.autograd.grad(folded.square().sum(), inputs),
        torch.autograd.grad((0.8 * x).square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("margin", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("scale", [0.05, 0.5, 10.0])
def test_monotone_operator_against_its_matrix(margin: float, scale: float) -> None:
    model = classifier(SMALL, Monotone(margin), scale=scale)
    latent = model.R
    assert isinstance(latent, MonotoneLatent)
    T = model.latent_map(pictures(1))
    assert isinstance(T, il2o.ForwardBackward)
    operator = T.problem.F
    assert isinstance(operator, MonotoneConvolution)
    zero = torch.zeros_like(model.start(pictures(1)))
    matrix = dense(operator.apply, zero)
    symmetric = (matrix + matrix.mT) / 2
    assert float(torch.linalg.eigvalsh(symmetric).min()) >= margin - 1e-9
    assert float(torch.linalg.matrix_norm(matrix, ord=2)) <= operator.lipschitz * (1 + 1e-9)
    beta = operator.cocoercivity
    assert float(torch.linalg.eigvalsh(symmetric - beta * matrix.mT @ matrix).min()) >= -1e-9
    identity = torch.eye(len(matrix), dtype=matrix.dtype)
    for step in (0.3 * beta, beta, 1.9 * beta):
        assert float(torch.linalg.matrix_norm(identity - step * matrix, ord=2)) <= operator.forward_factor(step) <= 1
    # W = I - matrix is that of the paper, with A^T A and a skew part.
    skew = (matrix - matrix.mT) / 2
    gram = symmetric - margin * identity
    assert float(torch.linalg.eigvalsh(gram).min()) >= -1e-9
    assert float(gram.abs().max()) > 0
    assert float(skew.abs().max()) > 0


def test_monotone_equilibrium_solves_the_papers_equation() -> None:
    model = classifier(SMALL, Monotone(1.0))
    images = pictures(3)
    T, z = model.latent_map(images), model(images).z
    assert isinstance(T, il2o.ForwardBackward)
    operator = T.problem.F
    assert isinstance(operator, MonotoneConvolution)
    transposed = F.conv_transpose2d(F.conv2d(z, operator.gram, padding=1), operator.gram, padding=1)
    skew = F.conv2d(z, operator.skew, padding=1)
    torch.testing.assert_close(
        z, (z - operator.margin * z - transposed + skew + operator.injection).relu(), rtol=0, atol=1e-9
    )
    assert bool((z == 0).any())
    assert bool((z > 0).any())


@pytest.mark.parametrize("contraction", KINDS, ids=name)
def test_equilibrium_does_not_depend_on_the_start(contraction: AbstractContraction) -> None:
    model = classifier(SMALL, contraction, scale=0.5)
    T = model.latent_map(pictures(3))
    starts = [model.start(pictures(3)), 5 * torch.randn_like(model.start(pictures(3)))]
    ends = [il2o.fixed_point(T, start, solver=TIGHT).z for start in starts]
    torch.testing.assert_close(ends[0], ends[1], rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("architecture", [SMALL, COLOUR, ODD], ids=name)
def test_readout_bound_holds(architecture: AbstractArchitecture) -> None:
    model = classifier(architecture)
    model.train()
    with torch.no_grad():
        for _ in range(3):  # batch statistics away from 0 and 1
            model.readout(2 + 0.2 * torch.randn(16, *model.start(pictures(1, architecture)).shape[1:]).double())
    model.eval()
    u = torch.randn(1, *model.start(pictures(1, architecture)).shape[1:], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(model.readout, u)
    assert isinstance(jacobian, Tensor)
    norm = float(torch.linalg.matrix_norm(jacobian.reshape(10, -1), ord=2))
    assert 0.05 * model.S.lipschitz() < norm <= model.S.lipschitz()


# --- the estimate ----------------------------------------------------------------------------------------------------


def test_the_estimate_is_the_largest_singular_value_in_the_end() -> None:
    kernels = torch.randn(4, 4, 3, 3).double(), torch.randn(4, 4, 3, 3).double()
    block = LeakyBlock(kernels, (torch.randn(4).double(),) * 2, 0.5, outer=True)
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    found, direction = block.jacobian_norm(x, torch.randn(1, 4, 5, 5, dtype=torch.float64), 500)
    # N = 2 A - I.
    exact = [
        float(torch.linalg.matrix_norm(2 * dense(block, part[None]) - torch.eye(100).double(), ord=2)) for part in x
    ]
    assert float(found) == pytest.approx(max(exact), rel=1e-6)
    early, _ = block.jacobian_norm(x, torch.randn(1, 4, 5, 5, dtype=torch.float64), 1)
    assert float(early) <= max(exact)
    assert float(direction.norm()) == pytest.approx(1.0)


@pytest.mark.parametrize("architecture", [SMALL, ODD], ids=name)
def test_regulated_map_contracts_on_the_data_it_saw(architecture: AbstractArchitecture) -> None:
    model = classifier(architecture, Estimated(0.9, rounds=4), scale=4.0)
    images = pictures(8, architecture)
    injection = model.Q(images).detach()
    for _ in range(60):
        model.R.regulate(injection)
    T = model.latent_map(images)
    z = il2o.fixed_point(T, model.start(images), solver=TIGHT).z.detach()
    norms = [
        float(torch.linalg.matrix_norm(dense(T.restrict(torch.tensor([i])), z[i : i + 1]), ord=2)) for i in range(8)
    ]
    assert max(norms) <= 0.9 * 1.01
    assert max(norms) > 0.3  # nor is it scaled to nothing


def test_a_scaled_block_is_the_scaled_residual() -> None:
    """Both rectifiers are homogeneous, so the scale goes into weights and biases exactly."""
    latent = Estimated(0.9).build(channels=4, side=5, blocks=1)
    assert isinstance(latent, EstimatedLatent)
    latent = latent.double()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    whole = latent.condition(x).blocks[0](x)
    latent.norms = torch.tensor([4.0]).double()
    kept = 0.9 * x / 2
    torch.testing.assert_close(latent.condition(x).blocks[0](x) - kept, (whole - kept) / 4)


def test_evaluation_never_changes_the_scale_and_training_does() -> None:
    model = classifier(SMALL, Estimated(0.9), scale=4.0)
    assert isinstance(model.R, EstimatedLatent)
    for _ in range(30):
        model.R.regulate(model.Q(pictures(4)).detach())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(pictures(4))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.train()
    model(pictures(4))
    assert not torch.equal(model.R.norms, before["R.norms"])


def test_two_forward_passes_before_a_backward_pass() -> None:
    """The scale is replaced, not overwritten: the first graph is as it was."""
    model = ImageClassifier(SMALL, contraction=Estimated(0.9), seed=0)
    first, second = (model(torch.rand(4, 1, 5, 5)).x.sum() for _ in range(2))
    first.backward()
    second.backward()


# --- solves and gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contraction", KINDS, ids=name)
@pytest.mark.parametrize("architecture", [SMALL, COLOUR], ids=name)
def test_batch_mates_change_nothing(architecture: AbstractArchitecture, contraction: AbstractContraction) -> None:
    model, images = classifier(architecture, contraction, scale=0.5), pictures(5, architecture)
    with torch.no_grad():
        together = model(images).x
        alone = torch.cat([model(part).x for part in images.split(1)])
        T, some = model.latent_map(images), torch.tensor([3, 1])
        u = torch.randn_like(model.start(images))
        torch.testing.assert_close(T.restrict(some)(u[some]), T(u)[some], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("contraction", KINDS, ids=name)
def test_implicit_is_the_gradient_and_jfb_descends(contraction: AbstractContraction) -> None:
    def gradient(backward: il2o.AbstractBackward) -> Tensor:
        torch.manual_seed(0)
        model = classifier(SMALL, contraction, scale=0.3, backward=backward)
        F.cross_entropy(model(pictures(6)).x, torch.arange(6)).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    exact = gradient(il2o.Implicit(il2o.GMRES(rtol=1e-12)))
    torch.testing.assert_close(gradient(il2o.Unrolled(400)), exact, rtol=1e-6, atol=1e-9)
    jfb = gradient(il2o.JFB())
    assert F.cosine_similarity(jfb, exact, dim=0) > 0.5
    assert not torch.allclose(jfb, exact, rtol=1e-2)


def test_bytes_are_intensities() -> None:
    model = ImageClassifier(COLOUR, seed=0).eval()
    stored = torch.randint(0, 256, (3, 3, 12, 12), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(model(stored).x, model(stored / 255).x)


# --- training and certificates ---------------------------------------------------------------------------------------


def test_augmentation_and_smoothing_touch_training_alone() -> None:
    task = ImageTask(augmentation=[RandomCrop(2)], label_smoothing=0.2)
    batch = [torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8), torch.arange(50) % 10]
    moved, labels = task.train().on_after_batch_transfer(batch, 0)
    assert moved.dtype == torch.float32
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    assert not torch.equal(moved, batch[0] / 255)
    assert labels is batch[1]
    logits = torch.randn(50, 10)
    smoothed = task.loss(il2o.Inference(x=logits), batch)
    plain = F.cross_entropy(logits, batch[1])
    # The smoothed target is 0.8 of the label and 0.02 of each class.
    torch.testing.assert_close(smoothed, 0.8 * plain - 0.2 * logits.log_softmax(1).mean(1).mean())
    task.eval()
    assert task.on_after_batch_transfer(batch, 0)[0] is batch[0]
    torch.testing.assert_close(task.loss(il2o.Inference(x=logits), batch), plain)


def test_proofs_and_estimates_are_called_by_their_names() -> None:
    names = {
        kind: [certificate.measure.name for certificate in ImageTask(contraction=kind).eval().certificates()]
        for kind in KINDS
    }
    for kind in (KINDS[0], KINDS[2]):
        assert names[kind] == ["distance to the fixed point (bound)", "solve error / label margin"]
    assert names[KINDS[1]] == ["distance to the fixed point (estimate)"]


def test_channel_distance_ignores_places() -> None:
    labels = torch.arange(200) % 10
    latents = torch.randn(200, 4, 3, 3) + labels[:, None, None, None]
    fitted = LatentDistance.fit(latents.mean((2, 3)), labels)
    measure = ChannelDistance(fitted.whitening, fitted.means)
    moved = latents.flatten(2)[:, :, torch.randperm(9)].reshape(latents.shape)
    logits = torch.eye(10)[labels]
    one, other = (measure(il2o.Inference(x=logits, z=z)) for z in (latents, moved))
    torch.testing.assert_close(one, other)
    far = measure(il2o.Inference(x=logits, z=latents + torch.tensor([5.0, -5.0, 5.0, -5.0])[:, None, None]))
    assert bool((far > one).all())
    with pytest.raises(ValueError, match="needs the latent equilibrium"):
        measure(il2o.Inference(x=logits))


class FewImages(AbstractData):
    """400 training and 100 validation images: seconds, not minutes."""

    def load(self) -> Splits:
        whole = DigitsData(seed=0).splits
        return Splits(
            TensorDataset(*whole.train[:400]), TensorDataset(*whole.validation[:100]), TensorDataset(*whole.test[:200])
        )


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of a run of the small experiment on few images, and its results."""
    settings = yaml.safe_load((EXPERIMENTS / "images.yaml").read_text())
    settings["data"] = {"class_path": f"{__name__}.FewImages", "init_args": {"batch_size": 32}}
    settings["trainer"]["max_epochs"] = 5
    for baseline in settings["baselines"].values():
        if "task" in baseline.get("init_args", {}):
            baseline["init_args"]["epochs"] = 5
    place = tmp_path_factory.mktemp("images")
    (place / "images.yaml").write_text(yaml.safe_dump(settings))
    threads = torch.get_num_threads()
    folder, [results] = run(Options(config=[place / "images.yaml"], folder=place / "run", progress=False))
    yield folder.path, results
    torch.set_num_threads(threads)
    os.environ.pop("PL_GLOBAL_SEED", None)


def test_small_experiment_learns(outcome: tuple[Path, dict[str, Any]]) -> None:
    folder, results = outcome
    assert results["status"] == "complete"
    test = results["test"]
    assert set(test) == {"model", "constant", "estimated", "monotone", "explicit", "logistic_regression"}
    for method in ("model", "estimated", "monotone", "explicit", "logistic_regression"):
        assert test[method]["accuracy"] > 0.75
    assert results["certificates"]["distance to the fixed point (bound)"]["PASS"] == 200
    assert [figure["title"] for figure in results["figures"]] == [
        "Images and certificates",
        "What the certificates catch",
    ]
    assert all("<svg" in (folder / figure["file"]).read_text() for figure in results["figures"])
    json.dumps(results, allow_nan=False)


@pytest.mark.parametrize(
    ("experiment", "parameters"), [("svhn", 163_744), ("cifar10", 163_744), ("cifar10_augmented", 843_430)]
)
def test_the_large_experiments_are_those_of_the_paper(experiment: str, parameters: int, tmp_path: Path) -> None:
    path = EXPERIMENTS / f"{experiment}.yaml"
    task = ExperimentCLI([f"--config={path}"]).model
    assert isinstance(task, ImageTask)
    assert sum(parameter.numel() for parameter in task.parameters()) == parameters
    with pytest.raises(ConfigurationError, match=r"data\.init_args\.folder: .*train-00000-of-00001\.parquet"):
        ExperimentCLI([f"--config={path}", f"--data.init_args.folder={tmp_path}", f"--folder={tmp_path}"]).check()


def test_the_explicit_twin_applies_the_latent_map_once() -> None:
    explicit = ExperimentCLI([f"--config={EXPERIMENTS / 'images.yaml'}"]).baselines["explicit"]
    assert isinstance(explicit, Trained)
    task = explicit.task.eval()
    assert isinstance(task, ImageTask)
    images = torch.rand(3, 1, 8, 8)
    expected = task.network.readout(task.network.latent_map(images)(task.network.start(images)))
    torch.testing.assert_close(task.infer(images).x, expected)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no CIFAR-10 in {DATA} (IL2O_DATA names another folder)")
def test_cifar10_has_its_splits() -> None:
    splits = Cifar10Data(folder=str(DATA), seed=0).splits
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [45_000, 5_000, 10_000]
    images, labels = splits.validation.tensors
    assert images.dtype == torch.uint8
    assert images.shape == (5_000, 3, 32, 32)
    assert torch.bincount(labels).tolist() == [500] * 10
