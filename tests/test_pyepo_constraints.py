"""PyEPO's models as linear programs: row by row, and there and back for the solvers that are installed."""

import numpy as np
import pytest
import torch

import implicit_l2o as il2o
from implicit_l2o.decoders import MILP
from implicit_l2o.interop import pyepo as bridge

pyepo = pytest.importorskip("pyepo", reason="PyEPO is not installed")
EPO, MPAX = pyepo.EPO, pytest.importorskip("pyepo.model.mpax").optMpaxModel


@pytest.mark.parametrize("maximize", [False, True], ids=["minimise", "maximise"])
def test_our_model_is_read_back_as_it_was_given(maximize):
    lp = il2o.LinearProgram(A_eq=torch.ones(1, 3), b_eq=torch.ones(1))
    assert bridge.linear_program(bridge.opt_model(lp, maximize=maximize)) is lp


def symbolic(maximize=True):
    """Eight things to choose, two to buy by the amount: every sense of a row, every kind of variable, fixed costs."""
    from pyepo import dsl

    weights = np.random.default_rng(0).uniform(3, 8, (2, 8))
    x, y = dsl.Variable(8, vtype=EPO.BINARY), dsl.Variable(2, lb=-1.0, ub=3.0)
    cost = dsl.Parameter(8) @ x + np.array([1.0, 2.0]) @ y
    constraints = [weights @ x <= np.array([20.0, 21.0]), y.sum() >= 0.5, x.sum() + y.sum() == 3.0]
    return dsl.Problem(dsl.Maximize(cost) if maximize else dsl.Minimize(cost), constraints), weights


def test_a_symbolic_problem_is_read_row_by_row():
    described, weights = symbolic()
    lp = bridge.linear_program(described)
    assert lp.A_eq.tolist() == [[1.0] * 10]
    assert lp.b_eq.tolist() == [3.0]
    np.testing.assert_array_equal(
        lp.A_ub.numpy(), np.vstack([np.pad(weights, ((0, 0), (0, 2))), [0.0] * 8 + [-1.0] * 2])
    )
    assert lp.b_ub.tolist() == [20.0, 21.0, -0.5]
    assert lp.lower.tolist() == [0.0] * 8 + [-1.0] * 2
    assert lp.upper.tolist() == [1.0] * 8 + [3.0] * 2


def test_a_quadratic_problem_is_refused():
    from pyepo import dsl

    x = dsl.Variable(3, lb=0.0)
    described = dsl.Problem(dsl.Minimize(dsl.Parameter(3) @ x), [x.sum() == 1.0, x @ np.eye(3) @ x <= 2.0])
    with pytest.raises(ValueError, match="reads linear problems; this one has a quadratic"):
        bridge.linear_program(described)


class Mpax(MPAX):
    """A model of this kind is its matrices; JAX solves it, but is not needed to say what it is."""

    def __init__(self, **matrices):
        for name, value in matrices.items():
            setattr(self, name, value)

    def _getModel(self):
        return None, []


def test_matrices_of_mpax_are_read():
    A, G = np.array([[1.0, 1.0, 0.0]]), np.array([[0.0, 1.0, -1.0]])
    given = {
        "A": A,
        "b": np.ones(1),
        "G": G,
        "h": np.array([-2.0]),
        "l": np.zeros(3),
        "u": np.array([1.0, 1.0, np.inf]),
    }
    lp = bridge.linear_program(Mpax(**given))
    assert (lp.A_eq.tolist(), lp.b_eq.tolist()) == (A.tolist(), [1.0])
    assert (lp.A_ub.tolist(), lp.b_ub.tolist()) == ((-G).tolist(), [2.0])
    assert lp.upper.tolist() == [1.0, 1.0, float("inf")]
    with pytest.raises(ValueError, match="quadratic objective"):
        bridge.linear_program(Mpax(**given, Q=np.eye(3)))


@pytest.fixture(
    params=[
        ("ortools", "ortools", {}),
        ("gurobi", "gurobipy", {}),
        ("pyomo", "pyomo", {"solver": "appsi_highs"}),
        ("mpax", "mpax", {}),
    ],
    ids=lambda param: param[0],
)
def backend(request):
    """A solver of PyEPO's that is installed, and how its models are made."""
    name, package, options = request.param
    pytest.importorskip(package, reason=f"{package} is not installed")
    return {"backend": name, **options}


def agree(theirs, ours, costs, tolerance):
    for cost in costs:
        theirs.setObj(cost)
        ours.setObj(ours_cost(theirs, cost))
        assert ours.solve()[1] == pytest.approx(theirs.solve()[1], abs=tolerance)


def ours_cost(theirs, cost):
    return np.asarray(theirs._fullCost(cost))


def test_models_of_installed_solvers_go_there_and_back(backend):
    random = np.random.default_rng(0)
    exact = backend["backend"] != "mpax"  # of the relaxation, by a first-order method: a grid came out .04 infeasible
    tolerance = 1e-4 if exact else 0.5
    weights = random.uniform(3, 8, (2, 8))
    knapsacks = pyepo.model.knapsackModel(weights, np.array([20.0, 20.0]), **backend)
    for model, rows in ((knapsacks, 2), (knapsacks.addConstr([1.0] * 8, 2.0), 3)):
        lp = bridge.linear_program(model)
        assert lp.A_ub.shape == (rows, 8)
        maximize = model.modelSense == EPO.MAXIMIZE
        agree(model, bridge.opt_model(lp, MILP(lp, exact), maximize=maximize), random.uniform(1, 5, (4, 8)), tolerance)
    paths = pyepo.model.shortestPathModel((3, 4), **backend)
    agree(paths, bridge.opt_model(bridge.linear_program(paths)), random.uniform(1, 5, (4, 17)), tolerance)
    for maximize in (False, True):
        described, _ = symbolic(maximize)
        compiled = described.compile(**backend)
        lp = bridge.linear_program(compiled)
        decoder = MILP(lp, [exact] * 8 + [False] * 2)
        agree(compiled, bridge.opt_model(lp, decoder, maximize=maximize), random.uniform(-1, 5, (4, 8)), tolerance)


def test_models_without_one_cost_a_variable_are_refused(backend):
    if backend["backend"] not in ("gurobi", "pyomo"):
        pytest.skip("PyEPO has no travelling salesman on this solver")
    with pytest.raises(ValueError, match=r"one cost a variable; tsp\w+ has \d+ variables for 10 costs"):
        bridge.linear_program(
            pyepo.model.tspModel(5, **backend, **({} if "solver" not in backend else {"formulation": "GG"}))
        )


def test_what_is_no_readable_model_is_refused():
    with pytest.raises(TypeError, match=r"reads PyEPO's models \(.*OR-Tools.*\); got int"):
        bridge.linear_program(3)
