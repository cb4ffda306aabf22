"""The graph of a linear operator as a set: its two ways to solve, its limits, and a constrained problem that it serves."""

import math

import pytest
import torch

import implicit_l2o as il2o
from implicit_l2o.operators import graph as module
from implicit_l2o.operators._symmetry import symmetric_blocks
from implicit_l2o.physics import Geometry, Projector, sinogram_symmetries


def test_conjugate_gradients_agree_with_the_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    K = il2o.Matrix(torch.randn(6, 9, dtype=torch.float64))
    z = torch.randn(4, 15, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(z)
    direct = il2o.Graph(K, scale=3.0).project(z)
    (direct_gradient,) = torch.autograd.grad((direct * weights).sum(), z)
    monkeypatch.setattr(module, "_DENSE_ROWS", 5)
    iterated = il2o.Graph(K, scale=3.0, tolerance=1e-12).project(z)
    (iterated_gradient,) = torch.autograd.grad((iterated * weights).sum(), z)
    torch.testing.assert_close(iterated, direct, atol=1e-10, rtol=0)
    torch.testing.assert_close(iterated_gradient, direct_gradient, atol=1e-10, rtol=0)


def test_projected_points_lie_on_the_graph_in_single_precision() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(40, 60)
    graph = il2o.Graph(il2o.Matrix(matrix / torch.linalg.matrix_norm(matrix, 2)), scale=10.0)
    x, w = graph.split(graph.project(torch.randn(8, 100)))
    assert float((w - 10 * graph.K.apply(x)).norm() / w.norm()) < 1e-5
    assert torch.equal(graph.lift(x), graph.join(x, 10 * graph.K.apply(x)))


def _symmetric_operator() -> tuple[il2o.Matrix, tuple[torch.Tensor, ...]]:
    """Six equations whose products with each other do not change under two flips, one of which leaves two of them alone."""
    first, second = torch.tensor([1, 0, 3, 2, 5, 4]), torch.tensor([2, 3, 0, 1, 4, 5])
    gram = torch.randn(6, 6, dtype=torch.float64)
    gram = gram @ gram.mT
    for p in (first, second):
        gram = (gram + gram[p][:, p]) / 2
    return il2o.Matrix(torch.linalg.cholesky(gram)), (first, second)


def test_symmetries_change_the_work_and_not_the_projection() -> None:
    torch.manual_seed(0)
    K, involutions = _symmetric_operator()
    blocks = symmetric_blocks(involutions, 6)
    assert sorted(block.members.shape[1] for block in blocks) == [1, 1, 2, 2]
    z = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    plain, quick = il2o.Graph(K, 2.0).project(z), il2o.Graph(K, 2.0, involutions=involutions).project(z)
    torch.testing.assert_close(quick, plain, atol=1e-12, rtol=0)
    gradients = [torch.autograd.grad(y.pow(3).sum(), z)[0] for y in (plain, quick)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("size", "angles"), [(8, 6), (9, 5), (16, 30)])
def test_a_scanner_commutes_with_its_flips(size: int, angles: int) -> None:
    geometry = Geometry.uniform(size, angles)
    involutions = sinogram_symmetries(geometry)
    assert len(involutions) == 2
    projector = Projector(geometry, dtype=torch.float64)
    z = torch.randn(2, size**2 + math.prod(projector.out_shape), dtype=torch.float64)
    quick = il2o.Graph(projector, 10.0, involutions=involutions)
    torch.testing.assert_close(quick.project(z), il2o.Graph(projector, 10.0).project(z), atol=1e-9, rtol=0)


def test_angles_that_are_not_symmetric_leave_the_half_turn() -> None:
    assert len(sinogram_symmetries(Geometry(8, [0.1, 0.5]))) == 1
    assert len(sinogram_symmetries(Geometry(8, [0.1, 0.1, math.pi - 0.1]))) == 1  # a direction measured twice


def test_what_is_no_symmetry_is_refused() -> None:
    K = il2o.Matrix(torch.randn(3, 3))
    swap = torch.tensor([1, 0, 2])
    with pytest.raises(ValueError, match="does not commute with involution 0: relative error"):
        il2o.Graph(K, involutions=(swap,)).project(torch.zeros(1, 6))
    with pytest.raises(ValueError, match="involution 0 must be a permutation of 3 entries that is its own inverse"):
        il2o.Graph(K, involutions=(torch.tensor([1, 2, 0]),)).project(torch.zeros(1, 6))
    with pytest.raises(ValueError, match="involution 1 does not commute"):
        il2o.Graph(K, involutions=(swap, torch.tensor([0, 2, 1]))).project(torch.zeros(1, 6))


def test_a_ball_around_the_data_is_met_through_the_graph() -> None:
    """`min |x|^2 / 2 s.t. |K x - d| <= r`: the distance of `K x` to `d` ends on the sphere."""
    torch.manual_seed(0)
    K = il2o.Matrix(torch.randn(4, 6, dtype=torch.float64))
    graph, d = il2o.Graph(K), torch.randn(3, 4, dtype=torch.float64)
    norm = il2o.QuadraticCost(diagonal=torch.cat([torch.ones(6), torch.zeros(4)]).double())
    sets = il2o.ProductSet((il2o.Free(), il2o.L2Ball(0.1, center=d)), sizes=(6, 4))
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-10, rtol=0.0, max_steps=20_000))
    solution = il2o.solve(
        il2o.DavisYin(il2o.Problem(F=norm, g=sets, h=graph)), torch.zeros(3, 10).double(), solver=solver
    )
    x, _ = graph.split(solution.x)
    assert bool(solution.converged.all())
    torch.testing.assert_close((K.apply(x) - d).norm(dim=1), torch.full((3,), 0.1).double(), atol=1e-8, rtol=0)


@pytest.mark.bad_input
@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_not_positive_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="positive, finite scale"):
        il2o.Graph(il2o.Matrix(torch.eye(2)), scale=scale)


@pytest.mark.bad_input
def test_wrong_operator_and_wrong_sizes_are_refused() -> None:
    with pytest.raises(TypeError, match="linear operator; got Tensor"):
        il2o.Graph(torch.eye(2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"2 \+ 2 entries, x and w; got 3"):
        il2o.Graph(il2o.Matrix(torch.eye(2))).project(torch.zeros(1, 3))
