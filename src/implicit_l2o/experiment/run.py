"""`il2o run`: fit, test, certify, compare, report; one seed or several."""

import json
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from implicit_l2o.experiment import figures
from implicit_l2o.experiment import results as record
from implicit_l2o.experiment.catalogue import shipped
from implicit_l2o.experiment.config import ExperimentCLI, on_first_process
from implicit_l2o.experiment.errors import ConfigurationError
from implicit_l2o.experiment.evaluate import compare, samples
from implicit_l2o.experiment.folder import RunFolder
from implicit_l2o.experiment.metrics import best_epoch, last_metrics
from implicit_l2o.experiment.provenance import provenance
from implicit_l2o.experiment.summary import summarise
from implicit_l2o.report import write_json
from implicit_l2o.report.html import build_report, build_summary
from implicit_l2o.training import (
    CollectSamples,
    MetricsLogger,
    Samples,
    count_parameters,
    interruptible,
    quiet,
    step_memory,
)
from implicit_l2o.training.distributed import part_ways


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

    def command(self, seeds: Sequence[int] | None = None) -> str:
        """What to type for this again; for the given seeds, in a folder that follows from the configuration."""
        words = ["il2o", "run", *(path.stem if path.parent == shipped() else str(path) for path in self.config)]
        if seeds is None and self.folder is not None:
            words += ["--folder", str(self.folder)]
        if seeds or self.seeds:
            words += ["--seeds", ",".join(map(str, seeds or self.seeds or ()))]
        return shlex.join([*words, *self.overrides])

    @property
    def several(self) -> bool:
        """Whether each seed has a folder of its own."""
        return self.seeds is not None and len(self.seeds) > 1


def run(options: Options) -> tuple[RunFolder, list[dict[str, Any]]]:
    """Run every seed, each in a folder of its own if there are several, and write the summary over them.

    Returns:
        The folder, and the `results.json` of each seed; on several processes the first one alone has results.

    Raises:
        ConfigurationError: something in the configuration, or a folder that holds another run; before any training.
        KeyboardInterrupt: after a report of what was reached; it says how to go on.
    """
    arguments = options.arguments()
    if not options.several:
        seed = [f"--seed_everything={seed}" for seed in options.seeds or ()]
        experiment = ExperimentCLI([*arguments, *seed])
        return experiment.folder, [_Run(experiment, options).everything()]
    folder = ExperimentCLI(arguments).folder
    try:
        _claim(folder, options)
        return folder, _every_seed(folder, options)
    finally:
        folder.release()


def _every_seed(folder: RunFolder, options: Options) -> list[dict[str, Any]]:
    finished = []
    for seed in options.seeds or ():
        own = [f"--seed_everything={seed}", f"--folder={folder.seed(seed).path}"]
        finished.append(_Run(ExperimentCLI([*options.arguments(), *own]), options).everything())
    if on_first_process():
        write_json(folder.summary, summarise(finished, options.seeds or ()))
        build_summary(folder.path)
    return finished


def _decisive(configuration: str) -> Any:
    """What of a configuration decides the results: neither where they lie, nor whether a bar is shown."""
    config = yaml.safe_load(configuration)
    config = {key: value for key, value in config.items() if key not in ("folder", "name")}
    trainer = config.get("trainer") or {}
    return config | {"trainer": {key: value for key, value in trainer.items() if key != "enable_progress_bar"}}


def _claim(folder: RunFolder, options: Options) -> None:
    if on_first_process():
        folder.claim(resume=options.checkpoint is not None, overwrite=options.overwrite)


