"""Checkpoints are whole or not there, hold plain things, and say in one line what is wrong with them."""

import argparse
import collections
import enum
import os
import pickle
import resource
import signal
import subprocess
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lossless_runs import Data, Task, nothing
from torch import nn

from implicit_l2o.training import (
    AtomicCheckpointIO,
    BoardLogger,
    CheckpointError,
    Checkpoints,
    FileError,
    MetricsLogger,
    read_checkpoint,
    write_checkpoint,
)
from implicit_l2o.training.files import replacing

CONTENT = {"state_dict": {"weight": torch.arange(3000.0)}, "loops": {"step": 7}, "epoch": 3}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good checkpoint, with another good one beside it."""
    write_checkpoint(CONTENT | {"epoch": 2}, tmp_path / "best.ckpt")
    write_checkpoint(CONTENT, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def message(call: Callable[[], Any], kind: type[Exception] = CheckpointError) -> str:
    """Of the error, which must be one line."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


# Writing.


def test_it_is_read_as_it_was_written(path: Path) -> None:
    content = read_checkpoint(path)
    assert torch.equal(content["state_dict"]["weight"], CONTENT["state_dict"]["weight"])
    assert content["epoch"] == 3
    assert content["loops"] == {"step": 7}


def test_plain_relatives_are_made_plain(tmp_path: Path) -> None:
    class Stage(enum.Enum):
        TRAIN = "train"

    class Name(str):
        pass

    content = {
        "number": np.float32(0.5),
        "count": np.int64(3),
        "path": tmp_path,
        "stage": Stage.TRAIN,
        "name": Name("x"),
        "namespace": argparse.Namespace(a=1),
        "nested": [(1, {"b": collections.defaultdict(list, c=[None])})],
        "counter": collections.Counter("aab"),
        "true": True,
        Stage.TRAIN: 1,
    }
    write_checkpoint(content, tmp_path / "plain.ckpt")
    found = read_checkpoint(tmp_path / "plain.ckpt")
    assert found == {
        "number": 0.5,
        "count": 3,
        "path": str(tmp_path),
        "stage": "train",
        "name": "x",
        "namespace": {"a": 1},
        "nested": [(1, {"b": {"c": [None]}})],
        "counter": {"a": 2, "b": 1},
        "true": True,
        "train": 1,
    }
    assert found["true"] is True
    assert type(found["number"]) is float


def test_the_state_of_a_module_keeps_the_versions_of_its_layers(tmp_path: Path) -> None:
    state = nn.BatchNorm1d(2).state_dict()
    write_checkpoint({"state_dict": state}, tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path / "a.ckpt")["state_dict"]._metadata == state._metadata


def test_what_is_not_plain_is_refused_by_name(path: Path) -> None:
    before = path.read_bytes()
    content = CONTENT | {"hyper_parameters": {"encoder": [nn.Linear(1, 1)]}}
    text = message(lambda: write_checkpoint(content, path))
    assert "hyper_parameters.encoder[0] is a torch.nn.modules.linear.Linear" in text
    assert path.read_bytes() == before
    assert "key" in message(lambda: write_checkpoint({"a": {(1, 2): 3}}, path))
    assert "local" in message(lambda: write_checkpoint(CONTENT, "s3://bucket/last.ckpt"))


def test_partial_files_of_killed_runs_go(path: Path) -> None:
    for name in ("last.ckpt.partial", "best.ckpt.partial"):
        (path.parent / name).write_bytes(b"half")
    (path.parent / "notes.partial").write_bytes(b"not ours")
    write_checkpoint(CONTENT, path)
    assert {file.name for file in path.parent.iterdir()} == {"best.ckpt", "last.ckpt", "notes.partial"}


def test_a_checkpoint_that_is_removed_is_gone(path: Path) -> None:
    io = AtomicCheckpointIO()
    io.remove_checkpoint(path)
    io.remove_checkpoint(path)
    assert not path.exists()


