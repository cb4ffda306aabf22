"""All methods on Warcraft maps with the same network and time: `python -m implicit_l2o.applications.warcraft`.

    python -m implicit_l2o.applications.warcraft --assets docs/assets   # writes results/warcraft.json; half an hour
    python scripts/check_warcraft.py                                    # computes its numbers again, from the paths on file

It can be interrupted: what was trained is on file, and is not trained again.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from implicit_l2o.applications.warcraft.comparison import (
    METHODS,
    WEIGHT_AVERAGE,
    collect,
    layer_time,
    references,
    run,
    write_truth,
)
from implicit_l2o.applications.warcraft.data import WarcraftData
from implicit_l2o.report import machine, write_json


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m implicit_l2o.applications.warcraft", description="All methods on Warcraft maps."
    )
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument(
        "--seeds", nargs="*", type=int, default=[11, 12, 13], metavar="SEED", help="of maps and weights"
    )
    parser.add_argument("--train", type=int, default=10_000, metavar="COUNT", help="of training maps")
    parser.add_argument("--validation", type=int, default=500, metavar="COUNT")
    parser.add_argument("--test", type=int, default=1000, metavar="COUNT")
    parser.add_argument("--epochs", type=int, default=None, metavar="COUNT", help="of all methods, instead of theirs")
    parser.add_argument("--runs", type=Path, default=Path("runs/warcraft"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--assets", type=Path, default=None, metavar="FOLDER", help="for the figures of the first seed")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, train what is not on file, and write the table; the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    for seed in options.seeds:
        folder = options.runs / f"seed_{seed}"
        missing = [name for name in options.methods if not (folder / f"{name}.npz").exists()]
        if not missing and (folder / "untrained.npz").exists():
            continue
        data = WarcraftData(train=options.train, validation=options.validation, test=options.test, seed=seed)
        write_truth(data.splits, folder)
        references(data, folder)
        for name in missing:
            run(name, data, folder, epochs=options.epochs)
    result = {
        "command": "python -m implicit_l2o.applications.warcraft",
        "seeds": options.seeds,
        "maps": {"train": options.train, "validation": options.validation, "test": options.test},
        "weight_average": WEIGHT_AVERAGE,
        "layer": layer_time(),
        "methods": collect(options.runs, options.seeds),
        "machine": machine(),
    }
    write_json(options.out / "warcraft.json", result)
    for figure in ("paths", "doubt"):
        drawn = options.runs / f"seed_{options.seeds[0]}" / f"fenchel_young_{figure}.svg"
        if options.assets is not None and drawn.exists():
            shutil.copy(drawn, options.assets / f"warcraft_{figure}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
