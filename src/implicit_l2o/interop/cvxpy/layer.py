"""Any CVXPY problem as an implicit layer, called like `cvxpylayers.torch.CvxpyLayer`.

Source: A. Agrawal, B. Amos, S. Barratt, S. Boyd, S. Diamond and J. Z. Kolter, Differentiable Convex Optimization Layers,
NeurIPS (2019).
"""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o._numba import require_numba
from implicit_l2o.interop.cvxpy.affine import parameter_vector, variable_value
from implicit_l2o.interop.cvxpy.canonical import canonicalise, require_cvxpy
from implicit_l2o.interop.cvxpy.certificates import certificates_of
from implicit_l2o.interop.cvxpy.interior_point import Points
from implicit_l2o.interop.cvxpy.kkt import KKT
from implicit_l2o.interop.cvxpy.pattern import takes
from implicit_l2o.interop.cvxpy.polish import project
from implicit_l2o.interop.cvxpy.program import ConePrograms
from implicit_l2o.interop.cvxpy.rules import AbstractRule, Differentiated, ExactRule, SplittingRule, ZeroWatch
from implicit_l2o.interop.cvxpy.solution import ConicSolution, failed
from implicit_l2o.interop.cvxpy.solve import Forward, ForwardSolver, Solved
from implicit_l2o.interop.cvxpy.splitting import ConicSplitting
from implicit_l2o.interop.cvxpy.values import check_values

_SOLVERS = ("auto", "batched", "splitting", "clarabel")
_OF_CVXPYLAYERS = ("DIFFCP", "SCS", "ECOS", "MOREAU")


