"""What the benchmarks of backward modes share: the published networks after a short training, and fixed batches.

At its first weights a latent map contracts more than a trained one does, and every exact mode would look cheap.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.images import (
    CIFAR10,
    CIFAR10_AUGMENTED,
    MNIST,
    SVHN,
    AbstractArchitecture,
    AbstractContraction,
    Estimated,
    ImageClassifier,
    Proven,
)
from implicit_l2o.applications.images.latent import RestrictableMap
from implicit_l2o.data.images import load_cifar10, load_mnist
from implicit_l2o.diagnostics import contraction_estimate, lipschitz_lower_bound


@dataclass(frozen=True)
class Cell:
    """A published network, and the images that it is measured on.

    Args:
        architecture: its sizes.
        gamma: its published contraction factor.
        batch: images of a step.
        steps: of the training before the measurement.
        proven: the factor holds by construction; else by an estimate in training, as in the published network.
    """

    architecture: AbstractArchitecture
    gamma: float
    batch: int
    steps: int
    proven: bool = False


# SVHN's network is CIFAR-10's, on other images; its own are not needed for a time, and CIFAR-10's are taken.
CELLS = {
    "MNIST": Cell(MNIST, 0.5, 100, 60),
    "SVHN, CIFAR-10": Cell(CIFAR10, 0.9, 50, 150),
    "SVHN, CIFAR-10, proven": Cell(CIFAR10, 0.9, 50, 60, proven=True),
    "CIFAR-10 augmented": Cell(CIFAR10_AUGMENTED, 0.5, 4, 10),
}
assert SVHN.channels == CIFAR10.channels
assert SVHN.latent_side == CIFAR10.latent_side


def images_of(cell: Cell, mnist: Path | None, cifar10: Path | None, count: int) -> tuple[Tensor, Tensor]:
    """The first training images and their classes."""
    source = load_mnist(mnist) if cell.architecture.colours == 1 else load_cifar10(cifar10)
    return source.tensors(slice(count))


def trained(
    cell: Cell, images: Tensor, labels: Tensor, *, contraction: AbstractContraction | None = None, seed: int = 0
) -> ImageClassifier:
    """The network after a few steps by JFB; None takes the cell's contraction."""
    contraction = contraction or (Proven(cell.gamma) if cell.proven else Estimated(cell.gamma))
    network = ImageClassifier(cell.architecture, contraction=contraction, seed=seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    torch.manual_seed(seed)
    for step in range(cell.steps):
        index = torch.arange(step * cell.batch, (step + 1) * cell.batch) % len(images)
        optimizer.zero_grad()
        F.cross_entropy(network(images[index]).x, labels[index]).backward()
        optimizer.step()
    return network.eval()


def how_contractive(network: ImageClassifier, images: Tensor) -> dict[str, float]:
    """Measured at the equilibria of some images: the largest `|dT/dz|`, and the largest observed linear rate."""
    T, z0 = network.latent_map(images), network.start(images)
    with torch.no_grad():
        z = il2o.fixed_point(T, z0, solver=solver(1e-6)).z
    rates = contraction_estimate(T, z0, steps=30).nan_to_num(0.0)
    return {"slope": float(lipschitz_lower_bound(T, z, steps=15).max()), "rate": float(rates.max())}


def solver(rtol: float) -> il2o.KrasnoselskiiMann:
    """Picard iteration to a relative tolerance."""
    return il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=rtol, max_steps=500))


def relative_residual(T: RestrictableMap, z: Tensor) -> float:
    """The worst `|T(z) - z| / |z|` of the batch, measured here and not by whoever solved it, in float64."""
    z = z.detach()
    with torch.no_grad():
        gap = (T(z) - z).double().flatten(1).norm(dim=1) / z.double().flatten(1).norm(dim=1)
    return float(gap.max())
