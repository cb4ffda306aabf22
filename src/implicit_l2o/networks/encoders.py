"""Encoders: from raw data d to the vector that conditions a problem."""

import itertools
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class MLP(nn.Module):
    """Fully connected layers with a nonlinearity between them; the last layer is affine.

    Args:
        widths: `(inputs, hidden, ..., outputs)`, at least two.
        activation: elementwise `nn.Module` between the layers, `nn.ReLU()` by default.

    Raises:
        ValueError: fewer than two widths, or one that is not positive.

    Example:
        >>> import torch
        >>> from implicit_l2o.networks import MLP
        >>> MLP((3, 16, 2))(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, widths: Sequence[int], *, activation: nn.Module | None = None) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"MLP needs at least two positive widths; got {tuple(widths)}.")
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU() if activation is None else activation]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, d: Float[Tensor, "B inputs"]) -> Float[Tensor, "B outputs"]:
        """The encoded contexts."""
        return self.layers(d)
