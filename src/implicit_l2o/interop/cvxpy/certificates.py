"""Properties of an answer in CVXPY's own words: the violation of each constraint, and the duality gap."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.extra import sparse_values
from implicit_l2o.interop.cvxpy.solution import ConicSolution


@dataclass(frozen=True, eq=False)
class CvxpyViolation(il2o.AbstractMeasure):
    """By how much an answer violates one constraint of the problem: the largest entry of CVXPY's `constraint.violation()`.

    Its `data` are a `ConicSolution` of the layer (see `CvxpyLayer.infer`). CVXPY evaluates the constraint at the values
    of its variables and parameters, which it holds; they are put back afterwards.

    Args:
        constraint: of the problem.
        parameters: the layer's, in its order.
        name: shown in the report; None takes the constraint's text.
    """

    constraint: Any
    parameters: tuple[Any, ...]
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", str(self.constraint))

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The violation, per sample."""
        solution = inference.data
        if not isinstance(solution, ConicSolution):
            raise ValueError(f"'{self.name}' needs a ConicSolution as data; got {type(solution).__name__}.")
        own = [*self.constraint.variables(), *self.constraint.parameters()]
        before = [leaf._value for leaf in own]  # which `save_value` does not take back where only a part is kept
        try:
            with sparse_values():
                found = [self._of(solution, i) for i in range(len(solution.status))]
            return torch.tensor(found, dtype=inference.x.dtype)
        finally:
            for leaf, value in zip(own, before, strict=True):
                leaf._value = value

    def _of(self, solution: ConicSolution, sample: int) -> float:
        for variable in self.constraint.variables():
            variable.save_value(solution.everything[variable.id][sample].numpy())
        for parameter, value in zip(self.parameters, solution.parameters, strict=True):
            whole = value.ndim > len(parameter.shape)
            parameter.save_value((value[sample] if whole else value).double().cpu().numpy())
        return float(np.max(np.asarray(self.constraint.violation()), initial=0.0))


@dataclass(frozen=True, eq=False)
class DualityGap(il2o.AbstractMeasure):
    """The difference of primal and dual objectives relative to one plus their size; `data` as for `CvxpyViolation`."""

    name: str = field(default="duality gap", kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The gap, per sample."""
        if not isinstance(inference.data, ConicSolution):
            raise ValueError(f"'{self.name}' needs a ConicSolution as data; got {type(inference.data).__name__}.")
        return inference.data.gap.to(inference.x.dtype)


def certificates_of(layer: Any, solution: ConicSolution, *, limit: float = 1e-6) -> il2o.CertificateReport:
    """The report of a layer's solution: a violation for each constraint, the gap and the residual, all up to `limit`."""
    parameters = tuple(layer.parameters_of_problem)
    measures = [CvxpyViolation(constraint, parameters) for constraint in layer.problem.constraints]
    for variable in layer.problem.variables():
        # What an attribute says, such as nonneg=True, is a constraint as well.
        measures += [CvxpyViolation(part, parameters, name=f"{variable.name()}: {part}") for part in variable.domain]
    certificates = [
        il2o.Certificate(measure, il2o.Threshold(limit))
        for measure in (*_distinct(measures), DualityGap(), il2o.FixedPointResidual(name="optimality residual"))
    ]
    values = list(solution.everything.values())
    flat = torch.cat([value.reshape(len(solution.status), -1) for value in values], 1)
    inference = il2o.Inference(
        x=flat, status=solution.status, residual=solution.residual, steps=solution.steps, data=solution
    )
    return il2o.certify(certificates, inference)


def _distinct(measures: list[CvxpyViolation]) -> list[CvxpyViolation]:
    """Constraints of the same text told apart by a number."""
    seen: dict[str, int] = {}
    out = []
    for measure in measures:
        seen[measure.name] = seen.get(measure.name, 0) + 1
        count = seen[measure.name]
        name = measure.name if count == 1 else f"{measure.name} ({count})"
        out.append(CvxpyViolation(measure.constraint, measure.parameters, name=name))
    return out
