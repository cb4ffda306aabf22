import math
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import implicit_l2o as il2o
from implicit_l2o._batch import MATRIX, VECTOR
from implicit_l2o.diagnostics import (
    contraction_estimate,
    descent_conditions,
    gradient_report,
    lipschitz_lower_bound,
)
from implicit_l2o.splittings.base import AbstractSplitting

F64 = torch.float64
some = settings(deadline=None, max_examples=40)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed):
    return torch.randn(*shape, generator=rng(seed), dtype=F64)


def of_norm(J, gamma):
    return gamma * J / torch.linalg.matrix_norm(J, 2)


@dataclass(frozen=True, eq=False)
class LinearMap(AbstractSplitting):
    """`T(z) = J z + theta`: every Jacobian is known."""

    J: torch.Tensor = field(metadata=MATRIX)
    theta: torch.Tensor = field(metadata=VECTOR)
    problem: il2o.Problem = field(default_factory=il2o.Problem)

    averagedness = 0.5

    def init(self, x0):
        return x0

    def __call__(self, z):
        return (self.J @ z[..., None])[..., 0] + self.theta

    def readout(self, z):
        return z

    def infeasible(self, z):
        return torch.zeros(len(z), dtype=torch.bool)


class Known(nn.Module):
    """`theta = C p` for every sample, `p` the parameters: `M = C^T`."""

    def __init__(self, C, seed=0):
        super().__init__()
        self.register_buffer("C", C)
        self.p = nn.Parameter(normal(C.shape[1], seed=seed))

    def forward(self, d):
        return d + self.C @ self.p


def linear_layer(J, C, **options):
    return il2o.ImplicitLayer(Known(C), lambda theta: LinearMap(J, theta), torch.zeros_like, **options)


def with_condition(n, p, kappa, seed):
    """An `(n, p)` matrix `C` with `kappa(C C^T) = kappa`: `M = C^T` has full column rank."""
    u = torch.linalg.qr(normal(n, n, seed=seed)).Q
    v = torch.linalg.qr(normal(p, n, seed=seed + 1)).Q
    return u @ torch.diag(torch.linspace(1.0, math.sqrt(kappa), n, dtype=F64)) @ v.T


# --- contraction ---


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 8))
def test_lipschitz_lower_bound_is_one_and_approaches_the_norm(seed, n):
    J = normal(3, n, n, seed=seed)
    z = normal(3, n, seed=seed + 1)
    exact = torch.linalg.matrix_norm(J, 2)
    bound = lipschitz_lower_bound(lambda z: torch.einsum("bij,bj->bi", J, z) + 1.0, z, steps=150)
    assert (bound <= exact * (1 + 1e-12)).all()
    assert (bound >= exact * 0.97).all()
    early = lipschitz_lower_bound(lambda z: torch.einsum("bij,bj->bi", J, z), z, steps=3)
    assert (early <= bound * (1 + 1e-12)).all()


def test_lipschitz_lower_bound_is_local_and_takes_kinks_and_images():
    z = torch.tensor([[-1.0], [2.0]], dtype=F64)
    assert lipschitz_lower_bound(torch.relu, z).tolist() == [0.0, 1.0]
    image = normal(2, 3, 4, 4, seed=0)
    torch.testing.assert_close(
        lipschitz_lower_bound(lambda z: 0.3 * z.flip(-1), image), torch.full((2,), 0.3, dtype=F64)
    )


def test_lipschitz_lower_bound_of_a_constant_is_zero():
    constant = torch.ones(2, 3)
    assert lipschitz_lower_bound(lambda z: constant, torch.zeros(2, 3)).tolist() == [0.0, 0.0]


def test_lipschitz_lower_bound_of_a_splitting_is_at_most_one():
    z = normal(4, 5, seed=1)
    problem = il2o.Problem(
        F=il2o.QuadraticCost(linear=normal(4, 5, seed=0), diagonal=1.0),
        g=il2o.Box(lower=0.0),
        h=il2o.AffineSet(torch.ones(1, 5, dtype=F64), torch.ones(1, dtype=F64)),
    )
    T = il2o.DavisYin(problem)
    bound = lipschitz_lower_bound(T, z)
    assert (bound <= 1 + 1e-12).all()
    for i in range(4):
        J = torch.autograd.functional.jacobian(lambda y, i=i: T.restrict(torch.tensor([i]))(y[None])[0], z[i])
        assert float(bound[i]) == pytest.approx(float(torch.linalg.matrix_norm(J, 2)), rel=1e-3)


