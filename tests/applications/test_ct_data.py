"""CT: the splits, the fresh training pairs, the metrics against their definitions, what a sinogram has to be."""

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import nn

import implicit_l2o as il2o
from implicit_l2o.applications.ct.base import ReconstructionTask, scanner
from implicit_l2o.applications.ct.data import EllipseData, LodopabData, random_symmetry
from implicit_l2o.applications.ct.metrics import image_metrics, psnr, ssim
from implicit_l2o.physics import PerBeamNoise
from implicit_l2o.training import Optimization, fit, quiet

SMALL: dict[str, Any] = {"size": 16, "angles": 6, "train": 12, "validation": 4, "test": 5, "batch_size": 4}


class BackProjection(ReconstructionTask):
    """One learned number times the back projection."""

    def __init__(self) -> None:
        model = nn.Linear(1, 1, bias=False)
        super().__init__(model, size=16, angles=6, optimization=Optimization(learning_rate=0.1))
        self.seen = []

    def infer(self, d):
        self.check_sinogram(d)
        if self.training:
            self.seen.append(d)
        return il2o.Inference(x=self.model(self.projector.adjoint(d)[..., None])[..., 0], data=d)


def test_the_splits_follow_from_the_seed_and_share_no_phantom():
    first, again, other = (EllipseData(**SMALL, seed=seed).splits for seed in (3, 3, 4))
    for name in ("train", "validation", "test"):
        d, x = getattr(first, name).tensors
        assert len(x) == SMALL[name]
        assert torch.equal(d, getattr(again, name).tensors[0])
        assert not torch.equal(d, getattr(other, name).tensors[0])
        assert x.min() >= 0
        assert x.max() <= 1
    images = torch.cat([part.tensors[1] for part in (first.train, first.validation, first.test)])
    assert len(images.unique(dim=0)) == len(images)


def test_the_noise_has_the_level_that_is_asked_for():
    d, x = EllipseData(**dict(SMALL, train=200), noise=PerBeamNoise(0.03), seed=0).splits.train.tensors
    clean = scanner(16, 6).apply(x)
    seen = clean > 1e-3
    assert ((d - clean) / clean)[seen].std() == pytest.approx(0.03, rel=0.05)
    exact, same = EllipseData(**SMALL, noiseless=True, seed=0).splits.test.tensors
    assert torch.equal(exact, scanner(16, 6).apply(same))


def test_the_finer_grid_measures_nearly_but_not_exactly_the_same():
    options: dict[str, Any] = {
        "size": 64,
        "angles": 6,
        "train": 3,
        "validation": 1,
        "test": 4,
        "seed": 0,
        "noiseless": True,
    }
    crime, honest = (EllipseData(**options, avoid_inverse_crime=avoid) for avoid in (False, True))
    d, x = crime.splits.test.tensors
    other, same, fine = honest.splits.test.tensors
    assert torch.equal(x, same)
    assert fine.shape[-1] == 128
    assert 1e-3 < (d - other).norm() / d.norm() < 0.1
    fresh, turned, _ = honest.fresh(*honest.splits.train.tensors[1:])
    clean = scanner(64, 6).apply(turned)
    assert 1e-3 < (fresh - clean).norm() / clean.norm() < 0.1


def test_slices_of_lodopab_become_splits(tmp_path):
    h5py = pytest.importorskip("h5py")
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 3), ("validation", 2), ("test", 2)):
        with h5py.File(tmp_path / f"ground_truth_{part}_000.hdf5", "w") as file:
            file["data"] = torch.rand(count, 362, 362, generator=generator).numpy()
    counts: dict[str, Any] = {"train": 3, "validation": 2, "test": 2}
    data = LodopabData(folder=str(tmp_path), size=16, angles=6, **counts, seed=0, noiseless=True)
    d, x = data.splits.test.tensors
    assert x.shape == (2, 1, 16, 16)
    assert torch.equal(d, scanner(16, 6).apply(x))
    finer = LodopabData(folder=str(tmp_path), size=16, angles=6, **counts, seed=0, avoid_inverse_crime=True)
    assert finer.splits.test.tensors[2].shape == (2, 1, 32, 32)
    with pytest.raises(FileNotFoundError, match="ground_truth_train"):
        _ = LodopabData(folder=str(tmp_path / "none"), size=16, angles=6, **counts).splits


