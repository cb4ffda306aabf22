"""The batched interior-point method of CVXPY layers: its factors, and its answers beside Clarabel's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

import implicit_l2o as il2o

cp = pytest.importorskip("cvxpy", reason="cvxpy is in the extra 'cvxpy'")
pytest.importorskip("numba", reason="numba is in the extra 'cvxpy'")

from implicit_l2o.interop.cvxpy import CvxpyLayer  # noqa: E402
from implicit_l2o.interop.cvxpy import ldl_kernels as ldl  # noqa: E402
from implicit_l2o.interop.cvxpy import pattern as pattern_module  # noqa: E402
from implicit_l2o.interop.cvxpy.chunked import Chunked  # noqa: E402
from implicit_l2o.interop.cvxpy.chunks import from_chunks, to_chunks  # noqa: E402
from implicit_l2o.interop.cvxpy.kkt import KKT  # noqa: E402
from implicit_l2o.interop.cvxpy.pattern import pattern_of  # noqa: E402
from implicit_l2o.interop.cvxpy.solve import Forward  # noqa: E402

f64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed))


def quadratic(**options: Any) -> CvxpyLayer:
    x, A, b = cp.Variable(6), cp.Parameter((8, 6)), cp.Parameter(8)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b)), [cp.sum(x) == 1, x >= 0])
    return CvxpyLayer(problem, [A, b], [x], **options)


def entropic(**options: Any) -> CvxpyLayer:
    x, c = cp.Variable(6), cp.Parameter(6)
    problem = cp.Problem(cp.Minimize(c @ x - cp.sum(cp.entr(x))), [cp.sum(x) == 1, x[0] <= 0.1])
    return CvxpyLayer(problem, [c], [x], **options)


CASES = [(quadratic, [draw(11, 8, 6), draw(11, 8, seed=1)]), (entropic, [3 * draw(11, 6)])]
both = pytest.mark.parametrize(("make", "values"), CASES, ids=["quadratic", "entropic"])


def check_factors(upper: sp.csc_array, seed: int) -> Any:
    """Eight matrices with the pattern `upper` and signs on the diagonal; the pattern of their factor."""
    size, rng = upper.shape[0], np.random.default_rng(seed)
    upper.sort_indices()
    rows, columns = upper.indices, np.repeat(np.arange(size), np.diff(upper.indptr))
    signs = rng.choice([-1.0, 1.0], size)
    values = np.where((rows == columns)[:, None], 0.0, rng.standard_normal((len(rows), 8)))
    weight = np.zeros((size, 8))
    np.add.at(weight, rows, abs(values))
    np.add.at(weight, columns, abs(values))
    values[rows == columns] = ((1.0 + weight) * signs[:, None])[rows[rows == columns]]
    shape = ldl.symbolic(size, upper.indptr.astype(np.int64), upper.indices.astype(np.int32))
    places = ldl.places_of(size, shape.columns, shape.below, rows, columns)
    low, diagonal = np.empty((len(shape.below), 8)), np.empty((size, 8))
    ldl.factor(shape, places, values, np.zeros(size), signs, 0.0, low, diagonal, np.zeros((size, 8)), size)
    right = rng.standard_normal((size, 8))
    found = right.copy()
    ldl.solve(shape.columns, shape.below, low, diagonal, found)
    for sample in range(8):
        matrix = np.zeros((size, size))
        matrix[rows, columns] = matrix[columns, rows] = values[:, sample]
        assert np.allclose(matrix @ found[:, sample], right[:, sample], atol=1e-11)
    return shape


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 90), filled=st.floats(0.0, 1.0), dense=st.integers(0, 40))
def test_factors_of_eight_matrices(seed: int, size: int, filled: float, dense: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = sp.lil_array(sp.random_array((size, size), density=0.2 * filled, rng=rng) + sp.eye_array(size))
    matrix[-dense:, -dense:] = 1.0  # a block that is a panel or several
    check_factors(sp.csc_array(sp.triu(sp.csc_array(matrix))), seed)


def test_a_dense_matrix_is_factored_by_panels() -> None:
    shape = check_factors(sp.csc_array(np.triu(np.ones((61, 61)))), 1)
    panels = shape.panels
    assert len(panels.depth) == 3  # of the columns 0, 24 and 48: two blocks of the first and one of the second
    assert panels.depth.tolist() == [24, 24, 24]
    rows_taken_alone = len(shape.left)
    assert rows_taken_alone == 24 * 23 // 2 * 2 + 13 * 12 // 2  # those within a panel


def test_a_linear_program_with_a_close_vertex_needs_no_other_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two vertices are about as good, the active set shows at the last digits only."""
    monkeypatch.setattr(Forward, "_by_clarabel", lambda *args, **options: pytest.fail("another solver was asked"))
    rng = np.random.default_rng(0)
    x, c = cp.Variable(40), cp.Parameter(40)
    A = rng.uniform(0, 1, (15, 40))
    A[:, 1] = A[:, 0]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [A @ x <= A.sum(1) / 3, x >= 0, x <= 1]), [c], [x])
    costs = -rng.uniform(0.5, 1.5, (16, 40))
    costs[:, 1] = costs[:, 0] * (1 + 1e-7)
    solution = layer.solve(torch.as_tensor(costs))
    assert solution.residual.max() < 1e-14
    best = [linprog(cost, A, A.sum(1) / 3, bounds=(0, 1)).fun for cost in costs]
    assert np.allclose(solution.objective, best, rtol=1e-7)


