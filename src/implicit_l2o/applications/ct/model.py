"""The reconstruction `x(d)`: `0 in F(x; d) + N_C(x)`, `C = {x in [0, 1]^n : |A x - d| <= delta |d|}`, `F` learned.

Equation 5 of the method's talk, and section 3.4 of Heaton and Wu Fung, Explainable AI via Learning to Optimize (2023), whose
published code solved a penalised problem instead. Here Davis-Yin runs on `(x, w)`, `w = A x`: the box and the ball are one
set, the graph of `A` is the other, and the whole state is iterated.
"""

import math
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.ct.context import ContextNetwork, features
from implicit_l2o.applications.ct.regularisers import AbstractRegulariser
from implicit_l2o.applications.ct.ridges import Ridges, differences
from implicit_l2o.physics import FilteredBackProjection, Projector, sinogram_symmetries

SCALE = 10.0  # of w = SCALE A x: flat between 3 and 17
_STEP = 0.9  # of the limit 2 / L: the best for a few plain iterations, as in training
_ACCELERATED_STEP = 0.7  # Anderson's acceleration wants more contraction; flat between 0.5 and 0.8
_WARM_STEPS = 16  # of the smoothed total variation that the context network sees
_WARM_THRESHOLD = 0.01


@final
@dataclass(frozen=True, eq=False)
class OnImage(il2o.AbstractMonotone):
    """`(x, w) -> (F(x), 0)` on flattened pairs.

    Args:
        F: of the image.
        graph: says how pairs are split.
    """

    F: il2o.AbstractMonotone = field(metadata={"own_domain": True})
    graph: il2o.Graph = field(metadata={"own_domain": True})

    @property
    def lipschitz(self) -> Tensor | float | None:
        """That of `F`."""
        return self.F.lipschitz

    @property
    def cocoercivity(self) -> Tensor | float | None:
        """That of `F`."""
        return self.F.cocoercivity

    def apply(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
        """`(F(x), 0)`."""
        image, w = self.graph.split(x)
        return self.graph.join(self.F.apply(image), torch.zeros_like(w))


@dataclass(frozen=True)
class Scanner:
    """What of a solve does not depend on the model: the projector, its graph, filtered back-projection.

    Args:
        projector: of norm 1.
    """

    projector: Projector
    graph: il2o.Graph = field(init=False)
    fbp: FilteredBackProjection = field(init=False)

    def __post_init__(self) -> None:
        symmetries = sinogram_symmetries(self.projector.geometry)
        object.__setattr__(self, "graph", il2o.Graph(self.projector, SCALE, involutions=symmetries))
        object.__setattr__(self, "fbp", FilteredBackProjection(self.projector))

    def problem(
        self, F: il2o.AbstractMonotone, d: Float[Tensor, "B angles bins"], delta: float | Tensor
    ) -> il2o.Problem:
        """`F` over the box and the ball of radius `delta |d|`, on pairs `(x, SCALE A x)`."""
        flat = SCALE * d.flatten(1)
        ball = il2o.L2Ball(delta * torch.linalg.vector_norm(flat, dim=1), center=flat)
        sizes = (math.prod(self.projector.in_shape), flat.shape[1])
        sets = il2o.ProductSet((il2o.Box(0.0, 1.0), ball), sizes=sizes)
        return il2o.Problem(F=OnImage(F, self.graph), g=sets, h=self.graph)


class ImplicitReconstruction(nn.Module):
    """Sinograms to images in the box and the ball, with a learned regulariser that knows the data.

    Sixteen steps of smoothed total variation give a first image; from it the context network reads a proposal and the
    weights of the regulariser; the solve starts there.

    Args:
        projector: of norm 1.
        regulariser: one of the three.
        width: of the context network.
        delta: relative radius of the ball at first; about 0.7 of the relative noise.
        solver: None takes Anderson's acceleration to a relative residual of 1e-5, at most 1000 steps.
        backward: None takes `JFB()`. The radius learns only from another one: its gradient by JFB has the wrong sign.

    Raises:
        ValueError: `delta` is not in [0, 1).

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.model import ImplicitReconstruction
        >>> from implicit_l2o.applications.ct.regularisers import ConvexPotential
        >>> from implicit_l2o.physics import Geometry, Projector
        >>> projector = Projector(Geometry.uniform(16, angles=8))
        >>> model = ImplicitReconstruction(projector, ConvexPotential((16, 16)))
        >>> inference = model(projector.apply(torch.rand(2, 1, 16, 16)))
        >>> inference.x.shape, bool(((inference.x >= 0) & (inference.x <= 1)).all())
        (torch.Size([2, 1, 16, 16]), True)
    """

    def __init__(
        self,
        projector: Projector,
        regulariser: AbstractRegulariser,
        *,
        width: int = 16,
        delta: float = 0.0098,
        solver: il2o.AbstractFixedPointSolver | None = None,
        backward: il2o.AbstractBackward | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= delta < 1:
            raise ValueError(f"ImplicitReconstruction needs 0 <= delta < 1; got delta={delta}.")
        self.scanner = Scanner(projector)
        self.regulariser = regulariser
        self.context = ContextNetwork(maps=regulariser.maps, width=width)
        self.log_delta = nn.Parameter(torch.tensor(delta).log()) if delta > 0 else None
        self.solver: il2o.AbstractFixedPointSolver = (
            il2o.Anderson(il2o.Stopping(atol=0.0, rtol=1e-5, max_steps=1000)) if solver is None else solver
        )
        self.backward = il2o.JFB() if backward is None else backward
        self.warm_solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=_WARM_STEPS))

    @property
    def delta(self) -> Tensor:
        """The relative radius."""
        return torch.zeros(()) if self.log_delta is None else self.log_delta.exp()

    def forward(self, d: Float[Tensor, "B angles bins"]) -> il2o.Inference:
        """The image `x`, the state `z` of the solve, and its status; the gradient is that of the backward mode."""
        x, z = self.first(d)
        return self.solve(d, self.condition(d, x), z)

    @torch.no_grad()
    def first(self, d: Float[Tensor, "B angles bins"]) -> tuple[Float[Tensor, "B 1 H W"], Float[Tensor, "B n"]]:
        """A first image, and the state that the solve starts from."""
        start = self.scanner.graph.join(self.scanner.fbp(d), SCALE * d)
        cost = self._differences(d)
        problem = self.scanner.problem(cost, d, self.delta.detach())
        solution = self._run(problem, start, self.warm_solver, il2o.JFB())
        x, w = self.scanner.graph.split(solution.x)
        return x, self.scanner.graph.join(x, w)

    def condition(self, d: Float[Tensor, "B angles bins"], x: Float[Tensor, "B 1 H W"]) -> il2o.AbstractMonotone:
        """The regulariser for these data, given a first image."""
        return self.regulariser.condition(*self.propose(d, x))

    def propose(
        self, d: Float[Tensor, "B angles bins"], x: Float[Tensor, "B 1 H W"]
    ) -> tuple[Float[Tensor, "B 1 H W"], Float[Tensor, "B maps H W"]]:
        """What the context network says of these data, given a first image: a proposal, and maps of weights."""
        return self.context(features(self.scanner.projector, x, self.scanner.fbp(d), d))

    def solve(
        self,
        d: Float[Tensor, "B angles bins"],
        F: il2o.AbstractMonotone,
        z: Float[Tensor, "B n"],
        *,
        solver: il2o.AbstractFixedPointSolver | None = None,
        backward: il2o.AbstractBackward | None = None,
    ) -> il2o.Inference:
        """The solution for a given regulariser, from the state `z`; None takes the model's solver and backward mode."""
        solution = self.solution(d, F, z, solver=solver, backward=backward)
        x, _ = self.scanner.graph.split(solution.x)
        return il2o.Inference(
            x=x, z=solution.z, status=solution.status, residual=solution.residual, steps=solution.steps, data=d
        )

    def solution(
        self,
        d: Float[Tensor, "B angles bins"],
        F: il2o.AbstractMonotone,
        z: Float[Tensor, "B n"],
        *,
        solver: il2o.AbstractFixedPointSolver | None = None,
        backward: il2o.AbstractBackward | None = None,
    ) -> il2o.Solution:
        """As `solve`, with everything known of it: `x` is the pair `(x, SCALE A x)`."""
        solver = self.solver if solver is None else solver
        backward = self.backward if backward is None else backward
        # The gradient of the radius by JFB has the wrong sign: under JFB it is a constant.
        delta = self.delta.detach() if isinstance(backward, il2o.JFB) else self.delta
        return self._run(self.scanner.problem(F, d, delta), z, solver, backward)

    def _run(
        self,
        problem: il2o.Problem,
        z: Tensor,
        solver: il2o.AbstractFixedPointSolver,
        backward: il2o.AbstractBackward,
    ) -> il2o.Solution:
        assert problem.F is not None
        beta = problem.F.cocoercivity
        share = _ACCELERATED_STEP if isinstance(solver, il2o.Anderson) else _STEP
        step = 2 * share * (beta.detach() if isinstance(beta, Tensor) else beta)  # pyright: ignore[reportOperatorIssue]
        return il2o.solve(il2o.DavisYin(problem, step=step), z, solver=solver, backward=backward, on_failure="ignore")

    def _differences(self, d: Tensor) -> Ridges:
        size = self.scanner.projector.geometry.size
        cost = differences(threshold=_WARM_THRESHOLD, shape=(size, size), dtype=d.dtype)
        return Ridges(cost.kernels.to(d.device), cost.weights.to(d.device), cost.thresholds.to(d.device))