def test_storage_options_are_refused(path: Path) -> None:
    with pytest.raises(TypeError, match="storage_options"):
        AtomicCheckpointIO().save_checkpoint(dict(CONTENT), path, storage_options={})


# Disks that are full and folders that cannot be written to. A child process has the trouble, and tells.


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


def limited(size: int, run: Callable[[], Any]) -> Callable[[], Any]:
    """With no file larger than `size`; the write that passes it fails as on a full disk, after a part."""

    def call() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        run()

    return call


def without_rights(run: Callable[[], Any]) -> Callable[[], Any]:
    """As a user who is not root."""

    def call() -> None:
        if os.getuid() == 0:
            os.setuid(65534)
        run()

    return call


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mount.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


BIG = CONTENT | {"state_dict": {"weight": torch.zeros(20_000)}}  # 80 kilobytes, the others have 12


@pytest.mark.parametrize("size", [1, 5_000, 50_000])
def test_a_write_that_fails_leaves_the_former_checkpoint(path: Path, size: int) -> None:
    before = path.read_bytes()
    text = in_a_child(limited(size, lambda: write_checkpoint(BIG, path)))
    assert text == f"CheckpointError: Cannot write {path}: File too large. The former file is unchanged."
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_full_disk_leaves_the_former_checkpoint(small_disk: Path) -> None:
    path = small_disk / "checkpoints" / "last.ckpt"
    write_checkpoint(CONTENT, path)
    text = message(lambda: write_checkpoint(BIG, path))
    assert text == f"Cannot write {path}: No space left on device. The former file is unchanged."
    assert read_checkpoint(path)["epoch"] == 3
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_training_on_a_full_disk_ends_with_one_line_and_a_checkpoint(small_disk: Path) -> None:
    """The disk fills up in the third epoch: by something else, as it does."""

    def fill(task: Task) -> None:
        if task.trainer.global_step == 12:
            left = free(small_disk)
            (small_disk / "other").write_bytes(b"0" * (left - 4096))

    def train() -> None:
        trainer = pl.Trainer(
            max_epochs=6,
            accelerator="cpu",
            callbacks=[Checkpoints(small_disk / "checkpoints"), EarlyStopping("val/loss")],
            logger=[MetricsLogger(small_disk), BoardLogger(small_disk)],
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(Task(fill), datamodule=Data(batch_size=4))

    text = in_a_child(train)
    assert text.startswith("CheckpointError: Cannot write ")
    assert "No space left on device. The former file is unchanged." in text
    assert "\n" not in text
    assert read_checkpoint(small_disk / "checkpoints" / "last.ckpt")["global_step"] == 10
    assert read_checkpoint(small_disk / "checkpoints" / "best.ckpt")["global_step"] in (5, 10)
    assert len((small_disk / "metrics.csv").read_text().splitlines()) >= 11


def test_tensorboard_on_a_full_disk(small_disk: Path) -> None:
    """It says so, and does not wait for ever."""

    def log() -> None:
        logger = BoardLogger(small_disk)
        try:
            for step in range(10_000):
                logger.log_metrics({"train/loss": 1.0}, step)
                if step % 100 == 0:
                    logger.flush()
        finally:
            logger.finalize("failed")

    expected = f"FileError: Cannot write TensorBoard's events in {small_disk}: No space left on device."
    assert in_a_child(log) == expected
    assert in_a_child(log) == expected  # nor is there room for the beginning of a file


def free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    os.chmod(tmp_path.parent, 0o755)  # pytest's folders are for their owner alone
    for parent in tmp_path.parents[:4]:
        if parent.stat().st_uid == os.getuid() and "pytest" in parent.name:
            os.chmod(parent, 0o755)
    folder = tmp_path / "locked"
    write_checkpoint(CONTENT, folder / "last.ckpt")
    os.chmod(tmp_path, 0o755)
    os.chmod(folder, 0o555)
    path = folder / "last.ckpt"
    text = in_a_child(without_rights(lambda: write_checkpoint(CONTENT, path)))
    os.chmod(folder, 0o755)
    assert text == f"CheckpointError: Cannot write {path}: Permission denied. The former file is unchanged."
    assert read_checkpoint(path)["epoch"] == 3


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    text = message(lambda: write_checkpoint(CONTENT, tmp_path / "checkpoints" / "last.ckpt"))
    assert "Cannot write" in text
    assert "No file was left there." in text


def test_an_error_in_the_block_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("former")

    def interrupted() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]
    assert issubclass(CheckpointError, FileError)
    assert issubclass(FileError, OSError)


