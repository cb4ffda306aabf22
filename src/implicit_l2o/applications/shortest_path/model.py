"""From a context `d` to a path: `x(d) = argmin {w(d).x + gamma |x|^2 / 2 : A x = b, x >= 0}`, solved by Davis-Yin.

Source: D. McKenzie, S. Wu Fung and H. Heaton, Differentiating Through Integer Linear Programs with Quadratic
Regularization and Davis-Yin Splitting, TMLR (2024), sections 3 and 4. `A x = b, x >= 0` are the unit flows through the
grid; without the quadratic term the answer would be the shortest path, piecewise constant in `w`, with no gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.data.shortest_path import Grid


def cost_network(features: int, arcs: int, *, hidden: int = 50, seed: int | None = None) -> nn.Sequential:
    """`d -> w`: two linear maps with LeakyReLU(0.1) between them, initialised by the seed alone.

    Args:
        features: length of a context.
        arcs: length of the cost vector.
        hidden: width.
        seed: of the weights; PyTorch's own random state is left as it was. None takes the seed that PyTorch was given
            last, the run's, however much was drawn since: so a model and its baselines start from the same weights.
    """
    seed = torch.initial_seed() if seed is None else seed
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(nn.Linear(features, hidden), nn.LeakyReLU(0.1), nn.Linear(hidden, arcs))


class Perturbation(nn.Module):
    """`w -> w + scale e`, `e ~ N(0, I)`, a few draws for each sample: the costs of a perturbed training.

    With it, an expectation over `e` stands where the solution would otherwise jump, and the training sees the decision
    from all sides (Q. Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 2020, section 3). The
    draws come from PyTorch's global generator, whose state a checkpoint keeps.

    Args:
        scale: standard deviation, in units of the costs; 0 for none.
        copies: draws for each sample.

    Raises:
        ValueError: the scale is negative, or there is no copy.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path.model import Perturbation
        >>> Perturbation(1.5, copies=8)(torch.zeros(2, 40)).shape
        torch.Size([16, 40])
    """

    def __init__(self, scale: float, *, copies: int = 1) -> None:
        super().__init__()
        if not scale >= 0:
            raise ValueError(f"Perturbation needs scale >= 0; got scale={scale}.")
        if copies < 1:
            raise ValueError(f"Perturbation needs copies >= 1; got copies={copies}.")
        self.scale = scale
        self.copies = copies

    def forward(self, w: Float[Tensor, "B arcs"]) -> Float[Tensor, "B_copies arcs"]:
        """The perturbed costs, one copy of the batch after another."""
        w = w.repeat(self.copies, 1)
        return w + self.scale * torch.randn_like(w) if self.scale else w


@dataclass(frozen=True, eq=False)
class FlowModel:
    """The layer's problem on one grid: builds the splitting for costs `w`, with the constraints factored once a device.

    Args:
        grid: the graph.
        gamma: of the quadratic term, positive; with costs of order 1 a value near 1 trains best.
        tolerance: of an inference, absolute, on `|T(z) - z|`, which bounds the distance of `x` to `{A x = b}`.
        relaxation: of the iteration.

    Raises:
        ValueError: `gamma` or the tolerance is not positive.
    """

    grid: Grid
    gamma: float = 1.0
    tolerance: float = 1e-4
    relaxation: float = 1.7
    _flows: dict[tuple[torch.device, torch.dtype], il2o.AffineSet] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("gamma", "tolerance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"FlowModel needs {name} > 0; got {name}={getattr(self, name)}.")

    def flows(self, like: Tensor) -> il2o.AffineSet:
        """`{x : A x = b}`, factored once for each device and dtype."""
        key = like.device, like.dtype
        if key not in self._flows:
            self._flows[key] = il2o.AffineSet(*(tensor.to(like) for tensor in self.grid.flow_constraints()))
        return self._flows[key]

    def cost(self, w: Float[Tensor, "B arcs"]) -> il2o.QuadraticCost:
        """`w.x + gamma |x|^2 / 2`."""
        return il2o.QuadraticCost(linear=w, diagonal=self.gamma)

    def __call__(self, w: Float[Tensor, "B arcs"]) -> il2o.DavisYin:
        """`T(z) = z - P1(z) + P2(2 P1(z) - z - step (w + gamma P1(z)))`, `P1` onto `x >= 0`, `P2` onto `A x = b`."""
        problem = il2o.Problem(F=self.cost(w), g=il2o.NonnegativeOrthant(), h=self.flows(w))
        # 2 / (gamma side) needed the fewest iterations on sides 5 to 100; the bound keeps a relaxation of 1.7 safe.
        return il2o.DavisYin(problem, step=2.0 / (self.gamma * max(self.grid.side, 4)))

    def layer(
        self,
        encoder: nn.Module,
        *,
        tolerance: float | None = None,
        backward: il2o.AbstractBackward | None = None,
        certificates: Sequence[il2o.Certificate] = (),
    ) -> il2o.ImplicitLayer:
        """The network `d -> x(d)`.

        Args:
            encoder: `d -> w`.
            tolerance: None takes that of an inference; training does with a looser one.
            backward: None takes `JFB()`.
            certificates: checked by `infer`.
        """
        stopping = il2o.Stopping(atol=self.tolerance if tolerance is None else tolerance, rtol=0.0, max_steps=2000)
        return il2o.ImplicitLayer(
            encoder,
            build=self,
            x0=torch.zeros_like,
            solver=il2o.KrasnoselskiiMann(stopping, relaxation=self.relaxation),
            backward=backward,
            certificates=certificates,
        )


def decide(grid: Grid, inference: il2o.Inference) -> Float[Tensor, "B arcs"]:
    """The exact shortest path under the costs that were predicted for an inference: what the model does at test time.

    Args:
        grid: the graph.
        inference: of a `FlowModel`'s layer.

    Raises:
        ValueError: the inference carries no problem.
        TypeError: its problem is not that of a `FlowModel`.
    """
    cost = inference.need_problem("decide").F
    if not (isinstance(cost, il2o.QuadraticCost) and isinstance(cost.linear, Tensor)):
        raise TypeError("decide needs a QuadraticCost with a linear part as the problem's F.")
    return grid.shortest_paths(cost.linear)
