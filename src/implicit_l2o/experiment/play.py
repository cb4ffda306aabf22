"""`il2o play`: the solves of a trained model iteration by iteration, on one page."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.experiment.certify import load_run
from implicit_l2o.experiment.errors import ConfigurationError
from implicit_l2o.experiment.folder import RunFolder
from implicit_l2o.experiment.gradients import Gradient, compare, cosine
from implicit_l2o.experiment.recording import Frames, Recording, begins_exact, record, replay
from implicit_l2o.report.player import PlayedGradient, PlayedRun, PlayedSample, build_player
from implicit_l2o.training import AbstractPicture, AbstractTask, Scene, picture_of

_FIRST = 3  # samples of a run whose results name no examples
_MOST_FRAMES = 500
_MOST_SAMPLES = 24


def play(
    run: Path,
    *,
    samples: Sequence[int] | None = None,
    frames: int = 60,
    backward: Sequence[il2o.AbstractBackward] | None = None,
    out: Path | None = None,
) -> Path:
    """Write the page that plays some test samples of a finished run, and return its path.

    Args:
        run: folder of a finished run.
        samples: of the test data, by their number; None takes the best, the median and the worst of the report.
        frames: how many iterates of each solve are stored, about; they lie the closer the earlier they are.
        backward: two modes whose gradients are compared; None takes `JFB()` and `Implicit()`.
        out: the HTML file; None takes `RUN/player.html`.

    Raises:
        ConfigurationError: there is no such run or sample, its model solves nothing, or an option is out of its range.
    """
    if not 2 <= frames <= _MOST_FRAMES:
        raise ConfigurationError(f"frames must be between 2 and {_MOST_FRAMES}; got {frames}.")
    modes = (il2o.JFB(), il2o.Implicit()) if backward is None else tuple(backward)
    if len(modes) != 2:
        raise ConfigurationError(f"two backward modes are compared; got {len(modes)}.")
    if out is not None and out.is_dir():
        raise ConfigurationError(f"{out} is a folder; name an HTML file.")
    task, data = load_run(run)
    notes = _examples(run)
    test = data.splits.test
    chosen = _chosen(samples, notes, len(test))
    scene = task.scene()
    played, layouts = [], {}
    for index in chosen:
        batch = test[index : index + 1]
        recording = record(task, batch[0], frames=frames - 1)
        if recording is None:
            raise ConfigurationError(
                f"{run} has nothing to play: {type(task).__name__} answers without a layer that solves (one that keeps "
                "its backward mode in an attribute `backward`)."
            )
        one, layouts = _sample(task, scene, batch, recording, modes, index=index, note=notes.get(index, ""))
        played.append(one)
    rules = [certificate.rule for certificate in task.all_certificates()]
    about = task.about()
    shown = PlayedRun(
        title=about.title,
        name=_name(run.resolve()),
        summary=about.summary,
        values_name=scene.values_name,
        parameters_name=scene.parameters_name,
        properties=[certificate.name for certificate in task.all_certificates()],
        limits=[(rule.pass_limit, rule.warn_limit) for rule in rules],
        samples=played,
        **layouts,
    )
    return build_player(shown, RunFolder(run).player if out is None else out)


def _name(run: Path) -> str:
    """Of the folder; of a seed's together with the one above it."""
    return f"{run.parent.name}, {run.name}" if run.name.startswith("seed_") else run.name


