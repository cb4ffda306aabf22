"""The problems of cvxpylayers' own tests of its PyTorch layer, stated anew and checked by the same measures.

Each test names those it stands for (`test_torch.py`, `test_dual_variables.py` of cvxpylayers). Where a check of theirs is
of a behaviour that is deliberately another one here, the test says which. Their own files are run by
`benchmarks.cvxpy_peer_tests`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import implicit_l2o as il2o

cp = pytest.importorskip("cvxpy", reason="cvxpy is in the extra 'cvxpy'")

from implicit_l2o.interop.cvxpy import CvxpyLayer, ZeroGradientWarning  # noqa: E402

f64 = torch.float64
gradcheck = torch.autograd.gradcheck


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed))


def leaf(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=f64).clone().requires_grad_()


def agrees(
    problem: Any, parameters: list[Any], values: list[Tensor], pairs: list[tuple[Tensor, Any]], **how: Any
) -> None:
    """What the layer returned is what CVXPY finds, for one sample."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.value = value.detach().numpy().reshape(parameter.shape)
    problem.solve(solver=cp.CLARABEL, **how)
    for found, expected in pairs:
        assert np.allclose(found.detach().numpy().ravel(), np.ravel(expected.value), rtol=1e-3, atol=1e-4)


def one_norm() -> tuple[Any, list[Any], Any]:
    x, A, b = cp.Variable(2), cp.Parameter((3, 2)), cp.Parameter(3)
    return cp.Problem(cp.Minimize(cp.norm1(A @ x - b) / 2), [x >= 0]), [A, b], x


def ridge(m: int = 100, n: int = 20) -> CvxpyLayer:
    x, A, b = cp.Variable(n), cp.Parameter((m, n)), cp.Parameter(m)
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + cp.sum_squares(x))), [A, b], [x])


