"""What CVXPY makes of a problem: affine maps from its parameters to a cone program.

Source: A. Agrawal, B. Amos, S. Barratt, S. Boyd, S. Diamond and J. Z. Kolter, Differentiable Convex Optimization Layers,
NeurIPS (2019), section 4.
"""

import contextlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.extra import cvxpy_module, sparse_values, three_dimensional
from implicit_l2o.interop.cvxpy.places import Kept, Place, dual_place, kept_of, primal_place


@dataclass(frozen=True, eq=False)
class Entries:
    """A matrix whose nonzero entries are an affine function of the parameters.

    Attributes:
        map: sparse, from the parameter vector with a 1 at its end to the entries.
        rows: of each entry.
        columns: of each entry.
        shape: of the matrix.
    """

    map: Any
    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, int]

    @cached_property
    def moving(self) -> "Entries":
        """Those that depend on a parameter, which gradients are about: often few of many."""
        inner = sp.csr_array(self.map)[:, :-1]
        inner.eliminate_zeros()
        kept = np.flatnonzero(np.diff(inner.indptr))
        return Entries(sp.csr_array(self.map)[kept], self.rows[kept], self.columns[kept], self.shape)

    def pull_back(self, v: Float[np.ndarray, "B entries"]) -> Float[np.ndarray, "B p"]:
        """Cotangents of the parameter vector from those of the entries."""
        return (self._transposed @ v.T).T

    @cached_property
    def _transposed(self) -> Any:
        return sp.csr_array(self.map).T.tocsr()

    @property
    def varying(self) -> np.ndarray:
        """Which parameters' columns the entries depend on."""
        return np.diff(self.map[:, :-1].tocsc().indptr) > 0


@dataclass(frozen=True, eq=False)
class Canonical:
    """`min x.Px/2 + q.x + d` subject to `b - A x` in a product of cones, all affine in the parameters.

    Attributes:
        P: of the objective, symmetric; None where it is linear.
        q: `(n + 1, 1)`: the linear cost and the constant `d`.
        Ab: `(m, n + 1)`: `[-A, b]`.
        cones: in the order of the rows.
        columns: first column of each parameter in the parameter vector.
        kept: which entries of a parameter CVXPY keeps; None for all of them.
        logarithms: parameters whose logarithm CVXPY's program takes (of geometric programs).
        places: of the variables that were asked for.
        everything: places of all variables of the problem, by their ids.
    """

    P: Entries | None
    q: Entries
    Ab: Entries
    cones: il2o.ConeProduct
    columns: tuple[int, ...]
    kept: tuple[Kept | None, ...]
    logarithms: tuple[bool, ...]
    places: tuple[Place, ...]
    everything: dict[int, Place]

    @property
    def n(self) -> int:
        """Variables."""
        return self.Ab.shape[1] - 1

    @property
    def m(self) -> int:
        """Rows."""
        return self.Ab.shape[0]


def canonicalise(
    problem: Any,
    parameters: list[Any],
    variables: list[Any],
    *,
    gp: bool,
    backend: str | None = None,
    verbose: bool = False,
) -> Canonical:
    """The cone program of a problem.

    Args:
        problem: a `cvxpy.Problem`, DPP.
        parameters: in the order in which values will come.
        variables: in the order in which solutions are wanted; dual variables of constraints as well.
        gp: whether it is a geometric program.
        backend: that makes CVXPY's matrices; None for its own choice.
        verbose: whether CVXPY says what it does.

    Raises:
        ValueError: the problem is not DPP, or not of these parameters and variables.
        NotImplementedError: it has integer or complex variables, or a feature that CVXPY hands to no cone.
    """
    cp = cvxpy_module()

    if not isinstance(problem, cp.Problem):
        raise TypeError(f"CvxpyLayer takes a cvxpy.Problem; got {type(problem).__name__}.")
    of_duals = {dual.id: constraint for constraint in problem.constraints for dual in constraint.dual_variables}
    _check(problem, parameters, variables, of_duals, gp)
    log_parameters: dict[Any, Any] = {}
    target, outer = problem, {}
    if gp:
        reduction = cp.reductions.Dgp2Dcp(problem)
        target, _ = reduction.apply(problem)
        log_parameters, outer = reduction.canon_methods._parameters, reduction.var_id_map
    # Parameters in the matrix of a quadratic form are affine in P, where they need no square root.
    with (
        sparse_values(),
        cvxpy_module("utilities.scopes").quad_form_dpp_scope() if not gp else contextlib.nullcontext(),
    ):
        data, chain, _ = target.get_problem_data(solver=cp.CLARABEL, canon_backend=backend, verbose=verbose)
        if data["dims"].pnd:
            data, chain, _ = target.get_problem_data(solver=three_dimensional(), canon_backend=backend, verbose=verbose)
    program = data[cp.settings.PARAM_PROB]
    if program.lower_bounds is not None or program.upper_bounds is not None or program.dir_cones:
        raise NotImplementedError("CvxpyLayer: this CVXPY keeps bounds outside the cones for Clarabel; use CVXPY 1.9.")
    ids = {old: new[0] for old, new in chain.compose_var_id_map().items()}
    if any(len(new) > 1 for new in chain.compose_var_id_map().values()):
        raise NotImplementedError("CvxpyLayer does not take complex variables.")
    ids = {**ids, **{old: ids.get(new[0], new[0]) for old, new in outer.items()}}
    parameter_ids = {old: new[0] for old, new in chain.compose_param_id_map().items()}
    inner = [log_parameters.get(p, p) for p in parameters]
    everything = {v.id: primal_place(v, program.var_id_to_col[ids.get(v.id, v.id)], gp) for v in problem.variables()}
    slices = _rows_of_constraints(program, chain.compose_constr_id_map(), problem)
    program.reduced_A.cache()
    program.reduced_P.cache()
    return Canonical(
        P=_quadratic(program),
        q=Entries(
            program.q.tocsr(), np.arange(program.q.shape[0]), np.zeros(program.q.shape[0], int), (program.q.shape[0], 1)
        ),
        Ab=_constraints(program),
        cones=_cones(data["dims"]),
        columns=tuple(program.param_id_to_col[parameter_ids.get(p.id, p.id)] for p in inner),
        kept=tuple(kept_of(p, parameter_ids) for p in inner),
        logarithms=tuple(p in log_parameters for p in parameters),
        places=tuple(
            everything[v.id] if v.id in everything else dual_place(v, of_duals[v.id], slices) for v in variables
        ),
        everything=everything,
    )


