"""Why a path model trained by JFB can beat one trained by the exact gradient: one training under different backward modes.

    python -m implicit_l2o.applications.shortest_path.backward_study --out results

Every training differs from a base case (squared solution error, gamma 1, costs as predicted, unperturbed) in one respect.
The forward solve is exact unless a tolerance is what varies, so they differ by the gradient alone; after every epoch the
validation samples say how many of them have an exact gradient at all, how far it points from JFB's, and what was learned.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.model import Perturbation, cost_network, path_layer, path_program
from implicit_l2o.applications.shortest_path.study_figures import draw_study
from implicit_l2o.data.shortest_path import Sample, generate
from implicit_l2o.losses import normalized_regret, regret, solution_mse
from implicit_l2o.report import interval, machine, write_json
from implicit_l2o.training import Optimization

Mode = Literal["JFB", "Neumann(1)", "Neumann(5)", "Neumann(20)", "exact", "Fenchel-Young"]

_DEAD = 1e-6  # norm of a gradient in the costs, below which a sample says nothing
_BACKWARD: dict[str, il2o.AbstractBackward] = {
    "JFB": il2o.JFB(),
    "Neumann(1)": il2o.Neumann(1),
    "Neumann(5)": il2o.Neumann(5),
    "Neumann(20)": il2o.Neumann(20),
    "exact": il2o.Implicit(),
    "Fenchel-Young": il2o.JFB(),  # not used: the loss gives its gradient
}


@dataclass(frozen=True)
class Case:
    """One training.

    Args:
        mode: how the loss reaches the costs.
        loss: of the layer's solution: its squared error against the path taken, or its cost.
        side: nodes along one side of the grid.
        gamma: of the quadratic term.
        learning_rate: of AdamW, with cosine decay.
        normalize: divide the predicted costs of each sample by their root mean square before the layer.
        perturbation: standard deviation of the noise on the predicted costs, 4 copies a context; 0 for none.
        tolerance: of the training's solves by Davis-Yin; None solves exactly.
        epochs: over 1000 contexts in batches of 64.
    """

    mode: Mode
    loss: Literal["solution", "regret"] = "solution"
    side: int = 10
    gamma: float = 1.0
    learning_rate: float = 1e-2
    normalize: bool = False
    perturbation: float = 0.0
    tolerance: float | None = None
    epochs: int = 30


def cases(side: int, epochs: int) -> dict[str, list[Case]]:
    """The trainings by what they vary."""
    base = [Case("JFB", side=side, epochs=epochs), Case("exact", side=side, epochs=epochs)]

    def vary(**change: Any) -> list[Case]:
        return [replace(case, **change) for case in base]

    modes: tuple[Mode, ...] = ("Neumann(1)", "Neumann(5)", "Neumann(20)", "Fenchel-Young")
    return {
        "base": [*base, *(replace(base[0], mode=mode) for mode in modes)],
        "learning rate 0.002": vary(learning_rate=2e-3),
        "learning rate 0.05": vary(learning_rate=5e-2),
        "gamma 0.1": vary(gamma=0.1),
        "gamma 10": vary(gamma=10.0),
        "normalised costs": vary(normalize=True),
        "normalised costs, gamma 10": vary(normalize=True, gamma=10.0),
        "perturbed, 1.5": vary(perturbation=1.5),
        "Davis-Yin to 0.001": vary(tolerance=1e-3),
        "regret loss": vary(loss="regret"),
        "regret loss, gamma 10": vary(loss="regret", gamma=10.0),
        "regret loss, perturbed, 1.5": vary(loss="regret", perturbation=1.5),
    }


class Trainer:
    """One case on one data seed.

    Args:
        case: says how.
        seed: of the data and of the weights.
    """

    def __init__(self, case: Case, seed: int) -> None:
        self.case = case
        self.data = generate(side=case.side, train=1000, validation=200, test=1000, seed=seed)
        program = path_program(self.data.grid)
        exact = {"gamma": case.gamma, "normalize": case.normalize, "polish": True}
        if case.tolerance is None and case.mode in ("JFB", "exact", "Fenchel-Young"):
            self.layer = il2o.LPLayer(program, backward=_BACKWARD[case.mode], **exact)
        else:
            self.layer = path_layer(
                program, gamma=case.gamma, tolerance=case.tolerance or 1e-4, backward=_BACKWARD[case.mode]
            )
            self.layer.normalize = case.normalize
        self.probes = {name: il2o.LPLayer(program, backward=_BACKWARD[name], **exact) for name in ("JFB", "exact")}
        self.network = cost_network(5, self.data.grid.n_arcs, seed=seed)
        self.perturb = Perturbation(case.perturbation, copies=4 if case.perturbation else 1)

    def run(self) -> Iterator[dict[str, float]]:
        """Train; what was seen before the first and after every epoch."""
        train, case = self.data.train, self.case
        optimization = Optimization(learning_rate=case.learning_rate)
        optimizer = optimization.optimizer(self.network)
        schedule = optimization.scheduler(optimizer, case.epochs * -(-len(train) // 64))
        yield self.look()
        for _ in range(case.epochs):
            for index in torch.randperm(len(train)).split(64):
                optimizer.zero_grad()
                self.loss(train.contexts[index], train.costs[index], train.paths[index]).backward()
                optimizer.step()
                schedule.step()
            yield self.look()

    def loss(self, contexts: Tensor, costs: Tensor, paths: Tensor) -> Tensor:
        """The training loss of a batch."""
        w = self.perturb(self.network(contexts))
        copies = len(w) // len(paths)
        if self.case.mode == "Fenchel-Young":
            with torch.no_grad():
                x = self.layer(w).x
            return ((paths.repeat(copies, 1) - x) * w).sum(1).mean()
        x = self.layer(w).x
        return self._error(x.unflatten(0, (copies, -1)).mean(0), costs, paths).mean()

    def look(self) -> dict[str, float]:
        """The validation samples: the gradients in the costs without perturbation, and what was learned."""
        seen = self.data.validation
        with torch.no_grad():
            w = self.network(seen.contexts)
        gradients = {}
        for name, layer in self.probes.items():
            at = w.clone().requires_grad_()
            error = self._error(layer(at).x, seen.costs, seen.paths).sum()
            gradients[name] = torch.autograd.grad(error, at)[0]
        with torch.no_grad():
            x = self.probes["exact"](w).x
        gradients["Fenchel-Young"] = seen.paths - x
        alive = gradients["exact"].norm(dim=1) > _DEAD
        wrong = (x - seen.paths).abs().amax(1) > 1e-3
        return {
            "solution_error": float(solution_mse(x, seen.paths).mean()),
            "dead": float((~alive & wrong).float().mean()),
            "missed": float((seen.paths * (x < 1e-6)).sum() / seen.paths.sum()),
            "arcs_used": float((x > 1e-6).sum(1).float().mean() / seen.paths.sum(1).mean()),
            "cost_scale": float(w.square().mean().sqrt()),
            "cosine_jfb_exact": _cosine(gradients["JFB"], gradients["exact"], alive),
            "cosine_jfb_fenchel_young": _cosine(gradients["JFB"], gradients["Fenchel-Young"], wrong),
            "cosine_exact_fenchel_young": _cosine(gradients["exact"], gradients["Fenchel-Young"], alive),
            "excess": self._excess(seen, w),
        }

    def test(self) -> dict[str, float]:
        """Regret of the decisions on the test data, and how far they are above the floor."""
        with torch.no_grad():
            w = self.network(self.data.test.contexts)
        decided = self.data.grid.shortest_paths(w)
        test = self.data.test
        return {
            "regret": float(normalized_regret(decided, test.costs, test.paths)),
            "excess_expected": self._excess(test, w),
        }

    def _error(self, x: Tensor, costs: Tensor, paths: Tensor) -> Tensor:
        return solution_mse(x, paths) if self.case.loss == "solution" else regret(x, costs, paths)

    def _excess(self, sample: Sample, w: Tensor) -> float:
        grid = self.data.grid
        best, decided = grid.shortest_paths(sample.mean_costs), grid.shortest_paths(w)
        return float(regret(decided, sample.mean_costs, best).sum() / (sample.costs * sample.paths).sum())


def _cosine(a: Tensor, b: Tensor, where: Tensor) -> float:
    """Mean cosine of the samples' gradients; NaN-free: 0 where there is none."""
    if not bool(where.any()):
        return 0.0
    return float(torch.nn.functional.cosine_similarity(a[where], b[where], dim=1).mean())