def ridge_solution(A: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.solve(A.mT @ A + torch.eye(A.shape[-1], dtype=f64), (A.mT @ b[..., None]))[..., 0]


def test_the_example_of_the_readme() -> None:
    """test_example, test_no_grad_context, test_requires_grad_false."""
    problem, parameters, x = one_norm()
    layer = CvxpyLayer(problem, parameters=parameters, variables=[x])
    A, b = leaf(draw(3, 2)), leaf(draw(3, seed=1))
    (solution,) = layer(A, b)
    solution.sum().backward()
    assert torch.isfinite(A.grad).all()
    assert not layer(A.detach(), b.detach())[0].requires_grad
    with torch.no_grad():
        assert not layer(A, b)[0].requires_grad


def test_a_batch_of_cone_programs() -> None:
    """test_simple_batch_socp (which they skip)."""
    root, q, A, b = cp.Parameter((3, 3)), cp.Parameter((3, 1)), cp.Parameter((1, 3)), cp.Parameter((1, 1))
    x = cp.Variable((3, 1))
    objective = cp.sum_squares(root @ x) / 2 + q.T @ x
    layer = CvxpyLayer(cp.Problem(cp.Minimize(objective), [A @ x == b, cp.norm(x) <= 1]), [root, q, A, b], [x])
    shapes = ((2, 3, 3), (2, 3, 1), (2, 1, 3))
    values = [draw(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
    assert gradcheck(layer, [*values, (0.2 * draw(2, 1, 1, seed=3)).requires_grad_()], atol=1e-5, rtol=1e-3)


def test_least_squares() -> None:
    """test_least_squares, test_least_squares_custom_method (an option that cvxpylayers has no more)."""
    A, b = leaf(draw(100, 20)), leaf(draw(100, seed=1))
    ours = torch.autograd.grad(ridge()(A, b, solver_args={"eps": 1e-10})[0].sum(), (A, b))
    for found, expected in zip(ours, torch.autograd.grad(ridge_solution(A, b).sum(), (A, b)), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)


def test_broadcasting() -> None:
    """test_broadcasting: one matrix for two right-hand sides."""
    A, b = leaf(draw(100, 20)), draw(100, seed=1)
    twice = leaf(torch.stack([b, b]))
    of_A, of_b = torch.autograd.grad(ridge()(A, twice, solver_args={"eps": 1e-10})[0].sum(), (A, twice))
    b = leaf(b)
    expected_A, expected_b = torch.autograd.grad(ridge_solution(A, b).sum(), (A, b))
    assert torch.allclose(of_A / 2, expected_A, atol=1e-6)
    assert torch.allclose(of_b[0], expected_b, atol=1e-6)


def test_logistic_regression() -> None:
    """test_logistic_regression."""
    rng = np.random.default_rng(0)
    features, truth = rng.standard_normal((5, 2)), rng.standard_normal((2, 1))
    labels = np.round(1 / (1 + np.exp(-(features @ truth + rng.standard_normal((5, 1)) / 2))))
    a, X, weight = cp.Variable((2, 1)), cp.Parameter((5, 2)), cp.Parameter(1, nonneg=True)
    rows = cp.hstack([np.zeros((5, 1)), X @ a])
    likelihood = cp.sum(cp.multiply(labels, X @ a) - cp.log_sum_exp(rows.T, axis=0, keepdims=True).T)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(weight * cp.sum_squares(a) - likelihood)), [X, weight], [a])
    assert gradcheck(layer, (leaf(features), leaf([0.1])), atol=1e-4)


def test_largest_entropy() -> None:
    """test_entropy_maximization (which they skip)."""
    A, b, F, g, x = cp.Parameter((3, 5)), cp.Parameter(3), cp.Parameter((2, 5)), cp.Parameter(2), cp.Variable(5)
    objective = cp.sum(cp.entr(x)) - 0.01 * cp.sum_squares(x)
    layer = CvxpyLayer(cp.Problem(cp.Maximize(objective), [A @ x == b, F @ x <= g]), [A, b, F, g], [x])
    point = draw(5).abs() + 0.1
    of_A, of_F = draw(3, 5, seed=1), draw(2, 5, seed=2)
    values = [leaf(of_A), leaf(of_A @ point), leaf(of_F), leaf(of_F @ point + draw(2, seed=3).abs())]
    assert gradcheck(layer, values, atol=1e-4, rtol=1e-3)


def test_largest_k() -> None:
    """test_lml: the entropic projection onto vectors that sum to k."""
    x, y = cp.Parameter(4), cp.Variable(4)
    entropies = cp.sum(cp.entr(y)) + cp.sum(cp.entr(1.0 - y))
    layer = CvxpyLayer(cp.Problem(cp.Minimize(-x @ y - entropies), [cp.sum(y) == 2]), [x], [y])
    assert gradcheck(layer, leaf([1.0, -1.0, -1.0, -1.0]), atol=1e-3)


def semidefinite(n: int) -> tuple[Any, Any, Any, Any]:
    X, C = cp.Variable((n, n), symmetric=True), cp.Parameter((n, n), symmetric=True)
    positive = X >> 0
    return cp.Problem(cp.Minimize(cp.trace(C @ X)), [positive, cp.trace(X) == 1]), C, X, positive.dual_variables[0]


def test_semidefinite_programs() -> None:
    """test_sdp, test_psd_constraint_dual, test_psd_gradcheck."""
    problem, C, X, _ = semidefinite(3)
    value = leaf([[2.0, 0.5, 0.1], [0.5, 3.0, 0.2], [0.1, 0.2, 1.5]])
    assert gradcheck(CvxpyLayer(problem, [C], [X]), value, atol=1e-4, rtol=1e-3)
    problem, C, X, dual = semidefinite(2)
    value, layer = leaf([[1.0, 0.5], [0.5, 2.0]]), CvxpyLayer(problem, [C], [X, dual])
    agrees(problem, [C], [value], list(zip(layer(value), [X, dual], strict=True)))
    assert gradcheck(lambda v: layer(v)[1].sum(), value, atol=1e-4, rtol=1e-3)


@pytest.mark.bad_input
def test_parameters_and_variables_that_do_not_match() -> None:
    """test_not_enough_parameters, ..._at_call_time, test_too_many_variables, test_none_parameter_at_call_time.

    None where a tensor is expected is a TypeError here, an AttributeError there.
    """
    x, first, second = cp.Variable(1), cp.Parameter(1, nonneg=True), cp.Parameter(1, nonneg=True)
    problem = cp.Problem(cp.Minimize(first * cp.norm1(x) + second * cp.sum_squares(x)))
    with pytest.raises(ValueError, match=r"must exactly match problem\.parameters"):
        CvxpyLayer(problem, [first], [x])
    layer = CvxpyLayer(problem, [first, second], [x])
    with pytest.raises(ValueError, match="A tensor must be provided for each CVXPY parameter"):
        layer(torch.ones(1))
    with pytest.raises(TypeError, match="got NoneType for parameter 1"):
        layer(torch.ones(1), None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"must be a subset of problem\.variables"):
        CvxpyLayer(problem, [first, second], [x, cp.Variable(1)])


@pytest.mark.bad_input
def test_shapes_that_do_not_fit() -> None:
    """test_incorrect_parameter_shape."""
    layer = ridge()
    wrong = [
        ((32, 100, 20), (20, 100), "Inconsistent batch sizes"),
        ((32, 100, 20), (32, 200), "Invalid parameter shape"),
        ((100, 20), (200,), "Invalid parameter shape"),
        ((32, 100, 20), (32, 32, 100), "Invalid parameter dimensionality"),
    ]
    for of_A, of_b, message in wrong:
        with pytest.raises(ValueError, match=message):
            layer(torch.zeros(*of_A, dtype=f64), torch.zeros(*of_b, dtype=f64))


def test_infeasible_and_unbounded() -> None:
    """test_infeasible, test_unbounded: an exception of the solver there; a status, and an exception by option, here."""
    x, p = cp.Variable(1), cp.Parameter(1)
    for problem, status in (
        (cp.Problem(cp.Minimize(p), [x >= 1, x <= -1]), il2o.Status.INFEASIBLE),
        (cp.Problem(cp.Minimize(x), [x <= p]), il2o.Status.DIVERGED),
    ):
        solution = CvxpyLayer(problem, [p], [x], on_failure="ignore").solve(torch.ones(1))
        assert solution.status.tolist() == [int(status)]
        with pytest.raises(il2o.ConvergenceError, match=status.name):
            CvxpyLayer(problem, [p], [x], on_failure="raise")(torch.ones(1))


def test_a_parameter_of_two_layers() -> None:
    """test_shared_parameter."""
    A, x, value = cp.Parameter((10, 5)), cp.Variable(5), leaf(draw(10, 5))
    sides = draw(2, 10, seed=1).numpy()
    layers = [CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - side))), [A], [x]) for side in sides]
    options = {"eps": 1e-10, "acceleration_lookback": 0, "max_iters": 10000}
    assert gradcheck(lambda v: torch.cat([layer(v, solver_args=options)[0] for layer in layers]), value)


