"""From a context `d` to a path: `x(d) = argmin {w(d).x + gamma |x|^2 / 2 : A x = b, x >= 0}`, solved by Davis-Yin.

Source: D. McKenzie, S. Wu Fung and H. Heaton, Differentiating Through Integer Linear Programs with Quadratic
Regularization and Davis-Yin Splitting, TMLR (2024), sections 3 and 4. `A x = b, x >= 0` are the unit flows through the
grid; without the quadratic term the answer would be the shortest path, piecewise constant in `w`, with no gradient.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.bellman import shortest_paths_in_torch
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.decoders import decide_finite


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


def path_program(grid: Grid) -> il2o.LinearProgram:
    """The unit flows through the grid, `{x >= 0 : A x = b}`; its vertices are the paths.

    Example:
        >>> from implicit_l2o.applications.shortest_path.model import path_program
        >>> from implicit_l2o.data.shortest_path import Grid
        >>> path_program(Grid(3)).n
        12
    """
    return il2o.LinearProgram(A_eq=grid.incidence(), b_eq=grid.supply())


def path_layer(
    program: il2o.LinearProgram,
    *,
    gamma: float = 1.0,
    tolerance: float = 1e-4,
    backward: il2o.AbstractBackward | None = None,
) -> il2o.LPLayer:
    """The layer `w -> x(w)`.

    Args:
        program: of `path_program`.
        gamma: of the quadratic term, positive; with costs of order 1 a value near 1 trains best.
        tolerance: absolute, on `|T(z) - z|`, which bounds the distance of `x` to `{A x = b}`.
        backward: None takes `JFB()`.

    Raises:
        ValueError: `gamma` or the tolerance is not positive.
    """
    for name, value in (("gamma", gamma), ("tolerance", tolerance)):
        if not value > 0:
            raise ValueError(f"path_layer needs {name} > 0; got {name}={value}.")
    return il2o.LPLayer(program, gamma=gamma, tolerance=tolerance, max_steps=2000, backward=backward)


def decide(grid: Grid, inference: il2o.Inference) -> Float[Tensor, "B arcs"]:
    """The exact shortest path under the costs that were predicted for an inference: what the model does at test time.

    NaN for a sample whose predicted costs are not finite.

    Args:
        grid: the graph.
        inference: of a `path_layer`.

    Raises:
        ValueError: the inference carries no problem.
        TypeError: its problem is not that of a `path_layer`.
    """
    cost = inference.need_problem("decide").F
    if not (isinstance(cost, il2o.QuadraticCost) and isinstance(cost.linear, Tensor)):
        raise TypeError("decide needs a QuadraticCost with a linear part as the problem's F.")
    if torch.compiler.is_exporting():
        return shortest_paths_in_torch(grid, cost.linear)
    return decide_finite(grid.shortest_paths, cost.linear)