@final
class CvxpyLayer(nn.Module):
    """`x, = layer(*parameter_values)`: the optimal values of some variables of a CVXPY problem, differentiable.

    The problem may be any that CVXPY accepts as DPP: linear, quadratic, second-order, semidefinite, exponential and
    power cones, and geometric programs. It is solved in float64 on the host; values come back in the dtype and on the
    device of the first parameter. Solutions are polished by Newton's method to about the rounding of the data.

    With `Implicit()` gradients are exact: the derivative of the optimality conditions is factored. `JFB()` differentiates
    one step of Douglas-Rachford instead, whose factorisation is kept while P and A do not change. Second derivatives are
    refused.

    Args:
        problem: a `cvxpy.Problem`, DPP.
        parameters: all of its parameters, in the order of the call.
        variables: those whose values are wanted: of the problem, or dual variables of its constraints.
        backward: `Implicit()`, `JFB()` or `Neumann(k)`; `Implicit(solver)` with a solver of one's own iterates on the
            splitting map instead of factoring.
        solver: of the forward pass: "batched" (an interior-point method on eight samples at a time, for all cones but power
            cones; needs numba), "clarabel", "splitting", or "auto": "batched" where that is possible and Clarabel otherwise.
            The names of cvxpylayers' solvers are taken for "auto", but for "CLARABEL" ("DIFFCP", "SCS", "ECOS", "MOREAU"):
            the polished answer is the same.
        gp: whether it is a (log-log convex) geometric program.
        solver_args: settings of Clarabel by their names, as `{"max_iter": 100}`; the common ones of SCS, ECOS and diffcp are
            translated (`eps`, `max_iters`) or have no effect (`acceleration_lookback`, `mode`, ...).
        tolerance: of the optimality conditions, relative to the data and the point; a sample above it is reported.
        polish: most Newton steps.
        step: weight of the splitting that `JFB` and `Neumann` differentiate, relative to the automatic one, > 0.
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
        *,
        backward: il2o.AbstractBackward | None = None,
        solver: str | None = None,
        gp: bool = False,
        solver_args: dict[str, Any] | None = None,
        tolerance: float = 1e-7,
        polish: int = 8,
        step: float = 1.0,
        workers: int | None = None,
        on_failure: Literal["warn", "raise", "ignore"] = "warn",
    ) -> None:
        super().__init__()
        require_cvxpy("CvxpyLayer")
        self.backward = il2o.Implicit() if backward is None else backward
        if not isinstance(self.backward, il2o.Implicit | il2o.JFB | il2o.Neumann):
            raise TypeError(f"CvxpyLayer takes Implicit(), JFB() or Neumann(k) as backward; got {self.backward!r}.")
        if isinstance(self.backward, il2o.Implicit) and isinstance(self.backward.solver, il2o.NormalCG):
            raise TypeError("CvxpyLayer takes Implicit() with GMRES or a fixed-point solver; got NormalCG.")
        if on_failure not in ("warn", "raise", "ignore"):
            raise ValueError(f'on_failure must be "warn", "raise" or "ignore"; got {on_failure!r}.')
        for name, value in (("tolerance", tolerance), ("step", step)):
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"CvxpyLayer needs a finite {name} > 0; got {name}={value}.")
        if not isinstance(polish, int) or polish < 0:
            raise ValueError(f"CvxpyLayer needs an integer polish >= 0; got polish={polish!r}.")
        self.problem, self.gp, self.step = problem, gp, step
        self.parameters_of_problem, self.variables_of_problem = parameters, variables
        self.on_failure = on_failure
        self.canonical = canonicalise(problem, parameters, variables, gp=gp)  # pyright: ignore[reportArgumentType]
        self.forward_solver = Forward(
            solver=_solver(solver), options=dict(solver_args or {}), workers=workers, steps=polish, tolerance=tolerance
        )
        if self.forward_solver.solver == "batched":
            require_numba('CvxpyLayer(solver="batched")')
            if not takes(self.canonical):
                raise ValueError(
                    f'CvxpyLayer: the solver "batched" takes all cones but power cones; got {self.canonical.cones}.'
                )
        self._watch = ZeroWatch()
        self._last: tuple[ConePrograms, Points] | None = None
        self._splitting: tuple[ConePrograms, ConicSplitting] | None = None

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
        batch, batched = check_values(self.problem, self.parameters_of_problem, self.canonical, values)
        count = 1 if batch is None else batch
        vector = parameter_vector(self.canonical, values, count, batched)
        sound = torch.isfinite(vector.detach()).all(1)
        safe = torch.where(sound[:, None], vector, torch.zeros(()).to(vector))
        programs = self._programs(safe.detach().numpy())
        solved = self._solve(programs, sound.numpy(), solver_args, warm_start)
        solution = self._assemble(safe, programs, solved, values, batch)
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
        self, programs: ConePrograms, sound: np.ndarray, solver_args: dict[str, Any] | None, warm_start: bool
    ) -> Solved:
        forward = self.forward_solver
        if solver_args:
            forward = Forward(**{**vars(forward), "options": {**forward.options, **solver_args}})
        start = (
            self._last[1] if warm_start and self._last is not None and len(self._last[1].x) == len(programs) else None
        )
        good = np.flatnonzero(sound)
        if len(good) == len(programs):
            solved = forward(programs, start)
        else:
            solved = _spread(forward(programs.take(good), None), good, programs)
        self._last = programs, solved.points
        return solved

    def _assemble(
        self, vector: Tensor, programs: ConePrograms, solved: Solved, values: tuple[Tensor, ...], batch: int | None
    ) -> ConicSolution:
        points = solved.points
        s = project(programs, points.w)
        x, y = torch.as_tensor(points.x), torch.as_tensor(s - points.w)
        status = torch.as_tensor(points.status)
        gap, objective = self._objectives(programs, points.x, s - points.w, vector.detach().numpy())
        solution = ConicSolution(
            variables=(),
            everything={key: variable_value(place, x, y) for key, place in self.canonical.everything.items()},
            parameters=tuple(value.detach() for value in values),
            status=status,
            residual=torch.as_tensor(solved.residual),
            gap=gap,
            objective=objective,
            steps=torch.as_tensor(points.steps),
        )
        if torch.is_grad_enabled() and vector.requires_grad:
            lost = failed(status)
            rule = self._rule(programs, points, solved.kkt, lost.numpy())
            x, y = Differentiated.apply(vector, x, y, programs, rule, solution.gradient, self._watch, lost)
        like = values[0] if values else torch.zeros((), dtype=torch.get_default_dtype())
        found = tuple(variable_value(place, x, y).to(like.device, like.dtype) for place in self.canonical.places)
        object.__setattr__(solution, "variables", tuple(v[0] for v in found) if batch is None else found)
        return solution

    def _rule(self, programs: ConePrograms, points: Points, kkt: Any, lost: np.ndarray) -> AbstractRule:
        good = np.flatnonzero(~lost)
        own, w, x = programs, points.w, points.x
        if len(good) < len(programs):
            own, w, x = programs.take(good), w[good], x[good]
        if self.backward == il2o.Implicit():
            # Batched factors are those of the whole batch.
            return ExactRule(own, w, kkt if len(own) == len(programs) or isinstance(kkt, KKT) else None)
        splitting = self.splitting(own)
        return SplittingRule(splitting, splitting.lift(torch.as_tensor(x), torch.as_tensor(w)), self.backward)

    def splitting(self, programs: ConePrograms) -> ConicSplitting:
        """The map that `JFB` and `Neumann` differentiate; its factorisation is kept while P and A are the same."""
        if self._splitting is not None and _same_matrices(self._splitting[0], programs):
            return self._splitting[1].with_data(programs)
        splitting = ConicSplitting.of(programs, step=self.step)
        self._splitting = (programs, splitting) if programs.shared else None
        return splitting

    def _objectives(
        self, programs: ConePrograms, x: np.ndarray, y: np.ndarray, vector: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        curved = (x * programs.curvature(x)).sum(1)
        linear, fixed = (programs.q * x).sum(1), (programs.b * y).sum(1)
        gap = np.abs(curved + linear + fixed) / (1 + np.abs(curved / 2 + linear))
        objective = curved / 2 + linear + np.asarray((self.canonical.q.map @ vector.T).T)[:, -1]
        if _maximises(self.problem):
            objective = -objective
        return torch.as_tensor(gap), torch.as_tensor(np.exp(objective) if self.gp else objective)

    def _report(self, solution: ConicSolution) -> None:
        missed = ~solution.converged
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


def _solver(name: str | None) -> ForwardSolver:
    name = "auto" if name is None or name in _OF_CVXPYLAYERS else name
    if not isinstance(name, str) or name.lower() not in _SOLVERS:
        raise ValueError(f"CvxpyLayer has the solvers {', '.join(_SOLVERS)}; got solver={name!r}.")
    return name.lower()  # pyright: ignore[reportReturnType]


def _maximises(problem: Any) -> bool:
    return problem.objective.NAME == "maximize"


def _same_matrices(first: ConePrograms, second: ConePrograms) -> bool:
    """Whether two batches share one P and one A."""
    if not (first.shared and second.shared):
        return False
    inside = first.canonical.Ab.columns < first.canonical.n
    same_A = np.array_equal(first.Ab[0, inside], second.Ab[0, inside])
    return same_A and (first.P is None or second.P is None or np.array_equal(first.P[0], second.P[0]))


def _spread(solved: Solved, good: np.ndarray, programs: ConePrograms) -> Solved:
    """The whole batch, with zeros where a number was missing."""
    count, points = len(programs), solved.points
    x, w = np.zeros((count, programs.canonical.n)), np.zeros((count, programs.canonical.m))
    status, steps = np.full(count, int(il2o.Status.NONFINITE)), np.zeros(count, int)
    residual = np.full(count, np.inf)
    x[good], w[good], status[good], steps[good] = points.x, points.w, points.status, points.steps
    residual[good] = solved.residual
    return Solved(Points(x, w, status, steps), residual, solved.kkt)
