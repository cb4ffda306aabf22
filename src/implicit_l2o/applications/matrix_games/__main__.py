r"""All methods on games of 3 to 100 actions: `python -m implicit_l2o.applications.matrix_games`.

    python -m implicit_l2o.applications.matrix_games --assets docs/assets   # writes results/matrix_games.json
    python -m implicit_l2o.applications.matrix_games --tune                 # writes results/matrix_games_tuning.json
    python -m implicit_l2o.applications.matrix_games --train 10 --validation 50 --sizes 25 --no-cyclic --seconds 2 \
        --methods payoff_response black_box --name matrix_games_few --runs runs/matrix_games_few    # few training games
    python scripts/check_matrix_games.py                                    # computes its numbers again, from the answers

It can be interrupted: what was trained is on file, and is not trained again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from implicit_l2o.applications.matrix_games import figures
from implicit_l2o.applications.matrix_games.comparison import METHODS, STOP, TARGET, collect, references, run, tune
from implicit_l2o.applications.matrix_games.data import MatrixGameData
from implicit_l2o.data.matrix_games import Kind
from implicit_l2o.report import machine, write_json

SIZES = (3, 5, 10, 15, 20, 25, 50, 75, 100)
_CYCLIC = ("payoff_response", "nfpn", "nfpn_cocoercive", "black_box")  # Payoff-Net's equations need the entropy
LABELS = {
    "payoff_response": "payoffs, response loss (ours)",
    "payoff_jfb": "payoffs, JFB (ours)",
    "payoff_net": "Payoff-Net",
    "nfpn": "N-FPN",
    "nfpn_cocoercive": "N-FPN, cocoercive",
    "black_box": "black box",
    "constant": "constant",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m implicit_l2o.applications.matrix_games", description="All methods on matrix games."
    )
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES), metavar="ACTIONS")
    parser.add_argument("--no-cyclic", action="store_true", help="leave the game without entropy out")
    parser.add_argument(
        "--seeds", nargs="*", type=int, default=[11, 12, 13], metavar="SEED", help="of games and weights"
    )
    parser.add_argument("--train", type=int, default=2000, metavar="COUNT", help="of training contexts")
    parser.add_argument("--validation", type=int, default=200, metavar="COUNT")
    parser.add_argument("--test", type=int, default=500, metavar="COUNT")
    parser.add_argument("--seconds", type=float, default=None, metavar="S", help="the most for all methods, not theirs")
    parser.add_argument(
        "--tune", action="store_true", help="compare the settings of every method, on n = 10 and seed 500"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/matrix_games"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--name", default="matrix_games", help="of the file of results")
    parser.add_argument("--assets", type=Path, default=None, metavar="FOLDER", help="for the figure")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, train what is not on file, and write the table; the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    sizes = {"train": options.train, "validation": options.validation, "test": options.test}
    if options.tune:
        seconds = 8.0 if options.seconds is None else options.seconds
        found = tune(MatrixGameData(actions=10, seed=500, **sizes), seconds, options.methods)
        write_json(options.out / "matrix_games_tuning.json", {"seconds": seconds, "actions": 10, "methods": found})
        return 0
    cases: dict[str, tuple[int, Kind]] = {} if options.no_cyclic else {"cyclic": (3, "cyclic")}
    cases |= {f"n{actions}": (actions, "entropic") for actions in options.sizes}
    for seed in options.seeds:
        for case, (actions, kind) in cases.items():
            folder = options.runs / case / f"seed_{seed}"
            names = [name for name in options.methods if kind == "entropic" or name in _CYCLIC]
            missing = [name for name in names if not (folder / f"{name}.npz").exists()]
            if not missing and (folder / "constant.npz").exists():
                continue
            data = MatrixGameData(actions=actions, kind=kind, seed=seed, **sizes)
            references(data, folder)
            for name in missing:
                run(name, data, folder, seconds=options.seconds, progress=sys.stderr.isatty())
    every: dict[str, tuple[int, Kind]] = {"cyclic": (3, "cyclic")}
    every |= {f"n{actions}": (actions, "entropic") for actions in SIZES}
    scores = collect(options.runs, every, options.seeds)
    result = {
        "command": "python -m implicit_l2o.applications.matrix_games",
        "seeds": options.seeds,
        "games": sizes,
        "target": TARGET,
        "stop": STOP,
        "caps": {
            name: method.seconds if options.seconds is None else options.seconds for name, method in METHODS.items()
        },
        "cases": scores,
        "machine": machine(),
    }
    write_json(options.out / f"{options.name}.json", result)
    if options.assets is not None:
        by_size = {case[1:]: rows for case, rows in scores.items() if case != "cyclic"}
        figures.errors(LABELS, by_size, TARGET).savefig(options.assets / "matrix_games_errors.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
