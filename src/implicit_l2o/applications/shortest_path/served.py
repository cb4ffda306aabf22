"""The path model as it is served, however it was trained."""

from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.certificates import CONSTRAINTS, FlowOffPath
from implicit_l2o.applications.shortest_path.model import cost_network, decide, path_layer, path_program
from implicit_l2o.data.shortest_path import Grid
from implicit_l2o.serving import AbstractServable


@final
class ServedPaths(AbstractServable):
    """Contexts `(B, features)` to shortest paths `(B, arcs)`, with the flow under the predicted costs as `x`.

    Args:
        side: nodes along one side of the grid.
        features: length of a context.
        hidden: width of the cost network.
        gamma: of the layer's quadratic term.
        tolerance: in units of flow.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path.served import ServedPaths
        >>> model = ServedPaths(side=3)
        >>> model.answer(model.infer(torch.zeros(1, 5))).sum()
        tensor(4.)
    """

    def __init__(
        self, *, side: int = 5, features: int = 5, hidden: int = 50, gamma: float = 1.0, tolerance: float = 1e-4
    ) -> None:
        super().__init__()
        self.grid = Grid(side)
        self.model = cost_network(features, self.grid.n_arcs, hidden=hidden)
        self.flow = path_layer(path_program(self.grid), gamma=gamma, tolerance=tolerance)

    def infer(self, d: Float[Tensor, "B features"]) -> il2o.Inference:
        """The flow under the predicted costs."""
        return self.flow.inference(self.model(d))

    def answer(self, inference: il2o.Inference) -> Float[Tensor, "B arcs"]:
        """The exact shortest path under the predicted costs."""
        return decide(self.grid, inference)

    def certificates(self) -> Sequence[il2o.Certificate]:
        """That the answer is a flow."""
        return CONSTRAINTS

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """How much of the flow leaves the decided path."""
        return (FlowOffPath(self.grid),)