def test_an_equation_alone() -> None:
    """test_equality."""
    x, b = cp.Variable(10), cp.Parameter(10)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x)), [np.eye(10) @ x == b]), parameters=[b], variables=[x])
    assert gradcheck(layer, leaf(draw(10)))


def volume() -> tuple[Any, list[Any], list[Any]]:
    x, y, z = (cp.Variable(pos=True) for _ in range(3))
    a, b, c = cp.Parameter(pos=True), cp.Parameter(pos=True), cp.Parameter()
    rows = [a * (x * y + x * z + y * z) <= b, x >= y**c]
    return cp.Problem(cp.Minimize(1 / (x * y * z)), rows), [a, b, c], [x, y, z]


def test_a_geometric_program() -> None:
    """test_basic_gp, test_gp_without_param_values: parameters without values of their own."""
    problem, parameters, variables = volume()
    layer = CvxpyLayer(problem, parameters=parameters, variables=variables, gp=True)
    values = [leaf([2.0]), leaf([1.0]), leaf([0.5])]
    found = layer(*values)
    agrees(problem, parameters, values, list(zip(found, variables, strict=True)), gp=True)
    assert gradcheck(lambda *v: layer(*v, solver_args={"acceleration_lookback": 0})[0].sum(), values, atol=1e-4)


