"""Arbitrage: the sets and the layer against slow oracles, the published data, bad input, and a small training."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import implicit_l2o as il2o
from implicit_l2o.applications.arbitrage import ArbitrageData, ArbitrageLayer, ArbitrageTask, Market, optimal_trade
from implicit_l2o.applications.arbitrage.abstention import abstention
from implicit_l2o.applications.arbitrage.certificates import ChanceOfRefusal, FallAsSeen, LearnedRisk, LossOfUtility
from implicit_l2o.applications.arbitrage.sets import LostUtility, PoolLimits, TradeBalance, project_log
from implicit_l2o.data.arbitrage import draw, published_network
from implicit_l2o.data.pools import Pool, PoolNetwork, network_from_graph, read_network, read_reserves
from implicit_l2o.training import Samples, fit

needs_cvxpy = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("cvxpy", "clarabel")),
    reason="the truth is computed by CVXPY with Clarabel, which are not installed",
)


def random_network(seed: int) -> tuple[PoolNetwork, torch.Tensor]:
    """Two to five connected pools of both kinds over two to five tokens, and three snapshots of reserves."""
    random = np.random.default_rng(seed)
    tokens = [f"t{i}" for i in range(random.integers(2, 6))]
    pools = []
    for j in range(random.integers(2, 6)):
        size = len(tokens) if j == 0 else int(random.integers(2, len(tokens) + 1))
        chosen = tuple(random.permutation(tokens)[:size].tolist())
        kind = ("geometric", "arithmetic")[int(random.random() < 0.3)]
        fee = float(random.choice([1.0, 0.997, 0.97]))
        pools.append(Pool(kind, chosen, tuple(random.uniform(0.2, 1.0, size).tolist()), fee))  # pyright: ignore[reportArgumentType]
    network = PoolNetwork({token: float(random.uniform(0.5, 3.0)) for token in tokens}, tuple(pools))
    reserves = torch.from_numpy(random.uniform(10.0, 60.0, (3, len(network.places))))
    return network, reserves


def cvxpy_trade(
    network: PoolNetwork, reserves: torch.Tensor, W: torch.Tensor, slack: torch.Tensor
) -> tuple[float, np.ndarray]:
    """The optimal objective and trade of one sample, stated in tokens and solved by an interior-point method."""
    import cvxpy as cp

    d, p = reserves.numpy(), network.price_vector().numpy()
    x, y = cp.Variable(len(d), nonneg=True), cp.Variable(len(d), nonneg=True)
    constraints, at = [], 0
    for pool, delta in zip(network.pools, slack.tolist(), strict=True):
        here = slice(at, at + len(pool.tokens))
        at += len(pool.tokens)
        after = d[here] + pool.fee * x[here] - y[here]
        w = np.array(pool.weights)
        if pool.kind == "geometric":
            constraints.append(w @ cp.log(after) >= w @ np.log(d[here]) + w.sum() * math.log1p(delta))
        else:
            constraints.append(w @ after >= (1 + delta) * (w @ d[here]))
        constraints.append(y[here] <= (1 - delta) * d[here])
    objective = p @ (y - x) - cp.sum_squares(W.numpy() @ (x - y)) / 2
    problem = cp.Problem(cp.Maximize(objective), constraints)
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == "optimal"
    assert x.value is not None
    assert y.value is not None
    return float(problem.value), np.stack([x.value, y.value])  # pyright: ignore[reportArgumentType]


# The sets.


def slow_projection(q: float, z: float) -> tuple[float, float]:
    """Bisection on the point of the curve, `s` its logarithm."""
    if q > 0 and z <= math.log(q):
        return q, z
    low, high = min(z, -1.0) - abs(z) - 60, z
    high = min(high, 300.0)
    for _ in range(200):
        s = (low + high) / 2
        low, high = (low, s) if math.exp(s) * (math.exp(s) - q) + s - z > 0 else (s, high)
    return math.exp(low), low


@given(st.floats(-1e3, 1e3), st.floats(-30, 200))
def test_the_projection_onto_the_logarithm(q: float, z: float) -> None:
    found = project_log(torch.tensor([q], dtype=torch.float64), torch.tensor([z], dtype=torch.float64))
    expected = slow_projection(q, z)
    for got, want in zip(found, expected, strict=True):
        assert float(got) == pytest.approx(want, rel=1e-8, abs=1e-9)


def test_the_projection_has_two_derivatives() -> None:
    q = torch.tensor([-3.0, 0.1, 1.0, 1.0, 2.0, 50.0], dtype=torch.float64, requires_grad=True)
    z = torch.tensor([0.3, 0.2, 0.4, -1.0, 0.2, 6.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(project_log, (q, z))
    assert torch.autograd.gradgradcheck(project_log, (q, z))


def sets(seed: int) -> tuple[PoolNetwork, torch.Tensor, torch.Tensor, PoolLimits, TradeBalance]:
    network, reserves = random_network(seed)
    slack = 0.02 * torch.rand(3, len(network.pools), generator=torch.Generator().manual_seed(seed)).double()
    structure = Market.of(network).structure
    return network, reserves, slack, PoolLimits(structure, reserves, slack), TradeBalance(structure, slack)


@needs_cvxpy
@pytest.mark.parametrize("seed", range(3))
def test_both_sets_against_a_solver(seed: int) -> None:
    import cvxpy as cp

    network, reserves, slack, limits, balance = sets(seed)
    size = len(network.places)
    points = 0.3 * torch.randn(3, 4 * size, generator=torch.Generator().manual_seed(seed)).double()
    found = {"limits": limits.project(points), "balance": balance.project(points)}
    for sample in range(3):
        xi = cp.Variable(4 * size)
        v, x, y, z = (xi[i * size : (i + 1) * size] for i in range(4))
        inside: dict[str, list[cp.Constraint]] = {"limits": [x >= 0, y >= 0], "balance": []}
        at = 0
        for pool, delta in zip(network.pools, slack[sample].tolist(), strict=True):
            here = slice(at, at + len(pool.tokens))
            at += len(pool.tokens)
            w, d = np.array(pool.weights), reserves[sample, here].numpy()
            inside["limits"].append(y[here] <= 1 - delta)
            inside["balance"].append(v[here] == pool.fee * x[here] - y[here])
            if pool.kind == "geometric":
                inside["limits"].append(z[here] <= cp.log(1 + v[here]))
                inside["balance"].append(w @ z[here] == w.sum() * math.log1p(delta))
            else:
                inside["limits"].append((w * d) @ v[here] >= delta * (w @ d))
        for name, constraints in inside.items():
            cp.Problem(cp.Minimize(cp.sum_squares(xi - points[sample].numpy())), constraints).solve(solver=cp.CLARABEL)
            assert xi.value is not None
            assert np.abs(found[name][sample].numpy() - xi.value).max() < 1e-5, name


@pytest.mark.parametrize("seed", range(4))
def test_the_sets_obey_the_laws_of_projections(seed: int) -> None:
    """Idempotent, firmly nonexpansive, a batch is a loop, restriction, and derivatives."""
    *_, limits, balance = sets(seed)
    size = 4 * limits.reserves.shape[1]
    random = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(3, size, generator=random).double() for _ in range(2))
    for set_ in (limits, balance):
        pa, pb = set_.project(a), set_.project(b)
        assert torch.allclose(set_.project(pa), pa, atol=1e-12)
        assert bool((((pa - pb) * (a - b)).sum(1) >= ((pa - pb) ** 2).sum(1) - 1e-10).all())
        for i in range(3):
            assert torch.allclose(set_.restrict(torch.tensor([i])).project(a[i : i + 1]), pa[i : i + 1], atol=1e-13)
        assert torch.autograd.gradcheck(set_.project, 0.3 * a.clone().requires_grad_())


def test_the_learned_utility_is_what_its_gradient_says() -> None:
    network, reserves = random_network(1)
    size = len(network.places)
    W = 0.1 * torch.randn(size, size, generator=torch.Generator().manual_seed(0)).double()
    lost = LostUtility(network.price_vector(), reserves, W, torch.tensor([1.0, 2.0, 30.0]).double())
    xi = torch.randn(3, 4 * size, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    [slope] = torch.autograd.grad(lost.value(xi).sum(), xi)
    assert torch.allclose(slope, lost.apply(xi))
    for i in range(3):
        alone = lost.restrict(torch.tensor([i]))
        exact = torch.autograd.functional.hessian(lambda x, alone=alone: alone.value(x[None])[0], xi[i].detach())
        assert isinstance(exact, torch.Tensor)
        assert float(torch.linalg.matrix_norm(exact, ord=2)) == pytest.approx(float(lost.lipschitz[i]))


# The layer.


def set_parameters(layer: ArbitrageLayer, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.risk.copy_(torch.randn(layer.risk.shape, generator=random).double())
        layer.log_slack.copy_((1e-4 + 0.01 * torch.rand(layer.log_slack.shape, generator=random).double()).log())


@needs_cvxpy
@pytest.mark.parametrize("seed", range(4))
def test_the_layer_finds_the_optimum(seed: int) -> None:
    network, reserves = random_network(seed)
    layer = ArbitrageLayer(network, risk=0.05, tolerance=1e-8)
    set_parameters(layer, seed)
    with torch.no_grad():
        found, W = layer.inference(reserves), layer.W()
    assert bool(found.valid.all())
    paid = found.x[:, 0] - found.x[:, 1]
    value = layer.market.utility(found.x) - 0.5 * (paid @ W.mT).square().sum(1)
    for sample in range(3):
        best, _ = cvxpy_trade(network, reserves[sample], W, layer.slack().detach())
        assert float(value[sample]) == pytest.approx(best, rel=1e-4, abs=1e-4)
    assert float((-layer.market.rises(found.x, reserves)).max()) < 1e-6
    assert bool((found.x >= 0).all())
    assert float(-layer.market.left(found.x, reserves).min()) < 1e-6


@needs_cvxpy
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("slack", [0.0, 0.01])
def test_the_analytic_trade_is_the_optimum_without_risk(seed: int, slack: float) -> None:
    network, reserves = random_network(seed)
    market = Market.of(network)
    found = market.utility(optimal_trade(market, reserves, slack))
    zero = torch.zeros(len(network.places), len(network.places), dtype=torch.float64)
    for sample in range(3):
        best, _ = cvxpy_trade(network, reserves[sample], zero, torch.full((len(network.pools),), slack))
        assert float(found[sample]) == pytest.approx(best, rel=1e-6, abs=1e-5)


def test_the_gradient_of_the_layer_is_that_of_differences() -> None:
    seen = draw(2).observed.double()
    layer = ArbitrageLayer(published_network(), tolerance=1e-9)
    with torch.no_grad():
        layer.risk.add_(0.1)
    weight = torch.tensor([-1.0, 0.5]).double()

    def loss() -> torch.Tensor:
        return (layer.market.utility(layer(seen)) * weight).sum()

    loss().backward()
    for parameter, step in ((layer.log_slack, 1e-4), (layer.risk, 1e-4)):
        assert parameter.grad is not None
        for i in (0, parameter.numel() - 1):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter[i] += sign * step
                    values.append(float(loss()))
                    parameter[i] -= sign * step
            assert float(parameter.grad[i]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-3, abs=1e-4)


def test_a_batch_is_a_loop() -> None:
    seen = draw(3).observed.double()
    layer = ArbitrageLayer(published_network(), tolerance=1e-8)
    with torch.no_grad():
        together = layer(seen)
        alone = torch.cat([layer(seen[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_the_layer_has_few_numbers_and_the_conditioned_one_five_more() -> None:
    count = [
        sum(p.numel() for p in ArbitrageLayer(published_network(), volatility=v).parameters()) for v in (False, True)
    ]
    assert count == [30, 35]
    layer = ArbitrageLayer(published_network(), volatility=True)
    with torch.no_grad():
        layer.power.fill_(1.0)  # pyright: ignore[reportOptionalMemberAccess]
    slack = layer.slack(torch.tensor([[5e-4], [1e-3]]))
    assert torch.allclose(slack[1], 2 * slack[0])
    with pytest.raises(ValueError, match="slack depends on the volatility"):
        layer(draw(1).observed)
    with pytest.raises(ValueError, match=r"finite and not negative; the smallest is -1\.0"):
        layer(draw(1).observed, torch.tensor([[-1.0]]))


# Execution.


def test_what_a_pool_accepts() -> None:
    pools = (Pool("geometric", ("a", "b"), (0.5, 0.5), 0.9), Pool("arithmetic", ("a", "b"), (0.5, 0.5), 1.0))
    market = Market.of(PoolNetwork({"a": 1.0, "b": 1.0}, pools))
    r = torch.tensor([[10.0, 10.0, 10.0, 10.0]] * 4).double()
    x = torch.tensor([[10 / 0.9, 0, 0, 0], [10 / 0.9, 0, 0, 0], [0, 0, 10.0, 0], [0, 0, 11.0, 0]]).double()
    y = torch.tensor([[0, 4.999, 0, 0], [0, 5.001, 0, 0], [0, 0, 0, 10.0], [0, 0, 0, 11.0]]).double()
    assert market.executed(torch.stack([x, y], 1), r).tolist() == [True, False, True, False]


def test_the_chance_of_a_refusal_bounds_the_share_of_refusals() -> None:
    random = torch.Generator().manual_seed(0)
    network = published_network()
    market, true = Market.of(network), draw(40).reserves.double()
    noisy = true.repeat(200, 1)
    sigma = 1e-3
    seen = noisy * (1 + sigma * torch.randn(noisy.shape, generator=random, dtype=torch.float64))
    trade = optimal_trade(market, seen, 2e-4)
    share = 1 - float(market.executed(trade, noisy).double().mean())
    bound = float(market.refusal(trade, seen, sigma).mean())
    assert share <= bound <= 2.5 * share
    assert 0.2 < share < 0.9
    assert float(market.refusal(optimal_trade(market, true, 0.0), true, sigma).min()) >= 0.5


# The data.


def test_the_published_data_are_drawn_number_by_number() -> None:
    """The published notebook draws with PyTorch's global generator after `manual_seed(2022)`, in this order."""
    network, count = published_network(), 7
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2022)
        columns = []
        for pool, scale in zip(network.pools, (50.0, 30.0, 23.5, 35.7, 46.9), strict=True):
            values = [
                [(1.0 + 0.1 * torch.randn(1)) * network.prices[token] for token in pool.tokens] for _ in range(count)
            ]
            for t in range(len(pool.tokens)):
                held = (1.0 + 0.1 * torch.randn(count)) * scale
                first = torch.tensor([row[0] for row in values])
                own = torch.tensor([row[t] for row in values])
                columns.append(pool.weights[t] * first * held / (pool.weights[0] * own))
        r = torch.stack(columns, 1)
        std = 1e-3 * torch.rand(count, 1)
        d = (1.0 + torch.normal(torch.zeros_like(r), std * torch.ones_like(r))) * r
        order = torch.randperm(count)
    drawn = draw(count)
    assert torch.allclose(drawn.reserves, r[order], rtol=1e-6)
    assert torch.allclose(drawn.observed, d[order], rtol=1e-6)
    assert torch.equal(drawn.volatility, std[order])


