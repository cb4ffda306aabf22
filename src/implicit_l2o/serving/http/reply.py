"""Answers as plain JSON values: numbers that are not finite become null."""

import math
from typing import Any

import implicit_l2o as il2o
from implicit_l2o.serving.layer import Answers, Layer


def reply(answers: Answers, *, wants_x: bool) -> dict[str, Any]:
    """The body of a reply.

    Args:
        answers: of the layer.
        wants_x: whether `x` is in it beside the solution.
    """
    return {"answers": [_sample(answers, i, wants_x) for i in range(len(answers.x))]}


def schema(layer: Layer) -> dict[str, Any]:
    """What the layer takes and what it certifies."""
    return {
        "inputs": {"shape": list(layer.shape), "dtype": str(layer.dtype).removeprefix("torch.")},
        "certificates": [
            {"name": c.name, "pass_limit": plain(c.rule.pass_limit), "warn_limit": plain(c.rule.warn_limit)}
            for c in layer.certificates
        ],
    }


def plain(value: Any) -> Any:
    """A nested list of numbers, null where they are not finite."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sample(answers: Answers, i: int, wants_x: bool) -> dict[str, Any]:
    report = answers.report
    found: dict[str, Any] = {
        "solution": plain(answers.answer[i].tolist()),
        "label": il2o.Label(int(report.worst[i])).name,
        "trusted": bool(report.trusted[i]),
        "certificates": [
            {
                "name": name,
                "label": il2o.Label(int(report.labels[i, j])).name,
                "value": plain(float(report.values[i, j])),
                "pass_limit": plain(float(limits[0])),
                "warn_limit": plain(float(limits[1])),
            }
            for j, (name, limits) in enumerate(zip(report.names, report.limits, strict=True))
        ],
    }
    if answers.status is not None:
        status = il2o.Status(int(answers.status[i]))
        found |= {"status": status.name, "message": status.message}
    if answers.residual is not None:
        found["residual"] = plain(float(answers.residual[i]))
    if answers.steps is not None:
        found["steps"] = int(answers.steps[i])
    if wants_x:
        found["x"] = plain(answers.x[i].tolist())
    return found
