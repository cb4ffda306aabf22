"""How good is the gradient: a backward mode against the exact one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from implicit_l2o._solution import Solution, Status, failed
from implicit_l2o.backward.base import AbstractBackward
from implicit_l2o.backward.gmres import GMRES
from implicit_l2o.backward.implicit import Implicit
from implicit_l2o.diagnostics._precise import Loss, compare, flat, loss_value, precise_copy
from implicit_l2o.layer import ImplicitLayer

_ADJOINT = {torch.float64: 1e-10, torch.float32: 1e-6, torch.bfloat16: 1e-2}  # relative tolerance of the exact gradient


@dataclass(frozen=True, eq=False, kw_only=True)
class GradientReport:
    """A backward mode's parameter gradient against the exact one: what `gradient_report` returns.

    The norm ratio is that of the mode to the exact gradient. A cosine is NaN where a gradient vanishes.

    Attributes:
        cosine: over all parameters.
        norm_ratio: over all parameters.
        groups: cosine and norm ratio of each module's own parameters, by the module's name.
        sample_cosine: `(B,)` over all parameters, of each sample's loss; None for a scalar loss.
        sample_norm_ratio: `(B,)` likewise.
        solved: `(B,)` whether the fixed point and the adjoint equation were solved to tight tolerance.

    Example:
        >>> import torch
        >>> from implicit_l2o.diagnostics import GradientReport
        >>> figures = {"encoder": (0.9, 0.5)}
        >>> print(GradientReport(cosine=0.9, norm_ratio=0.5, groups=figures, sample_cosine=None, sample_norm_ratio=None,
        ...                      solved=torch.tensor([True, True])).table())
                        cosine  norm ratio
        all parameters   0.900         0.5
        encoder          0.900         0.5
        2 of 2 samples were solved to tight tolerance.
    """

    cosine: float
    norm_ratio: float
    groups: dict[str, tuple[float, float]]
    sample_cosine: Float[Tensor, " B"] | None
    sample_norm_ratio: Float[Tensor, " B"] | None
    solved: Bool[Tensor, " B"]

    def table(self) -> str:
        """A text table: all parameters, then each module's."""
        rows = {"all parameters": (self.cosine, self.norm_ratio), **self.groups}
        width = max(len(name) for name in rows)
        lines = [f"{'':{width}}  cosine  norm ratio"]
        lines += [f"{name:{width}}  {cosine:6.3f}  {ratio:10.3g}" for name, (cosine, ratio) in rows.items()]
        if self.sample_cosine is not None and len(self.sample_cosine):
            worst = self.sample_cosine.nan_to_num(math.inf).argmin()
            lines.append(f"worst sample: {int(worst)}, cosine {float(self.sample_cosine[worst]):.3f}")
        lines.append(f"{int(self.solved.sum())} of {len(self.solved)} samples were solved to tight tolerance.")
        return "\n".join(lines)


@torch.enable_grad()
def gradient_report(
    layer: ImplicitLayer, batch: Tensor, *, loss: Loss | None = None, exact: AbstractBackward | None = None
) -> GradientReport:
    """Compare the parameter gradient of the layer's backward mode with the exact one, at the same tight fixed point.

    The layer's solver runs to nearly full precision, so that only the backward mode differs (`Unrolled` ignores the
    solver, and is judged as it is). It runs on a copy: the layer, its buffers and its `.grad` are left alone.

    Args:
        layer: with at least one parameter that requires a gradient.
        batch: data of the layer, `(B, ...)`.
        loss: of the solution; one value a sample `(B,)` gives figures per sample too, at two backward passes each. None
            takes `|x|^2 / 2`.
        exact: the mode to compare with; None takes `Implicit` to tight tolerance.

    Raises:
        ValueError: no parameter requires a gradient, the loss has another shape or no gradient, or the data are not
            finite.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.diagnostics import gradient_report
        >>> _ = torch.manual_seed(0)
        >>> build = lambda w: il2o.ForwardBackward(il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=2.0)), step=0.25)
        >>> layer = il2o.ImplicitLayer(torch.nn.Linear(4, 3), build, torch.zeros_like)
        >>> report = gradient_report(layer, torch.randn(5, 4))
        >>> round(report.cosine, 3), round(report.norm_ratio, 3)  # J = I/2: JFB is half the gradient
        (1.0, 0.5)
    """
    if batch.is_floating_point() and not bool(torch.isfinite(batch).all()):
        raise ValueError("gradient_report needs finite data; some samples of the batch have NaN or inf.")
    layer, parameters = precise_copy(layer, None)
    leaves = list(parameters.values())
    exact = Implicit(GMRES(rtol=_ADJOINT[leaves[0].dtype], max_steps=3000)) if exact is None else exact
    losses, _ = _losses(layer, batch, layer.backward, loss)
    truths, solution = _losses(layer, batch, exact, loss)
    mine, true = _gradient(losses, leaves), _gradient(truths, leaves)
    solved = _solved(solution)  # of the whole batch: the samples' own backward passes below overwrite the report

    owners = [name.rpartition(".")[0] or name for name in parameters]
    groups = {}
    for owner in dict.fromkeys(owners):
        members = [i for i, name in enumerate(owners) if name == owner]
        groups[owner] = compare(flat([mine[i] for i in members]), flat([true[i] for i in members]))
    cosine, ratio = compare(flat(mine), flat(true))
    sample_cosine = sample_ratio = None
    if losses.ndim == 1:
        each = zip(losses.unbind(), truths.unbind(), strict=True)
        figures = [compare(flat(_gradient(a, leaves)), flat(_gradient(b, leaves))) for a, b in each]
        sample_cosine, sample_ratio = torch.tensor(figures, dtype=torch.float64).reshape(-1, 2).unbind(1)
    return GradientReport(
        cosine=cosine,
        norm_ratio=ratio,
        groups=groups,
        sample_cosine=sample_cosine,
        sample_norm_ratio=sample_ratio,
        solved=solved,
    )


def _losses(
    layer: ImplicitLayer, batch: Tensor, backward: AbstractBackward, loss: Loss | None
) -> tuple[Tensor, Solution]:
    layer.backward = backward
    devices = [batch.device] if batch.is_cuda else []
    with torch.random.fork_rng(devices):  # the generator is put back: random layers draw the same for both modes
        solution = layer(batch)
        value = loss_value(solution, loss)
    if not value.requires_grad:
        raise ValueError("the loss carries no gradient: every sample failed, or it does not depend on the solution.")
    return value, solution


def _gradient(value: Tensor, leaves: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value.sum(), leaves, retain_graph=True, allow_unused=True, materialize_grads=True)


def _solved(solution: Solution) -> Bool[Tensor, " B"]:
    """Samples whose fixed point and, for `Implicit`, last adjoint equation met their tolerance."""
    solved = solution.converged.clone()
    if solution.adjoint is None or solution.adjoint.status is None:
        return solved
    status = solution.adjoint.status
    # A failed sample has no adjoint equation, and may be missing from the report.
    solved[slice(None) if len(status) == len(solved) else ~failed(solution.status)] &= status == Status.CONVERGED
    return solved