def study(side: int, seeds: Sequence[int], epochs: int, only: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Every case over the seeds: the course of the first seed's training and the figures of all."""
    for varied, group in cases(side, epochs).items():
        if only and varied not in only:
            continue
        for case in group:
            began, runs, courses = time.perf_counter(), [], []
            for seed in seeds:
                torch.manual_seed(seed)
                trainer = Trainer(case, seed)
                courses.append(list(trainer.run()))
                runs.append({**courses[-1][-1], **trainer.test()})
            numbers = {name: [run[name] for run in runs] for name in runs[0]}
            record = {"varied": varied, **asdict(case), "numbers": numbers, "course": _mean(courses)}
            mean = interval(numbers["excess_expected"])[0]
            print(
                f"{varied:30s} {case.mode:14s} excess {mean:.4f}, dead {numbers['dead'][0]:.2f}, missed "
                f"{numbers['missed'][0]:.2f}, {time.perf_counter() - began:.0f} s",
                flush=True,
            )
            yield record


def _mean(courses: Sequence[Sequence[dict[str, float]]]) -> dict[str, list[float]]:
    """The means over the seeds, epoch by epoch."""
    names = courses[0][0]
    return {
        name: [sum(course[epoch][name] for course in courses) / len(courses) for epoch in range(len(courses[0]))]
        for name in names
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, run, write after every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the results")
    parser.add_argument("--figures", type=Path, default=None, help="folder of the figure")
    parser.add_argument("--side", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[135, 136, 137, 138, 139])
    parser.add_argument("--only", nargs="*", default=[], help="of the variations, by name")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    command = ["python", "-m", "implicit_l2o.applications.shortest_path.backward_study", "--side", str(options.side)]
    command += ["--epochs", str(options.epochs), "--seeds", *map(str, options.seeds)]
    command += ["--only", *options.only] if options.only else []
    record: dict[str, Any] = {"command": shlex.join(command), "side": options.side, "seeds": options.seeds}
    record["machine"] = machine()
    record["trainings"] = []
    for training in study(options.side, options.seeds, options.epochs, options.only):
        record["trainings"].append(training)
        write_json(options.out / f"shortest_path_backward_{options.side}.json", record)
    if options.figures is not None:
        draw_study(record, options.figures / f"shortest_path_backward_{options.side}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
