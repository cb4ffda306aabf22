"""Do the hypotheses of the JFB theorem hold?

Source: Wu Fung et al., JFB: Jacobian-Free Backpropagation for Implicit Networks, AAAI 2022, theorem 3.1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from implicit_l2o import _batch
from implicit_l2o._solution import Solution
from implicit_l2o.diagnostics._precise import Loss, compare, flat, loss_value, precise_copy
from implicit_l2o.layer import ImplicitLayer, solve
from implicit_l2o.splittings.base import AbstractSplitting

_MAX_ENTRIES = 2**25  # of a dense matrix: 256 MiB in float64
_MAX_LATENT = 4096  # a singular value decomposition of this size takes a minute


@dataclass(frozen=True, eq=False, kw_only=True)
class DescentReport:
    """The hypotheses of the JFB theorem, sample by sample: what `descent_conditions` returns.

    Attributes:
        gamma: `(B,)` the contraction factor: the proven one if it was given, else the measured `|dT/dz|`.
        proven: whether gamma was given as proven.
        slope: `(B,)` the measured spectral norm `|dT/dz|` at the fixed point.
        rank: `(B,)` numerical rank of `M`.
        latent: `n`, the columns of `M`.
        parameters: `p`, the rows of `M`.
        condition: `(B,)` `kappa(M^T M)`; infinite where the rank is below `n`.
        range_condition: `(B,)` the same on the range of `M^T M`; NaN where `M` is zero.
        cosine: `(B,)` measured between the JFB and the true gradient of the loss; NaN where a gradient vanishes, or
            where `I - dT/dz` is singular and the true one does not exist.
        converged: `(B,)` whether the fixed point was solved to tight tolerance.

    Example:
        >>> import torch
        >>> from implicit_l2o.diagnostics import DescentReport
        >>> one = torch.ones(1)
        >>> DescentReport(gamma=0.5 * one, proven=True, slope=0.4 * one, rank=torch.tensor([3]), latent=3, parameters=7,
        ...               condition=2.5 * one, range_condition=2.5 * one, cosine=0.8 * one,
        ...               converged=torch.tensor([True])).reason(0)
        'kappa > 1/gamma'
    """

    gamma: Float[Tensor, " B"]
    proven: bool
    slope: Float[Tensor, " B"]
    rank: Int[Tensor, " B"]
    latent: int
    parameters: int
    condition: Float[Tensor, " B"]
    range_condition: Float[Tensor, " B"]
    cosine: Float[Tensor, " B"]
    converged: Bool[Tensor, " B"]

    @property
    def contractive(self) -> Bool[Tensor, " B"]:
        """Hypothesis 1: `gamma < 1`."""
        return self.gamma < 1

    @property
    def full_rank(self) -> Bool[Tensor, " B"]:
        """Hypothesis 2: `M` has full column rank."""
        return self.rank == self.latent

    @property
    def well_conditioned(self) -> Bool[Tensor, " B"]:
        """Hypothesis 3: `kappa(M^T M) <= 1 / gamma`."""
        return self.condition * self.gamma <= 1

    @property
    def holds(self) -> Bool[Tensor, " B"]:
        """Whether all hypotheses hold at a converged fixed point: then JFB is a descent direction for every loss."""
        return self.converged & self.contractive & self.full_rank & self.well_conditioned

    def reason(self, sample: int) -> str:
        """Which hypotheses fail for a sample, in words; "hold" if none does."""
        failing = {
            "not converged": self.converged,
            "gamma >= 1": self.contractive,
            "rank deficient": self.full_rank,
            "kappa > 1/gamma": self.well_conditioned,
        }
        return ", ".join(text for text, holds in failing.items() if not bool(holds[sample])) or "hold"

    def table(self, rows: int = 20) -> str:
        """A text table: the first `rows` samples, and how many of all satisfy the hypotheses."""
        lines = ["sample   gamma  1/gamma       rank  kappa(M^T M)  on its range  cosine  hypotheses"]
        for i in range(min(rows, len(self.gamma))):
            gamma, kappa, on_range = float(self.gamma[i]), float(self.condition[i]), float(self.range_condition[i])
            rank = f"{int(self.rank[i])} of {self.latent}"
            limit = 1 / gamma if gamma > 0 else math.inf
            lines.append(
                f"{i:6d}  {gamma:6.4f}  {limit:7.3f}  {rank:>9}  {kappa:12.4g}  {on_range:12.4g}  "
                f"{float(self.cosine[i]):6.3f}  {self.reason(i)}"
            )
        gamma = "proven" if self.proven else "measured at the fixed point"
        lines.append(
            f"The hypotheses hold for {int(self.holds.sum())} of {len(self.gamma)} samples (gamma {gamma}); the JFB "
            f"gradient descends for {int((self.cosine > 0).sum())}."
        )
        return "\n".join(lines)


@torch.enable_grad()
def descent_conditions(
    layer: ImplicitLayer,
    batch: Tensor,
    *,
    gamma: float | None = None,
    loss: Loss | None = None,
    parameters: Sequence[str] | None = None,
) -> DescentReport:
    """Evaluate, per sample, the hypotheses under which JFB is a descent direction, and its cosine with the gradient.

    With `J = dT/dz` at the fixed point and `M = (dT/dtheta)^T` (parameters x latent), JFB gives `M v` and the gradient
    is `M (I - J)^{-T} v` for the cotangent `v` of the loss. The theorem: if `T` is a `gamma`-contraction, `M` has full
    column rank and `kappa(M^T M) <= 1 / gamma`, their inner product is not negative, and positive if `kappa` is smaller.
    The proof needs `|J| <= gamma` at the fixed point alone, which the measured `|J|` gives. The condition is
    sufficient, not necessary; it needs at least as many parameters as latent entries. It fails for the cost
    parameters of Davis-Yin, whose `M` is singular (a projection): then the rank, the condition number on the range and
    the measured cosine tell what can be told.

    Args:
        layer: `J` and `M` are formed densely, one backward pass for every latent entry of every sample.
        batch: data of the layer, `(B, ...)`, finite.
        gamma: a proven contraction factor in [0, 1); None measures `|J|`.
        loss: of the solution, `(B,)` or a scalar; None takes `|x|^2 / 2`.
        parameters: the names of `theta` among the layer's parameters; None takes all that require a gradient.

    Raises:
        ValueError: gamma outside [0, 1) or below a measured `|J|`; unknown parameters; data that are not finite; or
            matrices too large (more than 4096 latent entries, or 2^25 entries of `M`).

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.diagnostics import descent_conditions
        >>> _ = torch.manual_seed(0)
        >>> build = lambda w: il2o.ForwardBackward(il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=2.0)), step=0.25)
        >>> layer = il2o.ImplicitLayer(torch.nn.Linear(4, 3).double(), build, torch.zeros_like)
        >>> print(descent_conditions(layer, torch.randn(2, 4).double(), gamma=0.5).table())
        sample   gamma  1/gamma       rank  kappa(M^T M)  on its range  cosine  hypotheses
             0  0.5000    2.000     3 of 3             1             1   1.000  hold
             1  0.5000    2.000     3 of 3             1             1   1.000  hold
        The hypotheses hold for 2 of 2 samples (gamma proven); the JFB gradient descends for 2.
    """
    if gamma is not None and not 0 <= gamma < 1:
        raise ValueError(f"descent_conditions needs a proven contraction factor 0 <= gamma < 1; got gamma={gamma}.")
    if batch.is_floating_point() and not bool(torch.isfinite(batch).all()):
        raise ValueError("descent_conditions needs finite data; some samples of the batch have NaN or inf.")
    layer, chosen = precise_copy(layer, parameters)
    leaves = list(chosen.values())
    dtype = leaves[0].dtype
    theta = layer.encoder(batch)
    splitting = layer.build(theta)
    with torch.no_grad():
        solution = solve(splitting, layer.x0(theta), solver=layer.solver, on_failure="ignore")
    latent, count = math.prod(solution.z.shape[1:]), sum(leaf.numel() for leaf in leaves)
    if latent > _MAX_LATENT or latent * count > _MAX_ENTRIES:
        raise ValueError(
            f"descent_conditions forms M densely: at most {_MAX_LATENT} latent entries and {_MAX_ENTRIES} entries of M; "
            f"this layer has {latent} latent entries and M {count} x {latent}. Choose fewer parameters=... ."
        )
    cotangents = _batch.flatten(_cotangent(splitting, solution, loss)).double()
    figures = [
        _conditions(*_jacobians(splitting, solution.z, i, leaves), cotangents[i], dtype) for i in range(len(cotangents))
    ]
    slope, rank, condition, range_condition, cosine = (
        torch.tensor(figures, dtype=torch.float64).reshape(-1, 5).unbind(1)
    )
    if gamma is not None and bool((slope > gamma * (1 + 1e4 * torch.finfo(dtype).eps)).any()):
        worst = int(slope.nan_to_num().argmax())
        raise ValueError(
            f"gamma={gamma} is no contraction factor of T: |dT/dz| = {float(slope[worst]):.6g} at sample {worst}."
        )
    return DescentReport(
        gamma=slope if gamma is None else torch.full_like(slope, gamma),
        proven=gamma is not None,
        slope=slope,
        rank=rank.long(),
        latent=latent,
        parameters=count,
        condition=condition,
        range_condition=range_condition,
        cosine=cosine,
        converged=solution.converged.cpu(),
    )


def _jacobians(splitting: AbstractSplitting, z: Tensor, i: int, leaves: list[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """`J` `(n, n)` and `M` `(p, n)` of one sample, in float64."""
    point = z[i : i + 1].detach().requires_grad_()
    image = _batch.flatten(splitting.restrict(torch.tensor([i], device=z.device))(point))[0]
    rows, columns = [], []
    for unit in torch.eye(len(image), dtype=z.dtype, device=z.device):
        row, *column = torch.autograd.grad(
            image, [point, *leaves], unit, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(flat([row]))
        columns.append(flat(column))
    return torch.stack(rows), torch.stack(columns, dim=1)


def _conditions(J: Tensor, M: Tensor, v: Tensor, dtype: torch.dtype) -> tuple[float, int, float, float, float]:
    """`|J|`, rank of `M`, `kappa(M^T M)`, the same on its range, and the cosine of JFB with the gradient."""
    if not bool(torch.isfinite(J).all() & torch.isfinite(M).all()):
        return math.nan, 0, math.inf, math.nan, math.nan
    singular = torch.linalg.svdvals(M)
    # Rounding noise in the entries of M moves its singular values by this much at most (random matrix of that size).
    floor = 10 * torch.finfo(dtype).eps * sum(math.sqrt(size) for size in M.shape)
    rank = int((singular > floor * singular[0]).sum())
    range_condition = float((singular[0] / singular[rank - 1]) ** 2) if rank else math.nan
    condition = range_condition if rank == M.shape[1] else math.inf
    adjoint = torch.eye(len(J), dtype=J.dtype, device=J.device) - J.T
    w = torch.linalg.lstsq(adjoint.cpu(), v.cpu()[:, None], driver="gelsd").solution[:, 0].to(v)
    exists = bool(torch.linalg.vector_norm(adjoint @ w - v) <= 1e-6 * torch.linalg.vector_norm(v))
    cosine = compare(M @ v, M @ w)[0] if exists else math.nan
    return float(torch.linalg.matrix_norm(J, 2)), rank, condition, range_condition, cosine


def _cotangent(splitting: AbstractSplitting, solution: Solution, loss: Loss | None) -> Tensor:
    """The gradient of the loss in `z`, through the readout."""
    z = solution.z.detach().requires_grad_()
    value = loss_value(replace(solution, x=splitting.readout(z), z=z), loss)
    return torch.autograd.grad(value.sum(), z, materialize_grads=True)[0]
