"""Post-conditions: certificates that are enforced at every inference of a model, implicit or black box.

Longer than most files here: what a model returns, what is judged and what is done about it are read together.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from implicit_l2o import _batch
from implicit_l2o._solution import FixedPoint, Solution
from implicit_l2o.certificates.audit import AuditLog
from implicit_l2o.certificates.base import (
    AbstractMeasure,
    Certificate,
    CertificateReport,
    Inference,
    Label,
    certify,
    check_distinct,
    check_fields,
)
from implicit_l2o.certificates.calibration import calibrate, certificates_from_json, certificates_to_json
from implicit_l2o.certificates.conformal import Conformal, adjusted, conformal, p_values

OnFail: TypeAlias = Literal["raise", "warn", "abstain"] | Callable[..., Tensor]
Joint: TypeAlias = Literal["none", "bonferroni", "holm"]


class PostconditionError(RuntimeError):
    """An answer failed a post-condition and `on_fail="raise"` was asked for; `checked` has everything known of the batch."""

    def __init__(self, message: str, checked: "Checked") -> None:
        super().__init__(message)
        self.checked = checked


class PostconditionWarning(UserWarning):
    """An answer failed a post-condition; it is returned nevertheless."""


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Checked:
    """Answers with the verdict on them.

    Attributes:
        x: `(B, *shape)` the answers; NaN where the model abstained, the fallback's where there is one.
        kept: `(B,)` answers of the model itself, which no post-condition refused; with `"warn"` also refused ones stay in
            `x`.
        report: values, labels and limits of the model's own answers.
        inference: the model's own answers, as the measures saw them.
        p: `(B, P)` adjusted p-values, where the properties are tested together.
    """

    x: Float[Tensor, "B *shape"]
    kept: Bool[Tensor, " B"]
    report: CertificateReport
    inference: Inference
    p: Float[Tensor, "B P"] | None = None

    @property
    def coverage(self) -> float:
        """The share of the batch that the model answered itself; NaN for an empty batch."""
        return float(self.kept.double().mean())


@final
class Ensured(nn.Module):
    """A model whose answers are checked, and refused where they fail; made by `ensure`.

    Calling it gives the answers as one tensor; `check` gives them with the verdict. What is calibrated is part of its
    `state_dict`, and `to_json` gives it as text. Certificates are computed without a graph; gradients flow through the
    answers.

    Args:
        model: a module with `inference(d) -> Inference` (such as `ImplicitLayer`), or any module or function that returns
            a tensor, a `Solution`, a `FixedPoint` or an `Inference`. The measures see its single argument as
            `Inference.data`, or the tuple of several.
        certificates: with rules: fixed, or calibrated elsewhere.
        measures: whose rules `calibrate` makes; until then the model refuses to answer.
        on_fail: see `ensure`.
        strict: refuse what warns as well.
        joint: see `ensure`.
        level: of the joint test.
        audit: a log of every inference.
        name: of the model in messages and in the log; None for its own.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> size = il2o.Sparsity(order=1, name="size")
        >>> guarded = il2o.Ensured(torch.nn.Identity(), measures=[size], on_fail="abstain")
        >>> guarded.calibrate([torch.linspace(0, 1, 99)[:, None]], level=0.1)
        >>> guarded(torch.tensor([[0.5], [0.95]])).flatten()
        tensor([0.5000,    nan])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        certificates: Sequence[Certificate] = (),
        *,
        measures: Sequence[AbstractMeasure] = (),
        on_fail: OnFail = "raise",
        strict: bool = False,
        joint: Joint = "none",
        level: float = 0.05,
        audit: AuditLog | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        if not callable(model):
            raise TypeError(f"ensure takes a module or a function; got {type(model).__name__}.")
        if isinstance(on_fail, str) and on_fail not in ("raise", "warn", "abstain"):
            raise ValueError(
                f'on_fail must be "raise", "warn", "abstain" or a function, the fallback; got {on_fail!r}.'
            )
        if not isinstance(on_fail, str) and not callable(on_fail):
            raise TypeError(f'on_fail must be "raise", "warn", "abstain" or a function; got {type(on_fail).__name__}.')
        if joint not in ("none", "bonferroni", "holm"):
            raise ValueError(f'joint must be "none", "bonferroni" or "holm"; got {joint!r}.')
        if not 0 < level < 1:
            raise ValueError(f"ensure needs 0 < level < 1; got level={level}.")
        check_distinct([*(certificate.name for certificate in certificates), *(measure.name for measure in measures)])
        self.model = model
        self.fixed = tuple(certificates)
        self.measures = tuple(measures)
        self.calibrated: tuple[Certificate, ...] | None = None if measures else ()
        self.on_fail = on_fail
        self.strict = strict
        self.joint: Joint = joint
        self.level = level
        self.audit = audit
        self.name = name if name is not None else getattr(model, "__name__", type(model).__name__)

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Those with fixed limits, then the calibrated ones.

        Raises:
            RuntimeError: `calibrate` has not been called.
        """
        if self.calibrated is None:
            missing = [measure.name for measure in self.measures]
            raise RuntimeError(f"{self.name}: {missing} are not calibrated; call calibrate(...) or load a saved state.")
        return (*self.fixed, *self.calibrated)

    def forward(self, *d: Any) -> Float[Tensor, "B *shape"]:
        """The answers, after the post-conditions."""
        return self.check(*d).x

    def check(self, *d: Any) -> Checked:
        """The answers with the verdict on each.

        Raises:
            PostconditionError: with `on_fail="raise"`, some answer is refused.
            AuditError: the inference cannot be logged.
        """
        certificates = self.certificates
        inference = self._infer(*d)
        report = certify(certificates, inference)
        p = None
        if self.joint != "none":
            report, p = self._together(report, certificates, inference)
        limit = Label.PASS if self.strict else Label.WARN
        kept = report.worst <= limit
        checked = Checked(x=inference.x, kept=kept, report=report, inference=inference, p=p)
        refused = (~kept).nonzero().squeeze(-1)
        action = "answered"
        if len(refused):
            checked, action = self._act(checked, d, refused)
        if self.audit is not None:
            other = "withheld" if action == "raised" else "answered"
            actions = [other if good else action for good in kept.tolist()]
            self.audit.write(report, actions, model=self.name)
        if action == "raised":
            raise PostconditionError(self._message(report, refused), checked)
        if action == "warned":
            warnings.warn(self._message(report, refused), PostconditionWarning, stacklevel=2)
        return checked

    @torch.no_grad()
    def calibrate(
        self, batches: Iterable[Any], *, level: float = 0.05, warn_level: float | None = None, plain: bool = False
    ) -> None:
        """Take the limits of the measures from the model's own answers to data that it was not fitted to.

        Args:
            batches: the model's inputs, one at a time; a tuple is several arguments.
            level: the probability that a usual answer fails a property: guaranteed for finite samples (`conformal`).
            warn_level: the probability that it warns or fails.
            plain: plain quantiles (`calibrate`) in place of the guarantee.
        """
        inferences = [self._infer(*(batch if isinstance(batch, tuple) else (batch,))) for batch in batches]
        if plain:
            warned = level if warn_level is None else warn_level
            rates = {"p_pass": 1 - warned, "p_warn": warned - level, "p_fail": level}
            self.calibrated = calibrate(self.measures, inferences, **rates)
        else:
            self.calibrated = conformal(self.measures, inferences, level=level, warn_level=warn_level)

    def to_json(self) -> str:
        """What is calibrated, as JSON."""
        rules = None if self.calibrated is None else json.loads(certificates_to_json(self.calibrated))
        return json.dumps({"rules": rules})

    def from_json(self, text: str) -> None:
        """Take over what `to_json` wrote, for the same measures.

        Raises:
            ValueError: the text is not that, or of other measures.
        """
        state = json.loads(text)
        check_fields(state, {"rules"}, "the state of post-conditions")
        rules = state["rules"]
        self.calibrated = None if rules is None else certificates_from_json(json.dumps(rules), self.measures)

    def get_extra_state(self) -> str:
        """Part of `state_dict`: `to_json`."""
        return self.to_json()

    def set_extra_state(self, state: Any) -> None:
        """Part of `load_state_dict`: `from_json`."""
        self.from_json(state)

    def _infer(self, *d: Any) -> Inference:
        own = getattr(self.model, "inference", None)
        out = own(*d) if callable(own) else self.model(*d)
        data = d[0] if len(d) == 1 else d
        if isinstance(out, Inference):
            out = out if out.data is not None else replace(out, data=data)
        elif isinstance(out, Solution | FixedPoint):
            out = Inference.of(out, data=data)
        elif isinstance(out, Tensor):
            out = Inference(x=out, data=data)
        else:
            raise TypeError(
                f"{self.name} returned a {type(out).__name__}; ensure checks tensors, Solutions, FixedPoints and Inferences."
            )
        if not out.x.is_floating_point() or out.x.ndim == 0:
            raise TypeError(
                f"{self.name} returned {out.x.dtype} of shape {tuple(out.x.shape)}; ensure checks batches of "
                "floating-point answers."
            )
        return out

    def _together(
        self, report: CertificateReport, certificates: Sequence[Certificate], inference: Inference
    ) -> tuple[CertificateReport, Tensor]:
        """The report where a calibrated property fails by the joint test alone; fixed thresholds stay as they are."""
        tested = [i for i, certificate in enumerate(certificates) if isinstance(certificate.rule, Conformal)]
        if not tested:
            raise ValueError(f"{self.name}: joint={self.joint!r} needs certificates with Conformal rules.")
        rule: Literal["bonferroni", "holm"] = "bonferroni" if self.joint == "bonferroni" else "holm"
        p = adjusted(p_values([certificates[i] for i in tested], inference), rule)
        labels = report.labels.clone()
        verdict = torch.where(p <= self.level, int(Label.FAIL), int(Label.PASS))
        labels[:, tested] = torch.where(report.converged[:, None], verdict, int(Label.FAIL))
        return replace(report, labels=labels), p

    def _act(self, checked: Checked, d: tuple[Any, ...], refused: Tensor) -> tuple[Checked, str]:
        if self.on_fail == "raise":
            return checked, "raised"
        if self.on_fail == "warn":
            return checked, "warned"
        x = checked.x
        if isinstance(self.on_fail, str):
            kept = _batch.expand(checked.kept, x)
            return replace(checked, x=torch.where(kept, x, torch.nan)), "abstained"
        batch = len(x)
        part = [arg[refused] if isinstance(arg, Tensor) and arg.shape[:1] == (batch,) else arg for arg in d]
        instead = self.on_fail(*part)
        if not isinstance(instead, Tensor) or instead.shape != x[refused].shape:
            shown = tuple(instead.shape) if isinstance(instead, Tensor) else type(instead).__name__
            raise ValueError(
                f"{self.name}: the fallback must answer the {len(refused)} refused samples, shape "
                f"{tuple(x[refused].shape)}; got {shown}."
            )
        return replace(checked, x=x.index_copy(0, refused, instead.to(x.dtype))), "fallback"

    def _message(self, report: CertificateReport, refused: Tensor) -> str:
        first = int(refused[0])
        return (
            f"{self.name}: {len(refused)} of {len(report.converged)} answers fail a post-condition; the first is sample "
            f"{first}.\n{report.table(first)}"
        )


def ensure(
    certificates: Sequence[Certificate] = (),
    *,
    measures: Sequence[AbstractMeasure] = (),
    on_fail: OnFail = "raise",
    strict: bool = False,
    joint: Joint = "none",
    level: float = 0.05,
    audit: AuditLog | None = None,
    name: str | None = None,
) -> Callable[[Callable[..., Any]], Ensured]:
    """Post-conditions around any model: `ensure(...)(model)`, or `@ensure(...)` over a function.

    An answer is refused if its solve did not converge or a certificate labels it FAIL. What then happens says `on_fail`:

    - `"raise"`: a `PostconditionError` for the batch;
    - `"warn"`: a `PostconditionWarning`; the answer is returned;
    - `"abstain"`: the answer is NaN, and `Checked.kept` is false;
    - a function: it is called with the refused samples' inputs, and its answers take their place. It is trusted; give it
      post-conditions of its own where it should not be.

    Each calibrated property by itself fails for a share `level` of usual answers, so several together refuse more. With
    `joint="holm"` or `"bonferroni"` they are tested together: a usual answer is refused by any of them with probability at
    most `level` of this function. Properties with fixed thresholds are not part of that test.

    Args:
        certificates: with rules: fixed, or calibrated elsewhere.
        measures: whose rules `Ensured.calibrate` makes, once; they are saved with the model.
        on_fail: see above.
        strict: refuse what warns as well.
        joint: how the properties with conformal rules are tested.
        level: of the joint test; finest for `N` calibration values: `P / (N + 1)`.
        audit: a log of every inference.
        name: of the model in messages and in the log; None for its own.

    Raises:
        ValueError, TypeError: an option is not one of those, or two properties share a name.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> in_range = il2o.Certificate(il2o.ConstraintViolation(il2o.Box(0.0, 1.0)), il2o.Threshold(1e-6))
        >>> @il2o.ensure([in_range], on_fail="abstain")
        ... def model(d):
        ...     return 2.0 * d
        >>> model(torch.tensor([[0.3], [0.8]]))
        tensor([[0.6000],
                [   nan]])
        >>> model.check(torch.tensor([[0.3], [0.8]])).coverage
        0.5
    """

    def wrap(model: Callable[..., Any]) -> Ensured:
        return Ensured(
            model,
            certificates,
            measures=measures,
            on_fail=on_fail,
            strict=strict,
            joint=joint,
            level=level,
            audit=audit,
            name=name,
        )

    return wrap
