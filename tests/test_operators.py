"""The laws of every operator in `cases.py`, its oracle, its derivatives; and what each does with bad input."""

import math
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import cases
import implicit_l2o as il2o
import oracles
from drawing import OperatorCase
from implicit_l2o import testing
from implicit_l2o.operators._spectral import eigenvalue_bound

NAN = math.nan
BATCH = 3


def every(cases: list[OperatorCase]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=str)


def arrays(case: OperatorCase) -> st.SearchStrategy[Tensor]:
    """Points of a batch, kinks included: hypothesis likes zeros and equal entries."""
    entries = st.floats(-100, 100, allow_subnormal=False)
    return hnp.arrays(np.float64, (BATCH, *case.shape), elements=entries).map(torch.from_numpy)


def outcome(operator: Any, x: Tensor) -> Tensor:
    """What an operator is for: its prox (a set's projection) or its image."""
    return operator.prox(x, oracles.STEP) if isinstance(operator, il2o.AbstractProximable) else operator.apply(x)


@every(cases.SETS)
@settings(max_examples=12)
@given(data=st.data())
def test_projection_laws(case: OperatorCase, data: st.DataObject) -> None:
    testing.check_set(case.build(), data.draw(arrays(case)))


@every(cases.FUNCTIONS)
@settings(max_examples=8)
@given(data=st.data())
def test_function_laws(case: OperatorCase, data: st.DataObject) -> None:
    testing.check_function(case.build(), data.draw(arrays(case)), step=0.5)


@every(cases.PROXES)
@settings(max_examples=8)
@given(data=st.data())
def test_prox_laws(case: OperatorCase, data: st.DataObject) -> None:
    operator = case.build()
    if isinstance(operator, il2o.AbstractFunction):  # one with a set among its terms: its value counts the set as zero
        operator = il2o.Conjugate(il2o.Conjugate(operator))
    testing.check_prox(operator, data.draw(arrays(case)))


@every(cases.SMOOTH)
@settings(max_examples=3)
@given(data=st.data())
def test_smooth_laws(case: OperatorCase, data: st.DataObject) -> None:
    testing.check_smooth(case.build(), data.draw(arrays(case)))


@every(cases.MONOTONE)
@settings(max_examples=3)
@given(data=st.data())
def test_monotone_laws(case: OperatorCase, data: st.DataObject) -> None:
    testing.check_monotone(case.build(), data.draw(arrays(case)))


@every(cases.LINEAR)
def test_linear_laws(case: OperatorCase) -> None:
    testing.check_linear_operator(case.build())


@every(cases.OPERATORS)
def test_float32(case: OperatorCase) -> None:
    operator, x = case.build(torch.float32), case.points(torch.float32)
    check: Callable[..., None]
    if isinstance(operator, il2o.AbstractLinearOperator):
        return testing.check_linear_operator(operator, dtype=torch.float32)
    if isinstance(operator, il2o.AbstractSet):
        check = testing.check_set
    else:
        check = testing.check_smooth if isinstance(operator, il2o.AbstractSmooth) else testing.check_batch
    if isinstance(operator, il2o.AbstractMonotone) and not isinstance(operator, il2o.AbstractSmooth):
        check = testing.check_monotone
    if check is testing.check_batch:
        return testing.check_batch(operator, x, outcome)
    return check(operator, x)


@every(cases.SETS + cases.FUNCTIONS + cases.PROXES)
def test_prox_is_the_oracles(case: OperatorCase) -> None:
    parameters, x = case.parameters(), case.points(seed=2)
    result = outcome(case.make(*parameters), x)
    assert case.oracle is not None
    for i in range(BATCH):
        of_sample = [
            (value[i] if draw.per_sample else value).numpy() for draw, value in zip(case.draws, parameters, strict=True)
        ]
        # A parameter (1, *shape) is shared and shaped like x.
        of_sample = [
            value[0] if draw.sizes[:1] == (1,) else value for draw, value in zip(case.draws, of_sample, strict=True)
        ]
        expected = case.oracle(x[i].numpy(), *of_sample)
        np.testing.assert_allclose(result[i].numpy(), expected, atol=1e-6)


