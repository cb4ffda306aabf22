"""The monotone operator equilibrium network: one solution for all weights, found by forward-backward splitting.

    z = max(W z + v, 0),    W = (1 - m) I - A^T A + B - B^T

with zero-padded convolutions `A`, `B` of several channels (Winston and Kolter, Monotone operator equilibrium networks,
NeurIPS 2020). It is the zero of `(I - W) z - v + dg(z)`, `g` the indicator of `z >= 0`, and `I - W >= m I`: the peer whose
convergence is guaranteed. The paper leaves the norms of `A` and `B` open and tunes the step; here `A` and `S = B - B^T` are
divided by proven bounds of their norms where those exceed 1, and the step and its rate follow from the bounds.
"""

import math
from dataclasses import dataclass, field
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.images.latent import AbstractContraction, AbstractLatent
from implicit_l2o.networks import conv2d_norm_bound


@final
@dataclass(frozen=True, eq=False)
class MonotoneConvolution(il2o.AbstractMonotone):
    """`F(z) = m z + A^T A z - S z - v` with zero-padded convolutions `A` and `S = -S^T`: `m`-strongly monotone.

    With `H = m I + A^T A`, whose spectrum lies in `[m, m + a^2]`, and `<z, S z> = 0`, for every step `t`
    `|(I - t (H - S)) z|^2 <= (q(t)^2 + t^2 k) |z|^2`, `q(t) = max(|1 - t m|, |1 - t (m + a^2)|)`, `k = s^2 + a^2 s`:
    the cross term is `2 t^2 <(H - c I) z, S z>` for `c = m + a^2 / 2`. So the forward step is nonexpansive for `t <= 2 beta`
    with `beta` the smaller of `h / (h^2 + k)` over `h = m` and `h = m + a^2`, which makes `F` `beta`-cocoercive: it is
    affine, and `|I - 2 beta M| <= 1` says `<M z, z> >= beta |M z|^2`.

    Args:
        gram: kernel of `A`, `(channels, channels, k, k)`.
        skew: kernel of `S`, of the same shape.
        injection: `v`, `(B, channels, H, W)`.
        margin: `m > 0`.
        gram_norm: a bound `a` of `|A|`.
        skew_norm: a bound `s` of `|S|`.
    """

    gram: Tensor
    skew: Tensor
    injection: Tensor = field(metadata=il2o.DATA)
    margin: float
    gram_norm: float
    skew_norm: float

    @property
    def lipschitz(self) -> float:
        """`m + a^2 + s`."""
        return self.margin + self.gram_norm**2 + self.skew_norm

    @property
    def cocoercivity(self) -> float:
        """`beta`, see above."""
        coupling = self.skew_norm**2 + self.gram_norm**2 * self.skew_norm
        return min(h / (h**2 + coupling) for h in (self.margin, self.margin + self.gram_norm**2))

    @property
    def strong_monotonicity(self) -> float:
        """`m`."""
        return self.margin

    def forward_factor(self, step: float) -> float:
        """A proven bound of `|I - step (H - S)|`: how much forward-backward with this step contracts."""
        coupling = self.skew_norm**2 + self.gram_norm**2 * self.skew_norm
        q = max(abs(1 - step * h) for h in (self.margin, self.margin + self.gram_norm**2))
        return math.nextafter(math.sqrt(q**2 + step**2 * coupling), math.inf)

    def apply(self, x: Float[Tensor, "B channels H W"]) -> Float[Tensor, "B channels H W"]:
        """`F(x)`, per sample."""
        # One convolution for A and S, and one for A^T, which is the convolution with the flipped kernel.
        both = F.conv2d(x, torch.cat([self.gram, self.skew]), padding="same")
        image, rotated = both.split(len(self.gram), dim=1)
        return self.margin * x + F.conv2d(image, flipped(self.gram), padding="same") - rotated - self.injection


