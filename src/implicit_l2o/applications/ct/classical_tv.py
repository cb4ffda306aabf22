"""Total variation, penalised and constrained, each tuned on validation images and solved to a stated residual."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct.classical import AbstractClassical
from implicit_l2o.applications.ct.total_variation import (
    TotalVariationGraph,
    ball_problem,
    penalised_problem,
    solve_total_variation,
    total_variation_graph,
)
from implicit_l2o.physics import FilteredBackProjection

_CHUNK = 50  # images solved at once


@dataclass(eq=False)
class AbstractTotalVariation(AbstractClassical, ABC):
    """Total variation with the box [0, 1], solved to a stated residual by Douglas-Rachford on the graph of `(A, D)`.

    Args:
        rtol: relative residual on `(x, w, p)`, see `solve_total_variation`.
        max_steps: the most iterations.
        tuning_steps: the most while a setting is chosen; one that has not converged by then is infeasible or nearly so.
        validation: images to choose by.
    """

    rtol: float = field(default=2e-5, kw_only=True)
    max_steps: int = field(default=2000, kw_only=True)
    tuning_steps: int = field(default=300, kw_only=True)
    validation: int = field(default=30, kw_only=True)

    @abstractmethod
    def problem(self, graph: TotalVariationGraph, d: Float[Tensor, "B angles bins"], choice: Any) -> il2o.Problem:
        """The problem under one setting."""

    @final
    def results(
        self, d: Float[Tensor, "B angles bins"], choices: Sequence[Any]
    ) -> Iterator[tuple[Any, Float[Tensor, "B 1 n n"]]]:
        """One after another, in `tuning_steps`."""
        for choice in choices:
            yield choice, self._solve(d, choice, min(self.tuning_steps, self.max_steps)).x

    @final
    def reconstruct(self, d: Float[Tensor, "B angles bins"], choice: Any) -> il2o.Inference:
        """The solution, with its status, residual and steps."""
        return self._solve(d, choice, self.max_steps)

    def _solve(self, d: Float[Tensor, "B angles bins"], choice: Any, max_steps: int) -> il2o.Inference:
        graph = total_variation_graph(self.projector)
        start = FilteredBackProjection(self.projector, "hann", 0.9)
        parts = [
            solve_total_variation(
                self.problem(graph, part, choice),
                graph,
                start(part).clamp(0, 1),
                rtol=self.rtol,
                max_steps=max_steps,
            )
            for part in d.split(_CHUNK)
        ]
        return il2o.Inference(
            x=torch.cat([graph.image(part.x) for part in parts]),
            status=torch.cat([part.status for part in parts]),
            residual=torch.cat([part.residual for part in parts]),
            steps=torch.cat([part.steps for part in parts]),
            data=d,
        )


@final
@dataclass(eq=False)
class PenalisedTV(AbstractTotalVariation):
    """`argmin |A x - d|^2 / 2 + weight TV(x)` over the box; the weight is chosen.

    Args:
        weights: to choose from, for the projector of norm 1.
    """

    weights: Sequence[float] = (1e-4, 1.5e-4, 2e-4, 3e-4, 4e-4, 5e-4)

    def choices(self) -> Sequence[float]:
        """The weights."""
        return self.weights

    def problem(self, graph: TotalVariationGraph, d: Float[Tensor, "B angles bins"], choice: float) -> il2o.Problem:
        """The penalised problem."""
        return penalised_problem(graph, d, choice)

    def describe(self, choice: float) -> Mapping[str, Any]:
        """The weight."""
        return {"weight": choice}


@final
@dataclass(eq=False)
class ConstrainedTV(AbstractTotalVariation):
    """`argmin TV(x)` over the box, subject to `|A x - d| <= delta |d|`; `delta` is chosen.

    Args:
        deltas: to choose from; 0 alone is the problem subject to `A x = d`, for data without noise.
    """

    deltas: Sequence[float] = (0.006, 0.0075, 0.009, 0.0105, 0.012, 0.0135)

    def choices(self) -> Sequence[float]:
        """The relative radii."""
        return self.deltas

    def problem(self, graph: TotalVariationGraph, d: Float[Tensor, "B angles bins"], choice: float) -> il2o.Problem:
        """The constrained problem."""
        if not choice >= 0:
            raise ValueError(f"ConstrainedTV needs delta >= 0; got delta={choice}.")
        return ball_problem(graph, d, choice * d.flatten(1).norm(dim=1))

    def describe(self, choice: float) -> Mapping[str, Any]:
        """The relative radius."""
        return {"delta": choice}
