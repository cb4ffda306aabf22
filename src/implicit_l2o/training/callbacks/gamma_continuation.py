"""The quadratic term of `LPLayer`s, large in the first epochs of a training and falling to its own value."""

import lightning.pytorch as pl

import implicit_l2o as il2o


class GammaContinuation(pl.Callback):
    """Trains every `LPLayer` of a task with `gamma` falling geometrically from `start` to the layer's own value.

    A large `gamma` spreads the solution, so that far-away alternatives give a gradient; a small one is nearer to the linear
    program. Validation is under the layer's own value in every epoch, so that epochs are compared by one loss, and so is
    everything after the training.

    Args:
        start: `gamma` of the first epoch, positive.
        epochs: in which it falls; from then on it is the layer's own. None takes all epochs of the training.

    Raises:
        ValueError: an argument is out of its range; the task has no `LPLayer` with `gamma > 0`, or the training no end.

    Example:
        >>> from implicit_l2o.training.callbacks import GammaContinuation
        >>> [round(GammaContinuation(8.0, epochs=4).at(epoch, final=1.0), 2) for epoch in range(5)]
        [8.0, 4.0, 2.0, 1.0, 1.0]
    """

    def __init__(self, start: float, *, epochs: int | None = None) -> None:
        if not start > 0:
            raise ValueError(f"GammaContinuation needs start > 0; got start={start}.")
        if epochs is not None and epochs < 1:
            raise ValueError(f"GammaContinuation needs epochs >= 1; got epochs={epochs}.")
        self.start = start
        self.epochs = epochs
        self._final: list[tuple[il2o.LPLayer, float]] = []

    def at(self, epoch: int, *, final: float, epochs: int | None = None) -> float:
        """`gamma` in an epoch (counted from 0) of a layer whose own value is `final`."""
        last = max(1, (epochs or self.epochs or 1) - 1)
        return final * (self.start / final) ** (1 - min(1.0, epoch / last))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the layers and their own values."""
        layers = [module for module in pl_module.modules() if isinstance(module, il2o.LPLayer) and module.gamma > 0]
        if not layers:
            raise ValueError(f"GammaContinuation found no LPLayer with gamma > 0 in {type(pl_module).__name__}.")
        if self.epochs is None and not (trainer.max_epochs and trainer.max_epochs > 0):
            raise ValueError("GammaContinuation needs an end: give it epochs, or the trainer max_epochs.")
        self._final = [(layer, layer.gamma) for layer in layers]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the epoch's value."""
        for layer, final in self._final:
            layer.gamma = self.at(trainer.current_epoch, final=final, epochs=self.epochs or trainer.max_epochs)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Back to the layers' own values."""
        self._restore()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Back, in an epoch without validation."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Back, however the training ends."""
        self._restore()

    def _restore(self) -> None:
        for layer, final in self._final:
            layer.gamma = final
