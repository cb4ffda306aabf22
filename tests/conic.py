"""What the tests of cone programs share: random values, a problem with its values, and passes with and without Clarabel."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

Problem: TypeAlias = tuple[Any, list[Any], list[Any], list[Tensor]]  # with its parameters, variables and values

f64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed))


def clarabel_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that goes to Clarabel fails the test."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a sample went to Clarabel")

    monkeypatch.setattr("implicit_l2o.interop.cvxpy.solve.solve_by_clarabel", refuse)


def check_beside_clarabel(make: Callable[[], Problem], solver: str, before: Callable[[], None]) -> None:
    """Answers and gradients of a solver are those after Clarabel; `before` is called between the two."""
    from implicit_l2o.interop.cvxpy import CvxpyLayer  # whose extra is looked for by the tests

    problem, parameters, variables, values = make()
    found = []
    for name in ("clarabel", solver):
        if name == solver:
            before()
        own = [value.clone().requires_grad_() for value in values]
        solution = CvxpyLayer(problem, parameters, variables, solver=name).solve(*own)
        assert solution.residual.max() < 1e-11
        weights = draw(*solution.variables[0].shape, seed=5)
        loss = (solution.variables[0] * weights).sum()
        found.append((solution.variables[0].detach(), *torch.autograd.grad(loss, own)))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-7)
