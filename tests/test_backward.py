"""Backward modes against closed forms, finite differences and their own definitions."""

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import implicit_l2o as il2o
from cases import BACKWARDS
from implicit_l2o.testing import check_backward

TIGHT = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-13, rtol=0.0, max_steps=5000))
EXACT = {
    "gmres": il2o.Implicit(),
    "restarted": il2o.Implicit(il2o.GMRES(rtol=1e-12, restart=3)),
    "normal equations": il2o.Implicit(il2o.NormalCG(rtol=1e-12)),
    "anderson": il2o.Implicit(il2o.Anderson(il2o.Stopping(atol=1e-12, rtol=0.0, max_steps=2000))),
    "picard": il2o.Implicit(il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-12, rtol=0.0, max_steps=5000))),
    "unrolled": il2o.Unrolled(200),
    "unrolled, checkpointed": il2o.Unrolled(200, checkpoint=17),
}


def contraction(n: int, gamma: float, seed: int = 0) -> Tensor:
    A = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return gamma * A / torch.linalg.matrix_norm(A, 2)


def gradient(backward: il2o.AbstractBackward, W: Tensor, v: Tensor, scale: float = 1.0) -> Tensor:
    """`db` of `<scale v, z*>` for `z = z W + b`."""
    b = torch.ones_like(v, requires_grad=True)
    point = il2o.fixed_point(lambda z: z @ W + b, torch.zeros_like(v), solver=TIGHT, backward=backward)
    (point.z * (scale * v)).sum().backward()
    assert b.grad is not None
    return b.grad / scale


@pytest.mark.parametrize("mode", BACKWARDS)
def test_the_contract_of_a_backward_mode(mode: str) -> None:
    check_backward(BACKWARDS[mode], exact=mode not in ("jfb", "neumann"))


@given(gamma=st.floats(0.1, 0.95), seed=st.integers(0, 50), k=st.integers(0, 6))
@settings(max_examples=30)
def test_biased_modes_are_their_closed_forms(gamma: float, seed: int, k: int) -> None:
    W = contraction(5, gamma, seed)  # z = z W + b, so dT/dz acts on a cotangent as v -> v W^T
    v = torch.randn(3, 5, dtype=torch.float64)
    expected = term = v
    for _ in range(k):
        term = term @ W.T
        expected = expected + term
    torch.testing.assert_close(gradient(il2o.Neumann(k), W, v), expected, rtol=1e-12, atol=1e-12)
    if k == 0:
        assert torch.equal(gradient(il2o.JFB(), W, v), v)


@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_exact_modes_solve_the_adjoint_equation_at_every_scale(mode: str, scale: float) -> None:
    W = contraction(6, 0.9)
    v = torch.randn(4, 6, dtype=torch.float64)
    exact = torch.linalg.solve(torch.eye(6, dtype=torch.float64) - W, v.T).T
    torch.testing.assert_close(gradient(EXACT[mode], W, v, scale), exact, rtol=1e-6, atol=1e-6)


def test_neumann_converges_to_implicit_at_the_rate_of_the_contraction() -> None:
    W, v = contraction(8, 0.8), torch.randn(2, 8, dtype=torch.float64)
    exact = gradient(il2o.Implicit(), W, v)
    errors = [float((gradient(il2o.Neumann(k), W, v) - exact).norm() / exact.norm()) for k in (0, 5, 10, 20, 40, 80)]
    for k, error in zip((0, 5, 10, 20, 40, 80), errors, strict=True):
        assert error <= 0.8 ** (k + 1) / (1 - 0.8) * float(v.norm() / exact.norm()) + 1e-7
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("mode", EXACT)
def test_gradcheck_and_gradgradcheck_on_a_smooth_map(mode: str) -> None:
    b = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    W = contraction(3, 0.7).requires_grad_()

    def z(W: Tensor, b: Tensor) -> Tensor:
        T = lambda z: torch.tanh(z @ W + b)  # noqa: E731
        backward = il2o.Unrolled(40, checkpoint=7) if "unrolled" in mode else EXACT[mode]
        return il2o.fixed_point(T, torch.zeros_like(b), solver=TIGHT, backward=backward, on_failure="ignore").z

    assert gradcheck(z, (W, b))
    assert gradgradcheck(z, (W, b))


