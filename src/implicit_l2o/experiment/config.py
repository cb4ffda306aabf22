"""The configuration of an experiment, by LightningCLI: model, data, trainer, and what `il2o` adds to them."""

import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from implicit_l2o.experiment.check import check_calibration, load_data, try_model
from implicit_l2o.experiment.diagnose import complaint, diagnose, find_nodes
from implicit_l2o.experiment.errors import ConfigurationError, in_words, root
from implicit_l2o.experiment.folder import RunFolder
from implicit_l2o.experiment.sources import config_files, merged, read_yaml, see_beside
from implicit_l2o.report import write_text
from implicit_l2o.training import (
    AbstractBaseline,
    AbstractData,
    AbstractTask,
    AtomicCheckpointIO,
    BoardLogger,
    Calibrate,
    Calibration,
    Checkpoints,
    EpochTimer,
    GradientCosine,
    MetricsLogger,
    PredictionWriter,
    RandomState,
    SolverProgressBar,
    SolverStatistics,
    WarmWeightAverage,
    interruptible,
    keep_freed_memory,
    quiet,
)

_TRAINER = {"max_epochs": 20, "num_sanity_val_steps": 0, "enable_model_summary": False, "log_every_n_steps": 10}
_GROUPS: dict[type, str] = {
    pl.Trainer: "trainer",
    Calibration: "calibration",
    SolverStatistics: "statistics_every",
    GradientCosine: "gradient_cosine_every",
    WarmWeightAverage: "weight_average",
    Checkpoints: "checkpoint_minutes",
}


class _Refused(Exception):
    """The parser's complaint."""


