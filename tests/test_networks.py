"""Learned operators: the bounds hold, and every claimed property holds for random weights."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import jacrev

from implicit_l2o import networks
from implicit_l2o.networks import spectral

F64 = torch.float64


def jacobian(T, x):
    """The Jacobians `(B, m, n)` of a batched map on vectors, sample by sample."""
    return torch.stack([jacrev(lambda y: T(y[None])[0])(row) for row in x])


# --- spectral bounds -------------------------------------------------------------------------------------------------


@given(m=st.integers(1, 40), n=st.integers(1, 40), scale=st.sampled_from([1e-8, 1.0, 1e8]), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_dense_bound_holds_and_is_tight(m, n, scale, seed):
    for dtype in (torch.float32, F64):
        weight = torch.randn(m, n, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * scale
        norm = torch.linalg.matrix_norm(weight.double(), ord=2)
        bound = networks.dense_norm_bound(weight)
        assert bound.dtype == dtype
        assert norm <= bound.double() <= 1.01 * norm


def dense_conv(kernel, shape, stride, padding):
    """The convolution as a matrix, column by column: the slow oracle."""
    basis = torch.eye(kernel.shape[1] * shape[0] * shape[1], dtype=kernel.dtype)
    images = basis.reshape(-1, kernel.shape[1], *shape)
    return F.conv2d(images, kernel, stride=stride, padding=padding).flatten(1).T


@given(
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    shape=st.tuples(st.integers(5, 7), st.integers(5, 7)),
    stride=st.integers(1, 2),
    padding=st.integers(0, 4),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_conv_bound_holds_for_every_padding_and_stride(channels, size, shape, stride, padding, seed):
    kernel = torch.randn(*channels, *size, dtype=F64, generator=torch.Generator().manual_seed(seed))
    norm = torch.linalg.matrix_norm(dense_conv(kernel, shape, stride, padding), ord=2)
    assert norm <= networks.conv2d_norm_bound(kernel, shape)


def test_conv_bound_is_tight_on_larger_images_and_flattening_bounds_nothing():
    kernel = torch.randn(4, 4, 3, 3, dtype=F64)
    image = torch.randn(1, 4, 24, 24, dtype=F64)
    for _ in range(400):  # power iteration on K^T K, a lower bound
        image = F.conv_transpose2d(F.conv2d(image, kernel, padding=1), kernel, padding=1)
        image = image / image.norm()
    norm = F.conv2d(image, kernel, padding=1).norm()
    bound = networks.conv2d_norm_bound(kernel, (24, 24))
    assert norm <= bound <= 1.05 * norm
    ones = torch.ones(1, 1, 3, 3, dtype=F64)
    flattened = torch.linalg.matrix_norm(ones.flatten(1), ord=2)
    assert torch.linalg.matrix_norm(dense_conv(ones, (9, 9), 1, 1), ord=2) > 2.8 * flattened


@given(
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.sampled_from([(1, 1), (2, 3), (3, 3), (8, 7)]),  # the last by the fast Fourier transform
    scale=st.sampled_from([1e-30, 1.0, 1e25]),
    low_rank=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_the_frequencies_left_out_are_not_the_largest(channels, size, scale, low_rank, seed):
    """Single precision chooses; the bound is what Gram iteration gives for all frequencies."""
    generator = torch.Generator().manual_seed(seed)
    kernel = scale * torch.randn(*channels, *size, dtype=F64, generator=generator)
    if low_rank:
        kernel[1:], kernel[:, 1:] = 0.0, 0.0
    response = torch.fft.fft2(kernel, s=(6 + size[0], 5 + size[1])).permute(2, 3, 0, 1)
    whole = spectral._gram_bound(response, 8).amax()
    torch.testing.assert_close(networks.conv2d_norm_bound(kernel, (7, 6)), whole, rtol=1e-9, atol=0.0)


def test_the_gradient_of_the_bound_goes_through_ties():
    """A kernel of one pixel has the same norm at every frequency; one that is not a number has none."""
    kernel = torch.tensor([[[[3.0]], [[0.0]]], [[[0.0]], [[1.0]]]], dtype=F64, requires_grad=True)
    networks.conv2d_norm_bound(kernel, (9, 9)).backward()
    assert kernel.grad is not None
    torch.testing.assert_close(
        kernel.grad.squeeze(), torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=F64), atol=1e-3, rtol=0
    )
    assert torch.isnan(networks.conv2d_norm_bound(torch.full((2, 2, 3, 3), torch.nan), (5, 5)))


def test_a_bound_in_inference_mode_leaves_nothing_behind_that_a_training_cannot_use():
    spectral._waves.cache_clear()
    kernel = torch.randn(2, 2, 3, 3, requires_grad=True)
    with torch.inference_mode():
        networks.conv2d_norm_bound(kernel, (6, 6))
    networks.conv2d_norm_bound(kernel, (6, 6)).backward()
    assert kernel.grad is not None


def test_bounds_are_differentiable_and_survive_zero_weights():
    weight = torch.randn(3, 4, dtype=F64, requires_grad=True)
    assert gradcheck(networks.dense_norm_bound, weight)
    kernel = torch.randn(2, 2, 3, 3, dtype=F64, requires_grad=True)
    assert gradcheck(lambda k: networks.conv2d_norm_bound(k, (4, 5)), kernel)
    zero = torch.zeros(3, 4, requires_grad=True)
    bound = networks.dense_norm_bound(zero)
    bound.backward()
    assert bound == 0
    assert zero.grad is not None
    assert torch.isfinite(zero.grad).all()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "call",
    [
        lambda: networks.dense_norm_bound(torch.zeros(3)),
        lambda: networks.dense_norm_bound(torch.zeros(0, 3)),
        lambda: networks.dense_norm_bound(torch.zeros(3, 3), iterations=0),
        lambda: networks.conv2d_norm_bound(torch.zeros(3, 3), (4, 4)),
        lambda: networks.conv2d_norm_bound(torch.zeros(1, 1, 3, 3), (0, 4)),
    ],
)
def test_spectral_rejects(call):
    with pytest.raises(ValueError, match="got"):
        call()


# --- nonexpansive, averaged, contractive -----------------------------------------------------------------------------

ACTIVATIONS = [networks.GroupSort(), nn.ReLU(), nn.Tanh(), nn.Softplus()]


def loud(net):
    """The same network with weights far outside the unit ball, so that the normalisation has to work."""
    with torch.no_grad():
        for weight in net.weights:
            weight.copy_(torch.randn_like(weight) * 3)
    return net.double()


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
def test_nonexpansive_dense_has_jacobian_norm_at_most_one(activation):
    net = loud(networks.NonexpansiveNet((5, 12, 8, 5), context=3, activation=activation))
    for _ in range(20):
        d = torch.randn(1, 3, dtype=F64)
        x = torch.randn(1, 5, dtype=F64) * 4
        norms = torch.linalg.matrix_norm(jacobian(net.condition(d), x), ord=2)
        assert norms.max() <= 1


def test_nonexpansive_conv_has_jacobian_norm_at_most_one():
    net = loud(networks.NonexpansiveConvNet((2, 6, 2), shape=(7, 6), context=1))
    for shape in ((7, 6), (4, 5)):  # smaller images are covered by the same bound
        T = net.condition(torch.randn(1, 1, *shape, dtype=F64))
        x = torch.randn(1, 2, *shape, dtype=F64)
        J = torch.autograd.functional.jacobian(T, x).reshape(x.numel(), x.numel())
        assert torch.linalg.matrix_norm(J, ord=2) <= 1
    with pytest.raises(ValueError, match="up to"):
        net.condition(torch.zeros(1, 1, 8, 6, dtype=F64))(torch.zeros(1, 2, 8, 6, dtype=F64))


def test_fresh_networks_are_not_degenerate():
    # A bound that is far too large would shrink the signal layer by layer.
    net = networks.NonexpansiveNet((16, 16, 16, 16))
    x, y = torch.randn(2, 64, 16)
    T = net.condition()
    assert ((T(x) - T(y)).norm(dim=1) / (x - y).norm(dim=1)).mean() > 0.7
    conv = networks.NonexpansiveConvNet((4, 4, 4), shape=(10, 10)).condition()
    x, y = torch.randn(2, 8, 4, 10, 10)
    assert ((conv(x) - conv(y)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1)).mean() > 0.6


def test_averaged_contractive_and_monotone():
    inner = loud(networks.NonexpansiveNet((4, 10, 4), context=2))
    d = torch.randn(1, 2, dtype=F64)
    x, y = torch.randn(2, 1, 4, dtype=F64) * 3
    averaged = networks.AveragedNet(inner, averagedness=0.3).condition(d)
    move = averaged(x) - averaged(y)
    drift = (x - averaged(x)) - (y - averaged(y))
    assert move.norm() ** 2 + (1 - 0.3) / 0.3 * drift.norm() ** 2 <= (x - y).norm() ** 2 + 1e-12
    contraction = networks.ContractiveNet(inner, contraction=0.8).condition(d)
    assert torch.linalg.matrix_norm(jacobian(contraction, x), ord=2) <= 0.8
    monotone = networks.ResidualMonotone(inner.condition(d), scale=1.7)
    change = monotone.apply(x) - monotone.apply(y)
    assert (change * (x - y)).sum() >= monotone.cocoercivity * change.norm() ** 2 - 1e-12
    assert change.norm() <= monotone.lipschitz * (x - y).norm()


def test_averaged_plays_g_only_where_it_is_a_resolvent():
    inner = networks.NonexpansiveNet((4, 10, 4))
    x = torch.randn(3, 4)
    resolvent = networks.AveragedNet(inner, averagedness=0.5).condition()
    assert torch.equal(resolvent.prox(x, 2.0), resolvent(x))
    with pytest.raises(ValueError, match=r"averagedness <= 0.5.*got 0.7"):
        networks.AveragedNet(inner, averagedness=0.7).condition().prox(x, 1.0)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: networks.NonexpansiveNet((4,)), "at least an input and an output"),
        (lambda: networks.NonexpansiveNet((4, 5, 4)), "even hidden widths"),
        (lambda: networks.NonexpansiveNet((4, 6, 4), activation=nn.GELU()), "1-Lipschitz.*got GELU"),
        (lambda: networks.NonexpansiveConvNet((1, 4, 1), shape=(5, 5), kernel_size=4), "odd"),
        (lambda: networks.AveragedNet(networks.NonexpansiveNet((4, 4)), averagedness=1.0), "got 1.0"),
        (lambda: networks.ContractiveNet(networks.NonexpansiveNet((4, 4)), contraction=1.0), "got 1.0"),
        (lambda: networks.ContractiveNet(networks.NonexpansiveNet((4, 3))), "4 inputs and 3 outputs"),
        (lambda: networks.NonexpansiveNet((4, 4)).condition(torch.zeros(1, 2)), "takes none"),
        (lambda: networks.NonexpansiveNet((4, 4), context=2).condition(), "needs it"),
        (lambda: networks.GroupSort()(torch.zeros(2, 3)), "even number; got 3"),
    ],
)
def test_nonexpansive_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- convex costs and their proximal maps -----------------------------------------------------------------------------

SMOOTH = [networks.Softplus(2.0), networks.Squareplus(0.3), networks.Huber(0.5)]
COSTS = [
    pytest.param({"widths": (12,), "activation": activation}, id=f"ridge-{type(activation).__name__}")
    for activation in SMOOTH
] + [
    pytest.param({"widths": (12, 9, 7), "activation": networks.Softplus(3.0)}, id="deep-Softplus"),
    pytest.param({"widths": (8, 8), "activation": networks.Squareplus(0.2), "strong": 0.4}, id="deep-strong"),
]


def rough(net):
    """Random weights of size one everywhere, so that no property rests on the initialisation."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return net.double()


