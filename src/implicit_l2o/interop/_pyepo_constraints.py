"""The constraints of a PyEPO model as a linear program. It imports PyEPO, so it is itself imported when it is used."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyepo import EPO  # pyright: ignore[reportMissingImports]
from pyepo.dsl import Problem  # pyright: ignore[reportMissingImports]
from pyepo.dsl.compiled import compiledBase  # pyright: ignore[reportMissingImports]
from pyepo.model.grb.grbmodel import optGrbModel  # pyright: ignore[reportMissingImports]
from pyepo.model.mpax.mpaxmodel import optMpaxModel  # pyright: ignore[reportMissingImports]
from pyepo.model.omo.omomodel import optOmoModel  # pyright: ignore[reportMissingImports]
from pyepo.model.ort.ortmodel import optOrtModel  # pyright: ignore[reportMissingImports]
from scipy.sparse import coo_matrix, csr_matrix, vstack

import implicit_l2o as il2o
from implicit_l2o.interop._pyepo_model import LinearProgramModel

READABLE = "opt_model's, a dsl.Problem and what it compiles to, OR-Tools (pywraplp), Pyomo, Gurobi, MPAX"


def read(model: Any) -> il2o.LinearProgram:
    """The linear program of a model, its variables in the order of the costs."""
    if isinstance(model, LinearProgramModel):
        return model.lp
    if isinstance(model, Problem):
        return _symbolic(model, ())
    if isinstance(model, compiledBase):
        return _symbolic(model.problem, model._extra_constrs)
    if isinstance(model, optMpaxModel):
        return _mpax(model)
    if isinstance(model, optOrtModel):
        return _ortools(model)
    if isinstance(model, optOmoModel):
        return _pyomo(model)
    if isinstance(model, optGrbModel):
        return _gurobi(model)
    raise TypeError(f"linear_program reads PyEPO's models ({READABLE}); got {type(model).__name__}.")


def _program(A: Any, below: ArrayLike, above: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> il2o.LinearProgram:
    """`{x : below <= A x <= above, lower <= x <= upper}`; infinite sides are none."""
    A, below, above = csr_matrix(A, dtype=np.float64), np.asarray(below, float), np.asarray(above, float)
    equal = below == above
    ceiling, floor = ~equal & np.isfinite(above), ~equal & np.isfinite(below)
    A_ub = vstack([A[ceiling], -A[floor]], format="csr")
    return il2o.LinearProgram(
        A_eq=_small(A[equal]),
        b_eq=below[equal],
        A_ub=_small(A_ub),
        b_ub=np.concatenate([above[ceiling], -below[floor]]),
        lower=np.array(lower, dtype=np.float64),
        upper=np.array(upper, dtype=np.float64),
        n=A.shape[1],
    )


def _small(A: Any) -> Any:
    """A small matrix, or one with few zeros, is dense; a large one stays sparse."""
    return A.toarray() if A.shape[0] * A.shape[1] <= 250_000 or A.nnz > 0.2 * A.shape[0] * A.shape[1] else A


def _symbolic(problem: Problem, cuts: Iterable[tuple[Any, float]]) -> il2o.LinearProgram:
    """Of the symbolic language: the matrices are there, over all variables, those without a predicted cost as well."""
    if problem.obj_Q is not None or any(Q is not None for Q, *_ in problem.constrs):
        raise ValueError("linear_program reads linear problems; this one has a quadratic objective or constraint.")
    n = problem.num_vars
    blocks, below, above = [csr_matrix((0, n))], [np.empty(0)], [np.empty(0)]
    for _, A, sense, b in problem.constrs:
        right = np.broadcast_to(np.asarray(b, dtype=float).reshape(-1), (A.shape[0],))
        infinite = np.full(A.shape[0], np.inf)
        blocks.append(csr_matrix(A))
        below.append(-infinite if sense == "<=" else right)
        above.append(infinite if sense == ">=" else right)
    for coefs, right in cuts:
        blocks.append(csr_matrix(np.asarray(coefs, dtype=float).reshape(1, n)))
        below.append(np.array([-np.inf]))
        above.append(np.array([float(right)]))
    binary = np.array([kind == EPO.BINARY for kind in problem.var_type])
    lower = np.where(binary, np.maximum(problem.var_lb, 0.0), problem.var_lb)
    upper = np.where(binary, np.minimum(problem.var_ub, 1.0), problem.var_ub)
    return _program(vstack(blocks), np.concatenate(below), np.concatenate(above), lower, upper)


def _mpax(model: optMpaxModel) -> il2o.LinearProgram:
    """`A x = b`, `G x >= h`, `l <= x <= u` are the model."""
    if model.Q is not None:
        raise ValueError("linear_program reads linear problems; this one has a quadratic objective.")
    A, b, G, h = (np.asarray(part, dtype=np.float64) for part in (model.A, model.b, model.G, model.h))
    n = model.num_cost
    rows = np.concatenate([A.reshape(-1, n), G.reshape(-1, n)])
    return _program(rows, np.concatenate([b, h]), np.concatenate([b, np.full(len(h), np.inf)]), model.l, model.u)


def _ortools(model: optOrtModel) -> il2o.LinearProgram:
    solver, variables = model._model, list(model.x.values())
    _require_one_to_one(model, solver.NumVariables(), len(variables))
    infinity = solver.infinity()
    constraints = solver.constraints()
    A = np.array([[row.GetCoefficient(x) for x in variables] for row in constraints]).reshape(-1, len(variables))
    sides = [[row.lb() for row in constraints], [row.ub() for row in constraints]]
    bounds = [[x.lb() for x in variables], [x.ub() for x in variables]]
    return _program(A, *(_infinite(side, infinity) for side in (*sides, *bounds)))


def _pyomo(model: optOmoModel) -> il2o.LinearProgram:
    from pyomo.environ import Constraint, Var, value  # pyright: ignore[reportMissingImports]
    from pyomo.repn import generate_standard_repn  # pyright: ignore[reportMissingImports]

    variables = [model.x[key] for key in model.x]
    _require_one_to_one(model, len(list(model._model.component_data_objects(Var))), len(variables))
    place = {id(x): j for j, x in enumerate(variables)}
    entries, rows, columns, below, above = [], [], [], [], []
    for i, constraint in enumerate(model._model.component_data_objects(Constraint, active=True)):
        body = generate_standard_repn(constraint.body)
        if not body.is_linear():
            raise ValueError(f"linear_program reads linear problems; constraint {constraint.name} is not linear.")
        for coefficient, x in zip(body.linear_coefs, body.linear_vars, strict=True):
            entries.append(float(coefficient))
            rows.append(i)
            columns.append(place[id(x)])
        constant = float(value(body.constant))
        below.append(-np.inf if constraint.lower is None else float(value(constraint.lower)) - constant)
        above.append(np.inf if constraint.upper is None else float(value(constraint.upper)) - constant)
    A = coo_matrix((entries, (rows, columns)), shape=(len(below), len(variables)))
    lower = [-np.inf if x.lb is None else float(x.lb) for x in variables]
    upper = [np.inf if x.ub is None else float(x.ub) for x in variables]
    return _program(A, below, above, lower, upper)


def _gurobi(model: optGrbModel) -> il2o.LinearProgram:
    solver = model._model
    solver.update()
    variables = model._vars_list if model._vars_list is not None else model.x.tolist()
    _require_one_to_one(model, solver.NumVars, len(variables))
    if solver.NumQConstrs or solver.NumSOS or solver.NumGenConstrs or getattr(solver, "_lazy_constrs", None):
        raise ValueError(
            "linear_program reads linear constraints; this Gurobi model has quadratic, general or lazy ones as well."
        )
    constraints = solver.getConstrs()
    A = csr_matrix(solver.getA())[:, [x.index for x in variables]]
    right = np.array(solver.getAttr("RHS", constraints), dtype=float)
    sense = np.array(solver.getAttr("Sense", constraints), dtype=object)
    below = np.where(sense == "<", -np.inf, right)
    above = np.where(sense == ">", np.inf, right)
    bounds = (_infinite(solver.getAttr(name, variables), 1e100) for name in ("LB", "UB"))
    return _program(A, below, above, *bounds)


def _infinite(values: Sequence[float], infinity: float) -> NDArray[np.float64]:
    """What a solver calls infinite is."""
    array = np.array(values, dtype=float)
    return np.where(np.abs(array) >= infinity, np.copysign(np.inf, array), array)


def _require_one_to_one(model: Any, variables: int, priced: int) -> None:
    if not variables == priced == model.num_cost:
        raise ValueError(
            f"linear_program needs one cost a variable; {type(model).__name__} has {max(variables, priced)} variables for "
            f"{model.num_cost} costs."
        )
