"""The metrics file: a row a step, whole after any kill, continued after a resume."""

import csv
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from implicit_l2o.training import BoardLogger, FileError, MetricsLogger


@pytest.fixture
def logger(tmp_path: Path) -> MetricsLogger:
    """Three steps are on the disk."""
    logger = MetricsLogger(tmp_path)
    for step in range(3):
        logger.log_metrics({"epoch": 0, "train/loss": 1 / (step + 1)}, step)
    logger.flush()
    return logger


def rows(logger: MetricsLogger) -> list[dict[str, str]]:
    with logger.path.open() as file:
        return list(csv.DictReader(file))


def steps(logger: MetricsLogger) -> list[int]:
    return [int(row["step"]) for row in rows(logger)]


def test_a_row_a_step(logger: MetricsLogger) -> None:
    assert logger.path.read_text() == "step,epoch,train/loss\n0,0,1.0\n1,0,0.5\n2,0,0.3333333333333333\n"


def test_what_is_logged_at_a_step_is_one_row_also_when_half_of_it_is_written(logger: MetricsLogger) -> None:
    logger.log_metrics({"train/loss": 0.3}, 2)
    logger.flush()
    logger.log_metrics({"val/loss": 0.4}, 2)
    logger.log_metrics({"val/loss": 0.5, "lr": torch.tensor(0.25)}, 2)
    logger.log_metrics({"train/loss": 0.1}, 3)
    logger.flush()
    logger.log_metrics({"train/loss": 0.1}, 3)  # nothing new
    logger.flush()
    logger.log_metrics({"train/loss": 123456.789}, 3)  # longer
    logger.flush()
    logger.log_metrics({"train/loss": 1.0}, 3)  # shorter
    logger.flush()
    assert logger.path.read_text().splitlines()[3:] == ["2,0,0.3,0.5,0.25", "3,,1.0,,"]


def test_new_columns_come_last_and_are_empty_before(logger: MetricsLogger) -> None:
    logger.log_metrics({"b": 1.0, "a": 2.0}, 5)
    logger.log_metrics({"c, with comma": float("nan")}, 6)
    logger.log_metrics({"a": float("-inf")}, 7)
    logger.flush()
    frame = pd.read_csv(logger.path)
    assert list(frame.columns) == ["step", "epoch", "train/loss", "b", "a", "c, with comma"]
    assert frame["a"].tolist()[3] == 2.0
    assert frame["a"].isna().tolist() == [True, True, True, False, True, False]
    assert frame["step"].tolist() == [0, 1, 2, 5, 6, 7]


def test_rows_wait_until_there_are_enough(tmp_path: Path) -> None:
    logger = MetricsLogger(tmp_path, flush_every=3)
    for step in range(3):
        logger.log_metrics({"a": 1.0}, step)
        logger.save()
    assert not logger.path.exists()
    logger.log_metrics({"a": 1.0}, 3)
    logger.save()
    assert steps(logger) == [0, 1, 2, 3]
    logger.log_metrics({"a": 1.0}, 4)
    logger.finalize("success")
    assert steps(logger) == [0, 1, 2, 3, 4]


def test_a_resumed_run_goes_on_after_its_checkpoint(logger: MetricsLogger, tmp_path: Path) -> None:
    """Of step 2 there may be a row, but the checkpoint is from before."""
    resumed = MetricsLogger(tmp_path)
    resumed.rewind(2)
    assert steps(resumed) == [0, 1]
    resumed.log_metrics({"train/loss": 0.25}, 2)
    resumed.flush()
    assert [row["train/loss"] for row in rows(resumed)] == ["1.0", "0.5", "0.25"]
    resumed.rewind(0)
    assert resumed.path.read_text() == "step,epoch\n"


def test_another_process_adds_its_rows(logger: MetricsLogger, tmp_path: Path) -> None:
    """A test of the best epoch, for instance."""
    other = MetricsLogger(tmp_path)
    other.log_metrics({"test/loss": 0.5}, 0)
    other.flush()
    assert steps(other) == [0, 1, 2, 0]


