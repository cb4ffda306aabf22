"""F-FPN: a learned operator followed by a step towards the data, iterated to a fixed point.

H. Heaton, S. Wu Fung, A. Gibali and W. Yin, Feasibility-based fixed point networks, Fixed Point Theory Algorithms Sci. Eng.
(2021).
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.ct.base import ReconstructionTask
from implicit_l2o.applications.ct.learned import ResidualBlocks
from implicit_l2o.physics import FilteredBackProjection, Projector
from implicit_l2o.training import Optimization

_LARGEST_SLOPE = 0.99  # of T, along random directions


@final
class FiniteDifferenceRegulariser(nn.Module):
    """`R(u) = u + N(D u)`: residual blocks fed with periodic differences down and across, as published for the ellipses.

    Args:
        width: channels; 42 as published.
        blocks: of two convolutions.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.fpn import FiniteDifferenceRegulariser
        >>> R, u = FiniteDifferenceRegulariser(8, 2), torch.rand(1, 1, 16, 16)
        >>> bool((R(u) == u).all())  # before any training
        True
    """

    def __init__(self, width: int = 42, blocks: int = 3) -> None:
        super().__init__()
        self.network = ResidualBlocks(2, width=width, blocks=blocks)

    def forward(self, u: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        """An image of the same size."""
        return u + self.network(torch.cat([u.roll(-1, -2) - u, u.roll(-1, -1) - u], dim=1))

    @torch.no_grad()
    def shrink(self, factor: float) -> None:
        """Multiply the kernels of every layer; a factor below 1 lowers the Lipschitz constant."""
        for layer in self.network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(factor)


@final
@dataclass(frozen=True, eq=False)
class FeasibilityStep:
    """`T(u) = v - step C A^T S (A v - d)` with `v = R(u)`, `C` and `S` one over the column and the row sums of `A`.

    For `step` in (0, 2) the step towards the data is averaged in the norm of `C^-1` (SIRT; the published code has numbers
    of nonzeros in place of the column sums and no `S`, which is averaged in some units of `A` alone).

    Args:
        regulariser: `R`.
        projector: `A`.
        d: sinograms.
        columns: `C`, `(1, 1, n, n)`.
        rows: `S`, `(1, angles, bins)`.
        step: in (0, 2).
    """

    regulariser: nn.Module
    projector: Projector
    d: Float[Tensor, "B angles bins"]
    columns: Tensor
    rows: Tensor
    step: float

    def __call__(self, u: Float[Tensor, "B 1 n n"]) -> Float[Tensor, "B 1 n n"]:
        """`T(u)`."""
        v = self.regulariser(u)
        return v - self.step * self.columns * self.projector.adjoint(self.rows * (self.projector.apply(v) - self.d))

    def restrict(self, index: Int[Tensor, " k"]) -> "FeasibilityStep":
        """The same for some of the samples."""
        return FeasibilityStep(self.regulariser, self.projector, self.d[index], self.columns, self.rows, self.step)


@final
class FPNTask(ReconstructionTask):
    """F-FPN: the answer is the fixed point of a learned map; how well it fits the data is learned, not guaranteed.

    Trained by JFB. After every step the map is compared at the batch's fixed points and at points nearby; where it expands
    distances on average, all kernels are shrunk: a heuristic, no bound.

    Args:
        size: pixels along one side.
        angles: views.
        width: channels of the regulariser.
        blocks: of two convolutions each.
        tolerance: relative residual at which a sample stops, in training and to answer.
        max_steps: the most iterations.
        step: towards the data, in (0, 2). The published 1.99, in units of `A` in which it is small, would here reflect the
            mean of the image from one step to the next.
        spread: standard deviation of the points nearby.
        clip: answers to [0, 1].
        optimization: AdamW and its schedule.

    Raises:
        ValueError: as `ResidualBlocks` and `il2o.Stopping`; the step or the spread is out of range.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.fpn import FPNTask
        >>> FPNTask(size=32, angles=8, width=4, blocks=1, max_steps=5, tolerance=1.0).infer(torch.ones(1, 8, 47)).x.shape
        torch.Size([1, 1, 32, 32])
    """

    def __init__(
        self,
        *,
        size: int = 64,
        angles: int = 30,
        width: int = 42,
        blocks: int = 3,
        tolerance: float = 5e-3,
        max_steps: int = 100,
        step: float = 1.0,
        spread: float = 0.05,
        clip: bool = True,
        optimization: Optimization | None = None,
    ) -> None:
        if not 0 < step < 2:
            raise ValueError(f"FPNTask needs 0 < step < 2; got step={step}.")
        if not spread > 0:
            raise ValueError(f"FPNTask needs spread > 0; got spread={spread}.")
        regulariser = FiniteDifferenceRegulariser(width, blocks)
        super().__init__(regulariser, size=size, angles=angles, optimization=optimization)
        self._regulariser = regulariser
        stopping = il2o.Stopping(atol=1e-6, rtol=tolerance, max_steps=max_steps)
        self.solver = il2o.KrasnoselskiiMann(stopping)
        self.step, self.spread = step, spread
        self.clip = clip
        self._start = FilteredBackProjection(self.projector, "hann", 0.9)
        self._last: tuple[FeasibilityStep, Tensor] | None = None
        for name, sums in (
            ("columns", self.projector.adjoint(torch.ones(1, *self.projector.out_shape))),
            ("rows", self.projector.apply(torch.ones(1, *self.projector.in_shape))),
        ):
            self.register_buffer(name, torch.where(sums > 0, 1 / sums.clamp_min(1e-12), 0.0))

    def step_map(self, d: Float[Tensor, "B angles bins"]) -> FeasibilityStep:
        """`T` for a batch."""
        columns, rows = self.get_buffer("columns"), self.get_buffer("rows")
        return FeasibilityStep(self._regulariser, self.projector, d, columns, rows, self.step)

    def training_inference(self, d: Float[Tensor, "B angles bins"]) -> il2o.Inference:
        """The fixed point, unclipped; a sample that runs out of steps is trained on as it is."""
        return self._solve(d, clip=False)

    def infer(self, d: Float[Tensor, "B angles bins"]) -> il2o.Inference:
        """The fixed point, with its status."""
        return self._solve(d, clip=self.clip)

    def _solve(self, d: Tensor, *, clip: bool) -> il2o.Inference:
        self.check_sinogram(d)
        T = self.step_map(d)
        point = il2o.fixed_point(
            T, self._start(d).clamp(0, 1), solver=self.solver, backward=il2o.JFB(), on_failure="ignore"
        )
        self._last = (T, point.z.detach())
        return il2o.Inference(
            x=point.z.clamp(0, 1) if clip else point.z,
            z=point.z,
            status=point.status,
            residual=point.residual,
            steps=point.steps,
            data=d,
        )

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Shrink the kernels where the map expanded distances; here, for the backward pass needs them as they were."""
        if self._last is None:
            return
        T, u = self._last
        w = u + self.spread * torch.randn(u.shape).to(u)  # drawn on the CPU: one generator to restore
        slope = float((T(w) - T(u)).flatten(1).norm(dim=1).mean() / (w - u).flatten(1).norm(dim=1).mean())
        if slope > _LARGEST_SLOPE:
            self._regulariser.shrink((_LARGEST_SLOPE / slope) ** 0.25)
