"""The rules that label a property: a fixed threshold, or quantiles of the values seen on training data.

Source: Heaton and Wu Fung, Explainable AI via Learning to Optimize (Scientific Reports, 2023), section on certificates.
"""

import json
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.certificates.base import (
    AbstractMeasure,
    AbstractRule,
    Certificate,
    Inference,
    check_distinct,
    check_fields,
    collect_values,
)
from implicit_l2o.certificates.conformal import Conformal


@dataclass(frozen=True, eq=False)
class Threshold(AbstractRule):
    """A fixed limit: PASS iff value <= limit, WARN iff limit < value <= warn_limit, else FAIL.

    Args:
        limit: in the property's unit.
        above: the largest value that only warns, at least `limit`; None for `limit`: no warnings.

    Raises:
        ValueError: a limit is not finite, or `above < limit`.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import Threshold
        >>> Threshold(1e-3).label(torch.tensor([0.0, 1e-3, 2e-3, float("nan")]))
        tensor([0, 0, 2, 2])
    """

    limit: float
    above: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not math.isfinite(self.limit):
            raise ValueError(f"Threshold needs a finite limit; got limit={self.limit}.")
        if self.above is not None and not self.limit <= self.above < math.inf:
            raise ValueError(f"Threshold needs limit={self.limit} <= above < inf; got above={self.above}.")

    @property
    def pass_limit(self) -> float:
        """The largest value that passes."""
        return float(self.limit)

    @property
    def warn_limit(self) -> float:
        """The largest value that does not fail."""
        return float(self.limit if self.above is None else self.above)

    def state(self) -> dict[str, Any]:
        """The limits."""
        return {"limit": self.limit, "above": self.above}


