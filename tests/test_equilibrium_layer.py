"""The equilibrium layer: known equilibria, per-sample costs, trips and closed links, gradients, and the exact form."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import implicit_l2o as il2o
from implicit_l2o.games import BlockSum, EquilibriumLayer, InUnits, PolynomialCost, TrafficNetwork, flow_units

TIGHT = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=1e-9, max_steps=20_000))


def network(tail, head, trips, *, first_thru=0, nodes=None) -> TrafficNetwork:
    E = len(tail)
    return TrafficNetwork(
        name="test",
        nodes=max(*tail, *head) + 1 if nodes is None else nodes,
        zones=len(trips),
        first_thru=first_thru,
        tail=np.array(tail),
        head=np.array(head),
        free_flow_time=np.ones(E),
        capacity=np.ones(E),
        b=np.ones(E),
        power=np.ones(E),
        trips=np.array(trips, dtype=float),
    )


# Six trips from 0 to 1; the short cut 2 - 3 makes everybody slower. Braess (1968), with the usual numbers.
BRAESS = network([0, 0, 2, 2, 3], [2, 3, 1, 3, 1], [[0, 6], [0, 0]])


def braess_cost(**options) -> PolynomialCost:
    constant = torch.tensor([[0.0, 50.0, 50.0, 10.0, 0.0]], dtype=torch.float64)
    slope = torch.tensor([[10.0], [1.0], [1.0], [1.0], [10.0]], dtype=torch.float64)
    scale = torch.ones(5, dtype=torch.float64)
    return PolynomialCost(constant=constant, coefficient=slope, scale=scale, power=(1.0,), **options)


@pytest.fixture(params=[False, True], ids=["splitting", "exact"])
def exact(request) -> bool:
    if request.param:
        pytest.importorskip("numba")
    return request.param


def test_braess_paradox(exact):
    layer = EquilibriumLayer(BRAESS, solver=TIGHT, exact=exact)
    expected = torch.tensor([[4.0, 2.0, 2.0, 2.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(layer(braess_cost()).x, expected, atol=1e-5, rtol=0)
    closed = torch.tensor([False, False, False, True, False])
    cost = braess_cost()
    solution = layer(cost, closed=closed)
    torch.testing.assert_close(solution.x[0], torch.tensor([3.0, 3.0, 3.0, 0.0, 3.0]).double(), atol=1e-5, rtol=0)
    assert float(solution.x[0, 3]) == 0.0
    assert bool(solution.converged.all())


def test_each_sample_has_its_own_costs_trips_and_closed_links(exact):
    layer = EquilibriumLayer(BRAESS, solver=TIGHT, exact=exact)
    cost = braess_cost()
    own = PolynomialCost(
        constant=cost.constant.repeat(3, 1), coefficient=cost.coefficient, scale=cost.scale, power=cost.power
    )
    trips = torch.zeros(3, 2, 2, dtype=torch.float64)
    trips[:, 0, 1] = torch.tensor([6.0, 3.0, 6.0])
    closed = torch.zeros(3, 5, dtype=torch.bool)
    closed[2, 3] = True
    together = layer(own, trips=trips, closed=closed)
    for i in range(3):
        alone = layer(braess_cost(), trips=trips[i], closed=closed[i])
        torch.testing.assert_close(together.x[i : i + 1], alone.x, atol=1e-5, rtol=0)


def test_no_flow_passes_through_a_centroid(exact):
    # The short way from 0 to 1 leads through the centroid 2.
    blocked = network([0, 2, 0, 3], [2, 1, 3, 1], [[0, 1, 0], [0, 0, 0], [0, 0, 0]], first_thru=3)
    constant = torch.tensor([[0.0, 0.0, 5.0, 5.0]], dtype=torch.float64)
    ones = torch.ones(4, dtype=torch.float64)
    cost = PolynomialCost(constant=constant, coefficient=ones[:, None], scale=ones, power=(1.0,))
    x = EquilibriumLayer(blocked, solver=TIGHT, exact=exact)(cost).x
    torch.testing.assert_close(x, torch.tensor([[0.0, 0.0, 1.0, 1.0]]).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("power", [(1.0,), (4.0,), (1.0, 3.0)])
def test_times_are_the_derivative_of_the_potential_also_above_the_limit(power):
    torch.manual_seed(0)
    E = 4
    cost = PolynomialCost(
        constant=torch.rand(E).double(),
        coefficient=torch.rand(E, len(power)).double(),
        scale=1 + torch.rand(E).double(),
        power=power,
        limit=torch.full((E,), 2.0).double(),
    )
    flow = torch.tensor([[0.5, 1.0, 2.5, 4.0]]).double().requires_grad_()
    (slope,) = torch.autograd.grad(cost.value(flow).sum(), flow, create_graph=True)
    torch.testing.assert_close(slope, cost.apply(flow))
    (curve,) = torch.autograd.grad(slope.sum(), flow)
    torch.testing.assert_close(curve, cost.slope(flow))
    assert bool((curve <= cost.steepest + 1e-12).all())
    assert cost.lipschitz == pytest.approx(float(cost.steepest.max()))


@given(seed=st.integers(0, 1000))
def test_the_operator_on_blocks_is_cocoercive_with_the_stated_constant(seed):
    torch.manual_seed(seed)
    E, K = 5, 3
    cost = PolynomialCost(
        constant=torch.rand(E).double(),
        coefficient=torch.rand(E, 2).double(),
        scale=1 + torch.rand(E).double(),
        power=(1.0, 4.0),
        limit=torch.full((E,), 1.5).double(),
    )
    F = BlockSum(InUnits(cost, 0.5 + torch.rand(E).double()), K)
    x, y = torch.rand(2, 4, K, E).double()
    change, rise = x - y, F.apply(x) - F.apply(y)
    beta = F.cocoercivity
    assert isinstance(beta, float)
    assert bool(((change * rise).sum((1, 2)) >= beta * rise.square().sum((1, 2)) - 1e-12).all())


def test_the_gradient_is_that_of_the_equilibrium(exact):
    """By `Implicit`: on two roads of time c_i + v_i with 4 trips, v_1 = 2 + (c_2 - c_1) / 2."""
    roads = network([0, 0], [1, 1], [[0, 4], [0, 0]])
    layer = EquilibriumLayer(roads, solver=TIGHT, backward=il2o.Implicit(), exact=exact)
    constant = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    ones = torch.ones(2, dtype=torch.float64)
    x = layer(PolynomialCost(constant=constant, coefficient=ones[:, None], scale=ones, power=(1.0,))).x
    torch.testing.assert_close(x, torch.tensor([[2.5, 1.5]]).double(), atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(x[0, 0], constant)
    torch.testing.assert_close(gradient, torch.tensor([[-0.5, 0.5]]).double(), atol=1e-6, rtol=0)


def test_jfb_is_one_step_at_the_solution(exact):
    layer = EquilibriumLayer(BRAESS, solver=TIGHT, exact=exact)
    cost = braess_cost()
    constant = cost.constant.clone().requires_grad_()
    learned = PolynomialCost(constant=constant, coefficient=cost.coefficient, scale=cost.scale, power=cost.power)
    solution = layer(learned)
    (gradient,) = torch.autograd.grad(solution.x[0, 3], constant)
    splitting = layer.splitting(learned, solution.x)
    again = layer.total(splitting.readout(splitting(solution.z.detach())))
    (expected,) = torch.autograd.grad(again[0, 3], constant)
    torch.testing.assert_close(gradient, expected)
    assert float(gradient[0, 3]) < 0 < float(gradient[0, 1])


def test_units_change_the_way_but_not_the_answer():
    cost = braess_cost()
    unit = flow_units(cost, torch.tensor([[4.0, 2.0, 2.0, 2.0, 4.0]], dtype=torch.float64))
    layer = EquilibriumLayer(BRAESS, unit=unit, solver=TIGHT)
    torch.testing.assert_close(layer(cost).x, EquilibriumLayer(BRAESS, solver=TIGHT)(cost).x, atol=1e-5, rtol=0)


def test_an_exact_solve_is_a_fixed_point_where_the_loop_ends_at_once():
    pytest.importorskip("numba")
    solution = EquilibriumLayer(BRAESS, exact=True)(braess_cost())
    assert int(solution.steps.max()) == 1
    assert bool(solution.converged.all())
    again = EquilibriumLayer(BRAESS)(braess_cost(), start=solution.z)
    assert int(again.steps.max()) == 1


def test_exact_flows_are_those_of_the_fixed_point():
    pytest.importorskip("numba")
    layer = EquilibriumLayer(BRAESS, exact=True, gap=1e-8)
    found = layer.exact_flows(braess_cost())
    torch.testing.assert_close(found.x, layer(braess_cost()).x, atol=1e-6, rtol=0)
    assert found.residual is not None
    assert float(found.residual.max()) <= 1e-8
    assert bool(found.valid.all())
    loose = layer.exact_flows(braess_cost(), gap=0.5)
    assert int(loose.steps.max()) < int(found.steps.max())
    assert 1e-8 < float(loose.residual.max()) <= 0.5
    with pytest.raises(ValueError, match="exact=True"):
        EquilibriumLayer(BRAESS).exact_flows(braess_cost())


@pytest.mark.bad_input
def test_bad_input_is_refused():
    with pytest.raises(TypeError, match="takes a TrafficNetwork; got str"):
        EquilibriumLayer("Braess")
    with pytest.raises(ValueError, match="0 < gap < 1; got gap=0"):
        EquilibriumLayer(BRAESS, gap=0.0)
    layer = EquilibriumLayer(BRAESS)
    with pytest.raises(ValueError, match="needs a start"):
        layer(il2o.QuadraticCost(linear=torch.zeros(5), diagonal=1.0))
    with pytest.raises(ValueError, match="powers of at least 1"):
        PolynomialCost(constant=torch.ones(1), coefficient=torch.ones(1, 1), scale=torch.ones(1), power=(0.5,))
    with pytest.raises(ValueError, match="has 1 powers"):
        PolynomialCost(constant=torch.ones(1), coefficient=torch.ones(1, 2), scale=torch.ones(1), power=(2.0,))
    steep = PolynomialCost(constant=torch.ones(5), coefficient=torch.ones(5, 1), scale=torch.ones(5), power=(2.0,))
    with pytest.raises(ValueError, match="states no cocoercivity"):
        layer(steep)
