"""The classifier `y = S(u*)`, `u* = R(u*, Q(d))`, after Wu Fung et al., JFB (AAAI 2022), sections 2 and 5.

The paper keeps `R` contractive by a Lipschitz estimate in one random direction and has batch normalisation inside `R`.
Here the contraction is proven for all weights, and each sample is solved by itself.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.networks import (
    AveragedMap,
    AveragedNet,
    NonexpansiveConvNet,
    conv2d_norm_bound,
    dense_norm_bound,
)

CLASSES = 10
TOLERANCE = 1e-2  # absolute, on |R(u) - u|
_HIDDEN = 16  # channels of the first encoder layer and of the readout
_SLOPE = 0.1


@dataclass(frozen=True, eq=False)
class LatentMap:
    """`R(u; v) = gamma A(u + v)` with `A` averaged: `|R(u; v) - R(w; v)| <= gamma |u - w|`, so one fixed point.

    Args:
        averaged: `A(x) = (x + N(x)) / 2` with `N` nonexpansive: a residual block.
        injection: `v`, the encoded image, `(B, channels, side, side)`.
        contraction: `gamma`.
    """

    averaged: AveragedMap
    injection: Float[Tensor, "B channels side side"]
    contraction: float

    def __call__(self, u: Float[Tensor, "B channels side side"]) -> Float[Tensor, "B channels side side"]:
        """`R(u; v)`, per sample."""
        return self.contraction * self.averaged(u + self.injection)

    def restrict(self, index: Int[Tensor, " k"]) -> "LatentMap":
        """The map of the samples `index` alone: lets the solver drop finished samples."""
        return replace(self, injection=self.injection[index])


@dataclass(frozen=True)
class Architecture:
    """Sizes of the classifier; `MNIST` has those of the paper, `DIGITS` those of the 8x8 digits.

    Args:
        side: height and width of the images, pixels.
        channels: of the latent `u`; even.
        pool: factor by which `Q` reduces the side.
        contraction: the proven factor `gamma` of `R` in `u`, in (0, 1).
        dropout: share of the readout's channels that is dropped in training.

    Raises:
        ValueError: an image too small for the pooling and the readout, or `contraction` outside (0, 1).
    """

    side: int = 8
    channels: int = 8
    pool: int = 1
    contraction: float = 0.8
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.latent_side < 3:
            raise ValueError(
                f"the readout's 3x3 convolution needs side // pool >= 3; got side={self.side}, pool={self.pool}."
            )
        if not 0 < self.contraction < 1:
            raise ValueError(f"Architecture needs 0 < contraction < 1; got contraction={self.contraction}.")

    @property
    def latent_side(self) -> int:
        """Height and width of the latent."""
        return self.side // self.pool


DIGITS = Architecture()
MNIST = Architecture(side=28, channels=32, pool=3, contraction=0.5, dropout=0.2)


class ImplicitClassifier(nn.Module):
    """An image classifier whose hidden layer is the fixed point of a contraction.

    `Q`: two convolutions with batch normalisation and a max-pooling between them; `R`: one residual block; `S`: a
    convolution and a linear map. With the sizes `MNIST` it has the paper's 35,856 parameters.

    Args:
        architecture: the sizes.
        seed: of the weights; PyTorch's own random state is left as it was.
        solver: None takes Picard iteration to `|R(u) - u| <= 1e-2`, absolute, Euclidean over the whole latent.
        backward: None takes `JFB()`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.digits.model import MNIST, ImplicitClassifier
        >>> net = ImplicitClassifier(MNIST, seed=0).eval()
        >>> sum(parameter.numel() for parameter in net.parameters())
        35856
        >>> inference = net(torch.zeros(2, 1, 28, 28))
        >>> inference.x.shape, [il2o.Status(int(status)).name for status in inference.status]
        (torch.Size([2, 10]), ['CONVERGED', 'CONVERGED'])
    """

    def __init__(
        self,
        architecture: Architecture = DIGITS,
        *,
        seed: int,
        solver: il2o.AbstractFixedPointSolver | None = None,
        backward: il2o.AbstractBackward | None = None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.backward = backward
        self.solver: il2o.AbstractFixedPointSolver = (
            il2o.KrasnoselskiiMann(il2o.Stopping(atol=TOLERANCE, rtol=0.0, max_steps=200)) if solver is None else solver
        )
        channels, pool, side = architecture.channels, architecture.pool, architecture.latent_side
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.Q = nn.Sequential(
                nn.Conv2d(1, _HIDDEN, 3, padding=1),
                nn.BatchNorm2d(_HIDDEN),
                nn.LeakyReLU(_SLOPE),
                nn.MaxPool2d(pool),
                nn.Conv2d(_HIDDEN, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.LeakyReLU(_SLOPE),
            )
            self.R = AveragedNet(NonexpansiveConvNet((channels, channels, channels), shape=(side, side)))
            self.S_convolution = nn.Conv2d(channels, _HIDDEN, 3)
            self.S_linear = nn.Linear(_HIDDEN * (side - 2) ** 2, CLASSES, bias=False)

    def latent_map(self, images: Float[Tensor, "B 1 side side"]) -> LatentMap:
        """`R(.; Q(d))`, its weights normalised once for the whole solve, which autocast does not reach."""
        injection = self.Q(images)
        with _without_autocast(images.device):
            injection = injection.to(self.S_linear.weight.dtype)
            return LatentMap(self.R.condition(), injection, self.architecture.contraction)

    def readout(self, u: Float[Tensor, "B channels side side"]) -> Float[Tensor, "B 10"]:
        """`S(u)`, the logits; autocast does not reach them, for the certificates bound their error."""
        with _without_autocast(u.device):
            hidden = F.leaky_relu(self.S_convolution(u), _SLOPE)
            return self.S_linear(F.dropout2d(hidden, self.architecture.dropout, self.training).flatten(1))

    def forward(self, images: Float[Tensor, "B 1 side side"]) -> il2o.Inference:
        """The logits `x` and the equilibrium `z` that they were read from, for intensities in [0, 1].

        The logits carry the gradient of the backward mode.
        """
        latent_map = self.latent_map(images)
        start = torch.zeros_like(latent_map.injection)
        point = il2o.fixed_point(latent_map, start, solver=self.solver, backward=self.backward)
        return il2o.Inference(
            x=self.readout(point.z),
            z=point.z,
            status=point.status,
            residual=point.residual,
            steps=point.steps,
            data=images,
        )

    @torch.no_grad()
    def readout_lipschitz(self) -> float:
        """A proven `L_S` with `|S(u) - S(w)| <= L_S |u - w|` in evaluation mode (the activation is 1-Lipschitz)."""
        side = self.architecture.latent_side
        convolution = float(conv2d_norm_bound(self.S_convolution.weight, (side, side)))
        return math.nextafter(convolution * float(dense_norm_bound(self.S_linear.weight)), math.inf)


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """`torch.export` gets no region without autocast: it runs what it traces in the dtypes that it saw."""
    return nullcontext() if torch.compiler.is_exporting() else torch.autocast(device.type, enabled=False)
