"""`il2o export`: a run's trained model as one folder that needs nothing of the training."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.experiment.certify import load_task
from implicit_l2o.experiment.errors import ConfigurationError
from implicit_l2o.experiment.folder import RunFolder
from implicit_l2o.serving import AbstractServable, InputError, Layer, LayerError, export_program, save_layer
from implicit_l2o.serving.specification import build, class_path
from implicit_l2o.training import AbstractTask

_EXAMPLES = 2  # test inputs whose answers are saved with the layer


def export(run: Path, out: Path, *, steps: int | None = None, allow: tuple[str, ...] = ()) -> Path:
    """Save the model of a finished run as a layer that `serving.load_layer` loads.

    Args:
        run: folder of a finished run.
        out: the folder to write; it does not exist yet, or is empty.
        steps: also save the program of `torch.export`, with as many iterations; None leaves it out.
        allow: packages beside `implicit_l2o` whose classes the configuration names.

    Raises:
        ConfigurationError: there is no such run, its application cannot be served, or the folder is not empty.
    """
    specification, layer = _layer(run, allow)
    try:
        program = None if steps is None else export_program(layer, steps=steps)
        return save_layer(layer, out, specification["init_args"], allow=allow, program=program, steps=steps)
    except LayerError as error:
        raise ConfigurationError(str(error)) from error


def layer_of(run: Path, *, allow: tuple[str, ...] = ()) -> Layer:
    """The model of a finished run as a layer, without saving it.

    Args:
        run: as for `export`.
        allow: as for `export`.

    Raises:
        ConfigurationError: as for `export`.
    """
    return _layer(run, allow)[1]


def _layer(run: Path, allow: tuple[str, ...]) -> tuple[dict[str, Any], Layer]:
    task = load_task(run)
    served = type(task).served_by
    if served is None:
        raise ConfigurationError(
            f"{type(task).__name__} has nothing to serve it by: give it a class `served_by`, an AbstractServable."
        )
    config = yaml.safe_load(RunFolder(run).config.read_text())["model"].get("init_args") or {}
    specification = {"class_path": class_path(served), "init_args": served_arguments(served, config)}
    try:
        with torch.random.fork_rng(devices=[]):
            model = build(specification, allow=(*allow, served.__module__.split(".")[0]))
        _take_weights(model, task)
        rules = task.calibration
        calibrated = () if rules is None else il2o.certificates_from_json(rules, model.measures())
        layer = Layer(model, example=_example(run, task), calibrated=calibrated)
    except (LayerError, InputError) as error:
        raise ConfigurationError(f"{run} cannot be served: {error}") from error
    _compare(layer, task)
    return specification, layer


def served_arguments(served: type[AbstractServable], config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a task's configuration that its servable class takes, each dataclass with its class path."""
    return _arguments(served, {name: config[name] for name in inspect.signature(served).parameters if name in config})


def _arguments(cls: type, config: Mapping[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls.__init__)
    return {name: _argument(value, hints.get(name)) for name, value in config.items()}


def _argument(value: Any, hint: Any) -> Any:
    """An argument as YAML has it: where the annotation alone says which dataclass it is, its class path is added."""
    if not isinstance(value, dict):
        return value
    if "class_path" in value:
        module, _, name = value["class_path"].rpartition(".")
        cls = getattr(__import__(module, fromlist=[name]), name)
        return {"class_path": value["class_path"], "init_args": _arguments(cls, value.get("init_args") or {})}
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for option in options:
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return {"class_path": class_path(option), "init_args": _arguments(option, value)}
    return value


def _take_weights(model: AbstractServable, task: AbstractTask) -> None:
    trained, wanted = task.state_dict(), model.state_dict()
    if missing := sorted(set(wanted) - set(trained)):
        raise LayerError(f"{type(model).__name__} has weights that the task lacks: {', '.join(missing[:3])}.")
    try:
        model.load_state_dict({name: trained[name] for name in wanted})
    except RuntimeError as error:
        raise LayerError(f"the weights do not fit {type(model).__name__}: {error}") from error


def _example(run: Path, task: AbstractTask) -> Tensor:
    """The first test inputs, of the run's predictions."""
    path = RunFolder(run).predictions
    if not path.is_file() or task.inputs is None:
        raise ConfigurationError(f"{run} has no {path.name}, from which an example is taken; `il2o run` writes it.")
    with np.load(path, allow_pickle=False) as arrays:
        inputs = torch.from_numpy(arrays["inputs"][:_EXAMPLES])
    return inputs.to(task.inputs[1])


@torch.no_grad()
def _compare(layer: Layer, task: AbstractTask) -> None:
    """The layer must say of the example what the task says."""
    said, wanted = layer(layer.example), task.examine(layer.example)
    same = said.answer.shape == wanted["answer"].shape and torch.allclose(
        said.answer.double(), wanted["answer"].double(), rtol=1e-4, atol=1e-6
    )
    if not (same and torch.equal(said.report.labels, wanted["labels"])):
        raise ConfigurationError(f"{type(layer.model).__name__} does not answer as {type(task).__name__} does.")
