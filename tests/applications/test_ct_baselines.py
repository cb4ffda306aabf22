"""CT baselines: total variation against a conic solver, CGLS against its normal equations, that every learned one learns."""

import itertools
import json
import math
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import implicit_l2o as il2o
from implicit_l2o.applications.ct import classical_table
from implicit_l2o.applications.ct.base import scanner
from implicit_l2o.applications.ct.classical import CGLS, FBP, cgls
from implicit_l2o.applications.ct.classical_tv import ConstrainedTV, PenalisedTV
from implicit_l2o.applications.ct.data import EllipseData
from implicit_l2o.applications.ct.fpn import FiniteDifferenceRegulariser, FPNTask
from implicit_l2o.applications.ct.learned import ResidualBlocks
from implicit_l2o.applications.ct.learned_primal_dual import LearnedPrimalDualTask
from implicit_l2o.applications.ct.metrics import psnr
from implicit_l2o.applications.ct.model import ImplicitReconstruction
from implicit_l2o.applications.ct.network_denoiser import NetworkDenoiser
from implicit_l2o.applications.ct.plug_and_play import DataTerm, Denoiser, PlugAndPlay, PlugAndPlayTask, data_graph
from implicit_l2o.applications.ct.regularisers import FreeNetwork
from implicit_l2o.applications.ct.total_variation import (
    SquaredDistance,
    TotalVariationGraph,
    ball_problem,
    penalised_problem,
    solve_total_variation,
)
from implicit_l2o.applications.ct.unet import UNet, UNetTask
from implicit_l2o.physics import FilteredBackProjection
from implicit_l2o.testing import check_prox, check_set
from implicit_l2o.training import Optimization, count_parameters, fit

SIZE, ANGLES = 32, 8
OPTIMIZATION = Optimization(learning_rate=3e-3, schedule="constant")


def data(**options) -> EllipseData:
    chosen: dict[str, Any] = {"train": 16, "validation": 4, "test": 4, "batch_size": 8, "seed": 0} | options
    return EllipseData(size=SIZE, angles=ANGLES, **chosen)


def dense(operator, dtype=torch.float64):
    """The matrix of a linear operator."""
    units = torch.eye(math.prod(operator.in_shape), dtype=dtype).reshape(-1, *operator.in_shape)
    return operator.apply(units).flatten(1).T.numpy()


# --- total variation ---


def conic(A, d, size, *, radius=None, weight=None):
    """Total variation over the box as a second-order cone program, by clarabel: `x`, then one bound for each gradient."""
    clarabel = pytest.importorskip("clarabel")
    n = size * size
    gradient = dense(il2o.FiniteDifferences2D((1, size, size)))
    eye, none = sp.eye(n), sp.csc_matrix((n, n))
    rows, right, cones = [sp.hstack([-eye, none]), sp.hstack([eye, none])], [np.zeros(n), np.ones(n)], []
    cones.append(clarabel.NonnegativeConeT(2 * n))
    for i in range(n):  # |(D x)_i| <= t_i
        t = sp.csr_matrix(([-1.0], ([0], [n + i])), shape=(1, 2 * n))
        rows += [t, sp.hstack([sp.csr_matrix(-gradient[[i, n + i]]), sp.csc_matrix((2, n))])]
        right.append(np.zeros(3))
        cones.append(clarabel.SecondOrderConeT(3))
    q, P = np.concatenate([np.zeros(n), np.ones(n)]), sp.csc_matrix((2 * n, 2 * n))
    if radius is not None:  # |A x - d| <= radius
        rows += [sp.csr_matrix((1, 2 * n)), sp.hstack([sp.csr_matrix(A), sp.csc_matrix((len(d), n))])]
        right.append(np.concatenate([[radius], d]))
        cones.append(clarabel.SecondOrderConeT(len(d) + 1))
    else:
        assert weight is not None
        P = sp.block_diag([A.T @ A, none])
        q = np.concatenate([-A.T @ d, weight * np.ones(n)])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    for name in ("tol_gap_abs", "tol_gap_rel", "tol_feas"):
        setattr(settings, name, 1e-10)
    constraints = sp.csc_matrix(sp.vstack(rows))
    solver = clarabel.DefaultSolver(sp.triu(P, format="csc"), q, constraints, np.concatenate(right), cones, settings)
    return torch.tensor(solver.solve().x[:n], dtype=torch.float64).reshape(1, 1, size, size)


