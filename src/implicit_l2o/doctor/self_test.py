"""A small solve whose answer is known: the point of the simplex that is nearest to given points."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

import implicit_l2o as il2o
from implicit_l2o.doctor.findings import Finding, Level

_SAMPLES, _VARIABLES = 64, 20
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
_PERMITTED = 1e3  # an error that is this multiple of the tolerance is no rounding
_MARGIN = 10.0  # between the residual that rounding leaves and a tolerance that every sample meets


@dataclass(frozen=True)
class Solve:
    """How the solve went in one dtype; the largest values over all samples.

    Attributes:
        dtype: of the iterates.
        converged: samples that met the tolerance, and how many there were.
        tolerance: absolute, on the residual.
        steps: most steps that a sample took.
        residual: at the returned point.
        error: of the answer, against a sort.
        gradient_error: of the exact implicit gradient, against the derivative of that.
        floor: residual that no further step improves.
        milliseconds: of the solve, the best of three.
    """

    dtype: torch.dtype
    converged: tuple[int, int]
    tolerance: float
    steps: int
    residual: float
    error: float
    gradient_error: float
    floor: float
    milliseconds: float

    @property
    def name(self) -> str:
        """The dtype without `torch.`."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def least_tolerance(self) -> float:
        """A tolerance that this problem meets with some margin; it grows with the size of the iterates."""
        return _MARGIN * max(self.floor, torch.finfo(self.dtype).eps)

    @property
    def passed(self) -> bool:
        """Whether every sample converged to the right answer with the right gradient."""
        met, samples = self.converged
        limit = _PERMITTED * self.tolerance
        return met == samples and self.error <= limit and self.gradient_error <= limit


def run(dtypes: Iterable[torch.dtype] = tuple(_TOLERANCE)) -> list[Solve]:
    """Solve in each dtype, on the processor. PyTorch's random numbers are not touched."""
    return [_solve(dtype, _TOLERANCE[dtype]) for dtype in dtypes]


def _solve(dtype: torch.dtype, tolerance: float) -> Solve:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(_SAMPLES, _VARIABLES, generator=generator, dtype=torch.float64).to(dtype)
    weights = torch.randn(_SAMPLES, _VARIABLES, generator=generator, dtype=torch.float64).to(dtype)

    def solve(points: torch.Tensor, stopping: il2o.Stopping) -> il2o.Solution:
        problem = il2o.Problem(
            F=il2o.QuadraticCost(linear=-points, diagonal=1.0),  # |x - point|^2 / 2
            g=il2o.Box(lower=0.0),
            h=il2o.AffineSet(torch.ones(1, _VARIABLES, dtype=dtype), torch.ones(1, dtype=dtype)),
        )
        return il2o.solve(
            il2o.DavisYin(problem),
            torch.zeros_like(points),
            solver=il2o.KrasnoselskiiMann(stopping),
            backward=il2o.Implicit(),
            on_failure="ignore",
        )

    stopping = il2o.Stopping(atol=tolerance, rtol=0.0, max_steps=2000)
    with torch.no_grad():
        timed = [_timed(lambda: solve(points, stopping)) for _ in range(3)]
        solution = timed[0][1]
        floor = solve(points, il2o.Stopping(atol=0.0, rtol=0.0, max_steps=2000, check_every=100)).residual.max().item()
        error = (solution.x - il2o.Simplex().project(points)).abs().max().item()
    found, exact = (
        _gradient(answer, points, weights) for answer in (lambda p: solve(p, stopping).x, il2o.Simplex().project)
    )
    return Solve(
        dtype=dtype,
        converged=(int((solution.status == il2o.Status.CONVERGED).sum()), _SAMPLES),
        tolerance=tolerance,
        steps=int(solution.steps.max()),
        residual=solution.residual.max().item(),
        error=error,
        gradient_error=(found - exact).abs().max().item(),
        floor=floor,
        milliseconds=1e3 * min(seconds for seconds, _ in timed),
    )


def _timed(solve: Callable[[], il2o.Solution]) -> tuple[float, il2o.Solution]:
    start = time.perf_counter()
    solution = solve()
    return time.perf_counter() - start, solution


def _gradient(
    answer: Callable[[torch.Tensor], torch.Tensor], points: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    leaf = points.clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad((weights * answer(leaf)).sum(), leaf)
    return gradient


def check(solves: Iterable[Solve]) -> list[Finding]:
    """A solve that failed is a problem; how far float32 goes is good to know."""
    found = []
    for each in solves:
        if not each.passed:
            met, samples = each.converged
            text = (
                f"The self-test in {each.name} failed: {met} of {samples} samples converged, error {each.error:.1e} and "
                f"gradient error {each.gradient_error:.1e} at tolerance {each.tolerance:.0e}."
            )
            remedy = "reinstall PyTorch; if it stays, report it with the output of --json"
            found.append(Finding(Level.PROBLEM, text, remedy))
        if each.dtype == torch.float32:
            text = (
                f"float32 brings the residual of this problem to {each.floor:.1e} and no further: for iterates of size "
                f"1 ask for no less than Stopping(atol={each.least_tolerance:.0e}). A smaller tolerance runs all steps and "
                f"ends as MAX_STEPS with the word PRECISION."
            )
            found.append(Finding(Level.NOTE, text, "float64 for tighter tolerances: x0 and the data in torch.float64"))
    return found
