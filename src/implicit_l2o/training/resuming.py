"""What Lightning leaves undone when a run stops and is resumed.

It logs the means of an epoch, and the values of a step, only after the hooks in which checkpoints are saved; it does not
keep the sums of an unfinished epoch; some loaders are not told their position; and where steps are limited it ends an epoch
twice. No public name leads to what these functions need; everything of that kind is in this module.
"""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch

from implicit_l2o.training.board import BoardLogger
from implicit_l2o.training.logger import MetricsLogger


def load_positions(trainer: pl.Trainer) -> None:
    """Let loaders go on from where they were.

    Lightning does that when it makes them, unless it made them before it read the checkpoint: as it does for a task that
    asks for the number of steps (`trainer.estimated_stepping_batches`), in a schedule for instance.
    """
    if trainer.fit_loop._combined_loader_states_to_load:
        trainer.fit_loop._load_combined_loader_states()
        make_iterator(trainer)


def make_iterator(trainer: pl.Trainer) -> None:
    """Make the iterator over the training batches again."""
    if (fetcher := trainer.fit_loop._data_fetcher) is not None:
        iter(fetcher)


def begin_next_epoch(trainer: pl.Trainer) -> None:
    """Let a run that is limited in steps, not epochs, and is resumed at the end of an epoch, go on with the next one.

    Lightning would end that epoch a second time: count it twice, and call the hooks of its end without metrics. What is done
    here is what Lightning does itself where epochs are limited.
    """
    loop = trainer.fit_loop
    if trainer.max_steps == -1 or not loop.restarted_on_epoch_end:
        return
    loop.epoch_progress.increment_completed()
    for part in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
        part._restarting = False
        part.reset_restart_stage()


def logged_step(trainer: pl.Trainer) -> int:
    """The number under which Lightning logs the step that was made last."""
    epoch_ends = trainer._logger_connector._first_loop_iter is None
    return trainer.fit_loop.epoch_loop._batches_that_stepped - (1 if epoch_ends else 0)


def write_metrics(trainer: pl.Trainer) -> None:
    """Put what Lightning is about to log into `metrics.csv` now: a kill after the checkpoint would lose it."""
    connector = trainer._logger_connector
    epoch_ends = connector._first_loop_iter is None
    if trainer.global_step and (epoch_ends or connector.should_update_logs):
        metrics = {name: float(value) for name, value in connector.metrics["log"].items() if name != "step"}
        if metrics:
            for logger in trainer.loggers:
                if isinstance(logger, MetricsLogger):  # what it is told twice it writes once
                    logger.log_metrics({"epoch": trainer.current_epoch, **metrics}, step=logged_step(trainer))
    for logger in trainer.loggers:
        if isinstance(logger, MetricsLogger | BoardLogger):
            logger.flush()


def means_so_far(trainer: pl.Trainer, missing: Mapping[str, float]) -> dict[str, Any]:
    """The sums and counts behind the means of the epoch so far, by key; `missing` is what `add_means` gave earlier in it."""
    earlier = {
        name: {"name": name, "value": torch.tensor(value, dtype=torch.float64), "count": None}
        for name, value in missing.items()
    }
    return earlier | {
        key: {"name": result.meta.name, "value": result.value, "count": getattr(result, "cumulated_batch_size", None)}
        for key, result in (trainer.fit_loop.epoch_loop._results or {}).items()
        if result.is_tensor and result.meta.on_epoch
    }


def add_means(trainer: pl.Trainer, means: Mapping[str, Any]) -> dict[str, float]:
    """Add them to what the resumed epoch has logged in its first step.

    Returns:
        The means of what was logged when the epoch began, which it does not do again.
    """
    results: Mapping[str, Any] = trainer.fit_loop.epoch_loop._results or {}
    missing = {}
    for key, mean in means.items():
        value, count = mean["value"].to(trainer.strategy.root_device), mean["count"]
        if (result := results.get(key)) is None:
            missing[mean["name"]] = float(value if count is None else value / count.to(value.device))
            continue
        if result.meta.is_max_reduction or result.meta.is_min_reduction:
            result.value = result.meta.reduce_fx(value, result.value)
        else:
            result.value = value + result.value
        if count is not None:
            result.cumulated_batch_size = result.cumulated_batch_size + count.to(value.device)
        result._computed = None
    return missing