def test_a_batch_of_geometric_programs() -> None:
    """test_batched_gp."""
    problem, parameters, variables = volume()
    layer = CvxpyLayer(problem, parameters=parameters, variables=variables, gp=True)
    values = [leaf([2.0, 1.5, 2.5, 1.8]), leaf([1.0, 1.2, 0.8, 1.5]), leaf([0.5, 0.6, 0.4, 0.5])]
    found = layer(*values)
    assert [part.shape for part in found] == [(4,)] * 3
    for sample in range(4):
        own = [(part[sample], variable) for part, variable in zip(found, variables, strict=True)]
        agrees(problem, parameters, [value[sample] for value in values], own, gp=True)
    assert gradcheck(lambda *v: layer(*v)[0].sum(), values, atol=1e-3, rtol=1e-3)


def test_a_batch_of_one() -> None:
    """test_batch_size_one_preserves_batch_dimension."""
    x, b = cp.Variable(3), cp.Parameter(3)
    layer, value = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - b))), [b], [x]), leaf(draw(1, 3))
    (found,) = layer(value)
    found.sum().backward()
    assert found.shape == value.grad.shape == (1, 3)


def test_options_of_the_solver_reach_it() -> None:
    """test_solver_args_actually_used: a limit of one step there gives a bad answer.

    Here an answer is polished, and limits of first-order methods are not those of an interior-point method: a limit in
    Clarabel's own name is what cuts a solve short.
    """
    x, A, b = cp.Variable(20), cp.Parameter((50, 20)), cp.Parameter(50)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + 0.01 * cp.norm1(x)), [x >= 0])
    values = [draw(50, 20), draw(50, seed=1)]
    layer = CvxpyLayer(problem, [A, b], [x], solver="clarabel", polish=0, on_failure="ignore")
    (short,), (whole,) = layer(*values, solver_args={"max_iter": 1}), layer(*values)
    assert (short - whole).norm() > 1e-3
    assert torch.allclose(layer(*values, solver_args={"max_iters": 10000, "eps": 1e-10})[0], whole, atol=1e-6)


def test_a_matrix_of_variables() -> None:
    """test_nd_array_variable."""
    A, b, x = cp.Parameter((50, 20)), cp.Parameter((50, 10)), cp.Variable((20, 10))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + 0.01 * cp.sum_squares(x)))
    values = [draw(50, 20), draw(50, 10, seed=1)]
    (found,) = CvxpyLayer(problem, [A, b], [x])(*values)
    agrees(problem, [A, b], values, [(found, x)])


# Parameters in the matrix of a quadratic form. There they need Moreau (test_quad_form_psd_rejects_diffcp), here nothing.

MOREAU = {"tol": 1e-12, "max_iters": 500}


def form(
    matrix: Callable[[], list[Any]],
    combined: Callable[..., Any],
    bound: float | None = None,
    *,
    sense: Any = None,
    n: int = 3,
) -> CvxpyLayer:
    x, q, parts = cp.Variable(n), cp.Parameter(n), matrix()
    rows = [] if bound is None else [x >= -bound, x <= bound]
    objective = (sense or cp.Minimize)(cp.quad_form(x, combined(*parts)) / 2 + q @ x)
    return CvxpyLayer(cp.Problem(objective, rows), [*parts, q], [x], solver="MOREAU")


def psd(count: int = 1, n: int = 3) -> Callable[[], list[Any]]:
    return lambda: [cp.Parameter((n, n), PSD=True) for _ in range(count)]


def nsd(n: int = 3) -> Callable[[], list[Any]]:
    return lambda: [cp.Parameter((n, n), NSD=True)]


LINEAR = torch.tensor([1.0, -1.0, 0.5], dtype=f64)
EYE = torch.eye(3, dtype=f64)


