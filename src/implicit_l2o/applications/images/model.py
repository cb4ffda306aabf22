"""The classifier `y = S(u*)`, `u* = R(u*; Q(d))`, after Wu Fung et al., JFB (AAAI 2022), sections 2 and 5."""

from typing import final

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.images.architecture import DIGITS, AbstractArchitecture
from implicit_l2o.applications.images.latent import AbstractContraction, RestrictableMap
from implicit_l2o.applications.images.proven import Proven

TOLERANCE = 1e-2  # absolute, on |R(u) - u|


@final
class ImageClassifier(nn.Module):
    """An image classifier whose hidden layer is the solution of an equation that has one.

    Args:
        architecture: sizes, encoder and readout: `DIGITS`, `MNIST`, `SVHN`, `CIFAR10`, `CIFAR10_AUGMENTED` or your own.
        contraction: why the equation has one solution: `Proven`, `Estimated` or `Monotone`; None takes `Proven()`.
        seed: of the weights; PyTorch's own random state is left as it was.
        solver: None takes Picard iteration to `|R(u) - u| <= 1e-2`, absolute, Euclidean over the whole latent.
        backward: None takes `JFB()`.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.images import MNIST, ImageClassifier, Proven
        >>> net = ImageClassifier(MNIST, contraction=Proven(0.5), seed=0).eval()
        >>> sum(parameter.numel() for parameter in net.parameters())
        35856
        >>> inference = net(torch.zeros(2, 1, 28, 28))
        >>> inference.x.shape, [il2o.Status(int(status)).name for status in inference.status]
        (torch.Size([2, 10]), ['CONVERGED', 'CONVERGED'])
    """

    def __init__(
        self,
        architecture: AbstractArchitecture = DIGITS,
        *,
        contraction: AbstractContraction | None = None,
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
        contraction = Proven() if contraction is None else contraction
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.Q = architecture.encoder()
            self.R = contraction.build(architecture.channels, architecture.latent_side, architecture.blocks)
            self.S = architecture.readout()
        # A step on a CPU is some 5 % faster so (docs/applications/images.md); the overload is missing in PyTorch's types.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def latent_map(self, images: Num[Tensor, "B colours side side"]) -> RestrictableMap:
        """`T = R(.; Q(d))`, its weights normalised once for the whole solve, which autocast does not reach.

        In training mode an `Estimated` contraction learns of the batch first.
        """
        injection = self.Q(images)
        with torch.autocast(images.device.type, enabled=False):
            injection = injection.to(self.S.linear.weight.dtype)
            if self.training:
                self.R.regulate(injection)
            return self.R.condition(injection)

    def start(self, images: Num[Tensor, "B colours side side"]) -> Float[Tensor, "B channels latent_side latent_side"]:
        """The zeros that the solve begins with."""
        side = self.architecture.latent_side
        zeros = self.S.linear.weight.new_zeros(len(images), self.architecture.channels, side, side)
        return zeros.contiguous(memory_format=torch.channels_last)  # as the latent map's values, lest these be copied

    def readout(self, z: Float[Tensor, "B channels latent_side latent_side"]) -> Float[Tensor, "B 10"]:
        """`S(z)`, the logits; autocast does not reach them, for the certificates bound their error."""
        with torch.autocast(z.device.type, enabled=False):
            return self.S(z)

    def forward(self, images: Num[Tensor, "B colours side side"]) -> il2o.Inference:
        """The logits `x` and the equilibrium `z` that they were read from, for bytes or intensities in [0, 1].

        The logits carry the gradient of the backward mode.
        """
        point = il2o.fixed_point(
            self.latent_map(images), self.start(images), solver=self.solver, backward=self.backward
        )
        return il2o.Inference(
            x=self.readout(point.z),
            z=point.z,
            status=point.status,
            residual=point.residual,
            steps=point.steps,
            data=images,
        )
