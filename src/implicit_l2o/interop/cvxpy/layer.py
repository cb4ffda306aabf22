"""Any CVXPY problem as an implicit layer, called like `cvxpylayers.torch.CvxpyLayer`.

Source: A. Agrawal, B. Amos, S. Barratt, S. Boyd, S. Diamond and J. Z. Kolter, Differentiable Convex Optimization Layers,
NeurIPS (2019).
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.affine import parameter_vector, variable_value
from implicit_l2o.interop.cvxpy.canonical import canonicalise
from implicit_l2o.interop.cvxpy.certificates import certificates_of
from implicit_l2o.interop.cvxpy.differentiated import Attached, Differentiated, ZeroWatch
from implicit_l2o.interop.cvxpy.extra import require_cvxpy
from implicit_l2o.interop.cvxpy.interior_point import Points, check_options
from implicit_l2o.interop.cvxpy.kept import KeptSplittings
from implicit_l2o.interop.cvxpy.kkt import KKT
from implicit_l2o.interop.cvxpy.options import OnFailure, check_options_of_layer, check_solver, solver_named
from implicit_l2o.interop.cvxpy.polish import project
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.rules import AbstractRule, SplittingRule, exact_rule
from implicit_l2o.interop.cvxpy.solution import ConicSolution, failed, objectives
from implicit_l2o.interop.cvxpy.solve import Forward, Solved, spread
from implicit_l2o.interop.cvxpy.splitting import ConicSplitting
from implicit_l2o.interop.cvxpy.unrolled import UnrolledRule, Unrolling
from implicit_l2o.interop.cvxpy.values import check_values, dense

if TYPE_CHECKING:  # it compiles, and needs numba
    from implicit_l2o.interop.cvxpy.chunked import Chunked
    from implicit_l2o.interop.cvxpy.compact import CompactSplitting


@final
class CvxpyLayer(nn.Module):
    """`x, = layer(*parameter_values)`: the optimal values of some variables of a CVXPY problem, differentiable.

    The problem may be any that CVXPY accepts as DPP: linear, quadratic, second-order, semidefinite, exponential and
    power cones, and geometric programs. It is solved in float64 on the host; values come back in the dtype and on the
    device of the first parameter. Solutions are polished by Newton's method to about the rounding of the data.

    With `Implicit()` gradients are exact: the derivative of the optimality conditions is factored. Those of linear and
    quadratic programs can be differentiated again. `JFB()` differentiates one step of Douglas-Rachford instead, whose
    factorisation is kept while P and A do not change. `Unrolled(k)` solves nothing: it answers with `k` steps of
    Douglas-Rachford from zero and differentiates them all.

    Args:
        problem: a `cvxpy.Problem`, DPP.
        parameters: all of its parameters, in the order of the call.
        variables: those whose values are wanted: of the problem, or dual variables of its constraints.
        solver: of the forward pass: "batched" (an interior-point method on eight samples at a time; needs numba),
            "clarabel", "splitting", or "auto": "batched" where that is possible, or a splitting where P and A are
            constant and their factors large, and Clarabel for the rest. The names of cvxpylayers' solvers are taken for
            "auto", but for "CLARABEL" ("DIFFCP", "SCS", "ECOS", "MOREAU"): the polished answer is the same.
        gp: whether it is a (log-log convex) geometric program.
        verbose: print what CVXPY does to the problem, and after each solve a line for each sample.
        canon_backend: with which CVXPY makes its matrices, as "SCIPY", "CPP" or "COO"; None leaves it the choice.
        solver_args: settings of Clarabel by their names, as `{"max_iter": 100}`; the common ones of SCS, ECOS, Moreau and
            diffcp are translated (`eps`, `tol`, `max_iters`) or have no effect (`acceleration_lookback`, `mode`, ...).
        backward: `Implicit()`, `JFB()`, `Neumann(k)` or `Unrolled(k)`; `Implicit(solver)` with a solver of one's own
            iterates on the splitting map instead of factoring.
        tolerance: of the optimality conditions, relative to the data and the point; a sample above it is reported.
        polish: most Newton steps.
        step: weight of the splitting that `JFB`, `Neumann` and `Unrolled` differentiate, relative to the automatic one, > 0.
        workers: threads of Clarabel; None takes as many as PyTorch uses.
        on_failure: "warn", "raise" or "ignore" about samples that are infeasible, unbounded or not solved.

    Raises:
        ModuleNotFoundError: CVXPY or Clarabel is not installed.
        ValueError: the problem is not DPP, parameters or variables are not its own, or an option is out of its range.
        NotImplementedError: the problem has integer or complex variables.

    Example:
        >>> import cvxpy as cp, torch
        >>> from implicit_l2o.interop.cvxpy import CvxpyLayer
        >>> x, p = cp.Variable(2), cp.Parameter(2)
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [cp.sum(x) == 1, x >= 0])
        >>> layer = CvxpyLayer(problem, parameters=[p], variables=[x])
        >>> (nearest,) = layer(torch.tensor([[0.9, 0.5], [2.0, 0.0]]))
        >>> nearest.round(decimals=3)
        tensor([[0.7000, 0.3000],
                [1.0000, 0.0000]])
    """

    def __init__(
        self,
        problem: Any,
        parameters: Sequence[Any],
        variables: Sequence[Any],
        solver: str | None = None,
        gp: bool = False,
        verbose: bool = False,
        canon_backend: str | None = None,
        solver_args: dict[str, Any] | None = None,
        *,
        backward: il2o.AbstractBackward | None = None,
        tolerance: float = 1e-7,
        polish: int = 8,
        step: float = 1.0,
        workers: int | None = None,
        on_failure: OnFailure = "warn",
    ) -> None:
        super().__init__()
        require_cvxpy("CvxpyLayer")
        self.backward = il2o.Implicit() if backward is None else backward
        check_options_of_layer(self.backward, on_failure, tolerance, step, polish)
        self.problem, self.gp, self.verbose, self.step = problem, gp, verbose, step
        self.parameters_of_problem, self.variables_of_problem = parameters, variables
        self.on_failure = on_failure
        self.canonical = canonicalise(
            problem,
            parameters,  # pyright: ignore[reportArgumentType]
            variables,  # pyright: ignore[reportArgumentType]
            gp=gp,
            backend=canon_backend,
            verbose=verbose,
        )
        self.forward_solver = Forward(
            solver=solver_named(solver),
            options=dict(solver_args or {}),
            workers=workers,
            steps=polish,
            tolerance=tolerance,
        )
        check_solver(self.forward_solver, self.backward)
        self._watch = ZeroWatch()
        self._last: tuple[ConePrograms, Points] | None = None
        self._splittings = KeptSplittings()

    def forward(
        self, *values: Tensor, solver_args: dict[str, Any] | None = None, warm_start: bool = False
    ) -> tuple[Tensor, ...]:
        """The values of the variables, batched if a parameter is.

        Args:
            values: one tensor a parameter, of its shape or `(B, *shape)`; those without a batch are shared by all samples.
            solver_args: settings of Clarabel for this call, beside those of the layer.
            warm_start: start the splitting where the last call ended, if that had as many samples; an interior-point method
                starts anew.

        Raises:
            ValueError: a value has another shape, or breaks an attribute of its parameter such as `nonneg`.
            ConvergenceError: with `on_failure="raise"`.
        """
        return self.solve(*values, solver_args=solver_args, warm_start=warm_start).variables

    def solve(
        self, *values: Tensor, solver_args: dict[str, Any] | None = None, warm_start: bool = False
    ) -> ConicSolution:
        """As calling the layer, and returns what is known of the solve as well."""
        values = dense(values)
        batch, batched = check_values(self.parameters_of_problem, self.canonical, values)
        count = 1 if batch is None else batch
        vector = parameter_vector(self.canonical, values, count, batched)
        sound = torch.isfinite(vector.detach()).all(1)
        safe = torch.where(sound[:, None], vector, torch.zeros(()).to(vector))
        programs = self._programs(safe.detach().numpy())
        exact = torch.is_grad_enabled() and vector.requires_grad and self.backward == il2o.Implicit()
        forward = replace(self.forward_solver, exact=exact)
        if solver_args:
            forward = replace(forward, options={**forward.options, **solver_args})
        solved, unrolling = self._solve(forward, programs, sound.numpy(), warm_start)
        solution = self._assemble(safe, programs, solved, unrolling, values, batch)
        self._report(solution)
        return solution

    def infer(self, *values: Tensor) -> tuple[ConicSolution, il2o.CertificateReport]:
        """The solution without a graph, and a report on every constraint (in CVXPY's words), the gap and the residual."""
        with torch.no_grad():
            solution = self.solve(*values)
            return solution, certificates_of(self, solution)

    def extra_repr(self) -> str:
        """Sizes and options, for `print`."""
        return f"variables={self.canonical.n}, rows={self.canonical.m}, backward={self.backward}, gp={self.gp}"

    def _programs(self, vector: np.ndarray) -> ConePrograms:
        c = self.canonical
        P = None if c.P is None else (c.P.map @ vector.T).T
        return ConePrograms(c, P, np.ascontiguousarray((c.q.map @ vector.T).T[:, :-1]), (c.Ab.map @ vector.T).T)

    def _solve(
        self, forward: Forward, programs: ConePrograms, sound: np.ndarray, warm_start: bool
    ) -> tuple[Solved, Unrolling | None]:
        start = (
            self._last[1] if warm_start and self._last is not None and len(self._last[1].x) == len(programs) else None
        )
        good, unrolling = np.flatnonzero(sound), None
        own = programs
        if len(good) < len(programs):
            own, start = programs.take(good), None
        if isinstance(self.backward, il2o.Unrolled):
            solved, unrolling = self._unroll(forward, self.backward, own, start)
        else:
            solved = forward(own, start, self._splittings)
        if len(good) < len(programs):
            solved = spread(solved, good, programs)
        self._last = programs, solved.points
        return solved, unrolling

    def _unroll(
        self, forward: Forward, backward: il2o.Unrolled, programs: ConePrograms, start: Points | None
    ) -> tuple[Solved, Unrolling]:
        check_options(forward.options)
        splitting, n = self.splitting(programs), programs.canonical.n
        z0 = torch.zeros(len(programs), n + programs.canonical.m, dtype=torch.float64)
        if start is not None:
            z0 = splitting.lift(torch.as_tensor(start.x), torch.as_tensor(start.w))
        unrolling = Unrolling.of(splitting, z0, backward.steps, backward.checkpoint or 1)
        x, w = (part.numpy() for part in splitting.point(unrolling.last))
        finite = np.isfinite(x).all(1) & np.isfinite(w).all(1)
        status = np.where(finite, int(il2o.Status.MAX_STEPS), int(il2o.Status.NONFINITE))
        solved = replace(forward, steps=0).judge(programs, Points(x, w, status, np.full(len(x), backward.steps)))
        return solved, unrolling if finite.all() else unrolling.restrict(torch.as_tensor(np.flatnonzero(finite)))

    def _assemble(
        self,
        vector: Tensor,
        programs: ConePrograms,
        solved: Solved,
        unrolling: Unrolling | None,
        values: tuple[Tensor, ...],
        batch: int | None,
    ) -> ConicSolution:
        points = solved.points
        s = project(programs, points.w)
        x, y = torch.as_tensor(points.x), torch.as_tensor(s - points.w)
        status = torch.as_tensor(points.status)
        gap, objective = objectives(programs, points.x, s - points.w, vector.detach().numpy())
        objective = -objective if self.problem.objective.NAME == "maximize" else objective
        solution = ConicSolution(
            variables=(),
            everything={key: variable_value(place, x, y) for key, place in self.canonical.everything.items()},
            parameters=tuple(value.detach() for value in values),
            status=status,
            residual=torch.as_tensor(solved.residual),
            gap=gap,
            objective=objective.exp() if self.gp else objective,
            steps=torch.as_tensor(points.steps),
        )
        if torch.is_grad_enabled() and vector.requires_grad:
            lost = failed(status).numpy()
            rule = UnrolledRule(unrolling) if unrolling is not None else self._rule(programs, points, solved.kkt, lost)
            x, y = Differentiated.apply(vector, x, y, Attached(programs, rule, lost, solution.gradient, self._watch))
        like = values[0] if values else torch.zeros((), dtype=torch.get_default_dtype())
        found = tuple(variable_value(place, x, y).to(like.device, like.dtype) for place in self.canonical.places)
        object.__setattr__(solution, "variables", tuple(v[0] for v in found) if batch is None else found)
        return solution

    def _rule(
        self, programs: ConePrograms, points: Points, kkt: "KKT | Chunked | CompactSplitting | None", lost: np.ndarray
    ) -> AbstractRule:
        good = np.flatnonzero(~lost)
        own, w, x = programs, points.w, points.x
        if len(good) < len(programs):
            own, w, x = programs.take(good), w[good], x[good]
        if self.backward == il2o.Implicit():
            return exact_rule(own, w, kkt, whole=len(own) == len(programs))
        return SplittingRule(self.splitting(own), x, w, self.backward)

    def splitting(self, programs: ConePrograms, step: float | None = None) -> ConicSplitting:
        """The map that the solver iterates, or `JFB`, `Neumann` and `Unrolled` differentiate, with weights `step`."""
        return self._splittings.of(ConicSplitting, programs, self.step if step is None else step)

    def _report(self, solution: ConicSolution) -> None:
        if self.verbose:
            print(*map(solution.message, range(len(solution.status))), sep="\n")
        # Unrolled iterations have as many steps as were asked for, and aim at no tolerance.
        missed = solution.failed if isinstance(self.backward, il2o.Unrolled) else ~solution.converged
        if self.on_failure == "ignore" or not bool(missed.any()):
            return
        kinds = sorted({int(status) for status in solution.status[missed].tolist()})
        first = [int((missed & (solution.status == kind)).nonzero()[0]) for kind in kinds]
        text = f"{int(missed.sum())} of {len(missed)} samples were not solved. " + " ".join(
            map(solution.message, first)
        )
        if self.on_failure == "raise":
            raise il2o.ConvergenceError(text)
        warnings.warn(text, il2o.ConvergenceWarning, stacklevel=4)