@pytest.mark.parametrize("backward", [il2o.Implicit(), il2o.Unrolled(30)])
def test_gradcheck_and_gradgradcheck_through_davis_yin_away_from_kinks(backward: il2o.AbstractBackward) -> None:
    w = torch.tensor([[0.3, -0.4, 0.1, 2.0], [1.0, 0.2, -2.0, 0.4]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[1.0], [1.5]], dtype=torch.float64, requires_grad=True)
    A = torch.ones(1, 4, dtype=torch.float64)

    def x(w: Tensor, b: Tensor) -> Tensor:
        cost = il2o.QuadraticCost(linear=w.square() + w, diagonal=1.0)
        splitting = il2o.DavisYin(il2o.Problem(F=cost, g=il2o.Box(lower=0.0), h=il2o.AffineSet(A, b)))
        return il2o.solve(splitting, torch.zeros_like(w), solver=TIGHT, backward=backward, on_failure="ignore").x

    assert gradcheck(x, (w, b))
    assert gradgradcheck(x, (w, b))


def test_third_derivatives_are_refused_and_not_wrong() -> None:
    b = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    z = il2o.fixed_point(
        lambda z: 0.5 * torch.tanh(z) + b, torch.zeros_like(b), solver=TIGHT, backward=il2o.Implicit()
    ).z
    (first,) = torch.autograd.grad(z.sum(), b, create_graph=True)
    with pytest.raises(RuntimeError, match="third"):
        torch.autograd.grad(first.sum(), b, create_graph=True)


@pytest.mark.parametrize("backward", [il2o.JFB(), il2o.Neumann(2)])
def test_biased_modes_refuse_double_backward(backward: il2o.AbstractBackward) -> None:
    b = torch.ones(1, 2, requires_grad=True)
    point = il2o.fixed_point(lambda z: 0.5 * z + b * b, torch.zeros(1, 2), backward=backward)
    with pytest.raises(RuntimeError, match=rf"{type(backward).__name__} cannot be differentiated twice.*Use Implicit"):
        torch.autograd.grad(point.z.sum(), b, create_graph=True)


def test_jfb_is_its_definition() -> None:
    W = contraction(4, 0.9).requires_grad_()
    b = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    T = lambda z: torch.tanh(z @ W + b)  # noqa: E731
    point = il2o.fixed_point(T, torch.zeros(3, 4, dtype=torch.float64), solver=TIGHT)
    mine = torch.autograd.grad(point.z.square().sum(), (W, b))
    attached = T(point.last)
    definition = torch.autograd.grad(attached.square().sum(), (W, b))
    for a, e in zip(mine, definition, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-13, atol=1e-13)


def test_unrolled_differentiates_exactly_its_steps_whatever_the_tolerance_says() -> None:
    for solver in (il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e3)), TIGHT):
        b = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
        z0 = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
        calls = []

        def T(z: Tensor, b: Tensor = b, calls: list = calls) -> Tensor:
            calls.append(torch.is_grad_enabled())
            return 0.5 * z + b

        point = il2o.fixed_point(T, z0, solver=solver, backward=il2o.Unrolled(3), on_failure="ignore")
        assert sum(calls) == 3
        assert point.steps.tolist() == [3]
        grads = torch.autograd.grad(point.z.sum(), (b, z0))
        assert [float(g) for g in grads] == [1.75, 0.125]


def test_unrolled_says_that_a_sample_diverged_and_gives_it_no_gradient() -> None:
    b = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    growth = torch.tensor([[0.5], [3.0]], dtype=torch.float64)
    T = lambda z: growth * z + b  # noqa: E731
    point = il2o.fixed_point(T, torch.zeros(2, 1, dtype=torch.float64), backward=il2o.Unrolled(60), on_failure="ignore")
    assert point.status.tolist() == [il2o.Status.CONVERGED, il2o.Status.DIVERGED]
    point.z.sum().backward()
    assert b.grad is not None
    assert b.grad[1] == 0


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(0.3 * torch.randn(4, 4))
        self.inject = nn.Linear(2, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, d: Tensor, backward: il2o.AbstractBackward) -> Tensor:
        b = self.inject(d)
        return il2o.fixed_point(lambda z: torch.tanh(z @ self.W) * 0.5 + b, torch.zeros_like(b), backward=backward).z