def small(dtype=torch.float64):
    """An 8x8 image with edges, its noisy sinogram and the graph."""
    A = scanner(8, 4, dtype)
    x = torch.zeros(1, 1, 8, 8, dtype=dtype)
    x[..., 1:5, 2:6] = 0.6
    x[..., 3:7, 4:7] += 0.4
    d = A.apply(x)
    return A, x, d * (1 + 0.03 * torch.randn(d.shape, dtype=dtype, generator=torch.Generator().manual_seed(0)))


def objective(A, x, d, weight):
    D = il2o.FiniteDifferences2D((1, 8, 8))
    return float((A.apply(x) - d).square().sum() / 2 + weight * D.apply(x).square().sum(1).sqrt().sum())


@pytest.mark.parametrize("weight", [1e-3, 1e-2])
def test_penalised_total_variation_is_that_of_a_conic_solver(weight):
    A, _, d = small()
    graph = TotalVariationGraph(A)
    solution = solve_total_variation(
        penalised_problem(graph, d, weight), graph, torch.zeros(1, 1, 8, 8).double(), rtol=1e-10, max_steps=20_000
    )
    expected = conic(dense(A), d.flatten().numpy(), 8, weight=weight)
    found = graph.image(solution.x)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert objective(A, found, d, weight) == pytest.approx(objective(A, expected, d, weight), rel=1e-7)


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_constrained_total_variation_is_that_of_a_conic_solver(share):
    A, _, d = small()
    graph, radius = TotalVariationGraph(A), share * float(d.norm())
    solution = solve_total_variation(
        ball_problem(graph, d, radius), graph, torch.zeros(1, 1, 8, 8).double(), rtol=1e-10, max_steps=20_000
    )
    expected = conic(dense(A), d.flatten().numpy(), 8, radius=radius)
    found = graph.image(solution.x)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert float((A.apply(found) - d).norm()) <= radius * (1 + 1e-6)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_condat_vu_and_linearized_admm_agree():
    """The same problem without its graph: two more splittings of the library, slower."""
    A, _, d = small()
    weight, D = 1e-2, il2o.FiniteDifferences2D((1, 8, 8))
    problem = il2o.Problem(F=il2o.LeastSquares(A, d), g=il2o.Box(0.0, 1.0), K=D, l=il2o.GroupL2Norm(weight, dim=0))
    graph = TotalVariationGraph(A)
    start = torch.zeros(1, 1, 8, 8).double()
    ours = solve_total_variation(penalised_problem(graph, d, weight), graph, start, rtol=1e-10, max_steps=20_000)
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-9, 0.0, 100_000, check_every=100))
    for splitting in (il2o.CondatVu(problem, dual_step=0.05), il2o.LinearizedADMM(problem, dual_step=0.05)):
        solution = il2o.solve(splitting, start, solver=solver)
        assert bool(solution.converged.all())
        torch.testing.assert_close(solution.x, graph.image(ours.x), atol=1e-5, rtol=0)


def test_without_noise_the_equality_gives_the_image_back():
    A, x, _ = small()
    graph, d = TotalVariationGraph(A, 30.0, 0.5), A.apply(x)
    solution = solve_total_variation(
        ball_problem(graph, d, 0.0), graph, torch.zeros_like(x), rtol=1e-10, max_steps=20_000, step=0.02
    )
    found = graph.image(solution.x)
    assert float((A.apply(found) - d).norm() / d.norm()) < 1e-6
    torch.testing.assert_close(found, x, atol=1e-4, rtol=0)


@settings(max_examples=5)
@given(seed=st.integers(0, 50))
def test_the_graph_is_a_set_and_its_projection_the_least_squares_one(seed):
    generator = torch.Generator().manual_seed(seed)
    A = scanner(8, 4, torch.float64)
    graph = TotalVariationGraph(A, 3.0, 0.7)
    total = sum(math.prod(size) for size in graph.sizes)
    z = torch.randn(2, total, generator=generator, dtype=torch.float64)
    check_set(graph, z)
    lift = np.vstack([np.eye(64), 3.0 * dense(A), 0.7 * dense(graph.gradient)])
    x = np.linalg.lstsq(lift, z.numpy().T, rcond=None)[0]
    torch.testing.assert_close(graph.project(z), torch.tensor((lift @ x).T), atol=1e-9, rtol=0)
    torch.testing.assert_close(graph.lift(graph.image(graph.project(z))), graph.project(z), atol=1e-9, rtol=0)


