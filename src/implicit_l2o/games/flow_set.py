"""Link flows by origin, `(B, K, E)`: who may use which link, and the projection onto the conservation of each flow.

One block for every origin, not for every pair of zones: flows that start together need not be told apart, so the same link
flows are feasible, in 20 to 37 times less memory on the public road networks. Ahuja, Magnanti and Orlin, Network Flows
(1993), section 1.2.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from implicit_l2o._batch import MATRIX
from implicit_l2o.games.traffic_network import TrafficNetwork
from implicit_l2o.operators.affine import AffineSet, affine_factor
from implicit_l2o.operators.base import AbstractSet
from implicit_l2o.operators.box import Box


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class OriginFlows:
    """The links of a network and its origins; the node Laplacian is factorised once, when it is first used.

    A block `x_k` holds the flow of every link that began at origin `k`. It conserves flow, `N x_k = b_k`, where `N` is the
    incidence of nodes and links (-1 at the tail, +1 at the head); it is nonnegative, and zero on links that it may not use:

    - a link out of a centroid other than the origin, for no path passes through a centroid,
    - a link back into the origin, which no path needs,
    - a closed link.

    These are bounds of single links (`usable`), so a splitting that keeps the box exactly keeps them exactly, and all
    blocks share one Laplacian, whatever is closed.

    Latent memory of a solve: `K E` numbers a sample, 34,732 for Anaheim's 38 origins and 914 links; the factor takes `E^2`
    numbers up to 400 links, `n^2` up to 400 nodes, and the fill of a sparse factor above.

    Args:
        nodes: number of nodes `n`.
        tail: where every link begins, from 0.
        head: where it ends.
        origins: of the blocks, ascending.
        zones: nodes below it are where trips begin and end.
        first_thru: nodes below it are centroids.
        unit: of every link's flow, positive: the projection is nearest in the metric `sum_e (x_e / unit_e)^2`, and blocks
            are measured in it. None is 1 for every link. A larger unit lets a link's flow move further in one step.

    Raises:
        ValueError: a node does not exist, shapes do not fit, or a unit is not positive.

    Example:
        >>> import numpy as np, torch
        >>> from implicit_l2o.games import OriginFlows
        >>> two_roads = OriginFlows(nodes=2, tail=np.array([0, 0]), head=np.array([1, 1]), origins=np.array([0]), zones=2)
        >>> conserved = two_roads.conservation(torch.tensor([[0.0, 3.0], [0.0, 0.0]]))
        >>> conserved.project(torch.tensor([[[0.0, 1.0]]])).round(decimals=3)
        tensor([[[1., 2.]]])
    """

    nodes: int
    tail: Int[np.ndarray, " E"] = field(repr=False)
    head: Int[np.ndarray, " E"] = field(repr=False)
    origins: Int[np.ndarray, " K"] = field(repr=False)
    zones: int
    first_thru: int = 0
    unit: Float[np.ndarray, " E"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, values, limit in (
            ("tail", self.tail, self.nodes),
            ("head", self.head, self.nodes),
            ("origins", self.origins, self.zones),
        ):
            if values.ndim != 1 or len(values) == 0 or not ((values >= 0) & (values < limit)).all():
                raise ValueError(f"OriginFlows needs {name} as a vector of nodes 0 to {limit - 1}; got {values}.")
        if self.tail.shape != self.head.shape:
            raise ValueError(
                f"OriginFlows has {len(self.tail)} tails and {len(self.head)} heads; they must be as many."
            )
        if not 1 <= self.zones <= self.nodes or not 0 <= self.first_thru <= self.nodes:
            raise ValueError(
                f"OriginFlows needs 1 <= zones and 0 <= first_thru, both at most nodes = {self.nodes}; got "
                f"zones={self.zones}, first_thru={self.first_thru}."
            )
        if self.unit is not None and (
            self.unit.shape != self.tail.shape or not ((self.unit > 0) & np.isfinite(self.unit)).all()
        ):
            raise ValueError(f"OriginFlows needs a positive, finite unit for each of {len(self.tail)} links.")

    @classmethod
    def of(cls, network: TrafficNetwork, *, unit: Float[np.ndarray, " E"] | None = None) -> "OriginFlows":
        """Those of a road network, with a block for every origin of its own trips."""
        return cls(
            nodes=network.nodes,
            tail=network.tail,
            head=network.head,
            origins=network.origins,
            zones=network.zones,
            first_thru=network.first_thru,
            unit=unit,
        )

    @property
    def edges(self) -> int:
        """Number of links `E`."""
        return len(self.tail)

    @property
    def blocks(self) -> int:
        """Number of origins `K`."""
        return len(self.origins)

    @cached_property
    def usable(self) -> Bool[np.ndarray, "K E"]:
        """Which links each origin's flow may use."""
        origin = self.origins[:, None]
        through = (self.tail >= self.first_thru) | (self.tail == origin)
        return through & (self.head != origin)

    @cached_property
    def _kept(self) -> dict[Any, Any]:
        return {}

    def _factor(self, like: Tensor) -> Any:
        """Of the incidence in units of the links, in the dtype and on the device of `like`."""
        import scipy.sparse

        key = like.dtype, like.device
        if key not in self._kept:
            unit = np.ones(self.edges) if self.unit is None else self.unit
            link = np.arange(self.edges)
            entries = np.concatenate([-unit, unit]), (np.concatenate([self.tail, self.head]), np.tile(link, 2))
            incidence = scipy.sparse.csr_array(entries, shape=(self.nodes, self.edges))
            self._kept[key] = affine_factor(incidence, dtype=like.dtype, device=like.device)
        return self._kept[key]

    def supply(self, trips: Float[Tensor, "*B zones zones"]) -> Float[Tensor, "*B K nodes"]:
        """The right-hand sides `b_k`: what arrives at each node minus what leaves it; trips within a zone are left out.

        Args:
            trips: from each zone (row) to each zone (column), shared or per sample.

        Raises:
            ValueError: the shape is another one.
        """
        if trips.ndim not in (2, 3) or trips.shape[-2:] != (self.zones, self.zones):
            raise ValueError(
                f"OriginFlows needs trips of shape ({self.zones}, {self.zones}), or that for each sample; got "
                f"{tuple(trips.shape)}."
            )
        origins = torch.as_tensor(self.origins, device=trips.device)
        away = 1.0 - torch.eye(self.zones, dtype=trips.dtype, device=trips.device)
        rows = (trips * away).index_select(-2, origins)
        supply = torch.nn.functional.pad(rows, (0, self.nodes - self.zones))
        at_origin = torch.nn.functional.one_hot(origins, self.nodes).to(trips)
        return supply - at_origin * rows.sum(-1, keepdim=True)

    def conservation(self, trips: Float[Tensor, "*B zones zones"]) -> "Conservation":
        """The set `{x : N x_k = b_k for every origin k}` for a table of trips, shared or per sample."""
        return Conservation(self, self.supply(trips))

    def bounds(self, like: Tensor, closed: Bool[Tensor, "*B E"] | None = None) -> Box:
        """The set `{x : x >= 0, x_ke = 0 where origin k may not use link e}`.

        Args:
            like: gives the dtype and the device.
            closed: links that are closed, shared or per sample.

        Raises:
            ValueError: `closed` is not one flag for every link.
        """
        usable = torch.as_tensor(self.usable, device=like.device)[None]
        if closed is not None:
            if closed.ndim not in (1, 2) or closed.shape[-1] != self.edges or closed.dtype != torch.bool:
                raise ValueError(
                    f"OriginFlows needs closed as booleans ({self.edges},) or (B, {self.edges}); got {closed.dtype} "
                    f"{tuple(closed.shape)}."
                )
            usable = usable & ~closed.reshape(-1, 1, self.edges)
        if bool(usable.all()):
            return Box(lower=0.0)
        return Box(lower=0.0, upper=torch.where(usable, math.inf, 0.0).to(like))

    def potential_drops(self, potentials: Float[Tensor, "*B K nodes"]) -> Float[Tensor, "*B K E"]:
        """`N^T pi_k`: how much each origin's potential rises along every link."""
        tail, head = (torch.as_tensor(end, device=potentials.device) for end in (self.tail, self.head))
        return potentials.index_select(-1, head) - potentials.index_select(-1, tail)

    def units(self, like: Tensor) -> Float[Tensor, " E"]:
        """The unit of every link."""
        return torch.ones(self.edges).to(like) if self.unit is None else torch.as_tensor(self.unit).to(like)