@every(cases.OPERATORS)
def test_derivatives(case: OperatorCase) -> None:
    """First and second, with respect to `x` and every parameter; random points are off the kinks."""
    inputs = [case.points(batch=2), *case.parameters(batch=2)]

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        return outcome(case.make(*parameters), x)

    inputs = [value.requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@every(cases.FUNCTIONS + cases.SMOOTH)
def test_derivatives_of_the_value(case: OperatorCase) -> None:
    inputs = [case.points(batch=2), *case.parameters(batch=2)]
    inputs = [value.requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(lambda x, *parameters: case.make(*parameters).value(x), inputs)


@every([case for case in cases.LINEAR if case.draws])
def test_derivatives_of_the_adjoint(case: OperatorCase) -> None:
    parameters = [value.requires_grad_() for value in case.parameters()]
    y = torch.randn(2, *case.make(*parameters).out_shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y, *parameters: case.make(*parameters).adjoint(y), [y, *parameters])
    assert torch.autograd.gradgradcheck(lambda y, *parameters: case.make(*parameters).adjoint(y), [y, *parameters])


@every(cases.LINEAR)
def test_norm_bound_is_close_to_the_norm(case: OperatorCase) -> None:
    operator = case.build()
    matrix = oracles.dense(lambda e: operator.apply(torch.from_numpy(e)[None])[0].numpy(), case.shape)
    norm = np.linalg.norm(matrix, 2)
    # A strided convolution keeps few of the circular one's outputs: the bound is true, not tight.
    assert norm <= operator.norm_bound <= norm * (1.8 if "strided" in case.name else 1.25)


@pytest.mark.parametrize(
    ("padding", "stride"), [((0, 0), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (2, 3)), ((3, 0), (1, 2))]
)
def test_convolution_is_the_loop(padding: tuple[int, int], stride: tuple[int, int]) -> None:
    weight = torch.randn(3, 2, 3, 2, dtype=torch.float64)
    operator = il2o.Convolution2D(weight, (2, 5, 7), padding=padding, stride=stride)
    x = torch.randn(2, 2, 5, 7, dtype=torch.float64)
    expected = np.stack([oracles.correlate(image, weight.numpy(), padding, stride) for image in x.numpy()])
    np.testing.assert_allclose(operator.apply(x).numpy(), expected, atol=1e-12)
    matrix = oracles.dense(lambda e: oracles.correlate(e, weight.numpy(), padding, stride), (2, 5, 7))
    assert np.linalg.norm(matrix, 2) <= operator.norm_bound


def test_convolution_bound_of_a_large_image_uses_few_frequencies() -> None:
    weight = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    bound = il2o.Convolution2D(weight, (3, 150, 200)).norm_bound
    every_frequency = torch.linalg.matrix_norm(torch.fft.fft2(weight, s=(600, 600)).permute(2, 3, 0, 1), 2).max()
    assert every_frequency <= bound <= 1.03 * every_frequency


def test_a_learned_norm_follows_the_parameter() -> None:
    A = torch.eye(2, requires_grad=True)
    weight = torch.ones(1, 1, 1, 1, requires_grad=True)
    operators = (il2o.Matrix(A), il2o.Convolution2D(weight, (1, 2, 2)))
    assert [operator.norm_bound for operator in operators] == pytest.approx([1.0, 1.0], rel=1e-5)
    with torch.no_grad():
        A.mul_(3.0)
        weight.mul_(3.0)
    assert [operator.norm_bound for operator in operators] == pytest.approx([3.0, 3.0], rel=1e-5)


def test_finite_differences_bound_is_the_norm_and_below_sqrt_8() -> None:
    for shape in ((1, 1), (2, 7), (9, 4)):
        operator = il2o.FiniteDifferences2D(shape)
        matrix = oracles.dense(lambda e, op=operator: op.apply(torch.from_numpy(e)[None])[0].numpy(), shape)
        assert operator.norm_bound == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-12, abs=1e-12)
        assert operator.norm_bound < math.sqrt(8)


def test_sparse_norm_bound_is_exact_for_one_sign() -> None:
    A = np.abs(np.random.default_rng(0).standard_normal((30, 20))) * (np.arange(20) % 3 != 1)
    bound = il2o.Matrix(scipy.sparse.csr_array(A)).norm_bound
    assert np.linalg.norm(A, 2) <= bound <= np.linalg.norm(A, 2) * (1 + 1e-9)
    blocks = scipy.sparse.block_diag([1e-9 * A, A])  # the small block must not spoil the bound
    assert il2o.Matrix(blocks).norm_bound == pytest.approx(np.linalg.norm(A, 2), rel=1e-9)


def test_eigenvalue_bound() -> None:
    L = torch.randn(50, 8, 3, dtype=torch.float64)
    gram = torch.cat(
        [L @ L.mT, torch.zeros(1, 8, 8, dtype=torch.float64), 1e200 * torch.eye(8, dtype=torch.float64)[None]]
    )
    largest, bound = torch.linalg.eigvalsh(gram)[:, -1], eigenvalue_bound(gram)
    assert (largest <= bound).all()
    assert (bound <= 8 ** (1 / 64) * (1 + 1e-12) * largest).all()


def test_quadratic_lipschitz_is_per_sample_and_detached() -> None:
    L = torch.randn(4, 5, 5, dtype=torch.float64, requires_grad=True)
    matrix = L @ L.mT
    bound = il2o.QuadraticCost(diagonal=torch.ones(4, 5, dtype=torch.float64), matrix=matrix).lipschitz
    largest = 1 + torch.linalg.eigvalsh(matrix.detach())[:, -1]
    assert isinstance(bound, Tensor)
    assert not bound.requires_grad
    assert (largest <= bound).all()
    assert (bound <= 1.06 * largest).all()
    assert il2o.QuadraticCost(matrix=torch.eye(5)).lipschitz == pytest.approx(1.0, rel=1e-4)
    assert il2o.QuadraticCost(diagonal=torch.tensor([1.0, 3.0])).lipschitz == 3.0
    assert il2o.QuadraticCost(diagonal=torch.tensor([[1.0, 3.0]])).lipschitz.shape == ()


def test_interior_points_are_returned_exactly() -> None:
    x = torch.tensor([[0.1, -0.2, 0.3]])
    center = torch.tensor([0.2, 0.1, -0.1])
    for set_ in (il2o.L1Ball(5.0, center), il2o.L2Ball(5.0, center), il2o.LInfBall(5.0, center), il2o.Box(-1.0, 1.0)):
        assert torch.equal(set_.project(x), x)


def test_degenerate_sets() -> None:
    x = torch.tensor([[3.0, -1.0, 3.0]])
    zero = torch.zeros(1, 3)
    for set_ in (il2o.Simplex(0.0), il2o.L1Ball(0.0), il2o.L2Ball(0.0), il2o.LInfBall(0.0), il2o.Box(0.0, 0.0)):
        assert torch.equal(set_.project(x), zero)
        assert torch.equal(set_.project(zero), zero)
    assert torch.equal(il2o.SecondOrderCone().project(torch.tensor([[2.0], [-1.0]])), torch.tensor([[2.0], [0.0]]))
    assert torch.equal(il2o.Simplex(2.0).project(torch.tensor([[-7.0]])), torch.tensor([[2.0]]))


def test_no_bound_at_all_is_legal_and_keeps_gradients_finite() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    inf = torch.full((2,), math.inf)
    for set_ in (
        il2o.L1Ball(inf),
        il2o.L2Ball(inf),
        il2o.LInfBall(inf),
        il2o.Box(),
        il2o.Box(-inf[:, None], inf[:, None]),
    ):
        projected = set_.project(x)
        assert torch.equal(projected, x)
        assert torch.equal(torch.autograd.grad(projected.sum(), x)[0], torch.ones(2, 3))
    for term in (il2o.L1Norm(inf[:, None]), il2o.L2Norm(inf), il2o.GroupL2Norm(inf[:, None, None], dim=1)):
        points = x[..., None]
        shrunk = term.prox(points if isinstance(term, il2o.GroupL2Norm) else x, 1.0)
        assert torch.equal(shrunk, torch.zeros_like(shrunk))
        assert torch.isfinite(torch.autograd.grad(shrunk.sum(), x)[0]).all()


def test_second_derivatives_at_the_centre_and_apex_are_finite() -> None:
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    for operator in (il2o.L2Ball(1.0), il2o.L2Norm(), il2o.GroupL2Norm(dim=0), il2o.SecondOrderCone()):
        (gradient,) = torch.autograd.grad(operator.prox(zero, 1.0).square().sum(), zero, create_graph=True)
        (second,) = torch.autograd.grad(gradient.sum(), zero)
        assert torch.isfinite(second).all(), type(operator).__name__


def test_simplex_keeps_its_digits_far_away() -> None:
    x = torch.tensor([[0.1, 0.4, 0.2]], dtype=torch.float64)
    torch.testing.assert_close(il2o.Simplex().project(x + 1e6), il2o.Simplex().project(x), atol=1e-9, rtol=0)
    large = il2o.Simplex().project(1e4 * torch.randn(2, 20_000))
    torch.testing.assert_close(large.sum(-1), torch.ones(2), atol=1e-3, rtol=0)


# A bad value in ONE sample (index 1 of 3) of a learned or per-sample parameter must cost that sample alone.
POISON = {
    "box crossed": lambda bad: il2o.Box(lower=torch.zeros(3, 1), upper=bad(1.0, -1.0)[:, None]),
    "box crossed numbers": lambda bad: il2o.Box(lower=0.0, upper=bad(1.0, -1.0)[:, None]),
    "box nan": lambda bad: il2o.Box(lower=bad(0.0, NAN)[:, None]),
    "half-space zero": lambda bad: il2o.HalfSpace(bad(1.0, 0.0)[:, None].expand(3, 2), -1.0),
    "half-space nan": lambda bad: il2o.HalfSpace(torch.ones(2), bad(0.0, NAN)),
    "simplex negative": lambda bad: il2o.Simplex(bad(1.0, -1.0)),
    "l1 radius": lambda bad: il2o.L1Ball(bad(1.0, -1.0)),
    "l1 nan centre": lambda bad: il2o.L1Ball(1.0, bad(1.0, NAN)[:, None]),
    "l2 radius": lambda bad: il2o.L2Ball(bad(1.0, -1.0)),
    "l2 nan radius": lambda bad: il2o.L2Ball(bad(1e9, NAN)),
    "linf radius": lambda bad: il2o.LInfBall(bad(1.0, -1.0)),
    "l1 weight": lambda bad: il2o.L1Norm(bad(1.0, -1.0)[:, None]),
    "l2 weight": lambda bad: il2o.L2Norm(bad(1.0, -1.0)),
    "group weight": lambda bad: il2o.GroupL2Norm(bad(1.0, -1.0)[:, None], groups=torch.tensor([0, 0])),
    "scale factor": lambda bad: il2o.Scale(il2o.L1Norm(), bad(1.0, -1.0)),
    "scale-set factor": lambda bad: il2o.ScaleSet(il2o.LInfBall(1.0), bad(1.0, 0.0)),
    "affine rhs": lambda bad: il2o.AffineSet(torch.ones(2, 2), bad(1.0, NAN)[:, None].expand(3, 2)),
    "quadratic diagonal": lambda bad: il2o.QuadraticCost(diagonal=bad(1.0, -1.0)[:, None]),
    "quadratic matrix": lambda bad: il2o.QuadraticCost(matrix=bad(1.0, NAN)[:, None, None] * torch.eye(2)),
    "least-squares weight": lambda bad: il2o.LeastSquares(torch.eye(2), torch.ones(2), bad(1.0, -1.0)),
}


@pytest.mark.parametrize("name", POISON)
def test_a_bad_learned_value_costs_its_sample_alone(name: str) -> None:
    operator = POISON[name](lambda good, bad: torch.tensor([good, bad, good]))
    clean = POISON[name](lambda good, bad: torch.full((3,), good))
    x = torch.tensor([[3.0, 1.0]]).repeat(3, 1)
    result, expected = outcome(operator, x), outcome(clean, x)
    assert torch.isnan(result[1]).any()
    assert torch.equal(result[[0, 2]], expected[[0, 2]])
    if isinstance(operator, il2o.AbstractSmooth):
        bound = operator.lipschitz
        assert isinstance(bound, Tensor)
        assert torch.isnan(bound[1])
        assert torch.isfinite(bound[[0, 2]]).all()


BAD = {
    "box numbers": (lambda: il2o.Box(lower=1.0, upper=0.0), "lower=1.0 and upper=0.0"),
    "box tensors": (
        lambda: il2o.Box(lower=torch.tensor([0.0, 2.0]), upper=torch.tensor([1.0, 1.5])),
        r"lower=2.0 and upper=1.5 at index \(1,\)",
    ),
    "box mixed": (lambda: il2o.Box(lower=0.0, upper=torch.tensor([1.0, -1.5])), r"upper=-1.5 at index \(1,\)"),
    "half-space": (lambda: il2o.HalfSpace(torch.zeros(2), 1.0), "non-zero normal"),
    "simplex": (lambda: il2o.Simplex(-1.0), "Simplex.total must be >= 0; got -1.0"),
    "l1 ball": (lambda: il2o.L1Ball(-2.0), "L1Ball.radius must be >= 0; got -2.0"),
    "l2 ball": (lambda: il2o.L2Ball(NAN), "L2Ball.radius must be >= 0; got nan"),
    "linf ball": (lambda: il2o.LInfBall(torch.tensor(-1.0)), "LInfBall.radius must be >= 0; got -1.0"),
    "l1 norm": (
        lambda: il2o.L1Norm(torch.tensor([1.0, -3.0])),
        r"L1Norm.weight must be >= 0; got -3.0 at index \(1,\)",
    ),
    "l2 norm": (lambda: il2o.L2Norm(-1.0), "L2Norm.weight"),
    "group: neither": (lambda: il2o.GroupL2Norm(), "exactly one of dim and groups"),
    "group: both": (lambda: il2o.GroupL2Norm(dim=0, groups=torch.tensor([0])), "exactly one of dim and groups"),
    "group: labels": (lambda: il2o.GroupL2Norm(groups=torch.tensor([0.5])), "must be integers"),
    "group: negative": (lambda: il2o.GroupL2Norm(groups=torch.tensor([0, -1])), "must be >= 0; got -1"),
    "group: weights": (lambda: il2o.GroupL2Norm(torch.ones(3), groups=torch.tensor([0, 1])), "there are 2 groups"),
    "group: size": (
        lambda: il2o.GroupL2Norm(groups=torch.tensor([0, 1])).value(torch.ones(1, 3)),
        "labels 2 entries; got samples of 3",
    ),
    "scale": (lambda: il2o.Scale(il2o.L1Norm(), -1.0), "Scale.factor must be >= 0; got -1.0"),
    "scale-set": (lambda: il2o.ScaleSet(il2o.Free(), 0.0), "ScaleSet.factor must be > 0; got 0.0"),
    "quadratic diagonal": (lambda: il2o.QuadraticCost(diagonal=-0.5), "diagonal must be >= 0; got -0.5"),
    "quadratic shape": (lambda: il2o.QuadraticCost(matrix=torch.ones(2, 3)), r"got \(2, 3\)"),
    "quadratic asymmetric": (
        lambda: il2o.QuadraticCost(matrix=torch.tensor([[1.0, 0.5], [0.0, 1.0]])),
        r"symmetric; the largest \|Q_ij - Q_ji\| is 0.5",
    ),
    "quadratic indefinite": (
        lambda: il2o.QuadraticCost(matrix=torch.diag(torch.tensor([1.0, -2.0]))),
        "smallest eigenvalue is -2",
    ),
    "quadratic nan": (lambda: il2o.QuadraticCost(matrix=torch.tensor([[NAN]])), "NaN or infinite"),
    "quadratic size": (
        lambda: il2o.QuadraticCost(matrix=torch.eye(2)).apply(torch.ones(1, 3)),
        "got samples of 3 entries",
    ),
    "least-squares": (lambda: il2o.LeastSquares(torch.ones(2, 3), torch.ones(3)), r"A maps to \(2,\).*got \(3,\)"),
    "matrix per sample": (lambda: il2o.Matrix(torch.ones(2, 3, 4)), r"got \(2, 3, 4\)"),
    "matrix shape": (lambda: il2o.Matrix(torch.ones(2, 3), sample_shape=(2, 2)), r"sample_shape=\(2, 2\)"),
    "finite differences": (lambda: il2o.FiniteDifferences2D((4,)), r"got \(4,\)"),
    "convolution channels": (lambda: il2o.Convolution2D(torch.ones(1, 2, 3, 3), (1, 4, 4)), r"\(1, 2, 3, 3\)"),
    "convolution size": (lambda: il2o.Convolution2D(torch.ones(1, 1, 5, 5), (1, 4, 4)), "larger than the image"),
    "convolution stride": (lambda: il2o.Convolution2D(torch.ones(1, 1, 1, 1), (1, 4, 4), stride=0), "stride=0"),
    "product count": (lambda: il2o.ProductSet((il2o.Free(),), sizes=(1, 2)), "1 terms and 2 sizes"),
    "product sum": (
        lambda: il2o.ProductSet((il2o.Free(), il2o.Free()), sizes=(1, 2)).project(torch.ones(1, 4)),
        r"sizes \[1, 2\] do not add up to the 4 entries",
    ),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_named(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()


WRONG_KIND = {
    "translate a set": lambda: il2o.Translate(il2o.Free(), 1.0),  # pyright: ignore[reportArgumentType]
    "translate-set a function": lambda: il2o.TranslateSet(il2o.L1Norm(), 1.0),  # pyright: ignore[reportArgumentType]
    "scale a set": lambda: il2o.Scale(il2o.Free(), 1.0),  # pyright: ignore[reportArgumentType]
    "scale-set a function": lambda: il2o.ScaleSet(il2o.L1Norm(), 1.0),  # pyright: ignore[reportArgumentType]
    "conjugate of a cost": lambda: il2o.Conjugate(il2o.LinearCost(torch.ones(2))),  # pyright: ignore[reportArgumentType]
    "product of functions": lambda: il2o.ProductSet((il2o.L1Norm(),), (2,)),  # pyright: ignore[reportArgumentType]
    "sum of costs": lambda: il2o.SeparableSum((il2o.LinearCost(torch.ones(2)),), (2,)),  # pyright: ignore[reportArgumentType]
    "matrix of a list": lambda: il2o.Matrix([[1.0]]),
    "affine set of a list": lambda: il2o.AffineSet([[1.0]], torch.ones(1)),
    "value of a conjugate": lambda: il2o.SeparableSum((il2o.Conjugate(il2o.L1Norm()),), (2,)).value(torch.ones(1, 2)),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("name", WRONG_KIND)
def test_wrong_kinds_are_type_errors(name: str) -> None:
    with pytest.raises(TypeError):
        WRONG_KIND[name]()


@pytest.mark.bad_input
def test_a_batch_that_does_not_fit_is_named() -> None:
    x = torch.ones(4, 3)
    for operator, message in (
        (il2o.Box(lower=torch.zeros(2, 3)), r"Box.lower has shape \(2, 3\)"),
        (il2o.L1Norm(torch.ones(5)), r"does not broadcast to x of shape \(4, 3\)"),
        (il2o.Simplex(torch.ones(4, dtype=torch.float64)), "is torch.float64 but x is torch.float32"),
        (il2o.LeastSquares(torch.ones(2, 5), torch.ones(2)), r"acts on samples of shape \(5,\)"),
        (il2o.Translate(il2o.L1Norm(torch.ones(2, 3)), 0.0), "L1Norm.weight|term"),
    ):
        with pytest.raises(ValueError, match=message):
            operator.check_batch(x, type(operator).__name__)


def test_the_contract_snippet_cost() -> None:
    w = torch.randn(32, 5, requires_grad=True)
    cost = il2o.QuadraticCost(linear=w, diagonal=0.5)
    x = torch.randn(32, 5)
    torch.testing.assert_close(cost.value(x), (w * x).sum(-1) + 0.25 * x.square().sum(-1))
    assert cost.lipschitz == 0.5
    assert cost.cocoercivity == 2.0