def test_chunks_there_and_back() -> None:
    rows = np.arange(33.0).reshape(11, 3)
    assert to_chunks(rows).shape == (2, 3, 8)
    assert np.array_equal(from_chunks(to_chunks(rows), 11), rows)


@both
def test_answers_and_gradients_are_those_after_clarabel(make: Callable[..., CvxpyLayer], values: list[Tensor]) -> None:
    found = []
    for solver in ("batched", "clarabel"):
        own = [value.clone().requires_grad_() for value in values]
        solution = make(solver=solver).solve(*own)
        assert solution.residual.max() < 1e-12
        weights = draw(*solution.variables[0].shape, seed=5)
        found.append(
            (solution.variables[0].detach(), *torch.autograd.grad((solution.variables[0] * weights).sum(), own))
        )
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-8)


@both
def test_a_batch_is_its_samples(make: Callable[..., CvxpyLayer], values: list[Tensor]) -> None:
    layer = make(solver="batched")
    (whole,) = layer(*values)
    for sample in (0, 7, 8, 10):
        (alone,) = layer(*(value[sample] for value in values))
        assert torch.allclose(alone, whole[sample], rtol=1e-10, atol=1e-12)


@both
def test_a_batch_in_parts_is_the_batch(
    make: Callable[..., CvxpyLayer], values: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the factors of all samples take too much memory."""
    found = []
    for in_parts in (False, True):
        layer = make(solver="batched")
        if in_parts:
            pattern = pattern_of(layer.canonical)
            assert pattern is not None
            monkeypatch.setattr(pattern_module, "_ROOM", 8 * 8 * pattern.fill)
            assert pattern.parts(11) == [slice(0, 8), slice(8, 11)]
            monkeypatch.setattr(KKT, "at", lambda *args: pytest.fail("one after the other"))
        own = [value.clone().requires_grad_() for value in values]
        solution = layer.solve(*own)
        assert solution.converged.all()
        found.append((solution.variables[0], *torch.autograd.grad(solution.variables[0].square().sum(), own)))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-11)


def test_no_part_is_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = quadratic()
    pattern = pattern_of(layer.canonical)
    assert pattern is not None
    monkeypatch.setattr(pattern_module, "_ROOM", 8 * 8 * pattern.fill - 1)
    assert pattern.parts(11) == []
    own = [value.clone().requires_grad_() for value in CASES[0][1]]
    solution = layer.solve(*own)
    assert solution.converged.all()
    assert torch.isfinite(torch.autograd.grad(solution.variables[0].square().sum(), own)[0]).all()


@both
def test_the_batched_equations_are_solved(make: Callable[..., CvxpyLayer], values: list[Tensor]) -> None:
    layer = make()
    layer(*values)
    assert layer._last is not None
    programs, points = layer._last
    pattern = pattern_of(programs.canonical)
    assert pattern is not None
    kkt = Chunked.at(pattern, programs, points.w, None)
    rng = np.random.default_rng(3)
    top, bottom = rng.standard_normal(points.x.shape), rng.standard_normal(points.w.shape)
    for transposed in (False, True):
        assert kkt.solve(top, bottom, transposed=transposed)[2].max() < 1e-9


def test_an_infeasible_batch_mate_changes_nothing() -> None:
    x, low = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= low, cp.sum(x) <= 1])
    layer = CvxpyLayer(problem, [low], [x], on_failure="ignore")
    solution = layer.solve(torch.tensor([[0.1, 0.2], [2.0, 3.0], [0.3, 0.4]], dtype=f64))
    assert [il2o.Status(int(status)).name for status in solution.status] == ["CONVERGED", "INFEASIBLE", "CONVERGED"]
    expected = torch.tensor([[0.1, 0.2], [0.0, 0.0], [0.3, 0.4]], dtype=f64)
    assert torch.allclose(solution.variables[0], expected, atol=1e-10)
