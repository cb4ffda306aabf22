"""The training of the implicit reconstructions: JFB first, then a backward mode that also moves the ball's radius."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct import examination, figures, properties
from implicit_l2o.applications.ct.base import ReconstructionTask, scanner
from implicit_l2o.applications.ct.findings import Examined
from implicit_l2o.applications.ct.model import ImplicitReconstruction
from implicit_l2o.applications.ct.regularisers import AbstractRegulariser
from implicit_l2o.applications.ct.served import ServedReconstruction
from implicit_l2o.training import About, Optimization, Pixels, Samples, Scene, Splits, TimeLimit, read_checkpoint

_PENALTY = 1.0


@final
class ImplicitReconstructionTask(ReconstructionTask):
    """Reconstruct inside the box and the ball around the data, with a learned regulariser.

    A step of the training solves for `training_steps` iterations from the warm start, which is close, and attaches JFB. In
    the last part, `refined` of all steps, the backward mode is `refinement`, through which the radius learns as well.

    Args:
        regulariser: a convex potential, an averaged or a free network.
        size: pixels along one side; even.
        angles: views.
        width: of the context network.
        delta: relative radius at first; 0 asks for `A x = d` and is not learned.
        training_steps: iterations of a training step's solve.
        refined: share of the training with `refinement`.
        refinement: None takes `Neumann(8)`.
        solver: at inference; None takes that of `ImplicitReconstruction`.
        demonstrated: images of each kind that the certificates are tried on for the report, right and wrong ones.
        start: weights to begin with: the `model.ckpt` of a run with the same kind of network, of any size of image.
        optimization: None takes Adam, 3e-3, falling to 0.

    Raises:
        ValueError: `refined` is not in [0, 1], `start` holds another kind of network, or as `ImplicitReconstruction`.
        CheckpointError: `start` cannot be read.
    """

    served_by = ServedReconstruction

    def __init__(
        self,
        *,
        regulariser: AbstractRegulariser,
        size: int = 64,
        angles: int = 30,
        width: int = 16,
        delta: float = 0.0098,
        training_steps: int = 15,
        refined: float = 0.15,
        refinement: il2o.AbstractBackward | None = None,
        solver: il2o.AbstractFixedPointSolver | None = None,
        demonstrated: int = 16,
        start: str | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        if not 0 <= refined <= 1:
            raise ValueError(f"ImplicitReconstructionTask needs 0 <= refined <= 1; got refined={refined}.")
        model = ImplicitReconstruction(scanner(size, angles), regulariser, width=width, delta=delta, solver=solver)
        optimization = Optimization(learning_rate=3e-3, schedule="cosine") if optimization is None else optimization
        super().__init__(model, size=size, angles=angles, optimization=optimization)
        stopping = il2o.Stopping(atol=0.0, rtol=0.0, max_steps=training_steps)
        self.training_solver = il2o.KrasnoselskiiMann(stopping)
        self.refined = refined
        self.demonstrated = demonstrated
        self.refinement: il2o.AbstractBackward = il2o.Neumann(8) if refinement is None else refinement
        self._penalty: Tensor | None = None
        self._demonstration: tuple[Samples, tuple[Examined, ...]] | None = None
        if start is not None:
            _load(model, start)

    @property
    def network(self) -> ImplicitReconstruction:
        """The model."""
        assert isinstance(self.model, ImplicitReconstruction)
        return self.model

    def infer(self, d: Float[Tensor, "B angles bins"]) -> il2o.Inference:
        """Solved to the model's tolerance."""
        self.check_sinogram(d)
        return self.network(d)

    def training_inference(self, d: Float[Tensor, "B angles bins"]) -> il2o.Inference:
        """In training a few iterations from the warm start; in validation the whole solve."""
        if not self.training:
            return self.infer(d)
        network = self.network
        x, z = network.first(d)
        F = network.condition(d, x)
        inference = network.solve(d, F, z, solver=self.training_solver, backward=self._backward())
        self._penalty = network.regulariser.penalty(F, inference.x)
        return inference

    def about(self) -> About:
        """Equation 5, with the kind of regulariser and what it promises."""
        return examination.about(self.network)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """That of all reconstructions and, in training, the regulariser's penalty."""
        loss = super().loss(inference, batch)
        if self._penalty is not None:
            loss, self._penalty = loss + _PENALTY * self._penalty, None
        return loss

    def certificates(self) -> Sequence[il2o.Certificate]:
        """Box, fidelity, consistency, residual and, of a convex potential, the suboptimality: with fixed limits."""
        return properties.certificates_of(self.network)

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """What the learned regulariser thinks of the answer, and its total variation: calibrated."""
        return properties.measures_of(self.network)

    def scene(self) -> Scene:
        """The image in the grey window, and gradients in the context network's proposal."""
        size = self.projector.geometry.size
        return Scene(
            picture=Pixels(size, size, low=figures.WINDOW[0], high=figures.WINDOW[1]),
            values_name="reconstruction x(d)",
            inputs=Pixels(*self.projector.out_shape),
            split=self._split,
            parameters_name="proposal c(d) of the context network",
        )

    def _split(self, d: Tensor) -> tuple[Tensor, Callable[[Tensor], il2o.Inference]]:
        network = self.network
        x, z = network.first(d)
        proposal, maps = network.propose(d, x)
        return proposal, lambda c: network.solve(d, network.regulariser.condition(c, maps), z)

    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """The radius, and which kinds of answers fail which certificate."""
        return examination.findings_of(self.network, self._examined(samples))

    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """What the certificates catch, where in the image, and the convergence."""
        return examination.figures_of(self.network, self._examined(samples))

    def _examined(self, samples: Samples) -> tuple[Examined, ...]:
        """Made once for the findings and the figures: what no image explains costs many solves."""
        if self._demonstration is None or self._demonstration[0] is not samples:
            self._demonstration = samples, self._try_certificates(samples)
        return self._demonstration[1]

    def _try_certificates(self, samples: Samples) -> tuple[Examined, ...]:
        return examination.examine(self.network, self.all_certificates(), samples, count=self.demonstrated)

    def _backward(self) -> il2o.AbstractBackward:
        return self.refinement if self._trained() >= 1 - self.refined else il2o.JFB()

    def _trained(self) -> float:
        """Which share of the training is over, by its time where that is limited, else by its steps."""
        trainer = self._trainer
        if trainer is None:
            return 0.0
        for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, TimeLimit):
                return 1 - max(callback.left, 0.0) / callback.seconds
        return trainer.global_step / max(trainer.estimated_stepping_batches, 1)


def _load(model: ImplicitReconstruction, path: str) -> None:
    """Take over the weights; nothing of them depends on the size of the image."""
    prefix = "model."
    state = read_checkpoint(path, require=("state_dict",))["state_dict"]
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"start={path} holds the weights of another kind of network: {error}") from error
