"""Plug-and-play: a denoiser, trained on images alone, in place of the regulariser's proximal operator.

S. Venkatakrishnan, C. Bouman and B. Wohlberg, Plug-and-play priors for model based reconstruction, GlobalSIP (2013); with a
denoiser that is not firmly nonexpansive nothing is minimised and convergence is an observation, not a theorem.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

import implicit_l2o as il2o
from implicit_l2o.applications.ct.base import ReconstructionTask
from implicit_l2o.applications.ct.learned import ResidualBlocks
from implicit_l2o.applications.ct.metrics import psnr
from implicit_l2o.physics import FilteredBackProjection, Projector
from implicit_l2o.training import AbstractBaseline, AbstractData, AbstractTask, Optimization, TimedTraining

_VALIDATION_SEED = 0  # the same noise in every epoch


@final
class Denoiser(nn.Module):
    """`x + N(x)`, residual blocks; blind to the level of the noise.

    Args:
        width: channels.
        blocks: of two convolutions.
    """

    def __init__(self, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.network = ResidualBlocks(1, width=width, blocks=blocks)

    def forward(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        """The denoised images."""
        return x + self.network(x)


@final
@dataclass(frozen=True, eq=False)
class PlugIn(il2o.AbstractProximable):
    """A denoiser where a prox is expected, whatever the step: as if it were the prox of some regulariser at this step."""

    denoiser: nn.Module

    def prox(self, x: Float[Tensor, "B 1 n n"], step: float | Tensor) -> Float[Tensor, "B 1 n n"]:
        """`D(x)`."""
        return self.denoiser(x)


@final
@dataclass(frozen=True, eq=False)
class DataTerm(il2o.AbstractProximable):
    """`scale^2 |A x - d|^2 / 2`, its prox at step 1 by projecting `(x, scale d)` onto the graph of `A`.

    Args:
        graph: of `A`, in units of `scale`.
        d: sinograms.
    """

    graph: il2o.Graph = field(metadata={"own_domain": True})
    d: Tensor = field(metadata={**il2o.DATA, "event_ndim": 2})

    def prox(self, x: Float[Tensor, "B 1 n n"], step: float | Tensor) -> Float[Tensor, "B 1 n n"]:
        """`argmin_y scale^2 |A y - d|^2 / 2 + |y - x|^2 / 2`; the step is part of the scale."""
        image, _ = self.graph.split(self.graph.project(self.graph.join(x, self.graph.scale * self.d)))
        return image


@final
class PlugAndPlayTask(ReconstructionTask):
    """Trains a denoiser, and answers by Douglas-Rachford between it and the data: `x = D(z)`.

    The training sees images under white noise and no sinogram; how much the data count, `scale`, is chosen afterwards (see
    `PlugAndPlay`).

    Args:
        size: pixels along one side.
        angles: views.
        denoiser: image to image, such as the network of another model; None takes `Denoiser()`.
        levels: least and largest standard deviation of the noise that it learns to remove.
        scale: weight of the data in the iteration, the root of it.
        relaxation: of the iteration, in (0, 2); at most 1 where the denoiser is no prox.
        tolerance: relative residual.
        max_steps: the most iterations.
        optimization: AdamW and its schedule.

    Raises:
        ValueError: the levels are not positive and in order; `scale` is not positive; as `il2o.Stopping`.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.plug_and_play import Denoiser, PlugAndPlayTask
        >>> task = PlugAndPlayTask(size=32, angles=8, denoiser=Denoiser(4, 1), tolerance=0.1)
        >>> task.infer(torch.ones(1, 8, 47)).x.shape
        torch.Size([1, 1, 32, 32])
    """

    def __init__(
        self,
        *,
        size: int = 64,
        angles: int = 30,
        denoiser: nn.Module | None = None,
        levels: tuple[float, float] = (0.01, 0.1),
        scale: float = 30.0,
        relaxation: float = 1.0,
        tolerance: float = 1e-3,
        max_steps: int = 200,
        optimization: Optimization | None = None,
    ) -> None:
        if not 0 < levels[0] <= levels[1]:
            raise ValueError(f"PlugAndPlayTask needs levels 0 < least <= largest; got levels={tuple(levels)}.")
        if not scale > 0:
            raise ValueError(f"PlugAndPlayTask needs scale > 0; got scale={scale}.")
        denoiser = Denoiser() if denoiser is None else denoiser
        super().__init__(denoiser, size=size, angles=angles, optimization=optimization)
        self._denoiser = denoiser
        self.levels = levels
        self.scale = scale
        self.solver = il2o.KrasnoselskiiMann(
            il2o.Stopping(atol=1e-6, rtol=tolerance, max_steps=max_steps), relaxation=relaxation
        )
        self._start = FilteredBackProjection(self.projector, "hann", 0.9)

    def training_inference(self, d: Float[Tensor, "B angles bins"]) -> il2o.Inference:
        """Nothing: the loss makes its own noisy images of the targets."""
        return il2o.Inference(x=d, data=d)

    def validation_inference(self, d: Float[Tensor, "B angles bins"]) -> il2o.Inference:
        """The start, for the iteration takes long and its weight is not chosen yet; the loss chooses the epoch."""
        return il2o.Inference(x=self._start(d).clamp(0, 1), data=d)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The mean squared error of denoising the targets."""
        x = batch[1]
        generator = torch.default_generator
        if not torch.is_grad_enabled():
            generator = torch.Generator().manual_seed(_VALIDATION_SEED)
        low, high = self.levels
        level = low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=generator)
        noise = level * torch.randn(x.shape, generator=generator)  # on the CPU: one generator to restore
        return F.mse_loss(self._denoiser(x + noise.to(x)), x)

    def infer(self, d: Float[Tensor, "B angles bins"]) -> il2o.Inference:
        """The fixed point's image, clipped, with its status."""
        self.check_sinogram(d)
        problem = il2o.Problem(g=PlugIn(self._denoiser), h=DataTerm(data_graph(self.projector, self.scale), d))
        with torch.no_grad():
            solution = il2o.solve(
                il2o.DouglasRachford(problem),
                self._start(d).clamp(0, 1),
                solver=self.solver,
                on_failure="ignore",
            )
        return il2o.Inference(
            x=solution.x.clamp(0, 1),
            z=solution.z,
            status=solution.status,
            residual=solution.residual,
            steps=solution.steps,
            data=d,
        )