def test_a_quadratic_form() -> None:
    """test_quad_form_psd_parameter_dpp, ..._forward, ..._different_Q, ..._with_constraints."""
    layer = form(psd(), lambda Q: Q)
    for scale in (1.0, 2.0, 3.0):
        (found,) = layer(scale * EYE, LINEAR, solver_args=MOREAU)
        assert torch.allclose(found, -LINEAR / scale, atol=1e-9)
    (inside,) = form(psd(), lambda Q: Q, 0.5)(EYE, torch.tensor([3.0, -3.0, 0.1], dtype=f64), solver_args=MOREAU)
    assert torch.allclose(inside, torch.tensor([-0.5, 0.5, -0.1], dtype=f64), atol=1e-9)


def test_gradients_of_a_quadratic_form() -> None:
    """test_quad_form_psd_gradcheck_q, ..._gradcheck_Q, ..._backward."""
    layer = form(psd(), lambda Q: Q)
    assert gradcheck(
        lambda Q, q: layer((Q + Q.mT) / 2, q, solver_args=MOREAU)[0].sum(), (leaf(2 * EYE), leaf(LINEAR)), atol=1e-6
    )


def test_a_batch_of_quadratic_forms() -> None:
    """test_quad_form_psd_batched."""
    Q, q = leaf(EYE * torch.arange(1.0, 5.0)[:, None, None]), leaf(draw(4, 3))
    (found,) = form(psd(), lambda Q: Q)(Q, q, solver_args=MOREAU)
    assert torch.allclose(found, -torch.linalg.solve(Q, q), atol=1e-9)
    found.sum().backward()
    assert torch.allclose(q.grad, -torch.linalg.inv(Q.detach()).sum(1), atol=1e-9)


def test_sums_of_quadratic_forms() -> None:
    """test_quad_form_sum_of_parameters, ..._gradcheck, ..._backward, ..._resolve, test_quad_form_multiple_quad_forms."""
    layer = form(psd(2), lambda P, Q: P + Q)
    first, second = 2 * EYE + 0.1, 3 * EYE - 0.2
    for P, Q in ((first, second), (second / 2, first)):
        (found,) = layer(P, Q, LINEAR, solver_args=MOREAU)
        assert torch.allclose(found, -torch.linalg.solve(P + Q, LINEAR), atol=1e-9)

    def function(P: Tensor, Q: Tensor) -> Tensor:
        return layer((P + P.mT) / 2, (Q + Q.mT) / 2, LINEAR, solver_args=MOREAU)[0].sum()

    assert gradcheck(function, (leaf(first), leaf(second)), atol=1e-6)
    x, q, (A, B) = cp.Variable(3), cp.Parameter(3), psd(2)()
    apart = CvxpyLayer(
        cp.Problem(cp.Minimize(cp.quad_form(x, A) / 2 + cp.quad_form(x, B) / 2 + q @ x)),
        [A, B, q],
        [x],
        solver="MOREAU",
    )
    assert torch.allclose(apart(first, second, LINEAR)[0], layer(first, second, LINEAR)[0], atol=1e-9)


def test_negative_quadratic_forms() -> None:
    """test_quad_form_negated_parameter, ..._gradcheck, test_quad_form_nsd_maximize, ..._backward."""
    layer = form(nsd(), lambda P: -P)
    assert torch.allclose(layer(-2 * EYE, LINEAR)[0], -LINEAR / 2, atol=1e-9)
    assert gradcheck(lambda P: layer((P + P.mT) / 2, LINEAR, solver_args=MOREAU)[0].sum(), leaf(-2 * EYE), atol=1e-6)
    largest = form(nsd(), lambda P: P, 1.0, sense=cp.Maximize)
    q = leaf([2.0, -2.0, 0.5])
    (found,) = largest(-EYE, q, solver_args=MOREAU)
    assert torch.allclose(found, torch.tensor([1.0, -1.0, 0.5], dtype=f64), atol=1e-9)
    found.sum().backward()
    assert torch.allclose(q.grad, torch.tensor([0.0, 0.0, 1.0], dtype=f64), atol=1e-9)


