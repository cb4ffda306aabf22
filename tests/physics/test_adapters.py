"""Operators of other packages: against the same matrix, by stand-ins, and the packages where they are installed."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.interop import geometries
from implicit_l2o.interop.exports import DeepinvModel, to_deepinv, to_scipy
from implicit_l2o.interop.projectors import AdjointWarning, astra_projector, linear_operator
from implicit_l2o.physics import FilteredBackProjection, Geometry, MatrixFree, Projector, adjoint_error
from implicit_l2o.physics._joseph import joseph_matrix
from implicit_l2o.testing import check_linear_operator

GEOMETRY = Geometry.uniform(8, angles=4)
MATRIX = joseph_matrix(GEOMETRY)  # 4 * 13 x 64
SHAPES = {"in_shape": (1, 8, 8), "out_shape": (4, 13)}


class Weighting(SimpleNamespace):
    pass


class OdlStandIn:
    """An ODL operator as far as the adapter looks: weighted spaces, an adjoint with respect to them."""

    is_linear = True

    def __init__(self, of_domain: Weighting, of_range: Weighting, *, adjoint_of: "OdlStandIn | None" = None) -> None:
        self.domain = SimpleNamespace(shape=(8, 8), dtype="float64", weighting=of_domain)
        self.range = SimpleNamespace(shape=(4, 13), dtype="float64", weighting=of_range)
        self.other = adjoint_of

    @property
    def adjoint(self) -> "OdlStandIn":
        return OdlStandIn(self.range.weighting, self.domain.weighting, adjoint_of=self)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self.other is None:
            return (MATRIX @ x.ravel()).reshape(4, 13)
        weigh_x, weigh_y = (np.asarray(getattr(w, "const", None) or w.array) for w in self._weights())
        return (MATRIX.T @ (weigh_y * x).ravel()).reshape(8, 8) / weigh_x

    def _weights(self) -> tuple[Weighting, Weighting]:
        assert self.other is not None
        return self.other.domain.weighting, self.other.range.weighting


class PylopsStandIn:
    """PyLops' operator: SciPy's interface with `dims` and `dimsd`."""

    shape, dtype, dims, dimsd = MATRIX.shape, np.dtype("float64"), (8, 8), (4, 13)

    def matvec(self, x: np.ndarray) -> np.ndarray:
        return MATRIX @ x

    def rmatvec(self, y: np.ndarray) -> np.ndarray:
        return MATRIX.T @ y


def deepinv_stand_in() -> SimpleNamespace:
    """deepinv's `LinearPhysics`: `A`, `A_adjoint` on batches."""
    A = torch.from_numpy(MATRIX.toarray())
    return SimpleNamespace(
        A=lambda x: (x.flatten(1) @ A.mT).reshape(-1, 4, 13),
        A_adjoint=lambda y: (y.flatten(1) @ A).reshape(-1, 1, 8, 8),
        img_width=8,
    )


