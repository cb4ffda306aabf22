"""The configuration of an experiment, by LightningCLI: model, data, trainer, and what `il2o` adds to them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from implicit_l2o.experiment.errors import ConfigurationError, explain
from implicit_l2o.experiment.folder import RunFolder
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
    quiet,
)

_TRAINER = {"max_epochs": 20, "num_sanity_val_steps": 0, "enable_model_summary": False, "log_every_n_steps": 10}


class _Parser(LightningArgumentParser):
    """Raises what is wrong instead of ending the process after a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> Any:  # type: ignore[override]
        """Name the key, and the valid ones."""
        raise ConfigurationError(explain(message, self)) from ex


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

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """As LightningCLI does, without its remark that the process has arguments of its own."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Nothing: the configuration says what the task is, and a checkpoint is read once, with care."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What `il2o` adds to Lightning's keys."""
        parser.add_argument("--name", type=str | None, default=None, help="of the experiment; default: the file's")
        parser.add_argument("--folder", type=Path | None, default=None, help="of the run's files; default: runs/NAME")
        parser.add_argument(
            "--baselines", type=dict[str, AbstractBaseline], default={}, help="what the model is compared with, by name"
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
        """Threads first: they decide the order of sums, hence every bit."""
        threads = self._get(self.config, "threads")
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
            *self._callbacks(bool(config.get("enable_progress_bar", True) is not False)),
            *_listed(config.get("callbacks")),
        ]
        config["plugins"] = [AtomicCheckpointIO(), *_listed(config.get("plugins"))]
        config["logger"] = self._loggers(config.get("logger"))
        config["default_root_dir"] = config.get("default_root_dir") or self.folder.path
        return pl.Trainer(**config)

    def check_data(self) -> None:
        """Load the data before anything else is done.

        Raises:
            ConfigurationError: a file is missing or broken; the message names the key.
        """
        try:
            self.datamodule.prepare_data()
            self.datamodule.setup("fit")
        except OSError as error:
            raise ConfigurationError(self._blame(error)) from error

    def _blame(self, error: OSError) -> str:
        """The key whose value is the file that could not be read."""
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        given = self._get(self.config, "data").get("init_args", Namespace()).as_dict()
        keys = [key for key, value in given.items() if error.filename and str(value) == str(error.filename)]
        return f"data.init_args.{keys[0]}: cannot read {reason}." if keys else f"data: cannot read {reason}."

    def before_fit(self) -> None:
        """For `il2o fit`: the data are there, and the configuration is kept."""
        self.check_data()
        if on_first_process():
            self.folder.path.mkdir(parents=True, exist_ok=True)
            self.write_config()

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """A checkpoint by name, read without running code."""
        arguments = super()._prepare_subcommand_kwargs(subcommand)
        if arguments.get("ckpt_path") is not None:
            arguments["ckpt_path"] = self.folder.checkpoint(str(arguments["ckpt_path"]))
        return arguments | {"weights_only": True}

    def _run_subcommand(self, subcommand: str) -> None:
        """Ctrl-C is a `KeyboardInterrupt`, whatever Lightning makes of it."""
        with quiet(), interruptible(self.trainer):
            super()._run_subcommand(subcommand)
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
        """`metrics.csv` always, for the report reads it; the user's loggers, by default TensorBoard."""
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
        for key in self._subcommand_method_arguments.get(self.subcommand, ()) if self._runs else ():
            config.pop(key, None)  # of this one call, not of the experiment
        return self._parser(self.subcommand).dump(config, skip_none=False)

    def write_config(self) -> None:
        """Keep the configuration in the run folder."""
        write_text(self.folder.config, self.configuration())


def load_model(config: Path) -> AbstractTask:
    """The untrained task of a run's configuration, without its data and trainer."""
    return _TaskOnly([f"--config={config}"]).model


class _TaskOnly(ExperimentCLI):
    """Makes no trainer, so it writes no file."""

    def instantiate_classes(self) -> None:
        """The task alone."""
        self.config_init = self.parser.instantiate_classes(Namespace(model=self.config.model))
        self.model = self.config_init.model


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def on_first_process() -> bool:
    """Whether this process is the one that writes; also before the processes have met."""
    return (
        int(os.environ.get("LOCAL_RANK", 0)) == 0
        and int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", 0))) == 0
    )
