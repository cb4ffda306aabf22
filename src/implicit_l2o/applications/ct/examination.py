"""What an implicit reconstruction says of itself: the findings and figures of its report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct import charts, figures, findings
from implicit_l2o.applications.ct.certificates import Learned, certificate_maps
from implicit_l2o.applications.ct.model import ImplicitReconstruction
from implicit_l2o.applications.ct.regularisers import AveragedNetwork, ConvexPotential, FreeNetwork
from implicit_l2o.physics import PerBeamNoise
from implicit_l2o.training import About, Samples

_CHECK = 5  # iterations between two points of a trace
_QUANTILE = 0.999  # of a map's values over the test images: where its colours end


_PROMISES = {
    ConvexPotential: "It is the one minimiser of a convex function; the iteration converges to it from everywhere.",
    AveragedNetwork: "It is the one solution of a monotone inclusion; the iteration converges to it from everywhere.",
    FreeNetwork: "Convergence is trained and not proven: an answer whose iteration did not converge fails its certificates.",
}


def about(network: ImplicitReconstruction) -> About:
    """The problem in words and in a formula, and what its regulariser guarantees."""
    return About(
        title="Tomography with a learned regulariser",
        summary="An image is reconstructed from few views: inside the box and the ball around its sinogram, and there as a "
        "learned regulariser wants it.",
        problem=r"0 \in F_\theta(x; d) + N_C(x), \quad C = \{x \in [0, 1]^n : \|A x - d\| \le \delta \|d\|\}",
        guarantees=(
            "Every reconstruction is in [0, 1] exactly.",
            "A converged one explains its sinogram to within the radius, whatever the weights are.",
            _PROMISES[type(network.regulariser)],
        ),
    )


def examine(
    network: ImplicitReconstruction,
    certificates: Sequence[il2o.Certificate],
    samples: Samples,
    *,
    count: int = 16,
    seed: int = 0,
) -> tuple[findings.Examined, ...]:
    """The demonstration on the first test samples; strangers get as much noise as those have.

    Args:
        network: the model.
        certificates: fixed and calibrated.
        samples: of the test, sinograms and true images.
        count: of each kind, at most. What no image explains is iterated to the last step, so each costs many solves.
        seed: of the strangers.
    """
    projector = network.scanner.projector
    d, images = (part[:count] for part in samples.batch[:2])
    clean = projector.apply(images)
    level = float(((d - clean).flatten(1).norm(dim=1) / clean.flatten(1).norm(dim=1)).median())
    noise = PerBeamNoise(level)

    def measure(phantoms: Tensor) -> Tensor:
        return noise(projector.apply(phantoms), torch.Generator().manual_seed(seed))

    return findings.demonstrate(network, certificates, images=images, data=d, measure=measure, seed=seed, batch=count)


def findings_of(network: ImplicitReconstruction, examined: Sequence[findings.Examined]) -> dict[str, Any]:
    """For `results.json`: the radius, and by kind of answer the shares that fail."""
    return {"delta": float(network.delta.detach()), "kinds": findings.table(examined)}


@torch.no_grad()
def figures_of(
    network: ImplicitReconstruction, examined: Sequence[findings.Examined], *, steps: int = 200
) -> Mapping[str, tuple[Figure, str]]:
    """For the report: which answers fail which certificate, where in the image, and the convergence.

    Args:
        network: the model.
        examined: from `examine`.
        steps: of the convergence.
    """
    by_kind = {part.kind: part for part in examined}
    test, strange = by_kind[findings.TEST], by_kind["text"]
    force = Learned(network).force
    usual = certificate_maps(test.x, test.d, network.scanner.projector, force)
    scales = {name: float(values.flatten().quantile(_QUANTILE)) or 1.0 for name, values in usual.items()}
    found = {"What the certificates catch": charts.fail_shares(examined)}
    for title, part in (("A test image pixel by pixel", test), ("Text pixel by pixel", strange)):
        maps = certificate_maps(part.x[:1], part.d[:1], network.scanner.projector, force)
        figure = figures.where_it_fails(
            part.x[0],
            {name: values[0] for name, values in maps.items()},
            scales=scales,
            verdict=figures.Verdict.of(part.report, 0),
        )
        found[title] = (figure, "The image and its properties by pixel; colours end where 99.9 % of good answers' do.")
    rtol = network.solver.stopping.rtol
    trace = residual_trace(network, test.d, steps=steps)
    found["Convergence"] = charts.convergence(trace, 1e-4 if rtol is None else rtol, every=_CHECK)
    return found


@torch.no_grad()
def residual_trace(
    network: ImplicitReconstruction, d: Float[Tensor, "N angles bins"], *, steps: int = 200
) -> Float[Tensor, "checks N"]:
    """Residuals of the model's solver relative to `|(x, SCALE A x)|`, every five iterations, past any tolerance.

    Args:
        network: the model.
        d: sinograms.
        steps: iterations, at least 5.
    """
    image, z = network.first(d)
    F = network.condition(d, image)
    stopping = il2o.Stopping(atol=0.0, rtol=0.0, max_steps=steps, check_every=_CHECK, trace=True)
    solution = network.solution(d, F, z, solver=with_stopping(network.solver, stopping))
    assert solution.trace is not None
    return solution.trace[1:] / solution.x.norm(dim=1)  # the first entry is of the first iteration


def with_stopping(solver: il2o.AbstractFixedPointSolver, stopping: il2o.Stopping) -> il2o.AbstractFixedPointSolver:
    """The same solver with another stopping rule."""
    return replace(solver, stopping=stopping)  # pyright: ignore[reportArgumentType]