@pytest.mark.parametrize("mode", BACKWARDS)
class TestLearnedFromThePeersMistakes:
    def test_gradients_follow_grad_mode_and_never_training(self, mode: str) -> None:
        block, d = Block(), torch.randn(3, 2)
        for training in (True, False):
            block.train(training)
            assert block(d, BACKWARDS[mode]).requires_grad
            with torch.no_grad():
                assert not block(d, BACKWARDS[mode]).requires_grad
        block.eval()
        block(d, BACKWARDS[mode]).sum().backward()
        assert block.W.grad is not None

    def test_calling_twice_before_backward_is_the_sum(self, mode: str) -> None:
        block, d1, d2 = Block(), torch.randn(3, 2), torch.randn(3, 2)
        (block(d1, BACKWARDS[mode]).sum() + block(d2, BACKWARDS[mode]).sum()).backward()
        assert block.W.grad is not None
        together = block.W.grad.clone()
        block.zero_grad()
        block(d1, BACKWARDS[mode]).sum().backward()
        block(d2, BACKWARDS[mode]).sum().backward()
        torch.testing.assert_close(together, block.W.grad)

    def test_backward_twice_with_a_retained_graph(self, mode: str) -> None:
        block = Block()
        loss = block(torch.randn(3, 2), BACKWARDS[mode]).sum()
        loss.backward(retain_graph=True)
        assert block.W.grad is not None
        once = block.W.grad.clone()
        loss.backward()
        torch.testing.assert_close(block.W.grad, 2 * once)

    def test_no_hooks_and_copies_and_state_dicts_round_trip(self, mode: str) -> None:
        block, d = Block(), torch.randn(3, 2)
        z = block(d, BACKWARDS[mode])
        z.sum().backward()
        assert not block._forward_hooks
        assert not block._backward_hooks
        clone = copy.deepcopy(block)
        other = Block()
        other.load_state_dict(block.state_dict())
        for twin in (clone, other):
            torch.testing.assert_close(twin(d, BACKWARDS[mode]), z)

    def test_a_small_gradient_scale_changes_nothing_but_the_scale(self, mode: str) -> None:
        block, d = Block(), torch.randn(3, 2)
        grads = []
        for scale in (1.0, 1e-6):
            block.zero_grad()
            (scale * block(d, BACKWARDS[mode]).sum()).backward()
            assert block.W.grad is not None
            grads.append(block.W.grad / scale)
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-5)

    def test_autocast_is_off_inside_the_solve(self, mode: str) -> None:
        seen = set()
        W = (0.3 * torch.randn(4, 4)).requires_grad_()

        def T(z: Tensor) -> Tensor:
            out = torch.tanh(z @ W) + 1
            seen.add(out.dtype)
            return out

        solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-6, 0.0, 300))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            point = il2o.fixed_point(T, torch.zeros(2, 4), solver=solver, backward=BACKWARDS[mode])
            loss = point.z.sum()
            loss.backward()
        assert seen == {torch.float32}
        assert point.converged.all()

    def test_a_bad_sample_of_a_closure_gets_a_zero_cotangent(self, mode: str) -> None:
        b = torch.ones(3, 2, requires_grad=True)
        growth = torch.tensor([[0.5], [3.0], [0.5]])
        with pytest.warns(il2o.ConvergenceWarning, match="1 of 3 samples did not converge"):
            point = il2o.fixed_point(lambda z: growth * z + b, torch.zeros(3, 2), backward=BACKWARDS[mode])
        point.z.sum().backward()
        assert b.grad is not None
        assert torch.isfinite(b.grad).all()
        assert (b.grad[[0, 2]] != 0).all()
        assert (b.grad[1] == 0).all()


