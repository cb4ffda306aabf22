"""What a certificate is: a property of an inference, a rule that labels its value, and the report on a batch.

Source: Heaton and Wu Fung, Explainable AI via Learning to Optimize (Scientific Reports, 2023), section on certificates.

Longer than most files here: the other modules of the stage may import this one alone.
"""

import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o._solution import FixedPoint, Solution, Status
from implicit_l2o.problem import Problem


class Label(IntEnum):
    """The verdict on one property of one inference; a larger label is worse.

    Example:
        >>> from implicit_l2o.certificates import Label
        >>> max(Label.PASS, Label.WARN).name
        'WARN'
    """

    PASS = 0
    WARN = 1
    FAIL = 2


@dataclass(frozen=True, eq=False, kw_only=True)
class Inference:
    """What a measure sees: an answer `x`, and what is known of how it came about.

    `Inference.of` takes it from a solve. `Inference(x=..., data=...)` describes a ground truth, or the answer of
    another method: nothing was solved, so there is no status to fail.

    Args:
        x: `(B, *shape)` the answers.
        z: `(B, *latent)` the fixed points they were read from.
        status: `(B,)` integers of `Status`.
        residual: `(B,)` Euclidean `|T(z) - z|`.
        steps: `(B,)` iterations of the solver.
        problem: the problem that was solved, for its sets and its objective.
        data: what the model was given, for measures of consistency; anything.

    Raises:
        ValueError: a field's batch size is not that of `x`.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import Inference
        >>> Inference(x=torch.tensor([[1.0, 2.0], [float("nan"), 0.0]])).valid
        tensor([ True, False])
    """

    x: Float[Tensor, "B *shape"]
    z: Float[Tensor, "B *latent"] | None = None
    status: Int[Tensor, " B"] | None = None
    residual: Float[Tensor, " B"] | None = None
    steps: Int[Tensor, " B"] | None = None
    problem: Problem | None = None
    data: Any = None

    def __post_init__(self) -> None:
        for name in ("z", "status", "residual", "steps"):
            value = getattr(self, name)
            if value is not None and value.shape[:1] != self.x.shape[:1]:
                raise ValueError(
                    f"Inference.{name} has shape {tuple(value.shape)}; its first dimension must be that of x, "
                    f"B={self.x.shape[0]}."
                )

    @classmethod
    def of(cls, outcome: Solution | FixedPoint, *, problem: Problem | None = None, data: Any = None) -> "Inference":
        """The inference of a solve; a `FixedPoint` has no readout, so there `x` is `z`.

        Args:
            outcome: what `solve`, `fixed_point` or an `ImplicitLayer` returned.
            problem: the problem that was solved (`splitting.problem`).
            data: what the model was given.
        """
        x = outcome.x if isinstance(outcome, Solution) else outcome.z
        return cls(
            x=x,
            z=outcome.z,
            status=outcome.status,
            residual=outcome.residual,
            steps=outcome.steps,
            problem=problem,
            data=data,
        )

    @property
    def valid(self) -> Bool[Tensor, " B"]:
        """Samples whose answer is finite and whose solve, if there was one, converged: all others fail."""
        finite = _batch.finite(self.x)
        return finite if self.status is None else finite & (self.status == Status.CONVERGED)

    def need_residual(self, name: str) -> Float[Tensor, " B"]:
        """The residual, or a `ValueError` that says which measure needs one."""
        if self.residual is None:
            raise ValueError(f"'{name}' needs the residual of a solve; use Inference.of(solution).")
        return self.residual

    def need_problem(self, name: str) -> Problem:
        """The problem, or a `ValueError` that says which measure needs one."""
        if self.problem is None:
            raise ValueError(f"'{name}' needs the problem; use Inference.of(solution, problem=splitting.problem).")
        return self.problem


class AbstractMeasure(ABC):
    """A property of an inference as one number a sample; small is good.

    Subclasses are frozen dataclasses with a field `name`, which the report shows and which tells them apart.
    """

    name: str

    @abstractmethod
    def __call__(self, inference: Inference) -> Float[Tensor, " B"]:
        """The property's value, per sample."""


