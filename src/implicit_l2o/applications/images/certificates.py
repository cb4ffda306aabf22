"""The distance of an equilibrium to those of the training images, by its channels alone."""

from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.digits.certificates import LatentDistance


@dataclass(frozen=True, eq=False)
class ChannelDistance(il2o.AbstractMeasure):
    """`LatentDistance` of the equilibrium's mean over the image, one number a channel.

    As K. Lee et al. (NeurIPS 2018) have it; it is fitted by `LatentDistance.fit` to those means. Over all entries of a
    latent of 4,096 the matrix alone would weigh 67 MB, a hundred times the network.

    Args:
        whitening: `(channels, channels)`, see `LatentDistance`.
        means: `(10, channels)`.
    """

    whitening: Float[Tensor, "channels channels"]
    means: Float[Tensor, "classes channels"]
    name: str = field(default="latent distance", kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The distance, per sample."""
        if inference.z is None:
            raise ValueError(f"'{self.name}' needs the latent equilibrium z.")
        channels = replace(inference, z=inference.z.mean((2, 3)))
        return LatentDistance(self.whitening, self.means, name=self.name)(channels)
