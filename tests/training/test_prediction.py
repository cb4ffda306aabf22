"""One file of predictions: whole, in order, and refused where samples are missing or doubled."""

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor

from implicit_l2o.training.data import Inputs
from implicit_l2o.training.prediction import PredictionWriter

D = torch.arange(7.0).unsqueeze(1)


class Doubling(pl.LightningModule):
    """Predicts 2 d; `spoil` changes what a step returns."""

    def __init__(self, spoil: Any = lambda prediction: prediction) -> None:
        super().__init__()
        self.spoil = spoil

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        answer: Tensor = 2 * batch.batch[0]
        return self.spoil({"index": batch.index, "answer": answer, "half": answer.bfloat16()})


def predict(folder: Path, model: pl.LightningModule, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        trainer = pl.Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            callbacks=[PredictionWriter()],
            **options,
        )
        trainer.predict(model, datamodule=Inputs(D, evaluation_batch=3), return_predictions=False)


def test_the_file_holds_every_sample_in_order_and_replaces_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "predictions.npz").write_text("older")
    predict(tmp_path, Doubling())
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.npz"]
    with np.load(tmp_path / "predictions.npz") as found:
        assert set(found) == {"answer", "half"}
        assert np.array_equal(found["answer"], 2 * D.numpy())
        assert found["half"].dtype == np.float32


def test_batches_may_come_in_any_order_and_be_fewer(tmp_path: Path) -> None:
    predict(tmp_path, Doubling(lambda p: {**p, "index": 6 - p["index"]}))
    with np.load(tmp_path / "predictions.npz") as found:
        assert np.array_equal(found["answer"], 2 * D.flip(0).numpy())
    predict(tmp_path, Doubling(lambda p: {**p, "index": p["index"] + 2}), limit_predict_batches=2)
    with np.load(tmp_path / "predictions.npz") as found:
        assert found["index"].tolist() == [2, 3, 4, 5, 6]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda p: p["answer"], TypeError, "dictionary of tensors; got Tensor"),
        (lambda p: {**p, "answer": 2.0}, TypeError, "dictionary of tensors; got dict"),
        (lambda p: {"answer": p["answer"]}, TypeError, '"index"; got only answer'),
        (lambda p: {**p, "answer": p["answer"][:1]}, ValueError, "'answer': 1"),
        (
            lambda p: {**p, "index": p["index"] // 2},
            RuntimeError,
            r"3 sample\(s\) were predicted twice, the first is 0",
        ),
        (lambda p: {**p, "index": p["index"] + 1}, RuntimeError, r"1 sample\(s\) were not predicted, the first is 0"),
        (lambda p: {k: v[:2] for k, v in p.items()}, RuntimeError, r"1 sample\(s\) were not predicted, the first is 2"),
    ],
)
def test_what_is_not_whole_is_not_written(spoil: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        predict(tmp_path, Doubling(spoil))
    assert not list(tmp_path.iterdir())
