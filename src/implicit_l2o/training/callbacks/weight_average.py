"""A running average of the weights, which is validated and kept."""

import copy
from typing import Any, final

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn


@final
class WarmWeightAverage(WeightAveraging):
    """An exponential average of the weights, `a <- d a + (1 - d) w` with `d = min(decay, t / (t + 5))` in step `t`.

    Its memory is `1 / (1 - decay)` steps, less in the beginning, so the start is soon forgotten. The average is validated,
    saved as the checkpoint's `state_dict`, and left in the model when the training ends. Buffers are not averaged: they are
    those of the training, so counters and batch statistics stay what they are. The checkpoint must be a whole one
    (`save_weights_only=False`), for Lightning asks callbacks for theirs only then.

    Args:
        decay: in (0, 1).

    Raises:
        ValueError: `decay` is outside (0, 1).

    Example:
        >>> from implicit_l2o.training.callbacks import WarmWeightAverage
        >>> WarmWeightAverage(0.99).decay
        0.99
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"WarmWeightAverage needs 0 < decay < 1; got decay={decay}.")
        super().__init__(use_buffers=False, multi_avg_fn=self._move)
        self.decay = decay
        self._swapped = False

    @torch.no_grad()
    def _move(self, average: list[Tensor], weights: list[Tensor], count: Tensor | int) -> None:
        """One step of the average; `count` steps went in before."""
        step = int(count) + 1
        new = 1 - min(self.decay, step / (step + 5))
        for mean, weight in zip(average, weights, strict=True):
            mean.lerp_(weight, new)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin the average; its counter stays on the CPU, where reading it does not wait for the device."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self._average_model is not None:
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """An interrupted validation leaves the two swapped; a checkpoint saved now must not take one for the other."""
        if self._swapped:
            self._swap_models(pl_module)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Only a training goes on with both; a test takes the average, which is the checkpoint's `state_dict`."""
        if trainer.state.fn == "fit":
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        if self._average_model is not None:
            _grow(self._average_model.module, pl_module)
        super()._swap_models(pl_module)
        self._swapped = not self._swapped


def _grow(average: nn.Module, module: nn.Module) -> None:
    """Copy what the module got since, such as its metrics in the first validation: the two are matched by position."""
    known = dict(average.named_modules())
    for name, part in module.named_modules():
        if name not in known:
            parent, _, leaf = name.rpartition(".")
            added = copy.deepcopy(part)
            known[parent].add_module(leaf, added)
            known |= dict(added.named_modules(prefix=name))
