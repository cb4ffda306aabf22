"""How fast a trained reconstruction is solved, by splitting, acceleration and start: `python -m benchmarks.ct_solvers`.

All solve the same convex problems, those of the trained convex potential for the first test phantoms, and are stopped at the
same residual relative to the image: of `x` between two iterations, since the states of the splittings differ. Writes
results/ct_solvers.json. One thread; minutes.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import implicit_l2o as il2o
from implicit_l2o.applications.ct import ConvexPotential, EllipseData, ImplicitReconstructionTask
from implicit_l2o.applications.ct.model import SCALE, ImplicitReconstruction
from implicit_l2o.report import machine, write_json

TOLERANCES = (1e-2, 1e-3, 1e-4)
MAX_STEPS = 1000
_REFERENCE_STEPS = 6000


@dataclass(frozen=True)
class Contest:
    """One trained problem for a batch of images, and how far from its solution an image may be.

    Args:
        network: the trained model.
        d: sinograms.
    """

    network: ImplicitReconstruction
    d: Tensor

    def problem(self, F: il2o.AbstractMonotone) -> il2o.Problem:
        """Over the box, with the ball as the term of `A x`."""
        radius = self.network.delta.detach() * self.d.flatten(1).norm(dim=1)
        ball = il2o.L2Ball(radius, center=self.d)
        return il2o.Problem(F=F, g=il2o.Box(0.0, 1.0), K=self.network.scanner.projector, l=ball)


def splittings(contest: Contest, F: il2o.AbstractMonotone) -> dict[str, tuple[str, il2o.AbstractSplitting, Callable]]:
    """By name: the step in words, the splitting, and what makes its state from an image."""
    scanner, delta = contest.network.scanner, contest.network.delta.detach()
    graph, problem = scanner.graph, contest.problem(F)
    pairs = scanner.problem(F, contest.d, delta)
    beta = F.cocoercivity
    assert beta is not None
    found: dict[str, tuple[str, il2o.AbstractSplitting, Callable]] = {}
    for factor in (1.0, 1.4, 1.8):
        splitting = il2o.DavisYin(pairs, step=factor * beta)
        found[f"Davis-Yin on the graph, {factor:g}/L"] = (f"{factor:g} / L", splitting, graph.lift)
    for dual in (0.02, 0.1, 0.5):
        step = f"dual step {dual:g}"
        found[f"Condat-Vu, {dual:g}"] = (step, il2o.CondatVu(problem, dual_step=dual), None)
        found[f"linearized ADMM, {dual:g}"] = (step, il2o.LinearizedADMM(problem, dual_step=dual), None)
    return {
        name: (step, splitting, splitting.init if start is None else start)
        for name, (step, splitting, start) in found.items()
    }


def image_of(splitting: il2o.AbstractSplitting, z: Tensor, contest: Contest) -> Tensor:
    """The image that a state reads out to."""
    x = splitting.readout(z)
    return contest.network.scanner.graph.split(x)[0] if isinstance(splitting, il2o.DavisYin) else x


@torch.no_grad()
def race(
    splitting: il2o.AbstractSplitting,
    solver: il2o.AbstractFixedPointSolver,
    z: Tensor,
    solution: Tensor,
    contest: Contest,
) -> dict[str, object]:
    """Steps and time until each image is, for good, within each tolerance of the solution, relative to its size."""
    size = solution.flatten(1).norm(dim=1)
    state, errors, spent = solver.init(z), [], 0.0
    for _ in range(MAX_STEPS):
        began = time.process_time()
        z, state = solver.update(z, splitting(z), state)
        spent += time.process_time() - began
        error = (image_of(splitting, z, contest) - solution).flatten(1).norm(dim=1) / size
        errors.append(error)
        if bool((error < TOLERANCES[-1] / 3).all()):
            break
    history = torch.stack(errors)
    steps = [_steps(history, tolerance) for tolerance in TOLERANCES]
    per_step = spent / len(history)
    last = torch.tensor([_first(column, TOLERANCES[-1]) for column in history.T], dtype=torch.float64)
    finished = torch.isfinite(last)
    mean_steps = float(torch.where(finished, last, float(MAX_STEPS)).mean())
    return {
        "steps": steps,
        "converged": float(finished.double().mean()),
        "ms": 1e3 * per_step * mean_steps / len(size),
    }


def _first(errors: Tensor, tolerance: float) -> float:
    """The first step from which on the error stays within the tolerance; infinite where there is none."""
    beyond = (errors > tolerance).nonzero()
    first = 1 if len(beyond) == 0 else int(beyond[-1]) + 2
    return float(first) if first <= len(errors) else float("inf")


def _steps(history: Tensor, tolerance: float) -> dict[str, float | None]:
    found = torch.tensor([_first(column, tolerance) for column in history.T], dtype=torch.float64)
    quantiles = {
        "median": found.quantile(0.5, interpolation="higher"),
        "p95": found.quantile(0.95, interpolation="higher"),
    }
    return {name: float(value) if bool(torch.isfinite(value)) else None for name, value in quantiles.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write results/ct_solvers.json; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/ct_64"), help="of experiments/ct_64.yaml")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    task = ImplicitReconstructionTask(
        regulariser=ConvexPotential((64, 64)), size=64, start=str(options.run / "model.ckpt")
    )
    network = task.network
    d = EllipseData(size=64, train=1, validation=1, test=options.images, seed=0).splits.test.tensors[0]
    contest = Contest(network, d)
    with torch.no_grad():
        warm, z = network.first(d)
        F = network.condition(d, warm)
        exact = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=_REFERENCE_STEPS))
        solution = network.solve(d, F, z, solver=exact).x
        fbp = network.scanner.fbp(d).clamp(0, 1)
    starts = {"zero": torch.zeros_like(warm), "FBP": fbp, "smoothed TV, 16 steps": warm}
    stopping = il2o.Stopping(max_steps=MAX_STEPS)
    accelerations = {
        "none": il2o.KrasnoselskiiMann(stopping),
        "Anderson, 5": il2o.Anderson(stopping, memory=5),
        "Halpern": il2o.Halpern(stopping),
    }
    contestants = splittings(contest, F)
    rows = []
    for name, (step, splitting, lift) in tqdm(contestants.items(), desc="splittings"):
        for acceleration, solver in accelerations.items():
            for start, x in starts.items():
                if start != "smoothed TV, 16 steps" and acceleration != "none":
                    continue
                found = race(splitting, solver, lift(x), solution, contest)
                rows.append(
                    {"splitting": name.split(",")[0], "step": step, "acceleration": acceleration, "start": start}
                    | found
                )
    rows.sort(key=lambda row: (row["converged"] < 1, row["ms"]))
    setting = {
        "model": "The trained convex potential",
        "images": options.images,
        "size": 64,
        "tolerances": TOLERANCES,
        "max_steps": MAX_STEPS,
        "scale": SCALE,
        "delta": float(network.delta.detach()),
    }
    write_json(options.out / "ct_solvers.json", {"setting": setting, "rows": rows, "machine": machine()})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
