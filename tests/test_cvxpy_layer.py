"""A CVXPY problem as a layer: its solutions are CVXPY's, its gradients those of finite differences."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import implicit_l2o as il2o

cp = pytest.importorskip("cvxpy", reason="cvxpy is in the extra 'cvxpy'")

from implicit_l2o.interop.cvxpy import CvxpyLayer, ZeroGradientWarning  # noqa: E402
from implicit_l2o.interop.cvxpy.program import host  # noqa: E402
from implicit_l2o.interop.cvxpy.splitting import ConicSplitting  # noqa: E402

f64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed))


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=f64)


@dataclass
class Case:
    problem: Any
    parameters: list[Any]
    variables: list[Any]
    values: list[Tensor]
    gp: bool = False


def least_squares() -> Case:
    x, A, b = cp.Variable(3), cp.Parameter((5, 3)), cp.Parameter(5)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [x >= -0.1])
    return Case(problem, [A, b], [x], [draw(5, 3), draw(5, seed=1)])


def unconstrained() -> Case:
    x, A, b = cp.Variable(3), cp.Parameter((5, 3)), cp.Parameter(5)
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b))), [A, b], [x], [draw(5, 3), draw(5, seed=1)])


def lasso() -> Case:
    x, A, b, weight = cp.Variable(4), cp.Parameter((5, 4)), cp.Parameter(5), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + weight * cp.norm1(x)))
    return Case(problem, [A, b, weight], [x], [draw(5, 4, seed=2), draw(5, seed=3), number(0.8)])


def ridge_logistic() -> Case:
    x, A, weight = cp.Variable(2), cp.Parameter((4, 2)), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum(cp.logistic(A @ x)) + weight * cp.sum_squares(x)))
    return Case(problem, [A, weight], [x], [draw(4, 2), number(0.3)])


def portfolio() -> Case:
    x, mean, root = cp.Variable(4), cp.Parameter(4), cp.Parameter((4, 4))
    problem = cp.Problem(cp.Maximize(mean @ x - cp.sum_squares(root @ x)), [cp.sum(x) == 1, x >= 0])
    return Case(problem, [mean, root], [x], [draw(4), draw(4, 4, seed=1)])


def risk_cone() -> Case:
    x, mean = cp.Variable(4), cp.Parameter(4)
    limit = cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Maximize(mean @ x), [cp.sum(x) == 1, cp.norm(np.diag([1.0, 2.0, 1.5, 1.2]) @ x) <= limit])
    return Case(problem, [mean, limit], [x], [draw(4), number(1.3)])


def simplex_projection() -> Case:
    x, p = cp.Variable(4), cp.Parameter(4)
    total = cp.sum(x) == 1
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [total, x >= 0])
    return Case(problem, [p], [x, total.dual_variables[0]], [draw(3, 4)])


def polyhedral_projection() -> Case:
    x, p, G, h = cp.Variable(3), cp.Parameter(3), cp.Parameter((4, 3)), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [G @ x <= h])
    return Case(problem, [p, G, h], [x], [2 * draw(3), draw(4, 3, seed=1), draw(4, seed=2).abs()])


def semidefinite() -> Case:
    X, C = cp.Variable((3, 3), PSD=True), cp.Parameter((3, 3))
    return Case(cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.diag(X) == 1]), [C], [X], [2 * draw(3, 3)])


def entropy() -> Case:
    x, p = cp.Variable(3), cp.Parameter(3)
    return Case(cp.Problem(cp.Maximize(cp.sum(cp.entr(x)) + p @ x), [cp.sum(x) == 1]), [p], [x], [draw(3)])


def power() -> Case:
    x, p = cp.Variable(3), cp.Parameter(3)
    constraints = [cp.PowCone3D(x[0], x[1], x[2], 0.3), cp.sum_squares(x) <= 1]
    return Case(cp.Problem(cp.Minimize(p @ x), constraints), [p], [x], [-draw(3, seed=4).abs()])


def quadratic_form() -> Case:
    x, p, Q = cp.Variable(3), cp.Parameter(3), cp.Parameter((3, 3), PSD=True)
    root = draw(3, 3)
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, Q) + p @ x), [x <= 0.1])
    return Case(problem, [p, Q], [x], [draw(3, seed=1), root @ root.mT + torch.eye(3, dtype=f64)])


def geometric() -> Case:
    # The example of cvxpylayers' README.
    x, y, z = (cp.Variable(pos=True) for _ in range(3))
    a, b, c = cp.Parameter(pos=True), cp.Parameter(pos=True), cp.Parameter()
    problem = cp.Problem(cp.Minimize(1 / (x * y * z)), [a * (x * y + x * z + y * z) <= b, x >= y**c])
    return Case(problem, [a, b, c], [x, y, z], [number(2.0), number(1.0), number(0.5)], gp=True)


CASES = [
    *(least_squares, unconstrained, lasso, ridge_logistic, portfolio, risk_cone, simplex_projection),
    *(polyhedral_projection, semidefinite, entropy, power, quadratic_form, geometric),
]
every = pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)


def layer_of(case: Case, **options: Any) -> CvxpyLayer:
    return CvxpyLayer(case.problem, case.parameters, case.variables, gp=case.gp, **options)


@every
def test_solutions_are_those_of_cvxpy(make: Callable[[], Case]) -> None:
    case = make()
    solution = layer_of(case).solve(*case.values)
    batched = case.values[0].ndim > len(case.parameters[0].shape)
    for parameter, value in zip(case.parameters, case.values, strict=True):
        parameter.value = host(value[0] if batched else value)
    case.problem.solve(solver=cp.CLARABEL, gp=case.gp, **({} if case.gp else {"tol_gap_rel": 1e-12}))
    for variable, found in zip(case.variables, solution.variables, strict=True):
        assert np.allclose(host(found[0] if batched else found), variable.value, atol=2e-4)
    assert abs(float(solution.objective[0]) - case.problem.value) < 1e-5
    assert solution.residual.max() < 1e-12
    assert solution.gap.max() < 1e-10
    assert solution.converged.all()


@every
@pytest.mark.filterwarnings("ignore::implicit_l2o.interop.cvxpy.ZeroGradientWarning")
def test_the_exact_gradient(make: Callable[[], Case]) -> None:
    case = make()
    layer = layer_of(case)
    values = [value.requires_grad_() for value in case.values]
    if case.parameters[-1].attributes.get("PSD"):  # what is perturbed has to stay symmetric

        def function(*values: Tensor) -> tuple[Tensor, ...]:
            return layer(*values[:-1], (values[-1] + values[-1].mT) / 2)
    else:
        function = layer
    assert torch.autograd.gradcheck(function, values, eps=1e-6, atol=1e-5, rtol=1e-4)


@every
def test_the_fixed_point_of_the_splitting_is_recovered(make: Callable[[], Case]) -> None:
    """`T(z) = z` for the `z` of an interior-point solution, in closed form."""
    case = make()
    layer = layer_of(case)
    layer(*case.values)
    assert layer._last is not None
    programs, points = layer._last
    splitting = ConicSplitting.of(programs)
    z = splitting.lift(torch.as_tensor(points.x), torch.as_tensor(points.w))
    assert (splitting(z) - z).norm() < 1e-8 * (1 + z.norm())
    x, w = splitting.point(z)
    assert torch.allclose(x, torch.as_tensor(points.x))
    assert torch.allclose(w, torch.as_tensor(points.w), atol=1e-9)


@every
def test_modes_of_the_splitting_approach_the_exact_gradient(make: Callable[[], Case]) -> None:
    """An iterative solve of the adjoint on `T` gives the exact gradient; JFB is the first term of its series."""
    case = make()
    values = [value.requires_grad_() for value in case.values]

    def gradient(backward: il2o.AbstractBackward) -> Tensor:
        # Only x: the multipliers of T are read off its second part, which one step of JFB weighs differently.
        x = layer_of(case, backward=backward)(*values)[0]
        weights = torch.linspace(0.5, 1.5, x.numel(), dtype=f64).reshape(x.shape)
        return torch.cat([g.flatten() for g in torch.autograd.grad((x * weights).sum(), values)])

    exact = gradient(il2o.Implicit())
    krylov = gradient(il2o.Implicit(il2o.GMRES(rtol=1e-10, restart=60)))
    assert torch.allclose(krylov, exact, rtol=1e-4, atol=1e-5 * float(exact.norm()))


def test_jfb_and_neumann_are_what_they_say() -> None:
    """Against autograd through the splitting map itself, written out with dense matrices."""
    x, p, G, h = cp.Variable(3), cp.Parameter(3), cp.Parameter((4, 3)), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, np.eye(3)) - 2 * p @ x), [G @ x <= h])
    case = Case(problem, [p, G, h], [x], [2 * draw(3), draw(4, 3, seed=1), draw(4, seed=2).abs()])
    p, G, h = (value.requires_grad_() for value in case.values)
    for backward, terms in ((il2o.JFB(), 0), (il2o.Neumann(3), 3)):
        layer = layer_of(case, backward=backward)
        (x,) = layer(p, G, h)
        found = torch.autograd.grad(x.square().sum(), (p, G, h))
        assert layer._last is not None
        programs, points = layer._last
        fixed = ConicSplitting.of(programs)
        z = fixed.lift(torch.as_tensor(points.x), torch.as_tensor(points.w))

        def step(z: Tensor, p: Tensor, G: Tensor, h: Tensor, fixed: ConicSplitting = fixed) -> Tensor:
            x, v = z[:, :3], z[:, 3:]
            s = v.clamp(min=0)
            rho, sigma = fixed.rho[0], fixed.sigma[0]
            H = 2 * torch.eye(3, dtype=f64) + torch.diag(sigma) + G.mT @ (rho[:, None] * G)
            right = sigma * x[0] + 2 * p + G.mT @ (rho * (h - 2 * s[0] + v[0]))
            ahead = torch.linalg.solve(H, right)
            return torch.cat([ahead, v[0] + h - G @ ahead - s[0]])[None]

        assert programs.canonical.n == 3  # x alone: nothing was lifted
        image = step(z, p, G, h)
        assert torch.allclose(image, z, atol=1e-9)
        J = torch.autograd.functional.jacobian(lambda z: step(z, p, G, h)[0], z)[:, 0]
        v = torch.cat([2 * x.detach(), torch.zeros(4, dtype=f64)])
        series = sum((v @ torch.linalg.matrix_power(J, k) for k in range(terms + 1)), torch.zeros_like(v))
        expected = torch.autograd.grad(image[0], (p, G, h), series)
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-8)


@every
def test_the_splitting_solves_as_well(make: Callable[[], Case]) -> None:
    case = make()
    inner = layer_of(case).solve(*case.values)
    split = layer_of(case, solver="splitting").solve(*case.values)
    assert split.converged.all()
    for one, other in zip(inner.variables, split.variables, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_batches_and_dtypes() -> None:
    case = portfolio()
    layer = layer_of(case)
    means, root = draw(5, 4, seed=7), case.values[1]
    (together,) = layer(means, root)
    assert together.shape == (5, 4)
    for i in range(5):
        assert torch.allclose(layer(means[i], root)[0], together[i], atol=1e-12)
        assert torch.allclose(layer(means[i : i + 1], root[None])[0][0], together[i], atol=1e-12)
    assert torch.equal(layer_of(case, workers=2)(means, root)[0], together)
    split = layer_of(case, solver="splitting")
    first = split.solve(means, root)
    again = split.solve(means, root, warm_start=True)
    assert torch.allclose(again.variables[0], together, atol=1e-10)
    assert again.steps.sum() < first.steps.sum()
    (narrow,) = layer(means.float(), root.float())
    assert narrow.dtype == torch.float32
    assert torch.allclose(narrow, together.float(), atol=1e-5)
    # A shared parameter receives the sum of the samples' gradients.
    shared, apart = root.clone().requires_grad_(), root.expand(5, 4, 4).clone().requires_grad_()
    layer(means, shared)[0].square().sum().backward()
    layer(means, apart)[0].square().sum().backward()
    assert torch.allclose(shared.grad, apart.grad.sum(0), atol=1e-10)


def test_lifted_bounds_are_honoured() -> None:
    """cvxpylayers 1.2.0 with Moreau 0.4.1 returned (1.5, -0.5) here."""
    p = cp.Parameter(2)
    for x, constraints in (
        (cp.Variable(2), "x >= 0"),
        (cp.Variable(2, nonneg=True), ""),
        (cp.Variable(2, bounds=[0, None]), ""),
    ):
        rows = [cp.sum(x) == 1, *([x >= 0] if constraints else [])]
        (nearest,) = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), rows), [p], [x])(
            torch.tensor([2.0, 0.0], dtype=f64)
        )
        assert torch.allclose(nearest, torch.tensor([1.0, 0.0], dtype=f64), atol=1e-9)


def test_infeasible_unbounded_and_nan_samples_are_told_apart() -> None:
    x, b, c = cp.Variable(), cp.Parameter(), cp.Parameter()
    problem = cp.Problem(cp.Minimize(c * x), [x >= 0, x <= 1, x >= b])
    free = cp.Problem(cp.Minimize(c * x), [x >= b])
    bs = torch.tensor([0.5, 2.0, torch.nan], dtype=f64, requires_grad=True)
    for solver in ("clarabel", "splitting"):
        solution = CvxpyLayer(problem, [b, c], [x], on_failure="ignore", solver=solver).solve(bs, number(1.0))
        expected = [il2o.Status.CONVERGED, il2o.Status.INFEASIBLE, il2o.Status.NONFINITE]
        assert solution.status.tolist() == [int(status) for status in expected]
        (gradient,) = torch.autograd.grad(solution.variables[0].sum(), bs)
        assert torch.allclose(gradient, torch.tensor([1.0, 0.0, 0.0], dtype=f64))
        assert "infeasible" in solution.message(1)
        unbounded = CvxpyLayer(free, [b, c], [x], on_failure="ignore", solver=solver).solve(number(0.0), number(-1.0))
        assert unbounded.status.tolist() == [int(il2o.Status.DIVERGED)]
        assert "unbounded" in unbounded.message(0)
    with pytest.warns(il2o.ConvergenceWarning, match="2 of 3 samples were not solved"):
        CvxpyLayer(problem, [b, c], [x])(bs.detach(), number(1.0))
    with pytest.raises(il2o.ConvergenceError, match="sample 0: INFEASIBLE"):
        CvxpyLayer(problem, [b, c], [x], on_failure="raise")(number(3.0), number(1.0))


def test_a_vertex_is_reported() -> None:
    x, c = cp.Variable(3), cp.Parameter(3)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == 1, x >= 0]), [c], [x])
    costs = draw(2, 3).requires_grad_()
    solution = layer.solve(costs)
    with pytest.warns(ZeroGradientWarning, match="every sample of this batch of 2 is zero"):
        (solution.variables[0] * draw(3)).sum().backward()
    assert solution.gradient.zero is not None
    assert solution.gradient.zero.all()
    assert costs.grad.abs().max() < 1e-20


def test_a_gradient_that_does_not_exist_is_reported() -> None:
    """`max(0, h)` at zero: the multiplier of the constraint vanishes, and both of its sides have equations of their own."""
    x, h = cp.Variable(), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(x**2), [x == h, 2 * x == 2 * h]), [h], [x])
    value = number(1.0).requires_grad_()
    solution = layer.solve(value)
    assert solution.gradient.solved is None  # nothing is known before a backward pass
    solution.variables[0].backward()
    # The same equation twice is singular and consistent: the gradient exists.
    assert float(value.grad) == pytest.approx(1.0, abs=1e-7)
    assert solution.gradient.solved is not None
    assert solution.gradient.solved.all()

    h, weight = cp.Parameter(2), cp.Parameter(2)
    twice = cp.Problem(cp.Minimize(weight @ cp.hstack([x, 0])), [x >= h[0], x >= h[1]])
    layer = CvxpyLayer(twice, [h, weight], [x])
    values = torch.ones(2, dtype=f64, requires_grad=True)
    solution = layer.solve(values, torch.tensor([0.0, 0.0], dtype=f64))  # any x >= 1 is a solution
    with warnings.catch_warnings():
        warnings.simplefilter("error", il2o.ConvergenceWarning)
        warnings.simplefilter("ignore", ZeroGradientWarning)
        caught: list[str] = []
        try:
            solution.variables[0].backward()
        except il2o.ConvergenceWarning as warning:
            caught.append(str(warning))
    assert caught
    assert "not differentiable" in caught[0]


# What follows are the kinds of problems of cvxpylayers' own tests, called as there.


def test_logistic_regression_with_hstacks() -> None:
    X, weight, a = cp.Parameter((5, 2)), cp.Parameter(1, nonneg=True), cp.Variable((2, 1))
    labels = (draw(5, 1, seed=5) > 0).double().numpy()
    rows = cp.hstack([np.zeros((5, 1)), X @ a]).T
    likelihood = cp.sum(cp.multiply(labels, X @ a) - cp.log_sum_exp(rows, axis=0, keepdims=True).T)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(-likelihood + weight * cp.sum_squares(a))), [X, weight], [a])
    values = (draw(5, 2).requires_grad_(), torch.tensor([0.1], dtype=f64, requires_grad=True))
    assert torch.autograd.gradcheck(layer, values, atol=1e-4)


def test_two_sided_entropy() -> None:
    x, y = cp.Parameter(4), cp.Variable(4)
    objective = -x @ y - cp.sum(cp.entr(y)) - cp.sum(cp.entr(1.0 - y))
    layer = CvxpyLayer(cp.Problem(cp.Minimize(objective), [cp.sum(y) == 2]), [x], [y])
    assert torch.autograd.gradcheck(layer, torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=f64, requires_grad=True))


def test_symmetric_parameter_of_a_semidefinite_program() -> None:
    X, C = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3), symmetric=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.trace(C @ X)), [X >> 0, cp.trace(X) == 1]), [C], [X])
    value = torch.tensor([[2.0, 0.5, 0.1], [0.5, 3.0, 0.2], [0.1, 0.2, 1.5]], dtype=f64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (value,), atol=1e-4, rtol=1e-3)
    # The least eigenvector is the answer.
    _, vectors = torch.linalg.eigh(value.detach())
    assert torch.allclose(layer(value)[0], vectors[:, :1] @ vectors[:, :1].mT, atol=1e-8)


def test_a_batch_of_second_order_programs() -> None:
    root, q = cp.Parameter((3, 3)), cp.Parameter((3, 1))
    A, b, x = cp.Parameter((1, 3)), cp.Parameter((1, 1)), cp.Variable((3, 1))
    objective = 0.5 * cp.sum_squares(root @ x) + q.T @ x
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(objective), [A @ x == b, cp.norm(x) <= 1]), [root, q, A, b], [x], solver="SCS"
    )
    values = [draw(2, 3, 3), draw(2, 3, 1, seed=1), draw(2, 1, 3, seed=2), 0.3 * draw(2, 1, 1, seed=3)]
    assert torch.autograd.gradcheck(layer, [value.requires_grad_() for value in values], atol=1e-5, rtol=1e-4)


def test_options_of_other_solvers_are_understood() -> None:
    A, x = cp.Parameter((10, 5)), cp.Variable(5)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - np.arange(10)))), [A], [x])
    value = draw(10, 5)
    (found,) = layer(value, solver_args={"eps": 1e-10, "acceleration_lookback": 0, "max_iters": 10000})
    expected = torch.linalg.lstsq(value, torch.arange(10, dtype=f64)[:, None]).solution[:, 0]
    assert torch.allclose(found, expected, atol=1e-10)
    (again,) = layer(value, warm_start=True)
    assert torch.allclose(again, found)


def test_certificates_carry_the_text_of_the_constraints() -> None:
    x, p = cp.Variable(3, name="x"), cp.Parameter(3, name="p")
    constraints = [cp.sum(x) == 1, x >= 0, cp.norm(x) <= 0.9]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), constraints), [p], [x])
    before = np.array([7.0, 7.0, 7.0])
    x.value = before
    solution, report = layer.infer(draw(4, 3))
    assert report.names[:3] == tuple(str(constraint) for constraint in constraints)
    assert report.names[3:] == ("duality gap", "optimality residual")
    assert report.trusted.all()
    assert np.array_equal(x.value, before)
    # A wrong answer is found out, by the constraint that it breaks.
    solution.everything[x.id][0] = torch.tensor([2.0, 0.0, -1.0], dtype=f64)
    from implicit_l2o.interop.cvxpy import CvxpyViolation

    inference = il2o.Inference(x=solution.everything[x.id], data=solution)
    violations = [float(CvxpyViolation(c, (p,))(inference)[0]) for c in constraints]
    assert violations == pytest.approx([0.0, 1.0, 5**0.5 - 0.9])


def test_sparse_problems_take_sparse_factors() -> None:
    n = 300
    x, c = cp.Variable(n), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) / 2 + c @ x), [cp.diff(x) <= 0.1, x >= -1])
    layer, costs = CvxpyLayer(problem, [c], [x]), draw(2, n).requires_grad_()
    (solution,) = layer(costs)
    assert layer._last is not None
    assert layer._last[0].sparse
    direction, step = draw(2, n, seed=3), 1e-6
    numeric = (layer(costs.detach() + step * direction)[0] - layer(costs.detach() - step * direction)[0]) / (2 * step)
    weights = draw(2, n, seed=4)
    (gradient,) = torch.autograd.grad((solution * weights).sum(), costs)
    assert float((gradient * direction).sum()) == pytest.approx(float((numeric * weights).sum()), rel=1e-5)
    split = CvxpyLayer(problem, [c], [x], backward=il2o.JFB(), solver="splitting")(costs)[0]
    assert torch.allclose(split, solution, atol=1e-6)
    split.sum().backward()
    assert torch.isfinite(costs.grad).all()


def test_large_curved_cones_take_sparse_factors() -> None:
    """A second-order cone of many entries, exponential and power cones and a matrix in one sparse problem."""
    n = 150
    x, c, X = cp.Variable(n), cp.Parameter(n), cp.Variable((2, 2), symmetric=True)
    rows = [
        cp.norm(x[:100] - 0.1) <= 2,
        cp.sum(x) == 1,
        x >= -0.2,
        X >> 0,
        X[0, 1] == x[0],
        X[0, 0] + X[1, 1] == 1,
        cp.PowCone3D(X[0, 0], X[1, 1], x[1], 0.4),
    ]
    curved = cp.sum(cp.exp(x[100:])) + cp.sum_squares(x) / 2
    layer = CvxpyLayer(cp.Problem(cp.Minimize(curved + c @ x), rows), [c], [x, X])
    costs = (0.5 * draw(2, n)).requires_grad_()
    solution = layer.solve(costs)
    assert solution.residual.max() < 1e-11
    assert layer._last is not None
    assert layer._last[0].sparse
    direction, step, weights = draw(2, n, seed=3), 1e-5, draw(2, n, seed=4)
    ends = [layer(costs.detach() + sign * step * direction)[0] for sign in (1, -1)]
    numeric = ((ends[0] - ends[1]) / (2 * step) * weights).sum()
    (gradient,) = torch.autograd.grad((solution.variables[0] * weights).sum(), costs)
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=1e-5)


@pytest.mark.bad_input
def test_problems_that_are_none() -> None:
    x, a, b = cp.Variable(), cp.Parameter(name="a"), cp.Parameter(name="b")
    good = cp.Problem(cp.Minimize(cp.square(x - a)))
    with pytest.raises(ValueError, match=r"Problem must be DPP.*Not DPP"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x) + a * b * x)), [a, b], [x])
    with pytest.raises(ValueError, match="Problem must be DCP"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.sqrt(x) + a * x)), [a], [x])
    with pytest.raises(ValueError, match=r"missing: \['a'\], not in it: \['b'\]"):
        CvxpyLayer(good, [b], [x])
    with pytest.raises(ValueError, match=r"must be a subset of problem.variables"):
        CvxpyLayer(good, [a], [cp.Variable()])
    y = cp.Variable(boolean=True)
    with pytest.raises(NotImplementedError, match="boolean or integer"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.square(y - a))), [a], [y])
    with pytest.raises(TypeError, match=r"takes a cvxpy.Problem; got int"):
        CvxpyLayer(3, [a], [x])
    with pytest.raises(ValueError, match="has the solvers auto, batched, splitting, clarabel; got solver='GUROBI'"):
        CvxpyLayer(good, [a], [x], solver="GUROBI")
    with pytest.raises(ValueError, match=r"Unrolled\(k\) differentiates the splitting.*got solver='clarabel'"):
        CvxpyLayer(good, [a], [x], solver="clarabel", backward=il2o.Unrolled(3))
    with pytest.raises(TypeError, match="GMRES or a fixed-point solver; got NormalCG"):
        CvxpyLayer(good, [a], [x], backward=il2o.Implicit(il2o.NormalCG()))
    with pytest.raises(ValueError, match="tolerance > 0; got tolerance=0"):
        CvxpyLayer(good, [a], [x], tolerance=0)


@pytest.mark.bad_input
def test_values_that_do_not_fit() -> None:
    x, a, b = cp.Variable(2), cp.Parameter(2, name="a"), cp.Parameter(nonneg=True, name="b")
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a) + b * cp.norm1(x))), [a, b], [x])
    one = torch.ones(())
    with pytest.raises(ValueError, match="received 1 tensors, expected 2: a, b"):
        layer(torch.ones(2))
    with pytest.raises(
        ValueError, match=r"Invalid parameter shape for parameter 0 \('a'\): expected \(2,\) or \(B, 2\); got \(3,\)"
    ):
        layer(torch.ones(3), one)
    with pytest.raises(ValueError, match=r"Inconsistent batch sizes.*a: 4, b: 3"):
        layer(torch.ones(4, 2), torch.ones(3))
    with pytest.raises(ValueError, match=r"must be nonnegative: parameter 1 \('b'\) has -1"):
        layer(torch.ones(2), -one)
    with pytest.raises(TypeError, match=r"floating-point tensors; got torch.int64 for parameter 0"):
        layer(torch.ones(2, dtype=torch.int64), one)
    with pytest.raises(TypeError, match="unrecognized solver setting 'epsilon'"):
        layer(torch.ones(2), one, solver_args={"epsilon": 1})
    Q = cp.Parameter((2, 2), PSD=True, name="Q")
    quadratic = CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(x, Q))), [Q], [x])
    with pytest.raises(ValueError, match=r"must be positive semidefinite: parameter 0 .* has the eigenvalue -1"):
        quadratic(-torch.eye(2))
    with pytest.raises(ValueError, match="must be symmetric"):
        quadratic(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
