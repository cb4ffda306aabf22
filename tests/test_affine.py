"""Affine sets: the choice of a factorisation, dependent rows, reuse, and gradients on every path."""

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import cases
import implicit_l2o as il2o
from implicit_l2o.operators.affine_dense import DenseProjector, RowBasis
from implicit_l2o.operators.affine_grid import GridFlows, GridShape
from implicit_l2o.operators.affine_sparse import SparseRows, sparse_factor

Matrix = scipy.sparse.csr_array


def grid(k: int) -> Matrix:
    """Node-arc incidence of the directed k x k grid: k^2 nodes, 2k(k-1) arcs, rank k^2 - 1."""
    node = np.arange(k * k).reshape(k, k)
    tail = np.concatenate([node[:, :-1].ravel(), node[:-1].ravel()])
    head = np.concatenate([node[:, 1:].ravel(), node[1:].ravel()])
    arcs = np.arange(len(tail))
    values = np.concatenate([np.ones(len(tail)), -np.ones(len(tail))])
    return Matrix((values, (np.concatenate([tail, head]), np.concatenate([arcs, arcs]))), shape=(k * k, len(tail)))


def unit_flow(k: int) -> Tensor:
    """One unit from the first node to the last."""
    b = torch.zeros(k * k, dtype=torch.float64)
    b[0], b[-1] = 1.0, -1.0
    return b


def torch_csr(A: Matrix) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.as_tensor(A.toarray()).to_sparse_csr()


@pytest.mark.parametrize(
    ("A", "kind", "rank"),
    [
        (torch.randn(5, 40), DenseProjector, 5),  # few columns
        (torch.randn(5, 500), RowBasis, 5),  # many columns, few rows
        (torch.randn(350, 450), DenseProjector, 350),  # the projector is the cheaper form
        (grid(5), DenseProjector, 24),  # sparse but small
        (grid(15), GridFlows, 224),
        (torch.as_tensor(grid(15).toarray()), GridFlows, 224),  # dense storage
        (grid(16)[:, 1:], SparseRows, 255),  # an edge is missing
        (torch.as_tensor(grid(16)[:, 1:].toarray()), SparseRows, 255),
        (Matrix(np.ones((2, 500))), RowBasis, 1),
        (torch.zeros(2, 3), DenseProjector, 0),
    ],
)
def test_the_factorisation_is_chosen_by_size_and_structure(A: Any, kind: type, rank: int) -> None:
    factor = il2o.affine_factor(A)
    assert isinstance(factor, kind)
    assert factor.rank == rank
    assert factor.shape == A.shape


@pytest.mark.parametrize("k", [5, 15, 30])
def test_grid_projection_against_dense_least_squares(k: int) -> None:
    A, b = grid(k), unit_flow(k)
    x = torch.randn(4, A.shape[1], dtype=torch.float64)
    result = il2o.AffineSet(A, b).project(x)
    correction = np.linalg.lstsq(A.toarray(), (A @ x.numpy().T) - b.numpy()[:, None], rcond=1e-10)[0]
    np.testing.assert_allclose(result.numpy(), x.numpy() - correction.T, atol=1e-10)
    np.testing.assert_allclose((A @ result.numpy().T).T, np.broadcast_to(b, (4, k * k)), atol=1e-11)


def numbered_by_rows(h: int, w: int) -> Matrix:
    """A grid whose arcs are numbered row by row, as in the shortest-path data: -1 at the tail."""
    node = np.arange(h * w).reshape(h, w)
    pairs = []
    for i in range(h):
        pairs += list(zip(node[i, :-1], node[i, 1:], strict=True))
        pairs += list(zip(node[i], node[i + 1], strict=True)) if i + 1 < h else []
    tail, head = np.array(pairs).T
    arcs = np.arange(len(tail))
    values = np.concatenate([-np.ones(len(tail)), np.ones(len(tail))])
    return Matrix((values, (np.concatenate([tail, head]), np.concatenate([arcs, arcs]))), shape=(h * w, len(tail)))


