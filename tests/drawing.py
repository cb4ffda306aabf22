"""How a line of the operators' table is drawn: random parameters, shared or one a sample, and points."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

N = 5  # entries of a sample, where nothing else is said
Size = int | Literal["B"]


@dataclass(frozen=True)
class Draw:
    """A random tensor of given sizes, "B" standing for the batch."""

    sizes: tuple[Size, ...]
    positive: bool = False

    def __call__(self, dtype: torch.dtype, batch: int, generator: torch.Generator) -> Tensor:
        shape = [batch if size == "B" else size for size in self.sizes]
        tensor = torch.randn(shape, dtype=torch.float64, generator=generator)
        return (tensor.abs() + 0.3 if self.positive else tensor).to(dtype)

    @property
    def per_sample(self) -> bool:
        return "B" in self.sizes


def normal(*sizes: Size) -> Draw:
    return Draw(sizes)


def positive(*sizes: Size) -> Draw:
    return Draw(sizes, positive=True)


@dataclass(frozen=True)
class OperatorCase:
    name: str
    make: Callable[..., Any]
    draws: tuple[Draw, ...] = ()
    shape: tuple[int, ...] = (N,)
    oracle: Callable[..., np.ndarray] | None = None  # (x, *parameters of one sample) -> projection or prox at step 0.7

    def parameters(self, dtype: torch.dtype = torch.float64, batch: int = 3, seed: int = 0) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [draw(dtype, batch, generator) for draw in self.draws]

    def build(self, dtype: torch.dtype = torch.float64, batch: int = 3) -> Any:
        return self.make(*self.parameters(dtype, batch))

    def points(self, dtype: torch.dtype = torch.float64, batch: int = 3, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return (2 * torch.randn(batch, *self.shape, dtype=torch.float64, generator=generator)).to(dtype)

    def __str__(self) -> str:
        return self.name