def test_lipschitz_lower_bound_does_not_mix_samples_and_ignores_grad_mode():
    J = normal(4, 3, 3, seed=0)
    z = normal(4, 3, seed=1)
    order = torch.tensor([2, 0, 3, 1])
    whole = lipschitz_lower_bound(lambda z: torch.einsum("bij,bj->bi", J, z).tanh(), z)
    with torch.no_grad():
        moved = lipschitz_lower_bound(lambda z: torch.einsum("bij,bj->bi", J[order], z).tanh(), z[order])
    torch.testing.assert_close(moved, whole[order], rtol=1e-12, atol=0.0)
    broken = z.clone()
    broken[1] = math.nan
    left = lipschitz_lower_bound(lambda z: torch.einsum("bij,bj->bi", J, z).tanh(), broken)
    assert left.isnan().tolist() == [False, True, False, False]
    torch.testing.assert_close(left[[0, 2, 3]], whole[[0, 2, 3]], rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 0.999, 1.05])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_contraction_estimate_of_a_uniform_map_is_its_rate(rate, dtype):
    rates = contraction_estimate(lambda z: rate * z + 1.0, torch.zeros(2, 3, dtype=dtype))
    assert rates.dtype == dtype
    torch.testing.assert_close(rates, torch.full((2,), rate, dtype=dtype), rtol=1e-3, atol=1e-4)


def test_contraction_estimate_finds_the_slowest_mode():
    J = torch.diag(torch.tensor([0.2, 0.5, 0.8], dtype=F64))
    rate = contraction_estimate(lambda z: z @ J + 1.0, torch.zeros(1, 3, dtype=F64), steps=80)
    assert float(rate) == pytest.approx(0.8, abs=1e-3)


def test_contraction_estimate_at_a_fixed_point_is_unknown():
    z0 = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=F64)
    rates = contraction_estimate(lambda z: 0.5 * (z - z0[:1]) + z0[:1], z0)
    assert math.isnan(rates[0])
    assert float(rates[1]) == pytest.approx(0.5)


def test_contraction_estimate_is_no_bound():
    # Steep everywhere but on the orbit's end: the estimate is local, and must not be taken for a proof.
    rate = contraction_estimate(lambda z: 0.1 * z + 5 * torch.relu(z - 1), torch.full((1, 1), 0.5, dtype=F64))
    assert float(rate) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lipschitz_lower_bound(torch.tanh, torch.zeros(1, 1), steps=0), "steps >= 1; got steps=0"),
        (lambda: contraction_estimate(torch.tanh, torch.zeros(1, 1), steps=1), "steps >= 2; got steps=1"),
    ],
)
def test_counts_are_checked(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- gradient_report ---


def quadratic_layer(backward=None, **options):
    """Projected gradient on a strongly convex quadratic, its linear term from a network."""
    torch.manual_seed(0)
    Q = torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=F64))
    encoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    def build(w):
        return il2o.ForwardBackward(il2o.Problem(F=il2o.QuadraticCost(linear=w, matrix=Q), g=il2o.Box(lower=-9.0)))

    return il2o.ImplicitLayer(encoder, build, torch.zeros_like, backward=backward, **options)


def test_gradient_report_of_the_exact_mode_is_perfect():
    report = gradient_report(quadratic_layer(il2o.Implicit()), normal(5, 4, seed=0))
    assert report.cosine == pytest.approx(1.0, abs=1e-9)
    assert report.norm_ratio == pytest.approx(1.0, abs=1e-8)
    assert set(report.groups) == {"encoder.0", "encoder.2"}
    assert report.sample_cosine.shape == (5,)
    torch.testing.assert_close(report.sample_cosine, torch.ones(5, dtype=F64), rtol=0, atol=1e-9)
    assert report.solved.all()


