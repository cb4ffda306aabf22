"""`il2o run`: fit, test, certify, compare, report; one seed or several."""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from implicit_l2o.experiment import results as record
from implicit_l2o.experiment.config import ExperimentCLI, on_first_process
from implicit_l2o.experiment.evaluate import compare, samples
from implicit_l2o.experiment.folder import RunFolder
from implicit_l2o.experiment.metrics import best_epoch, last_metrics
from implicit_l2o.experiment.provenance import provenance
from implicit_l2o.report import interval, write_json
from implicit_l2o.report.html import build_report, build_summary
from implicit_l2o.training import CollectSamples, Samples, count_parameters, interruptible, quiet, step_memory
from implicit_l2o.training.distributed import part_ways

_OURS = ("config.yaml", "metrics.csv", "checkpoints", "model.ckpt", "results.json", "certificates.json")
_OURS += ("predictions.npz", "figures", "report.html", "summary.json", "baselines", "seed_*", "events.out.tfevents.*")


@dataclass(frozen=True)
class Options:
    """What `il2o run` is asked for.

    Args:
        config: the YAML files, later ones over earlier ones.
        overrides: dotted options, as on the command line.
        seeds: None takes the configuration's one.
        folder: None takes `runs/NAME`.
        checkpoint: go on from `"last"`, `"best"` or a file; None starts anew.
        overwrite: replace an earlier run in the folder.
        progress: show bars.
    """

    config: Sequence[Path]
    overrides: Sequence[str] = ()
    seeds: Sequence[int] | None = None
    folder: Path | None = None
    checkpoint: str | None = None
    overwrite: bool = False
    progress: bool = True

    def arguments(self) -> list[str]:
        """For `ExperimentCLI`."""
        progress = [] if self.progress else ["--trainer.enable_progress_bar=false"]
        folder = [] if self.folder is None else [f"--folder={self.folder}"]
        return [*(f"--config={path}" for path in self.config), *progress, *folder, *self.overrides]


def run(options: Options) -> tuple[RunFolder, list[dict[str, Any]]]:
    """Run every seed, each in a folder of its own if there are several, and write the summary over them.

    Returns:
        The folder, and the `results.json` of each seed.

    Raises:
        ConfigurationError: something in the configuration; before any training.
        FileExistsError: the folder holds an earlier run.
        KeyboardInterrupt: after a report of what was reached.
    """
    arguments = options.arguments()
    if options.seeds is None or len(options.seeds) == 1:
        seed = [] if options.seeds is None else [f"--seed_everything={options.seeds[0]}"]
        experiment = ExperimentCLI([*arguments, *seed])
        return experiment.folder, [_Run(experiment, options).everything()]
    first = ExperimentCLI(arguments)
    folder = first.folder
    _claim(folder, options)
    finished = []
    for seed in options.seeds:
        experiment = ExperimentCLI([*arguments, f"--seed_everything={seed}", f"--folder={folder.seed(seed).path}"])
        finished.append(_Run(experiment, options).everything())
    if on_first_process():
        write_json(folder.summary, summarise(finished, options.seeds))
        build_summary(folder.path)
    return folder, finished


