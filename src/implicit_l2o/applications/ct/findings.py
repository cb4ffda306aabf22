"""The demonstration: which share of good and of bad answers fails which certificate, for any set of reconstructors."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct.certificates import without_solve
from implicit_l2o.applications.ct.strangers import corrupted_sinograms, strange_phantoms

TEST, TRUTH, WRONG = "test images", "ground truth", "wrong signal"
SOLVE, ANY = "not converged", "any"


@dataclass(frozen=True, eq=False, kw_only=True)
class Examined:
    """A kind of answers with what the certificates say of them.

    Attributes:
        kind: what they are: test images, a kind of stranger, another method.
        group: `"test"`, `"phantom"`, `"sinogram"`, `"signal"` (not of this measurement) or `"method"`.
        x: the images.
        d: the sinograms they are to explain.
        report: of the certificates.
        solved: whether the answers come from a solve.
        truth: the true images, where they are known.
    """

    kind: str
    group: str
    x: Float[Tensor, "N 1 H W"]
    d: Float[Tensor, "N angles bins"]
    report: il2o.CertificateReport
    solved: bool
    truth: Float[Tensor, "N 1 H W"] | None = None

    def fail_shares(self) -> dict[str, float]:
        """The share that fails: by property, whose solve did not converge, and any of these.

        A report fails every property of an answer whose solve did not converge. Here a property counts as failing by its own
        value alone, so that the shares tell what each of them catches; the solve has a share of its own.
        """
        shares = {
            name: _share(~(column <= limits[1]))  # NaN fails
            for name, column, limits in zip(
                self.report.names, self.report.values.unbind(1), self.report.limits, strict=True
            )
        }
        solve = {SOLVE: _share(~self.report.converged)} if self.solved else {}
        return shares | solve | {ANY: _share(self.report.worst == il2o.Label.FAIL)}


@torch.no_grad()
def demonstrate(
    infer: Callable[[Tensor], il2o.Inference],
    certificates: Sequence[il2o.Certificate],
    *,
    images: Float[Tensor, "N 1 H W"],
    data: Float[Tensor, "N angles bins"],
    measure: Callable[[Tensor], Tensor],
    others: Mapping[str, Float[Tensor, "N 1 H W"]] | None = None,
    seed: int = 0,
    batch: int = 32,
) -> tuple[Examined, ...]:
    """Put a reconstructor's answers, and others', under its certificates.

    Its own answers: to the test's sinograms, to those of strange phantoms, to corrupted ones. Answers that it did not give:
    the truth, the answer to another measurement (a wrong signal), and those of other methods. The latter are judged by
    the certificates that need no solve.

    Args:
        infer: sinograms to answers.
        certificates: with their limits.
        images: true test images.
        data: their sinograms.
        measure: images to noisy sinograms, as the test's were made.
        others: answers of other methods to `data`, by the method's name.
        seed: of the strangers and the corruption.
        batch: sinograms at once.

    Raises:
        ValueError: fewer than two images: there is no other measurement to answer.
    """
    if len(images) < 2:
        raise ValueError(f"demonstrate needs at least 2 test images; got {len(images)}.")
    strange = strange_phantoms(len(images), size=images.shape[-1], seed=seed)
    own = [(TEST, "test", data, images)]
    own += [(kind, "phantom", measure(phantoms), phantoms) for kind, phantoms in strange.items()]
    own += [(kind, "sinogram", d, images) for kind, d in corrupted_sinograms(data, seed=seed).items()]
    examined = []
    for kind, group, d, truth in own:
        x, report = _answers(infer, certificates, d, batch)
        examined.append(Examined(kind=kind, group=group, x=x, d=d, report=report, solved=True, truth=truth))
    given = [(TRUTH, "signal", images), (WRONG, "signal", examined[0].x.roll(1, 0))]
    given += [(name, "method", x) for name, x in (others or {}).items()]
    for kind, group, x in given:
        report = il2o.certify(without_solve(certificates), il2o.Inference(x=x, data=data))
        examined.append(Examined(kind=kind, group=group, x=x, d=data, report=report, solved=False, truth=images))
    return tuple(examined)


def table(examined: Iterable[Examined]) -> dict[str, dict[str, Any]]:
    """The demonstration as plain values for `results.json`, by kind.

    Per kind its `group`, the `count`, and `fails`: see `Examined.fail_shares`.
    """
    return {part.kind: {"group": part.group, "count": len(part.x), "fails": part.fail_shares()} for part in examined}


def _answers(
    infer: Callable[[Tensor], il2o.Inference], certificates: Sequence[il2o.Certificate], d: Tensor, batch: int
) -> tuple[Tensor, il2o.CertificateReport]:
    parts, reports = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", il2o.ConvergenceWarning)  # the report says it of each sample
        for part in d.split(batch):
            inference = infer(part)
            parts.append(inference.x)
            reports.append(il2o.certify(certificates, inference))
    joined = il2o.CertificateReport(
        names=reports[0].names,
        values=torch.cat([report.values for report in reports]),
        labels=torch.cat([report.labels for report in reports]),
        limits=reports[0].limits,
        converged=torch.cat([report.converged for report in reports]),
    )
    return torch.cat(parts), joined


def _share(which: Tensor) -> float:
    return float(which.double().mean())
