"""Backward modes on image classification: the same network, data order, tolerance and optimizer, the gradient alone differs.

    python -m implicit_l2o.applications.images.backward_comparison --data digits        # no download
    python -m implicit_l2o.applications.images.backward_comparison --data mnist --folder DIR

Writes `results/jfb_<data>.json` after every training. What is on file is not trained again, so a run that was
interrupted, or that lacks a seed or a mode, is completed by the same command.
"""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from implicit_l2o.applications.images.backward_comparison.figures import draw_comparison
from implicit_l2o.applications.images.backward_comparison.modes import absent, backward_modes
from implicit_l2o.applications.images.backward_comparison.setting import SOURCES, Setting
from implicit_l2o.applications.images.backward_comparison.summary import summarize
from implicit_l2o.applications.images.backward_comparison.training import seconds, train
from implicit_l2o.report import machine, write_json

_COMMAND = "python -m implicit_l2o.applications.images.backward_comparison"


def parser() -> argparse.ArgumentParser:
    """The options; those of `Setting` carry its names and defaults."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = {"data": str, "learning_rate": float, "weight_decay": float, "gamma": float, "tolerance": float}
    for field in dataclasses.fields(Setting):
        choices = sorted(SOURCES) if field.name == "data" else None
        option = f"--{field.name.replace('_', '-')}"
        if field.name == "estimated":
            found.add_argument(option, action="store_true", help="keep gamma by an estimate, not by construction")
            continue
        kind = float if field.name == "rtol" else kinds.get(field.name, int)
        found.add_argument(option, type=kind, default=field.default, choices=choices, help="default: %(default)s")
    found.add_argument("--folder", type=Path, help="of the data set's parquet files; downloaded when not given")
    found.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    found.add_argument("--modes", nargs="+", help="by their names in the table; default: all")
    found.add_argument("--name", help="of the results file and of the figures; default: jfb_<data>")
    found.add_argument("--out", type=Path, default=Path("results"), help="folder of the results")
    found.add_argument("--figures", type=Path, help="folder of the figures; none are drawn when not given")
    return found


def compare(
    setting: Setting, seeds: Sequence[int], modes: Sequence[str] | None, file: Path, folder: Path | None, command: str
) -> dict[str, Any]:
    """Train what is not on file yet, and write the file after every training.

    Args:
        setting: shared by all modes.
        seeds: of the trainings.
        modes: names; None takes all.
        file: of the results.
        folder: of the data.
        command: that makes the file.

    Raises:
        ValueError: an unknown mode, or a file of another setting.
    """
    known = backward_modes(rtol=setting.rtol, unrolled=setting.unrolled)
    unknown = sorted(set(modes or ()) - set(known))
    if unknown:
        raise ValueError(f"there are the modes {', '.join(known)}; got {unknown}.")
    record = _record(setting, file)
    record |= {"command": command, "name": file.stem, "setting": setting.record(), "machine": machine()}
    chosen = [name for name in known if modes is None or name in modes]
    record["absent"] = {name: reason for name in chosen if (reason := absent(name)) and not record["runs"].get(name)}
    for seed in seeds:
        splits = None
        for name in chosen:
            if name in record["absent"] or str(seed) in record["runs"].get(name, {}):
                continue
            splits = splits or setting.splits(seed, folder)
            run = train(setting, known[name], seed, splits)
            record["runs"].setdefault(name, {})[str(seed)] = run
            record["sizes"] = [len(labels) for _, labels in splits]
            record["runs"] = {each: record["runs"][each] for each in known if each in record["runs"]}
            record["summary"] = summarize(record["runs"])
            write_json(file, record)
            spent = sum(seconds(epoch) for epoch in run["epochs"])
            cosine = run["epochs"][-1]["latent_cosine"]
            print(
                f"seed {seed} {name:22s} test {100 * run['test_accuracy']:.2f} %, {spent:.0f} s of processor time, cosine "
                f"{cosine if cosine is None else round(cosine, 3)}",
                flush=True,
            )
    return record


def _record(setting: Setting, file: Path) -> dict[str, Any]:
    """What is on file, or an empty record."""
    if not file.exists():
        return {"runs": {}}
    record = json.loads(file.read_text())
    wanted, found = setting.record(), record["setting"]
    different = [name for name in wanted if wanted[name] != found.get(name)]
    if different:
        shown = ", ".join(f"{name}: {found.get(name)} on file, {wanted[name]} asked for" for name in different)
        raise ValueError(f"{file} is of another setting ({shown}); give another --name, or remove the file.")
    return record


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    names = [field.name for field in dataclasses.fields(Setting)]
    file = options.out / f"{options.name or f'jfb_{options.data}'}.json"
    kept = sys.argv[1:] if arguments is None else arguments
    try:
        setting = Setting(**{name: getattr(options, name) for name in names})
        command = shlex.join([*shlex.split(_COMMAND), *_without(kept, "--folder")])
        record = compare(setting, options.seeds, options.modes, file, options.folder, command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, reason in record["absent"].items():
        print(f"{name}: absent ({reason})")
    if options.figures is not None and record["runs"]:
        for drawn in draw_comparison(record, options.figures):
            print(f"written: {drawn}")
    return 0


def _without(words: Sequence[str], option: str) -> list[str]:
    """The words of a command line without an option and its value, which name somebody's folder."""
    kept, skip = [], False
    for word in words:
        if skip or word.split("=")[0] == option:
            skip = word == option
        else:
            kept.append(word)
    return kept


if __name__ == "__main__":
    sys.exit(main())
