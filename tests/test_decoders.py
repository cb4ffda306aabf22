"""Decoders are exact: against HiGHS, SciPy's Dijkstra and brute force; and one batched call is the loop over samples."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path

import implicit_l2o as il2o
from implicit_l2o.data import shortest_path as data
from implicit_l2o.decoders import MILP, Dijkstra, GridPaths, Knapsack, TravellingSalesman, decide_finite

needs_numba = pytest.mark.skipif(not data.has_numba(), reason="numba is in the extra 'exact'")
SEEDS = st.integers(0, 2**31 - 1)


def grid_dijkstra(side: int) -> Dijkstra:
    return Dijkstra(side**2, data.Grid(side).arcs, 0, side**2 - 1)


def small_knapsack() -> Knapsack:
    random = np.random.default_rng(0)
    return Knapsack(random.uniform(3, 8, (2, 12)), np.array([20.0, 20.0]))


def milp_of_a_grid() -> MILP:
    A, b = data.Grid(3).flow_constraints()
    return MILP(il2o.LinearProgram(A_eq=A, b_eq=b))


DECODERS = {
    "grid_paths": (lambda: GridPaths(4), True),
    "dijkstra": (lambda: grid_dijkstra(4), True),
    "knapsack": (small_knapsack, True),
    "milp": (milp_of_a_grid, False),
    "travelling_salesman": (lambda: TravellingSalesman(7), True),
}


@pytest.fixture(params=DECODERS)
def decoder(request):
    make, uses_numba = DECODERS[request.param]
    if uses_numba and not data.has_numba():
        pytest.skip("numba is in the extra 'exact'")
    return make()


def positive_costs(decoder, batch=7, dtype=torch.float32):
    costs = torch.rand(batch, decoder.n, dtype=dtype) + 0.1
    return -costs if isinstance(decoder, Knapsack) else costs


# What all decoders promise


def test_a_batch_is_a_loop_and_decisions_are_zero_or_one(decoder):
    costs = positive_costs(decoder)
    x = decoder(costs)
    assert torch.equal(x, torch.cat([decoder(cost[None]) for cost in costs]))
    assert torch.equal(x.flip(0), decoder(costs.flip(0)))
    assert ((x == 0) | (x == 1)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_decisions_keep_dtype_and_carry_no_graph(decoder, dtype):
    costs = positive_costs(decoder).to(dtype).requires_grad_()
    x = decoder(costs)
    assert x.dtype == dtype
    assert not x.requires_grad
    assert torch.equal(x.double(), decoder(costs.double()))


def test_any_layout_of_the_costs_will_do_and_they_are_not_changed(decoder):
    costs = positive_costs(decoder)
    transposed = costs.T.contiguous().T
    before = transposed.clone()
    assert torch.equal(decoder(transposed), decoder(costs))
    assert torch.equal(transposed, before)


def test_an_empty_batch_is_empty(decoder):
    assert decoder(torch.zeros(0, decoder.n)).shape == (0, decoder.n)


def test_costs_of_any_scale(decoder):
    costs = positive_costs(decoder, dtype=torch.float64)
    x = decoder(costs)
    for scale in (1e-8, 1e8):
        assert torch.equal(decoder(scale * costs), x)
    largest = costs / costs.abs().sum() * torch.finfo(torch.float64).max  # a sum of distances may not overflow
    assert torch.equal(decoder(largest), x)


@pytest.mark.bad_input
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4)])
def test_costs_of_another_shape_are_refused(decoder, shape):
    with pytest.raises(ValueError, match=rf"takes costs of shape \(B, {decoder.n}\)"):
        decoder(torch.zeros(shape))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_costs_that_are_not_finite_are_refused(decoder, bad):
    costs = positive_costs(decoder)
    costs[2, 5] = bad
    with pytest.raises(ValueError, match=r"finite costs; got -?(nan|inf) at variable 5 of sample 2"):
        decoder(costs)


# Shortest paths


@needs_numba
@settings(max_examples=30)
@given(SEEDS, st.integers(2, 12), st.booleans())
def test_grid_paths_are_bellmans_ties_included(seed, side, ties):
    generator = torch.Generator().manual_seed(seed)
    grid = data.Grid(side)
    costs = torch.randn(5, grid.n_arcs, generator=generator, dtype=torch.float64)
    costs = costs.round() if ties else costs
    expected = data._bellman(grid, costs.numpy())
    assert np.array_equal(GridPaths(side)(costs).numpy(), expected)
    assert torch.equal(grid.shortest_paths(costs), GridPaths(side)(costs))


@needs_numba
@settings(max_examples=15)
@given(SEEDS, st.integers(2, 6))
def test_grid_paths_solve_the_linear_program(seed, side):
    generator = torch.Generator().manual_seed(seed)
    grid = data.Grid(side)
    A, b = grid.flow_constraints()
    cost = torch.randn(1, grid.n_arcs, generator=generator, dtype=torch.float64)
    best = linprog(cost[0].numpy(), A_eq=A.numpy(), b_eq=b.numpy(), bounds=(0, None)).fun
    x = GridPaths(side)(cost)
    assert float((cost * x).sum()) == pytest.approx(best, abs=1e-8)
    assert il2o.LinearProgram(A_eq=A.double(), b_eq=b).violation(x) == 0


def test_without_numba_the_grid_takes_numpy(monkeypatch):
    grid = data.Grid(5)
    costs = torch.randn(20, grid.n_arcs)
    expected = grid.shortest_paths(costs)
    monkeypatch.setattr(data, "has_numba", lambda: False)
    assert torch.equal(grid.shortest_paths(costs), expected)
    with pytest.raises(ValueError, match="finite"):
        grid.shortest_paths(costs * float("nan"))


@needs_numba
@settings(max_examples=40)
@given(SEEDS, st.integers(2, 20), st.floats(0.1, 0.6), st.booleans())
def test_dijkstra_is_scipys(seed, nodes, density, ties):
    random = np.random.default_rng(seed)
    dense = (random.random((nodes, nodes)) < density) & ~np.eye(nodes, dtype=bool)
    dense[0, nodes - 1] = True  # so that a path exists
    arcs = np.argwhere(dense)[random.permutation(dense.sum())]
    costs = random.uniform(0.1, 2, (3, len(arcs)))
    costs = np.ceil(3 * costs) if ties else costs
    x = Dijkstra(nodes, arcs, 0, nodes - 1)(torch.from_numpy(costs)).numpy()
    incidence = np.zeros((nodes, len(arcs)))
    incidence[arcs[:, 1], np.arange(len(arcs))] += 1
    incidence[arcs[:, 0], np.arange(len(arcs))] -= 1
    unit = np.zeros(nodes)
    unit[0], unit[-1] = -1, 1
    for cost, path in zip(costs, x, strict=True):
        graph = csr_matrix((cost, (arcs[:, 0], arcs[:, 1])), shape=(nodes, nodes))
        assert cost @ path == pytest.approx(shortest_path(graph, indices=0)[-1])
        assert np.array_equal(incidence @ path, unit)


@needs_numba
def test_dijkstra_on_a_directed_grid_is_the_dynamic_programme():
    costs = torch.rand(50, GridPaths(9).n)
    assert torch.equal(grid_dijkstra(9)(costs), GridPaths(9)(costs))


@needs_numba
def test_dijkstra_takes_zeros_loops_and_parallel_arcs():
    decoder = Dijkstra(3, torch.tensor([[0, 0], [0, 1], [0, 1], [1, 0], [1, 2]]), 0, 2)
    assert decoder(torch.tensor([[0.0, 2.0, 1.0, 0.0, 0.0]])).tolist() == [[0, 0, 1, 0, 1]]


@needs_numba
def test_dijkstra_refuses_negative_costs_and_ends_that_nothing_joins():
    costs = torch.ones(2, 24)
    costs[1, 3] = -1.0
    with pytest.raises(ValueError, match=r"costs >= 0; got -1\.0 at arc 3 of sample 1"):
        grid_dijkstra(4)(costs)
    with pytest.raises(ValueError, match="no path leads from node 2 to node 0"):
        Dijkstra(3, [[0, 1], [1, 2]], 2, 0)(torch.ones(1, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GridPaths(1), "side >= 2; got side=1"),
        (lambda: Dijkstra(3, [[0, 1, 2]], 0, 2), r"shape \(arcs, 2\)"),
        (lambda: Dijkstra(3, [[0.5, 1.0]], 0, 2), "integers"),
        (lambda: Dijkstra(3, [[0, 3]], 0, 2), "nodes 0 to 2; got node 3"),
        (lambda: Dijkstra(3, [[-1, 2]], 0, 2), "nodes 0 to 2; got node -1"),
        (lambda: Dijkstra(3, [[0, 1]], 0, 5), "nodes 0 to 2; got node 5"),
        (lambda: Dijkstra(3, [[0, 1]], 1, 1), "two ends; got source = target = 1"),
        (lambda: Knapsack([1.0, 2.0], [1.0]), r"shape \(m, n\)"),
        (lambda: Knapsack([[1.0, 2.0]], [1.0, 2.0]), r"shape \(m, n\)"),
        (lambda: Knapsack([[1.0, -2.0]], [1.0]), r"finite weights >= 0; got -2\.0"),
        (lambda: Knapsack([[1.0, 2.0]], [float("nan")]), "finite capacity >= 0; got nan"),
    ],
)
def test_what_is_no_such_problem_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Knapsacks


def brute_force(costs, weights, capacity):
    subsets = np.array(list(itertools.product([0, 1], repeat=weights.shape[1])), dtype=float)
    feasible = subsets[(subsets @ weights.T <= capacity * (1 + 1e-7)).all(1)]
    return (costs @ feasible.T).min(1)


@needs_numba
@settings(max_examples=60)
@given(SEEDS, st.integers(1, 9), st.integers(1, 3), st.floats(0.0, 1.2), st.booleans())
def test_knapsacks_are_optimal(seed, items, constraints, fullness, whole):
    """Of any number of constraints, tight or slack, with weights of zero, values of either sign, and ties."""
    random = np.random.default_rng(seed)
    weights = random.integers(0, 8, (constraints, items)) if whole else random.uniform(0, 8, (constraints, items))
    capacity = np.floor(fullness * weights.sum(1)) if whole else fullness * weights.sum(1)
    costs = random.integers(-9, 4, (4, items)).astype(float) if whole else -random.normal(1, 2, (4, items))
    x = Knapsack(weights, capacity)(torch.from_numpy(costs)).numpy()
    assert (x @ weights.T <= capacity * (1 + 1e-6) + 1e-12).all()
    np.testing.assert_allclose((costs * x).sum(1), brute_force(costs, weights, capacity), atol=1e-9)


def benchmark_knapsacks(items, samples=4, seed=0):
    """As PyEPO generates them: two constraints, weights 3.00 to 7.99, capacities of 20."""
    random = np.random.default_rng(seed)
    weights = random.integers(300, 800, (2, items)) / 100
    return weights, np.array([20.0, 20.0]), np.ceil(5 * random.lognormal(0.5, 1, (samples, items)))


@needs_numba
@pytest.mark.parametrize("items", [20, 50, 200])
def test_knapsacks_of_the_benchmark_are_those_of_highs(items):
    weights, capacity, values = benchmark_knapsacks(items)
    x = Knapsack(weights, capacity)(-torch.from_numpy(values)).numpy()
    for choice, value in zip(x, values, strict=True):
        found = milp(
            -value, constraints=LinearConstraint(weights, ub=capacity), bounds=Bounds(0, 1), integrality=np.ones(items)
        )
        assert value @ choice == pytest.approx(-found.fun)
        assert (weights @ choice <= capacity + 1e-6).all()


@needs_numba
@pytest.mark.parametrize(("constraints", "items"), [(1, 60), (3, 40), (5, 30)])
def test_knapsacks_that_hold_half_of_the_items_are_those_of_highs(constraints, items):
    random = np.random.default_rng(items)
    weights, values = random.uniform(1, 10, (constraints, items)), random.uniform(1, 10, (2, items))
    capacity = weights.sum(1) / 2
    lp = il2o.LinearProgram(A_ub=weights, b_ub=capacity, upper=1.0)
    costs = -torch.from_numpy(values)
    torch.testing.assert_close(
        (costs * Knapsack(weights, capacity)(costs)).sum(1), (costs * MILP(lp)(costs)).sum(1), rtol=1e-6, atol=1e-6
    )


@needs_numba
def test_a_knapsack_that_takes_too_long_is_given_up():
    """Even weights never fill an odd capacity, but no bound sees it: half of all choices are visited."""
    weights = 2.0 * np.random.default_rng(0).integers(1, 50, (1, 40))
    costs = -torch.from_numpy(np.concatenate([np.zeros((1, 40)), weights]))
    capacity = np.floor(weights.sum(1) / 4) * 2 + 1
    with pytest.raises(RuntimeError, match="sample 1 was not solved within max_nodes=1000; allow more, or use MILP"):
        Knapsack(weights, capacity, max_nodes=1000)(costs)


@needs_numba
def test_large_knapsacks_are_those_of_a_search_over_all_choices():
    """500 items of which six fit at most: a meet over pairs would be long, so depth-first with the plainest bound."""
    weights, capacity, values = benchmark_knapsacks(500, samples=2, seed=3)
    x = Knapsack(weights, capacity)(-torch.from_numpy(values)).numpy()
    for choice, value in zip(x, values, strict=True):
        order = np.argsort(-value)
        best = [value @ choice]

        def search(start, room, total, left, value=value, order=order, best=best):
            best[0] = max(best[0], total)
            for place in range(start, len(order)):
                item = order[place]
                if left == 0 or total + left * value[item] <= best[0]:
                    return
                if (weights[:, item] <= room + 1e-6).all():
                    search(place + 1, room - weights[:, item], total + value[item], left - 1)

        search(0, capacity, 0.0, 6)
        assert best[0] == value @ choice


@needs_numba
def test_weights_that_fill_the_knapsack_to_the_brim_fit():
    """Decimal weights that add up to the capacity, in floating point: 4 x 3.33 + 6.68 = 20."""
    weights = torch.tensor([[3.33, 3.33, 3.33, 3.33, 6.68]])
    for dtype in (torch.float32, torch.float64):
        assert Knapsack(weights.to(dtype), torch.tensor([20.0]))(-torch.ones(1, 5)).sum() == 5


# HiGHS


@settings(max_examples=20)
@given(SEEDS, st.integers(1, 7), st.integers(1, 3))
def test_milp_is_the_best_of_all_binary_points(seed, n, rows):
    random = np.random.default_rng(seed)
    A, b = random.normal(size=(rows, n)), random.uniform(0, 2, rows)  # zero is feasible
    costs = random.normal(size=(3, n))
    lp = il2o.LinearProgram(A_ub=torch.from_numpy(A), b_ub=torch.from_numpy(b), upper=1.0)
    x = MILP(lp)(torch.from_numpy(costs)).numpy()
    subsets = np.array(list(itertools.product([0, 1], repeat=n)), dtype=float)
    feasible = subsets[(subsets @ A.T <= b).all(1)]
    np.testing.assert_allclose((costs * x).sum(1), (costs @ feasible.T).min(1), atol=1e-6)


def test_milp_takes_masks_equations_and_right_hand_sides_by_sample():
    lp = il2o.LinearProgram(A_eq=torch.ones(1, 2), b_eq=torch.tensor([[1.5], [2.5]]), upper=torch.tensor([1.0, 9.0]))
    costs = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    assert MILP(lp, integer=False)(costs).tolist() == [[1.0, 0.5], [1.0, 1.5]]
    assert MILP(lp, integer=[False, True])(costs).tolist() == [[0.5, 1.0], [0.5, 2.0]]
    with pytest.raises(ValueError, match="2 right-hand sides or bounds; got 3 costs"):
        MILP(lp)(torch.ones(3, 2))


def test_milp_says_which_sample_has_no_solution():
    costs = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    lp = il2o.LinearProgram(A_eq=2 * torch.ones(1, 2), b_eq=torch.ones(1))
    assert MILP(lp, integer=False)(costs).sum() == 1
    with pytest.raises(ValueError, match="sample 0 is infeasible"):
        MILP(lp)(costs)
    with pytest.raises(ValueError, match="sample 1 is unbounded"):
        MILP(il2o.LinearProgram(n=2))(costs)
    with pytest.raises(ValueError, match=r"mask of shape \(2,\); got \(3,\)"):
        MILP(lp, integer=[True] * 3)


# A broken sample among predicted costs


def test_decide_finite_is_the_decoder_but_for_broken_samples(decoder):
    costs = positive_costs(decoder)
    assert torch.equal(decide_finite(decoder, costs), decoder(costs))
    broken = costs.clone()
    broken[1, 0], broken[4, 1] = torch.nan, torch.inf
    decided = decide_finite(decoder, broken)
    assert decided[[1, 4]].isnan().all()
    whole = [0, 2, 3, 5, 6]
    assert torch.equal(decided[whole], decoder(costs[whole]))


# Where numba is missing


def test_without_numba_one_line_says_what_to_install():
    code = """
import sys
sys.modules["numba"] = None
from importlib import util
find = util.find_spec
util.find_spec = lambda name, package=None: None if name == "numba" else find(name, package)
import torch
from implicit_l2o.decoders import Dijkstra, GridPaths, Knapsack, MILP
from implicit_l2o.data.shortest_path import Grid
assert Grid(2).shortest_paths(torch.ones(1, 4)).sum() == 2
for decoder in (GridPaths(2), Dijkstra(2, [[0, 1]], 0, 1), Knapsack([[1.0]], [1.0])):
    try:
        decoder(torch.ones(1, decoder.n))
    except ModuleNotFoundError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [
        f"{name} needs numba: pip install 'implicit_l2o[exact]'." for name in ("GridPaths", "Dijkstra", "Knapsack")
    ]
    assert run.stdout.splitlines() == lines