def test_the_analytic_optimum_of_the_published_test_data() -> None:
    test, market = draw(5500).part(5000, 5500), Market.of(published_network())
    trade = optimal_trade(market, test.observed.double())
    executed = market.executed(trade, test.reserves.double())
    assert float(market.utility(trade).mean()) == pytest.approx(13.3614, abs=1e-3)
    assert float(executed.double().mean()) < 0.05
    # The published row has the learned slack in the analytic problem: 0.343 % for every pool predicts its 11.446.
    assert float(market.utility(optimal_trade(market, test.observed.double(), 3.434e-3)).mean()) == pytest.approx(
        11.446, abs=5e-3
    )


def test_runs_have_data_of_their_own_and_run_0_the_published_ones() -> None:
    first, second = (ArbitrageData(train=4, validation=3, test=2, seed=seed).splits for seed in (0, 1))
    drawn = draw(9)
    assert torch.equal(first.test.tensors[1], drawn.reserves[7:])
    assert torch.equal(first.train.tensors[0], torch.cat([drawn.observed, drawn.volatility], 1)[:4])
    assert not torch.equal(first.test.tensors[1], second.test.tensors[1])


# A user's own networks and reserves.

YAML = """
prices: {ETH: 2000, USD: 1}
pools:
  - {kind: geometric, tokens: [ETH, USD], weights: [0.5, 0.5], fee: 0.997}
  - {kind: arithmetic, tokens: [USD, ETH], weights: [1, 2000], fee: 0.999}
"""


