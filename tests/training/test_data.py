"""The batches of a training on one process: what they hold, in which order, and that a stopped run goes on."""

import warnings
from itertools import chain
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from torch import Tensor, nn
from torch.utils.data import SequentialSampler, TensorDataset

from implicit_l2o.training.data import AbstractData, Indexed, Inputs, Splits
from implicit_l2o.training.sampler import BatchLoader, EvaluationSampler, TrainingSampler


class Numbers(AbstractData):
    """Sample i is (i, 2 i); 22 to train on, 7 to validate and 7 to test."""

    def __init__(self, *, batch_size: int = 4, evaluation_batch: int = 3, workers: int = 0, seed: int | None = None):
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, workers=workers, seed=seed)
        self.loads = 0

    def load(self) -> Splits:
        self.loads += 1
        d = torch.arange(36.0).unsqueeze(1)
        return Splits(*(TensorDataset(part, 2 * part) for part in d.split([22, 7, 7])))


class File(AbstractData):
    """What a user writes: options of its own, and one of the base's with another default."""

    def __init__(self, file: str, *, batch_size: int = 32) -> None:
        super().__init__(batch_size=batch_size)
        self.file = file

    def load(self) -> Splits:
        d = torch.from_numpy(np.loadtxt(self.file, delimiter=",")).unsqueeze(1)
        return Splits(*(TensorDataset(part, part) for part in d.split([6, 2, 2])))


class Recorder(pl.LightningModule):
    """Fits a line and writes down which samples a step has seen."""

    def __init__(self, *, fail_at: int | None = None) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)
        nn.init.constant_(self.line.weight, 0.3)
        nn.init.zeros_(self.line.bias)
        self.fail_at = fail_at
        self.seen: list[tuple[int, list[float]]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if len(self.seen) == self.fail_at:
            raise RuntimeError("stopped by the test")
        self.seen.append((self.current_epoch, batch[0].flatten().tolist()))
        return (self.line(batch[0] / 36) - batch[1]).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", (self.line(batch[0] / 36) - batch[1]).square().mean(), batch_size=len(batch[0]))

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return {"index": batch.index, "answer": self.line(batch.batch[0])}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


class SaveWhenInterrupted(pl.Callback):
    def __init__(self, file: Path) -> None:
        self.file = file

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        trainer.save_checkpoint(self.file)


def fit(model: pl.LightningModule, data: AbstractData, *, ckpt: Path | None = None, **options: Any) -> pl.Trainer:
    saves = any(isinstance(callback, pl.callbacks.ModelCheckpoint) for callback in options.get("callbacks", []))
    options = {"max_epochs": 3, "enable_checkpointing": saves, **options}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **options,
        )
        trainer.fit(model, datamodule=data, ckpt_path=ckpt, weights_only=None if ckpt is None else True)
    return trainer


def values(loader: BatchLoader) -> list[list[float]]:
    return [batch[0].flatten().tolist() for batch in loader]


sizes = st.integers(1, 60)


@given(size=sizes, shard=st.integers(1, 9), processes=st.integers(1, 4), epoch=st.integers(0, 3))
def test_processes_share_the_global_batches_of_one(size: int, shard: int, processes: int, epoch: int) -> None:
    if size < processes:
        return
    alone = TrainingSampler(size, shard * processes, seed=5)
    alone.set_epoch(epoch)
    shares = [
        TrainingSampler(size, shard * processes, processes=processes, rank=rank, seed=5) for rank in range(processes)
    ]
    for sampler in shares:
        sampler.set_epoch(epoch)
    batches = [torch.cat(parts) for parts in zip(*shares, strict=True)]
    expected = [batch[: len(batch) - len(batch) % processes] for batch in alone]
    assert [b.tolist() for b in batches] == [b.tolist() for b in expected if len(b)]
    assert {len(sampler) for sampler in shares} == {len(batches)}
    assert all(len({len(part) for part in parts}) == 1 for parts in zip(*shares, strict=True))  # equal shards
    assert sorted(torch.cat(list(alone)).tolist()) == list(range(size))


