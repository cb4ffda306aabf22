"""Abstaining: up to which value of a property an answer may be sent so that what is sent is right often enough.

Sources: Y. Geifman and R. El-Yaniv, Selective classification for deep neural networks (NeurIPS 2017); A. Angelopoulos et
al., Learn then test: calibrating predictive algorithms to achieve risk control (2021), section 3, for the fixed sequence of
tests.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_CANDIDATES = 50  # limits that are tried one after the other, from few samples kept to all


@dataclass(frozen=True)
class SelectiveLimit:
    """A limit under which answers are right often enough, and what it costs.

    Attributes:
        limit: answers whose property is at most this are sent.
        coverage: the share of the calibration samples that are sent.
        wrong: the share of those that were wrong.
        at_most: the promised share.
        confidence: with which the promise holds, over calibrations.
    """

    limit: float
    coverage: float
    wrong: float
    at_most: float
    confidence: float


def selective_limit(
    values: Float[Tensor, " N"], wrong: Bool[Tensor, " N"], *, at_most: float = 0.01, confidence: float = 0.95
) -> SelectiveLimit:
    """The largest limit on a property for which, with confidence, at most a share of the sent answers is wrong.

    Limits are tried from the strictest on: each is accepted if the exact binomial test of `P(wrong | sent) > at_most`
    rejects at `1 - confidence`, and the first that is not ends the search. The sequence is fixed by the values alone, so no
    correction for the number of tests is needed. It begins where a test can reject at all, at
    `ln(1 - confidence) / ln(1 - at_most)` samples.

    Args:
        values: `(N,)` of the property, small is good; from data that the model was not fitted to. NaN is never sent.
        wrong: `(N,)` whether the answer was wrong.
        at_most: the share of wrong answers that is allowed among the sent ones, in (0, 1).
        confidence: in (0, 1).

    Raises:
        ValueError: an option is outside (0, 1), the lengths differ, or no limit can be accepted: too few samples, or too
            many wrong ones among the best values.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import selective_limit
        >>> values = torch.arange(1000.0)
        >>> found = selective_limit(values, values >= 700, at_most=0.05)
        >>> found.coverage, round(found.wrong, 3)
        (0.712, 0.017)
    """
    for name, value in (("at_most", at_most), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"selective_limit needs 0 < {name} < 1; got {name}={value}.")
    if values.shape != wrong.shape:
        raise ValueError(f"selective_limit needs a verdict for each value; got {len(values)} and {len(wrong)}.")
    known = torch.where(values.isnan(), math.inf, values).double().cpu()
    order = known.argsort(stable=True)
    known, errors = known[order], wrong.cpu()[order].long().cumsum(0)
    finite = int(torch.isfinite(known).sum())
    fewest = math.ceil(math.log(1 - confidence) / math.log(1 - at_most))
    if finite < fewest:
        raise ValueError(
            f"a share of {at_most:.3g} with confidence {confidence:.3g} needs at least {fewest} samples with a finite "
            f"value; got {finite}. Give more samples, a larger share or a smaller confidence."
        )
    best = None
    counts = torch.linspace(fewest, finite, _CANDIDATES).round().long().unique().tolist()
    for count in counts:
        limit = float(known[count - 1])
        kept = int((known <= limit).sum())  # ties are sent together
        failures = int(errors[kept - 1])
        if _tail(failures, kept, at_most) > 1 - confidence:
            break
        best = SelectiveLimit(limit, kept / len(values), failures / kept, at_most, confidence)
    if best is None:
        raise ValueError(
            f"no limit keeps the share of wrong answers at {at_most:.3g} with confidence {confidence:.3g}: of the best "
            f"{counts[0]} samples {int(errors[counts[0] - 1])} are wrong."
        )
    return best


@dataclass(frozen=True)
class Coverage:
    """What an abstaining model answers, and how good that is.

    Attributes:
        samples: how many there were.
        kept: how many were answered.
        quality_kept: mean quality of those; NaN where nothing was answered.
        quality_refused: mean quality that the refused ones would have had; NaN where nothing was refused.
        quality_all: mean quality without abstaining.
    """

    samples: int
    kept: int
    quality_kept: float
    quality_refused: float
    quality_all: float

    @property
    def share(self) -> float:
        """The coverage: the share that was answered."""
        return self.kept / self.samples if self.samples else math.nan


def coverage(kept: Bool[Tensor, " B"], quality: Float[Tensor, " B"]) -> Coverage:
    """Coverage and quality of the kept answers, beside that of the refused ones.

    Args:
        kept: which were answered (`Checked.kept`).
        quality: of every answer, of any unit; 1 and 0 for right and wrong give accuracies.

    Raises:
        ValueError: the lengths differ.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import coverage
        >>> found = coverage(torch.tensor([True, True, False, True]), torch.tensor([1.0, 1.0, 0.0, 0.0]))
        >>> found.share, round(found.quality_kept, 3), found.quality_refused
        (0.75, 0.667, 0.0)
    """
    if kept.shape != quality.shape:
        raise ValueError(f"coverage needs a quality for each sample; got {len(kept)} and {len(quality)}.")
    value = quality.double()
    return Coverage(
        samples=len(kept),
        kept=int(kept.sum()),
        quality_kept=float(value[kept].mean()),
        quality_refused=float(value[~kept].mean()),
        quality_all=float(value.mean()),
    )


def _tail(failures: int, count: int, share: float) -> float:
    """`P(Binomial(count, share) <= failures)`: the p-value of the test that more than the share is wrong."""
    logs = (
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + k * math.log(share) + (count - k) * math.log1p(-share)
        for k in range(failures + 1)
    )  # fmt: skip
    return min(1.0, math.fsum(math.exp(log) for log in logs))
