"""The readout `S`: from the equilibrium to the logits, with a proven Lipschitz constant."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o.applications.images.blocks import SLOPE
from implicit_l2o.networks import conv2d_norm_bound, dense_norm_bound

CLASSES = 10


@final
class Readout(nn.Module):
    """A 3x3 convolution, the leaky rectifier, dropout and a linear map without bias; before them maybe a normalisation.

    Args:
        channels: of the latent.
        hidden: channels after the convolution.
        side: height and width of the latent.
        stride: of the convolution.
        padding: of the convolution.
        dropout: of single entries or of whole channels.
        normalise: whether a batch normalisation with weights stands first.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.images.readout import Readout
        >>> Readout(4, 16, 5, dropout=torch.nn.Dropout(0.1))(torch.zeros(2, 4, 5, 5)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        side: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dropout: nn.Module,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.side = side
        self.normalisation = nn.BatchNorm2d(channels) if normalise else None
        self.convolution = nn.Conv2d(channels, hidden, 3, stride=stride, padding=padding)
        self.dropout = dropout
        after = (side + 2 * padding - 3) // stride + 1
        self.linear = nn.Linear(hidden * after**2, CLASSES, bias=False)

    def forward(self, u: Float[Tensor, "B channels side side"]) -> Float[Tensor, "B 10"]:
        """The logits."""
        if self.normalisation is not None:
            u = self.normalisation(u)
        return self.linear(self.dropout(F.leaky_relu(self.convolution(u), SLOPE)).flatten(1))

    @torch.no_grad()
    def lipschitz(self) -> float:
        """A proven `L_S` with `|S(u) - S(w)| <= L_S |u - w|` in evaluation mode; the rectifier's is 1."""
        bound = float(conv2d_norm_bound(self.convolution.weight, (self.side, self.side)))
        bound *= float(dense_norm_bound(self.linear.weight))
        normalisation = self.normalisation
        if normalisation is not None:
            assert normalisation.running_var is not None
            scale = normalisation.weight.double() / (normalisation.running_var.double() + normalisation.eps).sqrt()
            bound *= float(scale.abs().max())
        return bound * (1 + 1e-6)  # the rounding of the products above, and of a normalisation in float32