class AbstractRule(ABC):
    """How a value becomes a label: PASS up to `pass_limit`, WARN up to `warn_limit`, FAIL above and for NaN."""

    @property
    @abstractmethod
    def pass_limit(self) -> float:
        """The largest value that passes."""

    @property
    @abstractmethod
    def warn_limit(self) -> float:
        """The largest value that does not fail."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The rule as plain JSON values (see `certificates_to_json`)."""

    @final
    def label(self, value: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
        """The label of each value, as integers of `Label`."""
        # Both comparisons are false for NaN, which therefore fails.
        not_passed = torch.where(value <= self.warn_limit, int(Label.WARN), int(Label.FAIL))
        return torch.where(value <= self.pass_limit, int(Label.PASS), not_passed)


@dataclass(frozen=True, eq=False)
class Certificate:
    """A property and the rule that labels it.

    Args:
        measure: gives the property's value.
        rule: gives the label: `Threshold`, or a `Calibration` (see `calibrate`).

    Example:
        >>> from implicit_l2o.certificates import Certificate, FixedPointResidual, Threshold
        >>> Certificate(FixedPointResidual(), Threshold(1e-3)).name
        'fixed-point residual'
    """

    measure: AbstractMeasure
    rule: AbstractRule

    @property
    def name(self) -> str:
        """The property's name."""
        return self.measure.name


@dataclass(frozen=True, eq=False, kw_only=True)
class CertificateReport:
    """Values and labels of a batch: what `certify` returns.

    Attributes:
        names: the `P` properties.
        values: `(B, P)` property values; NaN where the answer is not finite.
        labels: `(B, P)` integers of `Label`.
        limits: for each property the largest value that passes and the largest that does not fail.
        converged: `(B,)` whether the solve converged to a finite answer; if not, every label is FAIL.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import Certificate, Inference, Sparsity, Threshold, certify
        >>> answers = Inference(x=torch.tensor([[0.0, 2.0, 0.0], [1.0, 1.0, 1.0]]))
        >>> report = certify([Certificate(Sparsity(), Threshold(2))], answers)
        >>> report.trusted
        tensor([ True, False])
        >>> print(report.table())
        property  PASS  WARN  FAIL  pass <=  warn <=  median  worst  of sample
        sparsity     1     0     1        2        2       1      3          1
        1 of 2 samples are trusted.
    """

    names: tuple[str, ...]
    values: Float[Tensor, "B P"]
    labels: Int[Tensor, "B P"]
    limits: tuple[tuple[float, float], ...]
    converged: Bool[Tensor, " B"]

    @property
    def worst(self) -> Int[Tensor, " B"]:
        """The worst label of each sample; FAIL where the solve did not converge."""
        solve = torch.where(self.converged, int(Label.PASS), int(Label.FAIL))
        return torch.cat([solve[:, None], self.labels], dim=1).amax(dim=1)

    @property
    def trusted(self) -> Bool[Tensor, " B"]:
        """Samples that converged and pass every certificate."""
        return self.worst == Label.PASS

    def counts(self) -> dict[str, dict[Label, int]]:
        """How many samples got each label, by property."""
        return {
            name: {label: int((column == label).sum()) for label in Label}
            for name, column in zip(self.names, self.labels.unbind(1), strict=True)
        }

    def table(self, sample: int | None = None) -> str:
        """A text table: one row a property over the batch, or the certificates of one sample.

        Args:
            sample: index into the batch; None for the summary of the batch.

        Raises:
            IndexError: `sample` is not in the batch.
        """
        size = len(self.converged)
        if sample is None:
            return (
                _layout(self._summary_rows())
                + f"\n{int(self.trusted.sum())} of {size} samples are trusted."
                + ("" if bool(self.converged.all()) else f" {int((~self.converged).sum())} did not converge.")
            )
        if not -size <= sample < size:
            raise IndexError(f"the report covers samples 0 to {size - 1}; got sample={sample}.")
        rows = [["property", "label", "value", "pass <=", "warn <="]]
        for i, (name, limits) in enumerate(zip(self.names, self.limits, strict=True)):
            label = Label(int(self.labels[sample, i])).name
            rows.append([name, label, *(_number(v) for v in (float(self.values[sample, i]), *limits))])
        verdict = Label(int(self.worst[sample])).name
        reason = "" if bool(self.converged[sample]) else " (the solve did not converge)"
        return f"{_layout(rows)}\nsample {sample % size}: {verdict}{reason}."

    def _summary_rows(self) -> list[list[str]]:
        rows = [["property", *(label.name for label in Label), "pass <=", "warn <=", "median", "worst", "of sample"]]
        for i, (name, counts) in enumerate(self.counts().items()):
            column = self.values[:, i].nan_to_num(nan=math.inf, posinf=math.inf)
            worst = int(column.argmax()) if len(column) else None
            median = float(column.median()) if len(column) else math.nan
            value = math.nan if worst is None else float(self.values[worst, i])
            numbers = [_number(v) for v in (*self.limits[i], median, value)]
            rows.append(
                [name, *(str(counts[label]) for label in Label), *numbers, "-" if worst is None else str(worst)]
            )
        return rows

    def to_json(self) -> str:
        """The report as JSON; `from_json` restores it exactly. Values that are not finite are written as strings."""
        properties = [
            {
                "name": name,
                "limits": [_to_plain(limit) for limit in limits],
                "values": [_to_plain(value) for value in values],
                "labels": [Label(label).name for label in labels],
            }
            for name, limits, values, labels in zip(
                self.names, self.limits, self.values.T.tolist(), self.labels.T.tolist(), strict=True
            )
        ]
        dtype = str(self.values.dtype).removeprefix("torch.")
        return json.dumps({"dtype": dtype, "converged": self.converged.tolist(), "properties": properties}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "CertificateReport":
        """Restore what `to_json` wrote.

        Raises:
            ValueError: the text is not such a report; the message names the missing or unknown field.
        """
        state = json.loads(text)
        check_fields(state, {"dtype", "converged", "properties"}, "a certificate report")
        for item in state["properties"]:
            check_fields(item, {"name", "limits", "values", "labels"}, "a property of a certificate report")
        shape = (len(state["properties"]), len(state["converged"]))
        values = [[float(value) for value in item["values"]] for item in state["properties"]]
        labels = [[_to_label(label) for label in item["labels"]] for item in state["properties"]]
        return cls(
            names=tuple(item["name"] for item in state["properties"]),
            values=torch.tensor(values, dtype=getattr(torch, state["dtype"])).reshape(shape).T,
            labels=torch.tensor(labels, dtype=torch.int64).reshape(shape).T,
            limits=tuple((float(low), float(high)) for low, high in (item["limits"] for item in state["properties"])),
            converged=torch.tensor(state["converged"], dtype=torch.bool),
        )


@torch.no_grad()
def certify(certificates: Sequence[Certificate], inference: Inference) -> CertificateReport:
    """Label every property of every sample.

    A sample whose solve did not converge, or whose answer is not finite, fails every certificate; so does a value that
    is NaN. Without certificates a sample is trusted when it converged.

    Args:
        certificates: with distinct names.
        inference: the batch, e.g. `Inference.of(solution, problem=splitting.problem, data=d)`.

    Raises:
        ValueError: two certificates share a name, or a measure lacks what it needs or has the wrong shape.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> problem = il2o.Problem(F=il2o.QuadraticCost(linear=torch.ones(2, 3), diagonal=1.0), g=il2o.Box(lower=0.0))
        >>> solution = il2o.solve(il2o.ForwardBackward(problem), torch.zeros(2, 3))
        >>> feasible = il2o.Certificate(il2o.ConstraintViolation(), il2o.Threshold(1e-3))
        >>> il2o.certify([feasible], il2o.Inference.of(solution, problem=problem)).counts()["constraint violation"]
        {<Label.PASS: 0>: 2, <Label.WARN: 1>: 0, <Label.FAIL: 2>: 0}
    """
    names = tuple(certificate.name for certificate in certificates)
    check_distinct(names)
    valid = inference.valid
    batch = valid.shape[0]  # not len(), which torch.export takes for a constant
    values = inference.x.new_empty((batch, len(names)))
    labels = torch.empty((batch, len(names)), dtype=torch.int64, device=values.device)
    for i, certificate in enumerate(certificates):
        value = evaluate(certificate.measure, inference)
        values[:, i] = value
        labels[:, i] = torch.where(valid, certificate.rule.label(value), int(Label.FAIL))
    limits = tuple((certificate.rule.pass_limit, certificate.rule.warn_limit) for certificate in certificates)
    return CertificateReport(names=names, values=values, labels=labels, limits=limits, converged=valid)


@torch.no_grad()
def evaluate(measure: AbstractMeasure, inference: Inference) -> Float[Tensor, " B"]:
    """The measure's values; NaN where the answer is not finite, for a measure may overlook that (a count does)."""
    value = measure(inference)
    batch = inference.x.shape[0]
    if value.shape != (batch,):
        raise ValueError(
            f"'{measure.name}' must return one value a sample, shape ({batch},); got {tuple(value.shape)}."
        )
    return torch.where(_batch.finite(inference.x), value.to(inference.x.dtype), math.nan)


def collect_values(
    measures: Sequence[AbstractMeasure], inference: Inference | Iterable[Inference]
) -> list[Float[Tensor, " N"]]:
    """The values of each measure over a data set, in float64; samples that did not converge are left out, with a warning.

    Raises:
        ValueError: two measures share a name.
    """
    check_distinct([measure.name for measure in measures])
    batches = [inference] if isinstance(inference, Inference) else inference
    collected: list[list[Tensor]] = [[] for _ in measures]
    left_out = total = 0
    for batch in batches:
        # A non-finite ground truth is kept, so that it is refused with a count and not dropped.
        kept = batch.valid if batch.status is not None else torch.ones_like(batch.valid)
        left_out, total = left_out + int((~kept).sum()), total + len(kept)
        for values, measure in zip(collected, measures, strict=True):
            values.append(evaluate(measure, batch)[kept].cpu().double())
    if left_out:
        warnings.warn(
            f"{left_out} of {total} calibration samples did not converge and were left out.", UserWarning, stacklevel=3
        )
    return [torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64) for parts in collected]


def check_distinct(names: Sequence[str]) -> None:
    """Raise a `ValueError` that names the properties that occur twice."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f"certificates need distinct names; {twice} occur twice. Give the measures name=... .")


def check_fields(state: Any, fields: set[str], what: str) -> None:
    """Raise a `ValueError` unless `state` is a JSON object with exactly these fields."""
    found = set(state) if isinstance(state, dict) else set()
    if found != fields:
        raise ValueError(f"{what} has the fields {sorted(fields)}; got {sorted(found)}.")


def _to_plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)  # JSON has no NaN and no infinity


def _to_label(name: str) -> int:
    if name not in Label.__members__:
        raise ValueError(f"a label is one of {list(Label.__members__)}; got {name!r}.")
    return int(Label[name])


def _number(value: float) -> str:
    return f"{value:.3g}"


def _layout(rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell; the first to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
    return "\n".join(lines)
