"""CVXPY layers: unrolled iterations, second derivatives, and parameters of which CVXPY keeps a part."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

import implicit_l2o as il2o

cp = pytest.importorskip("cvxpy", reason="cvxpy is in the extra 'cvxpy'")

from implicit_l2o.interop.cvxpy import CvxpyLayer  # noqa: E402
from implicit_l2o.interop.cvxpy import splitting as splitting_module  # noqa: E402
from implicit_l2o.interop.cvxpy.splitting import ConicSplitting  # noqa: E402

f64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed))


Made = tuple[Any, list[Any], list[Any], list[Tensor]]  # problem, parameters, variables, values


def least_squares() -> Made:
    x, A, b = cp.Variable(3), cp.Parameter((5, 3)), cp.Parameter(5)
    rows = x >= -0.1
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [rows])
    return problem, [A, b], [x, rows.dual_variables[0]], [draw(2, 5, 3), draw(2, 5, seed=1)]


def projection() -> Made:
    x, p, G, h = cp.Variable(3), cp.Parameter(3), cp.Parameter((4, 3)), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [G @ x <= h, cp.sum(x) == 0.3])
    return problem, [p, G, h], [x], [2 * draw(3), draw(4, 3, seed=1), draw(4, seed=2).abs()]


def quadratic_form() -> Made:
    x, p, Q = cp.Variable(3), cp.Parameter(3), cp.Parameter((3, 3), PSD=True)
    root = draw(3, 3)
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, Q) + p @ x), [x <= 0.1])
    return problem, [p, Q], [x], [draw(3, seed=1), root @ root.mT + torch.eye(3, dtype=f64)]


def risk_cone() -> Made:
    x, mean, limit = cp.Variable(4), cp.Parameter(4), cp.Parameter(nonneg=True)
    rows = [cp.sum(x) == 1, cp.norm(np.diag([1.0, 2.0, 1.5, 1.2]) @ x) <= limit]
    return cp.Problem(cp.Maximize(mean @ x), rows), [mean, limit], [x], [draw(4), torch.tensor(1.3, dtype=f64)]


def entropy() -> Made:
    x, p = cp.Variable(3), cp.Parameter(3)
    return cp.Problem(cp.Maximize(cp.sum(cp.entr(x)) + p @ x), [cp.sum(x) == 1]), [p], [x], [draw(2, 3)]


def semidefinite() -> Made:
    X, C = cp.Variable((3, 3), PSD=True), cp.Parameter((3, 3))
    return cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.diag(X) == 1]), [C], [X], [2 * draw(3, 3)]


def named(makes: list[Callable[[], Made]]) -> Any:
    return pytest.mark.parametrize("make", makes, ids=lambda make: make.__name__)


def symmetric(layer: CvxpyLayer, parameters: list[Any]) -> Callable[..., tuple[Tensor, ...]]:
    """What is perturbed has to stay symmetric where a parameter is."""

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(values, parameters, strict=True)
        return layer(*((v + v.mT) / 2 if p.attributes.get("PSD") else v for v, p in pairs))

    return function


@named([least_squares, projection, quadratic_form, risk_cone, entropy, semidefinite])
@pytest.mark.parametrize("checkpoint", [None, 3])
def test_unrolled_is_the_derivative_of_its_steps(
    make: Callable[[], Made], checkpoint: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, parameters, variables, values = make()
    layer = CvxpyLayer(problem, parameters, variables, backward=il2o.Unrolled(7, checkpoint=checkpoint))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = layer.solve(*values)
    assert (solution.steps == 7).all()
    assert (solution.status == il2o.Status.MAX_STEPS).all()
    assert layer._last is not None
    programs = layer._last[0]
    # Seven applications of the map from zero, one by one.
    T = ConicSplitting.of(programs)
    z = torch.zeros(len(programs), programs.canonical.n + programs.canonical.m, dtype=f64)
    for _ in range(7):
        z = T(z)
    assert torch.allclose(solution.everything[variables[0].id].flatten(1), layer_values(layer, *T.point(z)).flatten(1))
    # The weights of the map are constants.
    known = splitting_module.weights(programs, 1.0)
    monkeypatch.setattr(splitting_module, "weights", lambda programs, step: known)
    own = [value.clone().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(symmetric(layer, parameters), own, eps=1e-6, atol=1e-6, rtol=1e-4)


def layer_values(layer: CvxpyLayer, x: Tensor, w: Tensor) -> Tensor:
    from implicit_l2o.interop.cvxpy.affine import variable_value

    return variable_value(layer.canonical.places[0], x, w)


def test_unrolled_costs_need_no_fixed_weights() -> None:
    """Weights do not depend on costs and right-hand sides, so the derivative in these is that of the layer itself."""
    x, p = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum(x) == 1, x >= 0])
    layer = CvxpyLayer(problem, [p], [x], backward=il2o.Unrolled(5))
    assert torch.autograd.gradcheck(layer, (draw(2, 3).requires_grad_(),), atol=1e-7)


def test_unrolled_sparse_factors() -> None:
    n = 300
    x, c = cp.Variable(n), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) / 2 + c @ x), [cp.diff(x) <= 0.1, x >= -1])
    layer = CvxpyLayer(problem, [c], [x], backward=il2o.Unrolled(6, checkpoint=4))
    costs, direction, weights, step = draw(2, n).requires_grad_(), draw(2, n, seed=3), draw(2, n, seed=4), 1e-6
    (solution,) = layer(costs)
    assert layer._last is not None
    assert layer._last[0].sparse
    ends = [(layer(costs.detach() + sign * step * direction)[0] * weights).sum() for sign in (1, -1)]
    (gradient,) = torch.autograd.grad((solution * weights).sum(), costs)
    assert float((gradient * direction).sum()) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-6)
    # Where the last call ended, three steps less are needed for the same point.
    short = CvxpyLayer(problem, [c], [x], backward=il2o.Unrolled(3))
    short(costs)
    assert torch.allclose(short(costs, warm_start=True)[0], solution, atol=1e-12)


def test_many_unrolled_steps_are_the_solution() -> None:
    problem, parameters, variables, values = projection()
    values = [value.requires_grad_() for value in values]
    exact = CvxpyLayer(problem, parameters, variables)
    long = CvxpyLayer(problem, parameters, variables, backward=il2o.Unrolled(2000, checkpoint=50))
    one, other = exact(*values)[0], long.solve(*values)
    assert other.converged.all()
    assert torch.allclose(other.variables[0], one, atol=1e-7)
    for ours, theirs in zip(
        torch.autograd.grad(other.variables[0].square().sum(), values),
        torch.autograd.grad(one.square().sum(), values),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_unrolled_beside_a_sample_without_a_number() -> None:
    x, p = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0]),
        [p],
        [x],
        backward=il2o.Unrolled(4),
        on_failure="raise",
    )
    good = torch.tensor([[1.0, -2.0]], dtype=f64, requires_grad=True)
    alone = torch.autograd.grad(layer(good)[0].sum(), good)[0]
    mixed = torch.tensor([[torch.nan, 0.0], [1.0, -2.0]], dtype=f64, requires_grad=True)
    with pytest.raises(il2o.ConvergenceError, match=r"1 of 2 samples were not solved\. sample 0: NONFINITE"):
        layer(mixed)
    layer.on_failure = "ignore"
    gradient = torch.autograd.grad(layer(mixed)[0].sum(), mixed)[0]
    assert torch.equal(gradient[0], torch.zeros(2, dtype=f64))
    assert torch.allclose(gradient[1], alone[0], atol=1e-12)


@named([least_squares, projection, quadratic_form])
def test_second_derivatives_of_quadratic_programs(make: Callable[[], Made]) -> None:
    problem, parameters, variables, values = make()
    for solver in ("auto", "clarabel"):
        layer = CvxpyLayer(problem, parameters, variables, solver=solver)
        own = [value.clone().requires_grad_() for value in values]
        function = symmetric(layer, parameters)
        assert torch.autograd.gradgradcheck(function, own, eps=1e-6, atol=1e-4, rtol=1e-3)


def test_the_hessian_of_a_linear_loss() -> None:
    """`x = p / q`: a linear loss has a cotangent without a graph, and curvature all the same."""
    x, p, q = cp.Variable(), cp.Parameter(), cp.Parameter(nonneg=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(q * cp.square(x) / 2 - p * x)), [p, q], [x])
    point = torch.tensor([3.0, 2.0], dtype=f64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(point[0], point[1])[0], point, create_graph=True)
    assert torch.allclose(gradient, torch.tensor([0.5, -0.75], dtype=f64))
    hessian = torch.stack([torch.autograd.grad(entry, point, retain_graph=True)[0] for entry in gradient])
    assert torch.allclose(hessian, torch.tensor([[0.0, -0.25], [-0.25, 0.75]], dtype=f64), atol=1e-9)


def test_second_derivatives_with_a_failed_sample() -> None:
    x, low, p = cp.Variable(2), cp.Parameter(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(p, x)) - cp.sum(x)), [x >= low, cp.sum(x) <= 1])
    layer = CvxpyLayer(problem, [low, p], [x], on_failure="ignore")
    lows = torch.tensor([[-1.0, -1.0], [2.0, 3.0]], dtype=f64)
    weights = torch.tensor([[2.0, 3.0], [2.0, 3.0]], dtype=f64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(lows, weights)[0].sum(), weights, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), weights)
    # x = 1 / (2 p^2) where no constraint is active.
    assert torch.allclose(second[0], 3 / weights.detach()[0] ** 4)
    assert torch.equal(second[1], torch.zeros(2, dtype=f64))
    alone = weights.detach()[1:].requires_grad_()
    assert torch.equal(
        torch.autograd.grad(layer(lows[1:], alone)[0].sum(), alone, create_graph=True)[0], torch.zeros(1, 2, dtype=f64)
    )


@pytest.mark.parametrize(
    ("make", "backward"),
    [
        (entropy, il2o.Implicit()),
        (risk_cone, il2o.Implicit()),
        (projection, il2o.JFB()),
        (projection, il2o.Neumann(2)),
        (projection, il2o.Unrolled(3)),
        (projection, il2o.Implicit(il2o.GMRES(rtol=1e-8))),
    ],
    ids=lambda part: getattr(part, "__name__", repr(part)),
)
@pytest.mark.parametrize("loss", ["linear", "quadratic"])
def test_other_second_derivatives_are_refused(
    make: Callable[[], Made], backward: il2o.AbstractBackward, loss: str
) -> None:
    problem, parameters, variables, values = make()
    values = [value.requires_grad_() for value in values]
    x = CvxpyLayer(problem, parameters, variables, backward=backward)(*values)[0]
    (gradient, *_) = torch.autograd.grad((x if loss == "linear" else x.square()).sum(), values, create_graph=True)
    assert torch.isfinite(gradient).all()
    with pytest.raises(RuntimeError, match=r"differentiated twice with Implicit\(\)"):
        gradient.sum().backward()


def test_third_derivatives_are_refused() -> None:
    x, p, q = cp.Variable(), cp.Parameter(), cp.Parameter(nonneg=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(q * cp.square(x) / 2 - p * x)), [p, q], [x])
    p_value, q_value = (torch.tensor(value, dtype=f64, requires_grad=True) for value in (3.0, 2.0))
    (first,) = torch.autograd.grad(layer(p_value, q_value)[0], q_value, create_graph=True)
    (second,) = torch.autograd.grad(first, q_value, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(second, q_value)


def test_diagonal_and_sparse_parameters() -> None:
    x, D, S = cp.Variable(3), cp.Parameter((3, 3), diag=True), cp.Parameter((2, 3), sparsity=([0, 1, 1], [2, 0, 1]))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(D @ x - 1)), [S @ x <= 1])
    plain = [cp.Parameter((3, 3)), cp.Parameter((2, 3))]
    same = cp.Problem(cp.Minimize(cp.sum_squares(plain[0] @ x - 1)), [plain[1] @ x <= 1])
    diagonal = torch.diag_embed(draw(2, 3).abs() + 0.5)
    sparse = torch.zeros(2, 3, dtype=f64)
    sparse[0, 2], sparse[1, 0], sparse[1, 1] = 1.5, 0.7, 0.9
    values = [diagonal.requires_grad_(), sparse.requires_grad_()]
    layer, other = CvxpyLayer(problem, [D, S], [x]), CvxpyLayer(same, plain, [x])
    (found,), (expected,) = layer(*values), other(*values)
    assert torch.allclose(found, expected, atol=1e-9)
    ours, theirs = (torch.autograd.grad(part.square().sum(), values) for part in (found, expected))
    # Entries that a parameter does not have receive nothing.
    assert torch.allclose(ours[0], theirs[0] * torch.eye(3, dtype=f64), atol=1e-8)
    assert torch.allclose(ours[1], theirs[1] * (sparse != 0), atol=1e-8)
    narrow = layer(diagonal.detach()[0], sparse.detach().to_sparse())[0]
    assert torch.allclose(narrow, found[0], atol=1e-9)
    _, report = layer.infer(*(value.detach() for value in values))
    assert report.trusted.all()


def test_sparse_and_diagonal_variables() -> None:
    X, C = cp.Variable((3, 3), sparsity=([0, 1, 2], [2, 0, 1])), cp.Parameter((3, 3))
    Y = cp.Variable((2, 2), diag=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C) + cp.sum_squares(Y - 2)), [cp.sum(X) == 1])
    value = draw(2, 3, 3).requires_grad_()
    layer = CvxpyLayer(problem, [C], [X, Y])
    sparse, diagonal = layer(value)
    mask = torch.zeros(3, 3, dtype=f64)
    mask[0, 2] = mask[1, 0] = mask[2, 1] = 1.0
    kept = value.detach() * mask
    assert torch.allclose(sparse, (kept + (1 - kept.sum((1, 2), keepdim=True)) / 3) * mask, atol=1e-9)
    assert torch.allclose(diagonal, 2 * torch.eye(2, dtype=f64).expand(2, 2, 2), atol=1e-9)
    assert torch.autograd.gradcheck(lambda v: layer(v)[0], (value,), atol=1e-6)


@pytest.mark.bad_input
def test_values_outside_of_what_is_kept() -> None:
    x, D, S = (
        cp.Variable(2),
        cp.Parameter((2, 2), diag=True, name="D"),
        cp.Parameter((2, 2), sparsity=([0], [1]), name="S"),
    )
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(D @ x - 1)), [S @ x <= 1]), [D, S], [x])
    one, none = torch.eye(2, dtype=f64), torch.zeros(2, 2, dtype=f64)
    with pytest.raises(ValueError, match=r"must be diagonal: parameter 0 \('D'\) has 3"):
        layer(one + torch.tensor([[0.0, 3.0], [0.0, 0.0]], dtype=f64), none)
    with pytest.raises(ValueError, match=r"zero outside of the sparsity pattern: parameter 1 \('S'\) has 1"):
        layer(one, one)


def test_positional_options_are_those_of_cvxpylayers(capsys: pytest.CaptureFixture[str]) -> None:
    x, p = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0])
    layer = CvxpyLayer(problem, [p], [x], "SCS", False, True, "SCIPY", {"eps": 1e-6})
    capsys.readouterr()
    layer(torch.tensor([[1.0, -1.0], [2.0, 0.5]], dtype=f64))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[:2] for line in lines] == [["sample 0", " CONVERGED"], ["sample 1", " CONVERGED"]]
    with pytest.raises(ValueError, match="Unknown backend: GPU"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - 2 * p))), [p], [x], canon_backend="GPU")


def test_matrices_that_scipy_keeps() -> None:
    """A constant sparse matrix in every form that CVXPY takes."""
    A = sp.csr_array(np.diag([1.0, 2.0, 3.0]))
    x, p = cp.Variable(3), cp.Parameter(3)
    (found,) = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - p))), [p], [x])(torch.ones(3, dtype=f64))
    assert torch.allclose(found, torch.tensor([1.0, 1 / 2, 1 / 3], dtype=f64), atol=1e-9)
