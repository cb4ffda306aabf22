"""The implicit models' own network as a denoiser, for plug-and-play: what it gives if it never sees a sinogram."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o.applications.ct.context import ContextNetwork
from implicit_l2o.applications.ct.regularisers import AbstractRegulariser


@final
class NetworkDenoiser(nn.Module):
    """`x - F(x; x)`, one step along a regulariser `F` whose context is read off the noisy image itself.

    Context network and regulariser are those of `ImplicitReconstruction`; what comes from the sinogram there (filtered
    back-projection, misfit) is zero here.

    Args:
        regulariser: one of the three.
        width: of the context network.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.network_denoiser import NetworkDenoiser
        >>> from implicit_l2o.applications.ct.regularisers import FreeNetwork
        >>> NetworkDenoiser(FreeNetwork((16, 16)))(torch.rand(2, 1, 16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(self, regulariser: AbstractRegulariser, *, width: int = 16) -> None:
        super().__init__()
        self.regulariser = regulariser
        self.context = ContextNetwork(maps=regulariser.maps, width=width)

    def forward(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        """The denoised images."""
        nothing = torch.zeros_like(x)
        proposal, maps = self.context(torch.cat([x, nothing, nothing], dim=1))
        return x - self.regulariser.condition(proposal, maps).apply(x)
