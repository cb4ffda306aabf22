"""The equilibrium of learned link costs on a road network as a layer: costs in, total link flows out.

Source: S. W. Fung, H. Heaton, D. McKenzie, Q. Li and W. Yin, Three Operator Splitting for Learning to Predict Equilibria in
Convex Games, SIAM J. Math. Data Sci. (2024), section on Minkowski sums; here with one block for every origin.
"""

import math
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from implicit_l2o._numba import require_numba
from implicit_l2o._solution import Solution
from implicit_l2o.backward.base import AbstractBackward
from implicit_l2o.backward.jfb import JFB
from implicit_l2o.certificates.base import Inference
from implicit_l2o.games.assignment import user_equilibria, user_equilibrium
from implicit_l2o.games.exact_start import fixed_points, latencies
from implicit_l2o.games.flow_set import OriginFlows
from implicit_l2o.games.minkowski import BlockSum
from implicit_l2o.games.polynomial_cost import PolynomialCost
from implicit_l2o.games.traffic_network import TrafficNetwork
from implicit_l2o.layer import OnFailure, report, solve
from implicit_l2o.operators.base import AbstractMonotone, Scalar
from implicit_l2o.problem import Problem
from implicit_l2o.solvers.base import AbstractFixedPointSolver, Stopping
from implicit_l2o.solvers.krasnoselskii_mann import KrasnoselskiiMann
from implicit_l2o.splittings.davis_yin import DavisYin