def _check(problem: Any, parameters: list[Any], variables: list[Any], of_duals: dict[int, Any], gp: bool) -> None:
    for name, values in (("parameters", parameters), ("variables", variables)):
        if not isinstance(values, list | tuple):
            raise ValueError(f"The layer's {name} must be provided as a list or tuple; got {type(values).__name__}.")
    if problem.is_mixed_integer():
        raise NotImplementedError("CvxpyLayer takes convex problems; this one has boolean or integer variables.")
    context = "dgp" if gp else "dcp"
    if not (problem.is_dgp() if gp else problem.is_dcp()):
        raise ValueError(
            f"Problem must be {context.upper()}: CVXPY cannot verify that it is convex. Its rules: "
            "https://www.cvxpy.org/tutorial/dcp/index.html"
        )
    if not (problem.is_dpp("dgp") if gp else problem.is_dpp(quad_form_dpp="qp")):
        culprits = [str(part) for part in (problem.objective, *problem.constraints) if not part.is_dpp(context)]
        where = f" Not DPP: {'; '.join(culprits)}." if culprits else ""
        raise ValueError(
            f"Problem must be DPP: parameters may enter affinely, and never multiply one another.{where} Its rules: "
            "https://www.cvxpy.org/tutorial/dpp/index.html"
        )
    if set(problem.parameters()) != set(parameters):
        missing = [p.name() for p in problem.parameters() if p not in set(parameters)]
        extra = [p.name() for p in parameters if p not in set(problem.parameters())]
        raise ValueError(
            f"The layer's parameters must exactly match problem.parameters; missing: {missing}, not in it: {extra}."
        )
    if len(set(parameters)) != len(parameters):
        raise ValueError("The layer's parameters must be given once each.")
    own = {v.id for v in problem.variables()}
    for v in variables:
        if v.id not in own and v.id not in of_duals:
            raise ValueError(
                f"Variable {v} must be a subset of problem.variables or a constraint dual variable; they are "
                f"{[v.name() for v in problem.variables()]}."
            )


def _quadratic(program: Any) -> Entries | None:
    """The entries of P made symmetric, whatever CVXPY stores."""
    if program.P is None:
        return None
    n = program.x.size
    tensor = program.P.tocoo()
    # Row `i + j n` of CVXPY's tensor is the entry (i, j); half of it goes to (j, i).
    i, j = tensor.row % n, tensor.row // n
    places = np.concatenate([tensor.row, j + i * n])
    entry, inverse = np.unique(places, return_inverse=True)
    values = np.concatenate([tensor.data, tensor.data]) / 2
    columns = np.concatenate([tensor.col, tensor.col])
    matrix = sp.csr_array((values, (inverse, columns)), shape=(len(entry), tensor.shape[1]))
    matrix.sum_duplicates()
    return Entries(matrix, entry % n, entry // n, (n, n))


def _constraints(program: Any) -> Entries:
    """The entries of `[A, b]` with `A x + b` in the cones, as CVXPY states them."""
    tensor = program.A.tocoo()
    m = program.A.shape[0] // (program.x.size + 1)
    entry, inverse = np.unique(tensor.row, return_inverse=True)
    matrix = sp.csr_array((tensor.data, (inverse, tensor.col)), shape=(len(entry), tensor.shape[1]))
    matrix.sum_duplicates()
    return Entries(matrix, entry % max(m, 1), entry // max(m, 1), (m, program.x.size + 1))


def _cones(dims: Any) -> il2o.ConeProduct:
    return il2o.ConeProduct(
        zero=int(dims.zero),
        nonnegative=int(dims.nonneg),
        second_order=tuple(int(d) for d in dims.soc),
        semidefinite=tuple(int(d) for d in dims.psd),
        exponential=int(dims.exp),
        power=tuple(float(a) for a in dims.p3d),
    )


def _rows_of_constraints(program: Any, ids: dict[int, int], problem: Any) -> dict[int, slice]:
    """The rows of the problem's own constraints in the dual solution; constraints that became several have none."""
    cp = cvxpy_module()

    kinds = [
        cp.constraints.Zero,
        cp.constraints.NonNeg,
        cp.constraints.SOC,
        *(getattr(cp.constraints, name) for name in ("PSD", "SvecPSD") if hasattr(cp.constraints, name)),
        cp.constraints.ExpCone,
        cp.constraints.PowCone3D,
    ]
    slices, row = {}, 0
    for kind in kinds:
        for constraint in program.constr_map.get(kind, []):
            size = constraint.size
            if kind is cp.constraints.PSD:
                n = constraint.shape[0]
                size = n * (n + 1) // 2
            slices[constraint.id] = slice(row, row + size)
            row += size
    own = {constraint.id: ids.get(constraint.id, constraint.id) for constraint in problem.constraints}
    return {old: slices[new] for old, new in own.items() if new in slices}
