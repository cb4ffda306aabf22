"""Limits with a finite-sample guarantee: split conformal prediction, its p-values, and tests of several properties at once.

Sources: V. Vovk, A. Gammerman and G. Shafer, Algorithmic Learning in a Random World (2005), section 2.2, for the quantile
and the p-value; S. Holm, A simple sequentially rejective multiple test procedure (1979).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.certificates.base import (
    AbstractMeasure,
    AbstractRule,
    Certificate,
    Inference,
    collect_values,
    evaluate,
)


@dataclass(frozen=True, eq=False)
class Conformal(AbstractRule):
    """A limit that a new value exceeds with probability at most `level`, whatever the distribution and for every `N`.

    With calibration values `a_1, ..., a_N` in order, FAIL iff a value exceeds `a_(k)`, `k = ceil((N + 1)(1 - level))`;
    with a `warn_level` it warns above the limit of that one. If the new value and the calibration values are
    exchangeable, then `P(FAIL) <= level`, and `P(FAIL) >= level - 1 / (N + 1)` where ties have probability 0. The
    probability is over the
    calibration as well: given one calibration, the share that fails varies as `Beta(N + 1 - k, k)`.

    The plain quantile (`Calibration`) takes `k = ceil(N (1 - level))` and fails a little more often than `level` in
    expectation.

    Args:
        values: `(N,)` finite calibration values, in any order, which the model was not fitted to.
        level: the probability of FAIL, in (0, 1).
        warn_level: the probability of WARN or FAIL, at least `level`; None for no warnings.

    Raises:
        ValueError: a level outside its range, values that are not finite, or too few of them: `N >= 1 / level - 1`.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import Conformal
        >>> rule = Conformal(torch.arange(1.0, 100.0), level=0.05)
        >>> rule.warn_limit, rule.p_value(torch.tensor([50.0, 98.5, 200.0]))
        (95.0, tensor([0.5100, 0.0200, 0.0100]))
    """

    values: Float[Tensor, " N"]
    level: float = field(default=0.05, kw_only=True)
    warn_level: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"Conformal needs 0 < level < 1; got level={self.level}.")
        if self.warn_level is not None and not self.level <= self.warn_level < 1:
            raise ValueError(f"Conformal needs level={self.level} <= warn_level < 1; got warn_level={self.warn_level}.")
        broken = int((~torch.isfinite(self.values)).sum())
        if broken:
            raise ValueError(f"{broken} of {len(self.values)} calibration values are NaN or infinite; remove them.")
        needed = math.ceil(1 / _exact(self.level)) - 1
        if len(self.values) < needed:
            raise ValueError(
                f"a level of {self.level:.3g} needs at least {needed} calibration values; got {len(self.values)}. Give "
                "more values or a larger level."
            )
        object.__setattr__(self, "values", self.values.detach().to("cpu", torch.float64).sort().values)

    @property
    def pass_limit(self) -> float:
        """The limit of `warn_level`, or of `level` where there is none."""
        return self._limit(self.level if self.warn_level is None else self.warn_level)

    @property
    def warn_limit(self) -> float:
        """The limit of `level`: the `ceil((N + 1)(1 - level))`-th smallest calibration value."""
        return self._limit(self.level)

    @property
    def fail_rate(self) -> float:
        """Probability that a new value from the same continuous distribution fails, exactly."""
        return (len(self.values) + 1 - self._rank(self.level)) / (len(self.values) + 1)

    def p_value(self, value: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """`(1 + #{a_i >= value}) / (N + 1)`: at most `t` with probability at most `t`; the smallest one for NaN."""
        known = self.values.to(value.device)
        below = torch.searchsorted(known, value.double().contiguous())
        count = torch.where(value.isnan(), 0, len(known) - below)
        return ((1 + count).double() / (len(known) + 1)).to(value.dtype)

    def state(self) -> dict[str, Any]:
        """The sorted values and the levels."""
        return {"conformal": self.values.tolist(), "level": self.level, "warn_level": self.warn_level}

    def _rank(self, level: float) -> int:
        return math.ceil((len(self.values) + 1) * (1 - _exact(level)))

    def _limit(self, level: float) -> float:
        # A warn_level needs fewer values than the level, so the rank exists.
        return float(self.values[max(1, self._rank(level)) - 1])


def conformal(
    measures: Sequence[AbstractMeasure],
    inference: Inference | Iterable[Inference],
    *,
    level: float = 0.05,
    warn_level: float | None = None,
) -> tuple[Certificate, ...]:
    """Certificates whose limits have a finite-sample guarantee; beside `calibrate`, which takes plain quantiles.

    Samples whose solve did not converge are left out, with a warning: the guarantee is then for samples that converge.

    Args:
        measures: with distinct names.
        inference: one batch, or the batches of a data set that the model was not fitted to.
        level: the probability that a property fails, each by itself; see `adjusted` for several at once.
        warn_level: the probability of a warning or a failure.

    Raises:
        ValueError: see `Conformal`; the message names the property.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import Inference, Sparsity, conformal
        >>> truths = Inference(x=torch.linspace(0.0, 1.0, 99)[:, None])
        >>> [certificate] = conformal([Sparsity(order=1)], truths, level=0.1)
        >>> round(certificate.rule.warn_limit, 3)
        0.908
    """
    certificates = []
    for measure, values in zip(measures, collect_values(measures, inference), strict=True):
        try:
            rule = Conformal(values, level=level, warn_level=warn_level)
        except ValueError as error:
            raise ValueError(f"cannot calibrate '{measure.name}': {error}") from error
        certificates.append(Certificate(measure, rule))
    return tuple(certificates)


@torch.no_grad()
def p_values(certificates: Sequence[Certificate], inference: Inference) -> Float[Tensor, "B P"]:
    """The conformal p-value of each property of each sample; the smallest possible one where the solve did not converge.

    Args:
        certificates: with `Conformal` rules.
        inference: the batch.

    Raises:
        TypeError: a rule has no p-value.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import Inference, Sparsity, conformal, p_values
        >>> certificates = conformal([Sparsity(order=1)], Inference(x=torch.linspace(0.0, 1.0, 99)[:, None]))
        >>> p_values(certificates, Inference(x=torch.tensor([[2.0], [0.505]])))
        tensor([[0.0100],
                [0.5000]])
    """
    columns = []
    for certificate in certificates:
        rule = certificate.rule
        if not isinstance(rule, Conformal):
            raise TypeError(
                f"'{certificate.name}' needs a Conformal rule for a p-value; it has a {type(rule).__name__}."
            )
        value = evaluate(certificate.measure, inference)
        columns.append(rule.p_value(torch.where(inference.valid, value, math.nan)))
    return torch.stack(columns, dim=1) if columns else inference.x.new_empty((len(inference.x), 0))


def adjusted(p: Float[Tensor, "B P"], rule: Literal["bonferroni", "holm"] = "holm") -> Float[Tensor, "B P"]:
    """p-values adjusted for testing the `P` properties of a sample together.

    A property is rejected at `level` where its adjusted p-value is at most that. If every property of a sample is as in the
    calibration, then one or more are rejected with probability at most `level`, however they depend on each other.

    - `"bonferroni"`: `min(1, P p_i)`.
    - `"holm"`: with `p_(1) <= ... <= p_(P)`, `max_{j <= i} min(1, (P - j + 1) p_(j))`: never larger, and with the same
    guarantee.

    Args:
        p: p-values in [0, 1].
        rule: which.

    Raises:
        ValueError: an unknown rule, or a p-value outside [0, 1].

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import adjusted
        >>> adjusted(torch.tensor([[0.01, 0.03, 0.50]]))
        tensor([[0.0300, 0.0600, 0.5000]])
        >>> adjusted(torch.tensor([[0.01, 0.03, 0.50]]), "bonferroni")
        tensor([[0.0300, 0.0900, 1.0000]])
    """
    if rule not in ("bonferroni", "holm"):
        raise ValueError(f'rule must be "bonferroni" or "holm"; got {rule!r}.')
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError("p-values must lie in [0, 1].")
    count = p.shape[1]
    if rule == "bonferroni":
        return (count * p).clamp_max(1.0)
    ordered, order = p.sort(dim=1)
    factors = torch.arange(count, 0, -1, dtype=p.dtype, device=p.device)
    steps = (factors * ordered).clamp_max(1.0)
    raised = steps.cummax(dim=1).values if count else steps
    return torch.empty_like(p).scatter(1, order, raised)


def _exact(share: float) -> Fraction:
    # As in `calibration`: 0.95 * 100 in floating point may be one rank too far.
    return Fraction(share).limit_denominator(10**9)
