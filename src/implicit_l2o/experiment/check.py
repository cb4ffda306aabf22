"""What can be known before a training that takes hours: that the data are there, and are enough."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import implicit_l2o as il2o
from implicit_l2o.experiment.errors import ConfigurationError, in_words
from implicit_l2o.training import AbstractData, AbstractTask, Calibration

_FEW = 4  # samples


def load_data(data: AbstractData, given: Mapping[str, Any]) -> None:
    """Download and load.

    Args:
        data: not loaded yet.
        given: its `init_args`, of which one may be blamed.

    Raises:
        ConfigurationError: something is missing or broken; the message names the key.
    """
    try:
        data.prepare_data()
        data.setup("fit")
    except Exception as error:  # of the user's own code
        raise ConfigurationError(_blame(error, given)) from error


@torch.no_grad()
def try_model(task: AbstractTask, data: AbstractData) -> None:
    """Answer a few training samples, take their loss and their metrics; nothing is changed by it.

    Raises:
        ConfigurationError: the model does not take such data, or refuses a value when it first uses it.
    """
    batch = data.splits.train[:_FEW]
    modes = {module: module.training for module in task.modules()}
    task.eval()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inference = task.training_inference(batch[0])
            task.loss(inference, batch)
            task.update(task.fresh_metrics(), task.infer(batch[0]), batch)
    except (ValueError, RuntimeError) as error:
        raise ConfigurationError(f"model: it fails on the first training samples: {in_words(error)}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode


def check_calibration(data: AbstractData, rule: Calibration) -> None:
    """See whether the shares are shares, and whether so many samples resolve them.

    Raises:
        ConfigurationError: they do not.
    """
    part = data.splits.train if rule.split == "train" else data.splits.validation
    values = torch.arange(float(len(part)))
    try:
        il2o.Calibration(values, p_pass=rule.p_pass, p_warn=rule.p_warn, p_fail=rule.p_fail, resolution=rule.resolution)
    except ValueError as error:
        raise ConfigurationError(f"calibration: {error}") from error


def _blame(error: Exception, given: Mapping[str, Any]) -> str:
    """The key whose value is the file that could not be read."""
    file = getattr(error, "filename", None)
    text = f"{file or ''} {error}"
    keys = [key for key, value in _leaves(given, "data.init_args") if _is_path(value) and str(value) in text]
    words = in_words(error)
    if isinstance(error, OSError):
        words = f"cannot read {words}"
    if isinstance(error, FileNotFoundError) and file and not Path(str(file)).is_absolute():
        words += f" Relative paths are looked for in {Path.cwd()}."
    return f"{keys[0] if keys else 'data'}: {words}"


def _leaves(tree: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The values that are no dictionaries, by their dotted keys."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}")
    else:
        yield key, tree


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, Path)) and len(str(value)) > 2
