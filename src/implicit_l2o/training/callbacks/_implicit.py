"""What the callbacks share: the implicit modules of a model, and a row in every logger."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from torch import nn

import implicit_l2o as il2o


def check_every(owner: str, every: int) -> None:
    """Raise a `ValueError` unless `every` is a positive number of steps."""
    if every < 1:
        raise ValueError(f"{owner} needs every >= 1 training steps; got every={every}.")


def implicit_modules(model: nn.Module) -> list[Any]:
    """The modules that choose a backward mode: those with an attribute `backward` that is a mode, or None for JFB."""
    return [
        module
        for module in model.modules()
        if "backward" in vars(module) and isinstance(vars(module)["backward"], il2o.AbstractBackward | None)
    ]


@contextmanager
def backward_modes(
    modules: list[Any], change: Callable[[il2o.AbstractBackward], il2o.AbstractBackward]
) -> Iterator[None]:
    """Other backward modes in these modules, for the duration."""
    former = [module.backward for module in modules]
    try:
        for module, mode in zip(modules, former, strict=True):
            module.backward = change(il2o.JFB() if mode is None else mode)
        yield
    finally:
        for module, mode in zip(modules, former, strict=True):
            module.backward = mode


def log_row(trainer: pl.Trainer, values: Mapping[str, float], step: int) -> None:
    """Write a row to every logger, whatever `log_every_n_steps` says: the callbacks have rhythms of their own."""
    for logger in trainer.loggers:
        logger.log_metrics({"epoch": trainer.current_epoch, **values}, step=step)
        logger.save()