@dataclass(frozen=True, eq=False)
class Calibration(AbstractRule):
    """Quantiles of calibration values `a_1, ..., a_N`.

    With `CDF(a) = #{a_i <= a} / N` and its quantile `Q(p) = min {a : CDF(a) >= p}`: PASS iff `a <= Q(p_pass)`, WARN iff
    `Q(p_pass) < a <= Q(1 - p_fail)`, FAIL iff `a > Q(1 - p_fail)`. The source states the rule twice: by closed
    intervals of values, as here, and by `CDF(a) < p_pass`. The two differ only for an `a` that ties with the quantile,
    which passes here: by the second form a property that is zero on all training data would fail when zero again.

    On new data from the calibration's distribution (continuous, exchangeable) the probability of FAIL is exactly
    `1 - ceil((1 - p_fail) N) / (N + 1)`: `fail_rate`, about `p_fail`.

    Args:
        values: `(N,)` finite calibration values, in any order.
        p_pass: the share of values that pass, in (0, 1].
        p_warn: the share that warns.
        p_fail: the share that fails; with 0 a value fails when it exceeds every calibration value.
        resolution: values that differ by no more than this are ties: added to both limits, in the property's unit. Set
            it where calibration values repeat exactly, so that rounding does not fail.

    Raises:
        ValueError: the probabilities do not sum to 1, values that are not finite, or fewer values than the smallest
            probability above a limit resolves (`N >= 1 / p`).

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import Calibration
        >>> rule = Calibration(torch.arange(1.0, 101.0), p_pass=0.9, p_warn=0.05, p_fail=0.05)
        >>> rule.pass_limit, rule.warn_limit
        (90.0, 95.0)
        >>> rule.label(torch.tensor([90.0, 90.5, 95.5]))
        tensor([0, 1, 2])
    """

    values: Float[Tensor, " N"]
    p_pass: float = field(default=0.95, kw_only=True)
    p_warn: float = field(default=0.0, kw_only=True)
    p_fail: float = field(default=0.05, kw_only=True)
    resolution: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        shares = f"p_pass={self.p_pass}, p_warn={self.p_warn}, p_fail={self.p_fail}"
        if not (0 < self.p_pass <= 1 and self.p_warn >= 0 and self.p_fail >= 0):
            raise ValueError(f"Calibration needs 0 < p_pass <= 1, p_warn >= 0 and p_fail >= 0; got {shares}.")
        if abs(self.p_pass + self.p_warn + self.p_fail - 1) > 1e-9:
            total = self.p_pass + self.p_warn + self.p_fail
            raise ValueError(f"Calibration needs p_pass + p_warn + p_fail = 1; got {shares}, sum {total:.6g}.")
        if not 0 <= self.resolution < math.inf:
            raise ValueError(f"Calibration needs 0 <= resolution < inf; got resolution={self.resolution}.")
        broken = int((~torch.isfinite(self.values)).sum())
        if broken:
            raise ValueError(f"{broken} of {len(self.values)} calibration values are NaN or infinite; remove them.")
        tail = min((share for share in (self.p_fail, self.p_warn + self.p_fail) if share > 0), default=1.0)
        needed = math.ceil(1 / _exact(tail))
        if len(self.values) < needed:
            raise ValueError(
                f"a share of {tail:.3g} above a limit needs at least {needed} calibration values; got "
                f"{len(self.values)}. Give more values or a larger share."
            )
        ordered = self.values.detach().to("cpu", torch.float64).sort().values
        object.__setattr__(self, "values", ordered)

    @property
    def pass_limit(self) -> float:
        """`Q(p_pass)`, plus the resolution."""
        return self._quantile(_exact(self.p_pass))

    @property
    def warn_limit(self) -> float:
        """`Q(1 - p_fail)`, plus the resolution."""
        return self._quantile(1 - _exact(self.p_fail))

    @property
    def fail_rate(self) -> float:
        """Probability that a new value from the same continuous distribution fails (for `resolution=0`)."""
        return 1 - _rank(1 - _exact(self.p_fail), len(self.values)) / (len(self.values) + 1)

    def cdf(self, value: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """`#{a_i <= a} / N` of each value; NaN for NaN."""
        known = self.values.to(value.device, value.dtype)
        share = torch.searchsorted(known, value.contiguous(), right=True).to(value.dtype) / len(known)
        return torch.where(value.isnan(), math.nan, share)

    def state(self) -> dict[str, Any]:
        """The sorted values and the shares."""
        shares = {name: getattr(self, name) for name in ("p_pass", "p_warn", "p_fail", "resolution")}
        return {"values": self.values.tolist(), **shares}

    def _quantile(self, p: Fraction) -> float:
        return float(self.values[_rank(p, len(self.values)) - 1]) + self.resolution


def calibrate(
    measures: Sequence[AbstractMeasure],
    inference: Inference | Iterable[Inference],
    *,
    p_pass: float = 0.95,
    p_warn: float = 0.0,
    p_fail: float = 0.05,
    resolution: float = 0.0,
) -> tuple[Certificate, ...]:
    """Certificates whose limits are quantiles over training inferences or ground truths.

    Samples whose solve did not converge are left out, with a warning: they fail whatever the limits are, and their
    values would widen the limits for the others.

    Args:
        measures: with distinct names.
        inference: one batch, or the batches of a data set.
        p_pass: the share of values that pass.
        p_warn: the share that warns.
        p_fail: the share that fails.
        resolution: values that differ by no more than this are ties (see `Calibration`).

    Raises:
        ValueError: see `Calibration`; the message names the property.

    Warns:
        UserWarning: samples were left out, or all values of a property are equal, so that any larger one would fail.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import Inference, Sparsity, calibrate
        >>> truths = Inference(x=torch.linspace(0.0, 1.0, 101)[:, None])
        >>> [certificate] = calibrate([Sparsity(order=1)], truths, p_pass=0.9, p_fail=0.1)
        >>> round(certificate.rule.pass_limit, 3)
        0.9
    """
    certificates = []
    for measure, values in zip(measures, collect_values(measures, inference), strict=True):
        try:
            rule = Calibration(values, p_pass=p_pass, p_warn=p_warn, p_fail=p_fail, resolution=resolution)
        except ValueError as error:
            raise ValueError(f"cannot calibrate '{measure.name}': {error}") from error
        if resolution == 0 and bool(values.min() == values.max()):
            warnings.warn(
                f"all {len(values)} calibration values of '{measure.name}' equal {float(values[0]):.3g}: any larger "
                "value fails, rounding included. Set resolution, or use a Threshold.",
                UserWarning,
                stacklevel=2,
            )
        certificates.append(Certificate(measure, rule))
    return tuple(certificates)


def certificates_to_json(certificates: Sequence[Certificate]) -> str:
    """The rules of the certificates as JSON, by name; the measures are code and are given again to load them.

    Example:
        >>> from implicit_l2o.certificates import Certificate, FixedPointResidual, Threshold, certificates_to_json
        >>> certificates_to_json([Certificate(FixedPointResidual(), Threshold(0.5))])
        '{"fixed-point residual": {"limit": 0.5, "above": null}}'
    """
    check_distinct([certificate.name for certificate in certificates])
    return json.dumps({certificate.name: certificate.rule.state() for certificate in certificates})


def certificates_from_json(text: str, measures: Sequence[AbstractMeasure]) -> tuple[Certificate, ...]:
    """Restore what `certificates_to_json` wrote.

    Args:
        text: the JSON.
        measures: the same measures, by name, in any order; it is also the order of the result.

    Raises:
        ValueError: the names of the measures are not those in the text, or a rule's fields are not known.

    Example:
        >>> from implicit_l2o.certificates import Sparsity, certificates_from_json
        >>> [certificate] = certificates_from_json('{"sparsity": {"limit": 3.0, "above": 5.0}}', [Sparsity()])
        >>> certificate.rule
        Threshold(limit=3.0, above=5.0)
    """
    state = json.loads(text)
    check_distinct([measure.name for measure in measures])
    check_fields(state, {measure.name for measure in measures}, "a file of certificates for these measures")
    return tuple(Certificate(measure, _rule(state[measure.name])) for measure in measures)


def _rule(state: dict[str, Any]) -> AbstractRule:
    if "limit" in state:
        check_fields(state, {"limit", "above"}, "a threshold")
        return Threshold(**state)
    if "conformal" in state:
        check_fields(state, {"conformal", "level", "warn_level"}, "a conformal rule")
        return Conformal(torch.tensor(state.pop("conformal"), dtype=torch.float64), **state)
    check_fields(state, {"values", "p_pass", "p_warn", "p_fail", "resolution"}, "a calibration")
    return Calibration(torch.tensor(state.pop("values"), dtype=torch.float64), **state)


def _exact(share: float) -> Fraction:
    # 0.55 * 100 is 55.00000000000001 in floating point, whose ceiling is one rank too far.
    return Fraction(share).limit_denominator(10**9)


def _rank(p: Fraction, n: int) -> int:
    """The 1-based rank of the quantile `Q(p)` among `n` sorted values."""
    return max(1, math.ceil(p * n))
