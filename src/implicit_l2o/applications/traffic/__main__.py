"""All methods on one road network: `python -m implicit_l2o.applications.traffic SiouxFalls`.

    python -m implicit_l2o.applications.traffic SiouxFalls --assets docs/assets    # writes results/traffic_SiouxFalls.json
    python scripts/check_traffic.py SiouxFalls             # computes its numbers again, from the flows on file

It can be interrupted: what was trained is on file, and is not trained again.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from implicit_l2o.applications.traffic import figures
from implicit_l2o.applications.traffic.comparison import (
    METHODS,
    Scenario,
    collect,
    constant,
    run,
    scenarios,
    write_truth,
)
from implicit_l2o.applications.traffic.data import TrafficData
from implicit_l2o.applications.traffic.model import Road
from implicit_l2o.report import machine, write_json


@dataclass(frozen=True)
class Size:
    """Of a comparison on one network.

    Args:
        seconds: of the processor, for the training of each method.
        train, validation, test: contexts.
    """

    seconds: float
    train: int = 5000
    validation: int = 100
    test: int = 500


SIZES = {
    "toy": Size(40.0, train=1000, validation=200, test=200),
    "SiouxFalls": Size(70.0, train=1000, validation=200, test=200),
    "Eastern-Massachusetts": Size(300.0),
    "Berlin-Friedrichshain": Size(300.0),
    "Berlin-Tiergarten": Size(300.0),
    "Anaheim": Size(900.0),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m implicit_l2o.applications.traffic", description="All methods on one road network."
    )
    parser.add_argument("network", choices=list(SIZES), metavar="NETWORK", help=", ".join(SIZES))
    parser.add_argument("--folder", default=None, help="of the public collection; downloaded by default")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0], metavar="SEED", help="of contexts and weights")
    parser.add_argument("--train", type=int, default=None, metavar="COUNT", help="of training contexts; see SIZES")
    parser.add_argument("--validation", type=int, default=None, metavar="COUNT")
    parser.add_argument("--test", type=int, default=None, metavar="COUNT")
    parser.add_argument("--seconds", type=float, default=None, metavar="SECONDS", help="of the processor")
    parser.add_argument("--cache", default="runs/traffic_data", metavar="FOLDER", help="for the equilibria")
    parser.add_argument("--runs", type=Path, default=Path("runs/traffic"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--assets", type=Path, default=None, metavar="FOLDER", help="for the figures of the first seed")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, train what is not on file, and write the table; the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    folder = options.runs / options.network
    chosen = {name: getattr(options, name) for name in ("seconds", "train", "validation", "test")}
    size = replace(SIZES[options.network], **{name: value for name, value in chosen.items() if value is not None})
    cases: dict[int, dict[str, Scenario]] = {}
    road, data = None, None
    for seed in reversed(options.seeds):  # the figures are of the first
        road = Road(options.network, options.folder, seed=seed)
        data = TrafficData(
            road=road,
            train=size.train,
            validation=size.validation,
            test=size.test,
            cache=options.cache,
            seed=seed,
        )
        cases[seed] = scenarios(road, data)
        own = folder / f"seed_{seed}"
        write_truth(cases[seed], road.network, own)
        constant(data, cases[seed], own)
        for name in options.methods:
            run(name, road, data, cases[seed], own, seconds=size.seconds)
    assert road is not None
    assert data is not None
    first = cases[options.seeds[0]]
    result = {
        "command": f"python -m implicit_l2o.applications.traffic {options.network}",
        "network": options.network,
        "links": road.network.edges,
        "nodes": road.network.nodes,
        "origins": len(road.network.origins),
        "seeds": options.seeds,
        "contexts": {"train": size.train, "validation": size.validation, "test": size.test},
        "seconds": size.seconds,
        "closed_link": first["closed"].closed,
        "methods": collect(folder, options.seeds, cases),
        "machine": machine(),
    }
    write_json(options.out / f"traffic_{options.network}.json", result)
    if options.assets is not None:
        draw(road, data, first, folder / f"seed_{options.seeds[0]}", options.assets)
    return 0


def draw(road: Road, data: TrafficData, cases: dict[str, Scenario], runs: Path, assets: Path) -> None:
    """The figures of one seed."""
    names = {"latency": "learned travel times", "affine_jfb": "learned affine operator", "black_box": "black box"}
    kept: dict[str, Any] = {}
    for name in names:
        if (runs / f"{name}.npz").exists():
            with np.load(runs / f"{name}.npz") as found:
                kept[name] = {case: found[case] for case in cases}
    shown = {case: {names[name]: flows[case] for name, flows in kept.items()} for case in cases}
    true, closed = cases["test"].flow, cases["closed"]
    mean = data.splits.train.tensors[1].mean(0).numpy()
    before = np.stack([true[0], *(flows["test"][0] for flows in kept.values())])
    after = {name: x[0] for name, x in shown["closed"].items()}
    drawn = {
        "flows": figures.flows(road.network, true, shown["test"]),
        "scatter": figures.scatter(true, shown["test"]),
        "context": figures.context(road.network, true, shown["test"], mean),
        "closed": figures.changes(road.network, closed.flow[0], after, before, closed=closed.closed),
    }
    assets.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        figure.savefig(assets / f"traffic_{road.name}_{name}.svg")


if __name__ == "__main__":
    sys.exit(main())
