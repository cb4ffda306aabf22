"""A layer as a folder: weights, description, an example with its answers; written whole, and verified when it is read.

Longer than most files here: what is written and what is verified of it are two sides of one format.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.serving.errors import LayerError
from implicit_l2o.serving.layer import Answers, Layer
from implicit_l2o.serving.servable import AbstractServable
from implicit_l2o.serving.specification import OWN, build, class_path, describe

DESCRIPTION = "layer.json"
WEIGHTS = "weights.safetensors"
EXAMPLE = "example.safetensors"
PROGRAM = "program.pt2"
_REQUIRED = (WEIGHTS, EXAMPLE)
_FORMAT = "implicit_l2o layer"
_VERSION = 1
_FIELDS = {
    "format",
    "version",
    "written_by",
    "layer",
    "inputs",
    "certificates",
    "tensors",
    "program",
    "files",
    "checksum",
}
_MOST_TEXT = 64 * 2**20  # bytes of the description: the calibration values are in it
_CLOSE = 1e-3  # how near to the saved answers those of the loaded layer have to be, relative


def save_layer(
    layer: Layer,
    folder: str | os.PathLike[str],
    init_args: Mapping[str, Any],
    *,
    allow: Sequence[str] = (),
    program: bytes | None = None,
    steps: int | None = None,
) -> Path:
    """Save a layer as one folder, whole or not at all; before it appears it is loaded once and its answers are compared.

    Args:
        layer: the model with its certificates.
        folder: does not exist yet, or is empty.
        init_args: the arguments that made the model: numbers, strings, lists, dataclasses of such, and
            `{"class_path": ..., "init_args": {...}}`.
        allow: packages beside `implicit_l2o` whose classes are in `init_args`; the model's own is allowed here anyway.
        program: of `export_program`, to be saved as well.
        steps: of that program.

    Returns:
        The folder.

    Raises:
        LayerError: the folder is not empty, or the layer cannot be made again from `init_args` and its weights.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from implicit_l2o.applications.shortest_path.served import ServedPaths
        >>> from implicit_l2o.serving import Layer, load_layer, save_layer
        >>> layer = Layer(ServedPaths(side=3), example=torch.zeros(1, 5))
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = save_layer(layer, f"{parent}/paths", {"side": 3})
        ...     loaded = load_layer(folder)
        >>> torch.equal(loaded(torch.ones(2, 5)).x, layer(torch.ones(2, 5)).x)
        True
    """
    folder = Path(folder)
    _check_free(folder)
    path = class_path(type(layer.model))
    files = {WEIGHTS: _tensors_to_bytes(layer.model.state_dict()), EXAMPLE: _example_to_bytes(layer)}
    if program is not None:
        files[PROGRAM] = program
    description = _description(layer, {"class_path": path, "init_args": describe(init_args)}, files, steps)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        for name, content in (*files.items(), (DESCRIPTION, description)):
            _write(partial / name, content)
        load_layer(partial, allow=(*allow, path.split(".")[0]))
        partial.chmod(0o755)  # as other folders; mkdtemp makes a private one
        os.replace(partial, folder)  # over an empty folder, or none
    except OSError as error:
        _check_free(folder)  # somebody else made it meanwhile
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def load_layer(folder: str | os.PathLike[str], *, allow: Sequence[str] = (), check_example: bool = True) -> Layer:
    """Load what `save_layer` wrote, without the packages of a training and without unpickling anything.

    Everything is verified first: the checksums, the names, shapes and dtypes of the weights, the classes that the
    description names. The checksums find damage, not malice: who can write the folder can write them too. What such a
    folder can do is limited by `allow`.

    Args:
        folder: the layer.
        allow: packages beside `implicit_l2o` whose classes the description may name; their code will run.
        check_example: answer the saved example and compare with the saved answers: it finds code that changed since.

    Raises:
        LayerError: there is no layer, it is damaged or of another format, or it names a class that is not allowed.
    """
    folder = Path(folder)
    try:
        description = _read_description(folder)
        with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, and then replaced
            model = build(description["layer"], allow=allow)
        weights = _read_tensors(folder, WEIGHTS, description)
        _check_weights(model, weights, description["tensors"])
        model.load_state_dict(weights)
        example = _read_tensors(folder, EXAMPLE, description)
        layer = _layer(model, description, example)
        if check_example:
            _check_answers(layer(layer.example), example)
    except LayerError as error:
        raise LayerError(f"{folder}: {error}") from error
    return layer


def read_description(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The verified description of a saved layer.

    Raises:
        LayerError: there is none, or it is damaged.
    """
    return _read_description(Path(folder))


def read_file(folder: Path, name: str, description: Mapping[str, Any]) -> bytes:
    """A file of a saved layer, compared with its checksum.

    Raises:
        LayerError: it is not there, no plain file, or damaged.
    """
    content = _read_plain(folder / name)
    stated = description["files"].get(name)
    if not isinstance(stated, dict) or stated.get("bytes") != len(content) or stated.get("sha256") != _hash(content):
        raise LayerError(f"{name} is damaged: it does not match its checksum.")
    return content


