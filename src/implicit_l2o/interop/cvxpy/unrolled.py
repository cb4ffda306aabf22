"""A fixed number of applications of the splitting, and the derivative through them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_l2o.interop.cvxpy.rules import AbstractRule, Term, derivative, of_readout, pull_back
from implicit_l2o.interop.cvxpy.splitting import ConicSplitting


@dataclass(frozen=True, eq=False)
class Unrolling:
    """`z_k = T(... T(z_0))`, with every `every`-th iterate kept.

    The weights of the splitting, which come of the sizes of P and A, are taken as constants.

    Attributes:
        splitting: the map.
        kept: `z_0`, `z_every`, ... before `z_steps`.
        last: `z_steps`.
        steps: how many applications.
        every: iterates from one that is kept to the next.
    """

    splitting: ConicSplitting
    kept: tuple[Float[Tensor, "B latent"], ...]
    last: Float[Tensor, "B latent"]
    steps: int
    every: int

    @classmethod
    @torch.no_grad()
    def of(cls, splitting: ConicSplitting, z: Float[Tensor, "B latent"], steps: int, every: int) -> "Unrolling":
        """Apply the map."""
        kept = []
        for step in range(steps):
            if step % every == 0:
                kept.append(z)
            z = splitting(z)
        return cls(splitting, tuple(kept), z, steps, every)

    def restrict(self, index: Int[Tensor, " k"]) -> "Unrolling":
        """For some samples."""
        kept = tuple(z[index] for z in self.kept)
        return Unrolling(self.splitting.restrict(index), kept, self.last[index], self.steps, self.every)

    def segment(self, number: int) -> list[Float[Tensor, "B latent"]]:
        """The iterates from the one that is kept at this place to the next, both included."""
        z = self.kept[number]
        out = [z]
        for _ in range(min(self.every, self.steps - number * self.every)):
            z = self.splitting(z)
            out.append(z)
        return out


@dataclass(frozen=True, eq=False)
class UnrolledRule(AbstractRule):
    """The derivative of all applications: one term for each."""

    unrolling: Unrolling

    @torch.no_grad()
    def __call__(self, of_x: np.ndarray, of_y: np.ndarray) -> tuple[list[Term], np.ndarray]:
        """From the last application back to the first."""
        u, s, n = self.unrolling, self.unrolling.splitting, of_x.shape[1]
        cotangent = of_readout(s, derivative(s.cones, u.last[:, n:].numpy()), of_x, of_y)
        terms = []
        for number in reversed(range(len(u.kept))):
            iterates = u.segment(number)
            for before, after in zip(reversed(iterates[:-1]), reversed(iterates[1:]), strict=True):
                D = derivative(s.cones, before[:, n:].numpy())
                cotangent, a, c = pull_back(s, D, cotangent)
                # Away from a fixed point the multipliers of the step are those of its own two ends.
                y = s.rho * (s.cones.project(before[:, n:]) - after[:, n:])
                terms.append(Term(a, c, after[:, :n].numpy(), y.numpy()))
        return terms, np.zeros(len(of_x))