@given(size=sizes, batch=st.integers(1, 20), processes=st.integers(1, 4))
def test_an_evaluation_sees_every_sample_once_in_equally_many_batches(size: int, batch: int, processes: int) -> None:
    if size < processes:
        return
    shares = [EvaluationSampler(size, batch, processes=processes, rank=rank) for rank in range(processes)]
    parts = [list(sampler) for sampler in shares]
    assert torch.cat([index for part in parts for index in part]).tolist() == list(range(size))
    assert {len(part) for part in parts} == {len(sampler) for sampler in shares}
    assert len({len(part) for part in parts}) == 1
    lengths = [len(index) for part in parts for index in part]
    assert min(lengths) >= 1
    assert max(lengths) <= max(batch, 2 if processes > 1 else 1)
    assert all(max(map(len, part)) - min(map(len, part)) <= 1 for part in parts)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        sampler = TrainingSampler(20, 7, seed=seed)
        sampler.set_epoch(epoch)
        torch.rand(3)  # the global state has no influence
        return tuple(torch.cat(list(sampler)).tolist())

    orders = {(seed, epoch): order(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(set(orders.values())) == 9  # seed 0 in epoch 1 is not seed 1 in epoch 0
    assert all(order(*key) == expected for key, expected in orders.items())


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingSampler(10, 0), "at least 1 sample; got 0"),
        (lambda: TrainingSampler(10, 5, processes=2), r"multiple of their number, 2; got batch_size=5"),
        (lambda: TrainingSampler(10, 4, processes=2, rank=2), r"rank must be in \[0, 2\).*got 2"),
        (lambda: TrainingSampler(10, 4, seed=-1), "seed must be at least 0; got -1"),
        (lambda: EvaluationSampler(3, 4, processes=4), "at least 1 sample; the data set has 3"),
        (lambda: Numbers(batch_size=0), "batch_size must be at least 1; got 0"),
        (lambda: Numbers(evaluation_batch=0), "evaluation_batch must be at least 1; got 0"),
        (lambda: Numbers(workers=-1), "workers must be at least 0; got -1"),
        (lambda: Numbers(seed=-1), "seed must be at least 0; got -1"),
        (lambda: Inputs(), r"same number of samples, at least 1; got lengths \[\]"),
        (lambda: Inputs(torch.zeros(2), torch.zeros(3)), r"got lengths \[2, 3\]"),
        (lambda: Inputs(torch.zeros(2), evaluation_batch=0), "evaluation_batch must be at least 1; got 0"),
        (lambda: splits(test=TensorDataset(torch.zeros(0), torch.zeros(0))), "test has none"),
        (lambda: splits(test=TensorDataset(torch.zeros(1))), "train 2, validation 2, test 1"),
    ],
)
def test_wrong_values_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def splits(**parts: Any) -> Splits:
    good = TensorDataset(torch.zeros(1), torch.zeros(1))
    return Splits(**{"train": good, "validation": good, "test": good, **parts})


@pytest.mark.bad_input
def test_a_split_is_a_tensor_dataset() -> None:
    with pytest.raises(TypeError, match="TensorDataset as validation; got list"):
        splits(validation=[1, 2])


def test_loaders_give_the_splits() -> None:
    data = Numbers()
    data.setup("fit")
    data.setup("test")
    assert data.loads == 1
    train = values(data.train_dataloader())
    assert [len(batch) for batch in train] == [4, 4, 4, 4, 4, 2]
    assert sorted(chain.from_iterable(train)) == list(range(22))
    assert values(data.val_dataloader()) == [[22, 23, 24], [25, 26], [27, 28]]
    for loader in (data.test_dataloader(), data.predict_dataloader(), data.samples("test")):
        assert [batch.index.tolist() for batch in loader] == [[0, 1, 2], [3, 4], [5, 6]]
        for batch in loader:
            assert isinstance(batch, Indexed)
            assert torch.equal(batch.batch[0].flatten(), batch.index + 29)
            assert torch.equal(batch.batch[1], 2 * batch.batch[0])
    assert len(data.samples("train")) == 8


def test_the_seed_is_the_runs_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert Numbers().run_seed == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    assert Numbers().run_seed == 3
    assert Numbers(seed=0).run_seed == 0
    assert values(Numbers().train_dataloader()) == values(Numbers(seed=3).train_dataloader())
    assert values(Numbers().train_dataloader()) != values(Numbers(seed=0).train_dataloader())