def is_layer(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder looks like a saved layer, damaged or not."""
    return (Path(folder) / DESCRIPTION).is_file()


def _check_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise LayerError(f"{folder} is a file; name another folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise LayerError(f"{folder} is not empty; name another folder, or remove it first.")


def _hash(content: bytes) -> str:
    return sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _description(layer: Layer, specification: Any, files: Mapping[str, bytes], steps: int | None) -> bytes:
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "written_by": {OWN: _own_version(), "torch": torch.__version__},
        "layer": specification,
        "inputs": {"shape": list(layer.shape), "dtype": _name(layer.dtype)},
        "certificates": json.loads(il2o.certificates_to_json(layer.calibrated)) if layer.calibrated else None,
        "tensors": {
            name: {"shape": list(tensor.shape), "dtype": _name(tensor.dtype)}
            for name, tensor in layer.model.state_dict().items()
        },
        "program": None if steps is None else {"steps": steps},
        "files": {name: {"bytes": len(part), "sha256": _hash(part)} for name, part in files.items()},
    }
    content["checksum"] = _checksum(content)
    try:
        return json.dumps(content, indent=1, allow_nan=False).encode()
    except ValueError as error:
        raise LayerError(f"the layer holds a number that is not finite: {error}") from error


def _own_version() -> str:
    with suppress(PackageNotFoundError):
        return version(OWN)
    return "unknown"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _checksum(content: Mapping[str, Any]) -> str:
    """Of everything but itself, in a form that does not depend on spaces and order."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return _hash(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())


def _read_plain(path: Path) -> bytes:
    """A regular file inside the folder; no link, which could lead anywhere."""
    if path.is_symlink() or not path.is_file():
        raise LayerError(f"{path.name} is missing, or no plain file.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise LayerError(f"{path.name} cannot be read: {error.strerror or error}.") from error


def _read_description(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise LayerError("there is no such folder.")
    path = folder / DESCRIPTION
    if not path.is_file():
        raise LayerError(f"it is no saved layer: {DESCRIPTION} is missing.")
    if path.stat().st_size > _MOST_TEXT:
        raise LayerError(f"{DESCRIPTION} has more than {_MOST_TEXT} bytes.")
    try:
        content = json.loads(_read_plain(path))
    except (ValueError, RecursionError) as error:
        raise LayerError(f"{DESCRIPTION} is damaged: it is not JSON.") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise LayerError(f"{DESCRIPTION} does not describe a layer of {OWN}.")
    if content.get("version") != _VERSION:
        raise LayerError(f"it is written in version {content.get('version')!r}; this code reads version {_VERSION}.")
    if set(content) != _FIELDS:
        wrong = sorted(set(content) ^ _FIELDS)
        raise LayerError(f"{DESCRIPTION} is damaged: missing or unknown {', '.join(wrong)}.")
    if content["checksum"] != _checksum(content):
        raise LayerError(f"{DESCRIPTION} is damaged: it does not match its checksum.")
    if not isinstance(content["files"], dict) or not {*_REQUIRED} <= set(content["files"]) <= {*_REQUIRED, PROGRAM}:
        raise LayerError(f"{DESCRIPTION} must list {', '.join(_REQUIRED)} and at most {PROGRAM}.")
    return content


def _tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})


def _example_to_bytes(layer: Layer) -> bytes:
    answers = layer(layer.example)
    return _tensors_to_bytes(
        {"inputs": layer.example, "answer": answers.answer, "x": answers.x, "labels": answers.report.labels}
    )


def _read_tensors(folder: Path, name: str, description: Mapping[str, Any]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(read_file(folder, name, description))
    except (SafetensorError, ValueError, KeyError) as error:
        if isinstance(error, LayerError):
            raise
        raise LayerError(f"{name} is no file of tensors: {error}") from error


def _check_weights(model: AbstractServable, weights: Mapping[str, Tensor], stated: Any) -> None:
    """The file, the description and the model agree, name by name."""
    wanted = model.state_dict()
    for source, names in ((DESCRIPTION, set(stated) if isinstance(stated, dict) else set()), (WEIGHTS, set(weights))):
        if names != set(wanted):
            missing, extra = sorted(set(wanted) - names)[:3], sorted(names - set(wanted))[:3]
            said = [
                f"{word} {', '.join(some)}" for word, some in (("lacks", missing), ("has the unknown", extra)) if some
            ]
            raise LayerError(f"{source} does not fit the model: it {' and '.join(said)}.")
    for name, tensor in wanted.items():
        found = weights[name]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise LayerError(
                f"the weight {name} is {tuple(found.shape)} {_name(found.dtype)}; the model needs "
                f"{tuple(tensor.shape)} {_name(tensor.dtype)}."
            )
        if stated[name] != {"shape": list(found.shape), "dtype": _name(found.dtype)}:
            raise LayerError(f"the weight {name} is not what {DESCRIPTION} states.")


def _layer(model: AbstractServable, description: Mapping[str, Any], example: Mapping[str, Tensor]) -> Layer:
    rules = description["certificates"]
    try:
        calibrated = () if rules is None else il2o.certificates_from_json(json.dumps(rules), model.measures())
        layer = Layer(model, example=example["inputs"], calibrated=calibrated)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LayerError(f"its certificates or its example do not fit the model: {error}") from error
    if description["inputs"] != {"shape": list(layer.shape), "dtype": _name(layer.dtype)}:
        raise LayerError("its example is not of the inputs that it states.")
    return layer


def _check_answers(answers: Answers, example: Mapping[str, Tensor]) -> None:
    saved = example.get("x")
    if saved is None or saved.shape != answers.x.shape or saved.dtype != answers.x.dtype:
        raise LayerError("the answer to its example has another shape or dtype than the saved one.")
    if not saved.is_floating_point():
        off = float((saved != answers.x).any())
    else:
        scale = torch.linalg.vector_norm(saved.double().nan_to_num()).clamp_min(1e-12)
        off = float(torch.linalg.vector_norm((saved.double() - answers.x.double()).nan_to_num()) / scale)
    if off > _CLOSE:
        raise LayerError(
            f"the loaded layer answers its example otherwise than when it was saved: {off:.1e} relative, at most "
            f"{_CLOSE:.0e} is permitted. The code of its classes has changed since."
        )