def flipped(kernel: Float[Tensor, "out in k k2"]) -> Float[Tensor, "in out k k2"]:
    """The kernel of the adjoint of a zero-padded convolution of odd size.

    Example:
        >>> import torch
        >>> import torch.nn.functional as F
        >>> from implicit_l2o.applications.images.monotone import flipped
        >>> kernel, x, y = torch.randn(3, 2, 3, 3), torch.randn(1, 2, 5, 5), torch.randn(1, 3, 5, 5)
        >>> left = (F.conv2d(x, kernel, padding=1) * y).sum()
        >>> torch.allclose(left, (x * F.conv2d(y, flipped(kernel), padding=1)).sum(), atol=1e-4)
        True
    """
    return kernel.transpose(0, 1).flip(2, 3)


@final
@dataclass(frozen=True)
class Monotone(AbstractContraction):
    """`z = max(W z + v, 0)` with `I - W >= m I` for all weights, iterated by `ForwardBackward` with a proven rate.

    Args:
        margin: `m`, positive.

    Raises:
        ValueError: the margin is not positive and finite.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.images.monotone import Monotone
        >>> latent = Monotone(1.0).build(channels=4, side=5, blocks=1)
        >>> T = latent.condition(torch.randn(2, 4, 5, 5))
        >>> il2o.fixed_point(T, torch.zeros(2, 4, 5, 5)).converged.tolist(), latent.proven_factor() < 0.82
        ([True, True], True)
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.margin < math.inf:
            raise ValueError(f"Monotone needs 0 < margin < inf; got margin={self.margin}.")

    def build(self, channels: int, side: int, blocks: int) -> AbstractLatent:
        """One operator, whatever `blocks`."""
        return MonotoneLatent(channels, side, self.margin)


@final
class MonotoneLatent(AbstractLatent):
    """See `Monotone`."""

    def __init__(self, channels: int, side: int, margin: float) -> None:
        super().__init__()
        self.shape = (side, side)
        self.margin = margin
        self.gram = nn.Parameter(nn.Conv2d(channels, channels, 3, bias=False).weight.detach())
        self.skew = nn.Parameter(nn.Conv2d(channels, channels, 3, bias=False).weight.detach())
        self.bias = nn.Parameter(torch.zeros(channels))

    def condition(self, injection: Float[Tensor, "B channels side side"]) -> il2o.ForwardBackward:
        """See `AbstractLatent`."""
        operator = self._operator(injection + self.bias[:, None, None])
        return il2o.ForwardBackward(il2o.Problem(F=operator, g=il2o.NonnegativeOrthant()))

    def regulate(self, injection: Float[Tensor, "B channels side side"]) -> None:
        """Nothing: the bounds hold for all weights."""

    @torch.no_grad()
    def proven_factor(self) -> float:
        """That of the forward step, for projecting on `z >= 0` moves no points apart."""
        operator = self._operator(self.bias.new_zeros(1, len(self.bias), *self.shape))
        return operator.forward_factor(operator.cocoercivity)

    @property
    def factor(self) -> float:
        """`proven_factor()`."""
        return self.proven_factor()

    def words(self) -> tuple[str, tuple[str, ...]]:
        """See `AbstractLatent`."""
        return (
            rf"u^\star = \max(W u^\star + Q(d), 0), \quad W = (1 - {self.margin}) I - A^\top A + B - B^\top",
            (
                f"I - W is strongly monotone with the constant {self.margin} for all weights, so every image has exactly "
                "one equilibrium u*.",
                "Forward-backward splitting finds it, with a proven rate: A and B - B^T are divided by proven bounds of "
                "their norms.",
                "Where the certificate 'solve error / label margin' passes, the label is that of the exact equilibrium.",
            ),
        )

    def _operator(self, injection: Tensor) -> MonotoneConvolution:
        kernels, norms = [], []
        for kernel in (self.gram, self.skew - flipped(self.skew)):
            bound = conv2d_norm_bound(kernel, self.shape)
            kernels.append(kernel / bound.clamp_min(1.0))
            norms.append(min(float(bound.detach()), 1.0))
        return MonotoneConvolution(
            kernels[0], kernels[1], injection, margin=self.margin, gram_norm=norms[0], skew_norm=norms[1]
        )
