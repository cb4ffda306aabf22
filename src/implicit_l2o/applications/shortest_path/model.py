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


def cost_network(features: int, arcs: int, *, hidden: int = 50, seed: int = 0) -> nn.Sequential:
    """`d -> w`: two linear maps with LeakyReLU(0.1) between them, initialised by the seed alone.

    Args:
        features: length of a context.
        arcs: length of the cost vector.
        hidden: width.
        seed: of the weights; PyTorch's own random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(features, hidden), nn.LeakyReLU(0.1), nn.Linear(hidden, arcs))


class Perturbation(nn.Module):
    """`w -> w + scale e` with `e ~ N(0, I)` drawn anew for every sample: the costs of a perturbed training.

    With it, an expectation over `e` stands where the solution would otherwise jump, and the training sees the decision
    from all sides (Q. Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 2020, section 3).

    Args:
        scale: standard deviation, in units of the costs.
        seed: of the draws.
    """

    def __init__(self, scale: float, *, seed: int) -> None:
        super().__init__()
        self.scale = scale
        self._generator = torch.Generator().manual_seed(seed)

    def forward(self, w: Float[Tensor, "B arcs"]) -> Float[Tensor, "B arcs"]:
        """The perturbed costs."""
        return w + self.scale * torch.randn(w.shape, generator=self._generator, dtype=w.dtype).to(w.device)


@dataclass(frozen=True, eq=False)
class FlowModel:
    """The layer's problem on one grid: builds the splitting for costs `w`, with the constraints factored once.

    Args:
        grid: the graph.
        gamma: of the quadratic term, positive; with costs of order 1 a value near 1 trains best.
        tolerance: of an inference, absolute, on `|T(z) - z|`, which bounds the distance of `x` to `{A x = b}`.
        relaxation: of the iteration.

    Raises:
        ValueError: `gamma` is not positive.
    """

    grid: Grid
    gamma: float = 1.0
    tolerance: float = 1e-4
    relaxation: float = 1.7
    flows: il2o.AffineSet = field(init=False)

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"FlowModel needs gamma > 0; got gamma={self.gamma}.")
        object.__setattr__(self, "flows", il2o.AffineSet(*self.grid.flow_constraints()))

    def cost(self, w: Float[Tensor, "B arcs"]) -> il2o.QuadraticCost:
        """`w.x + gamma |x|^2 / 2`."""
        return il2o.QuadraticCost(linear=w, diagonal=self.gamma)

    def __call__(self, w: Float[Tensor, "B arcs"]) -> il2o.DavisYin:
        """`T(z) = z - P1(z) + P2(2 P1(z) - z - step (w + gamma P1(z)))`, `P1` onto `x >= 0`, `P2` onto `A x = b`."""
        problem = il2o.Problem(F=self.cost(w), g=il2o.NonnegativeOrthant(), h=self.flows)
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

    @torch.no_grad()
    def decide(self, encoder: nn.Module, contexts: Float[Tensor, "B features"]) -> Float[Tensor, "B arcs"]:
        """The exact shortest path under the predicted costs: what the model does at test time."""
        return self.grid.shortest_paths(encoder(contexts))