@pytest.mark.parametrize("activation", SMOOTH, ids=lambda a: type(a).__name__)
def test_activations_match_their_derivatives(activation):
    t = torch.linspace(-6, 6, 2001, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(activation.value(t).sum(), t, create_graph=True)
    torch.testing.assert_close(slope, activation.slope(t), rtol=1e-9, atol=1e-9)
    (curvature,) = torch.autograd.grad(slope.sum(), t)
    assert slope.abs().max() <= 1
    assert (curvature >= 0).all()
    assert 0.99 * activation.curvature <= curvature.max() <= activation.curvature * (1 + 1e-9)
    assert activation.increasing == bool((slope >= 0).all())


@pytest.mark.parametrize("options", COSTS)
@given(seed=st.integers(0, 9999), spread=st.sampled_from([0.01, 1.0, 30.0]), t=st.floats(0.0, 1.0))
@settings(max_examples=30, deadline=None)
def test_cost_is_convex_smooth_and_strongly_convex(options, seed, spread, t):
    torch.manual_seed(seed)
    f = rough(networks.ICNN(5, context=3, **options)).condition(torch.randn(4, 3, dtype=F64))
    x, y = torch.randn(2, 4, 5, dtype=F64) * spread
    gap = (x - y).square().sum(1)
    strong = options.get("strong", 0.0)
    chord = t * f.value(x) + (1 - t) * f.value(y) - strong / 2 * t * (1 - t) * gap
    assert (f.value(t * x + (1 - t) * y) <= chord + 1e-9 * (1 + chord.abs())).all()
    change = f.apply(x) - f.apply(y)
    assert ((change * (x - y)).sum(1) >= strong * gap - 1e-9 * (1 + gap)).all()
    assert (change.norm(dim=1) <= f.lipschitz * gap.sqrt() * (1 + 1e-9)).all()


@pytest.mark.parametrize("options", COSTS)
def test_gradient_is_the_gradient_with_and_without_autograd(options):
    f = rough(networks.ICNN((2, 3), context=3, **options)).condition(torch.randn(4, 3, dtype=F64))
    x = torch.randn(4, 2, 3, dtype=F64, requires_grad=True)
    (expected,) = torch.autograd.grad(f.value(x).sum(), x)
    with torch.no_grad():
        silent = f.apply(x)
    assert not silent.requires_grad
    assert f.apply(x).requires_grad
    torch.testing.assert_close(silent, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", COSTS)
def test_curvature_bound_holds_and_is_usable(options):
    # At its initialisation the bound must not be astronomically loose: it sets the solver's step.
    worst = torch.tensor(0.0, dtype=F64)
    f = networks.ICNN(5, **options).double().condition()
    for scale in (0.1, 1.0, 3.0):
        H = jacobian(f.apply, torch.randn(200, 5, dtype=F64) * scale)
        worst = worst.maximum(torch.linalg.matrix_norm(H, ord=2).max())
    assert worst <= f.lipschitz <= 8 * worst


def test_curvature_is_per_sample_and_differentiable():
    net = networks.ICNN(3, context=2, widths=(6, 5)).double()
    d = torch.randn(4, 2, dtype=F64, requires_grad=True)
    f = net.condition(d)
    assert f.lipschitz.shape == (4,)
    assert not f.lipschitz.requires_grad
    assert gradcheck(lambda d: net.condition(d).curvature, d)
    assert isinstance(f.cocoercivity, torch.Tensor)
    torch.testing.assert_close(f.cocoercivity, 1 / f.lipschitz)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("options", COSTS)
def test_proximal_net_is_a_prox(options, residual):
    # Moreau: a map is a prox iff its Jacobian is symmetric with eigenvalues in [0, 1].
    g = networks.ProximalNet(rough(networks.ICNN(5, **options)), residual=residual).condition()
    x, y = torch.randn(2, 50, 5, dtype=F64) * 2
    J = jacobian(lambda x: g.prox(x, 1.0), x)
    torch.testing.assert_close(J, J.mT, rtol=1e-9, atol=1e-12)
    eigenvalues = torch.linalg.eigvalsh((J + J.mT) / 2)
    assert eigenvalues.min() >= -1e-12
    assert eigenvalues.max() <= 1 + 1e-12
    move = g.prox(x, 1.0) - g.prox(y, 1.0)
    assert ((move * (x - y)).sum(1) >= move.square().sum(1) - 1e-12).all()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: networks.ICNN(3, widths=()), "at least one layer"),
        (lambda: networks.ICNN(3, widths=(4, 4), activation=networks.Huber()), "not increasing"),
        (lambda: networks.ICNN(3, strong=-0.1), "got strong=-0.1"),
        (lambda: networks.ICNN(3).condition(torch.zeros(1, 2)), "takes none"),
        (lambda: networks.ICNN(3, context=2).condition(), "needs it"),
        (lambda: networks.Softplus(0.0), "got 0.0"),
        (lambda: networks.Huber(float("inf")), "got inf"),
        (lambda: networks.MLP((3,)), "at least two"),
    ],
)
def test_costs_reject(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_shape_is_named():
    f = networks.ICNN(3, context=2).condition(torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"samples of shape \(3,\); got x of shape \(4, 5\)"):
        f.check_batch(torch.zeros(4, 5), "F")
    with pytest.raises(ValueError, match="must be 1 or B=5"):
        f.check_batch(torch.zeros(5, 3), "F")


# --- what every conditioned operator keeps ---------------------------------------------------------------------------


def conditioned(name, dtype=F64, batch=6):
    """A freshly conditioned operator by name, as a map, with its net, context and a point."""
    d = torch.randn(batch, 3, dtype=dtype)
    x = torch.randn(batch, 4, dtype=dtype)
    dense = networks.NonexpansiveNet((4, 8, 4), context=3, activation=nn.Tanh())
    icnn = networks.ICNN(4, context=3, widths=(8, 6))
    nets = {
        "cost": icnn,
        "proximal": networks.ProximalNet(icnn, residual=True),
        "nonexpansive": dense,
        "averaged": networks.AveragedNet(dense, averagedness=0.5),
        "contractive": networks.ContractiveNet(dense, contraction=0.7),
    }
    return nets[name].to(dtype), d, x


def as_map(operator):
    """An operator as the map that a solver calls."""
    if isinstance(operator, networks.ConvexCost):
        return operator.apply
    if isinstance(operator, networks.LearnedProx):
        return lambda x: operator.prox(x, 1.0)
    return operator


NAMES = ["cost", "proximal", "nonexpansive", "averaged", "contractive"]


@pytest.mark.parametrize("name", NAMES)
def test_restricting_and_splitting_the_batch_changes_nothing(name):
    net, d, x = conditioned(name)
    index = torch.tensor([4, 1])
    expected = as_map(net.condition(d))(x)[index]
    torch.testing.assert_close(as_map(net.condition(d).restrict(index))(x[index]), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(as_map(net.condition(d[index]))(x[index]), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_state_dicts_are_the_same_network(name):
    net, d, x = conditioned(name)
    expected = as_map(net.condition(d))(x)
    fresh, _, _ = conditioned(name)
    fresh.load_state_dict(net.state_dict())
    for twin in (copy.deepcopy(net), fresh):
        assert torch.equal(as_map(twin.condition(d))(x), expected)


@pytest.mark.parametrize("name", NAMES)
def test_first_and_second_derivatives_in_point_context_and_weights(name):
    net, d, x = conditioned(name, batch=2)
    weights = [(key, value) for key, value in net.named_parameters() if value.ndim == 2][:1]
    key, weight = weights[0]

    class Conditioned(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, d, x):
            return as_map(self.net.condition(d))(x)

    def call(x, d, weight):
        return torch.func.functional_call(Conditioned(), {f"net.{key}": weight}, (d, x))

    arguments = tuple(t.detach().clone().requires_grad_() for t in (x, d, weight))
    assert gradcheck(call, arguments)
    assert gradgradcheck(call, arguments)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_stays_single(name):
    net, d, x = conditioned(name, torch.float32)
    assert as_map(net.condition(d))(x).dtype == torch.float32