@pytest.mark.bad_input
def test_quadratic_forms_that_are_refused() -> None:
    """test_quad_form_rejects_symmetric_only_parameter, ..._param_times_param, ..._param_in_x, ..._x_plus_param."""
    x, p = cp.Variable(2), cp.Parameter(2)
    symmetric, positive = cp.Parameter((2, 2), symmetric=True), cp.Parameter((2, 2), PSD=True)
    refused = [
        (cp.quad_form(x, symmetric), [symmetric], [x]),
        (cp.quad_form(x, positive @ positive, assume_PSD=True), [positive], [x]),
        (cp.quad_form(p, positive), [p, positive], []),
        (cp.quad_form(x + p, positive), [p, positive], [x]),
    ]
    for objective, parameters, variables in refused:
        with pytest.raises(ValueError, match="Problem must be D"):
            CvxpyLayer(cp.Problem(cp.Minimize(objective), [x >= -1, x <= 1]), parameters, variables, solver="MOREAU")


# Dual variables: the values are CVXPY's, and the gradients those of finite differences.


def cheapest() -> tuple[Any, list[Any], Any, list[Any]]:
    x, c, b = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    rows = [cp.sum(x) == b, x >= 0]
    return cp.Problem(cp.Minimize(c @ x), rows), [c, b], x, [row.dual_variables[0] for row in rows]


def test_dual_variables_of_a_linear_program() -> None:
    """test_equality_constraint_dual, test_multiple_dual_variables, test_dual_only, test_dual_gradient."""
    problem, parameters, x, duals = cheapest()
    values = [leaf([1.0, 2.0]), leaf(1.0)]
    found = CvxpyLayer(problem, parameters, [x, *duals])(*values)
    agrees(problem, parameters, values, list(zip(found, [x, *duals], strict=True)))
    (alone,) = CvxpyLayer(problem, parameters, duals[:1])(*values)
    assert torch.equal(alone, found[1])
    alone.sum().backward()
    assert torch.allclose(values[0].grad, torch.tensor([-1.0, 0.0], dtype=f64), atol=1e-9)
    assert torch.allclose(values[1].grad, torch.zeros((), dtype=f64), atol=1e-9)


def test_a_batch_of_dual_variables() -> None:
    """test_batched_dual_variables."""
    problem, parameters, x, duals = cheapest()
    values = [draw(3, 2), torch.ones(3, dtype=f64)]
    points, prices = CvxpyLayer(problem, parameters, [x, duals[0]])(*values)
    assert (points.shape, prices.shape) == ((3, 2), (3,))
    for i in range(3):
        agrees(problem, parameters, [value[i] for value in values], [(points[i], x), (prices[i], duals[0])])


def test_dual_variables_of_inequalities() -> None:
    """test_inequality_constraint_dual, test_dual_gradcheck_inequality."""
    x, c = cp.Variable(2), cp.Parameter(2)
    row = x >= 0
    problem, value = cp.Problem(cp.Minimize(c @ x + cp.sum_squares(x)), [row]), leaf([1.0, -1.0])
    layer = CvxpyLayer(problem, [c], [x, row.dual_variables[0]])
    agrees(problem, [c], [value], list(zip(layer(value), [x, row.dual_variables[0]], strict=True)))
    assert gradcheck(lambda v: layer(v, solver_args={"eps": 1e-10})[1], value, atol=1e-4, rtol=1e-3)


def test_dual_variables_of_equations() -> None:
    """test_dual_gradcheck_equality, ..._mixed, ..._vector_equality, test_vector_equality_dual."""
    x, c, b = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    row = cp.sum(x) == b
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(c @ x + cp.sum_squares(x) / 2), [row]), [c, b], [x, row.dual_variables[0]]
    )
    assert gradcheck(layer, (leaf([0.5, -0.3]), leaf(1.0)), atol=1e-6)
    x, A, b = cp.Variable(3), cp.Parameter((2, 3)), cp.Parameter(2)
    rows = A @ x == b
    problem, values = cp.Problem(cp.Minimize(cp.sum_squares(x) / 2), [rows]), [leaf(draw(2, 3)), leaf(draw(2, seed=1))]
    layer = CvxpyLayer(problem, [A, b], [x, rows.dual_variables[0]])
    found = layer(*values)
    assert found[1].shape == (2,)
    agrees(problem, [A, b], values, list(zip(found, [x, rows.dual_variables[0]], strict=True)))
    assert gradcheck(layer, values, atol=1e-6)


