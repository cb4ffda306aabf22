"""One problem at one size: every method in turns, a line of JSON after each; a method that fails says why.

    python -m benchmarks.cvxpy_layers.one "lasso" 20 --batch 32 --repeats 3

Processor time of this process, so that other work on the machine counts less; the methods take turns.
Set-up is the making of a layer and a call of one sample; forward and backward times are those of later calls. The search for
a tolerance at which cvxpylayers' default is accurate is not timed.
Accuracy is measured against a solution whose optimality conditions hold to 1e-12, checked on one sample against CVXPY with
Clarabel at a tolerance of 1e-12; gradients against central differences of such solutions along a random direction.
"""

import argparse
import json
import time
import warnings
from typing import Any

import numpy as np
import torch

from benchmarks.cvxpy_layers.methods import METHODS, Layer, accurate, gradient
from benchmarks.cvxpy_layers.problems import PROBLEMS, Standard
from implicit_l2o.interop.cvxpy import CvxpyLayer

STEP = 1e-5  # of the central differences
# Of a method before it is the turn of another one: calls, and seconds after which no other call begins.
MOST_CALLS, TURN = 5, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument("size", type=int)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    standard = PROBLEMS[arguments.problem](arguments.size)
    values = [value.requires_grad_() for value in standard.values(arguments.batch)]
    layer = CvxpyLayer(standard.problem, standard.parameters, standard.variables, on_failure="ignore")
    reference = layer.solve(*(value.detach() for value in values))
    weights = torch.randn(reference.variables[0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    facts: dict[str, Any] = {
        "variables": layer.canonical.n,
        "rows": layer.canonical.m,
        "reference_residual": float(reference.residual.max()),
    }
    direction = direction_like(values[0])
    ends = [_loss(layer, values, direction, sign * STEP, weights) for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * STEP)
    _say({"facts": facts})
    built: dict[str, Any] = {}
    for repeat in range(arguments.repeats):
        for name, build in METHODS.items():
            if repeat and name not in built:
                continue
            try:
                if name not in built:
                    if build is None:
                        built[name], tolerance = accurate(standard, values, reference.variables[0])
                        _say({"method": name, "tolerance": tolerance})
                    else:
                        start = time.process_time()
                        built[name] = build(standard)
                        built[name](*_first_sample(standard, values))  # a first call is analysis as well
                        _say({"method": name, "setup": time.process_time() - start})
                of_turn = _turn(built[name], values, weights, direction, slope, reference.variables[0])
            except Exception as error:
                built.pop(name, None)
                _say({"method": name, "failure": f"{type(error).__name__}: {error}"[:200]})
                continue
            for record in of_turn:
                _say({"method": name, **record})
    _say({"facts": {"agreement_with_cvxpy": agreement(standard, values, reference)}})


def _turn(
    layer: Layer,
    values: list[torch.Tensor],
    weights: torch.Tensor,
    direction: torch.Tensor,
    slope: torch.Tensor,
    solution: torch.Tensor,
) -> list[dict[str, float]]:
    """A few calls of one method: short ones several times, as a training has them, long ones once."""
    records = []
    begin = time.process_time()
    while len(records) < MOST_CALLS and (not records or time.process_time() - begin < TURN):
        start = time.process_time()
        x = layer(*values)
        middle = time.process_time()
        of_first = gradient(x, values, weights)
        end = time.process_time()
        found = (of_first * direction).flatten(1).sum(1).sum()
        records.append(
            {
                "forward": middle - start,
                "backward": end - middle,
                "x_error": float((x[0].detach() - solution).abs().max()),
                "gradient_error": float((found - slope).abs() / slope.abs().clamp_min(1e-12)),
            }
        )
    return records


def _first_sample(standard: Standard, values: list[torch.Tensor]) -> list[torch.Tensor]:
    """As a batch of one."""
    pairs = zip(values, standard.parameters, strict=True)
    return [value[:1] if value.ndim > len(parameter.shape) else value for value, parameter in pairs]


def direction_like(like: torch.Tensor) -> torch.Tensor:
    """Of unit length, always the same."""
    direction = torch.randn(like.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return direction / direction.norm()


def _loss(layer: CvxpyLayer, values: list[Any], direction: Any, step: float, weights: Any) -> Any:
    with torch.no_grad():
        (x, *_) = layer(values[0] + step * direction, *values[1:])
        return (x * weights).sum()


def agreement(standard: Standard, values: list[torch.Tensor], reference: Any) -> float | None:
    """The largest difference of the first sample's solution to CVXPY's; None where Clarabel does not get that far."""
    import cvxpy as cp

    for parameter, value in zip(standard.parameters, values, strict=True):
        own = value[0] if value.ndim > len(parameter.shape) else value
        parameter.value = own.detach().numpy()
    tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-12)
    try:
        standard.problem.solve(solver=cp.CLARABEL, **tight)
    except cp.SolverError:
        return None
    return float(np.abs(standard.variables[0].value - reference.variables[0][0].detach().numpy()).max())


def _say(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
