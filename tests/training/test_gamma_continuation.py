"""`GammaContinuation`: the values it sets, where it sets them, and that it leaves none behind."""

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import implicit_l2o as il2o
from implicit_l2o.training import quiet
from implicit_l2o.training.callbacks import GammaContinuation


class Simplex(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 3)
        lp = il2o.LinearProgram(A_eq=torch.ones(1, 3), b_eq=torch.ones(1))
        self.layer = il2o.LPLayer(lp, gamma=0.5)
        self.trained: list[float] = []
        self.validated: list[float] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.trained.append(self.layer.gamma)
        return self.layer(self.encoder(batch[0])).x.square().mean()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.validated.append(self.layer.gamma)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-2)


def fit(task: pl.LightningModule, callback: GammaContinuation, *, epochs: int = 3, validate: bool = True) -> None:
    data = DataLoader(TensorDataset(torch.randn(4, 2)), batch_size=4)
    with quiet():
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=[callback],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(task, data, data if validate else None)


@pytest.mark.parametrize("validate", [True, False])
def test_gamma_falls_to_the_layers_own_value_and_validation_always_has_it(validate: bool) -> None:
    torch.manual_seed(0)
    task = Simplex()
    fit(task, GammaContinuation(2.0), validate=validate)
    assert task.trained == pytest.approx([2.0, 1.0, 0.5])
    assert task.validated == pytest.approx([0.5] * 3 if validate else [])
    assert task.layer.gamma == 0.5


def test_it_may_end_before_the_training() -> None:
    task = Simplex()
    fit(task, GammaContinuation(2.0, epochs=2))
    assert task.trained == pytest.approx([2.0, 0.5, 0.5])


def test_an_interrupted_training_leaves_the_layers_own_value() -> None:
    task = Simplex()
    task.training_step = _fail  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(RuntimeError, match="stop"):
        fit(task, GammaContinuation(2.0))
    assert task.layer.gamma == 0.5


def _fail(batch: list[Tensor], batch_idx: int) -> Tensor:
    raise RuntimeError("stop")


@pytest.mark.bad_input
def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="start > 0; got start=0"):
        GammaContinuation(0.0)
    with pytest.raises(ValueError, match="epochs >= 1"):
        GammaContinuation(1.0, epochs=0)
    task = Simplex()
    task.layer.gamma = 0.0
    with pytest.raises(ValueError, match="no LPLayer with gamma > 0"):
        fit(task, GammaContinuation(1.0))