def test_dual_variables_of_second_order_cones() -> None:
    """test_soc_constraint_dual, test_soc_gradcheck, test_soc_explicit_multi_dual, ..._gradcheck."""
    x, c, limit = cp.Variable(3), cp.Parameter(3), cp.Parameter(nonneg=True)
    row, values = cp.norm(x) <= limit, [leaf([1.0, 0.5, -0.5]), leaf(2.0)]
    problem = cp.Problem(cp.Minimize(c @ x + 0.1 * cp.sum_squares(x)), [row])
    layer = CvxpyLayer(problem, [c, limit], [x, row.dual_variables[0]])
    agrees(problem, [c, limit], values, list(zip(layer(*values), [x, row.dual_variables[0]], strict=True)))
    assert gradcheck(layer, values, atol=1e-4, rtol=1e-3)
    t = cp.Variable()
    cone = cp.SOC(t, x)
    problem = cp.Problem(cp.Minimize(c @ x - t + 0.1 * cp.sum_squares(x)), [cone, t <= limit])
    layer = CvxpyLayer(problem, [c, limit], [x, t, *cone.dual_variables])
    agrees(problem, [c, limit], values, list(zip(layer(*values), [x, t, *cone.dual_variables], strict=True)))
    small = [leaf([0.5, 0.3, -0.2]), leaf(2.0)]
    assert gradcheck(lambda *v: sum(part.sum() for part in layer(*v)[2:]), small, atol=1e-4, rtol=1e-3)


def test_dual_variables_of_exponential_cones() -> None:
    """test_exp_cone_constraint_dual, test_exp_cone_gradcheck."""
    x, y, z, t = (*(cp.Variable() for _ in range(3)), cp.Parameter(nonneg=True))
    cone = cp.constraints.ExpCone(x, y, z)
    problem = cp.Problem(cp.Minimize(-z + 0.1 * (x**2 + y**2 + z**2)), [cone, y >= 0.1, z <= t])
    wanted, value = [x, y, z, *cone.dual_variables], leaf(5.0)
    layer = CvxpyLayer(problem, [t], wanted)
    agrees(problem, [t], [value], list(zip(layer(value), wanted, strict=True)))
    with pytest.warns(ZeroGradientWarning):  # the cone is idle
        assert gradcheck(lambda v: sum(part.sum() for part in layer(v)[3:]), value, atol=1e-4, rtol=1e-3)
    active = cp.Problem(cp.Minimize(z - t * x + 0.1 * (x**2 + y**2 + z**2)), [cone, y >= 0.1])
    layer = CvxpyLayer(active, [t], wanted)
    agrees(active, [t], [value], list(zip(layer(value), wanted, strict=True)))
    assert gradcheck(layer, value, atol=1e-4, rtol=1e-3)


def test_dual_variables_of_power_cones() -> None:
    """test_pow_cone_constraint_dual, test_pow_cone_gradcheck (which they skip)."""
    x, y, z, t = (*(cp.Variable() for _ in range(3)), cp.Parameter(nonneg=True))
    cone = cp.PowCone3D(x, y, z, 0.5)
    problem = cp.Problem(cp.Minimize(-z + 0.1 * (x**2 + y**2)), [cone, x >= 0.1, y >= 0.1, x + y <= t])
    wanted, value = [x, y, z, *cone.dual_variables], leaf(4.0)
    layer = CvxpyLayer(problem, [t], wanted)
    agrees(problem, [t], [value], list(zip(layer(value), wanted, strict=True)))
    assert gradcheck(layer, value, atol=1e-4, rtol=1e-3)


