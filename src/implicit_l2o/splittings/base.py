"""What a splitting is: an averaged map `T` and the readout `R`, made from a problem."""

import math
from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_l2o._batch import Batched
from implicit_l2o.operators.base import Scalar
from implicit_l2o.problem import Problem

Step: TypeAlias = Scalar | Literal["auto"]


class AbstractSplitting(Batched, ABC):
    """An operator `T` whose fixed points `z` give the solutions `x = R(z)` of a problem.

    `z` is the governing sequence, duals included, always one tensor `(B, ...)`; `x` is the answer. The two are never
    confused: the splitting owns both maps.
    """

    problem: Problem

    @property
    @abstractmethod
    def averagedness(self) -> float:
        """An `a` in (0, 1) such that `T` is `a`-averaged (in the splitting's metric): relaxations below `1 / a` are safe."""

    @abstractmethod
    def init(self, x0: Float[Tensor, "B *shape"]) -> Tensor:
        """The starting `z` for a starting guess `x0`; checks that the problem fits `x0`."""

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        """`T(z)`."""

    @abstractmethod
    def readout(self, z: Tensor) -> Float[Tensor, "B *shape"]:
        """The answer `x = R(z)`."""

    @abstractmethod
    def infeasible(self, z: Tensor) -> Bool[Tensor, " B"]:
        """Samples whose constraint sets provably have no common point near `z` (see `separated`)."""
