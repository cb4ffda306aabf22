"""Observed decisions of an agent whose cost is partly known: contexts, constraints, and the optimal decisions.

    x(d, b) = argmin_{x in C(b)}  known(x) + hidden(x; d)

The known part is a tariff with a strongly convex handling cost. The hidden part has prices that depend on the context and
roads that congest beyond a capacity that depends on the context: convex, not quadratic, and coupled across the entries
of x. A learner sees `(d, b, x)` and the known part only. The constraints change from sample to sample (totals `b`), so
that a model has to know how the cost bends, not only where its minimum lies.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o

PRECISE = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-10, rtol=0.0, max_steps=100_000, check_every=50))


@dataclass(frozen=True, eq=False)
class CongestionCost(il2o.AbstractSmooth):
    """`f(x) = price.x + (stiffness / 2) sum_k max((R x)_k - capacity_k, 0)^2`: the hidden cost.

    Args:
        price: `(B, n)`, cost a unit.
        capacity: `(B, k)`, load of each road beyond which it congests.
        roads: `R`, `(k, n)`: which entry of x uses which road, of norm at most 1.
        stiffness: cost of congestion, positive.
    """

    price: Tensor = field(metadata=il2o.VECTOR)
    capacity: Tensor = field(metadata=il2o.DATA)
    roads: Tensor = field(metadata=il2o.MATRIX)
    stiffness: float = 6.0

    @property
    def lipschitz(self) -> float:
        """The stiffness, as `|R| <= 1`."""
        return self.stiffness

    def value(self, x: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
        """`f(x)`, per sample."""
        return (self.price * x).sum(-1) + 0.5 * self.stiffness * self._excess(x).square().sum(-1)

    def apply(self, x: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
        """`price + stiffness R^T max(R x - capacity, 0)`."""
        return self.price + self.stiffness * self._excess(x) @ self.roads

    def _excess(self, x: Tensor) -> Tensor:
        return (x @ self.roads.T - self.capacity).clamp_min(0)


@dataclass(frozen=True)
class Decisions:
    """Observations: contexts `(N, contexts)`, totals `b` `(N, m)`, and the optimal decisions x `(N, n)`."""

    contexts: Float[Tensor, "N c"]
    totals: Float[Tensor, "N m"]
    decisions: Float[Tensor, "N n"]

    def __len__(self) -> int:
        return len(self.contexts)


class DecisionTask:
    """A set of constraints `C(b) = {x >= 0, A x = b}`, the known cost, and the hidden one.

    Two tasks are made by the class methods: `allocation` (a budget, the simplex) and `transport` (a transportation
    polytope). All random numbers come from `seed`; tensors are float64.

    Args:
        constraints: `A`, `(m, n)`, of full row rank.
        capacity: largest capacity of a road; where it is small, congestion decides.
        seed: of the hidden cost and the tariff.

    Example:
        >>> from implicit_l2o.data.decisions import DecisionTask
        >>> task = DecisionTask.transport(plants=2, customers=3, seed=0)
        >>> data = task.sample(4, seed=1)
        >>> data.decisions.shape, bool(task.violation(data.decisions, data.totals).max() < 1e-8)
        (torch.Size([4, 6]), True)
    """

    n_contexts = 3
    n_roads = 8
    handling = 0.5  # the known strong convexity

    def __init__(self, constraints: Float[Tensor, "m n"], *, capacity: float, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        n = constraints.shape[1]
        self.constraints = constraints
        self.capacity = capacity
        self._set = il2o.AffineSet(constraints, constraints.new_zeros(len(constraints)))  # factorised once
        self.tariff = 0.2 * torch.rand(n, generator=generator, dtype=torch.float64)
        used = torch.rand(self.n_roads, n, generator=generator, dtype=torch.float64) < 0.4
        roads = used.to(torch.float64)
        self.roads = roads / torch.linalg.matrix_norm(roads, ord=2)
        self._price_map = torch.randn(n, self.n_contexts, generator=generator, dtype=torch.float64)
        self._capacity_map = torch.randn(self.n_roads, self.n_contexts, generator=generator, dtype=torch.float64)

    @classmethod
    def allocation(cls, *, projects: int = 12, seed: int = 0) -> "DecisionTask":
        """A budget `b` divided among projects: `x >= 0`, `sum x = b`, `b` uniform in [1, 3]."""
        return cls(torch.ones(1, projects, dtype=torch.float64), capacity=0.3, seed=seed)

    @classmethod
    def transport(cls, *, plants: int = 4, customers: int = 5, seed: int = 0) -> "DecisionTask":
        """Goods from plants to customers: row sums are supplies, column sums demands; `x[i, j]` is `i * customers + j`.

        The last demand follows from the others and is left out, so that the rows are independent.
        """
        supply = torch.kron(torch.eye(plants), torch.ones(1, customers))
        demand = torch.kron(torch.ones(1, plants), torch.eye(customers))
        return cls(torch.cat([supply, demand[:-1]]).to(torch.float64), capacity=0.45, seed=seed)

    @property
    def n(self) -> int:
        """Entries of a decision."""
        return self.constraints.shape[1]

    @property
    def is_simplex(self) -> bool:
        """Whether `C(b)` is a simplex, whose projection is in closed form."""
        return self.constraints.shape[0] == 1

    @property
    def known(self) -> il2o.AbstractSmooth:
        """The expert's term `tariff.x + (handling / 2) |x|^2`."""
        return il2o.QuadraticCost(linear=self.tariff, diagonal=self.handling)

    def hidden(self, contexts: Float[Tensor, "B c"]) -> CongestionCost:
        """The hidden cost at the given contexts."""
        price = torch.tanh(contexts @ self._price_map.T / 2)
        capacity = self.capacity * torch.sigmoid(contexts @ self._capacity_map.T)
        return CongestionCost(price=price, capacity=capacity, roads=self.roads)

    def cost(self, x: Float[Tensor, "B n"], contexts: Float[Tensor, "B c"]) -> Float[Tensor, " B"]:
        """The true total cost of decisions."""
        return self.hidden(contexts).value(x) + self.known.value(x)

    def splitting(self, cost: il2o.AbstractSmooth, totals: Float[Tensor, "B m"]) -> il2o.AbstractSplitting:
        """Davis-Yin for `argmin {cost(x) + known(x) : x >= 0, A x = b}`, for the hidden cost or a learned one."""
        problem = il2o.Problem(
            F=il2o.SmoothSum((cost, self.known)), g=il2o.NonnegativeOrthant(), h=self._set.with_rhs(totals)
        )
        return il2o.DavisYin(problem)

    def solve(self, cost: il2o.AbstractSmooth, totals: Float[Tensor, "B m"]) -> Float[Tensor, "B n"]:
        """The minimiser of `cost + known` over `C(b)` to 1e-10, without a graph; the tests compare it with SciPy's SLSQP."""
        start = totals.new_zeros(len(totals), self.n)
        with torch.no_grad():
            return il2o.solve(self.splitting(cost, totals), start, solver=PRECISE, on_failure="raise").x

    def project(self, x: Float[Tensor, "B n"], totals: Float[Tensor, "B m"]) -> Float[Tensor, "B n"]:
        """The nearest point of `C(b)`, to 1e-10: makes an infeasible prediction comparable."""
        distance = il2o.QuadraticCost(linear=-x, diagonal=1.0)
        problem = il2o.Problem(F=distance, g=il2o.NonnegativeOrthant(), h=self._set.with_rhs(totals))
        with torch.no_grad():
            return il2o.solve(il2o.DavisYin(problem), x, solver=PRECISE, on_failure="raise").x

    def sample(self, count: int, *, seed: int, scale: float = 1.0) -> Decisions:
        """Draw contexts and totals, and observe the optimal decisions.

        Args:
            count: number of observations.
            seed: of this draw.
            scale: multiplies the totals; above 1 it makes demands that no training draw has seen.
        """
        generator = torch.Generator().manual_seed(seed)
        contexts = torch.randn(count, self.n_contexts, generator=generator, dtype=torch.float64)
        if self.is_simplex:
            totals = 1 + 2 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
        else:
            # Row and column sums of a positive matrix: always feasible.
            flow = torch.rand(count, self.n, generator=generator, dtype=torch.float64)
            size = 0.5 + torch.rand(count, 1, generator=generator, dtype=torch.float64)
            totals = size * flow.square() @ self.constraints.T
        totals = scale * totals
        return Decisions(contexts, totals, self.solve(self.hidden(contexts), totals))

    def violation(self, x: Float[Tensor, "B n"], totals: Float[Tensor, "B m"]) -> Float[Tensor, " B"]:
        """`|A x - b|` and `|min(x, 0)|` together, Euclidean."""
        gap = x @ self.constraints.T.to(x) - totals
        return (gap.square().sum(-1) + x.clamp_max(0).square().sum(-1)).sqrt()