def test_gradient_report_agrees_with_closed_forms():
    """`x = -Q^{-1} w`: the gradient pulls `v = x` back by `-Q^{-1}`, JFB by `-step`, Neumann by the truncated series."""
    d, Q = normal(5, 4, seed=1), torch.tensor([1.0, 2.0, 4.0], dtype=F64)
    step = 1 / 4
    for mode, terms in [(il2o.JFB(), 1), (il2o.Neumann(3), 4)]:
        series = sum((1 - step * Q) ** k for k in range(terms))
        layer = quadratic_layer(mode)
        parameters = list(layer.parameters())
        w = layer.encoder(d)
        x = (-w / Q).detach()
        mine = torch.autograd.grad((w * (-step * series * x)).sum(), parameters, retain_graph=True)
        true = torch.autograd.grad((w * (-x / Q)).sum(), parameters)
        a, b = (torch.cat([g.reshape(-1) for g in grads]) for grads in (mine, true))
        report = gradient_report(layer, d)
        assert report.cosine == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-8)
        assert report.norm_ratio == pytest.approx(float(a.norm() / b.norm()), rel=1e-7)
        first = torch.cat([g.reshape(-1) for g in mine[:2]]), torch.cat([g.reshape(-1) for g in true[:2]])
        assert report.groups["encoder.0"][0] == pytest.approx(float(torch.cosine_similarity(*first, dim=0)), abs=1e-8)


def test_gradient_report_sees_the_dial():
    d = normal(6, 4, seed=2)
    modes = [il2o.JFB(), il2o.Neumann(1), il2o.Neumann(4), il2o.Neumann(30), il2o.Unrolled(400)]
    cosines = [gradient_report(quadratic_layer(mode), d).cosine for mode in modes]
    assert cosines[:4] == sorted(cosines[:4])
    assert 0 < cosines[0] < 0.999
    assert cosines[3] > 1 - 1e-6
    assert cosines[4] > 1 - 1e-9


def test_gradient_report_leaves_the_layer_alone():
    layer = quadratic_layer(il2o.JFB(), solver=il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.5, max_steps=7)))
    layer.encoder.insert(1, nn.BatchNorm1d(8).double())
    layer.encoder.insert(2, nn.Dropout(0.5))
    d = normal(5, 4, seed=0)
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    options = (layer.solver, layer.backward, layer.on_failure, layer.training)
    random = torch.get_rng_state()
    report = gradient_report(layer, d)
    descent_conditions(layer.eval(), d)
    layer.train()
    assert report.cosine > 0
    assert (layer.solver, layer.backward, layer.on_failure, layer.training) == options
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert all((parameter.grad == 1).all() for parameter in layer.parameters())


def test_gradient_report_compares_random_layers_on_the_same_draw():
    layer = quadratic_layer(il2o.Implicit())
    layer.encoder.insert(1, nn.Dropout(0.5))
    assert gradient_report(layer, normal(5, 4, seed=0)).cosine == pytest.approx(1.0, abs=1e-9)


def test_gradient_report_takes_a_loss_and_works_under_no_grad():
    layer, d = quadratic_layer(), normal(5, 4, seed=0)
    target = normal(5, 3, seed=1)
    with torch.no_grad():
        scalar = gradient_report(layer, d, loss=lambda solution: (solution.x - target).square().mean())
        each = gradient_report(layer, d, loss=lambda solution: (solution.x - target).square().mean(-1))
    assert scalar.sample_cosine is None
    assert scalar.cosine == pytest.approx(each.cosine, abs=1e-12)
    assert "worst sample" in each.table()
    assert "worst sample" not in scalar.table()
    assert "5 of 5 samples were solved to tight tolerance." in scalar.table()


def test_gradient_report_of_samples_is_that_of_batches_of_one():
    layer, d = quadratic_layer(), normal(3, 4, seed=0)
    report = gradient_report(layer, d)
    for i in range(3):
        one = gradient_report(layer, d[i : i + 1])
        assert float(report.sample_cosine[i]) == pytest.approx(one.cosine, abs=1e-9)
        assert float(report.sample_norm_ratio[i]) == pytest.approx(one.norm_ratio, rel=1e-8)