CONST, ARRAY = Weighting(const=0.3), Weighting(array=np.linspace(0.5, 2.0, 52).reshape(4, 13))
F64 = {"dtype": torch.float64}
WRAPPED = {
    "sparse matrix": lambda: linear_operator(MATRIX, **SHAPES),
    "sparse tensor": lambda: linear_operator(torch.from_numpy(MATRIX.toarray()).to_sparse(), **SHAPES),
    "dense tensor": lambda: linear_operator(torch.from_numpy(MATRIX.toarray()), **SHAPES),
    "scipy operator": lambda: linear_operator(scipy.sparse.linalg.aslinearoperator(MATRIX), **SHAPES, **F64),
    "exported projector": lambda: linear_operator(to_scipy(Projector(GEOMETRY, **F64), **F64), **SHAPES, **F64),
    "pylops": lambda: linear_operator(PylopsStandIn(), (1, 8, 8), **F64),
    "deepinv": lambda: linear_operator(deepinv_stand_in(), **F64),
    "odl, constant weights": lambda: linear_operator(OdlStandIn(CONST, Weighting(const=2.5)), (1, 8, 8), **F64),
    "odl, array weights": lambda: linear_operator(OdlStandIn(CONST, ARRAY), (1, 8, 8), **F64),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_is_the_matrix_and_keeps_the_contract(name: str) -> None:
    operator = WRAPPED[name]()
    assert (operator.in_shape, operator.out_shape) == ((1, 8, 8), (4, 13))
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    exact = torch.from_numpy(x.flatten(1).numpy() @ MATRIX.T).reshape(2, 4, 13)
    if name == "exported projector":
        exact = exact / Projector(GEOMETRY).scale
    torch.testing.assert_close(operator.apply(x), exact)
    check_linear_operator(operator)


def test_ours_passes_as_it_is() -> None:
    projector = Projector(GEOMETRY)
    assert linear_operator(projector) is projector


def test_an_operator_of_integers_takes_real_numbers() -> None:
    difference = scipy.sparse.linalg.aslinearoperator(scipy.sparse.csr_array(np.array([[1, -1]])))
    assert linear_operator(difference).apply(torch.tensor([[0.75, 0.5]])).item() == 0.25


def test_a_wrong_adjoint_is_warned_about() -> None:
    physics = deepinv_stand_in()
    exact = physics.A_adjoint
    physics.A_adjoint = lambda y: 1.001 * exact(y)
    with pytest.warns(AdjointWarning, match=r"its adjoint is off by .*e-0\d relative, more than 1e-04"):
        linear_operator(physics, **F64)


def test_the_norm_is_estimated_or_given() -> None:
    physics = deepinv_stand_in()
    exact = np.linalg.norm(MATRIX.toarray(), 2)
    assert exact <= linear_operator(physics, **F64).norm_bound <= 1.011 * exact
    assert linear_operator(physics, norm=7.0, **F64).norm_bound == 7.0


def test_export_to_scipy_solves() -> None:
    A = to_scipy(Projector(GEOMETRY, **F64), **F64)
    x = np.random.default_rng(0).normal(size=64)
    assert A.dtype == np.float64
    np.testing.assert_allclose(A @ np.stack([x, 2 * x], 1), np.stack([A @ x, 2 * (A @ x)], 1))
    solution = scipy.sparse.linalg.lsqr(A, A @ x, atol=1e-12, btol=1e-12)[0]
    np.testing.assert_allclose(A @ solution, A @ x, atol=1e-8)


def test_a_deepinv_model() -> None:
    class Reconstruct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = nn.Parameter(torch.tensor(0.5))

        def forward(self, y: Tensor, operator: il2o.AbstractLinearOperator) -> Tensor:
            return self.step * operator.adjoint(y)

    model, physics = DeepinvModel(Reconstruct()), deepinv_stand_in()
    physics.A, physics.A_adjoint = (lambda x, f=f: f(x.double()).to(x) for f in (physics.A, physics.A_adjoint))
    y = torch.rand(2, 4, 13)
    torch.testing.assert_close(model(y, physics), 0.5 * physics.A_adjoint(y))
    model(y, physics).sum().backward()
    (step,) = model.parameters()
    assert step.grad is not None


def projector_and(geometry: Geometry) -> tuple[Projector, Tensor]:
    return Projector(geometry), torch.rand(2, *geometry.image_shape)


@pytest.mark.parametrize("kind", ["linear", "line", "strip"])
def test_astra_without_a_matrix(kind: str) -> None:
    pytest.importorskip("astra", reason="astra-toolbox is not installed", exc_type=ImportError)
    projector, x = projector_and(Geometry.uniform(32, angles=9))
    astra = astra_projector(projector.geometry, kind=kind)
    assert adjoint_error(astra) < 1e-6
    ours = projector.scale * projector.apply(x)
    assert (astra.apply(x) - ours).norm() < (1e-3 if kind == "linear" else 0.05) * ours.norm()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(astra.apply(x).square().sum(), x)
    torch.testing.assert_close(gradient, 2 * astra.adjoint(astra.apply(x.detach())), rtol=1e-4, atol=1e-2)


@pytest.mark.filterwarnings("ignore:(?!.*adjoint is off)")  # ODL's and ASTRA's own
def test_odl_and_pylops() -> None:
    tomo = pytest.importorskip("odl.applications.tomo", reason="ODL is not installed", exc_type=ImportError)
    pytest.importorskip("astra", reason="astra-toolbox is not installed", exc_type=ImportError)
    projector, x = projector_and(Geometry.uniform(16, angles=8))
    transform = tomo.RayTransform(*geometries.to_odl(projector.geometry), impl="astra_cpu")
    wrapped = linear_operator(transform, (1, 16, 16))
    torch.testing.assert_close(wrapped.apply(x), projector.scale * projector.apply(x), rtol=1e-3, atol=1e-2)
    y = projector.apply(x)
    torch.testing.assert_close(wrapped.adjoint(y), projector.scale * projector.adjoint(y), rtol=1e-3, atol=1e-2)
    assert adjoint_error(wrapped) < 1e-6


def test_pylops() -> None:
    pylops = pytest.importorskip("pylops", reason="PyLops is not installed", exc_type=ImportError)
    wrapped = linear_operator(pylops.FirstDerivative((8, 8), axis=0, dtype="float64"), (1, 8, 8), **F64)
    check_linear_operator(wrapped)


@pytest.mark.filterwarnings("ignore:(?!.*adjoint is off)")  # deepinv's own
def test_deepinv_both_ways() -> None:
    dinv = pytest.importorskip("deepinv.physics", reason="deepinv is not installed", exc_type=ImportError)
    physics = dinv.Tomography(angles=10, img_width=16, normalize=True)
    wrapped = linear_operator(physics)
    assert wrapped.out_shape == (1, 23, 10)
    assert adjoint_error(wrapped) < 1e-6
    projector, x = projector_and(Geometry.uniform(16, angles=8))
    exported = to_deepinv(projector)
    torch.testing.assert_close(exported.A_adjoint(exported.A(x)), projector.adjoint(projector.apply(x)))
    fbp = FilteredBackProjection(projector)
    assert DeepinvModel(lambda y, operator: fbp(y))(exported.A(x), exported).shape == x.shape


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: linear_operator("A"), TypeError, "a PyLops, ODL or deepinv linear operator; got str"),
        (
            lambda: linear_operator(PylopsStandIn(), (7, 7)),
            ValueError,
            r"in_shape=\(7, 7\) has 49 entries; the operator 64",
        ),
        (lambda: linear_operator(MATRIX, (1, 8, 8), (4, 12)), ValueError, r"out_shape=\(4, 12\) has 48 entries"),
        (
            lambda: linear_operator(SimpleNamespace(A=lambda x: x, A_adjoint=lambda x: x)),
            ValueError,
            r"needs in_shape=\(C, H, W\)",
        ),
        (
            lambda: linear_operator(OdlStandIn(CONST, Weighting())),
            ValueError,
            "constant and array weights; got Weighting",
        ),
        (lambda: astra_projector(GEOMETRY, kind="fan"), ValueError, "kinds linear, line, strip; got 'fan'"),
        (lambda: MatrixFree(abs, abs, (1,), (1,), norm=math.nan), ValueError, "norm >= 0; got norm=nan"),
        (
            lambda: MatrixFree(abs, abs, (1,), (1,)).apply(torch.zeros(2, 3)),
            ValueError,
            r"samples of shape \(1,\); got a batch \(2, 3\)",
        ),
    ],
)
def test_bad_input(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_operators_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"norm is for operators without a matrix; got norm=1\.0"):
        linear_operator(MATRIX, norm=1.0)
    with pytest.raises(ValueError, match="takes real operators; MatrixLinearOperator is complex128"):
        linear_operator(scipy.sparse.linalg.aslinearoperator(MATRIX.astype(complex)))
    between_products = OdlStandIn(CONST, CONST)
    between_products.domain.spaces = ()
    with pytest.raises(ValueError, match="between arrays; OdlStandIn has product spaces"):
        linear_operator(between_products)


def test_an_operator_that_is_not_linear_is_refused() -> None:
    operator = OdlStandIn(CONST, CONST)
    operator.is_linear = False
    with pytest.raises(ValueError, match="takes linear operators"):
        linear_operator(operator)
