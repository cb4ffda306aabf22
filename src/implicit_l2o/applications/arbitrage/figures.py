"""Figures of the trades: risk against profit, where the utility comes from, one trade place by place."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.arbitrage.analytic import optimal_trade
from implicit_l2o.applications.arbitrage.certificates import ChanceOfRefusal
from implicit_l2o.applications.arbitrage.execution import Market
from implicit_l2o.data.pools import PoolNetwork
from implicit_l2o.training import Samples

if TYPE_CHECKING:
    from implicit_l2o.applications.arbitrage.task import ArbitrageTask

# Of Okabe and Ito's palette, which most kinds of colour blindness tell apart.
_MODEL, _ANALYTIC, _GREY = "#0072b2", "#e69f00", "#888888"


def risk_and_profit(task: "ArbitrageTask", samples: Samples) -> tuple[Figure, str]:
    """Every test trade by its chance of a refusal and its utility, executed or not, beside the analytic optimum."""
    market, reserves = task.market, samples.batch[1].double()
    seen = samples.batch[0][:, : len(market.prices)].double()
    measure = ChanceOfRefusal(market)
    kinds = {"analytic optimum": (optimal_trade(market, seen), _ANALYTIC), "learned": (samples.answer.double(), _MODEL)}
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    ax = figure.subplots()
    for label, (trade, colour) in kinds.items():
        chance = measure(il2o.Inference(x=trade, data=samples.batch[0])).clamp_min(1e-6)
        utility, executed = market.utility(trade), market.executed(trade, reserves)
        for which, marker, face in ((executed, "o", colour), (~executed, "x", colour)):
            count = int(which.sum())
            name = f"{label}, {'executed' if marker == 'o' else 'refused'}: {count}"
            ax.scatter(
                chance[which], utility[which], s=16, marker=marker, color=face, alpha=0.55, linewidths=1.0, label=name
            )
    ax.set_xscale("log")
    ax.set(
        xlabel="bound on the chance that a pool refuses, reserves seen to 0.1 %",
        ylabel="utility of the trade, if executed",
    )
    _plain(ax)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure, (
        "Test trades by what they risk and what they would earn. A circle was executed at the true reserves, a cross was "
        "refused by at least one pool. The learned slack gives a little profit away for a margin."
    )


def pools(network: PoolNetwork, market: Market, samples: Samples) -> tuple[Figure, str]:
    """The mean utility by pool: of the learned trades, executed or not, and of the best ones in hindsight."""
    reserves = samples.batch[1].double()
    best = optimal_trade(market, reserves)
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    ax = figure.subplots()
    at = np.arange(len(network.pools))
    for shift, (label, trade, colour) in enumerate(
        (("learned", samples.answer.double(), _MODEL), ("best in hindsight", best, _GREY))
    ):
        earned = market.structure.by_pool(market.prices * (trade[:, 1] - trade[:, 0])).mean(0)
        bars = ax.bar(at + 0.4 * shift - 0.2, earned.numpy(), width=0.38, color=colour, label=label)
        ax.bar_label(bars, fmt="%.2f", fontsize="small", padding=2)
    names = [f"{j}: {pool.kind}\n{len(pool.tokens)} tokens" for j, pool in enumerate(network.pools, 1)]
    ax.set_xticks(at, names)
    ax.set_ylabel("mean utility as sent")
    ax.legend(frameon=False, loc="upper left")
    _plain(ax)
    return figure, (
        "Where the utility comes from. An arithmetic pool trades at one price until it is empty, so a price that differs "
        "from the trader's is worth the most there."
    )


def example(figure: Figure, network: PoolNetwork, market: Market, sample: Mapping[str, Tensor]) -> None:
    """One trade: what is received above the axis and what is tendered below, relative to what the pool holds.

    Args:
        figure: empty.
        network: its labels.
        market: the same in tensors.
        sample: `"inputs"`, `"answer"`, and maybe `"target"`, the true reserves.
    """
    ax = figure.subplots()
    places = len(market.prices)
    seen = sample["inputs"][:places].double()
    at = np.arange(places)
    trade = sample["answer"].double()
    shown = [("trade", trade, _MODEL)]
    if "target" in sample:
        shown.append(("best in hindsight", optimal_trade(market, sample["target"].double()[None])[0], _GREY))
    for shift, (label, (tendered, received), colour) in enumerate(shown):
        net = 100 * (received - tendered) / seen
        ax.bar(at + 0.4 * shift - 0.2, net.numpy(), width=0.38, color=colour, label=label)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(at, network.labels, rotation=60, ha="right", fontsize="small")
    ax.set_ylabel("received less tendered, % of the reserve")
    title = f"utility {float(market.utility(trade[None])):.2f}"
    if "target" in sample:
        executed = bool(market.executed(trade[None], sample["target"].double()[None]))
        title += ", executed" if executed else ", refused"
    ax.set_title(title, fontsize="medium")
    ax.legend(frameon=False, fontsize="small")
    _plain(ax)


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