def test_training_pairs_are_fresh_in_every_step_and_reproducible():
    data = EllipseData(**SMALL, seed=0)

    def seen() -> list:
        task = BackProjection()
        torch.manual_seed(7)
        fit(task, data, epochs=2, progress=False)
        return task.seen

    first, again = seen(), seen()
    stored = data.splits.train.tensors[0]
    assert len(first) == 6
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any((d == row).all() for batch in first for d in batch for row in stored)
    assert torch.equal(EllipseData(**SMALL, seed=0).splits.validation.tensors[0], data.splits.validation.tensors[0])


def test_stored_pairs_are_kept_on_request():
    data, task = EllipseData(**SMALL, fresh_noise=False, symmetries=False, seed=0), BackProjection()
    fit(task, data, epochs=1, progress=False)
    stored = {tuple(row.flatten().tolist()) for row in data.splits.train.tensors[0]}
    assert {tuple(row.flatten().tolist()) for batch in task.seen for row in batch} == stored


def test_a_fresh_pair_belongs_together():
    data = EllipseData(**SMALL, noiseless=True, seed=0)
    d, x = data.fresh(data.splits.train.tensors[1])
    assert torch.equal(d, scanner(16, 6).apply(x))


@given(seed=st.integers(0, 100))
def test_symmetries_are_those_of_the_square(seed):
    torch.manual_seed(seed)
    x = torch.rand(40, 1, 3, 3)
    (turned,) = random_symmetry(x)
    eight = [y.rot90(k, (-2, -1)) for y in (x, x.flip(-1)) for k in range(4)]
    matches = torch.stack([(y == turned).flatten(1).all(1) for y in eight])
    assert (matches.sum(0) == 1).all()
    assert len(matches.double().argmax(0).unique()) >= 6


@given(seed=st.integers(0, 100), cut=st.integers(1, 4))
def test_metrics_are_means_over_images_whatever_the_batches(seed, cut):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, 5, 1, 16, 16, generator=generator)
    for name, each in {"PSNR": psnr(x, y), "SSIM": ssim(x, y)}.items():
        metric = image_metrics()[name]
        metric.update(x[:cut], y[:cut])
        metric.update(x[cut:], y[cut:])
        assert metric.higher_is_better
        torch.testing.assert_close(metric.compute(), each.mean())
    torch.testing.assert_close(psnr(x, y), -10 * (x - y).square().mean((1, 2, 3)).log10())


def test_ssim_is_scikit_images():
    skimage = pytest.importorskip("skimage.metrics")
    x = torch.rand(3, 1, 32, 40)
    y = x + 0.1 * torch.randn_like(x)
    expected = [
        skimage.structural_similarity(a[0].numpy(), b[0].numpy(), data_range=1.0, use_sample_covariance=False)
        for a, b in zip(x, y, strict=True)
    ]
    torch.testing.assert_close(ssim(x, y).double(), torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=0)


def test_the_task_trains_and_draws():
    task, data = BackProjection(), EllipseData(**SMALL, seed=0)
    training = fit(task, data, epochs=3, progress=False)
    assert training.history[-1]["val/loss"] < training.history[0]["val/loss"]
    d, x = data.splits.test.tensors
    with torch.no_grad():
        inference = task.infer(d)
    torch.testing.assert_close(task.error(inference, (d, x)), (inference.x - x).square().mean((1, 2, 3)))
    for sample in ({"inputs": d[0], "answer": inference.x[0], "target": x[0]}, {"inputs": d[0], "answer": x[0]}):
        figure = Figure()
        task.draw(figure, sample)
        titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
        assert len(titles) == len(sample) + ("target" in sample)
        assert ("dB" in "".join(titles)) == ("target" in sample)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("d", "message"),
    [
        (torch.zeros(2, 6, 9), "6 angles, .* bins"),
        (torch.zeros(6, 25), "got shape"),
        (torch.full((1, *scanner(16, 6).out_shape), float("nan")), "sample 0 has NaN"),
    ],
)
def test_wrong_sinograms_are_refused(d, message):
    with pytest.raises(ValueError, match=message):
        BackProjection().infer(d)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"test": 0}, "test=0"),
        ({"fresh_noise": False}, "symmetries"),
        ({"noise": PerBeamNoise(0.1), "noiseless": True}, "one of noise and noiseless"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_wrong_data_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        EllipseData(**dict(SMALL, **wrong))


def test_validation_pairs_are_always_the_same():
    data, task = EllipseData(**SMALL, seed=0), BackProjection().eval()
    with quiet():
        trainer = pl.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
        first, again = (trainer.validate(task, datamodule=data, verbose=False) for _ in range(2))
    assert first == again