class _Run:
    """One seed, step by step."""

    def __init__(self, experiment: ExperimentCLI, options: Options) -> None:
        self.experiment = experiment
        self.options = options
        self.folder = experiment.folder
        self.started = time.perf_counter()
        self.task, self.data, self.trainer = experiment.model, experiment.datamodule, experiment.trainer
        self.reached: dict[str, Any] = {}  # what goes over the results so far

    def everything(self) -> dict[str, Any]:
        """Fit, test, compare, write; a run that ends early still writes what it reached."""
        done = self._done_before()
        if done is not None:
            return done
        if self.trainer.limit_test_batches == 0:
            raise ConfigurationError("trainer.limit_test_batches must not be 0: `il2o run` tests, `il2o fit` does not.")
        self.experiment.check()
        checkpoint = self._checkpoint()
        try:
            _claim(self.folder, self.options)
            if on_first_process():
                self.experiment.write_config()
            return self._to_the_end(checkpoint)
        finally:
            self.folder.release()

    def _to_the_end(self, checkpoint: Path | None) -> dict[str, Any]:
        try:
            with quiet(), interruptible(self.trainer):
                self.trainer.fit(self.task, datamodule=self.data, ckpt_path=checkpoint, weights_only=True)
                found = self._test()
            part_ways()  # the baselines are trained and measured by one process
            return self._judge(found) if on_first_process() else {}
        except KeyboardInterrupt:
            self._let_go()
            self._leave("interrupted", "")
            raise KeyboardInterrupt(f"interrupted; go on with: {self.options.command()} --ckpt_path last") from None
        except Exception as error:
            self._leave("failed", str(error))
            raise

    def _done_before(self) -> dict[str, Any] | None:
        """The results, when a run goes on that had ended by this very configuration."""
        if self.options.checkpoint is None or not (self.folder.results.is_file() and self.folder.config.is_file()):
            return None
        before = self.folder.config.read_text(encoding="utf-8")
        if _decisive(before) != _decisive(self.experiment.configuration()):
            return None
        results = json.loads(self.folder.results.read_text(encoding="utf-8"))
        return results if results["status"] == "complete" else None

    def _checkpoint(self) -> Path | None:
        name = self.options.checkpoint
        if name is None or (self.options.several and name == "last" and not self.folder.last.is_file()):
            return None  # or a seed that had not begun
        return self.folder.checkpoint(name)

    def _test(self) -> Samples:
        """The test; `metrics.csv` is of the training, whose last row would else take the test's epoch."""
        collect = CollectSamples()
        self.trainer.loggers = [logger for logger in self.trainer.loggers if not isinstance(logger, MetricsLogger)]
        self.trainer.callbacks.append(collect)  # type: ignore[attr-defined]
        self.trainer.test(self.task, datamodule=self.data, verbose=False)
        return samples(self.task, collect.found, self.data)

    def _judge(self, found: Samples) -> dict[str, Any]:
        """What one process alone does with the test: baselines, certificates, predictions, figures."""
        self._examine(found)
        answers: dict[str, Tensor] = {}
        scores, costs = compare(
            self.task, self.data, self.experiment.baselines, progress=self.options.progress, keep=answers.__setitem__
        )
        record.write_baselines(self.folder, answers)
        self.reached |= {
            "peak_memory": step_memory(self.task, self.data),
            "training": costs,
            "extra": dict(self.task.findings(found, self.data.splits)),
        }
        self.reached["test"] = {**self._tested(), **scores}
        self.reached["labels"] = {"model": "implicit network", **{name: name.replace("_", " ") for name in scores}}
        with figures.drawing():
            self.reached["examples"] = figures.draw_examples(self.folder, self.task, found)
            own = self.task.figures(found, self.data.splits)
            self.reached["figures"] = figures.draw_figures(self.folder, own)
        return self._write("complete")

    def _examine(self, found: Samples) -> None:
        """What the test says of the samples; on the disk before anything that takes long."""
        self.reached |= {
            "solver": record.solver_numbers(found),
            "certificates": record.certificate_counts(found),
            "trusted": int((found.worst == 0).sum()),
        }
        write_json(self.folder.certificates, record.certificate_record(self.task, found))
        record.write_predictions(self.folder, found)

    def _let_go(self) -> None:
        """Lightning ends the processes that it had started, and some seconds later this one with them: it has work to do."""
        started = getattr(self.trainer.strategy.launcher, "procs", None)
        if isinstance(started, list):
            started.clear()

    def _leave(self, status: str, reason: str) -> None:
        """Write what was reached; that must not hide why the run ends."""
        if not on_first_process():
            return
        if reason:
            self.reached["failure"] = " ".join(reason.split())
        with suppress(Exception):
            self._write(status)

    def _write(self, status: str) -> dict[str, Any]:
        results = record.plain({**self._results(status), **self.reached})
        results["seconds"] = time.perf_counter() - self.started
        write_json(self.folder.results, results)
        build_report(self.folder.path)
        return results

    def _tested(self) -> dict[str, dict[str, float]]:
        metrics = self.trainer.callback_metrics
        names = [name for name in metrics if name.startswith("test/")]
        return {"model": {name.removeprefix("test/"): float(metrics[name]) for name in names}}

    def _results(self, status: str) -> dict[str, Any]:
        about = self.task.about()
        return {
            "name": self.experiment.name,
            "title": about.title,
            "summary": about.summary,
            "problem": about.problem,
            "guarantees": list(about.guarantees),
            "status": status,
            "seed": self.experiment.seed,
            "command": self.options.command([self.experiment.seed]),
            "metrics": record.metric_directions(self.task),
            "test": self._tested(),
            "validation": last_metrics(self.folder.path / "metrics.csv", "val/"),
            "labels": {"model": "implicit network"},
            "monitor": self.task.monitor,
            "best_epoch": best_epoch(self.folder.best),
            "epochs": self.trainer.current_epoch,
            "parameters": count_parameters(self.task),
            "seconds_per_epoch": self.experiment.timer.median,
            "peak_memory": None,
            "training": {},
            "solver": None,
            "certificates": {},
            "trusted": None,
            "examples": [],
            "figures": [],
            "extra": {},
            **provenance(),
        }
