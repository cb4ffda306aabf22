"""What makes a training step of the image classifiers fast, and what does not: MNIST and CIFAR-10, one thread.

    OMP_NUM_THREADS=1 python benchmarks/image_step.py --mnist DIR --cifar10 DIR      # writes results/image_step.json

A step is the forward pass with its solve, the loss, and the backward pass by JFB, on the same batch of training images; the
weights have seen some steps before. All variants take turns, so that a passing load on the machine meets all of them, and
the median of the processor times is kept.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.images import CIFAR10, MNIST, AbstractArchitecture, ImageClassifier, Proven
from implicit_l2o.applications.images.blocks import MaxMinBlock
from implicit_l2o.applications.images.latent import LatentMap
from implicit_l2o.applications.images.proven import ProvenLatent
from implicit_l2o.data.images import LabelledImages, load_cifar10, load_mnist
from implicit_l2o.networks import GroupSort, NonexpansiveConvNet, NonexpansiveMap, conv2d_norm_bound
from implicit_l2o.report import machine, write_json

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-2
WARM = 20  # training steps between a solve and the one that starts from its equilibria: far fewer than an epoch
Make = Callable[[ImageClassifier, Tensor], Callable[[Tensor], Tensor]]  # the latent map of a batch


def bound_through_all_blocks(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """The same bound, the gradient recorded through the blocks of all frequencies: as it was at first."""
    return _gram_bound(_blocks(kernel, shape)).amax().to(kernel.dtype)


def bound_through_the_largest(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """The same bound, all frequencies in double precision, the gradient through the largest: as it was later."""
    blocks = _blocks(kernel, shape)
    with torch.no_grad():
        largest = _gram_bound(blocks).topk(min(8, len(blocks))).indices
    return _gram_bound(blocks[largest]).amax().to(kernel.dtype)


def _blocks(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    torus = (shape[0] + kernel.shape[2] - 1, shape[1] + kernel.shape[3] - 1)
    return torch.fft.rfft2(kernel.double(), s=torus).permute(2, 3, 0, 1).flatten(0, 1)


def _gram_bound(gram: Tensor, iterations: int = 8) -> Tensor:
    log_bound = torch.zeros(len(gram), dtype=torch.float64)
    for k in range(iterations):
        size = torch.linalg.matrix_norm(gram)
        log_bound = log_bound + size.log() / 2**k
        gram = gram / size[:, None, None]
        gram = gram.mH @ gram
    return (log_bound + torch.linalg.matrix_norm(gram).log() / 2**iterations).exp()


@dataclass(frozen=True, eq=False)
class Formula:
    """`gamma (x + N(x)) / 2` at `x = u + v`, as it is written."""

    inner: NonexpansiveMap
    injection: Tensor
    gamma: float

    def __call__(self, u: Tensor) -> Tensor:
        x = u + self.injection
        return self.gamma * torch.lerp(x, self.inner(x), 0.5)

    def restrict(self, index: Tensor) -> "Formula":
        return replace(self, injection=self.injection[index])


def formula(net: ImageClassifier, images: Tensor, *, bound: Callable[..., Tensor]) -> Formula:
    latent = net.R
    assert isinstance(latent, ProvenLatent)
    inner = latent.nets[0]
    assert isinstance(inner, NonexpansiveConvNet)
    weights = tuple(kernel / bound(kernel, inner.shape).clamp_min(1) for kernel in inner.weights)
    shift = inner.bias[None, :, None, None]
    return Formula(NonexpansiveMap(weights, shift, GroupSort(), inner.shape), net.Q(images), latent.gamma)


def present(net: ImageClassifier, images: Tensor) -> LatentMap:
    latent_map = net.latent_map(images)
    assert isinstance(latent_map, LatentMap)
    return latent_map


def without_restriction(net: ImageClassifier, images: Tensor) -> Callable[[Tensor], Tensor]:
    latent_map = present(net, images)
    return lambda u: latent_map(u)


def _block(u: Tensor, v: Tensor, first: Tensor, before: Tensor, second: Tensor, after: Tensor, keep: float) -> Tensor:
    x = u + v
    sums, differences = F.conv2d(x, first, before, padding=1).chunk(2, dim=1)
    inner = torch.cat([sums, differences.abs()], dim=1)
    return F.conv2d(inner, second, after, padding=1) + keep * x


def compiled(net: ImageClassifier, images: Tensor, *, function: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    latent_map = present(net, images)
    (block,) = latent_map.blocks
    assert isinstance(block, MaxMinBlock)
    parts = (latent_map.injection, block.weights[0], block.biases[0], block.weights[1], block.biases[1])

    def T(u: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # the attached step, once
            return latent_map(u)
        return function(u, *(part.detach() for part in parts), block.keep)

    return T


class Variant:
    """A way to make a step: its own copy of the network, the map, the solver and where it starts."""

    def __init__(
        self,
        net: ImageClassifier,
        make: Make = present,
        *,
        solver: il2o.AbstractFixedPointSolver | None = None,
        channels_last: bool = True,
        start: Tensor | None = None,
    ) -> None:
        self.net = copy.deepcopy(net)
        if not channels_last:
            self.net.to(memory_format=torch.contiguous_format)
        self.make, self.start = make, start
        self.solver = picard() if solver is None else solver
        self.times: list[float] = []
        self.point: il2o.FixedPoint | None = None

    def step(self, images: Tensor, labels: Tensor) -> None:
        self.net.zero_grad()
        torch.manual_seed(len(self.times))  # the same dropout in all variants, another one in every step
        T = self.make(self.net, images)
        start = self.net.start(images) if self.start is None else self.start
        self.point = il2o.fixed_point(T, start, solver=self.solver)
        F.cross_entropy(self.net.readout(self.point.z), labels).backward()

    def measure(self, images: Tensor, labels: Tensor) -> None:
        began = time.process_time()
        self.step(images, labels)
        self.times.append(time.process_time() - began)

    def result(self) -> Mapping[str, float]:
        assert self.point is not None
        return {
            "milliseconds": 1e3 * statistics.median(self.times),
            "iterations": float(self.point.steps.double().mean()),
            "residual": float(self.point.residual.max()),
        }


def picard(*, atol: float = TOLERANCE, check_every: int = 5) -> il2o.KrasnoselskiiMann:
    return il2o.KrasnoselskiiMann(il2o.Stopping(atol=atol, rtol=0.0, max_steps=200, check_every=check_every))


def variants(net: ImageClassifier, earlier: Tensor, others: Tensor) -> dict[str, dict[str, Variant]]:
    """Those on the way to the present step, each with what is above it, and those tried against the present step."""
    function = torch.compile(_block, dynamic=False)
    stopping = il2o.Stopping(atol=TOLERANCE, rtol=0.0, max_steps=200)
    before, later, bound = (
        partial(formula, bound=each)
        for each in (bound_through_all_blocks, bound_through_the_largest, conv2d_norm_bound)
    )
    return {
        "kept": {
            "the formula as it is written": Variant(net, before, channels_last=False),
            "norm bound: gradient through its largest block": Variant(net, later, channels_last=False),
            "norm bound: most frequencies left out in single precision": Variant(net, bound, channels_last=False),
            "block folded into its convolutions, in place": Variant(net, channels_last=False),
            "channels last: the present step": Variant(net),
        },
        "tried": {
            "`torch.compile` of the block": Variant(net, partial(compiled, function=function)),
            "checked in every iteration": Variant(net, solver=picard(check_every=1)),
            "the same, without compaction": Variant(net, without_restriction, solver=picard(check_every=1)),
            "`Anderson()`": Variant(net, solver=il2o.Anderson(stopping)),
            "`Anderson()`, checked in every iteration": Variant(
                net, solver=il2o.Anderson(replace(stopping, check_every=1))
            ),
            f"start from the same images' equilibria {WARM} steps ago": Variant(net, start=earlier),
            "start from the mean equilibrium of other images": Variant(net, start=others),
            "tolerance 0.1 in place of 0.01": Variant(net, solver=picard(atol=0.1)),
        },
    }


def measure(
    architecture: AbstractArchitecture, gamma: float, data: LabelledImages, options: argparse.Namespace
) -> dict:
    """One cell."""
    net = ImageClassifier(architecture, contraction=Proven(gamma), seed=0).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    images, labels = data.tensors(slice(0, options.batch))  # what is timed
    earlier = torch.zeros(())
    for number in range(1, options.before + 1):
        if number == options.before - WARM + 1:
            earlier = net(images).z.detach()
        images_before, labels_before = data.tensors(slice(number * options.batch, (number + 1) * options.batch))
        optimizer.zero_grad()
        inference = net(images_before)
        F.cross_entropy(inference.x, labels_before).backward()
        optimizer.step()
    others = inference.z.detach().mean(0, keepdim=True).expand(len(images), -1, -1, -1)
    others = others.contiguous(memory_format=torch.channels_last)
    groups = variants(net, earlier, others)
    every = [variant for group in groups.values() for variant in group.values()]
    for variant in every:
        variant.step(images, labels)
    for _ in range(options.repetitions):
        for variant in every:
            variant.measure(images, labels)
    return {"gamma": gamma} | {
        name: {title: variant.result() for title, variant in group.items()} for name, group in groups.items()
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's parquet files; downloaded when not given")
    parser.add_argument("--cifar10", type=Path, help="folder of CIFAR-10's; downloaded when not given")
    parser.add_argument("--batch", type=int, default=100, help="images of a step; default: %(default)s")
    parser.add_argument("--before", type=int, default=40, help="training steps before; default: %(default)s")
    parser.add_argument("--repetitions", type=int, default=9, help="of each variant; default: %(default)s")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "image_step.json")
    options = parser.parse_args()
    if options.before < WARM:
        parser.error(f"--before must be at least {WARM}; got {options.before}.")
    torch.set_num_threads(1)
    cells = {
        "MNIST": measure(MNIST, 0.5, load_mnist(options.mnist), options),
        "CIFAR-10": measure(CIFAR10, 0.9, load_cifar10(options.cifar10), options),
    }
    result = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/image_step.py",
        "cells": cells,
        "batch": options.batch,
        "repetitions": options.repetitions,
        "machine": machine(),
    }
    write_json(options.out, result)
    for cell, groups in cells.items():
        for group in ("kept", "tried"):
            for title, found in groups[group].items():
                print(f"{cell:>9}  {title:<50} {found['milliseconds']:8.1f} ms {found['iterations']:6.1f} iterations")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
