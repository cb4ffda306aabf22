"""From the body of a request to a batch of inputs, or to an error that says what is needed."""

import json
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from implicit_l2o.serving.errors import InputError
from implicit_l2o.serving.layer import Layer

_FIELDS = {"inputs", "x"}
_NUMBERS = "iuf"  # NumPy's kinds of integers and floating-point numbers


def parse(body: bytes, layer: Layer, most: int) -> tuple[Tensor, bool]:
    """The inputs of a request, and whether it wants `x` too.

    Args:
        body: JSON, `{"inputs": [[...], ...], "x": false}`.
        layer: says what an input is.
        most: samples.

    Raises:
        InputError: it is not that; or a number is not finite, or there are too many samples.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path.served import ServedPaths
        >>> from implicit_l2o.serving import Layer
        >>> from implicit_l2o.serving.http.parse import parse
        >>> layer = Layer(ServedPaths(side=2, features=2), example=torch.zeros(1, 2))
        >>> parse(b'{"inputs": [[0.5, 1]]}', layer, 8)
        (tensor([[0.5000, 1.0000]]), False)
    """
    content = _json(body)
    if not isinstance(content, dict) or "inputs" not in content or not set(content) <= _FIELDS:
        names = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise InputError(f'the body must be {{"inputs": [...], "x": true or false}}, "x" may be absent; got {names}.')
    wants_x = content.get("x", False)
    if not isinstance(wants_x, bool):
        raise InputError('"x" must be true or false.')
    inputs = content["inputs"]
    wanted = ", ".join(("B", *map(str, layer.shape)))
    if not isinstance(inputs, list) or not inputs:
        raise InputError(f"inputs must be a list of samples, nested as the shape ({wanted}), B >= 1.")
    if len(inputs) > most:
        raise InputError(f"at most {most} samples a request are permitted; got {len(inputs)}.")
    d = _tensor(inputs, layer, wanted)
    layer.check(d)
    return d, wants_x


def _json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError("the body is not JSON.") from error


def _refuse(name: str) -> NoReturn:
    raise InputError(f"inputs must be finite numbers; got {name}.")


def _tensor(inputs: list[Any], layer: Layer, wanted: str) -> Tensor:
    try:
        array = np.array(inputs)
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"inputs must be nested as the shape ({wanted}): the samples are not all alike.") from error
    if array.dtype.kind not in _NUMBERS:
        raise InputError(f"inputs must be numbers of 64 bits, nested as the shape ({wanted}).")
    if array.shape[1:] != layer.shape:
        raise InputError(f"inputs of shape ({wanted}) are needed; got {array.shape}.")
    d = torch.from_numpy(array)
    if not layer.dtype.is_floating_point and d.is_floating_point():
        raise InputError(f"inputs must be integers, for they are {layer.dtype}.")
    return d.to(layer.dtype)
