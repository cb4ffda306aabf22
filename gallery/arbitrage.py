"""Arbitrage between market makers that are seen through noise: learn how much margin makes a trade go through.

python gallery/arbitrage.py [--quick] [--out gallery_out]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

import implicit_l2o as il2o
from implicit_l2o.applications.arbitrage import ArbitrageLayer, Market, optimal_trade
from implicit_l2o.applications.arbitrage.certificates import ChanceOfRefusal, fixed
from implicit_l2o.data.arbitrage import draw, published_network

GREY, BLUE, GREEN, RED = "#bbbbbb", "#0072b2", "#009e73", "#d55e00"


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    torch.manual_seed(0)

    # 1. Five pools of three tokens. A pool accepts a trade that does not lower its weighted mean; what it holds is seen with
    #    a small error. The best trade for what is seen leaves no margin at all, so the slightest error has it refused.
    network = published_network()
    market = Market.of(network)
    count = 60 if quick else 200
    drawn = draw(count + (100 if quick else 500), network=network, seed=2022)
    train, test = drawn.part(0, len(drawn) - count), drawn.part(len(drawn) - count, len(drawn))
    reserves = test.reserves.double()

    # 2. The model: the optimal trade of a problem with two learned parts, a slack for every pool (by how much its mean must
    #    rise) and a risk. 30 numbers; every answer is an optimum, whose constraints can be read. The gradient of a slack
    #    needs more than one step of the solver: `Implicit()`, the default of this layer, solves for it.
    layer = ArbitrageLayer(network)

    def earned(trade: torch.Tensor) -> tuple[float, float]:
        """The mean utility of what is executed at the true reserves, and the share that is."""
        done = market.executed(trade.double(), reserves)
        return float((market.utility(trade.double()) * done).mean()), 100 * float(done.double().mean())

    with torch.no_grad():
        untrained = layer(test.observed)

    # 3. Train on the executed utility, with a smooth acceptance in the place of yes and no.
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(1 if quick else 3):
        for batch in torch.randperm(len(train)).split(100):
            trade = layer(train.observed[batch])
            accepted = market.acceptance(trade, train.reserves[batch].double(), 5e-5)
            optimizer.zero_grad()
            (-(market.utility(trade) * accepted).mean()).backward()
            optimizer.step()

    # 4. Honest opponents: the exact optimum for what is seen, without margin and with the one margin that earned most on the
    #    training data.
    def plain(slack: float) -> torch.Tensor:
        return optimal_trade(market, test.observed.double(), slack)

    def on_training(slack: float) -> float:
        trade = optimal_trade(market, train.observed.double(), slack)
        return float((market.utility(trade) * market.executed(trade, train.reserves.double())).mean())

    margin = max((2e-4, 5e-4, 1e-3, 2e-3, 5e-3), key=on_training)

    # 5. Certificates, from what is seen alone: no pool's mean falls, the trade earns, and a bound on the chance of refusal
    #    is small. A trade without margin passes the first two and fails the third: it is a coin toss for every pool.
    certificates = (*fixed(market), il2o.Certificate(ChanceOfRefusal(market), il2o.Threshold(0.5)))
    with torch.no_grad():
        answers = layer.inference(test.observed)
    report = il2o.certify(certificates, answers)
    verdict = il2o.certify(certificates, il2o.Inference(x=plain(0.0), data=test.observed))
    print("learned:", report.table(), "\noptimal for what is seen:", verdict.table(), sep="\n")
    trades = {
        "no margin": plain(0.0),
        "one margin for all": plain(margin),
        "untrained": untrained,
        "implicit, trained": answers.x,
        "hindsight": optimal_trade(market, reserves, 1e-9),
    }
    results = {name: earned(trade) for name, trade in trades.items()}
    print(
        "\nutility earned, and % executed:", *(f"  {k:20s}{u:8.4f}{s:8.1f}" for k, (u, s) in results.items()), sep="\n"
    )

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.2])
    left.barh(list(results), [u for u, _ in results.values()], color=[RED, GREY, GREY, BLUE, GREEN])
    left.bar_label(left.containers[0], [f"{u:.3f}  ({s:.0f} %)" for u, s in results.values()], padding=3)
    left.set(xlabel="utility earned (share executed)", xlim=(0, 1.45 * max(u for u, _ in results.values())))
    left.invert_yaxis()
    bins = torch.linspace(0, 1, 60).numpy()
    chance = {"no margin": verdict, "implicit, trained": report}
    for (name, r), colour in zip(chance.items(), (RED, BLUE), strict=True):
        right.hist(r.values[:, 2].clamp(0, 1).numpy(), bins, color=colour, alpha=0.7, label=name)
    right.axvline(0.5, color="black", linestyle="--")
    right.set(xlabel="bound on the chance of a refusal (cut at 1)", ylabel="trades", title="right of the line: FAIL")
    right.legend(frameon=False)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "arbitrage.png", dpi=110)
    fails = {"no margin fails": float((verdict.worst == il2o.Label.FAIL).double().mean())}
    return {**{k: u for k, (u, _) in results.items()}, **fails, "trusted": float(report.trusted.double().mean())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