def test_the_squared_distance_is_a_prox():
    check_prox(SquaredDistance(torch.ones(1, 5).double(), 2.0), torch.randn(3, 5).double(), 0.7)


def test_batch_mates_do_not_matter():
    d = data().splits.test.tensors[0]
    method = ConstrainedTV(deltas=(0.02,))
    method.tune(scanner(SIZE, ANGLES), *data().splits.validation.tensors)
    whole, one = method.infer((d,)), method.infer((d[2:3],))
    torch.testing.assert_close(whole.x[2:3], one.x, atol=2e-3, rtol=0)


# --- the other classical methods ---


def test_cgls_solves_the_normal_equations_and_its_residual_falls():
    A, _, d = small()
    matrix = dense(A)
    iterates = [x for _, x in zip(range(300), cgls(A, d), strict=False)]
    residuals = [float((A.apply(x) - d).norm()) for x in iterates[:20]]
    assert all(b <= a for a, b in itertools.pairwise(residuals))
    expected = np.linalg.lstsq(matrix, d.flatten().numpy(), rcond=1e-9)[0]  # the shortest, as from zero
    torch.testing.assert_close(iterates[-1].flatten(), torch.tensor(expected), atol=1e-4, rtol=0)


def test_what_is_chosen_is_the_best_on_validation_images():
    splits = data(validation=6).splits
    d, x = splits.validation.tensors
    methods = [FBP(cutoffs=(0.8, 1.0)), CGLS(most_steps=20), PenalisedTV((1e-4, 1e-3)), ConstrainedTV((0.01, 0.05))]
    for method in cast(list[Any], methods):
        method.tune(scanner(SIZE, ANGLES), d, x)
        answers = {choice: float(psnr(method.reconstruct(d, choice).x, x).mean()) for choice in method.choices()}
        best = max(answers.values())
        assert answers[method.chosen] == pytest.approx(best, abs=1e-3)
        numbers = method.numbers()
        json.dumps(numbers, allow_nan=False)
        assert max(numbers["validation_psnr"].values()) == pytest.approx(best, abs=1e-3)
        inference = method.infer(splits.test.tensors)
        assert float(inference.x.min()) >= 0
        assert float(inference.x.max()) <= 1


def test_total_variation_is_above_cgls_is_above_fbp(tmp_path):
    out = tmp_path / "table.json"
    options = ["--sizes", "32", "--angles", "12", "--test", "4", "--validation", "4", "--validation-tv", "2"]
    assert classical_table.main([*options, "--out", str(out), "--data", "noisy"]) == 0
    found = json.loads(out.read_text())["results"]["32"]
    scores = [found[name]["psnr"] for name in ("fbp", "cgls", "tv_penalised", "tv_ball")]
    assert scores[0] < scores[1] < min(scores[2:])
    assert abs(scores[2] - scores[3]) < 1
    assert found["tv_ball"]["converged"] == found["tv_penalised"]["converged"] == 1
    assert found["tv_ball"]["fidelity_max"] <= found["tv_ball"]["delta"] * 1.02
    assert len(found["fbp"]["psnr_per_image"]) == 4


# --- the learned ones ---

LEARNED = {
    "unet": lambda: UNetTask(size=SIZE, angles=ANGLES, widths=(8, 16), first_kernel=3, optimization=OPTIMIZATION),
    "fpn": lambda: FPNTask(size=SIZE, angles=ANGLES, width=8, blocks=1, max_steps=20, optimization=OPTIMIZATION),
    "primal_dual": lambda: LearnedPrimalDualTask(
        size=SIZE, angles=ANGLES, iterations=3, width=8, optimization=OPTIMIZATION
    ),
    "denoiser": lambda: PlugAndPlayTask(
        size=SIZE, angles=ANGLES, denoiser=Denoiser(8, 1), max_steps=20, optimization=OPTIMIZATION
    ),
}


