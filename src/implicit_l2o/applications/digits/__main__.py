"""`python -m implicit_l2o.applications.digits`: the comparison over several seeds, with mean and 95 % interval."""

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning

import implicit_l2o as il2o
from implicit_l2o.applications.digits.experiment import Outcome, Settings, experiment, summary
from implicit_l2o.applications.digits.figures import draw
from implicit_l2o.applications.digits.model import DIGITS, MNIST
from implicit_l2o.applications.digits.task import Recipe, digits_splits, mnist_splits
from implicit_l2o.report import interval, machine, write_json
from implicit_l2o.training import one_thread

BACKWARD: Mapping[str, il2o.AbstractBackward] = {
    "jfb": il2o.JFB(),
    "implicit": il2o.Implicit(),
    "neumann": il2o.Neumann(5),
    "unrolled": il2o.Unrolled(30),
}
SETTINGS = {
    "digits": Settings(DIGITS, Recipe()),
    "mnist": Settings(MNIST, Recipe(epochs=5, batch_size=200, learning_rate=5e-3, shift=2)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    settings = SETTINGS[options.dataset]
    if options.epochs is not None:
        settings = replace(settings, recipe=replace(settings.recipe, epochs=options.epochs))
    modes = {name: BACKWARD[name] for name in options.backward}
    progress = not options.quiet
    start = time.perf_counter()
    outcomes = []
    for seed in options.seeds:
        if options.dataset == "digits":
            splits, threads = digits_splits(seed), one_thread()
        else:
            splits, threads = mnist_splits(seed, options.data_dir, progress=progress), nullcontext()
        with threads:
            outcomes.append(experiment(splits, seed, settings, modes=modes, progress=progress))
    numbers = over_seeds(outcomes)
    record = {
        "dataset": options.dataset,
        "seeds": options.seeds,
        "settings": asdict(settings),
        **numbers,
        "mean_and_half_width": intervals(numbers),
        "seconds": time.perf_counter() - start,
        "machine": machine() | {"device": "cpu", "lightning": lightning.__version__},
    }
    write_json(options.out, record)
    if options.figures is not None:
        draw(outcomes[0], options.figures)
    print(table(record, [*modes, "explicit"]))
    print(f"written: {options.out}")


def over_seeds(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The summaries of several seeds, every number a list with one entry a seed."""
    return _join([summary(outcome) for outcome in outcomes])


def _join(values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: _join([value[key] for value in values]) for key in values[0]}
    return values


def intervals(numbers: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """Mean and half-width of the 95 % interval (Student's t; None for one seed) of the numbers at the top level."""
    return {key: list(interval(values)) for key, values in numbers.items() if isinstance(values, list)}


def table(record: Mapping[str, Any], names: Sequence[str]) -> str:
    """The means as text; one row a network."""
    means = record["mean_and_half_width"]
    lines = [f"{'':<20}{'test accuracy, %':>18}{'seconds/epoch':>15}{'peak MB':>9}{'iterations':>12}"]
    for name in names:
        accuracy, half = means[f"accuracy_{name}"]
        spread = "" if half is None else f" +- {100 * half:.2f}"
        seconds, memory, steps = (means[f"{what}_{name}"][0] for what in ("seconds_per_epoch", "peak_memory", "steps"))
        lines.append(f"{name:<20}{100 * accuracy:>18.2f}{spread}{seconds:>15.2f}{memory / 1e6:>9.1f}{steps:>12.1f}")
    lines += [
        f"{name.replace('_', ' '):<20}{100 * means[f'accuracy_{name}'][0]:>18.2f}"
        for name in ("logistic_regression", "constant")
    ]
    flagged = ", ".join(f"{kind} {100 * statistics.fmean(share):.1f} %" for kind, share in record["flagged"].items())
    return "\n".join([*lines, f"fail a certificate: {flagged}"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m implicit_l2o.applications.digits", description=__doc__)
    parser.add_argument("--dataset", choices=sorted(SETTINGS), default="digits", help="default: %(default)s")
    parser.add_argument("--data_dir", type=Path, help="folder of MNIST's parquet files; downloaded when not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="default: %(default)s")
    parser.add_argument("--epochs", type=_positive, help="default: 12 for the digits, 5 for MNIST")
    parser.add_argument("--backward", choices=list(BACKWARD), nargs="+", default=["jfb", "implicit"])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--figures", type=Path, help="folder for the figures of the first seed")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
