"""Learned Primal-Dual: an unrolled primal-dual iteration with all its steps learned.

J. Adler and O. Oektem, Learned Primal-Dual Reconstruction, IEEE Trans. Med. Imaging 37 (2018), algorithm 3.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o.applications.ct.learned import AbstractNetworkTask
from implicit_l2o.physics import FilteredBackProjection
from implicit_l2o.training import Optimization


@final
class LearnedPrimalDualTask(AbstractNetworkTask):
    """Ten steps between image and sinogram, each with two networks of its own; no constraint holds of the answer.

    `h <- h + G_i(h, A f_2, d)`, `f <- f + L_i(f, A^T h_1)`, with `memory` channels in `f` and `h`, answer `f_1`. Here `f`
    starts at the filtered back-projection, where the paper starts at zero: in trainings of minutes worth several dB.

    Args:
        size: pixels along one side.
        angles: views.
        iterations: of the unrolled scheme.
        memory: channels of the primal and of the dual iterate, at least 2.
        width: channels of the hidden layers.
        clip: answers to [0, 1].
        optimization: AdamW and its schedule.

    Raises:
        ValueError: a count is too small.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.learned_primal_dual import LearnedPrimalDualTask
        >>> from implicit_l2o.training import count_parameters
        >>> task = LearnedPrimalDualTask()
        >>> count_parameters(task), task.infer(torch.zeros(1, 30, 93)).x.shape
        (253220, torch.Size([1, 1, 64, 64]))
    """

    def __init__(
        self,
        *,
        size: int = 64,
        angles: int = 30,
        iterations: int = 10,
        memory: int = 5,
        width: int = 32,
        clip: bool = True,
        optimization: Optimization | None = None,
    ) -> None:
        for name, value, least in (("iterations", iterations, 1), ("memory", memory, 2), ("width", width, 1)):
            if value < least:
                raise ValueError(f"LearnedPrimalDualTask needs {name} >= {least}; got {name}={value}.")
        networks = nn.ModuleDict(
            {
                "dual": nn.ModuleList(_update(memory + 2, width, memory) for _ in range(iterations)),
                "primal": nn.ModuleList(_update(memory + 1, width, memory) for _ in range(iterations)),
            }
        )
        super().__init__(networks, size=size, angles=angles, clip=clip, optimization=optimization)
        self._networks = networks
        self._fbp = FilteredBackProjection(self.projector)
        self.memory = memory

    def reconstruct(self, d: Float[Tensor, "B angles bins"]) -> Float[Tensor, "B 1 n n"]:
        """The first channel of the last primal iterate."""
        A, measured = self.projector, d[:, None]
        f = self._fbp(d).expand(-1, self.memory, -1, -1)
        h = d.new_zeros(len(d), self.memory, *A.out_shape)
        dual, primal = self._networks["dual"], self._networks["primal"]
        assert isinstance(dual, nn.ModuleList)
        assert isinstance(primal, nn.ModuleList)
        for G, L in zip(dual, primal, strict=True):
            h = h + G(torch.cat([h, A.apply(f[:, 1:2])[:, None], measured], dim=1))
            f = f + L(torch.cat([f, A.adjoint(h[:, 0])], dim=1))
        return f[:, :1]


def _update(inputs: int, width: int, outputs: int) -> nn.Module:
    """Three convolutions with parametric ReLUs, initialised as in the paper: Xavier, biases zero."""
    network = nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1),
        nn.PReLU(width, init=0.0),
        nn.Conv2d(width, width, 3, padding=1),
        nn.PReLU(width, init=0.0),
        nn.Conv2d(width, outputs, 3, padding=1),
    )
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network
