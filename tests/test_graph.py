"""The graph of a linear operator as a set: its two ways to solve, its limits, and a constrained problem that it serves."""

import math

import pytest
import torch

import implicit_l2o as il2o
from implicit_l2o.operators import graph as module


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