@pytest.mark.parametrize("name", LEARNED)
def test_a_short_training_lowers_the_loss(name):
    task, splits = LEARNED[name](), data(train=32)
    training = fit(task, splits, epochs=5, gradient_clip=1.0, progress=False)
    losses = [epoch["val/loss"] for epoch in training.history]
    assert min(losses[1:]) < losses[0]
    d, x = splits.splits.test.tensors
    with torch.no_grad():
        inference = task.infer(d)
    assert inference.x.shape == x.shape
    assert 0 <= float(inference.x.min()) <= float(inference.x.max()) <= 1


@pytest.mark.parametrize("name", LEARNED)
def test_gradients_are_finite_and_reach_every_weight(name):
    task = LEARNED[name]().train()
    for parameter in task.parameters():  # away from the zeros that a network begins with
        torch.nn.init.normal_(parameter, std=0.05)
    batch = data().splits.train.tensors
    task.loss(task.training_inference(batch[0]), batch).backward()
    gradients = {key: parameter.grad for key, parameter in task.named_parameters()}
    # The primal-dual scheme answers with one channel, so the last step's other outputs learn nothing by themselves.
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients.values())
    assert all(float(gradient.abs().sum()) > 0 for gradient in gradients.values())


def test_networks_begin_at_what_they_correct():
    d, _ = data().splits.test.tensors
    start = FilteredBackProjection(scanner(SIZE, ANGLES), "hann", 0.9)(d).clamp(0, 1)
    torch.testing.assert_close(LEARNED["unet"]().eval().infer(d).x, start)
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(FiniteDifferenceRegulariser(8, 1)(x), x)
    assert torch.equal(Denoiser(8, 1)(x), x)


def test_sizes_are_the_published_ones():
    assert count_parameters(LearnedPrimalDualTask()) == 253_220
    assert count_parameters(UNetTask()) == pytest.approx(533_593, rel=0.05)
    assert count_parameters(FPNTask()) == pytest.approx(96_307, rel=0.01)


@torch.no_grad()
def test_the_step_towards_the_data_is_averaged_and_its_fixed_points_fit():
    """With `R` the identity `T` is SIRT: its fixed points are the weighted least squares solutions."""
    task = FPNTask(size=SIZE, angles=ANGLES, width=4, blocks=1, tolerance=1e-4, max_steps=5000)
    _, x = data().splits.test.tensors
    d = task.projector.apply(x)
    T = task.step_map(d)
    u, w = torch.rand(2, *x.shape)
    metric = 1 / task.get_buffer("columns")  # a pixel that no ray meets has none
    metric = torch.where(metric.isfinite(), metric, 0.0)

    def size(v):
        return (metric * v.square()).sum()

    assert float(size(T(u) - T(w))) <= float(size(u - w))
    inference = task.infer(d)
    assert inference.z is not None
    assert bool((inference.status == il2o.Status.CONVERGED).all())
    assert float((task.projector.apply(inference.z) - d).norm() / d.norm()) < 0.01


@torch.no_grad()
def test_an_expanding_map_is_shrunk():
    task = LEARNED["fpn"]()
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    before = [parameter.clone() for parameter in task.parameters() if parameter.ndim > 1]
    task.training_inference(data().splits.train.tensors[0])
    task.on_train_batch_end(None, None, 0)
    after = [parameter for parameter in task.parameters() if parameter.ndim > 1]
    assert all(float(new.norm()) < float(old.norm()) for new, old in zip(after, before, strict=True))


def test_the_data_term_is_the_prox_of_the_squared_misfit():
    A, _, d = small()
    z = torch.rand(1, 1, 8, 8).double()
    found = DataTerm(data_graph(A, 5.0), d).prox(z, 1.0)
    matrix = dense(A)
    expected = np.linalg.solve(
        np.eye(64) + 25 * matrix.T @ matrix, z.flatten().numpy() + 25 * matrix.T @ d.flatten().numpy()
    )
    torch.testing.assert_close(found.flatten(), torch.tensor(expected), atol=1e-8, rtol=0)


def test_plug_and_play_trains_and_chooses_its_scale():
    task = LEARNED["denoiser"]()
    method = PlugAndPlay(task, seconds=0.5, scales=(3.0, 10.0), validation=3)
    method.prepare(LEARNED["unet"](), data(), name="plug and play", progress=False)
    numbers = method.numbers()
    assert numbers["scale"] in (3.0, 10.0)
    json.dumps(numbers, allow_nan=False)
    assert method.infer(data().splits.test.tensors).x.shape == (4, 1, SIZE, SIZE)


