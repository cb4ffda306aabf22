"""How contractive is `T`: a lower bound on its slope at a point, and an estimate of its rate along an orbit."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.solvers.base import Map, Stopping, iterate
from implicit_l2o.solvers.krasnoselskii_mann import KrasnoselskiiMann


def lipschitz_lower_bound(
    T: Map, z: Float[Tensor, "B *shape"], *, steps: int = 30, seed: int = 0
) -> Float[Tensor, " B"]:
    """A local LOWER bound on the Lipschitz constant of `T`, per sample: `|J v|` for a unit `v`, `J = dT/dz` at `z`.

    The power method on `J^T J` makes it approach the spectral norm `|J(z)|` from below. `T` may be steeper elsewhere: no
    value of it proves a contraction.

    Args:
        T: maps `(B, *shape)` to itself, sample by sample, twice differentiable by autograd (kinks allowed).
        z: where to linearise.
        steps: iterations, at least 1; each takes two vector-Jacobian products.
        seed: of the starting direction, the same for every sample.

    Raises:
        ValueError: `steps` is below 1.

    Example:
        >>> import torch
        >>> from implicit_l2o.diagnostics import lipschitz_lower_bound
        >>> scale = torch.tensor([[0.5, 0.1], [3.0, 1.0]])
        >>> lipschitz_lower_bound(lambda z: scale * z + 1.0, torch.zeros(2, 2))
        tensor([0.5000, 3.0000])
    """
    _check_count("lipschitz_lower_bound", "steps", steps, 1)
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        image = T(point)
        if not image.requires_grad:
            return z.new_zeros(z.shape[0])
        # u -> J^T u is linear in u, so that its own transposed derivative is v -> J v.
        probe = torch.zeros_like(image, requires_grad=True)
        pulled = torch.autograd.grad(image, point, probe, create_graph=True, materialize_grads=True)[0]
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(z.shape[1:], generator=generator, dtype=torch.float64).to(z)
    v = _unit(start.expand_as(z))
    estimate = z.new_zeros(z.shape[0])
    for _ in range(steps):
        pushed = _vjp(pulled, probe, v)
        estimate = _batch.norm(pushed)
        v = _unit(_vjp(image, point, pushed))
    return estimate


def contraction_estimate(T: Map, z0: Float[Tensor, "B *shape"], *, steps: int = 50) -> Float[Tensor, " B"]:
    """An estimate of the asymptotic rate of `z <- T(z)` from `z0`: the geometric mean of late residual ratios.

    With `r_k = |T(z_k) - z_k|` it is `(r_b / r_a)^(1 / (b - a))` over the later half of the residuals above the rounding
    floor. It is neither a bound nor a proof: no ratio says how steep `T` is off this orbit. NaN where `z0` is a fixed
    point already.

    Args:
        T: maps `(B, *shape)` to itself, sample by sample.
        z0: the start of the orbit.
        steps: iterations, at least 2.

    Raises:
        ValueError: `steps` is below 2.

    Example:
        >>> import torch
        >>> from implicit_l2o.diagnostics import contraction_estimate
        >>> contraction_estimate(lambda z: 0.9 * z + 1.0, torch.zeros(1, 3, dtype=torch.float64))
        tensor([0.9000], dtype=torch.float64)
    """
    _check_count("contraction_estimate", "steps", steps, 2)
    stopping = Stopping(atol=0.0, rtol=0.0, max_steps=steps, check_every=1, trace=True)
    point = iterate(T, z0, KrasnoselskiiMann(stopping))
    if point.trace is None:
        raise RuntimeError("iterate kept no trace although Stopping(trace=True) asked for one.")
    residuals = torch.cat([point.trace, point.trace.new_full((steps - len(point.trace), len(z0)), math.nan)])
    floor = 100 * torch.finfo(z0.dtype).eps * (_batch.norm(z0) + _batch.norm(point.z))
    count = (residuals > floor).cumprod(0).sum(0)  # NaN, after a sample finished, is not above the floor
    last = (count - 1).clamp(min=1)
    first = (count - 1).clamp(min=0) // 2
    ratio = _pick(residuals, last) / _pick(residuals, first)
    return torch.where(count > 0, ratio ** (1.0 / (last - first)), math.nan)


def _unit(v: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
    size = _batch.expand(_batch.norm(v), v)
    return torch.where(size > 0, v / size, v)  # a zero direction stays zero: J is


def _vjp(output: Tensor, at: Tensor, cotangent: Tensor) -> Tensor:
    if not output.requires_grad:
        return torch.zeros_like(at)
    return torch.autograd.grad(output, at, cotangent, retain_graph=True, materialize_grads=True)[0]


def _pick(residuals: Float[Tensor, "steps B"], row: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    return residuals.gather(0, row[None])[0]


def _check_count(owner: str, name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{owner} needs {name} >= {least}; got {name}={value}.")
