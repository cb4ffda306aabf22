"""Noise models: their standard deviations, seeds and refusals."""

import math

import pytest
import torch

from implicit_l2o.physics import PerBeamNoise, PoissonNoise, WhiteNoise, line_integrals

MODELS = (PerBeamNoise(0.1), WhiteNoise(0.1), PoissonNoise(100))


@pytest.mark.parametrize("noise", MODELS, ids=lambda noise: type(noise).__name__)
def test_a_seed_is_a_draw(noise) -> None:
    d = torch.rand(2, 30, 43)
    first, again = (noise(d, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, noise(d, torch.Generator().manual_seed(4)))
    torch.manual_seed(5)
    unseeded = noise(d)
    torch.manual_seed(5)
    assert torch.equal(unseeded, noise(d))
    assert first.dtype == d.dtype


def test_per_beam() -> None:
    d = torch.tensor([[[0.0, 1.0, 10.0]]]).expand(1, 20000, 3)
    error = PerBeamNoise(0.015)(d, torch.Generator().manual_seed(0)) - d
    torch.testing.assert_close(error.std((0, 1)), torch.tensor([0.0, 0.015, 0.15]), rtol=0.02, atol=0)


def test_white() -> None:
    d = torch.rand(3, 30, 43) * torch.tensor([1.0, 10.0, 0.0])[:, None, None]
    error = WhiteNoise(0.2)(d, torch.Generator().manual_seed(0)) - d
    torch.testing.assert_close(error.flatten(1).norm(dim=1), 0.2 * d.flatten(1).norm(dim=1))


def test_poisson() -> None:
    """The variance of `-log N` is `exp(p) / photons` to first order."""
    d = torch.full((1, 200, 200), 2.0)
    noisy = PoissonNoise(4096, scale=0.5)(d, torch.Generator().manual_seed(0))
    assert noisy.mean().item() == pytest.approx(2.0, abs=1e-3)
    assert noisy.std().item() == pytest.approx(2 * math.sqrt(math.e / 4096), rel=0.02)
    assert torch.isfinite(PoissonNoise(1)(torch.full((1, 5, 5), 50.0))).all()  # no photon at all


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PerBeamNoise(-0.1), "level >= 0; got level=-0.1"),
        (lambda: WhiteNoise(math.nan), "level >= 0; got level=nan"),
        (lambda: PoissonNoise(-5), "photons > 0; got photons=-5"),
        (lambda: PoissonNoise(math.nan), "photons > 0; got photons=nan"),
        (lambda: PoissonNoise(5, scale=0.0), "scale > 0"),
        (lambda: line_integrals(torch.tensor([[[1.0, -2.0]]]), 10), r">= 0; got -2.0 \(1 bad\)"),
        (lambda: line_integrals(torch.tensor([[[1.0, math.nan]]]), 10), "finite and >= 0; got nan"),
        (lambda: line_integrals(torch.tensor([[[1.0]]]), 0), "photons > 0; got photons=0"),
        *((lambda noise=noise: noise(torch.full((1, 2, 2), math.nan)), "finite sinogram; got nan") for noise in MODELS),
    ],
)
def test_bad_input(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
