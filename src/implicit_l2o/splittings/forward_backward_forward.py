"""Tseng's forward-backward-forward splitting (Tseng 2000): a game's `F` need not be cocoercive."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._batch import SCALAR
from implicit_l2o.operators.base import Scalar
from implicit_l2o.problem import Problem
from implicit_l2o.splittings.base import (
    AbstractSplitting,
    Step,
    lipschitz,
    quasi_averagedness,
    require_absent,
    two_step,
)


@dataclass(frozen=True, eq=False)
class ForwardBackwardForward(AbstractSplitting):
    """`T(z) = y - step (F(y) - F(z))` with `y = prox_{step g}(z - step F(z))`, readout `y`; solves `0 in F(x) + dg(x)`.

    `F` is monotone and `L`-Lipschitz: the pseudo-gradient of a matrix game, on which `ForwardBackward` diverges. A step
    costs two values of `F` and one prox. The answer lies in the domain of `g` exactly.

    **Relaxations.** Against its fixed points `z*`, `|T(z) - z*|^2 <= |z - z*|^2 - (1 - step^2 L^2) |z - y|^2` (Tseng, lemma
    3.1), and `|T(z) - z| <= (1 + step L) |z - y|`. Together they are the inequality of an `a`-averaged map with
    `a = (1 + step L) / 2`, and relaxed iterations need it for fixed points alone: relaxations below `1/a = 2 / (1 + step L)`
    are safe. Where `F` is affine, as in a matrix game, the same holds between any two points. In general it does not: `T`
    need not even be nonexpansive.

    Args:
        problem: `F` monotone and Lipschitz, and `g`; no `h`, `K`, `l`.
        step: in `(0, 1/L)`, a number or per sample `(B,)`; `"auto"` takes `1 / (sqrt(2) L)`, the fastest for a rotation.

    Raises:
        ValueError: a term or the step is outside what the theorem allows; `F` states no Lipschitz constant.

    Source: Tseng, A modified forward-backward splitting method for maximal monotone mappings, 2000, theorem 3.4.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> pennies = il2o.BilinearGame(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))  # matching pennies
        >>> strategies = il2o.ProductSet((il2o.Simplex(), il2o.Simplex()), sizes=(2, 2))
        >>> game = il2o.ForwardBackwardForward(il2o.Problem(F=pennies, g=strategies))
        >>> il2o.solve(game, torch.tensor([[0.9, 0.1, 0.3, 0.7]])).x.round(decimals=2)
        tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """

    problem: Problem
    step: Step = "auto"
    step_size: Scalar = field(init=False, metadata=SCALAR)  # the step in use
    constant: Scalar = field(init=False, metadata=SCALAR)  # L

    def __post_init__(self) -> None:
        require_absent("ForwardBackwardForward", self.problem, "h", "K", "l")
        constant = lipschitz("ForwardBackwardForward", self.problem)
        object.__setattr__(self, "constant", constant)
        object.__setattr__(self, "step_size", two_step("ForwardBackwardForward", self.step, constant, "1/L"))

    @property
    def averagedness(self) -> float:
        """`(1 + step L) / 2`, against fixed points."""
        return quasi_averagedness(self.step_size, self.constant)

    def init(self, x0: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`z0 = x0`."""
        self.check_batch(x0, type(self).__name__)
        return x0

    def __call__(self, z: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """One forward-backward step, and the correction by what `F` changed."""
        F = self.problem.F
        if F is None:
            return self._backward(z)
        step, slope = _batch.expand(self.step_size, z), F.apply(z)
        y = self._backward(z - step * slope)
        return y - step * (F.apply(y) - slope)

    def readout(self, z: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`y`, in the domain of `g`."""
        if self.problem.F is None:
            return self._backward(z)
        return self._backward(z - _batch.expand(self.step_size, z) * self.problem.F.apply(z))

    def infeasible(self, z: Float[Tensor, "B *shape"]) -> Bool[Tensor, " B"]:
        """Never: one set alone is not empty."""
        return torch.zeros(z.shape[0], dtype=torch.bool, device=z.device)

    def _backward(self, z: Tensor) -> Tensor:
        return z if self.problem.g is None else self.problem.g.prox(z, self.step_size)