@pytest.mark.parametrize(("h", "w"), [(2, 2), (3, 5), (6, 4)])
@pytest.mark.parametrize("shuffled", [False, True])
def test_flows_on_a_grid_with_arcs_in_any_order_and_direction(h: int, w: int, shuffled: bool) -> None:
    A, random = numbered_by_rows(h, w), np.random.default_rng(0)
    if shuffled:
        A = A[:, random.permutation(A.shape[1])] @ scipy.sparse.diags_array(random.choice([-1.0, 1.0], A.shape[1]))
    shape = GridShape.of(A.tocsr())
    assert shape is not None
    assert shape.strided is not shuffled
    factor = GridFlows.of(shape, torch.float64, "cpu")
    dense = torch.as_tensor(A.toarray())
    x = torch.randn(3, A.shape[1], dtype=torch.float64, requires_grad=True)
    b = (torch.randn(3, A.shape[1], dtype=torch.float64) @ dense.mT).requires_grad_()
    pinv = torch.linalg.pinv(dense)
    torch.testing.assert_close(factor.solve(b), b @ pinv.mT)
    torch.testing.assert_close(factor.project(x, torch.zeros_like(x)), x - x @ dense.mT @ pinv.mT)
    assert float(factor.gap(b).detach().max()) < 1e-15
    balance = torch.linalg.vector_norm(dense, dim=1)
    alone = torch.ones(h * w, dtype=torch.float64)  # it only comes in
    best = alone - dense @ (pinv @ alone)
    assert float(factor.gap(alone)) == pytest.approx(float(alone.sum() / balance.norm() / (alone / balance).norm()))
    assert float(best.norm()) > 0.1
    assert torch.autograd.gradcheck(lambda x, b: factor.project(x, factor.solve(b)), (x, b))
    with torch.no_grad():  # the loop's way is another one
        torch.testing.assert_close(factor.project(x, factor.solve(b)), x - (x @ dense.mT - b) @ pinv.mT)


def test_what_is_nearly_a_grid_is_none() -> None:
    A = numbered_by_rows(4, 4).toarray()
    assert GridShape.of(Matrix(A)) is not None
    twice = A.copy()
    twice[:, 3] = twice[:, 4]  # one edge twice, another missing
    around = A.copy()
    around[:, 0] = 0
    around[3, 0], around[4, 0] = -1.0, 1.0  # from the end of a row to the start of the next one
    for matrix in (twice, 2 * A, around, A[:, :-1], np.eye(4)):
        assert GridShape.of(Matrix(matrix)) is None


def test_every_way_to_pass_a_matrix_gives_the_same_set() -> None:
    A, x = grid(15), torch.randn(2, 420, dtype=torch.float64)
    b = unit_flow(15)
    expected = il2o.AffineSet(A, b).project(x)
    forms = (
        A.tocoo(),
        A.tocsc(),
        scipy.sparse.csr_matrix(A),
        torch_csr(A),
        torch.as_tensor(A.toarray()),
        il2o.affine_factor(A),
    )
    for form in forms:
        torch.testing.assert_close(il2o.AffineSet(form, b).project(x), expected, atol=1e-12, rtol=0)
    # A SciPy matrix, integers included, follows the dtype of b.
    single = il2o.AffineSet(A.astype(np.int8), b.float()).project(x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, atol=1e-5, rtol=0)


def test_a_sample_may_have_any_shape() -> None:
    image = torch.randn(2, 5, 8, dtype=torch.float64)
    set_ = il2o.AffineSet(grid(5), unit_flow(5))
    assert torch.equal(set_.project(image), set_.project(image.flatten(1)).reshape(2, 5, 8))