def _examples(run: Path) -> dict[int, str]:
    """Number and kind of the examples of the report, where there is one."""
    try:
        listed = json.loads(RunFolder(run).results.read_text())["examples"]
        return {int(one["index"]): str(one["kind"]) for one in reversed(listed)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _chosen(samples: Sequence[int] | None, notes: dict[int, str], size: int) -> list[int]:
    if samples is None:
        known = [index for index in reversed(list(notes)) if index < size]
        return known or list(range(min(_FIRST, size)))
    chosen = list(dict.fromkeys(samples))
    beyond = [index for index in chosen if not 0 <= index < size]
    if beyond:
        raise ConfigurationError(f"there is no test sample {beyond[0]}: they are numbered from 0 to {size - 1}.")
    if not 1 <= len(chosen) <= _MOST_SAMPLES:
        raise ConfigurationError(f"between 1 and {_MOST_SAMPLES} samples fit a page; got {len(chosen)}.")
    return chosen


def _sample(
    task: AbstractTask,
    scene: Scene,
    batch: Sequence[Tensor],
    recording: Recording,
    modes: Sequence[il2o.AbstractBackward],
    *,
    index: int,
    note: str,
) -> tuple[PlayedSample, dict[str, Any]]:
    """What the page shows of a sample, and the layouts, which are those of all samples."""
    played = replay(task, batch[0], recording)
    values = torch.cat([_values(scene, part) for part in played.inferences])
    picture = _fitting(scene.picture, values, "picture")
    values_by, labels_by = _judged(task, played)
    inputs = _inputs(scene, batch[0])
    gradients = compare(task, scene, batch, modes)
    found = [gradient.value for gradient in gradients]
    layout = _gradient_picture(picture, found)
    target = _target(scene, batch, played.inferences[0], picture)
    solved = played.solved.tolist()
    # What the loop decided at the end holds: it may stop before a frame that happens to meet the tolerance.
    solved[-1] = int(recording.point.status[0]) == il2o.Status.CONVERGED
    sample = PlayedSample(
        index=index,
        note=note,
        ending=_ending(recording),
        steps=recording.steps,
        residual=torch.cat([_residual(part) for part in played.inferences]).tolist(),
        tolerance=played.tolerance if recording.sought else None,
        solved=solved,
        violation=None if played.violation is None else played.violation.tolist(),
        values=values_by,
        labels=labels_by,
        frames=picture.arrange(values),
        target=None if target is None else picture.arrange(target)[0],
        inputs=None if inputs is None else inputs.arrange(batch[0])[0],
        gradients=[_shown(gradient, layout) for gradient in gradients],
        cosine=cosine(*found),
        remarks=list(_remarks(task, recording, gradients)),
    )
    layouts = {
        "picture": picture.layout(),
        "inputs": None if inputs is None else inputs.layout(),
        "gradient": None if layout is None else layout.layout() | {"low": None, "high": None},
    }
    return sample, layouts


def _values(scene: Scene, inference: il2o.Inference) -> Tensor:
    return inference.x if scene.values is None else scene.values(inference)


def _residual(inference: il2o.Inference) -> Tensor:
    return inference.need_residual("il2o play")


def _fitting(picture: AbstractPicture | None, values: Tensor, name: str) -> AbstractPicture:
    picture = picture_of(values.shape[1:]) if picture is None else picture
    size = values[0].numel()
    if picture.size != size:
        raise ValueError(f"the scene's {name} lays out {picture.size} values, but a sample has {size}.")
    return picture


def _judged(task: AbstractTask, played: Frames) -> tuple[list[list[float]], list[list[int]]]:
    """Values and labels by property."""
    reports = [il2o.certify(task.all_certificates(), part) for part in played.inferences]
    values = torch.cat([report.values for report in reports])
    labels = torch.cat([report.labels for report in reports])
    return values.T.tolist(), labels.T.tolist()


def _inputs(scene: Scene, d: Tensor) -> AbstractPicture | None:
    """Where the application does not say, pictures alone are shown."""
    if scene.inputs is not None:
        return _fitting(scene.inputs, d, "inputs")
    shape = d.shape[1:]
    return picture_of(shape) if len(shape) > 1 and min(shape[-2:]) > 1 else None


def _target(
    scene: Scene, batch: Sequence[Tensor], inference: il2o.Inference, picture: AbstractPicture
) -> Tensor | None:
    if scene.target is not None:
        target = scene.target(batch)
    else:
        same = len(batch) > 1 and batch[1].shape[1:] == inference.x.shape[1:]
        target = batch[1] if same and scene.values is None else None
    return target if target is None or target[0].numel() == picture.size else None


def _gradient_picture(picture: AbstractPicture, found: Sequence[Tensor | None]) -> AbstractPicture | None:
    """Drawn the same way as the iterate where it has as many values."""
    known = [value for value in found if value is not None]
    if not known:
        return None
    return picture if known[0].numel() == picture.size else picture_of(known[0].shape)


def _shown(gradient: Gradient, picture: AbstractPicture | None) -> PlayedGradient:
    values: np.ndarray | None = None
    if picture is not None and gradient.value is not None:
        values = picture.arrange(gradient.value.unsqueeze(0))[0]
    return PlayedGradient(name=gradient.name, values=values, norm=gradient.norm, solved=gradient.solved)


def _ending(recording: Recording) -> str:
    point = recording.point
    status = il2o.Status(int(point.status[0]))
    steps = f"{int(point.steps[0])} iteration{'s' if int(point.steps[0]) != 1 else ''}"
    if status == il2o.Status.CONVERGED:
        return f"Converged after {steps}."
    if status == il2o.Status.MAX_STEPS and not recording.sought:
        return f"Run for {steps}, as it was trained: there is no tolerance to meet."
    return f"{status.name} after {steps}: {status.message}"


def _remarks(task: AbstractTask, recording: Recording, gradients: Sequence[Gradient]) -> Iterable[str]:
    if begins_exact(task):
        yield (
            "This model answers by an exact solver. Here it iterates from its usual start, to the tolerance of the "
            "iteration, so the last frame may miss limits that the exact answer meets."
        )
    if recording.best:
        yield "The solve ran out of steps and returned an earlier, better iterate: the last frame is that one."
    if recording.order:
        yield "An inference of this model solves several times; its last solve is played."
    for gradient in gradients:
        if not gradient.solved:
            yield f"The adjoint equation of {gradient.name} was not solved; its JFB gradient is shown."
    if gradients and all(gradient.value is None for gradient in gradients):
        yield "There is no gradient to compare: the loss does not depend on these parameters through the solve."