class _Parser(LightningArgumentParser):
    """Raises what is wrong instead of ending the process after a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> Any:  # type: ignore[override]
        """Leave it to `diagnose`."""
        raise _Refused(message) from ex


class ExperimentCLI(LightningCLI):
    """Reads a configuration and makes the task, the data and the trainer with everything that a run records.

    Besides LightningCLI's `model`, `data`, `trainer`, `optimizer`, `lr_scheduler` and `seed_everything` a configuration may
    have the keys that `il2o run --print_config` shows: `name`, `folder`, `baselines`, `calibration`, `statistics_every`,
    `gradient_cosine_every`, `weight_average`, `checkpoint_minutes` and `threads`.

    Args:
        arguments: of the command line, without the program's name.
        run: take the first argument as the subcommand `fit`, `validate`, `test` or `predict`, and run it.

    Attributes:
        folder: where the run's files go.
        baselines: by name.
        timer: the wall time of the epochs.

    Raises:
        ConfigurationError: the message names the key and the valid ones.
    """

    def __init__(self, arguments: Sequence[str], *, run: bool = False) -> None:
        self._runs = run
        with quiet():
            super().__init__(
                AbstractTask,
                AbstractData,
                save_config_callback=None,
                trainer_defaults=_TRAINER,
                seed_everything_default=0,
                parser_class=_Parser,
                subclass_mode_model=True,
                subclass_mode_data=True,
                args=list(arguments),
                run=run,
            )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """As LightningCLI does, but a key is written in full."""
        return super().init_parser(prog="il2o", allow_abbrev=False, **kwargs)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """As LightningCLI does, without its remark that the process has arguments of its own.

        Raises:
            ConfigurationError: names the key that is wrong, and the valid ones.
        """
        files = config_files(args)
        for file in files:
            read_yaml(file)
        see_beside(files)
        try:
            self.config = parser.parse_args(args)
        except Exception as error:  # a module that a class path names may raise anything
            chosen = self._subcommand_parsers.get(args[0], parser) if self._runs else parser
            raise ConfigurationError(diagnose(chosen, args, str(error))) from error
        self.given = merged(args)

    def _parse_ckpt_path(self) -> None:
        """Nothing: the configuration says what the task is, and a checkpoint is read once, with care."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What `il2o` adds to Lightning's keys."""
        parser.add_argument("--name", type=str | None, default=None, help="of the experiment; default: the file's")
        parser.add_argument("--folder", type=Path | None, default=None, help="of the run's files; default: runs/NAME")
        parser.add_argument(
            "--baselines",
            type=dict[str, AbstractBaseline] | None,
            default={},
            help="what the model is compared with, by name",
        )
        parser.add_class_arguments(Calibration, "calibration")
        parser.add_argument("--statistics_every", type=int, default=10, help="steps between two looks at the solver")
        parser.add_argument(
            "--gradient_cosine_every",
            type=int,
            default=0,
            help="steps between two comparisons of the gradient with the exact one; 0 for none",
        )
        parser.add_argument(
            "--weight_average", type=float, default=0.0, help="decay of the weights' average; 0 for none"
        )
        parser.add_argument(
            "--checkpoint_minutes",
            type=float | None,
            default=10.0,
            help="between two checkpoints within a long epoch; null for none",
        )
        parser.add_argument("--threads", type=int | None, default=None, help="of PyTorch's operations")

    def before_instantiate_classes(self) -> None:
        """Threads first: they decide the order of sums, hence every bit. Then the allocator."""
        keep_freed_memory()
        threads = self._get(self.config, "threads")
        if threads is not None and threads < 1:
            raise ConfigurationError(f"threads must be at least 1; got {threads}.")
        if threads is not None:
            torch.set_num_threads(threads)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer with our loggers, callbacks and whole checkpoints, beside the user's."""
        self.name = self._name()
        self.folder = RunFolder(self._get(self.config_init, "folder") or Path("runs") / self.name)
        self.baselines: dict[str, AbstractBaseline] = self._get(self.config_init, "baselines") or {}
        self.timer = EpochTimer()
        config = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        config["callbacks"] = [
            *self._callbacks(config.get("enable_progress_bar") is not False),
            *_listed(config.get("callbacks")),
        ]
        config["plugins"] = [AtomicCheckpointIO(), *_listed(config.get("plugins"))]
        config["logger"] = self._loggers(config.get("logger"))
        config["default_root_dir"] = config.get("default_root_dir") or self.folder.path
        return pl.Trainer(**config)

    def instantiate_classes(self) -> None:
        """Task, data, baselines and trainer.

        Raises:
            ConfigurationError: one of them cannot be made; names the key.
        """
        try:
            self._instantiate()
        except Exception as error:  # of any class that the configuration names
            raise ConfigurationError(self._unmade(error)) from error

    def _instantiate(self) -> None:
        super().instantiate_classes()

    def _unmade(self, error: Exception) -> str:
        """The key of the object that refused its arguments, and what it said."""
        cause = root(error)
        config = self.config.as_dict()
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            maker = type(frame.f_locals.get("self"))
            if frame.f_code.co_name != "__init__":
                continue
            keys = [_GROUPS[maker]] if maker in _GROUPS else find_nodes(config, maker, frame.f_locals)
            if keys:
                return f"{' or '.join(keys)}: {in_words(cause)}"
        return complaint(self._parser(self.subcommand), self.given) or in_words(cause)

    def check(self) -> None:
        """Find before the training what would end it: missing data, a model that does not take them, too few samples.

        Raises:
            ConfigurationError: the message names the key.
        """
        if on_first_process():  # the others wait for it, in Lightning
            given = self._get(self.config, "data").get("init_args", Namespace()).as_dict()
            load_data(self.datamodule, given)
            try_model(self.model, self.datamodule)
            if self.model.measures():
                check_calibration(self.datamodule, self._get(self.config_init, "calibration"))

    def before_fit(self) -> None:
        """The data are there, the folder is free, and the configuration is kept."""
        self.check()
        if on_first_process():
            self.folder.claim(resume=self._get(self.config, "ckpt_path") is not None)
            self.write_config()

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """A checkpoint by name, read without running code; what is not trained here was trained before."""
        arguments = super()._prepare_subcommand_kwargs(subcommand)
        wanted = arguments.get("ckpt_path") or (None if subcommand == "fit" else "model")
        if wanted is not None:
            arguments["ckpt_path"] = self.folder.checkpoint(str(wanted))
        return arguments | {"weights_only": True}

    def _run_subcommand(self, subcommand: str) -> None:
        """Ctrl-C is a `KeyboardInterrupt`, whatever Lightning makes of it."""
        if subcommand != "fit":
            self.check()
        try:
            with quiet(), interruptible(self.trainer):
                super()._run_subcommand(subcommand)
        except KeyboardInterrupt:
            hint = "; go on with --ckpt_path last" if subcommand == "fit" and self.folder.last.is_file() else ""
            raise KeyboardInterrupt(f"interrupted{hint}.") from None
        finally:
            self.folder.release()
        if subcommand in ("fit", "predict") and on_first_process():
            print(f"written: {self.folder.model if subcommand == 'fit' else self.folder.path / 'predict'}")

    def _name(self) -> str:
        files = self._get(self.config, "config") or []
        stem = Path(str(files[-1])).stem if files else type(self.model).__name__.lower()
        return self._get(self.config_init, "name") or stem

    def _callbacks(self, progress: bool) -> list[Callback]:
        folder, monitor = self.folder, self.model.monitor
        average = self._get(self.config_init, "weight_average")
        cosine = self._get(self.config_init, "gradient_cosine_every")
        return [
            *([WarmWeightAverage(average)] if average else []),
            RandomState(),
            self.timer,
            SolverStatistics(every=self._get(self.config_init, "statistics_every")),
            *([GradientCosine(every=cosine)] if cosine else []),
            *([SolverProgressBar()] if progress else []),
            Checkpoints(
                folder.checkpoints,
                monitor=monitor,
                minutes=self._get(self.config_init, "checkpoint_minutes"),
                overwrite=not self._runs,
            ),
            Calibrate(folder.best, folder.model, self._get(self.config_init, "calibration")),
            PredictionWriter(folder.path / "predict"),
        ]

    def _loggers(self, wanted: Any) -> list[Logger]:
        """`metrics.csv` for every training, since the report reads it; the user's loggers, by default TensorBoard."""
        if self.subcommand not in (None, "fit"):
            return [] if wanted is True else _listed(wanted or None)
        ours: list[Logger] = [MetricsLogger(self.folder.path)]
        if wanted is None or wanted is True:
            return [*ours, BoardLogger(self.folder.path)]
        return [*ours, *_listed(wanted or None)]

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self._get(self.config, "seed_everything"))

    def configuration(self) -> str:
        """The complete configuration as YAML, as it was understood."""
        config = self.config.get(str(self.subcommand), self.config).clone()
        config.name, config.folder = self.name, self.folder.path
        for key in self._subcommand_method_arguments[str(self.subcommand)] if self._runs else ():
            config.pop(key, None)  # of this one call, not of the experiment
        return self._parser(self.subcommand).dump(config, skip_none=False)

    def write_config(self) -> None:
        """Keep the configuration in the run folder."""
        write_text(self.folder.config, self.configuration())


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def on_first_process() -> bool:
    """Whether this process is the one that writes; also before the processes have met.

    Lightning's own launcher, torchrun and SLURM each set some of these, and all of them are 0 in the first process alone.
    """
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return all(int(os.environ.get(name, 0)) == 0 for name in names)
