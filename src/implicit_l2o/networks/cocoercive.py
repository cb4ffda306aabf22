"""A learned pseudo-gradient that is cocoercive for all weights, so that the step of a splitting is known beforehand."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o.networks.nonexpansive import AbstractNonexpansiveNet, ResidualMonotone


class CocoerciveNet(nn.Module):
    """`F(x; d) = scale (x - c N(x; d))` with `N` nonexpansive in `x` and free in `d`, and a learned scale.

    Whatever the weights, `F` is `1 / (scale (1 + c))`-cocoercive, so `DavisYin` and `ForwardBackward` converge for steps
    below `2 / (scale (1 + c))`, and on a Minkowski sum of K blocks below `2 / (K scale (1 + c))`. For `c < 1` it is also
    `scale (1 - c)`-strongly monotone: the game it stands for has one equilibrium. Proofs are with `ResidualMonotone`.

    Args:
        inner: the nonexpansive network, with as many outputs as inputs.
        contraction: `c`, in (0, 1].
        scale: at the start, positive.

    Raises:
        ValueError: an option is out of its range, or input and output widths differ.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.networks import CocoerciveNet, NonexpansiveNet
        >>> net = CocoerciveNet(NonexpansiveNet((4, 16, 4), context=3), contraction=0.75)
        >>> F = net.condition(torch.randn(2, 3))
        >>> round(float(F.cocoercivity), 4), round(float(F.strong_monotonicity), 4)
        (0.5714, 0.25)
        >>> T = il2o.DavisYin(il2o.Problem(F=F, g=il2o.Simplex()), step=1.0)  # of at most 2 * 0.5714
        >>> bool(il2o.solve(T, torch.full((2, 4), 0.25)).converged.all())
        True
    """

    def __init__(self, inner: AbstractNonexpansiveNet, *, contraction: float = 1.0, scale: float = 1.0) -> None:
        super().__init__()
        if not 0 < contraction <= 1:
            raise ValueError(f"CocoerciveNet needs 0 < contraction <= 1; got contraction={contraction}.")
        if not 0 < scale < math.inf:
            raise ValueError(f"CocoerciveNet needs 0 < scale < inf; got scale={scale}.")
        inputs, outputs = inner.weights[0].shape[1], inner.weights[-1].shape[0]
        if inputs != outputs:
            raise ValueError(
                f"CocoerciveNet needs as many outputs as inputs; got {inputs} inputs and {outputs} outputs."
            )
        self.inner = inner
        self.contraction = contraction
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def condition(self, context: Tensor | None = None) -> ResidualMonotone:
        """`F(.; context)` as an operator.

        Args:
            context: `(B, context)`, or None for an inner network built without.

        Raises:
            ValueError: a context is given to a network built without, or the reverse.
        """
        return ResidualMonotone(self.inner.condition(context), self.log_scale.exp(), self.contraction)

    def forward(self, x: Float[Tensor, "B *shape"], context: Tensor | None = None) -> Float[Tensor, "B *shape"]:
        """`F(x; context)`; inside a solver call `condition` once instead."""
        return self.condition(context).apply(x)