def test_plug_and_play_takes_the_network_of_the_implicit_models():
    """It starts as the identity but for the regulariser's step, has as many weights, and learns to denoise."""
    regulariser = FreeNetwork((SIZE, SIZE))
    denoiser = NetworkDenoiser(regulariser, width=16)
    model = ImplicitReconstruction(scanner(SIZE, ANGLES), FreeNetwork((SIZE, SIZE)), width=16)
    weights = [sum(p.numel() for p in module.parameters()) for module in (denoiser, model)]
    assert weights[0] == weights[1] - 1  # the radius

    task = PlugAndPlayTask(size=SIZE, angles=ANGLES, denoiser=denoiser, scale=5.0, tolerance=1e-2)
    x = data().splits.train.tensors[1]
    noisy = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(denoiser.parameters(), 3e-3)
    losses = []
    for _ in range(20):
        loss = (denoiser(noisy) - x).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    assert torch.isfinite(task.infer(data().splits.test.tensors[0]).x).all()


def test_plug_and_play_ends_at_a_fixed_point_of_both_parts():
    """With a denoiser that is a true prox the iteration converges, and says so."""
    task = PlugAndPlayTask(size=SIZE, angles=ANGLES, denoiser=Denoiser(4, 1), scale=5.0, tolerance=1e-4, max_steps=2000)
    inference = task.infer(data().splits.test.tensors[0])  # untrained, the denoiser is the identity
    assert inference.z is not None
    assert inference.residual is not None
    assert bool((inference.status == il2o.Status.CONVERGED).all())
    assert bool((inference.residual <= 1e-6 + 1e-4 * inference.z.flatten(1).norm(dim=1) * 2).all())


# --- bad input ---


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UNet((8, 0)), "positive widths"),
        (lambda: UNet((8,), first_kernel=4), "odd first_kernel"),
        (lambda: UNetTask(size=30, angles=8), "multiples of 4"),
        (lambda: FPNTask(size=32, angles=8, spread=0.0), "spread"),
        (lambda: FPNTask(size=32, angles=8, step=2.0), "0 < step < 2"),
        (lambda: ResidualBlocks(1, width=0, blocks=1), "width=0"),
        (lambda: LearnedPrimalDualTask(size=32, angles=8, iterations=0), "iterations >= 1"),
        (lambda: LearnedPrimalDualTask(size=32, angles=8, memory=1), "memory >= 2"),
        (lambda: PlugAndPlayTask(size=32, angles=8, levels=(0.1, 0.05)), "least <= largest"),
        (lambda: PlugAndPlayTask(size=32, angles=8, scale=0.0), "scale > 0"),
        (lambda: TotalVariationGraph(scanner(8, 4), data_scale=0.0), "data_scale"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.bad_input
@pytest.mark.parametrize("name", LEARNED)
def test_a_sinogram_of_another_scanner_is_refused(name):
    with pytest.raises(ValueError, match="8 angles, 47 bins"):
        LEARNED[name]().infer(torch.zeros(1, 8, 46))


@pytest.mark.bad_input
def test_baselines_want_something_to_choose_from_and_a_reconstruction():
    splits, nothing = data(), cast(Any, None)
    with pytest.raises(ValueError, match="no settings"):
        ConstrainedTV(deltas=()).prepare(LEARNED["unet"](), splits, name="tv", progress=False)
    with pytest.raises(ValueError, match="validation >= 1"):
        FBP(validation=0).prepare(LEARNED["unet"](), splits, name="fbp", progress=False)
    with pytest.raises(ValueError, match="delta >= 0"):
        ConstrainedTV(deltas=(-0.1, 0.1)).prepare(LEARNED["unet"](), splits, name="tv", progress=False)
    with pytest.raises(TypeError, match="baseline of reconstructions"):
        FBP().prepare(nothing, splits, name="fbp", progress=False)
    with pytest.raises(ValueError, match="positive scales"):
        PlugAndPlay(LEARNED["denoiser"](), 1.0, scales=()).prepare(nothing, splits, name="pnp", progress=False)