def test_a_network_from_yaml_and_from_a_graph(tmp_path: Path) -> None:
    (tmp_path / "network.yaml").write_text(YAML)
    network = read_network(tmp_path / "network.yaml")
    assert network.labels == ("pool 1: ETH", "pool 1: USD", "pool 2: USD", "pool 2: ETH")
    assert ArbitrageData(network=str(tmp_path / "network.yaml"), train=1, validation=1, test=1).network == network
    networkx = pytest.importorskip("networkx", reason="NetworkX is not installed")
    graph = networkx.Graph()
    for token, price in network.prices.items():
        graph.add_node(token, price=price)
    for j, pool in enumerate(network.pools):
        graph.add_node(j, kind=pool.kind, fee=pool.fee)
        for token, weight in zip(pool.tokens, pool.weights, strict=True):
            graph.add_edge(j, token, weight=weight)
    assert network_from_graph(graph) == network
    graph.add_edge("ETH", "USD")
    with pytest.raises(ValueError, match="'ETH' and 'USD' are both tokens"):
        network_from_graph(graph)
    graph.remove_edge("ETH", "USD")
    del graph.edges[0, "ETH"]["weight"]
    with pytest.raises(ValueError, match="the edge 0, 'ETH' needs the attribute 'weight'"):
        network_from_graph(graph)