def test_implicit_reports_its_own_status_and_falls_back_to_jfb_with_a_warning() -> None:
    W, v = contraction(6, 0.95), torch.randn(2, 6, dtype=torch.float64)
    b = torch.ones(2, 6, dtype=torch.float64, requires_grad=True)
    backward = il2o.Implicit(il2o.GMRES(rtol=1e-12, max_steps=2))
    point = il2o.fixed_point(lambda z: z @ W + b, torch.zeros_like(v), solver=TIGHT, backward=backward)
    assert point.adjoint is not None
    assert point.adjoint.status is None
    with pytest.warns(il2o.ConvergenceWarning, match=r"adjoint solve of 2 of 2 samples did not converge.*JFB"):
        (point.z * v).sum().backward()
    assert b.grad is not None
    torch.testing.assert_close(b.grad, v)
    assert point.adjoint.status is not None
    assert (point.adjoint.status == il2o.Status.MAX_STEPS).all()
    assert (point.adjoint.residual > 1e-12).all()
    assert point.adjoint.steps.tolist() == [2, 2]


def test_one_failing_adjoint_leaves_its_mates_exact() -> None:
    rate = torch.tensor([[0.5], [1.0], [0.5]], dtype=torch.float64)  # sample 1: I - J is singular
    b = torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64, requires_grad=True)
    point = il2o.fixed_point(lambda z: rate * z + b, torch.zeros(3, 1, dtype=torch.float64), backward=il2o.Implicit())
    with pytest.warns(il2o.ConvergenceWarning, match=r"1 of 3 samples .*samples 1;"):
        point.z.sum().backward()
    assert b.grad is not None
    torch.testing.assert_close(b.grad.squeeze(), torch.tensor([2.0, 1.0, 2.0], dtype=torch.float64))


def test_the_adjoint_report_covers_the_batch_where_failed_samples_were_left_out() -> None:
    w = torch.randn(3, 2, dtype=torch.float64)
    w[1] = torch.nan
    w.requires_grad_()
    T = il2o.ForwardBackward(il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.L2Ball(2.0)), step=0.5)
    zeros = torch.zeros(3, 2, dtype=torch.float64)
    solution = il2o.solve(T, zeros, backward=il2o.Implicit(), on_failure="ignore")
    solution.x.sum().backward()
    assert solution.adjoint is not None
    assert solution.adjoint.status is not None
    assert solution.adjoint.status.tolist() == [1, 0, 1]


def test_zero_cotangent_rows_cost_nothing() -> None:
    W = contraction(6, 0.9)
    b = torch.ones(3, 6, dtype=torch.float64, requires_grad=True)
    point = il2o.fixed_point(lambda z: z @ W + b, torch.zeros(3, 6, dtype=torch.float64), backward=il2o.Implicit())
    point.z[1].sum().backward()
    assert b.grad is not None
    assert (b.grad[[0, 2]] == 0).all()
    assert point.adjoint is not None
    assert point.adjoint.steps is not None
    assert point.adjoint.steps[0] == 0


def test_the_returned_point_is_T_applied_once_in_every_mode_and_without_gradients() -> None:
    b = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    T = lambda z: 0.9 * torch.tanh(z) + b  # noqa: E731
    for name, backward in BACKWARDS.items():
        for grad in (True, False):
            with torch.set_grad_enabled(grad), warnings.catch_warnings():
                warnings.simplefilter("error")
                point = il2o.fixed_point(T, torch.zeros_like(b), solver=il2o.Anderson(), backward=backward)
            torch.testing.assert_close(point.z, T(point.last), rtol=1e-14, atol=1e-14, msg=f"{name}, grad={grad}")
            torch.testing.assert_close(point.residual, (T(point.z) - point.z).norm(dim=-1), rtol=1e-3, atol=1e-12)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: il2o.Neumann(-1), r"integer k >= 0; got k=-1"),
        (lambda: il2o.Unrolled(0), r"integer steps >= 1; got steps=0"),
        (lambda: il2o.Unrolled(3, checkpoint=0), r"integer checkpoint >= 1"),
        (lambda: il2o.GMRES(rtol=2.0), r"0 < rtol < 1"),
        (lambda: il2o.GMRES(restart=0), r"integer restart >= 1"),
        (lambda: il2o.NormalCG(rtol=0.0), r"NormalCG needs 0 < rtol < 1 .*rtol=0.0"),
        (lambda: il2o.NormalCG(max_steps=2), r"integer max_steps >= 3; got max_steps=2"),
    ],
)
def test_bad_options(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