@final
@dataclass(frozen=True, eq=False)
class InUnits(AbstractMonotone):
    """`F` of total flows in units of the links, `v -> D F(D v)` with `D = diag(unit)`.

    For a separable `F` the constants are those of `unit^2 F'`, link by link.

    Args:
        F: on total flows `(B, E)`.
        unit: of every link.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.games import InUnits
        >>> F = InUnits(il2o.QuadraticCost(linear=torch.zeros(2), diagonal=1.0), torch.tensor([1.0, 2.0]))
        >>> F.cocoercivity, F.apply(torch.ones(1, 2))
        (0.25, tensor([[1., 4.]]))
    """

    F: AbstractMonotone = field(metadata={"own_domain": True})
    unit: Float[Tensor, " E"]

    @property
    def lipschitz(self) -> Scalar | None:
        """That of `unit^2 F'` where `F` is separable, else that of `F` times the largest unit squared."""
        if isinstance(self.F, PolynomialCost):
            largest = (self.unit.square() * self.F.steepest).amax(-1)
            if not bool(torch.isfinite(largest).all()):
                return None
            return float(largest) if largest.ndim == 0 else largest
        constant = self.F.lipschitz
        return None if constant is None else float(self.unit.max()) ** 2 * constant

    @property
    def cocoercivity(self) -> Scalar | None:
        """As `lipschitz`; of a gradient its reciprocal."""
        if isinstance(self.F, PolynomialCost):  # a gradient
            constant = self.lipschitz
            if constant is None:
                return None
            return 1.0 / constant if isinstance(constant, Tensor) or constant > 0 else math.inf
        beta = self.F.cocoercivity
        return None if beta is None else beta / float(self.unit.max()) ** 2

    def apply(self, x: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """`D F(D v)`."""
        return self.unit * self.F.apply(self.unit * x)


@final
class EquilibriumLayer(nn.Module):
    """`layer(F)`: total link flows `v` with `<F(v), w - v> >= 0` for all `w` that carry the trips; batched.

    For costs of links this is Wardrop's equilibrium: no traveller has a quicker path. Davis-Yin alternates between the
    bounds of every origin's flow, which the answer satisfies exactly (nonnegative, nothing on closed links or through
    centroids), and its conservation, which it satisfies up to the residual. Each sample may have its own costs, trips and
    closed links.

    With `exact=True` and a `PolynomialCost` a compiled solver finds the equilibrium, and the fixed point that it is follows
    in closed form, `z_k = x_k - step (F(v) - N^T pi_k)`, `pi_k` the shortest times from origin `k`: positive where there is
    flow, and minus the step times the detour where there is none. The one loop then measures the residual of that point and
    goes on from it where it misses the tolerance, so that statuses and backward modes mean the same in both forms.

    Args:
        network: links, origins, trips.
        unit: of every link, see `OriginFlows` and `flow_units`; None is 1.
        step: of Davis-Yin; None is the cocoercivity of `F` divided by the number of blocks.
        solver: None takes `KrasnoselskiiMann` with `rtol=1e-4` on `|T(z) - z|`, in units of the links.
        backward: None takes `JFB()`.
        exact: solve by the compiled solver; needs numba (`implicit_l2o[exact]`).
        gap: relative gap to which it solves.
        on_failure: as in `solve`.

    Raises:
        ValueError: an option is out of its range.
        ModuleNotFoundError: `exact=True` without numba.

    Example:
        >>> import numpy as np, torch
        >>> from implicit_l2o.games import EquilibriumLayer, PolynomialCost, TrafficNetwork
        >>> two_roads = TrafficNetwork(
        ...     name="two roads", nodes=2, zones=2, first_thru=0, tail=np.array([0, 0]), head=np.array([1, 1]),
        ...     free_flow_time=np.array([1.0, 2.0]), capacity=np.ones(2), b=np.ones(2), power=np.ones(2),
        ...     trips=np.array([[0.0, 4.0], [0.0, 0.0]]),
        ... )
        >>> cost = PolynomialCost(
        ...     constant=torch.tensor([[1.0, 2.0]]), coefficient=torch.ones(2, 1), scale=torch.ones(2), power=(1.0,))
        >>> EquilibriumLayer(two_roads)(cost).x.round(decimals=2)
        tensor([[2.5000, 1.5000]])
    """

    def __init__(
        self,
        network: TrafficNetwork,
        *,
        unit: Float[np.ndarray, " E"] | None = None,
        step: float | None = None,
        solver: AbstractFixedPointSolver | None = None,
        backward: AbstractBackward | None = None,
        exact: bool = False,
        gap: float = 1e-6,
        on_failure: OnFailure = "warn",
    ) -> None:
        super().__init__()
        if not isinstance(network, TrafficNetwork):
            raise TypeError(f"EquilibriumLayer takes a TrafficNetwork; got {type(network).__name__}.")
        if exact:
            require_numba("EquilibriumLayer(exact=True)")
        if not 0 < gap < 1:
            raise ValueError(f"EquilibriumLayer needs 0 < gap < 1; got gap={gap}.")
        self.network = network
        self.flows = OriginFlows.of(network, unit=unit)
        self.step = step
        self.solver = KrasnoselskiiMann(Stopping(atol=0.0, rtol=1e-4, max_steps=5000)) if solver is None else solver
        self.backward = JFB() if backward is None else backward
        self.exact = exact
        self.gap = gap
        self.on_failure: OnFailure = on_failure
        # All exact solves start from the same paths, so that no sample depends on another.
        self._paths = user_equilibrium(network, tolerance=1e-4, on_failure="ignore").paths if exact else None

    def forward(
        self,
        F: AbstractMonotone,
        *,
        trips: Float[Tensor, "*B zones zones"] | None = None,
        closed: Bool[Tensor, "*B E"] | None = None,
        start: Float[Tensor, "B K E"] | None = None,
    ) -> Solution:
        """The equilibria: `x` the total flows `(B, E)`, `z` the fixed points `(B, K, E)`, a start for a later call.

        Args:
            F: costs of total flows `(B, E)`, cocoercive; differentiable in what it is made of.
            trips: instead of the network's, shared or per sample.
            closed: links without flow, shared or per sample.
            start: fixed points to start from; None starts at 0. An exact solve needs none.
        """
        return self._solve(F, trips, closed, start)[0]

    def inference(
        self,
        F: AbstractMonotone,
        *,
        trips: Float[Tensor, "*B zones zones"] | None = None,
        closed: Bool[Tensor, "*B E"] | None = None,
        start: Float[Tensor, "B K E"] | None = None,
    ) -> Inference:
        """The equilibria with what measures of traffic want to know; `data` is `F`."""
        solution, _ = self._solve(F, trips, closed, start)
        return Inference.of(solution, data=F)

    @torch.no_grad()
    def exact_flows(self, cost: PolynomialCost, *, gap: float | None = None) -> Inference:
        """Exact total flows without their fixed points: a third of the work, for losses that need no backward mode.

        `residual` is the relative gap here, and CONVERGED means that it meets `gap`; `data` are the costs.

        Args:
            cost: of the links.
            gap: relative gap to which it solves; None takes the layer's.

        Raises:
            ValueError: the layer is not exact.
        """
        if not self.exact:
            raise ValueError("exact_flows needs EquilibriumLayer(exact=True).")
        found = user_equilibria(
            self.network,
            latencies(cost, cost.batch),
            tolerance=self.gap if gap is None else gap,
            start=self._paths,
            on_failure="ignore",
            progress=False,
        )
        like = cost.constant
        return Inference(
            x=torch.as_tensor(np.nan_to_num(found.flow)).to(like),
            status=torch.as_tensor(found.status, device=like.device),
            residual=torch.as_tensor(found.gap).to(like),
            steps=torch.as_tensor(found.steps, device=like.device),
            data=cost,
        )

    def splitting(
        self,
        F: AbstractMonotone,
        like: Tensor,
        *,
        trips: Float[Tensor, "*B zones zones"] | None = None,
        closed: Bool[Tensor, "*B E"] | None = None,
    ) -> DavisYin:
        """The splitting over blocks in units of the links, in the dtype and on the device of `like`."""
        trips = torch.as_tensor(self.network.trips).to(like) if trips is None else trips
        problem = Problem(
            F=BlockSum(InUnits(F, self.flows.units(like)), self.flows.blocks),
            g=self.flows.bounds(like, closed),
            h=self.flows.conservation(trips),
        )
        return DavisYin(problem, step="auto" if self.step is None else self.step)

    def total(self, blocks: Float[Tensor, "B K E"]) -> Float[Tensor, "B E"]:
        """Total flows of blocks in units of the links."""
        return self.flows.units(blocks) * blocks.sum(1)

    def extra_repr(self) -> str:
        """Sizes and options, for `print`."""
        form = "exact" if self.exact else "Davis-Yin"
        return f"{self.network.name}, K={self.flows.blocks}, E={self.flows.edges}, {form}, backward={self.backward}"

    def _solve(
        self,
        F: AbstractMonotone,
        trips: Tensor | None,
        closed: Tensor | None,
        start: Tensor | None,
    ) -> tuple[Solution, DavisYin]:
        like = _like(F, start)
        with torch.autocast(like.device.type, enabled=False):
            splitting = self.splitting(F, like, trips=trips, closed=closed)
            if start is None and self.exact and isinstance(F, PolynomialCost):
                start = fixed_points(
                    self.network,
                    self.flows,
                    F,
                    splitting.step_size,
                    like,
                    trips=trips,
                    closed=closed,
                    gap=self.gap,
                    start=self._paths,
                )
            if start is None:
                start = like.new_zeros(len(like), self.flows.blocks, self.flows.edges)
            solution = solve(splitting, start, solver=self.solver, backward=self.backward, on_failure="ignore")
        report(solution, self.solver, self.on_failure)
        return replace(solution, x=self.total(solution.x)), splitting


def _like(F: AbstractMonotone, start: Tensor | None) -> Tensor:
    """A batch of rows: how many samples there are, in which dtype and where."""
    if start is not None:
        return start.detach()[:, 0]
    if isinstance(F, PolynomialCost):
        return F.constant.detach().new_zeros(F.batch, F.constant.shape[-1])
    raise ValueError(f"EquilibriumLayer needs a start, whose batch size is that of {type(F).__name__}, to begin with.")
