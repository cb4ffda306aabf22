"""What a mode's gradient is worth at some moment of its training, on a fixed batch in float64."""

import copy
import math
import warnings
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.images.backward_comparison.modes import Explicit, Watched
from implicit_l2o.applications.images.latent import RestrictableMap
from implicit_l2o.applications.images.model import ImageClassifier
from implicit_l2o.diagnostics import contraction_estimate, descent_conditions, lipschitz_lower_bound
from implicit_l2o.training import peak_memory

_TIGHT = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-10, rtol=0.0, max_steps=20_000))
_EXACT = il2o.Implicit(il2o.GMRES(rtol=1e-10, max_steps=2000))
_HYPOTHESES = 2  # images on which the theorem's hypotheses are evaluated, at a dense decomposition each
_QUANTITIES = ("cosine", "norm_ratio", "latent_cosine", "latent_norm_ratio", "slope", "rate")
_MOST_ENTRIES = 2_000_000  # of its matrix, parameters times latent entries: a few seconds


def probe(network: ImageClassifier, mode: il2o.AbstractBackward, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """The angle to the exact gradient, and how contractive the latent map is.

    Args:
        network: in training; it is copied and left alone.
        mode: whose gradient is judged, at the equilibrium and in evaluation mode. `Unrolled` starts from zero and is
            judged as it is.
        images: of the probe.
        labels: theirs.

    Returns:
        `cosine` and `norm_ratio` to the exact gradient over all parameters; `latent_cosine` and `latent_norm_ratio` over
        those whose gradient passes the equilibrium (the readout's is exact in every mode and would hide the angle);
        `slope`, the largest measured `|dT/dz|` of the images, a lower bound on the Lipschitz constant; and `rate`, the
        largest observed linear rate of the fixed-point iteration. All are None for the explicit network, which has no
        equilibrium.
    """
    if isinstance(mode, Explicit):
        return dict.fromkeys(_QUANTITIES)
    exact_copy = copy.deepcopy(network).double().eval()
    exact_copy.solver = _TIGHT
    images = images.double()
    mine, true = (_gradient(exact_copy, each, images, labels) for each in (mode, _EXACT))
    latent = [name for name, _ in exact_copy.named_parameters() if not name.startswith("S.")]
    cosine, ratio = _compare(mine, true, list(mine))
    latent_cosine, latent_ratio = _compare(mine, true, latent)
    with torch.no_grad():
        T = exact_copy.latent_map(images)
        exact_copy.backward = None
        z = exact_copy(images).z
        assert z is not None
    rate = contraction_estimate(T, torch.zeros_like(z), steps=40)
    return {
        "cosine": cosine,
        "norm_ratio": ratio,
        "latent_cosine": latent_cosine,
        "latent_norm_ratio": latent_ratio,
        "slope": float(lipschitz_lower_bound(T, z, steps=10).max()),
        "rate": _number(float(rate.nan_to_num(0.0).max())),
    }


def step_bytes(network: ImageClassifier, images: Tensor, labels: Tensor) -> int:
    """Peak bytes of a forward and a backward pass in training, on a copy."""
    model = copy.deepcopy(network).train()
    if isinstance(model.backward, Watched):
        model.backward = model.backward.mode  # which keeps no fixed point from step to step

    def step() -> None:
        F.cross_entropy(model(images).x, labels).backward()

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", il2o.ConvergenceWarning)
        step()  # the gradients are made once
        return peak_memory(step, device=images.device)


def hypotheses(network: ImageClassifier, images: Tensor, labels: Tensor) -> dict[str, Any] | None:
    """The theorem's hypotheses, image by image; None where the matrix of the latent map would be too large.

    Args:
        network: trained or not; it is copied and left alone.
        images: the first few are judged, one by one.
        labels: theirs.

    Returns:
        The measured `slope`, `rank` of `latent`, `condition` of `M^T M` on its range, the `limit` `1 / slope` that it has to
        stay below, the measured `cosine`, and whether all `hold`.
    """
    network = copy.deepcopy(network).double().eval()
    network.solver, network.backward = _TIGHT, None
    images, labels = images[:_HYPOTHESES].double(), labels[:_HYPOTHESES]
    probe_of = _Encoder(network)
    names = [name for name, _ in probe_of.named_parameters() if not name.startswith("network.S.")]
    sizes = dict(probe_of.named_parameters())
    latent = math.prod(network.start(images[:1]).shape[1:])
    if latent * sum(sizes[name].numel() for name in names) > _MOST_ENTRIES:
        return None
    found: dict[str, list[float]] = {name: [] for name in ("slope", "rank", "condition", "limit", "cosine", "hold")}
    for i in range(len(images)):
        layer = il2o.ImplicitLayer(probe_of, _build, _start, solver=network.solver)
        report = descent_conditions(
            layer,
            images[i : i + 1],
            loss=lambda solution, label=labels[i : i + 1]: F.cross_entropy(network.readout(solution.x), label),
            parameters=[f"encoder.{name}" for name in names],
        )
        slope = float(report.slope)
        found["slope"].append(slope)
        found["rank"].append(int(report.rank))
        found["condition"].append(float(report.range_condition))
        found["limit"].append(1 / slope)
        found["cosine"].append(float(report.cosine))
        found["hold"].append(bool(report.holds))
    return {"latent": latent, **found}


@final
class _Encoder(nn.Module):
    """From an image to its latent map and start: what comes before the equilibrium, as `ImplicitLayer` wants it."""

    def __init__(self, network: ImageClassifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[RestrictableMap, Tensor]:
        return self.network.latent_map(images), self.network.start(images)


def _build(theta: tuple[RestrictableMap, Tensor]) -> "_Latent":
    return _Latent(theta[0], il2o.Problem())


def _start(theta: tuple[RestrictableMap, Tensor]) -> Tensor:
    return theta[1]


@final
@dataclass(frozen=True, eq=False)
class _Latent(il2o.AbstractSplitting):
    """The latent map of ONE image as a splitting that reads out `z` itself."""

    T: RestrictableMap
    problem: il2o.Problem

    @property
    def averagedness(self) -> float:
        return 1.0

    def init(self, x0: Tensor) -> Tensor:
        return x0

    def __call__(self, z: Tensor) -> Tensor:
        return self.T(z)

    def readout(self, z: Tensor) -> Tensor:
        return z

    def infeasible(self, z: Tensor) -> Tensor:
        return torch.zeros(len(z), dtype=torch.bool, device=z.device)


def _gradient(
    network: ImageClassifier, mode: il2o.AbstractBackward, images: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    network.backward = mode
    parameters = dict(network.named_parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", il2o.ConvergenceWarning)  # Unrolled meets no tight tolerance
        loss = F.cross_entropy(network(images).x, labels)
        return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def _compare(mine: dict[str, Tensor], true: dict[str, Tensor], names: list[str]) -> tuple[float | None, float | None]:
    a, b = (torch.cat([gradient[name].reshape(-1) for name in names]) for gradient in (mine, true))
    return _number(float(F.cosine_similarity(a, b, dim=0))), _number(float(a.norm() / b.norm()))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
