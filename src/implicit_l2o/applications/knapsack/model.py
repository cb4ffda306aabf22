"""From a context `d` to a selection: `x(d) = argmin {-v(d).x + gamma |x|^2 / 2 : W x <= capacity, 0 <= x <= 1}`.

Source: D. McKenzie, S. Wu Fung and H. Heaton, Differentiating Through Integer Linear Programs with Quadratic
Regularization and Davis-Yin Splitting, TMLR (2024), section 5. There each bound `x <= 1` is a row with a slack of its own;
here the bounds are clamps, so the rows are as many as the limits. Without the quadratic term the answer would be a vertex,
piecewise constant in `v`, with no gradient.
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o


def value_network(
    features: int,
    items: int,
    *,
    hidden: Sequence[int] = (100,),
    dropout: float = 0.0,
    level: float = 0.0,
    seed: int | None = None,
) -> nn.Sequential:
    """`d -> v`: linear maps with LeakyReLU(0.1) between them, initialised by the seed alone.

    Args:
        features: length of a context.
        items: length of the value vector.
        hidden: widths; (5000, 5000) with a dropout of 0.3 is the network of the published tables.
        dropout: share of the values that are set to zero in training.
        level: added to the values at the start. Where values are well above zero the limits bind, and the weights of the
            items have their part in the first answers already; at zero the network has to learn them as well.
        seed: of the weights; PyTorch's own random state is left as it was. None takes the seed that PyTorch was given
            last, the run's, however much was drawn since: so a model and its baselines start from the same weights.
    """
    seed = torch.initial_seed() if seed is None else seed
    sizes = [features, *hidden, items]
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.1)]
    with torch.no_grad():
        next(reversed(list(layers[-2].parameters()))).add_(level)  # the last bias
    return nn.Sequential(*layers[:-1], *([nn.Dropout(dropout)] if dropout else []))


class Selector(nn.Module):
    """The network `d -> x(d)`: predicted values, and the layer's answer under them.

    Args:
        network: `d -> v`.
        layer: of the relaxed knapsack; its costs are minus the values.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.knapsack.model import Selector
        >>> lp = il2o.LinearProgram(A_ub=torch.ones(1, 3), b_ub=torch.ones(1), upper=1.0)
        >>> Selector(torch.nn.Identity(), il2o.LPLayer(lp))(torch.tensor([[1.0, 0.5, -1.0]])).x.round(decimals=2)
        tensor([[0.7500, 0.2500, 0.0000]])
    """

    def __init__(self, network: nn.Module, layer: il2o.LPLayer) -> None:
        super().__init__()
        self.network = network
        self.layer = layer

    def forward(self, d: Float[Tensor, "B features"]) -> il2o.Inference:
        """The inference, its `data` the predicted costs `-v`."""
        return self.layer.inference(-self.network(d))