@pytest.mark.parametrize("factor", [cases.projector, cases.sparse_rows])
def test_gradient_of_the_right_hand_side_is_the_transposed_pseudo_inverse(factor: Any) -> None:
    # DEFICIENT has a duplicate, a scaled and a zero row: which row is left out must not show.
    A = cases.DEFICIENT
    b = torch.as_tensor(A @ np.arange(5.0)).requires_grad_()
    x = torch.randn(3, 5, dtype=torch.float64)
    cotangent = torch.randn(3, 5, dtype=torch.float64)
    il2o.AffineSet(factor(A)(x), b).project(x).backward(cotangent)
    expected = np.linalg.pinv(A, rcond=1e-10).T @ cotangent.sum(0).numpy()
    assert b.grad is not None
    np.testing.assert_allclose(b.grad.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("k", [5, 15])
def test_cotangents_are_projected_onto_the_null_space(k: int) -> None:
    A = grid(k)
    x = torch.randn(2, A.shape[1], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(il2o.AffineSet(A, unit_flow(k)).project(x).pow(3).sum(), x, create_graph=True)
    np.testing.assert_allclose(A @ gradient.detach().numpy().T, 0, atol=1e-10)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    np.testing.assert_allclose(A @ second.numpy().T, 0, atol=1e-9)
    assert second.abs().max() > 0


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, when forward mode loads
def test_the_sparse_path_works_under_torch_func() -> None:
    A = grid(15)
    set_ = il2o.AffineSet(A, unit_flow(15))
    x, tangent = torch.randn(2, 420, dtype=torch.float64), torch.randn(2, 420, dtype=torch.float64)
    projected = set_.project(tangent) - set_.project(torch.zeros_like(tangent))
    _, along = torch.func.jvp(set_.project, (x,), (tangent,))
    torch.testing.assert_close(along, projected)
    _, back = torch.func.vjp(set_.project, x)
    torch.testing.assert_close(back(tangent)[0], projected)
    torch.testing.assert_close(torch.func.vmap(set_.project)(x[None].expand(3, -1, -1))[1], set_.project(x))


def test_the_factor_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    set_ = il2o.AffineSet(grid(15), unit_flow(15))

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("factorised again")

    monkeypatch.setattr("scipy.sparse.linalg.splu", refuse)
    monkeypatch.setattr(torch.linalg, "svd", refuse)
    other = set_.with_rhs(2 * unit_flow(15)[None].repeat(3, 1))
    assert other.factor is set_.factor
    assert other.restrict(torch.tensor([0, 2])).factor is set_.factor
    x = torch.zeros(3, 420, dtype=torch.float64)
    torch.testing.assert_close(other.project(x), 2 * set_.project(x))


def test_copies_and_pickles() -> None:
    set_, x = il2o.AffineSet(grid(16)[:, 1:], unit_flow(16)), torch.randn(2, 479, dtype=torch.float64)
    assert copy.deepcopy(set_).factor is set_.factor
    assert torch.equal(pickle.loads(pickle.dumps(set_)).project(x), set_.project(x))
    A = grid(16)[:, 1:]
    for form in (A, torch_csr(A)):
        assert copy.deepcopy(il2o.AffineSet(form, unit_flow(16))).factor.rank == 255
        operator = pickle.loads(pickle.dumps(copy.deepcopy(il2o.Matrix(form))))
        assert torch.equal(operator.apply(x), il2o.Matrix(A).apply(x))
    flows = il2o.AffineSet(grid(15), unit_flow(15))
    flow = torch.randn(2, 420, dtype=torch.float64)
    assert torch.equal(pickle.loads(pickle.dumps(copy.deepcopy(flows))).project(flow), flows.project(flow))


def test_rank_is_judged_whatever_the_units_and_the_dtype() -> None:
    rows = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    for dtype in (torch.float32, torch.float64):
        units = torch.as_tensor(np.diag([1e-9, 1e6]) @ rows, dtype=dtype)
        assert il2o.affine_factor(units).rank == 2
        third = torch.tensor(1 / 3, dtype=dtype)
        multiple = torch.cat([units, third * units])  # equal up to the rounding of the dtype
        assert il2o.affine_factor(multiple).rank == 2
    many = scipy.sparse.vstack([grid(15), grid(15) * 0.1, Matrix((4, 420)), grid(15)[:5] - 3 * grid(15)[5:10]]).tocsr()
    assert il2o.affine_factor(many).rank == 224
    assert il2o.affine_factor(many, dtype=torch.float32).rank == 224


@pytest.mark.parametrize("A", [torch.as_tensor(grid(5).toarray()), grid(15)], ids=["dense", "sparse"])
def test_an_inconsistent_system_is_an_error_that_names_sample_and_residual(A: Any) -> None:
    m = A.shape[0]
    b = torch.zeros(3, m, dtype=torch.float64)
    b[2, 0] = 1.0  # a source without a sink: the least residual is |b| / sqrt(m), in any direction of the range
    with pytest.raises(ValueError, match=r"no x satisfies A x = b.*sample 2.*\|A x - b\| / \|b\| is at least 0\.\d+"):
        il2o.AffineSet(A, b)
    with pytest.raises(ValueError, match="rank"):
        il2o.AffineSet(A, b[2])
    b[2, -1] = -1.0
    il2o.AffineSet(A, b)
    assert il2o.AffineSet(A, b[:0]).project(torch.zeros(0, A.shape[1], dtype=torch.float64)).shape == (0, A.shape[1])
    il2o.AffineSet(A, torch.full_like(b, torch.inf))
    b[1] = torch.nan  # a failed sample, not an inconsistent one
    x = torch.randn(3, A.shape[1], dtype=torch.float64)
    result = il2o.AffineSet(A, b).project(x)
    assert torch.isnan(result[1]).all()
    assert torch.isfinite(result[[0, 2]]).all()


def test_ill_conditioned_sparse_rows_fall_back_to_a_dense_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    # Rows that differ by a small angle, and random combinations of few rows: A A^T squares their condition number.
    generator = np.random.default_rng(0)
    close = Matrix(np.ones((40, 500)) + 2e-5 * scipy.sparse.random(40, 500, 0.3, rng=generator).toarray())
    few = scipy.sparse.random(200, 80, 0.05, rng=generator) @ scipy.sparse.random(80, 500, 0.02, rng=generator)
    for A in (close, few):
        dense, x = A.toarray(), torch.randn(2, 500, dtype=torch.float64)
        b = torch.as_tensor(A @ np.ones(500))
        set_ = il2o.AffineSet(A, b)
        assert set_.factor.rank == np.linalg.matrix_rank(dense)
        np.testing.assert_allclose((A @ set_.project(x).numpy().T).T, np.broadcast_to(b, (2, len(b))), atol=1e-10)
    monkeypatch.setattr("implicit_l2o.operators.affine._DENSE_ENTRIES", 1000)
    with pytest.raises(ValueError, match=r"ill conditioned|too close to dependent"):
        il2o.affine_factor(close)


BAD = {
    "vector": (lambda: il2o.AffineSet(torch.ones(3), torch.ones(1)), r"shape \(m, n\).*got \(3,\)"),
    "batch of matrices": (lambda: il2o.AffineSet(torch.ones(2, 1, 3), torch.ones(2, 1)), r"got \(2, 1, 3\)"),
    "empty": (lambda: il2o.AffineSet(torch.ones(0, 3), torch.ones(0)), r"got \(0, 3\)"),
    "integers": (lambda: il2o.AffineSet(torch.ones(1, 3, dtype=torch.int64), torch.ones(1)), "floating point"),
    "nan": (lambda: il2o.AffineSet(torch.full((1, 3), torch.nan), torch.ones(1)), "NaN or infinite"),
    "sparse nan": (lambda: il2o.AffineSet(Matrix([[np.nan, 1.0]]), torch.ones(1)), "NaN or infinite"),
    "sparse zero": (lambda: il2o.AffineSet(Matrix((20, 500)), torch.zeros(20)), "no non-zero entry"),
    "right-hand side": (lambda: il2o.AffineSet(torch.ones(1, 3), torch.ones(2)), r"m=1 rows.*got \(2,\)"),
    "dtype": (lambda: il2o.AffineSet(torch.ones(1, 3), torch.ones(1).double()), "torch.float32.*torch.float64"),
    "sample": (
        lambda: il2o.AffineSet(torch.ones(1, 3), torch.ones(1)).project(torch.ones(2, 4)),
        "n=3 columns; got samples of 4",
    ),
    "sparse learned": (lambda: il2o.AffineSet(torch_csr(grid(15)).requires_grad_(), unit_flow(15)), "requires grad"),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_named(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("side", "stored"), [(16, True), (24, False)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_sparse_rows_store_their_inverse_and_project_alike(side: int, stored: bool, dtype: torch.dtype) -> None:
    factor = sparse_factor(grid(side), dtype, "cpu")
    assert isinstance(factor, SparseRows)
    assert (factor.inverse is not None) == stored
    x = torch.randn(3, factor.shape[1], dtype=dtype, generator=torch.Generator().manual_seed(0))
    b = unit_flow(side).to(dtype)
    projected = il2o.AffineSet(factor, b).project(x)
    expected = il2o.AffineSet(torch.from_numpy(grid(side).toarray()), b.double()).project(x.double())
    torch.testing.assert_close(projected.double(), expected, atol=1e-4 if dtype == torch.float32 else 1e-10, rtol=0)


def test_ill_conditioned_rows_store_no_inverse() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(20, 500)) * (random.random((20, 500)) < 0.1)
    rows[1] = rows[0] + 1e-2 * rows[1]
    factors = [sparse_factor(Matrix(rows), dtype, "cpu") for dtype in (torch.float32, torch.float64)]
    assert [factor.inverse is None for factor in factors] == [True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_conjugate_gradients_project_like_the_factor(dtype: torch.dtype) -> None:
    """What an accelerator takes for many rows, here on the CPU; the incidence matrix has a dependent row."""
    A = grid(24)
    iterative = sparse_factor(A, dtype, "cpu", iterative=True)
    assert iterative.inverse is None
    x = torch.randn(3, A.shape[1], dtype=dtype, generator=torch.Generator().manual_seed(0))
    x[1] = 0.0
    point = torch.zeros(A.shape[1], dtype=dtype)
    expected = sparse_factor(A, torch.float64, "cpu").project(x.double(), point.double())
    atol = 1e-4 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(iterative.project(x, point).double(), expected, atol=atol, rtol=0)
    alone = torch.cat([iterative.project(row[None], point) for row in x])
    torch.testing.assert_close(iterative.project(x, point), alone, atol=atol / 10, rtol=0)
    x[2] = torch.nan
    beside = iterative.project(x, point)
    torch.testing.assert_close(beside[:2], alone[:2], atol=atol / 10, rtol=0)
    assert bool(beside[2].isnan().all())
    again = pickle.loads(pickle.dumps(iterative))
    assert again.iterative
    assert torch.equal(again.project(x[:2], point), iterative.project(x[:2], point))