def test_gradient_report_says_which_samples_were_not_solved():
    J = torch.tensor([0.5, 1.5, 0.2], dtype=F64)[:, None, None] * torch.eye(4, dtype=F64)
    report = gradient_report(linear_layer(J, torch.eye(4, dtype=F64)), normal(3, 4, seed=0))
    assert report.solved.tolist() == [True, False, True]
    assert report.sample_cosine.isnan().tolist() == [False, True, False]
    assert "2 of 3 samples" in report.table()


def test_gradient_report_says_where_the_exact_gradient_was_not_found():
    layer, d = quadratic_layer(), normal(3, 4, seed=0)
    with pytest.warns(il2o.ConvergenceWarning, match="take the JFB gradient"):
        report = gradient_report(layer, d, exact=il2o.Implicit(il2o.GMRES(max_steps=1)))
    assert not report.solved.any()
    assert "0 of 3 samples" in report.table()


def test_empty_batches_give_empty_reports():
    layer, d = quadratic_layer(), normal(0, 4, seed=0)
    gradients, descent = gradient_report(layer, d), descent_conditions(layer, d)
    assert gradients.sample_cosine.shape == descent.cosine.shape == (0,)
    assert math.isnan(gradients.cosine)
    assert "0 of 0 samples" in gradients.table()
    assert "0 of 0 samples" in descent.table()


def test_gradient_report_refuses_what_it_cannot_compare():
    layer, d = quadratic_layer(), normal(2, 4, seed=0)
    with pytest.raises(ValueError, match=r"shape \(2,\), or a scalar; got \(2, 3\)"):
        gradient_report(layer, d, loss=lambda solution: solution.x)
    with pytest.raises(ValueError, match="needs finite data"):
        gradient_report(layer, torch.full_like(d, math.nan))
    diverging = linear_layer(2 * torch.eye(4, dtype=F64), torch.eye(4, dtype=F64))
    with pytest.raises(ValueError, match="carries no gradient"):
        gradient_report(diverging, d)
    with pytest.raises(ValueError, match=r"require a gradient are \[\]; none is chosen"):
        gradient_report(layer.requires_grad_(False), d)


# --- the descent theorem ---


@some
@given(seed=st.integers(0, 100_000), n=st.integers(1, 7), gamma=st.floats(0.01, 0.99), share=st.floats(0.0, 0.99))
def test_jfb_descends_whenever_the_hypotheses_hold(seed, n, gamma, share):
    """The algebra: `<M v, M (I - B)^{-T} v> > 0` for every `v` when `|B| <= gamma` and `kappa(M^T M) < 1 / gamma`."""
    kappa = 1 + share * (1 / gamma - 1)
    B = of_norm(normal(n, n, seed=seed), gamma)
    M = with_condition(n, 2 * n, kappa, seed).T
    v = normal(n, 200, seed=seed + 2)
    true = M @ torch.linalg.solve(torch.eye(n, dtype=F64) - B.T, v)
    assert ((M @ v) * true).sum(0).min() > 0
    # And not for these v alone: the smallest value over all v, as the least eigenvalue of a symmetric matrix.
    A = M.T @ M @ (torch.eye(n, dtype=F64) - B.T)
    assert torch.linalg.eigvalsh((A + A.T) / 2).min() > 0


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 100_000), gamma=st.floats(0.05, 0.9), share=st.floats(0.0, 0.95))
def test_descent_conditions_on_linear_contractions(seed, gamma, share):
    n, p = 4, 6
    kappa = 1 + share * (1 / gamma - 1)
    J, C = of_norm(normal(n, n, seed=seed), gamma), with_condition(n, p, kappa, seed)
    target = normal(3, n, seed=seed + 3)

    def loss(solution):
        return 0.5 * (solution.x - target).square().sum(-1)

    layer, d = linear_layer(J, C), normal(3, n, seed=seed + 4)
    report = descent_conditions(layer, d, loss=loss)
    assert (report.latent, report.parameters) == (n, p)
    torch.testing.assert_close(report.gamma, torch.full((3,), gamma, dtype=F64))
    torch.testing.assert_close(report.condition, torch.full((3,), kappa, dtype=F64))
    assert report.rank.tolist() == [n] * 3
    assert report.holds.all()
    assert (report.cosine > 0).all()
    # The cosine it measures is that of the gradients the modes return.
    gradients = gradient_report(layer, d, loss=loss)
    torch.testing.assert_close(gradients.sample_cosine, report.cosine, rtol=0, atol=1e-7)