def test_a_file_that_was_cut_anywhere(logger: MetricsLogger, tmp_path: Path) -> None:
    """Every whole row is kept, nothing else, and the file goes on."""
    whole = logger.path.read_bytes()
    for size in range(len(whole) + 1):
        logger.path.write_bytes(whole[:size])
        resumed = MetricsLogger(tmp_path)
        resumed.rewind(100)
        complete = max(0, whole[:size].count(b"\n") - 1)
        assert steps(resumed) == list(range(complete))
        resumed.log_metrics({"train/loss": 7.0}, 9)
        resumed.flush()
        assert [row["train/loss"] for row in rows(resumed)][-1] == "7.0"


@pytest.mark.parametrize("content", ["", "\n", "hello", "a,b\n1,2\n", "step,a\n1,2\nx,3\n4\n5,6,7\n"])
def test_a_file_that_is_none_of_ours_does_not_stop_a_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.csv").write_text(content)
    logger = MetricsLogger(tmp_path)
    logger.rewind(50)
    logger.log_metrics({"a": 1.0}, 60)
    logger.flush()
    assert steps(logger) == ([1, 60] if content.startswith("step") else [60])


def test_lightning_takes_it_for_a_logger(tmp_path: Path) -> None:
    logger = MetricsLogger(tmp_path / "run")
    assert isinstance(logger, Logger)
    assert {logger.save_dir, logger.log_dir, logger.root_dir} == {str(tmp_path / "run")}
    assert (logger.name, logger.version) == ("", "")  # so Lightning's own folders are the run's
    logger.log_hyperparams({"a": object()})
    logger.finalize("success")
    assert not (tmp_path / "run").exists()  # nothing was logged


@pytest.mark.bad_input
def test_bad_values_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="flush_every must be at least 1; got 0"):
        MetricsLogger(tmp_path, flush_every=0)


def in_a_child(run: Callable[[], Any]) -> str:
    """What a forked process says the error was."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run()
            text = "no error"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        return answer.read()


def test_a_full_disk_is_one_line_and_the_rows_before_stay(logger: MetricsLogger, tmp_path: Path) -> None:
    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        for step in range(3, 100):
            logger.log_metrics({"train/loss": 1 / 3}, step)
            logger.flush()

    text = in_a_child(fill)
    assert text == f"FileError: Cannot write {logger.path}: File too large. The rows up to here are there."
    resumed = MetricsLogger(tmp_path)
    resumed.rewind(100)
    kept = steps(resumed)
    assert kept == list(range(len(kept)))
    assert len(kept) >= 6


def test_a_failed_run_shows_its_own_error(logger: MetricsLogger) -> None:
    def fail() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        logger.log_metrics({"train/loss": 1.0}, 9)
        logger.finalize("failed")
        raise ZeroDivisionError("the first error")

    assert in_a_child(fail) == "ZeroDivisionError: the first error"


@pytest.mark.skipif(sys.platform == "win32", reason="a folder is a file there")
def test_no_folder_for_it(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    logger = MetricsLogger(tmp_path / "run")
    logger.log_metrics({"a": 1.0}, 0)
    with pytest.raises(FileError, match=r"Cannot (read|write)"):
        logger.flush()


# TensorBoard.


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    names = accumulator.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in accumulator.Scalars(name)] for name in names}


def test_the_events_lie_in_the_folder_and_go_on(tmp_path: Path) -> None:
    logger = BoardLogger(tmp_path)
    for step in range(5):
        logger.log_metrics({"train/loss": float(step)}, step)
        logger.save()
    logger.flush()  # and the process is killed
    resumed = BoardLogger(tmp_path)
    resumed.rewind(3)
    for step in range(3, 5):
        resumed.log_metrics({"train/loss": 10.0 * step}, step)
    resumed.finalize("success")
    logger.finalize("failed")
    assert scalars(tmp_path) == {"train/loss": [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]}
    assert all(path.name.startswith("events.out.tfevents.") for path in tmp_path.iterdir())
    assert (logger.log_dir, logger.save_dir) == (f"{tmp_path}/", str(tmp_path))


def test_a_logger_that_logged_nothing_writes_nothing(tmp_path: Path) -> None:
    BoardLogger(tmp_path / "run").finalize("success")
    assert not (tmp_path / "run").exists()
