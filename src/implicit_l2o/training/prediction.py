"""What all processes say of the samples, brought together: in memory, and as one file of predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from implicit_l2o.training.files import replacing
from implicit_l2o.training.sampler import BatchLoader


def gather_samples(samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The samples of all processes, on every process; what is given on one.

    Every process calls it with the same names and its own number of samples. They come in the order of `"index"`, where
    that is among the names, and else in the order of the processes, which is the data set's order in the validation, test
    and prediction loaders of `AbstractData`.

    Args:
        samples: tensors (B, ...), B being the same for all names.

    Raises:
        ValueError: the processes gave different names, or the lengths of the tensors differ.

    Example:
        >>> import torch
        >>> from implicit_l2o.training.prediction import gather_samples
        >>> gather_samples({"residual": torch.zeros(3)})
        {'residual': tensor([0., 0., 0.])}
    """
    _check_lengths(samples)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return dict(samples)
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, {name: value.detach().cpu() for name, value in samples.items()})
    if any(set(part) != set(samples) for part in parts):
        raise ValueError(f"The processes gave different names: {', '.join(str(sorted(part)) for part in parts)}.")
    joined = {name: torch.cat([part[name] for part in parts]) for name in samples}
    if "index" in joined:
        order = joined["index"].argsort(stable=True)
        joined = {name: value[order] for name, value in joined.items()}
    return {name: value.to(samples[name].device) for name, value in joined.items()}


@final
class PredictionWriter(pl.Callback):
    """Writes what `predict_step` returned as one `predictions.npz`: every sample once, in the order of the data set.

    `predict_step` returns a dictionary of tensors (B, ...), with the places of the samples as `"index"` (see `Indexed`).
    On several processes each writes its part into the folder, which all of them must see, and the first joins the parts.
    The file is written under another name and then renamed, so that it is never half there.

    Args:
        folder: where to write; None for the trainer's `default_root_dir`.

    Raises:
        TypeError: in a prediction, `predict_step` returned something else.
        RuntimeError: in a prediction, a sample is missing or there twice.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._batches: list[dict[str, Tensor]] = []

    def on_predict_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with nothing."""
        self._batches = []

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the predictions of a batch in the CPU's memory."""
        if not isinstance(outputs, Mapping) or not all(isinstance(value, Tensor) for value in outputs.values()):
            raise TypeError(f"predict_step must return a dictionary of tensors; got {type(outputs).__name__}.")
        if "index" not in outputs:
            raise TypeError(f'predict_step must return the samples\' "index"; got only {", ".join(outputs)}.')
        _check_lengths(outputs)
        self._batches.append({name: value.detach().cpu() for name, value in outputs.items()})

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file."""
        folder = Path(trainer.default_root_dir) if self.folder is None else self.folder
        parts = [folder / f"predictions.rank{rank}.npz" for rank in range(trainer.world_size)]
        arrays = {name: _array(torch.cat([b[name] for b in self._batches])) for name in self._batches[0]}
        self._batches = []
        size = _size(trainer)
        if len(parts) == 1:
            write_arrays(folder / "predictions.npz", _in_order([arrays], size))
            return
        try:
            parts[trainer.global_rank].unlink(missing_ok=True)  # of an earlier run
            write_arrays(parts[trainer.global_rank], arrays)
        finally:  # a process that fails must not leave the others waiting
            trainer.strategy.barrier("predictions.parts")
        try:
            if trainer.is_global_zero:
                write_arrays(folder / "predictions.npz", _in_order([_read(part) for part in parts], size))
                for part in parts:
                    part.unlink()
        finally:
            trainer.strategy.barrier("predictions")


def _size(trainer: pl.Trainer) -> int | None:
    """How many samples there are to predict; None where the trainer stops before their end, or nobody knows."""
    loader, limit = trainer.predict_dataloaders, trainer.limit_predict_batches
    if not isinstance(loader, BatchLoader) or not isinstance(limit, float) or limit != 1.0:
        return None
    return len(loader.dataset)  # pyright: ignore[reportArgumentType]


def _in_order(parts: Sequence[Mapping[str, np.ndarray]], size: int | None) -> dict[str, np.ndarray]:
    """The parts joined and sorted by index, which must be that of `size` samples; it is kept only where there are gaps."""
    names = list(parts[0])
    if any(set(part) != set(names) for part in parts):
        raise RuntimeError(f"The processes predicted different things: {', '.join(str(sorted(p)) for p in parts)}.")
    joined = {name: np.concatenate([part[name] for part in parts]) for name in names}
    order = np.argsort(joined["index"], kind="stable")
    joined = {name: value[order] for name, value in joined.items()}
    index = joined["index"]
    twice = index[1:][index[1:] == index[:-1]]
    if len(twice):
        raise RuntimeError(f"{len(twice)} sample(s) were predicted twice, the first is {twice[0]}.")
    missing = np.setdiff1d(np.arange(index[-1] + 1 if size is None else size), index)
    if len(missing) and size is not None:
        raise RuntimeError(f"{len(missing)} sample(s) were not predicted, the first is {missing[0]}.")
    if not len(missing):
        del joined["index"]
    return joined


def _check_lengths(samples: Mapping[str, Tensor]) -> None:
    lengths = {name: len(value) for name, value in samples.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Tensors of the same samples need the same length; got {lengths}.")


def _array(value: Tensor) -> np.ndarray:
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()  # NumPy has no bfloat16


def _read(file: Path) -> dict[str, np.ndarray]:
    if not file.exists():
        raise RuntimeError(
            f"A process has left no {file}: all processes must see the same folder, and have room in it."
        )
    with np.load(file) as arrays:
        return dict(arrays)


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an `.npz` file, all or nothing: a reader sees the old file or the new one.

    Args:
        file: its folder is made where it is missing.
        arrays: by name.

    Raises:
        FileError: the folder cannot be written to, or the disk is full.
    """
    with replacing(file) as stream:
        np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]