def pair(**changes: object) -> Pool:
    return Pool(**{"kind": "geometric", "tokens": ("a", "b"), "weights": (0.5, 0.5), "fee": 0.99, **changes})  # type: ignore[arg-type]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pair(fee=0.0), r"fee in \(0, 1\].* got fee=0.0"),
        (lambda: pair(fee=1.01), r"got fee=1.01"),
        (lambda: pair(fee=math.nan), r"got fee=nan"),
        (lambda: pair(kind="harmonic"), r"got kind='harmonic'"),
        (lambda: pair(tokens=("a", "a")), r"at least two tokens, each once"),
        (lambda: pair(weights=(0.5,)), r"a weight for each of its 2 tokens; got 1"),
        (lambda: pair(weights=(0.5, 0.0)), r"weights that are positive and finite; got \[0.5, 0.0\]"),
        (lambda: PoolNetwork({"a": 1.0}, ()), "at least one pool"),
        (
            lambda: PoolNetwork({"a": 1.0, "b": math.nan}, (pair(),)),
            "price that is positive and finite; got nan for 'b'",
        ),
        (lambda: PoolNetwork({"a": 1.0}, (pair(),)), r"the tokens \['b'\] have no price"),
        (
            lambda: PoolNetwork({"a": 1.0, "b": 1.0, "c": 1.0}, (pair(),)),
            r"disconnected: the tokens \['c'\] are in no pool",
        ),
        (
            lambda: PoolNetwork(dict.fromkeys("abcd", 1.0), (pair(), pair(tokens=("c", "d")))),
            r"disconnected: it falls into 2 parts that share no token \(a, b; c, d\)",
        ),
    ],
)
def test_bad_networks(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_bad_reserves(bad: float) -> None:
    seen = draw(3).observed
    seen[1, 4] = bad
    with pytest.raises(ValueError, match=rf"positive and finite; got {bad} in sample 1, pool 2: token 2 \(1 of 3"):
        ArbitrageLayer(published_network())(seen)
    with pytest.raises(ValueError, match=r"shape \(B, 11\).* got \(3, 10\)"):
        ArbitrageLayer(published_network())(seen[:, :10])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "pool 1: a,pool 1: b\n1,2\n3,0\n",
            r"line 3: reserves must be positive and finite; got 0.0 in sample 0, pool 1: b",
        ),
        ("pool 1: a,pool 1: b\n1,nan\n", r"line 2: reserves must be positive and finite; got nan"),
        ("pool 1: a,pool 1: b\n1,two\n", "line 2: could not convert string to float: 'two'"),
        ("pool 1: a,pool 1: b\n1\n", "line 2: 2 columns are named, but the line has 1 cells"),
        ("pool 1: a,time\n1,2\n", r"missing \['pool 1: b'\], unknown or double \['time'\]"),
        ("pool 1: a,pool 1: b\n", "holds no snapshot"),
        ("", "line 1: the columns are"),
    ],
)
def test_bad_snapshots(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "reserves.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_reserves(tmp_path / "reserves.csv", PoolNetwork({"a": 1.0, "b": 1.0}, (pair(),)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prices: {a: 1}", r"needs the keys \['pools', 'prices'\]; got \['prices'\]"),
        (YAML.replace("fee: 0.997", "fee: 0.997, tick: 1"), r"pool 1 needs the keys"),
        (YAML.replace("0.997", "1.5"), r"pool 1: a pool needs a fee in \(0, 1\]"),
        ("prices: [", "is no YAML"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "network.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_network(tmp_path / "network.yaml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slack": 0.0}, "0 < slack < 0.5; got slack=0.0"),
        ({"risk": -1.0}, "risk > 0"),
        ({"tolerance": 0.0}, "tolerance > 0"),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArbitrageLayer(published_network(), **options)  # pyright: ignore[reportArgumentType]


# Certificates and training.


def test_certificates_tell_the_learned_trade_from_the_analytic_one() -> None:
    data = draw(120)
    inputs = torch.cat([data.observed, data.volatility], 1)
    task = ArbitrageTask(slack=2e-3)
    with torch.no_grad():
        usual = task.infer(inputs)
    market = task.market
    measures = [
        ChanceOfRefusal(market),
        LearnedRisk(task.layer.W().detach()),
        FallAsSeen(market),
        LossOfUtility(market),
    ]
    guard = il2o.ensure(measures=measures[:1], on_fail="abstain")(task.layer)
    guard.calibrate([data.observed[:80]], level=0.05)
    assert guard.check(data.observed[80:]).coverage >= 0.8
    analytic = il2o.Inference(x=optimal_trade(market, data.observed.double()), data=inputs)
    report = il2o.certify(guard.certificates, analytic)
    assert bool((report.labels == il2o.Label.FAIL).all())
    assert bool((measures[3](usual) < 0).all())
    assert bool((measures[2](usual) == 0).all())
    with pytest.raises(ValueError, match="needs the volatility as the last column"):
        ChanceOfRefusal(market, observed=True)(il2o.Inference(x=usual.x, data=data.observed))


def test_abstaining_keeps_what_is_executed() -> None:
    task = ArbitrageTask()
    market, drawn = task.market, draw(2500)
    inputs, reserves = torch.cat([drawn.observed, drawn.volatility], 1), drawn.reserves
    trade = optimal_trade(market, drawn.observed.double(), 3e-4)  # refused now and then, for want of slack
    first, last = slice(0, 2000), slice(2000, 2500)
    usual = il2o.Inference(x=trade[first], data=inputs[first])
    labels = torch.zeros(500, 1, dtype=torch.int64)
    samples = Samples(
        answer=trade[last],
        values=labels.double(),
        labels=labels,
        worst=labels[:, 0],
        names=("none",),
        batch=(inputs[last], reserves[last]),
    )
    found = abstention(task, samples, usual, reserves[first], 0.05, 0.9, observed=True)
    assert 0.1 < found["coverage"] < 0.95
    assert found["executed_of_sent"] > 0.95 > found["executed_of_kept_back"]
    promised = abstention(task, samples, usual, reserves[first], 1e-4, 0.99, observed=True)
    assert (promised["coverage"], promised["limit"], promised["utility_over_all"]) == (0.0, -1.0, 0.0)


def test_it_trains() -> None:
    from implicit_l2o.training import Optimization

    torch.manual_seed(0)
    task = ArbitrageTask(slack=5e-3, tolerance=1e-5, optimization=Optimization(learning_rate=0.2))
    data = ArbitrageData(train=80, validation=60, test=20, batch_size=20, seed=0)
    before = task.layer.slack().mean().item()
    training = fit(task, data, epochs=2, progress=False)
    assert training.history[-1]["val/shortfall"] < 2.6  # 3.3 at the start, 13.2 of the analytic optimum
    assert task.layer.slack().mean().item() < before