def test_loading_draws_from_the_seed_and_leaves_the_global_state() -> None:
    class Drawn(Numbers):
        def load(self) -> Splits:
            return splits(train=TensorDataset(torch.randn(5), torch.randn(5)))

    before = torch.get_rng_state()
    first = Drawn(seed=1).splits.train.tensors[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(Drawn(seed=1).splits.train.tensors[0], first)
    assert not torch.equal(Drawn(seed=2).splits.train.tensors[0], first)


@pytest.mark.parametrize("workers", [0, 1])
def test_iterating_takes_nothing_from_the_global_random_state(workers: int) -> None:
    data = Numbers(workers=workers)
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()):
        assert len(list(loader)) == len(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_subclass_is_made_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text("\n".join(str(i) for i in range(10)))
    parser = ArgumentParser()
    parser.add_subclass_arguments(AbstractData, "data")
    config = parser.parse_string(f"data:\n  class_path: {File.__module__}.File\n  init_args:\n    file: {file}\n")
    data = parser.instantiate(config).data
    assert type(data) is File
    assert data.batch_size == 32
    assert [batch[0].shape for batch in data.train_dataloader()] == [(6, 1)]


def test_lightning_trains_and_predicts_with_the_loaders() -> None:
    model, data = Recorder(), Numbers()
    trainer = fit(model, data)
    assert [epoch for epoch, _ in model.seen] == [0] * 6 + [1] * 6 + [2] * 6
    for epoch in range(3):
        assert sorted(chain.from_iterable(seen for e, seen in model.seen if e == epoch)) == list(range(22))
    assert len({tuple(seen) for _, seen in model.seen}) == 18  # another order in every epoch
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        predictions: Any = trainer.predict(model, datamodule=data)
        assert torch.cat([p["index"] for p in predictions]).tolist() == list(range(7))
        predictions = trainer.predict(model, datamodule=Inputs(torch.arange(5.0).unsqueeze(1), evaluation_batch=2))
    assert torch.cat([p["index"] for p in predictions]).tolist() == list(range(5))
    assert torch.equal(torch.cat([p["answer"] for p in predictions]), model.line(torch.arange(5.0).unsqueeze(1)))


def test_overfitting_on_purpose_repeats_whole_batches() -> None:
    model, data = Recorder(), Numbers()
    fit(model, data, overfit_batches=2)
    assert isinstance(data.train_dataloader().sampler, SequentialSampler)
    assert [seen for _, seen in model.seen] == [[0, 1, 2, 3], [4, 5, 6, 7]] * 3


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop", range(1, 14))
def test_a_run_stopped_after_any_step_goes_on_with_the_next_batch(stop: int, workers: int, tmp_path: Path) -> None:
    if workers and stop not in (4, 6, 9):
        return  # processes are slow to start
    whole = Recorder()
    fit(whole, Numbers(workers=workers))
    file = tmp_path / "stopped.ckpt"
    saver = pl.callbacks.ModelCheckpoint(tmp_path, filename="stopped", every_n_train_steps=stop, save_top_k=1)
    first = Recorder()
    fit(first, Numbers(workers=workers), callbacks=[saver], max_steps=stop)
    second = Recorder()
    fit(second, Numbers(workers=workers), ckpt=file)
    assert first.seen + second.seen == whole.seen
    assert all(torch.equal(a, b) for a, b in zip(second.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop", [0, 3, 6, 8])
def test_an_interrupted_step_is_done_again(stop: int, workers: int, tmp_path: Path) -> None:
    whole = Recorder()
    fit(whole, Numbers())
    file = tmp_path / "interrupted.ckpt"
    first = Recorder(fail_at=stop)
    with pytest.raises(RuntimeError, match="stopped by the test"):
        fit(first, Numbers(workers=workers), callbacks=[SaveWhenInterrupted(file)])
    second = Recorder()
    fit(second, Numbers(workers=workers), ckpt=file)
    assert first.seen + second.seen == whole.seen
    assert all(torch.equal(a, b) for a, b in zip(second.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("hook", ["val", "epoch"])
@pytest.mark.parametrize("limit", [None, 4])
def test_a_checkpoint_of_an_epochs_end_begins_the_next(hook: str, limit: int | None, tmp_path: Path) -> None:
    options: dict[str, Any] = {} if limit is None else {"limit_train_batches": limit}
    whole = Recorder()
    fit(whole, Numbers(), **options)
    saver = pl.callbacks.ModelCheckpoint(tmp_path, filename="end", save_on_train_epoch_end=hook == "epoch")
    first = Recorder()
    fit(first, Numbers(), callbacks=[saver], max_epochs=1, **options)
    second = Recorder()
    fit(second, Numbers(), ckpt=tmp_path / "end.ckpt", **options)
    assert first.seen + second.seen == whole.seen
    assert all(torch.equal(a, b) for a, b in zip(second.parameters(), whole.parameters(), strict=True))


def test_a_state_within_an_epoch_belongs_to_its_order() -> None:
    loader = Numbers().train_dataloader()
    batches = iter(loader)
    seen = [next(batches)[0].flatten().tolist() for _ in range(2)]
    state = loader.state_dict()
    again = Numbers().train_dataloader()
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert seen + values(again) == values(Numbers().train_dataloader())
    with pytest.raises(ValueError, match=r"after 2 batches of epoch 0.*batch_size=4, not 5, seed=0, not 2"):
        Numbers(batch_size=5, seed=2).train_dataloader().load_state_dict(state)
    list(batches)
    assert loader.state_dict() == {**state, "epoch": 1, "position": 0}
    Numbers(batch_size=5).train_dataloader().load_state_dict(loader.state_dict())  # between epochs it may change