def test_descent_conditions_of_projected_gradient_with_its_proven_factor():
    """`|I - step Q| = 3/4` is proven; the last bias shifts `theta` itself, so that `M = -step I` and `kappa = 1`."""
    layer, d = quadratic_layer(), normal(4, 4, seed=0)
    report = descent_conditions(layer, d, gamma=0.75, parameters=["encoder.2.bias"])
    torch.testing.assert_close(report.slope, torch.full((4,), 0.75, dtype=F64))
    torch.testing.assert_close(report.condition, torch.ones(4, dtype=F64))
    assert report.holds.all()
    assert (report.cosine > 0).all()
    whole = descent_conditions(layer, d, gamma=0.75)
    assert whole.parameters == sum(parameter.numel() for parameter in layer.parameters())
    assert (whole.cosine[whole.holds] > 0).all()


def counter_example(gamma, kappa):
    """`M^T M = diag(kappa, 1)`, `J` a rotation by 90 degrees scaled by gamma.

    With `v = (I - J)^T w` the inner product is `kappa a^2 + b^2 + gamma (kappa - 1) a b` for `w = (a, b)`: negative at
    `w = (1, -sqrt(kappa))` when `gamma (kappa - 1) > 2 sqrt(kappa)`.
    """
    J = gamma * torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)
    C = torch.diag(torch.tensor([math.sqrt(kappa), 1.0], dtype=F64))
    w = torch.tensor([[1.0, -math.sqrt(kappa)]], dtype=F64)
    return J, C, w @ (torch.eye(2, dtype=F64) - J)


def test_beyond_the_hypotheses_jfb_can_ascend():
    gamma, kappa = 0.9, 100.0
    J, C, v = counter_example(gamma, kappa)

    def loss(solution):
        return (solution.x * v).sum(-1)

    layer, d = linear_layer(J, C), normal(1, 2, seed=0)
    report = descent_conditions(layer, d, gamma=gamma, loss=loss)
    assert report.contractive.all()
    assert report.full_rank.all()
    assert not report.well_conditioned.any()
    assert float(report.cosine) < -0.5
    assert report.reason(0) == "kappa > 1/gamma"
    assert gradient_report(layer, d, loss=loss).cosine == pytest.approx(float(report.cosine), abs=1e-9)
    # A step against the JFB gradient does raise the loss.
    layer.solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-12, rtol=0.0))
    before = loss(layer(d)).sum()
    (direction,) = torch.autograd.grad(before, [layer.encoder.p])
    with torch.no_grad():
        layer.encoder.p -= 1e-3 * direction
        assert loss(layer(d)).sum() > before


def test_the_measured_factor_decides_where_none_is_proven():
    J, C = of_norm(normal(3, 3, seed=0), 0.5), with_condition(3, 5, 1.9, 0)
    d = normal(2, 3, seed=1)
    measured = descent_conditions(linear_layer(J, C), d)
    proven = descent_conditions(linear_layer(J, C), d, gamma=0.6)
    assert measured.holds.all()  # 1.9 <= 1 / 0.5
    assert not proven.holds.any()  # 1.9 > 1 / 0.6
    assert "gamma measured at the fixed point" in measured.table()
    assert "gamma proven" in proven.table()
    with pytest.raises(ValueError, match=r"gamma=0.4 is no contraction factor of T: \|dT/dz\| = 0.5 at sample"):
        descent_conditions(linear_layer(J, C), d, gamma=0.4)
    with pytest.raises(ValueError, match=r"0 <= gamma < 1; got gamma=1\.0"):
        descent_conditions(linear_layer(J, C), d, gamma=1.0)


def test_fewer_parameters_than_latent_entries_cannot_satisfy_them():
    report = descent_conditions(
        linear_layer(of_norm(normal(4, 4, seed=0), 0.3), normal(4, 2, seed=1)), normal(2, 4, seed=2)
    )
    assert report.rank.tolist() == [2, 2]
    assert not report.full_rank.any()
    assert report.condition.tolist() == [math.inf, math.inf]
    assert (report.range_condition < math.inf).all()
    assert "2 of 4" in report.table()
    assert "rank deficient" in report.table()


