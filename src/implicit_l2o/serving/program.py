"""A layer as a program of `torch.export`: a fixed number of iterations with the certificates."""

import copy
import dataclasses
import io
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.serving.errors import LayerError
from implicit_l2o.serving.folder import PROGRAM, read_description, read_file
from implicit_l2o.serving.layer import Layer
from implicit_l2o.serving.servable import AbstractServable

OUTPUTS = ("answer", "x", "status", "residual", "values", "labels")
_MOST_STEPS = 10_000
_CLOSE = 1e-4  # between the program and the layer, relative; the order of sums may differ


class _Inference(nn.Module):
    """What is traced: inputs to answers and certificates."""

    def __init__(self, layer: Layer, steps: int) -> None:
        super().__init__()
        self.model = _fixed(layer.model, steps)
        calibrated = zip(self.model.measures(), layer.calibrated, strict=False)  # there may be none
        rules = tuple(il2o.Certificate(measure, certificate.rule) for measure, certificate in calibrated)
        self.certificates = (*self.model.certificates(), *rules)

    def forward(self, d: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""
        inference = self.model.infer(d)
        if inference.status is None or inference.residual is None:
            raise LayerError(f"{type(self.model).__name__} solves nothing, so there are no iterations to fix.")
        report = il2o.certify(self.certificates, inference)
        found = (self.model.answer(inference), inference.x, inference.status, inference.residual)
        return dict(zip(OUTPUTS, (*found, report.values, report.labels), strict=True))


def fixed_steps(layer: Layer, steps: int) -> Layer:
    """The same layer with solvers that run exactly `steps` iterations: what its exported program computes, without export.

    A sample whose start solves the problem already is the exception: it ends after the first one.

    Args:
        layer: is left as it is.
        steps: of every solver that has a tolerance; those without one run a fixed number already.

    Raises:
        LayerError: `steps` is not in 1 to 10,000.
    """
    model = _fixed(layer.model, steps)
    calibrated = [
        il2o.Certificate(measure, certificate.rule)
        for measure, certificate in zip(model.measures(), layer.calibrated, strict=False)
    ]
    return Layer(model, example=layer.example, calibrated=calibrated)


@torch.no_grad()
def export_program(layer: Layer, *, steps: int) -> bytes:
    """The layer by `torch.export`, for batches of any size, as the bytes of a `.pt2` file.

    The program maps inputs to a dictionary with `answer`, `x`, `status`, `residual`, `values` and `labels` (`(B, P)`, in the
    order of the layer's certificates). It runs `steps` iterations of the layer's solver, whatever the tolerance: a sample
    that does not meet it by then has the status MAX_STEPS and fails its certificates.

    Args:
        layer: the layer.
        steps: iterations, at least 1; the program's size grows with them.

    Raises:
        LayerError: something in the layer cannot be traced, or the program does not agree with `fixed_steps`.

    For example `torch.export.load(io.BytesIO(export_program(layer, steps=50))).module()(d)["labels"]`.
    """
    traced = _Inference(layer, steps).eval()
    example = layer.example[:1].repeat(3, *([1] * len(layer.shape)))  # a batch of one would be taken for a constant
    traced(example)  # fills what operators keep, with real tensors
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, about constants
            batch = torch.export.Dim("batch", min=1)
            program = torch.export.export(traced, (example,), dynamic_shapes=({0: batch},), strict=False)
            file = io.BytesIO()
            torch.export.save(program, file)
    except LayerError:
        raise
    except Exception as error:  # whatever the tracer says of an operation that it does not take
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason is given")
        raise LayerError(
            f"{type(layer.model).__name__} cannot be exported by torch.export, save it without: "
            f"{type(error).__name__}: {reason[:300]}"
        ) from error
    _compare(traced, program.module(), layer.example)
    return file.getvalue()


def load_program(folder: str | os.PathLike[str]) -> Any:
    """The exported program of a saved layer, as a module: call it on a batch.

    Raises:
        LayerError: the folder has no program, or it is damaged.
    """
    folder = Path(folder)
    try:
        description = read_description(folder)
        if PROGRAM not in description["files"]:
            raise LayerError(f"it has no {PROGRAM}: save it with one (--torch-export).")
        content = read_file(folder, PROGRAM, description)
        try:
            return torch.export.load(io.BytesIO(content)).module()
        except Exception as error:
            raise LayerError(f"{PROGRAM} is no program of this version of PyTorch: {type(error).__name__}.") from error
    except LayerError as error:
        raise LayerError(f"{folder}: {error}") from error


def _fixed(model: AbstractServable, steps: int) -> AbstractServable:
    """A copy whose solvers run `steps` iterations, but for those without a tolerance."""
    if not 1 <= steps <= _MOST_STEPS:
        raise LayerError(f"an exported program runs 1 to {_MOST_STEPS} steps; got steps={steps}.")
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, il2o.AbstractFixedPointSolver) and dataclasses.is_dataclass(value):
                stopping = value.stopping
                if (stopping.atol, stopping.rtol) != (0, 0):
                    # Looked at after the last step alone, so that no sample stops before.
                    changed = dataclasses.replace(stopping, max_steps=steps, check_every=steps)
                    setattr(module, name, dataclasses.replace(value, stopping=changed))  # pyright: ignore[reportArgumentType]
    return model


def _compare(traced: nn.Module, program: Any, d: Tensor) -> None:
    """The program must say what it was traced from, for another batch than that of the trace."""
    said, wanted = program(d), traced(d)
    same = {name: value.shape for name, value in said.items()} == {name: value.shape for name, value in wanted.items()}
    if same:
        scale = torch.linalg.vector_norm(wanted["x"]).clamp_min(1e-12)
        same = bool(torch.linalg.vector_norm(said["x"] - wanted["x"]) <= _CLOSE * scale)
    if not same:
        raise LayerError("the exported program answers otherwise than the layer after as many iterations.")
