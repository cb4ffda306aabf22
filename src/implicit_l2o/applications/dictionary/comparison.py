"""The same learned problem by each splitting and solver: steps, seconds, and how far the objective is from the best."""

import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.dictionary.model import TOLERANCE, ImplicitDictionary

_REFERENCE = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=1e-5, max_steps=5000), relaxation=1.8)
_CAP = 2000  # steps


@torch.no_grad()
def compare_splittings(
    model: ImplicitDictionary, d: Float[Tensor, "B measurements"], *, rtol: float = TOLERANCE
) -> dict[str, dict[str, Any]]:
    """Each way to the answers of a trained model, from the least-squares signal to a relative tolerance.

    The tolerance is on the residual, whose size differs between splittings: the gap says what each answer is worth.

    Args:
        model: trained.
        d: measurements.
        rtol: the tolerance.

    Returns:
        By name: median and largest steps, the share that converged within 2000, seconds, the relative gap of `|K x|_1` over
        the best known, the median over the samples, and the largest relative fidelity.
    """
    K, A = model.K.to(d), model.A.to(d)
    kept = torch.linalg.vector_norm(d, dim=1) > 0  # a zero measurement has no relative gap
    d = d[kept]
    best = _l1(K, _answers(model, d, _REFERENCE)[0])
    ways: dict[str, Callable[[], tuple[Tensor, il2o.Solution]]] = {}
    capped = il2o.Stopping(atol=0.0, rtol=rtol, max_steps=_CAP)
    for name, solver in {
        "Douglas-Rachford": il2o.KrasnoselskiiMann(capped),
        "Douglas-Rachford, relaxed 1.8": il2o.KrasnoselskiiMann(capped, relaxation=1.8),
        "Douglas-Rachford, Anderson(10)": il2o.Anderson(capped, memory=10),
        "Douglas-Rachford, Halpern": il2o.Halpern(capped),
    }.items():
        ways[name] = lambda solver=solver: _answers(model, d, solver)
    constraint = il2o.AffineSet(il2o.affine_factor(A), d)
    problem = il2o.Problem(g=constraint, K=il2o.Matrix(K), l=il2o.L1Norm())
    # The threshold of Douglas-Rachford, so that all of them balance primal and dual alike; the primal step is automatic.
    dual_step = 1.0 / float(torch.as_tensor(model.splitting(d)[0].step).mean())
    for name, splitting in {
        "Condat-Vu": il2o.CondatVu(problem, dual_step=dual_step),
        "linearised ADMM": il2o.LinearizedADMM(problem, dual_step=dual_step),
    }.items():
        ways[name] = lambda splitting=splitting: _composed(splitting, constraint, il2o.KrasnoselskiiMann(capped))
        accelerated = il2o.Anderson(capped, memory=10)
        ways[f"{name}, Anderson(10)"] = lambda splitting=splitting, solver=accelerated: _composed(
            splitting, constraint, solver
        )
    return {name: _measured(way, K, A, d, best) for name, way in ways.items()}


def _answers(
    model: ImplicitDictionary, d: Tensor, solver: il2o.AbstractFixedPointSolver
) -> tuple[Tensor, il2o.Solution]:
    splitting, start = model.splitting(d)
    solution = il2o.solve(splitting, start, solver=solver, on_failure="ignore")
    return solution.x @ model.D.mT, solution


def _composed(
    splitting: il2o.AbstractSplitting, constraint: il2o.AffineSet, solver: il2o.AbstractFixedPointSolver
) -> tuple[Tensor, il2o.Solution]:
    solution = il2o.solve(splitting, constraint.point, solver=solver, on_failure="ignore")
    return solution.x, solution


def _measured(
    way: Callable[[], tuple[Tensor, il2o.Solution]], K: Tensor, A: Tensor, d: Tensor, best: Tensor
) -> dict[str, Any]:
    start = time.perf_counter()
    x, solution = way()
    seconds = time.perf_counter() - start
    infidelity = il2o.RelativeDataFidelity(il2o.Matrix(A))(il2o.Inference(x=x, data=d))
    return {
        "steps_median": float(solution.steps.double().median()),
        "steps_max": int(solution.steps.max()),
        "converged": float(solution.converged.double().mean()),
        "seconds": seconds,
        "gap_median": float((_l1(K, x) / best - 1).median()),
        "infidelity": float(infidelity.max()),
    }


def _l1(K: Tensor, x: Tensor) -> Tensor:
    return (x @ K.mT).abs().sum(dim=1)
