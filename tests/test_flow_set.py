"""Flows by origin: the projection against a dense least-norm solution, centroids and closed links, per-sample trips."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import implicit_l2o as il2o
from implicit_l2o.games import OriginFlows

# Two centroids 0 and 1 whose only thoroughfare is 2 - 3; 4 and 5 are parallel.
TAIL, HEAD = np.array([0, 2, 3, 2, 2, 1, 3, 1]), np.array([2, 0, 2, 3, 3, 3, 1, 0])


def graph(**options) -> OriginFlows:
    return OriginFlows(nodes=4, tail=TAIL, head=HEAD, origins=np.array([0, 1]), zones=2, first_thru=2, **options)


def random_graph(seed: int) -> OriginFlows:
    """A ring, so that all nodes hang together, with chords."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 9))
    ring = np.arange(n)
    more = rng.integers(0, n, (2, int(rng.integers(1, 8))))
    more = more[:, more[0] != more[1]]
    tail, head = np.concatenate([ring, more[0]]), np.concatenate([(ring + 1) % n, more[1]])
    unit = rng.uniform(0.5, 3.0, len(tail))
    return OriginFlows(nodes=n, tail=tail, head=head, origins=np.arange(3), zones=3, unit=unit)


def incidence(flows: OriginFlows) -> torch.Tensor:
    N = torch.zeros(flows.nodes, flows.edges, dtype=torch.float64)
    for e, (i, j) in enumerate(zip(flows.tail, flows.head, strict=True)):
        N[i, e] -= 1
        N[j, e] += 1
    return N


@given(seed=st.integers(0, 10_000))
def test_the_projection_is_the_nearest_conserved_flow_in_units_of_the_links(seed):
    flows = random_graph(seed)
    torch.manual_seed(seed)
    trips = torch.rand(2, 3, 3, dtype=torch.float64)
    x = torch.randn(2, 3, flows.edges, dtype=torch.float64)
    y = flows.conservation(trips).project(x)
    A = incidence(flows) * flows.units(x)
    torch.testing.assert_close(y @ A.mT, flows.supply(trips))
    expected = x - (x @ A.mT - flows.supply(trips)) @ torch.linalg.pinv(A).mT
    torch.testing.assert_close(y, expected)


def test_the_supply_is_minus_all_trips_at_the_origin_and_the_trips_at_the_destinations():
    trips = torch.tensor([[7.0, 2.0], [3.0, 0.0]])
    assert graph().supply(trips).tolist() == [[-2.0, 2.0, 0.0, 0.0], [3.0, -3.0, 0.0, 0.0]]


def test_no_block_passes_through_a_centroid_nor_returns_to_its_origin():
    usable = graph().usable
    for k, origin in enumerate((0, 1)):
        for e, (i, j) in enumerate(zip(TAIL, HEAD, strict=True)):
            assert usable[k, e] == ((i >= 2 or i == origin) and j != origin)


def test_bounds_keep_blocks_off_what_they_may_not_use():
    flows = graph()
    closed = torch.zeros(2, 8, dtype=torch.bool)
    closed[1, 3] = True
    x = torch.full((2, 2, 8), 2.0)
    x[0, 0, 0] = -1.0
    y = flows.bounds(x, closed).project(x)
    usable = torch.as_tensor(flows.usable).expand(2, 2, 8) & ~closed[:, None]
    assert torch.equal(y > 0, usable & (x > 0))
    assert float(y.min()) == 0.0


def test_a_batch_is_its_samples():
    flows = random_graph(3)
    trips, x = torch.rand(3, 3, 3), torch.randn(3, 3, flows.edges)
    together = flows.conservation(trips)
    for i in range(3):
        torch.testing.assert_close(together.project(x)[i : i + 1], flows.conservation(trips[i]).project(x[i : i + 1]))
        one = together.restrict(torch.tensor([i])).project(x[i : i + 1])
        torch.testing.assert_close(together.project(x)[i : i + 1], one)


def test_trips_carry_a_gradient():
    flows = random_graph(1)
    trips = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 3, flows.edges, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: flows.conservation(t).project(x), (trips,))


def test_a_large_network_has_a_sparse_factor():
    n = 500
    ring = np.arange(n)
    flows = OriginFlows(
        nodes=n,
        tail=np.concatenate([ring, (ring + 1) % n]),
        head=np.concatenate([(ring + 1) % n, ring]),
        origins=np.arange(2),
        zones=2,
    )
    trips = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    conserved = flows.conservation(trips)
    assert float(conserved.violation(conserved.project(torch.randn(1, 2, 2 * n).double())).max()) < 1e-10


def test_trips_that_no_link_can_carry_are_refused():
    apart = OriginFlows(nodes=4, tail=np.array([0, 2]), head=np.array([1, 3]), origins=np.array([0]), zones=4)
    trips = torch.zeros(4, 4)
    trips[0, 2] = 1.0
    with pytest.raises(ValueError, match="some lead where no link does"):
        apart.conservation(trips)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tail": np.array([0, 9])}, "tail as a vector of nodes 0 to 3"),
        ({"head": np.array([0])}, "8 tails and 1 heads"),
        ({"origins": np.array([2])}, "origins as a vector of nodes 0 to 1"),
        ({"first_thru": 5}, "first_thru=5"),
        ({"unit": np.zeros(8)}, "positive, finite unit for each of 8 links"),
    ],
)
def test_bad_graphs_are_refused(change, message):
    fields = {"nodes": 4, "tail": TAIL, "head": HEAD, "origins": np.array([0]), "zones": 2}
    with pytest.raises(ValueError, match=message):
        OriginFlows(**(fields | change))


@pytest.mark.bad_input
def test_bad_shapes_are_refused():
    flows = graph()
    with pytest.raises(ValueError, match=r"trips of shape \(2, 2\)"):
        flows.supply(torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"\(B, 2, 8\); got \(1, 8\)"):
        flows.conservation(torch.zeros(2, 2)).project(torch.zeros(1, 8))
    with pytest.raises(ValueError, match="closed as booleans"):
        flows.bounds(torch.zeros(1), torch.zeros(8))
    assert isinstance(flows.bounds(torch.zeros(1)), il2o.Box)
