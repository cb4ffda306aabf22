"""The layers that are compared: each gives the solution of a batch and its gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import implicit_l2o as il2o
from benchmarks.cvxpy_layers.problems import Standard

Layer = Callable[..., tuple[Tensor, ...]]


def ours(solver: str, backward: il2o.AbstractBackward) -> Callable[[Standard], Layer]:
    def build(standard: Standard) -> Layer:
        from implicit_l2o.interop.cvxpy import CvxpyLayer

        return CvxpyLayer(
            standard.problem,
            standard.parameters,
            standard.variables,
            solver=solver,
            backward=backward,
            on_failure="ignore",
        )

    return build


def cvxpylayers(solver: str | None, arguments: dict[str, Any]) -> Callable[[Standard], Layer]:
    def build(standard: Standard) -> Layer:
        from cvxpylayers.torch import CvxpyLayer  # pyright: ignore[reportMissingImports]

        layer = CvxpyLayer(standard.problem, standard.parameters, standard.variables, solver=solver)
        return lambda *values: layer(*values, solver_args=arguments)

    return build


METHODS: dict[str, Callable[[Standard], Layer] | None] = {
    "ours": ours("auto", il2o.Implicit()),
    "ours, JFB": ours("auto", il2o.JFB()),
    "cvxpylayers": cvxpylayers(None, {}),
    "cvxpylayers, Clarabel": cvxpylayers(None, {"solve_method": "Clarabel"}),
    "cvxpylayers, Moreau": cvxpylayers("MOREAU", {}),
    "cvxpylayers, accurate": None,  # its default again, at the first of TOLERANCES that suffices
}
ACCURATE = 1e-5  # largest error of a solution
TOLERANCES = (1e-6, 1e-7, 1e-8, 1e-9, 1e-10)


def accurate(standard: Standard, values: list[Tensor], solution: Tensor) -> tuple[Layer, float]:
    """cvxpylayers' default with a tolerance at which its solutions are accurate, and that tolerance.

    Raises:
        ValueError: none of them suffices.
    """
    error = torch.inf
    for tolerance in TOLERANCES:
        layer = cvxpylayers(None, {"eps": tolerance})(standard)
        with torch.no_grad():
            error = float((layer(*values)[0] - solution).abs().max())
        if error <= ACCURATE:
            return layer, tolerance
    raise ValueError(f"an error of {error:.0e} at its tolerance of {TOLERANCES[-1]:.0e}")


def gradient(x: tuple[Tensor, ...], values: list[Tensor], weights: Tensor) -> Tensor:
    """Of a fixed linear loss, with respect to the first parameter."""
    return torch.autograd.grad((x[0] * weights).sum(), values[0])[0]
