"""The implicit reconstructions: what is proven of the regularisers, an independent splitting, exact gradients."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct import (
    AveragedNetwork,
    ConvexPotential,
    FreeNetwork,
    ImplicitReconstructionTask,
)
from implicit_l2o.applications.ct.model import ImplicitReconstruction
from implicit_l2o.applications.ct.regularisers import AbstractRegulariser
from implicit_l2o.applications.ct.ridges import FilterBank, differences, transposed
from implicit_l2o.physics import Geometry, Projector
from implicit_l2o.training import write_checkpoint

SIZE, SHAPE = 16, (16, 16)
TIERS = [ConvexPotential, AveragedNetwork, FreeNetwork]


@pytest.fixture(scope="module")
def projector() -> Projector:
    return Projector(Geometry.uniform(SIZE, angles=8), dtype=torch.float64)


def images(count: int, *, seed: int = 0) -> Tensor:
    """Smooth blobs with an edge, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(count, 1, 4, 4, generator=generator, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(rough, size=SHAPE, mode="bilinear")
    return (smooth - 0.3).clamp(0, 1)


def stirred(regulariser: AbstractRegulariser, *, seed: int = 0) -> AbstractRegulariser:
    """Weights away from their start, so that nothing holds by initialisation alone."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in regulariser.parameters():
            parameter += 0.3 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    return regulariser.double()


def reconstruction(
    projector: Projector, regulariser: AbstractRegulariser, *, delta: float = 0.02, tolerance: float = 1e-8
) -> ImplicitReconstruction:
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=tolerance, max_steps=20_000))
    return ImplicitReconstruction(projector, regulariser, delta=delta, solver=solver).double()


def measured(projector: Projector, x: Tensor) -> Tensor:
    clean = projector.apply(x)
    return clean * (1 + 0.02 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype))


def conditioned(regulariser: AbstractRegulariser, proposal: Tensor, *, seed: int = 0) -> il2o.AbstractMonotone:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(len(proposal), regulariser.maps, *SHAPE, generator=generator, dtype=proposal.dtype)
    return regulariser.condition(proposal, maps)


@pytest.mark.parametrize("tier", [ConvexPotential, AveragedNetwork])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_proven_regularisers_have_the_constants_that_they_state(tier: type[AbstractRegulariser], seed: int) -> None:
    torch.manual_seed(seed)
    regulariser = stirred(tier(SHAPE), seed=seed)
    assert regulariser.proven
    F = conditioned(regulariser, images(4, seed=seed), seed=seed)
    x = torch.randn(4, 1, *SHAPE, dtype=torch.float64)
    for size in (1e-3, 0.1, 10.0):
        step = size * torch.randn_like(x)
        change = F.apply(x + step) - F.apply(x)
        product, length = (change * step).flatten(1).sum(1), change.flatten(1).norm(dim=1)
        assert F.cocoercivity is not None
        assert F.lipschitz is not None
        assert bool((product >= F.cocoercivity * length.square() * (1 - 1e-9)).all())
        assert bool((length <= F.lipschitz * step.flatten(1).norm(dim=1)).all())


def test_filters_are_bounded_and_see_no_constant() -> None:
    torch.manual_seed(0)
    ridges = FilterBank(SHAPE, filters=6)(torch.ones(1, 6, 1, 1))
    x, kernels = torch.randn(1, 1, *SHAPE, dtype=torch.float64), ridges.kernels.detach().double()
    for _ in range(200):
        x = transposed(torch.nn.functional.conv2d(x, kernels, padding="same"), kernels)
        size = x.norm()
        x = x / size
    assert float(size) <= 1 + 1e-6  # the filters are rounded to single precision
    assert float(size) > 0.8  # the bound is no more than it has to be
    inner = torch.nn.functional.conv2d(torch.ones(1, 1, *SHAPE), ridges.kernels)
    torch.testing.assert_close(inner, torch.zeros_like(inner), atol=1e-6, rtol=0)


def test_the_transpose_is_that_of_the_convolution() -> None:
    torch.manual_seed(0)
    kernels = torch.randn(5, 1, 5, 5, dtype=torch.float64)
    x, y = torch.randn(2, 1, *SHAPE, dtype=torch.float64), torch.randn(2, 5, *SHAPE, dtype=torch.float64)
    forth = (torch.nn.functional.conv2d(x, kernels, padding="same") * y).sum()
    torch.testing.assert_close(forth, (transposed(y, kernels) * x).sum())


@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_transpose_is_the_same_with_a_gradient_and_without(size: int) -> None:
    kernels = torch.randn(4, 1, size, size, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 4, 7, 6, dtype=torch.float64)
    recorded = transposed(y, kernels)
    with torch.no_grad():
        plain = transposed(y, kernels)
    assert recorded.requires_grad
    torch.testing.assert_close(plain, recorded.detach())
    torch.testing.assert_close(plain, torch.conv_transpose2d(y, kernels.detach(), padding=size // 2))


def test_the_gradient_of_ridges_is_that_of_their_value() -> None:
    torch.manual_seed(0)
    cost = differences(threshold=0.05, shape=SHAPE, dtype=torch.float64)
    x = images(2).requires_grad_()
    (slope,) = torch.autograd.grad(cost.value(x).sum(), x)
    torch.testing.assert_close(cost.apply(x), slope)


@pytest.mark.parametrize("tier", TIERS)
def test_answers_keep_the_box_and_the_ball(tier: type[AbstractRegulariser], projector: Projector) -> None:
    torch.manual_seed(0)
    model = reconstruction(projector, tier(SHAPE).double())
    x = images(3)
    d = measured(projector, x)
    with torch.no_grad():
        inference = model(d)
    assert inference.status is not None
    assert inference.status.tolist() == [il2o.Status.CONVERGED] * 3
    assert bool(((inference.x >= 0) & (inference.x <= 1)).all())
    misfit = (projector.apply(inference.x) - d).flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1)
    assert float(misfit.max()) <= 0.02 * (1 + 1e-4)


def test_condat_vu_finds_the_same_image(projector: Projector) -> None:
    """Another splitting, with the projector in its dual step and no graph: the same unique minimiser."""
    torch.manual_seed(0)
    regulariser = stirred(ConvexPotential(SHAPE))
    model = reconstruction(projector, regulariser, tolerance=1e-9)
    d = measured(projector, images(2))
    with torch.no_grad():
        x, z = model.first(d)
        F = model.condition(d, x)
        ours = model.solve(d, F, z).x
        radius = 0.02 * d.flatten(1).norm(dim=1)
        problem = il2o.Problem(F=F, g=il2o.Box(0.0, 1.0), K=projector, l=il2o.L2Ball(radius, center=d))
        solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-9, rtol=0.0, max_steps=100_000))
        theirs = il2o.solve(il2o.CondatVu(problem, dual_step=0.05), x, solver=solver).x
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_implicit_gradient_is_exact_for_radius_filters_weights_and_proposal(projector: Projector) -> None:
    """Central differences through the whole solve in double precision, at 16x16 and 8 angles."""
    torch.manual_seed(0)
    regulariser = ConvexPotential(SHAPE, filters=4, kernel_size=3).double()
    model = reconstruction(projector, regulariser, tolerance=1e-12)
    model.backward = il2o.Implicit()
    x = images(1)
    d = measured(projector, x)
    with torch.no_grad():
        start, z = model.first(d)
    maps = torch.randn(1, 4, *SHAPE, dtype=torch.float64)
    weights = torch.randn_like(x)
    assert model.log_delta is not None
    parameters = [model.log_delta, regulariser.bank.kernels, regulariser.bank.log_thresholds, regulariser.log_strength]

    def loss(proposal: Tensor, maps: Tensor) -> Tensor:
        return (model.solve(d, regulariser.condition(proposal, maps), z).x * weights).sum()

    proposal = start.clone().requires_grad_()
    maps.requires_grad_()
    tensors = [*parameters, proposal, maps]
    gradients = torch.autograd.grad(loss(proposal, maps), tensors)
    step = 1e-5
    for tensor, gradient in zip(tensors, gradients, strict=True):
        direction = torch.randn_like(tensor)
        values = []
        with torch.no_grad():
            for sign in (1, -1):
                tensor += sign * step * direction
                values.append(loss(proposal, maps))
                tensor -= sign * step * direction
        measured_slope = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), measured_slope, rtol=1e-3, atol=1e-7)


def test_jfb_leaves_the_radius_alone(projector: Projector) -> None:
    model = reconstruction(projector, ConvexPotential(SHAPE).double())
    model(measured(projector, images(1))).x.sum().backward()
    assert model.log_delta is not None
    assert model.log_delta.grad is None
    assert all(parameter.grad is not None for parameter in model.regulariser.parameters())


def test_an_equality_is_met_without_noise(projector: Projector) -> None:
    model = reconstruction(projector, ConvexPotential(SHAPE).double(), delta=0.0, tolerance=3e-6)
    d = projector.apply(images(2))
    with torch.no_grad():
        inference = model(d)
    misfit = (projector.apply(inference.x) - d).flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1)
    assert float(misfit.max()) < 1e-4
    assert model.log_delta is None


def test_the_free_network_is_pushed_to_what_it_states() -> None:
    torch.manual_seed(0)
    regulariser = FreeNetwork(SHAPE, filters=4, kernel_size=3)
    with torch.no_grad():
        regulariser.inner.mul_(3.0)
    x = images(2).float()
    F = conditioned(regulariser, x)
    before = regulariser.penalty(F, x)
    assert not regulariser.proven
    assert float(before.detach()) > 0
    optimizer = torch.optim.Adam(regulariser.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        regulariser.penalty(conditioned(regulariser, x), x).backward()
        optimizer.step()
    assert float(regulariser.penalty(conditioned(regulariser, x), x).detach()) < 0.05 * float(before.detach())


def test_weights_start_from_another_size(tmp_path: Path) -> None:
    small = ImplicitReconstructionTask(regulariser=ConvexPotential(SHAPE), size=SIZE, angles=8)
    with torch.no_grad():
        small.network.regulariser.log_strength += 1.0
    path = tmp_path / "model.ckpt"
    write_checkpoint({"state_dict": small.state_dict()}, path)
    large = ImplicitReconstructionTask(regulariser=ConvexPotential((24, 24)), size=24, angles=8, start=str(path))
    assert torch.equal(large.network.regulariser.strength, small.network.regulariser.strength)
    with pytest.raises(ValueError, match="another kind of network"):
        ImplicitReconstructionTask(regulariser=AveragedNetwork(SHAPE), size=SIZE, angles=8, start=str(path))


@pytest.mark.bad_input
def test_bad_settings_are_refused(projector: Projector) -> None:
    with pytest.raises(ValueError, match=r"0 <= delta < 1; got delta=1\.5"):
        ImplicitReconstruction(projector, ConvexPotential(SHAPE), delta=1.5)
    with pytest.raises(ValueError, match="filters >= 4 and odd kernel_size; got 2 and 4"):
        FilterBank(SHAPE, filters=2, kernel_size=4)
    with pytest.raises(ValueError, match="lipschitz > 0; got lipschitz=0"):
        FreeNetwork(SHAPE, lipschitz=0.0)
    with pytest.raises(ValueError, match=r"0 <= refined <= 1; got refined=2"):
        ImplicitReconstructionTask(regulariser=ConvexPotential(SHAPE), size=SIZE, refined=2.0)
    task = ImplicitReconstructionTask(regulariser=ConvexPotential(SHAPE), size=SIZE, angles=8)
    with pytest.raises(ValueError, match="8 angles"):
        task.infer(torch.zeros(1, 9, 25))
    with pytest.raises(ValueError, match="finite entries; sample 0"):
        task.infer(torch.full((1, 8, 25), float("nan")))
