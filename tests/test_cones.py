"""What makes a projection that onto a cone: Moreau's decomposition, and the product that puts the cones together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import implicit_l2o as il2o

CONES = {
    "second-order": (il2o.SecondOrderCone(), (4,)),
    "exponential": (il2o.ExponentialCone(), (3,)),
    "power": (il2o.PowerCone(0.2), (3,)),
    "semidefinite": (il2o.SemidefiniteCone(), (3, 3)),
    "product": (
        il2o.ConeProduct(nonnegative=2, second_order=(2, 4, 2), semidefinite=(3, 2), exponential=2, power=(0.1, 0.8)),
        (2 + 8 + 6 + 3 + 6 + 6,),
    ),
}


def points(shape: tuple[int, ...], seed: int, scale: float, batch: int = 40) -> torch.Tensor:
    x = scale * torch.randn(batch, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (x + x.mT) / 2 if len(shape) == 2 else x


@pytest.mark.parametrize("name", CONES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), power=st.integers(-6, 6))
def test_moreau_decomposition(name: str, seed: int, power: int) -> None:
    """`x = p + q` with `p` in the cone, `q` orthogonal to it and in the polar cone: this characterises `p`."""
    cone, shape = CONES[name]
    x = points(shape, seed, 10.0**power)
    p = cone.project(x)
    q = (x - p).flatten(1)
    size = x.flatten(1).norm(dim=1)
    assert ((p.flatten(1) * q).sum(1).abs() <= 1e-12 * size.square()).all()
    members = cone.project(points(shape, seed + 1, 1.0)).flatten(1)
    assert (q @ members.mT <= 1e-12 * size[:, None] * (1 + members.norm(dim=1))).all()
    assert (cone.violation(p) <= 1e-11 * size).all()


def test_a_point_that_is_far_out_in_the_exponential_keeps_its_digits() -> None:
    x = torch.tensor([[50.0, 1.0, 0.0], [-50.0, 1.0, -1e-3], [3.0, -8.0, 1e6], [1e-9, 1.0, 0.0]], dtype=torch.float64)
    p = il2o.ExponentialCone().project(x)
    assert ((p * (x - p)).sum(1).abs() <= 1e-12 * x.norm(dim=1).square()).all()
    assert torch.allclose(p[:, 1] * (p[:, 0] / p[:, 1]).exp(), p[:, 2], rtol=1e-10)


def test_the_product_is_its_parts() -> None:
    product, (size,) = CONES["product"]
    x = points((size,), 3, 1.0, batch=5)
    p = product.project(x)
    assert torch.equal(p[:, :2], x[:, :2].clamp(min=0))
    assert torch.allclose(p[:, 4:8], il2o.SecondOrderCone().project(x[:, 4:8]))
    assert torch.allclose(p[:, 19:22], il2o.ExponentialCone().project(x[:, 19:22]))
    assert torch.allclose(p[:, -3:], il2o.PowerCone(0.8).project(x[:, -3:]))
    # The triangle of a matrix: (0, 0), (0, 1), (1, 1), by columns, the middle one times sqrt(2).
    matrix = torch.stack([x[:, 16], x[:, 17] / 2**0.5, x[:, 17] / 2**0.5, x[:, 18]], 1).reshape(-1, 2, 2)
    positive = il2o.SemidefiniteCone().project(matrix)
    assert torch.allclose(p[:, 17], positive[:, 0, 1] * 2**0.5)


def test_the_derivative_of_the_semidefinite_projection_holds_where_eigenvalues_coincide() -> None:
    x = torch.diag(torch.tensor([2.0, 2.0, -1.0], dtype=torch.float64))[None].requires_grad_()
    h = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    h = (h + h.mT) / 2
    project = il2o.SemidefiniteCone().project
    (gradient,) = torch.autograd.grad((project(x) * h).sum(), x)
    step = 1e-6
    numeric = (project(x.detach() + step * h) - project(x.detach() - step * h)) / (2 * step)
    assert torch.allclose(gradient, numeric, atol=1e-8)


def test_the_derivative_of_the_product_is_that_of_autograd() -> None:
    product, (size,) = CONES["product"]
    x = points((size,), 5, 1.0, batch=6)
    diagonal, blocks = product.derivative(x)
    whole = torch.zeros(6, size, size, dtype=torch.float64)
    whole[:, range(diagonal.shape[1]), range(diagonal.shape[1])] = diagonal
    for places, matrices in blocks:
        for cone, where in enumerate(places):
            whole[:, where[:, None], where] = matrices[:, cone]
    expected = torch.autograd.functional.jacobian(lambda x: product.project(x).sum(0), x).movedim(1, 0)
    assert torch.allclose(whole, expected, atol=1e-10)
    values = torch.linalg.eigvalsh(whole)
    assert values.min() > -1e-10
    assert values.max() < 1 + 1e-10


def test_the_compiled_exponential_cone_is_that_of_autograd() -> None:
    """Projection and derivative, near the origin, far along the rays, on faces, at the apex and without a number."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(3000, 3, dtype=torch.float64, generator=generator)
    x[1000:2000] *= 10 ** (8 * torch.rand(1000, 1, dtype=torch.float64, generator=generator) - 4)
    x[2000:] *= 10 ** (8 * torch.rand(1000, 3, dtype=torch.float64, generator=generator) - 4)
    x[:9] = torch.tensor(
        [[0, 0, 0], [-1, -1, 2], [-1, 0, -1], [0, 1, 1], [1, 0, -1], [0, 0, 1], [0, -1, 0], [1, 0, 0], [-2, 0, 0]]
    )
    cone, product = il2o.ExponentialCone(), il2o.ConeProduct(exponential=1)
    recorded = cone.project(x.clone().requires_grad_()).detach()
    size = x.abs().amax(1, keepdim=True).clamp_min(1e-300)
    assert ((cone.project(x) - recorded).abs() <= 1e-14 * size).all()
    [(_, matrices)] = product.derivative(x)[1]
    expected = torch.autograd.functional.jacobian(lambda x: cone.project(x).sum(0), x).movedim(1, 0)
    assert torch.allclose(matrices[:, 0], (expected + expected.mT) / 2, atol=1e-7)
    broken = torch.tensor([[torch.nan, 1.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    assert cone.project(broken)[0].isnan().any()
    assert torch.equal(cone.project(broken)[1], cone.project(broken[1:])[0])


def test_the_exponential_cone_under_a_transform() -> None:
    x = torch.tensor([[1.0, 0.5, -2.0], [0.3, -1.0, 2.0]], dtype=torch.float64)
    direction = torch.tensor([[0.1, 1.0, 2.0], [1.0, 0.0, -1.0]], dtype=torch.float64)
    _, pull_back = torch.func.vjp(il2o.ExponentialCone().project, x)
    (along,) = pull_back(direction)  # the derivative is symmetric
    [(_, matrices)] = il2o.ConeProduct(exponential=1).derivative(x)[1]
    assert torch.allclose(along, (matrices[:, 0] @ direction[:, :, None])[:, :, 0], atol=1e-12)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: il2o.PowerCone(1.0), "PowerCone needs 0 < alpha < 1; got alpha=1.0"),
        (lambda: il2o.ConeProduct(zero=-1), "ConeProduct needs zero >= 0; got zero=-1"),
        (lambda: il2o.ConeProduct(second_order=(0,)), r"sizes >= 1 in second_order; got \(0,\)"),
        (lambda: il2o.ConeProduct(power=(2.0,)), r"exponents in \(0, 1\) in power; got \(2.0,\)"),
        (lambda: il2o.ConeProduct(zero=1).project(torch.zeros(1, 2)), "samples with 1 entries"),
        (lambda: il2o.ExponentialCone().project(torch.zeros(1, 2)), "samples with 3 entries"),
        (lambda: il2o.SemidefiniteCone().project(torch.zeros(1, 2, 3)), r"matrices \(B, n, n\)"),
    ],
)
def test_bad_input(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # pyright: ignore