@final
@dataclass(frozen=True, eq=False)
class Conservation(AbstractSet):
    """The affine set `{x : N x_k = b_k for every origin k}` of flows by origin `(B, K, E)`, in units of the links.

    Every block is projected by the same factor; `OriginFlows.conservation` makes it from a table of trips.

    Args:
        flows: the links and origins.
        supply: `b`, `(K, nodes)` shared or `(B, K, nodes)`; it may require grad.

    Raises:
        ValueError: shapes do not fit, or the flow cannot be conserved: what leaves a connected part of the network does not
            arrive in it.

    Example:
        >>> import numpy as np, torch
        >>> from implicit_l2o.games import OriginFlows
        >>> line = OriginFlows(nodes=2, tail=np.array([0, 0]), head=np.array([1, 1]), origins=np.array([0]), zones=2)
        >>> line.conservation(torch.tensor([[0.0, 2.0], [0.0, 0.0]])).violation(torch.zeros(1, 1, 2)).round(decimals=3)
        tensor([1.4140])
    """

    flows: OriginFlows
    supply: Tensor = field(metadata=MATRIX)
    point: Tensor = field(init=False, repr=False, metadata=MATRIX)  # of least norm, in units of the links

    def __post_init__(self) -> None:
        shape = (self.flows.blocks, self.flows.nodes)
        if self.supply.ndim not in (2, 3) or self.supply.shape[-2:] != shape:
            raise ValueError(
                f"Conservation needs a supply of shape {shape} or (B, *{shape}); got {tuple(self.supply.shape)}."
            )
        rows = self.supply.reshape(-1, self.flows.nodes)
        try:
            least = AffineSet(self.flows._factor(self.supply), rows).point
        except ValueError as error:
            raise ValueError(f"the trips cannot be conserved: some lead where no link does. {error}") from error
        object.__setattr__(self, "point", least.reshape(*self.supply.shape[:-1], self.flows.edges))

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`x_k - N^+ (N x_k - b_k)` for every block."""
        shape = (self.flows.blocks, self.flows.edges)
        if x.shape[1:] != shape:
            raise ValueError(
                f"Conservation acts on flows by origin, (B, {shape[0]}, {shape[1]}); got {tuple(x.shape)}."
            )
        rows = x.reshape(-1, shape[1])
        point = self.point.expand(x.shape).reshape(rows.shape)
        return self.flows._factor(x).project(rows, point).reshape(x.shape)
