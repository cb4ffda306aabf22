"""The states of all random number generators, such that a resumed run draws what the uninterrupted one draws."""

import random
import warnings
from collections.abc import Mapping
from typing import Any, final

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import distributed

from implicit_l2o.training.distributed import draw_apart
from implicit_l2o.training.resuming import load_positions, make_iterator


def random_state() -> dict[str, Any]:
    """The states of the generators of Python, NumPy and PyTorch, on the CPU and on every CUDA device in use.

    They are tensors, numbers and strings, so that a checkpoint can hold them. Generators that somebody made are not
    among them.

    Example:
        >>> import torch
        >>> from implicit_l2o.training import random_state, restore_random_state
        >>> state = random_state()
        >>> first = torch.rand(3)
        >>> restore_random_state(state)
        >>> torch.equal(torch.rand(3), first)
        True
    """
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": {"version": version, "state": torch.tensor(internal, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        # To ask is to start CUDA, which a run on the CPU should not.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set the generators to what `random_state` returned. CUDA devices that are missing here are left out."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["state"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        for device, cuda in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(cuda.cpu(), device)


def of_all_processes(trainer: pl.Trainer, value: Any) -> list[Any]:
    """The values of all processes of a run, in their order; each of them calls this."""
    values = [value]
    if trainer.world_size > 1 and distributed.is_initialized():
        values = [None] * trainer.world_size
        distributed.all_gather_object(values, value)
    return values


@final
class RandomState(pl.Callback):
    """Keeps the random states of every process in the checkpoint, and puts them back where the training goes on.

    Put it first among the callbacks: what the hooks of later ones draw then repeats as well. A checkpoint is taken at the
    end of an epoch, at the end of a step, or before the first epoch. What is drawn between that moment and the next training
    step (the loader's seed and order, the model's dropout) is drawn again in the same order; what a resumed run draws before
    (initial weights, the sanity check) has no effect.

    With another number of processes than the checkpoint's, the states are left as the seed made them, with a warning.

    Example:
        >>> import lightning.pytorch as pl
        >>> from implicit_l2o.training import RandomState
        >>> trainer = pl.Trainer(callbacks=[RandomState()], accelerator="cpu", logger=False)
    """

    def __init__(self) -> None:
        self._pending: Mapping[str, Any] | None = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the states of all processes; each of them calls this."""
        checkpoint["random_state"] = of_all_processes(trainer, random_state())

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take this process's states, for later."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        states = checkpoint.get("random_state", [])
        if len(states) == trainer.world_size:
            self._pending = states[trainer.global_rank]
        elif trainer.is_global_zero:
            warnings.warn(
                f"The checkpoint has the random states of {len(states)} processes, this run has {trainer.world_size}: "
                "they are not restored, and the run draws other numbers than an uninterrupted one.",
                stacklevel=2,
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Inside an epoch the next draw is the fetching of a batch; no hook stands between.

        Where there is nothing to put back, the processes part: from here on each draws for its own samples.
        """
        if self._pending is None:
            draw_apart(trainer.global_rank)
        if trainer.fit_loop.restarted_mid_epoch:
            load_positions(trainer)
            self._restore()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Between epochs the loader's iterator is made next, and draws its seed.

        A resumed Lightning has made it already, before the epoch was known, so it is made again.
        """
        progress: Any = trainer.fit_loop.epoch_progress.current
        if self._restore() and trainer.fit_loop.is_resuming and progress.processed > 0:
            make_iterator(trainer)

    def _restore(self) -> bool:
        """Put the states back, once; whether there were any."""
        if self._pending is None:
            return False
        restore_random_state(self._pending)
        self._pending = None
        return True
