"""The page that plays solves: one HTML file with the iterates inside, eight bits a value, and nothing to load.

The iterates of a sample are packed as differences between frames, which are mostly zero towards the end, and compressed;
the page's script unpacks them. Numbers of the curves and certificates are stored as they are.
"""

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from numpy.typing import NDArray

from implicit_l2o.report.folder import text
from implicit_l2o.report.html import render, script_json
from implicit_l2o.report.record import write_text

_LEVELS = 255
_WIDER = 1.0  # an early iterate is shown up to this many widths of the last one's range beyond it, and cut there


@dataclass(frozen=True, eq=False, kw_only=True)
class PlayedGradient:
    """One backward mode's gradient, laid out like `PlayedSample.frames`.

    Attributes:
        name: of the mode.
        values: `(shown,)`; None where there is none.
        norm: Euclidean, of the whole gradient.
        solved: the adjoint equation was solved, where there is one.
    """

    name: str
    values: Float[np.ndarray, " shown"] | None
    norm: float
    solved: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class PlayedSample:
    """One sample's solve, `F` frames of it.

    Attributes:
        index: among the test samples.
        note: a word or two beside it, such as `best`.
        ending: how the solve ended, in words.
        steps: iterations of the frames, from 0.
        residual: `|T(z) - z|` of every frame.
        tolerance: of the solve; None where it had none.
        solved: whether each frame meets it.
        violation: distance to the constraints of every frame; None where there are none.
        values: of every property and frame.
        labels: likewise: 0, 1 and 2 for PASS, WARN and FAIL.
        frames: the iterates as they are drawn.
        target: the right answer.
        inputs: what the model saw.
        gradients: two modes'.
        cosine: between them.
        remarks: sentences.
    """

    index: int
    note: str
    ending: str
    steps: Sequence[int]
    residual: Sequence[float]
    tolerance: float | None
    solved: Sequence[bool]
    violation: Sequence[float] | None
    values: Sequence[Sequence[float]]
    labels: Sequence[Sequence[int]]
    frames: Float[np.ndarray, "F shown"]
    target: Float[np.ndarray, " shown"] | None
    inputs: Float[np.ndarray, " input_shown"] | None
    gradients: Sequence[PlayedGradient] = ()
    cosine: float | None = None
    remarks: Sequence[str] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class PlayedRun:
    """Everything that the page shows.

    Attributes:
        title: of the task.
        name: of the run.
        summary: a sentence or two.
        values_name: what is drawn of an iterate.
        parameters_name: what the gradients are in.
        picture: layout of an iterate, see `AbstractPicture.layout` of the training package.
        inputs: layout of an input, where it is shown.
        gradient: layout of a gradient.
        properties: names of the certificates.
        limits: of each property the largest value that passes, and the largest that does not fail.
        samples: at least one.
    """

    title: str
    name: str
    summary: str = ""
    values_name: str
    parameters_name: str
    picture: Mapping[str, Any]
    inputs: Mapping[str, Any] | None = None
    gradient: Mapping[str, Any] | None = None
    properties: Sequence[str] = ()
    limits: Sequence[tuple[float, float]] = ()
    samples: Sequence[PlayedSample] = field(default=())


def build_player(run: PlayedRun, path: Path) -> Path:
    """Write the page and return its path; the same content gives the same bytes.

    Args:
        run: what is shown.
        path: of the HTML file.

    Raises:
        ValueError: there is no sample.
    """
    if not run.samples:
        raise ValueError("a player needs at least one sample; got none.")
    content = {
        "values": text(run.values_name),
        "parameters": text(run.parameters_name),
        "picture": dict(run.picture),
        "inputs": None if run.inputs is None else dict(run.inputs),
        "gradient": None if run.gradient is None else dict(run.gradient),
        "properties": [
            {"name": text(name), "limits": numbers(limits)}
            for name, limits in zip(run.properties, run.limits, strict=True)
        ],
        "samples": [_sample(run, one) for one in run.samples],
    }
    page = render(
        "player.html",
        script="player.js",
        style="player.css",
        title=text(run.title),
        name=text(run.name),
        summary=text(run.summary),
        values_name=text(run.values_name),
        parameters_name=text(run.parameters_name),
        samples=[{"index": one.index, "note": text(one.note)} for one in run.samples],
        has_gradients=any(one.gradients for one in run.samples),
        has_properties=bool(run.properties),
        content=Markup(script_json(content)),
    )
    write_text(path, page)
    return path