# Reading.


def test_a_missing_checkpoint_says_what_there_is(path: Path) -> None:
    text = message(lambda: read_checkpoint(path.parent / "other.ckpt"))
    assert text.startswith(f"There is no checkpoint {path.parent / 'other.ckpt'}. In the same folder can be read: ")
    assert {"last.ckpt", "best.ckpt"} <= set(text.rstrip(".").replace(",", "").split())
    assert "a folder" in message(lambda: read_checkpoint(path.parent))
    assert "No other" in message(lambda: read_checkpoint(path.parent / "nowhere" / "a.ckpt"))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_checkpoint(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    text = message(lambda: read_checkpoint(path))
    assert str(path) in text
    assert text.endswith("In the same folder can be read: best.ckpt.")


def test_flipped_bytes_are_found_or_harmless(path: Path) -> None:
    """In any place: the content is read as it was, or not at all."""
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    ends = [*range(100), *range(len(whole) - 100, len(whole))]
    places = {*generator.integers(0, len(whole), 250).tolist(), *ends[::3]}
    damaged = 0
    for place in sorted(places):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            content = read_checkpoint(path)
        except CheckpointError:
            damaged += 1
        else:
            assert torch.equal(content["state_dict"]["weight"], CONTENT["state_dict"]["weight"])
            assert content["epoch"] == 3
            assert content["loops"] == {"step": 7}
    assert damaged > 100


def test_torch_alone_would_read_a_changed_weight(path: Path) -> None:
    """Why the checksums are compared here."""
    whole = bytearray(path.read_bytes())
    place = whole.find(np.arange(100, 110, dtype=np.float32).tobytes())
    whole[place] ^= 1
    path.write_bytes(whole)
    assert torch.load(path, weights_only=True)["epoch"] == 3
    assert "does not match its checksum" in message(lambda: read_checkpoint(path))


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def test_code_is_not_run(path: Path) -> None:
    mark = path.parent / "ran"
    torch.save({"state_dict": Evil(mark)}, path)
    text = message(lambda: read_checkpoint(path))
    assert "it holds posix.system; nothing of it was run. In the same folder can be read: best.ckpt." in text
    assert "system" in message(lambda: AtomicCheckpointIO().load_checkpoint(path, weights_only=False))
    assert not mark.exists()


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("hello"),
        lambda path: path.write_bytes(pickle.dumps({"state_dict": {}})),
        lambda path: torch.save({"state_dict": {}}, path, _use_new_zipfile_serialization=False),
        lambda path: torch.save([1, 2], path),
        lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"),
        lambda path: torch.save({"weights": torch.ones(1)}, path),
    ],
    ids=["text", "pickle", "old", "list", "zip", "weights"],
)
def test_what_is_no_checkpoint(path: Path, write: Callable[[Path], Any]) -> None:
    write(path)
    text = message(lambda: AtomicCheckpointIO().load_checkpoint(path))
    assert f"{path} is not a checkpoint" in text
    assert text.endswith("In the same folder can be read: best.ckpt.")


def test_weights_that_lightning_hands_to_the_process_that_started_it(tmp_path: Path) -> None:
    io = AtomicCheckpointIO()
    io.save_checkpoint({"weight": torch.ones(1)}, tmp_path / ".temp.ckpt")
    assert io.load_checkpoint(tmp_path / ".temp.ckpt") == {"weight": torch.ones(1)}


