"""From a context `d` to a tour: `x(d) = argmin {c(d).x + gamma |x|^2 / 2 : x in P}`, `P` a relaxation of the tours.

Every city has two edges, `sum_{e at i} x_e = 2`, every edge is taken at most once, `0 <= x <= 1`, and, where cuts are added,
`sum_{e leaves S} x_e >= 2` for some sets `S` of cities. All tours satisfy these, so a tour is optimal for predicted costs
if it is so for the relaxation; the exact tour under the predicted costs is found once, at test time.

Source: G. Dantzig, R. Fulkerson and S. Johnson, Solution of a large-scale traveling-salesman problem, Operations Research 2
(1954), for the relaxation; D. McKenzie, S. Wu Fung and H. Heaton, Differentiating Through Integer Linear Programs with
Quadratic Regularization and Davis-Yin Splitting, TMLR (2024), for the layer.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.decoders import TravellingSalesman


def cost_network(features: int, edges: int, *, level: float = 0.0, seed: int | None = None) -> nn.Linear:
    """`d -> c`, affine as in PyEPO's benchmark, initialised by the seed alone.

    Args:
        features: length of a context.
        edges: length of the cost vector.
        level: of all costs at the start; a tour does not depend on it, a regression of the costs starts nearer.
        seed: of the weights; PyTorch's own random state is left as it was. None takes the seed that PyTorch was given
            last, the run's, however much was drawn since: so a model and its baselines start from the same weights.
    """
    seed = torch.initial_seed() if seed is None else seed
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = nn.Linear(features, edges)
    with torch.no_grad():
        network.bias.add_(level)
    return network


def tour_program(decoder: TravellingSalesman, cuts: Bool[Tensor, "cuts edges"] | None = None) -> il2o.LinearProgram:
    """The relaxation: two edges at every city, each at most once, and two edges at least across every cut.

    Args:
        decoder: knows the edges.
        cuts: the edges across each; None for none.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.travelling_salesman.model import tour_program
        >>> from implicit_l2o.decoders import TravellingSalesman
        >>> salesman = TravellingSalesman(5)
        >>> tour_program(salesman).violation(salesman(torch.rand(1, 10)))
        tensor([0.])
    """
    first, second = torch.from_numpy(decoder.edges).unbind(1)
    column = torch.arange(decoder.n)
    A = torch.zeros(decoder.n_cities, decoder.n)
    A[first, column] = A[second, column] = 1.0
    b = torch.full((decoder.n_cities,), 2.0)
    if cuts is None or not len(cuts):
        return il2o.LinearProgram(A_eq=A, b_eq=b, upper=1.0)
    return il2o.LinearProgram(A_eq=A, b_eq=b, A_ub=-cuts.float(), b_ub=torch.full((len(cuts),), -2.0), upper=1.0)


class TourNetwork(nn.Module):
    """The network `d -> x(d)`: predicted costs, and the layer's relaxed tour under them.

    The cuts are a buffer: a checkpoint of the model holds the relaxation that it was trained with.

    Args:
        network: `d -> c`.
        decoder: knows the edges.
        most_cuts: room for so many.
        gamma: of the quadratic term.
        polish: solve exactly, by a compiled Newton method; without, by Davis-Yin to the tolerances.
        tolerance: of an inference, on the residual.
        training_tolerance: of a solve in training.
        backward: None takes `JFB()`.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.travelling_salesman.model import TourNetwork, cost_network
        >>> from implicit_l2o.decoders import TravellingSalesman
        >>> TourNetwork(cost_network(5, 10), TravellingSalesman(5))(torch.zeros(1, 5)).x.sum().detach().round(decimals=2)
        tensor(5.)
    """

    cuts: Tensor

    def __init__(
        self,
        network: nn.Module,
        decoder: TravellingSalesman,
        *,
        most_cuts: int = 0,
        gamma: float = 1.0,
        polish: bool = False,
        tolerance: float = 1e-3,
        training_tolerance: float = 0.1,
        backward: il2o.AbstractBackward | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.decoder = decoder
        self.gamma = gamma
        self.polish = polish
        self.tolerances = {False: tolerance, True: training_tolerance}
        self.backward = backward
        self.register_buffer("cuts", torch.zeros(most_cuts, decoder.n, dtype=torch.bool))
        self._layers: dict[bool, tuple[Tensor, il2o.LPLayer]] = {}

    def forward(self, d: Float[Tensor, "B features"]) -> il2o.Inference:
        """The inference, its `data` the predicted costs."""
        return self.layer(training=False).inference(self.network(d))

    def layer(self, *, training: bool) -> il2o.LPLayer:
        """The relaxed tours, to the tolerance of a training or of an inference, with the present cuts."""
        present = self.cuts[self.cuts.any(1)].cpu()
        known = self._layers.get(training)
        if known is None or not torch.equal(known[0], present):
            layer = il2o.LPLayer(
                tour_program(self.decoder, present),
                gamma=self.gamma,
                polish=self.polish,
                tolerance=self.tolerances[training],
                max_steps=500 if training else 20_000,
                backward=self.backward,
                on_failure="ignore" if training else "warn",  # in a training a rough solution is near enough
            )
            known = self._layers[training] = present, layer
        return known[1]

    def add_cuts(self, cuts: Bool[Tensor, "cuts edges"]) -> int:
        """Add cuts where there is room; how many were added."""
        free = (~self.cuts.any(1)).nonzero().flatten()[: len(cuts)]
        self.cuts[free] = cuts[: len(free)].to(self.cuts.device)
        return len(free)