class _Run:
    """One seed, step by step."""

    def __init__(self, experiment: ExperimentCLI, options: Options) -> None:
        self.experiment = experiment
        self.options = options
        self.folder = experiment.folder
        self.started = time.perf_counter()
        self.task, self.data, self.trainer = experiment.model, experiment.datamodule, experiment.trainer

    def everything(self) -> dict[str, Any]:
        """Fit, test, compare, write; an interrupt still writes what was reached."""
        done = self._done_before()
        if done is not None:
            return done
        self.experiment.check_data()
        checkpoint = self._checkpoint()
        _claim(self.folder, self.options)
        if on_first_process():
            self.experiment.write_config()
        try:
            with quiet(), interruptible(self.trainer):
                self.trainer.fit(self.task, datamodule=self.data, ckpt_path=checkpoint, weights_only=True)
                found = self._test()
        except KeyboardInterrupt:
            if on_first_process():
                self._write(self._results("interrupted"))
                print(f"\ninterrupted; go on with: {self._command()} --ckpt_path last", file=sys.stderr)
            raise
        part_ways()  # the baselines are trained and measured by one process
        if not on_first_process():
            return {}
        scores, costs = compare(self.task, self.data, self.experiment.baselines, progress=self.options.progress)
        results = self._results("complete")
        results["test"] |= scores
        results["training"] |= costs
        results["labels"] |= {name: name.replace("_", " ") for name in scores}
        self._examined(found, results)
        self._write(results)
        return results

    def _done_before(self) -> dict[str, Any] | None:
        """The results of this seed, when a run of several seeds goes on and this one had finished."""
        if self.options.checkpoint is None or not self.folder.results.exists():
            return None
        results = json.loads(self.folder.results.read_text())
        return results if results["status"] == "complete" else None

    def _checkpoint(self) -> Path | None:
        if self.options.checkpoint is None:
            return None
        several = self.options.seeds is not None and len(self.options.seeds) > 1
        if several and not self.folder.checkpoints.exists():
            return None  # a seed that had not begun
        return self.folder.checkpoint(self.options.checkpoint)

    def _test(self) -> Samples:
        collect = CollectSamples()
        self.trainer.callbacks.append(collect)  # type: ignore[attr-defined]
        self.trainer.test(self.task, datamodule=self.data, verbose=False)
        return samples(self.task, collect.found, self.data)

    def _results(self, status: str) -> dict[str, Any]:
        about = self.task.about()
        timer = self.experiment.timer
        test = {
            name.removeprefix("test/"): float(value)
            for name, value in self.trainer.callback_metrics.items()
            if name.startswith("test/")
        }
        return {
            "name": self.experiment.name,
            "title": about.title,
            "summary": about.summary,
            "problem": about.problem,
            "guarantees": list(about.guarantees),
            "status": status,
            "seed": self.experiment.seed,
            "command": self._command(),
            "metrics": record.metric_directions(self.task),
            "test": {"model": test},
            "validation": last_metrics(self.folder.path / "metrics.csv", "val/"),
            "labels": {"model": "implicit network"},
            "monitor": self.task.monitor,
            "best_epoch": best_epoch(self.folder.best),
            "epochs": self.trainer.current_epoch,
            "parameters": count_parameters(self.task),
            "seconds_per_epoch": timer.median,
            "peak_memory": step_memory(self.task, self.data) if status == "complete" else None,
            "training": {},
            "solver": None,
            "certificates": {},
            "trusted": None,
            "examples": [],
            "figures": [],
            "extra": {},
            **provenance(),
        }

    def _examined(self, found: Samples, results: dict[str, Any]) -> None:
        """Everything that needs the samples: certificates, predictions, figures."""
        results["solver"] = record.solver_numbers(found)
        results["certificates"] = record.certificate_counts(found)
        results["trusted"] = int((found.worst == 0).sum())
        write_json(self.folder.certificates, record.certificate_record(self.task, found))
        record.write_predictions(self.folder, found)
        with record.drawing():
            results["examples"] = record.draw_examples(self.folder, self.task, found)
            results["figures"] = record.draw_figures(self.folder, self.task.figures(found, self.data.splits))
        results["extra"] = dict(self.task.findings(found, self.data.splits))

    def _write(self, results: dict[str, Any]) -> None:
        results["seconds"] = time.perf_counter() - self.started
        write_json(self.folder.results, record.plain(results))
        build_report(self.folder.path)

    def _command(self) -> str:
        words = ["il2o", "run", *map(str, self.options.config), f"--seeds={self.experiment.seed}"]
        return shlex.join([*words, *self.options.overrides])


def _claim(folder: RunFolder, options: Options) -> None:
    """Make the folder; an earlier run in it is kept unless it may be replaced or gone on with."""
    if not on_first_process():
        return
    if folder.path.exists() and not folder.path.is_dir():
        raise FileExistsError(f"{folder.path} is a file; name another folder with --folder.")
    folder.path.mkdir(parents=True, exist_ok=True)
    old = [path for pattern in _OURS for path in folder.path.glob(pattern)]
    if not old or options.checkpoint is not None:
        return
    if not options.overwrite:
        raise FileExistsError(
            f"{folder.path} holds an earlier run: go on with it (--ckpt_path last), replace it (--overwrite), or name "
            "another folder (--folder DIR)."
        )
    for path in old:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def summarise(finished: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Mean and 95 % interval over the seeds of everything that `results.json` has one number for."""

    def spread(values: Sequence[Any]) -> dict[str, Any]:
        if any(value is None for value in values):
            return {"mean": None, "half_width_95": None, "values": list(values)}
        mean, half = interval([float(value) for value in values])
        return {"mean": mean, "half_width_95": half, "values": list(values)}

    def over(trees: Sequence[Any]) -> Any:
        """The same tree with a spread in the place of each number that all seeds have."""
        first = trees[0]
        if isinstance(first, Mapping):
            shared = [key for key in first if all(isinstance(tree, Mapping) and key in tree for tree in trees)]
            found = {key: over([tree[key] for tree in trees]) for key in shared}
            return {key: value for key, value in found.items() if value is not None}
        if isinstance(first, bool) or not isinstance(first, (int, float)):
            return None
        return spread(trees)

    first = finished[0]
    numbers = ("seconds_per_epoch", "peak_memory", "seconds", "parameters", "best_epoch", "trusted")
    return {
        **{key: first[key] for key in ("name", "title", "summary", "problem", "guarantees", "metrics", "labels")},
        "seeds": list(seeds),
        "test": over([result["test"] for result in finished]),
        "training": over([result["training"] for result in finished]),
        "solver": over([result["solver"] for result in finished]),
        "certificates": over([result["certificates"] for result in finished]),
        "extra": over([result["extra"] for result in finished]),
        "numbers": over([{name: result[name] for name in numbers} for result in finished]),
        **{key: first[key] for key in ("machine", "versions", "git_commit")},
    }