@pytest.mark.bad_input
def test_a_dual_variable_of_another_problem() -> None:
    """test_invalid_dual_variable."""
    x, c = cp.Variable(2), cp.Parameter(2)
    with pytest.raises(ValueError, match=r"must be a subset of problem\.variables"):
        CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [x >= 0]), [c], [x, (x >= 1).dual_variables[0]])


def test_dual_variables_of_geometric_programs() -> None:
    """test_gp_inequality_constraint_dual, test_gp_multiple_constraint_duals, test_gp_dual_gradcheck."""
    x, y, z, a, b = (*(cp.Variable(pos=True) for _ in range(3)), cp.Parameter(pos=True), cp.Parameter(pos=True))
    values = [leaf(2.0), leaf(1.0)]
    row = a * (x * y + x * z + y * z) <= b
    problem, wanted = cp.Problem(cp.Minimize(1 / (x * y * z)), [row]), [x, y, z, row.dual_variables[0]]
    found = CvxpyLayer(problem, [a, b], wanted, gp=True)(*values)
    agrees(problem, [a, b], values, list(zip(found, wanted, strict=True)), gp=True)
    rows = [a * (x * y) <= b, x + y <= 2]
    problem = cp.Problem(cp.Minimize(1 / (x * y)), rows)
    layer = CvxpyLayer(problem, [a, b], [x, y, *(r.dual_variables[0] for r in rows)], gp=True)
    found = layer(*values)
    # Of the pairs with x y = b / a there are many; the product and the prices are unique.
    assert float((found[0] * found[1]).detach()) == pytest.approx(0.5, abs=1e-6)
    agrees(
        problem, [a, b], values, [(found[2], rows[0].dual_variables[0]), (found[3], rows[1].dual_variables[0])], gp=True
    )
    one = cp.Problem(cp.Minimize(1 / (x * y)), rows[:1])
    layer = CvxpyLayer(one, [a, b], [x, y, rows[0].dual_variables[0]], gp=True)
    assert gradcheck(lambda *v: layer(*v)[2].sum(), values, atol=1e-4, rtol=1e-3)


def test_all_kinds_of_cones_in_one_problem() -> None:
    """test_mixed_cones_all_types."""
    u, v, r, X = cp.Variable(2), cp.Variable(2), cp.Variable(2), cp.Variable((2, 2), symmetric=True)
    t, *triple = (cp.Variable() for _ in range(7))
    (e1, e2, e3), (p1, p2, p3) = triple[:3], triple[3:]
    side, upper, limit = cp.Parameter(2), cp.Parameter(2), cp.Parameter(nonneg=True)
    equation, inequality, ball = u == side, v <= upper, cp.SOC(t, r)
    exponential, positive, power = cp.constraints.ExpCone(e1, e2, e3), X >> 0, cp.PowCone3D(p1, p2, p3, 0.5)
    smooth = sum(cp.sum_squares(part) for part in (u, v, r)) + 0.1 * (e1**2 + e2**2 + e3**2 + p1**2 + p2**2)
    rows = [equation, inequality, ball, t <= limit, exponential, e2 >= 0.1, e3 <= limit, positive, cp.trace(X) >= 0.5]
    rows += [power, p1 >= 0.1, p2 >= 0.1, p1 + p2 <= limit]
    problem = cp.Problem(cp.Minimize(smooth - t - e3 + cp.trace(X) - p3), rows)
    duals = [d for row in (equation, inequality, ball, exponential, positive, power) for d in row.dual_variables]
    wanted, values = [u, v, t, e3, p3, *duals], [leaf([0.5, -0.3]), leaf([1.0, 1.0]), leaf(3.0)]
    found = CvxpyLayer(problem, [side, upper, limit], [*wanted, X])(*values)
    agrees(problem, [side, upper, limit], values, list(zip(found[:-1], wanted, strict=True)))
    # The trace is all that the problem says of the matrix.
    assert float(found[-1].detach().trace()) == pytest.approx(0.5, abs=1e-6)