# The callback.


def trainer(folder: Path, *, callbacks: tuple[pl.Callback, ...] = (), epochs: int = 2, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[Checkpoints(folder, **options), *callbacks],
        logger=False,
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The checkpoints of a run of two epochs."""
    fit(trainer(tmp_path / "checkpoints"))
    return tmp_path / "checkpoints"


def fit(run: pl.Trainer, resume: str | None = None) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(LeafSpec|does not have many workers).*")
        run.fit(Task(nothing), datamodule=Data(batch_size=10), ckpt_path=resume)


def test_another_run_is_not_overwritten(finished: Path) -> None:
    text = message(lambda: fit(trainer(finished)))
    assert "resume it (--ckpt_path last)" in text
    assert read_checkpoint(finished / "last.ckpt")["global_step"] == 4
    fit(trainer(finished, epochs=1, overwrite=True))
    assert read_checkpoint(finished / "last.ckpt")["global_step"] == 2


def test_a_finished_run_that_is_resumed_is_finished(finished: Path) -> None:
    before = (finished / "last.ckpt").read_bytes()
    fit(trainer(finished), "last")
    assert (finished / "last.ckpt").read_bytes() == before


def test_a_run_may_be_moved(finished: Path, tmp_path: Path) -> None:
    """The best epoch is still known, by its file in the new place."""
    moved = finished.rename(tmp_path / "moved")
    run = trainer(moved, epochs=3)
    fit(run, "last")
    callback = run.checkpoint_callback
    assert isinstance(callback, Checkpoints)
    assert callback.best_model_path == str(moved / "best.ckpt")
    assert list(callback.best_k_models) == [str(moved / "best.ckpt")]
    assert not finished.exists()


def test_a_checkpoint_may_be_taken_elsewhere_alone(finished: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path / "elsewhere", epochs=3)
    fit(run, str(finished / "last.ckpt"))
    assert read_checkpoint(tmp_path / "elsewhere" / "best.ckpt")["epoch"] == 2
    assert read_checkpoint(tmp_path / "elsewhere" / "last.ckpt")["global_step"] == 6


def test_the_best_and_the_last_are_named(finished: Path) -> None:
    """Also to a process that did not train."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("best", "last"):
            run = trainer(finished)
            assert run.validate(Task(nothing), datamodule=Data(), ckpt_path=name, verbose=False)[0]["val/loss"] > 0
            assert Path(str(run.ckpt_path)) == finished / f"{name}.ckpt"


def test_a_damaged_last_checkpoint_ends_a_resume_with_one_line(finished: Path) -> None:
    whole = (finished / "last.ckpt").read_bytes()
    (finished / "last.ckpt").write_bytes(whole[:-100])
    text = message(lambda: fit(trainer(finished), "last"))
    assert text == (f"{finished / 'last.ckpt'} is truncated or damaged. In the same folder can be read: best.ckpt.")


def test_a_trial_run_writes_nothing(tmp_path: Path) -> None:
    run = pl.Trainer(
        fast_dev_run=True,
        accelerator="cpu",
        callbacks=[Checkpoints(tmp_path / "checkpoints")],
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    fit(run)
    assert not (tmp_path / "checkpoints").exists()


def test_a_wrong_monitor_is_named_with_the_right_ones(tmp_path: Path) -> None:
    text = message(lambda: fit(trainer(tmp_path, monitor="val/accuracy")), ValueError)
    assert "train/loss" in text
    assert "val/loss" in text
    assert "'val/accuracy'" in text


@pytest.mark.bad_input
@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_minutes_are_positive(tmp_path: Path, minutes: float) -> None:
    assert "minutes must be positive" in message(lambda: Checkpoints(tmp_path, minutes=minutes), ValueError)


def test_signals_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    fit(trainer(tmp_path))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