@lru_cache(maxsize=8)
def data_graph(projector: Projector, scale: float) -> il2o.Graph:
    """The graph of the projector; one for all that ask for the same, since it is inverted once."""
    return il2o.Graph(projector, scale)


@final
@dataclass(eq=False)
class PlugAndPlay(AbstractBaseline):
    """A denoiser trained for a given time, then the weight of the data chosen on validation images.

    Args:
        task: the denoiser and its iteration.
        seconds: see `TimedTraining`, as for the next six.
        anneal: let the learning rate fall.
        processor: count the processor's time.
        epochs: the most.
        weight_average: of the weights.
        gradient_clip: of the steps.
        batch_size: None takes that of the data.
        scales: weights of the data to choose from; those at which a validation image does not converge come last.
        validation: images to choose by.
    """

    task: PlugAndPlayTask
    seconds: float
    anneal: bool = True
    processor: bool = False
    epochs: int = 1000
    weight_average: float = 0.0
    gradient_clip: float | None = None
    batch_size: int | None = None
    scales: Sequence[float] = (10.0, 15.0, 20.0, 30.0, 45.0, 70.0)
    validation: int = 20
    _numbers: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def prepare(self, task: AbstractTask, data: AbstractData, *, name: str, progress: bool) -> None:
        """Train the denoiser, then choose.

        Raises:
            ValueError: there is no scale to choose from.
        """
        if not self.scales or not min(self.scales) > 0:
            raise ValueError(f"PlugAndPlay needs positive scales to choose from; got {tuple(self.scales)}.")
        training = TimedTraining(
            self.task,
            self.seconds,
            anneal=self.anneal,
            processor=self.processor,
            epochs=self.epochs,
            weight_average=self.weight_average,
            gradient_clip=self.gradient_clip,
            batch_size=self.batch_size,
        )
        training.prepare(task, data, name=name, progress=progress)
        d, x = (part[: self.validation] for part in data.splits.validation.tensors[:2])
        found = {}
        for scale in tqdm(self.scales, name, unit="scale", file=sys.stderr, disable=not progress):
            self.task.scale = scale
            inference = self.infer((d, x))
            assert inference.status is not None
            converged = float((inference.status == il2o.Status.CONVERGED).double().mean())
            found[scale] = (converged, float(psnr(inference.x, x).mean()))
        most = max(converged for converged, _ in found.values())
        self.task.scale = max((s for s in found if found[s][0] == most), key=lambda scale: found[scale][1])
        self._numbers = {
            **training.numbers(),
            "scale": self.task.scale,
            "validation_psnr": {str(scale): score for scale, (_, score) in found.items()},
            "validation_converged": {str(scale): converged for scale, (converged, _) in found.items()},
        }

    @torch.no_grad()
    def infer(self, batch: Sequence[Tensor]) -> il2o.Inference:
        """The images of the iteration."""
        return self.task.infer(batch[0])

    def numbers(self) -> Mapping[str, Any]:
        """Its size and time, and how the scale was chosen."""
        return self._numbers
