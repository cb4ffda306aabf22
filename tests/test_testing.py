"""The shipped contract checks catch the mistakes that they name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o import testing
from implicit_l2o._batch import VECTOR

X = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 3


@dataclass(frozen=True, eq=False)
class Set(il2o.AbstractSet):
    map: Callable[[Tensor], Tensor]

    def project(self, x: Tensor) -> Tensor:
        return self.map(x)


@dataclass(frozen=True, eq=False)
class Forgotten(il2o.AbstractSet):
    upper: Tensor  # per sample without saying so: restrict cannot know

    def project(self, x: Tensor) -> Tensor:
        return x.minimum(self.upper)


@dataclass(frozen=True, eq=False)
class Function(il2o.AbstractFunction):
    map: Callable[[Tensor, Any], Tensor]
    of: Callable[[Tensor], Tensor]

    def prox(self, x: Tensor, step: Any) -> Tensor:
        return self.map(x, step)

    def value(self, x: Tensor) -> Tensor:
        return self.of(x)


@dataclass(frozen=True, eq=False)
class Smooth(il2o.AbstractSmooth):
    gradient: Callable[[Tensor], Tensor]
    of: Callable[[Tensor], Tensor]
    bound: float

    @property
    def lipschitz(self) -> float:
        return self.bound

    def apply(self, x: Tensor) -> Tensor:
        return self.gradient(x)

    def value(self, x: Tensor) -> Tensor:
        return self.of(x)


@dataclass(frozen=True, eq=False)
class Linear(il2o.AbstractLinearOperator):
    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    bound: float = 1.0

    in_shape = (3,)
    out_shape = (3,)

    @property
    def norm_bound(self) -> float:
        return self.bound

    def apply(self, x: Tensor) -> Tensor:
        return self.there(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.back(y)


def soft(x: Tensor, threshold: Any) -> Tensor:
    return il2o.L1Norm().prox(x, threshold)


def simplex_of_the_batch(x: Tensor) -> Tensor:
    return il2o.Simplex().project(x.reshape(1, -1)).reshape(x.shape)


SETS = {
    "twice": Set(lambda x: 0.5 * x),
    "variational": Set(lambda x: torch.cat([x[:, :1], x[:, :1], 0 * x[:, :1]], -1)),  # an oblique projection
    "restricted to samples": Set(simplex_of_the_batch),
    "float32": Set(lambda x: x.float()),
    "NaN sample must be NaN": Set(lambda x: torch.where(torch.isnan(x), 0.0, x)),
    "metadata": Forgotten(torch.arange(4.0, dtype=torch.float64)[:, None]),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("law", SETS)
def test_a_broken_set_is_caught(law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        testing.check_set(SETS[law], X)


FUNCTIONS = {
    "minimise": Function(lambda x, step: soft(x, 2 * step), lambda x: x.abs().sum(-1)),
    "firm": Function(lambda x, step: -x, lambda x: x.abs().sum(-1)),
    "convex": Function(lambda x, step: x, lambda x: -x.square().sum(-1)),
    "one number a sample": Function(lambda x, step: x, lambda x: x),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("law", FUNCTIONS)
def test_a_broken_function_is_caught(law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        testing.check_function(FUNCTIONS[law], X, 0.7)


SMOOTH = {
    "gradient of value": Smooth(lambda x: x, lambda x: x.square().sum(-1), 2.0),
    "lipschitz": Smooth(lambda x: 2 * x, lambda x: x.square().sum(-1), 1.9),
    "convex": Smooth(lambda x: -2 * x, lambda x: -x.square().sum(-1), 2.0),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("law", SMOOTH)
def test_a_broken_cost_is_caught(law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        testing.check_smooth(SMOOTH[law], X)


LINEAR = {
    "must equal": Linear(lambda x: x, lambda y: 0.5 * y),
    "linear": Linear(lambda x: x.abs(), lambda y: y),
    "norm_bound": Linear(lambda x: 2 * x, lambda y: 2 * y, bound=1.9),
    "shape": Linear(lambda x: x[:, :2], lambda y: y),
    "derivative": Linear(lambda x: x.detach() + 0 * x, lambda y: y),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("law", LINEAR)
def test_a_broken_linear_operator_is_caught(law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        testing.check_linear_operator(LINEAR[law])


def test_the_message_names_sample_and_figures() -> None:
    with pytest.raises(AssertionError, match=r"Set: projecting twice .*; sample 0 is off by \d.*, permitted \d"):
        testing.check_set(Set(lambda x: 0.5 * x), X)
    with pytest.raises(ValueError, match="at least 2 samples; got 1"):
        testing.check_batch(il2o.Free(), X[:1], lambda set_, x: set_.project(x))


def test_a_declared_per_sample_field_passes() -> None:
    @dataclass(frozen=True, eq=False)
    class Upper(il2o.AbstractSet):
        upper: Tensor = field(metadata=VECTOR)

        def project(self, x: Tensor) -> Tensor:
            return x.minimum(self.upper)

    testing.check_set(Upper(torch.arange(4.0, dtype=torch.float64)[:, None]), X)
