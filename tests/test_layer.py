"""`fixed_point`, `solve` and `ImplicitLayer`: the contract snippet's promises, failures, bad data."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

import implicit_l2o as il2o


def simplex_layer(**options) -> il2o.ImplicitLayer:
    h = il2o.AffineSet(torch.ones(1, 3), torch.ones(1))
    return il2o.ImplicitLayer(
        encoder=nn.Linear(4, 3),
        build=lambda w: il2o.DavisYin(
            il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.Box(lower=0.0), h=h)
        ),
        x0=torch.zeros_like,
        **options,
    )


def test_a_layer_learns_decisions_from_decisions() -> None:
    torch.manual_seed(0)
    truth, layer = simplex_layer(), simplex_layer()
    d = torch.randn(64, 4)
    with torch.no_grad():
        target = truth(d).x
        before = (layer(d).x - target).square().sum(-1).mean()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (layer(d).x - target).square().sum(-1).mean().backward()
        optimizer.step()
    with torch.no_grad():
        after = (layer(d).x - target).square().sum(-1).mean()
    assert after < 0.01 * before


def test_infer_certifies_every_sample() -> None:
    certificates = (
        il2o.Certificate(il2o.ConstraintViolation(), il2o.Threshold(1e-3)),
        il2o.Certificate(il2o.DavisYinDistance(), il2o.Threshold(1e-3)),
    )
    layer = simplex_layer(certificates=certificates)
    d = torch.randn(5, 4)
    d[2, 0] = torch.nan
    with pytest.warns(il2o.ConvergenceWarning, match="1 of 5 samples did not converge.*sample 2: NONFINITE"):
        solution, report = layer.infer(d)
    assert report.trusted.tolist() == [True, True, False, True, True]
    assert solution.status[2] == il2o.Status.NONFINITE
    assert torch.isfinite(solution.x).all()
    assert not solution.x.requires_grad


def test_an_inference_is_the_solution_with_its_problem() -> None:
    layer, d = simplex_layer(), torch.randn(5, 4)
    inference, solution = layer.inference(d), layer(d)
    for name in ("x", "z", "status", "residual", "steps"):
        torch.testing.assert_close(getattr(inference, name), getattr(solution, name), rtol=0.0, atol=0.0)
    assert inference.data is d
    assert inference.problem is not None
    assert (il2o.ConstraintViolation()(inference) <= 1e-3).all()
    expected = torch.autograd.grad(solution.x.square().sum(), tuple(layer.parameters()))
    torch.testing.assert_close(torch.autograd.grad(inference.x.square().sum(), tuple(layer.parameters())), expected)
    with torch.no_grad():
        assert not layer.inference(d).x.requires_grad


@pytest.mark.bad_input
def test_an_inference_has_as_many_steps_as_answers() -> None:
    with pytest.raises(ValueError, match=r"Inference.steps has shape \(3,\).*B=2"):
        il2o.Inference(x=torch.zeros(2, 1), steps=torch.ones(3, dtype=torch.int64))


@pytest.mark.parametrize("backward", [il2o.JFB(), il2o.Implicit(), il2o.Unrolled(50)])
def test_a_nonfinite_input_is_marked_and_gives_no_gradient(backward: il2o.AbstractBackward) -> None:
    layer = simplex_layer(backward=backward, on_failure="ignore")
    d = torch.randn(4, 4)
    bad = d.clone()
    bad[1] = torch.inf
    layer(bad).x.square().sum().backward()
    grads = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
    layer.zero_grad()
    layer(d[[0, 2, 3]]).x.square().sum().backward()
    for got, parameter in zip(grads, layer.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad)


def test_an_infeasible_sample_gives_no_gradient_and_fails_its_certificate() -> None:
    b = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    w = torch.tensor([[0.0, 0.1, 0.2], [0.0, 0.1, 0.2]], requires_grad=True)
    problem = il2o.Problem(
        F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.Box(lower=0.0), h=il2o.AffineSet(torch.ones(1, 3), b)
    )
    with pytest.warns(il2o.ConvergenceWarning, match="INFEASIBLE"):
        solution = il2o.solve(il2o.DavisYin(problem), torch.zeros(2, 3))
    solution.x.square().sum().backward()
    assert w.grad is not None
    assert b.grad is not None
    assert w.grad[0].abs().sum() > 0
    assert (w.grad[1] == 0).all()
    assert b.grad[1] == 0
    report = il2o.certify(
        [il2o.Certificate(il2o.ConstraintViolation(), il2o.Threshold(1e-3))],
        il2o.Inference.of(solution, problem=problem),
    )
    assert report.trusted.tolist() == [True, False]


def test_samples_that_never_were_good_leave_no_graph_behind() -> None:
    w = torch.full((2, 3), torch.nan, requires_grad=True)
    problem = il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.Box(lower=0.0))
    for backward in (il2o.JFB(), il2o.Neumann(1), il2o.Implicit(), il2o.Unrolled(3)):
        solution = il2o.solve(il2o.DavisYin(problem), torch.zeros(2, 3), backward=backward, on_failure="ignore")
        assert (solution.status == il2o.Status.NONFINITE).all()
        assert torch.isfinite(solution.x).all()
        loss = (solution.x.sum() + 0 * w.nan_to_num().sum()) * 1.0
        loss.backward()
    assert w.grad is not None
    assert (w.grad == 0).all()


@pytest.mark.parametrize("backward", [il2o.JFB(), il2o.Neumann(2), il2o.Implicit(), il2o.Unrolled(5)])
def test_an_empty_batch_passes_through(backward: il2o.AbstractBackward) -> None:
    layer = simplex_layer(backward=backward)
    solution = layer(torch.zeros(0, 4))
    assert solution.x.shape == (0, 3)
    solution.x.sum().backward()


def test_warm_start_from_the_last_iterate() -> None:
    b = torch.randn(3, 2)
    T = lambda z: 0.9 * torch.tanh(z) + b  # noqa: E731
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-5, 0.0, 500))
    first = il2o.fixed_point(T, torch.zeros(3, 2), solver=solver)
    second = il2o.fixed_point(T, first.z.detach(), solver=solver)
    assert (second.steps == 1).all()
    assert (first.steps > 1).all()


def test_eval_train_copy_and_state_dict() -> None:
    layer = simplex_layer()
    d = torch.randn(2, 4)
    x = layer.eval()(d).x
    assert x.requires_grad
    torch.testing.assert_close(copy.deepcopy(layer)(d).x, x)
    other = simplex_layer()
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(d).x, x)


def test_autocast_and_lower_precision_data() -> None:
    layer = simplex_layer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        w = layer.encoder(torch.randn(3, 4))
        assert w.dtype == torch.bfloat16
        h = il2o.AffineSet(torch.ones(1, 3), torch.ones(1))
        problem = il2o.Problem(F=il2o.QuadraticCost(linear=w.float(), diagonal=1.0), g=il2o.Box(lower=0.0), h=h)
        solution = il2o.solve(il2o.DavisYin(problem), torch.zeros(3, 3))
    assert solution.x.dtype == torch.float32
    assert solution.converged.all()
    assert (solution.residual <= 1e-3).all()


def test_on_failure() -> None:
    T = lambda z: z + 1.0  # noqa: E731
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-3, 0.0, 20))
    with pytest.warns(
        il2o.ConvergenceWarning, match="2 of 2 samples did not converge. sample 0: MAX_STEPS: max_steps ran"
    ):
        il2o.fixed_point(T, torch.zeros(2, 1), solver=solver)
    with pytest.raises(il2o.ConvergenceError, match="MAX_STEPS"):
        il2o.fixed_point(T, torch.zeros(2, 1), solver=solver, on_failure="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        il2o.fixed_point(T, torch.zeros(2, 1), solver=solver, on_failure="ignore")


def test_messages_explain_every_status() -> None:
    for status in il2o.Status:
        assert status.message.endswith(".")
    point = il2o.fixed_point(lambda z: 0.5 * z, torch.ones(1, 1))
    assert point.message(0).startswith("sample 0: CONVERGED: the residual at the returned point meets the tolerance.")


@pytest.mark.bad_input
class TestBadInput:
    def test_unknown_options(self) -> None:
        with pytest.raises(ValueError, match=r'on_failure must be "warn", "raise" or "ignore"; got \'mask\''):
            il2o.fixed_point(lambda z: z, torch.zeros(1, 1), on_failure="mask")
        with pytest.raises(TypeError, match="tol"):
            il2o.fixed_point(lambda z: z, torch.zeros(1, 1), tol=1e-3)
        with pytest.raises(TypeError, match="slover"):
            simplex_layer(slover=None)

    def test_names_instead_of_objects(self) -> None:
        with pytest.raises(TypeError, match=r"backward must be an AbstractBackward such as JFB\(\); got 'jfb'"):
            il2o.fixed_point(lambda z: z, torch.zeros(1, 1), backward="jfb")
        with pytest.raises(
            TypeError, match=r"solver must be an AbstractFixedPointSolver such as Anderson\(\); got Anderson"
        ):
            il2o.fixed_point(lambda z: z, torch.zeros(1, 1), solver=il2o.Anderson)
        with pytest.raises(TypeError, match=r"stopping must be a Stopping; got 1e-06"):
            il2o.KrasnoselskiiMann(1e-6)

    def test_data_without_a_batch(self) -> None:
        with pytest.raises(ValueError, match="batch dimension"):
            simplex_layer()(torch.tensor(1.0))

    def test_an_inconsistent_affine_system_names_its_residual(self) -> None:
        A = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
        with pytest.raises(ValueError, match=r"residual"):
            il2o.AffineSet(A, torch.tensor([1.0, 3.0]))


def test_z_is_not_x() -> None:
    """The two variables are never confused: the readout differs from the governing sequence."""
    w = torch.tensor([[1.0, -1.0, 0.5]])
    h = il2o.AffineSet(torch.ones(1, 3), torch.ones(1))
    T = il2o.DavisYin(il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.Box(lower=0.0), h=h))
    solution = il2o.solve(T, torch.zeros(1, 3))
    assert not torch.allclose(solution.x, solution.z)
    torch.testing.assert_close(solution.x, T.readout(solution.z))


def test_gradients_with_respect_to_every_parameter_of_the_problem_match_finite_differences() -> None:
    """Cost, right-hand side, bound and curvature at once, through Davis-Yin and the exact mode."""
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-13, 0.0, 5000))

    def x(w: Tensor, b: Tensor, lower: Tensor, q: Tensor) -> Tensor:
        problem = il2o.Problem(
            F=il2o.QuadraticCost(linear=w, diagonal=q.exp()),
            g=il2o.Box(lower=lower),
            h=il2o.AffineSet(torch.ones(1, 3, dtype=torch.float64), b),
        )
        return il2o.solve(il2o.DavisYin(problem), torch.zeros_like(w), solver=solver, backward=il2o.Implicit()).x

    w = torch.tensor([[0.1, 2.0, -0.3]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)
    lower = torch.tensor([[0.0, 0.1, -0.1]], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(x, (w, b, lower, q))
