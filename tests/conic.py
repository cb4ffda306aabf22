"""What the tests of cone programs share: random values, a problem with its values, and a forward pass without Clarabel."""

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