def _sample(run: PlayedRun, one: PlayedSample) -> dict[str, Any]:
    low, high = window(one.frames, one.target, run.picture)
    shown = [gradient.values / (gradient.norm or 1.0) for gradient in one.gradients if gradient.values is not None]
    most = max((float(np.abs(values).max(initial=0.0)) for values in shown), default=0.0) or 1.0
    inputs = None
    if one.inputs is not None and run.inputs is not None:
        inputs = pack(one.inputs[None], *window(one.inputs[None], None, run.inputs))
    return {
        "index": one.index,
        "ending": text(one.ending),
        "steps": [int(step) for step in one.steps],
        "residual": numbers(one.residual),
        "tolerance": None if one.tolerance is None else numbers([one.tolerance])[0],
        "solved": "".join(str(int(flag)) for flag in one.solved),
        "violation": None if one.violation is None else numbers(one.violation),
        "measured": [numbers(column) for column in one.values],
        "labels": ["".join(str(int(label)) for label in column) for column in one.labels],
        "frames": pack(one.frames, low, high),
        "target": None if one.target is None else pack(one.target[None], low, high),
        "inputs": inputs,
        "gradients": [
            {
                "name": text(gradient.name),
                "norm": numbers([gradient.norm])[0],
                "solved": gradient.solved,
                "values": None
                if gradient.values is None
                else pack(gradient.values[None] / (gradient.norm or 1.0), -most, most),
            }
            for gradient in one.gradients
        ],
        "cosine": None if one.cosine is None else numbers([one.cosine])[0],
        "remarks": [text(remark) for remark in one.remarks],
    }


def numbers(values: Sequence[float]) -> list[float | None]:
    """Five significant digits; None for what is not finite.

    Example:
        >>> from implicit_l2o.report.player import numbers
        >>> numbers([0.123456789, float("nan")])
        [0.12346, None]
    """
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in map(float, values)]


def window(
    frames: Float[np.ndarray, "F shown"], target: Float[np.ndarray, " shown"] | None, layout: Mapping[str, Any]
) -> tuple[float, float]:
    """Between which values an iterate is drawn: the layout's own, else the range of all frames and the target.

    Where early iterates are far out, they are cut at some distance from the range of the last one and the target.
    """
    known = [frames[-1], *([] if target is None else [target])]
    last, every = (_range(np.concatenate(part)) for part in (known, [frames.ravel(), *known]))
    width = last[1] - last[0]
    low = max(every[0], last[0] - _WIDER * width) if width > 0 else every[0]
    high = min(every[1], last[1] + _WIDER * width) if width > 0 else every[1]
    low, high = (_stated(layout, name, found) for name, found in (("low", low), ("high", high)))
    return (low, high) if high > low else (low, low + 1.0)


def _stated(layout: Mapping[str, Any], name: str, found: float) -> float:
    stated = layout.get(name)
    return float(found if stated is None else stated)


def _range(values: NDArray[np.floating]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)


def pack(frames: Float[np.ndarray, "F shown"], low: float, high: float) -> dict[str, Any]:
    """Frames as eight-bit differences, compressed, in Base64; what is not finite is drawn as the lowest value.

    Example:
        >>> import numpy as np
        >>> from implicit_l2o.report.player import pack
        >>> packed = pack(np.array([[0.0, 1.0], [0.0, 0.5]]), 0.0, 1.0)
        >>> packed["count"], packed["size"]
        (2, 2)
    """
    scaled = np.nan_to_num((frames - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    levels = np.clip(np.rint(_LEVELS * scaled), 0, _LEVELS).astype(np.uint8)
    differences = np.diff(levels, axis=0, prepend=np.zeros_like(levels[:1]))  # modulo 256
    data = base64.b64encode(zlib.compress(differences.tobytes(), 9)).decode("ascii")
    return {"data": data, "count": len(frames), "size": frames.shape[1], "low": low, "high": high}