def davis_yin_layer(step):
    torch.manual_seed(0)
    simplex = il2o.AffineSet(torch.ones(1, 5, dtype=F64), torch.ones(1, dtype=F64))

    def build(w):
        cost = il2o.QuadraticCost(linear=w, diagonal=1.0)
        return il2o.DavisYin(il2o.Problem(F=cost, g=il2o.Box(lower=0.0), h=simplex), step=step)

    return il2o.ImplicitLayer(nn.Linear(3, 5).double(), build, torch.zeros_like)


def test_davis_yin_costs_are_rank_deficient_and_the_report_says_so():
    """`dT/dw = -step P`, `P` the projection onto `sum x = 0`: rank 4 of 5, and perfect on its range."""
    d = normal(4, 3, seed=0)
    with torch.no_grad():
        report = descent_conditions(davis_yin_layer(0.5), d)
    assert report.rank.tolist() == [4] * 4
    assert not report.full_rank.any()
    assert not report.holds.any()
    assert report.condition.tolist() == [math.inf] * 4
    torch.testing.assert_close(report.range_condition, torch.ones(4, dtype=F64))
    assert (report.slope <= 1 + 1e-12).all()
    assert (report.cosine > 0).all()
    assert "4 of 5" in report.table()
    assert "rank deficient" in report.reason(0)
    torch.testing.assert_close(gradient_report(davis_yin_layer(0.5), d).sample_cosine, report.cosine, rtol=0, atol=1e-6)


def test_davis_yin_jacobian_has_the_slope_of_the_closed_form():
    """`|dT/dz| <= max(cos tau, |1 - step|)`, `tau` the angle between `span{1}` and the active coordinates' span."""
    layer, d, step = davis_yin_layer(0.5), normal(6, 3, seed=1), 0.5
    report = descent_conditions(layer, d)
    layer.solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-12, rtol=0.0, max_steps=5000))
    with torch.no_grad():
        z = layer(d).z
    P2 = torch.eye(5, dtype=F64) - 0.2  # onto H1 = {sum x = 0}
    for i in range(6):
        P1 = torch.diag((z[i] > 0).double())  # onto H2
        I = torch.eye(5, dtype=F64)
        J = (I - P2) @ (I - P1) + (1 - step) * P2 @ P1
        assert float(report.slope[i]) == pytest.approx(float(torch.linalg.matrix_norm(J, 2)), abs=1e-9)


def test_parameters_can_be_chosen_by_name():
    layer, d = davis_yin_layer(0.5), normal(2, 3, seed=0)
    report = descent_conditions(layer, d, parameters=["encoder.bias"])
    assert report.parameters == 5
    with pytest.raises(ValueError, match=r"are \['encoder.bias', 'encoder.weight'\]; got \['encoder.what'\]"):
        descent_conditions(layer, d, parameters=["encoder.what"])


def test_descent_conditions_states_its_limits():
    wide = il2o.ImplicitLayer(
        nn.Linear(3, 5000),
        lambda w: il2o.ForwardBackward(il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0)), step=0.5),
        torch.zeros_like,
    )
    with pytest.raises(ValueError, match=r"at most 4096 latent entries .* has 5000 latent entries and M 20000 x 5000"):
        descent_conditions(wide, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="needs finite data"):
        descent_conditions(wide, torch.full((1, 3), math.nan))


def test_descent_conditions_in_float32_finds_the_same_ranks():
    layer = davis_yin_layer(0.5)
    layer.encoder.float()
    simplex = il2o.AffineSet(torch.ones(1, 5), torch.ones(1))
    layer.build = lambda w: il2o.DavisYin(
        il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.Box(lower=0.0), h=simplex), step=0.5
    )
    report = descent_conditions(layer, normal(4, 3, seed=0).float())
    assert report.rank.tolist() == [4] * 4
    torch.testing.assert_close(report.range_condition, torch.ones(4, dtype=F64), rtol=1e-3, atol=0.0)
